// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package dashboard shows node auto-provisioning as it happens: what the cluster costs
// beside the proven lower bound, what each machine was bought for and why it stays, why
// pods wait, and what was decided in the last days.
//
// A Builder makes a State from the objects of a cluster; it needs no controller, so
// nap top uses it on any cluster with NodePools. A Live keeps the State of a running
// controller, a Recorder keeps its history in a folder, and a Server serves both to
// the embedded page. Everything here only reads the cluster.
package dashboard
