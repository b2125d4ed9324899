// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machines holds the controllers that reconcile machines in Azure with
// NodeClaims: garbage collection of machines without NodeClaim, in-place updates of
// tags, and the periodic refresh of sizes, quotas and prices.
package machines
