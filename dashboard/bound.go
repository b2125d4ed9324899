// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// BoundOf proves a lower bound of what the machines of NodePools must cost for the pods
// that are on them: as if all could be bought anew, with the nodes that nap does not own
// as they are. cost is what the machines cost now, in dollars per hour. It returns nil
// if there are no such pods. The engine bounds its work to about a second.
func BoundOf(o *snapshot.Objects, cost float64) (*Bound, error) {
	in, err := snapshot.Build(o)
	if err != nil {
		return nil, fmt.Errorf("translating the cluster: %w", err)
	}
	s := *in.Snapshot
	s.Nodes = nil
	daemons := daemonKeys(o)
	again := map[engine.ClassID][]string{}
	for _, g := range in.Snapshot.Pending {
		for _, pod := range g.Pods {
			// Pods of machines that are leaving are to be placed, but run.
			if p := in.Pods[pod]; p != nil && p.Spec.NodeName != "" && !daemons[pod] {
				again[g.Class] = append(again[g.Class], pod)
			}
		}
	}
	for i := range in.Snapshot.Nodes {
		n := &in.Snapshot.Nodes[i]
		if n.NodePool == "" {
			s.Nodes = append(s.Nodes, *n)
			continue
		}
		for _, g := range n.Pods {
			if s.Classes[g.Class].Terminating {
				continue
			}
			for _, pod := range g.Pods {
				if !daemons[pod] { // room for them is part of every machine
					again[g.Class] = append(again[g.Class], pod)
				}
			}
		}
	}
	s.Pending = nil
	for class := range engine.ClassID(len(s.Classes)) {
		if pods := again[class]; len(pods) > 0 {
			s.Pending = append(s.Pending, engine.PodGroup{Class: class, Pods: pods})
		}
	}
	// What is bought anew may use the limits and quotas that its predecessors used.
	s.Pools = append([]engine.NodePool(nil), s.Pools...)
	for i := range s.Pools {
		s.Pools[i].Limits, s.Pools[i].Usage = nil, nil
	}
	if len(s.Pending) == 0 {
		return nil, nil
	}
	found, err := engine.Bound(&s, in.Options)
	if err != nil {
		return nil, fmt.Errorf("computing the bound: %w", err)
	}
	b := &Bound{USDPerHour: found.USDPerHour, Cost: cost, Pods: found.Pods, Kind: found.Kind, Time: o.Now}
	if b.USDPerHour > 0 {
		b.Gap = max(0, b.Cost/b.USDPerHour-1)
	}
	return b, nil
}

// daemonKeys returns the keys of all pods of DaemonSets.
func daemonKeys(o *snapshot.Objects) map[string]bool {
	out := map[string]bool{}
	for _, p := range o.Pods {
		for _, ref := range p.OwnerReferences {
			if ref.Kind == "DaemonSet" {
				out[snapshot.PodKey(p)] = true
			}
		}
	}
	return out
}
