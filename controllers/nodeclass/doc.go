// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodeclass holds the controllers of AKSNodeClasses: the hash that detects
// drift, the status that launches depend on, and the finalizer that keeps a class as
// long as NodeClaims use it.
package nodeclass
