// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plan answers what-if questions. It places the pods of a cluster, of a
// snapshot file or of manifests, and reports the machines to buy, their cost, the
// distance from a proven lower bound, and the reason for each pod without a place.
// It runs the engine on a snapshot and renders the result for a person or as JSON
// (docs/plan.md). It reads clusters and never writes to one.
//
// NewPlanCommand and NewExplainCommand return the commands nap plan and nap
// explain.
package plan
