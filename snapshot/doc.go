// Package snapshot translates a cluster into what the engine decides on. It
// reads Kubernetes and Karpenter objects and instance types, and gives an
// engine.Snapshot; it decides nothing and writes nothing.
//
// A Cache is the live mirror: informers call Upsert and Delete, and Snapshot
// gives the engine's input for now. Only what changed is translated again:
// pods are interned by shape, a node is rebuilt when it or a pod on it changes.
// Build does the same once, from lists. Objects can be written to a file and
// read back (WriteFile, ReadFile): the decision log, the bug report, and the
// input of `nap plan --snapshot`.
//
// # What becomes of what
//
//   - Pods become classes: everything that scheduling sees (PodClass), with only
//     those labels that some selector of the cluster looks at. Requests are
//     Karpenter's and so the kube-scheduler's: init containers, sidecars,
//     overhead, pod-level resources, in-place resizes.
//   - Pending pods are those Karpenter would provision for (marked unschedulable
//     by the kube-scheduler and valid), the reschedulable pods of nodes that are
//     being deleted, and the virtual pods of CapacityBuffers. Pods that cannot be
//     considered at all are in Input.Invalid, with the reason.
//   - A node and its NodeClaim become one engine.Node with Karpenter's reading of
//     labels, taints and allocatable while it is not yet initialized. A
//     NodeClaim without a machine yet is a node with undecided labels and the
//     least allocatable of its possible types.
//   - DaemonSets become classes of daemons; volumes become topology terms and
//     attachment counts; namespace selectors are resolved to names.
//   - NodePools keep weight, limits, requirements, taints; those that cannot
//     create machines now carry the reason (Blocked).
//
// Karpenter's own helpers do the parts where the semantics are Karpenter's to
// define (volume topology, default spread constraints, validation, state of a
// node), so both schedulers see the same cluster.
package snapshot
