package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nap-aks/nap/engine"
)

// warm is the engine's compiled form of the cluster, brought up to date with
// what changed instead of being compiled for each pass.
type warm struct {
	mu      sync.Mutex
	cluster *engine.Cluster
	epoch   int
	poolsAt int
	classes int
	nodes   map[string]int // stamp by name
	usage   []engine.Resources
	quotas  []engine.Quota
}

// Place asks the engine for a plan of an input of this cache, as engine.Place
// does with in.Snapshot, and gives the same plan. It keeps the compiled cluster
// between calls: the time is in proportion to the nodes that changed and the
// pods to place. Inputs must come in the order in which Snapshot gave them.
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
		w.cluster = nil // whatever is wrong, do not build on it
	}
	return plan, err
}

func (w *warm) sync(in *Input) error {
	s := in.Snapshot
	if w.cluster == nil || w.epoch != in.epoch || w.classes > len(s.Classes) {
		return w.compile(in)
	}
	for id := w.classes; id < len(s.Classes); id++ {
		got, err := w.cluster.Class(s.Classes[id])
		if err != nil {
			return fmt.Errorf("class %d (%s): %w", id, s.Classes[id].Name, err)
		}
		if got != engine.ClassID(id) {
			return w.compile(in)
		}
	}
	w.classes = len(s.Classes)
	if w.poolsAt != in.poolsAt {
		if err := w.cluster.SetCatalogue(s.Pools, s.Catalogues, s.Quotas, s.Daemons); err != nil {
			return fmt.Errorf("taking over NodePools and instance types: %w", err)
		}
		w.poolsAt = in.poolsAt
	} else {
		for i := range s.Pools {
			if !maps.Equal(w.usage[i], s.Pools[i].Usage) {
				if err := w.cluster.SetUsage(s.Pools[i].Name, s.Pools[i].Usage); err != nil {
					return fmt.Errorf("taking over the use of NodePool %s: %w", s.Pools[i].Name, err)
				}
			}
		}
	}
	if !slices.Equal(w.quotas, s.Quotas) {
		if err := w.cluster.SetQuotas(s.Quotas); err != nil {
			return fmt.Errorf("taking over quotas: %w", err)
		}
	}
	w.usages(s)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if at, ok := w.nodes[n.Name]; ok && at == in.stamps[i] {
			continue
		}
		if err := w.cluster.SetNode(*n); err != nil {
			return fmt.Errorf("taking over node %s: %w", n.Name, err)
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

func (w *warm) usages(s *engine.Snapshot) {
	w.usage, w.quotas = w.usage[:0], s.Quotas
	for i := range s.Pools {
		w.usage = append(w.usage, s.Pools[i].Usage)
	}
}
