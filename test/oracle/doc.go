// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package oracle checks plans of the engine against three oracles, on clusters
// generated from seeds:
//
//   - The kube-scheduler: each placed pod passes the Filter plugins on its node or
//     planned machine, together with all other placed pods.
//   - Karpenter's scheduler on the same objects: the engine places every pod that
//     Karpenter places, and does not pay more.
//   - The bound: no plan costs less than the proven lower bound.
//
// The first and the third must hold for each cluster. The second is checked over all
// clusters: if capacity on existing nodes, in a domain or under limits is scarce,
// either scheduler may give it to the wrong pod. The engine tries alternatives before
// it leaves a pod unplaced. In at most one cluster of 1,000 Karpenter may place more
// pods than the engine. Where both place the same pods and no preferences are
// involved, the engine's total cost must not be higher. Pods that Karpenter places
// against the rules of the kube-scheduler, or only because of the order of the pods,
// do not count (see invalidPlacements).
//
// The remaining cases, about one cluster in 2,500, are of three kinds: NodePool limits
// that only one combination of machines fits under; a required affinity that
// contradicts itself, which Karpenter considers satisfied; and a spread over the
// hostname for pods that no machine fits, where the engine assumes a future empty
// node.
//
// The package has only tests. A failing seed prints the command that repeats it:
//
//	go test ./test/oracle -run TestOracles -oracle.seed=N -v
package oracle
