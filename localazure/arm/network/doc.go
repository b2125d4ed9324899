// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package network is Microsoft.Network of the local Azure: virtual networks and
// their subnets, the resources that subnets and clusters refer to (public IP
// addresses, NAT gateways, network security groups, route tables, load
// balancers), peerings of networks, and private DNS zones.
//
// A subnet is a record below its network's. Every change of a subnet also writes
// the network's record in the same transaction, as Azure changes the network's
// etag, so that of two requests whose ranges overlap only one is accepted.
//
// The package transports no packets: it enforces ARM's rules on addresses,
// references and use. Other providers look up subnets with FindSubnet.
package network
