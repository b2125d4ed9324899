// Package network is Microsoft.Network of the local Azure: virtual networks and
// their subnets, and what subnets and clusters refer to (public IP addresses,
// NAT gateways, network security groups, route tables, load balancers), with
// peerings of networks and private DNS zones.
//
// Subnets are records of their own below their network's. Whatever changes a
// subnet writes the network's record in the same transaction, as Azure does
// with the network's etag, so that two requests that would let ranges overlap
// can never both be accepted.
//
// Nothing here moves packets: the package keeps the promises that ARM makes
// about addresses, references and use. Other providers ask FindSubnet.
package network
