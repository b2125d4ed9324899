// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers runs, against one cluster, Karpenter's lifecycle controllers as a
// library, the controllers of AKSNodeClasses and machines, and the provisioner. It
// writes NodeClaims, events and metrics. The engine decides what to buy, and package
// azure buys it; controllers reach ARM only through that package.
//
// Run is the whole controller, in a cluster or outside of it. InstallDefaults prepares
// a cluster for it.
package controllers
