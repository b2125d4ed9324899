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
//	bound, err := engine.Bound(snapshot, engine.Options{}) // of any plan whatever
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
// Topology is arithmetic on counters: a spread or affinity term is a counter
// with a number per domain, and a rule how many more pods a domain takes.
// Hostname terms are a cap per machine.
//
// The quick path goes class by class, those with the tightest rules first:
// onto existing nodes, onto machines planned already, which may grow where that
// buys more per dollar than another machine, and onto new machines chosen by
// the value they hold per dollar when filled with all that still waits. When pods
// are left over that could have had a place, the path is gone again in other ways
// (rescue.go), and the way that places most is kept. The
// improving path then forgets the machines, keeps the domains, and buys again
// as cutting stock (package stock): patterns generated against dual prices,
// rounded, searched. It works within a budget of work units, never seconds, and
// a plan never costs more than the quick one. The dual prices also prove the
// bound.
//
// Where to read on: types.go is the glossary, cluster.go the warm form,
// catalog.go columns and kinds, topology.go counters and rules, place.go the
// quick path, rescue.go its other ways, score.go the choice of a machine,
// improve.go the second purchase and the bound of a plan, bound.go that of any
// plan, finalize.go the ranked offerings, trace.go the explanations;
// docs/designs/0002-engine.md says why it is so, 0008 and 0010 what the bounds
// rest on.
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
// For a spread over the hostname the least count is taken as zero, as a machine
// that joins is an empty domain.
//
// Pods with PodClass.Unsupported set (dynamic resource claims, at present) are
// given back with the outcome Deferred.
package engine
