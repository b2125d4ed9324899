// Package engine decides where pods go and which machines to buy for them, at
// the lowest cost, as pure functions of a value.
//
// # In and out
//
// A Snapshot goes in: pod classes, pending pods, nodes, NodePools, instance
// types with offerings and prices. A Plan comes out: pods onto existing nodes,
// machines to create with their ranked alternatives, a verdict for every
// pending pod, the cost, a proven lower bound on it, and a Trace that says why.
// The package knows no Kubernetes, no cloud, no clock, no randomness, writes no
// log and starts no goroutine that outlives a call. The same Snapshot and
// Options give the same Plan, byte for byte: a snapshot file is the decision
// log, the what-if input and the bug report.
//
//	plan, err := engine.Place(snapshot, engine.Options{})
//
// # The warm form
//
// An owner that follows a live cluster does not build a Snapshot for each
// pass. It compiles once and folds changes as they come:
//
//	c, err := engine.Compile(snapshot)   // or an empty Snapshot
//	id, err := c.Class(podClass)         // interns a shape
//	err = c.SetNode(node)                // add or replace, pods included
//	err = c.AddPods(node, id, key...)    // a pod was bound
//	err = c.RemovePods(node, id, key...) // … or is gone
//	c.RemoveNode(name)
//	err = c.SetUsage(pool, usage)
//	err = c.SetCatalogue(pools, catalogues, quotas, daemons)
//	plan, err := c.Place(pending, engine.Options{})
//	file := c.Snapshot(now, pending)     // back to the value form
//
// Place leaves the Cluster as it found it, and costs time and memory in
// proportion to the pending classes and the machines it plans, not to the
// cluster. A Cluster is not safe for concurrent use; its owner locks.
//
// # How it works
//
// Compile, then count. Pods come in classes; a class is compiled once into a
// row of bits over all offerings (which may hold it, by labels and taints) and
// a small vector of integers (what one pod takes). "Which offerings can hold
// both classes" is an AND of two rows, "how many fit" a minimum over
// dimensions, and a machine is filled with hundreds of pods in one step.
//
// Label values that are open (a NodePool requirement with several values, an
// instance type that comes in several flavours) become columns of their own,
// but only for keys that some pending class looks at. Within a column every
// label has one value, so no pair of pods can disagree about a machine.
//
// Topology is arithmetic on counters: a spread or affinity term is a group
// with a count per domain. Zones are chosen before machines are filled;
// hostname terms are a cap per machine.
//
// The quick path places onto existing nodes, then fills new machines greedily
// by the value they hold per dollar. The improving path sees the rest as
// cutting stock: an LP over patterns (machine type + pods per class) whose dual
// prices generate better patterns, rounded, repaired, right-sized. It works
// within a budget of work units, never seconds, and never returns a plan that
// costs more than the quick one. The dual prices also prove the bound.
//
// # Rules that always hold
//
//   - Every pending pod is in exactly one verdict.
//   - Every placement satisfies every constraint the kube-scheduler's filters
//     check. Preferences are given up one by one before a pod is refused.
//   - NodePool limits, quotas and reservations are drawn as the pass goes.
//   - A class that cannot be placed costs bounded work and delays nobody.
//   - A planned machine carries the offerings that hold its pods, by price.
//
// # Not compiled
//
// Pods with PodClass.Unsupported set (dynamic resource claims, at present) are
// given back with the outcome Deferred.
package engine
