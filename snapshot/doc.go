// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package snapshot translates a cluster into the input of the engine. It reads
// Kubernetes and Karpenter objects and instance types, and returns an engine.Snapshot;
// it decides nothing and writes nothing to the cluster.
//
// A Cache follows a live cluster: informers call Upsert and Delete, and Snapshot
// returns the input of the engine for the time now. Only what changed is translated
// again: pods are interned by shape, and a node is translated again when it or a pod on
// it changes. The Cache also owns the assumed pods, which a plan has placed and the
// scheduler has not bound yet. Build translates a cluster once, from lists. WriteFile
// and ReadFile write objects to a file and read them back, for the log of decisions,
// bug reports and nap plan --snapshot.
//
// # Translation
//
//   - Pods become classes (PodClass): everything that scheduling depends on, with only
//     those labels that some selector in the cluster uses. Requests are computed by
//     Karpenter, and so equal the kube-scheduler's: init containers, sidecars,
//     overhead, pod-level resources, in-place resizes.
//   - Pending pods are the valid pods that the kube-scheduler marked as unschedulable,
//     untried pods like those, the reschedulable pods of nodes being deleted, and the
//     virtual pods of CapacityBuffers. Assumed pods are not pending; they count on
//     their node. Input.Invalid has the pods that cannot be planned for, with the
//     reason.
//   - A node and its NodeClaim become one engine.Node. Until the node is initialized,
//     its labels, taints and allocatable are those that Karpenter expects. A NodeClaim
//     without a machine is a node with undecided labels and the least allocatable of
//     its possible types.
//   - DaemonSets become classes of daemons. Volumes become topology terms and
//     attachment counts. Namespace selectors are resolved to names.
//   - NodePools keep weight, limits, requirements and taints. Those that cannot create
//     machines now have the reason in Blocked.
//
// Where Karpenter defines the semantics (volume topology, default spread constraints,
// validation, state of a node), its own helpers do the translation, so both schedulers
// see the same cluster.
package snapshot
