// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package engine decides where pods go and which machines to create for them, at
// the lowest cost. It is a pure function of a value.
//
// # Input and output
//
// The input is a Snapshot: pod classes, pending pods, nodes, NodePools, instance
// types with offerings and prices. The output is a Plan: pods for existing nodes,
// machines to create with their ranked offerings, a verdict for every pending pod,
// the cost, a proven lower bound on it, and a Trace that explains it. The package
// knows no Kubernetes, no cloud, no clock and no randomness, writes no log and
// starts no goroutine that outlives a call. The same Snapshot and Options give the
// same Plan, byte for byte, so a snapshot file is a decision log, the input of a
// what-if and a bug report.
//
//	plan, err := engine.Place(snapshot, engine.Options{})
//	bound, err := engine.Bound(snapshot, engine.Options{}) // of any plan
//
// # Cluster
//
// An owner that follows a live cluster compiles a Snapshot once and then applies
// changes:
//
//	c, err := engine.Compile(snapshot)   // or an empty Snapshot
//	id, err := c.Class(podClass)         // interns a class
//	err = c.SetNode(node)                // adds or replaces, pods included
//	err = c.AddPods(node, id, key...)    // pods were bound
//	err = c.RemovePods(node, id, key...) // pods are gone
//	c.RemoveNode(name)
//	err = c.SetUsage(pool, usage)
//	err = c.SetCatalogue(pools, catalogues, quotas, daemons)
//	plan, err := c.Place(pending, engine.Options{})
//	file := c.Snapshot(now, pending)     // back to the value form
//
// Place leaves the Cluster as it found it. Its time and memory are proportional to
// the pending classes and the planned machines, not to the cluster. A Cluster is
// not safe for concurrent use; its owner locks.
//
// # How it works
//
// Compile first, then count. Pods come in classes; a class is compiled once into a
// row of bits over all offerings (which can hold it, by labels and taints) and a
// small vector of integers (what one pod takes). "Which offerings can hold both
// classes" is an AND of two rows, "how many fit" a minimum over dimensions, and a
// machine is filled with hundreds of pods in one step.
//
// Where a label can have several values (a NodePool requirement with several
// values, an instance type in several variants), each becomes a separate
// column, but only for labels that a pending class looks at. Within a column every label
// has one value, so two pods cannot disagree about a machine.
//
// Topology is arithmetic on counters: a spread or affinity term is a counter with
// a number per domain, and a rule says how many more pods a domain takes. Rules
// over the hostname are a cap per machine.
//
// The quick path places class by class, those with the tightest rules first: onto
// existing nodes, onto planned machines, which grow where that buys more per
// dollar than another machine, and onto new machines, chosen by the value they
// hold per dollar when filled with all that still waits. If pods are left over
// that might have had a place, it is repeated with other strategies, and the one
// that places most is kept. The improving path keeps the domains and chooses the
// machines again as a cutting stock problem (package stock): patterns generated
// against dual prices, rounded, searched. Its budget is counted in work units,
// never in seconds, and its plan never costs more than the quick one. The dual
// prices also prove the bound.
//
// # State of a pass
//
// A pass works on a few types, each with the invariant in its comment:
//
//   - ledger: what is left of NodePool limits, quotas and reservations.
//   - domains: pods per topology domain, and which domains a spread counts.
//   - preferences: what a class prefers, and how far that is relaxed.
//   - plannedMachine: a machine to create, its pods, and what it may still be.
//   - existing: the nodes, in-flight ones included, and how to restore them.
//   - cursors: where the search among planned machines has stopped.
//   - market: what resources are worth, and which pods still wait.
//
// # Files
//
// types.go is the glossary. cluster.go and nodes.go have the Cluster, catalog.go
// and columns.go the compiled catalogue, rows.go which columns hold a class.
// place.go has the steps of a pass, placement.go the quick path, retry.go its
// other strategies, tuples.go the next domain, rules.go the topology rules,
// choose.go the choice of a new machine, rightsize.go and dissolve.go what makes
// machines cheaper, improve.go the improving path, bound.go the bound of any plan,
// rank.go the ranked offerings, plan.go the Plan, trace.go the explanations.
// docs/designs/0002-engine.md gives the reasons, 0008 and 0010 those of the bounds.
//
// # Rules that always hold
//
//   - Every pending pod is in exactly one verdict.
//   - Every placement satisfies the constraints that the kube-scheduler's filters
//     check. Preferences are relaxed one by one before a pod is refused.
//   - NodePool limits, quotas and reservations are drawn as the pass proceeds.
//   - A class that cannot be placed costs bounded work and delays no other.
//   - A planned machine has the offerings that hold its pods, by price.
//
// # Not compiled
//
// For a spread over the hostname the least count is taken as zero, as a new
// machine is an empty domain.
//
// Pods with PodClass.Unsupported set (dynamic resource claims, at present) get the
// outcome Deferred.
package engine
