// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package azure is Karpenter's CloudProvider for AKS. It creates and deletes
// machines through the AKS machine API (agentPools/{pool}/machines) and knows
// sizes, prices, quotas, stock-outs, node images and drift.
//
// Its input is Karpenter's calls, an ARM endpoint with a credential, and the
// AKSNodeClasses of the cluster; its output is machines. It does not know whether
// Azure or a local ARM serves the endpoint. Of this project it imports only apis,
// catalog and azure/instancetype.
//
// Create launches a machine in one call. It ranks the offerings that fit the
// NodeClaim by price and requests the first. After a stock-out or an exhausted
// quota it marks the offering unavailable and tries the next, until a machine is
// up or no offering is left.
package azure
