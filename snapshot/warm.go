// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nap-aks/nap/engine"
)

// warm is the compiled cluster of the engine. It is updated with what has changed
// instead of being compiled for each pass.
type warm struct {
	mu      sync.Mutex
	cluster *engine.Cluster
	epoch   int
	poolsAt int
	classes int
	nodes   map[string]int // stamp by node name
	usage   []engine.Resources
	quotas  []engine.Quota
}

// Place returns the plan that engine.Place makes for in.Snapshot. It keeps the compiled
// cluster between calls, so its time grows with the nodes that changed and the pods to
// place, not with the cluster. Pass inputs in the order in which Snapshot returned
// them.
func (c *Cache) Place(in *Input, o engine.Options) (*engine.Plan, error) {
	w := &c.warm
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.sync(in); err != nil {
		w.cluster = nil
		return nil, err
	}
	plan, err := w.cluster.Place(in.Snapshot.Pending, o)
	if err != nil {
		w.cluster = nil // its state is unknown: compile again
	}
	return plan, err
}

// sync brings the compiled cluster up to date with the input.
func (w *warm) sync(in *Input) error {
	s := in.Snapshot
	if w.cluster == nil || w.epoch != in.epoch || w.classes > len(s.Classes) {
		return w.compile(in)
	}
	for id := w.classes; id < len(s.Classes); id++ {
		got, err := w.cluster.Class(s.Classes[id])
		if err != nil {
			return fmt.Errorf("adding class %d (%s): %w", id, s.Classes[id].Name, err)
		}
		if got != engine.ClassID(id) {
			return w.compile(in)
		}
	}
	w.classes = len(s.Classes)
	if w.poolsAt != in.poolsAt {
		if err := w.cluster.SetCatalogue(s.Pools, s.Catalogues, s.Quotas, s.Daemons); err != nil {
			return fmt.Errorf("updating NodePools and instance types: %w", err)
		}
		w.poolsAt = in.poolsAt
	} else {
		for i := range s.Pools {
			if !maps.Equal(w.usage[i], s.Pools[i].Usage) {
				if err := w.cluster.SetUsage(s.Pools[i].Name, s.Pools[i].Usage); err != nil {
					return fmt.Errorf("updating the usage of NodePool %s: %w", s.Pools[i].Name, err)
				}
			}
		}
	}
	if !slices.Equal(w.quotas, s.Quotas) {
		if err := w.cluster.SetQuotas(s.Quotas); err != nil {
			return fmt.Errorf("updating quotas: %w", err)
		}
	}
	w.usages(s)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if at, ok := w.nodes[n.Name]; ok && at == in.stamps[i] {
			continue
		}
		if err := w.cluster.SetNode(*n); err != nil {
			return fmt.Errorf("updating node %s: %w", n.Name, err)
		}
		w.nodes[n.Name] = in.stamps[i]
	}
	if len(w.nodes) > len(s.Nodes) {
		for name := range w.nodes {
			if _, ok := in.Nodes[name]; !ok {
				w.cluster.RemoveNode(name)
				delete(w.nodes, name)
			}
		}
	}
	return nil
}

// compile compiles the cluster of the input.
func (w *warm) compile(in *Input) error {
	s := in.Snapshot
	var err error
	if w.cluster, err = engine.Compile(s); err != nil {
		return err
	}
	w.epoch, w.poolsAt, w.classes = in.epoch, in.poolsAt, len(s.Classes)
	w.nodes = make(map[string]int, len(s.Nodes))
	for i := range s.Nodes {
		w.nodes[s.Nodes[i].Name] = in.stamps[i]
	}
	w.usages(s)
	return nil
}

// usages records the usage and quotas that the compiled cluster has.
func (w *warm) usages(s *engine.Snapshot) {
	w.usage, w.quotas = w.usage[:0], s.Quotas
	for i := range s.Pools {
		w.usage = append(w.usage, s.Pools[i].Usage)
	}
}
