// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package provisioning is the provisioner: it watches pods that cannot be
// scheduled, asks the engine for a plan, and writes the NodeClaims of the plan. It
// decides nothing itself.
//
// A pass collects pending pods for a short time (batching), brings the snapshot
// cache up to date, asks for a plan, creates its NodeClaims, and reports a verdict
// for every pod. Planned pods are assumed: until the scheduler binds them, they count
// on their node or NodeClaim, so that the next pass does not buy a second machine for
// them. An assumption ends early if the machine fails, or if the scheduler does not
// bind the pod in time; see expireAssumed. The snapshot cache owns the assumed pods.
//
// Only the pods that need a feature the engine does not support are handed to
// Karpenter's scheduler; a metric counts them.
package provisioning
