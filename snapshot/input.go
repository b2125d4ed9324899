// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	"sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/engine"
)

// Input is the input of the engine with what is needed to execute its plan.
type Input struct {
	Snapshot *engine.Snapshot
	// Options are set from Karpenter's settings; the caller adds budget and trace.
	Options engine.Options
	// Pods are the pending pods by the key that the plan uses.
	Pods map[string]*corev1.Pod
	// Invalid are the pods that cannot be planned for, with the reason. The plan has no
	// verdict on them.
	Invalid map[string]error
	// Nodes are the nodes and NodeClaims by the name that the plan uses. Read-only.
	Nodes map[string]NodeRef

	stamps         []int // version of each node of Snapshot.Nodes
	epoch, poolsAt int
}

// NodeRef holds the objects of an engine node. One of the two can be nil.
type NodeRef struct {
	Node  *corev1.Node
	Claim *karpv1.NodeClaim
}

// Build translates a cluster, given as lists, once.
func Build(o *Objects) (*Input, error) {
	c, err := Load(o)
	if err != nil {
		return nil, err
	}
	return c.Snapshot(o.Now)
}

// Load returns a Cache of a cluster given as lists.
func Load(o *Objects) (*Cache, error) {
	c := NewCache(o.Settings)
	var err error
	o.Each(func(obj client.Object) {
		if e := c.Upsert(obj); e != nil && err == nil {
			err = e
		}
	})
	if err != nil {
		return nil, err
	}
	for pool, list := range o.InstanceTypes {
		c.SetInstanceTypes(pool, list)
	}
	c.SetQuotas(o.Quotas)
	c.SetVirtualPods(o.VirtualPods)
	c.SetMarked(o.Marked)
	for pod, on := range o.Assumed {
		c.Assume(pod, on)
	}
	held := map[string]bool{}
	for _, pod := range o.Held {
		held[pod] = true
	}
	c.Hold(held)
	return c, nil
}

// Objects returns the cluster as lists, for a snapshot file.
func (c *Cache) Objects(now time.Time) *Objects {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &Objects{Now: now, Settings: c.settings, VirtualPods: c.virtual, Quotas: slices.Clone(c.quotas), InstanceTypes: map[string][]*cloudprovider.InstanceType{}, Assumed: map[string]string{}}
	c.client.Each(func(obj client.Object) { o.Add(obj) })
	for k, v := range c.types {
		o.InstanceTypes[k] = v
	}
	for key, as := range c.assumed.pods {
		o.Assumed[key] = as.on
	}
	o.Held = slices.Sorted(maps.Keys(c.held))
	for id := range c.marked {
		o.Marked = append(o.Marked, id)
	}
	o.sort()
	return o
}

// Snapshot returns the input of the engine for the time now. Parts of it are shared
// with later snapshots: treat it as read-only.
func (c *Cache) Snapshot(now time.Time) (*Input, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx := c.context()
	c.refreshShapes(ctx)
	c.refreshDaemons(ctx)

	in := &Input{
		Snapshot: &engine.Snapshot{Version: engine.SnapshotVersion, Time: now},
		Options:  c.settings.options(),
		Pods:     map[string]*corev1.Pod{}, Invalid: map[string]error{}, Nodes: map[string]NodeRef{},
	}
	moving, err := c.reschedulable(ctx, now)
	if err != nil {
		return nil, err
	}
	// Pending pods come first: their shapes can add label keys.
	toPlace := c.podsToPlace(ctx, moving, in)
	c.assumed.keepExpired(func(key string) bool { return in.Pods[key] != nil })
	c.refreshDaemonClasses()
	if c.keysSeen != c.shapes.keysVersion {
		c.keysSeen = c.shapes.keysVersion
		c.nodesStale = true
	}
	c.addPools(in.Snapshot)
	c.addNodes(ctx, in, moving)
	c.addQuotas(in.Snapshot)
	in.Snapshot.Pending = c.groups(toPlace)
	in.Snapshot.Daemons = c.daemonClasses
	in.Snapshot.Classes = slices.Clip(c.shapes.classes)
	in.epoch, in.poolsAt = c.epoch, c.poolsAt
	c.collect(in.Snapshot)
	return in, nil
}

// collect drops all shapes when most classes belong to pods that are gone, so that the
// cache does not grow without limit.
func (c *Cache) collect(s *engine.Snapshot) {
	if len(s.Classes) < max(c.classesMax, 256) {
		return
	}
	used := map[engine.ClassID]bool{}
	for _, g := range s.Pending {
		used[g.Class] = true
	}
	for i := range s.Nodes {
		for _, g := range s.Nodes[i].Pods {
			used[g.Class] = true
		}
	}
	c.classesMax = max(2*len(used), 256)
	if len(s.Classes) < c.classesMax {
		return
	}
	c.shapes = newShapes(c.client)
	c.shapesStale, c.daemonsStale = true, true
	c.epoch++
}

// options returns the engine options that the settings ask for.
func (s Settings) options() engine.Options {
	var o engine.Options
	switch {
	case s.IgnorePreferences:
		o.Preferences = engine.PreferencesIgnore
	case s.PricedPreferences:
		o.Preferences = engine.PreferencesPriced
	}
	if s.MinValuesBestEffort {
		o.MinValues = engine.MinValuesBestEffort
	}
	return o
}

// context returns a context with the options that Karpenter's helpers read.
func (c *Cache) context() context.Context {
	o := &options.Options{FeatureGates: options.DefaultFeatureGates()}
	if len(c.settings.DefaultSpread) > 0 {
		o.SchedulerConfig = &options.SchedulerConfiguration{PodTopologySpread: &options.PodTopologySpreadConfig{DefaultConstraints: c.settings.DefaultSpread}}
	}
	return log.IntoContext(options.ToContext(context.Background(), o), logging.NopLogger)
}

// refreshShapes gives every pod a shape, so that all label keys that matter are known
// before classes are numbered.
func (c *Cache) refreshShapes(ctx context.Context) {
	if len(c.shapes.byKey) > 1024+4*len(c.pods) { // most shapes belong to pods that are gone
		c.shapesStale = true
	}
	if c.shapesStale {
		c.shapes.forget()
		c.shapesStale = false
		c.nodesStale = true
		for k, r := range c.pods {
			r.shape = nil
			c.unshaped[k] = r
		}
	}
	if len(c.unshaped) == 0 {
		return
	}
	var inject *karpsched.DefaultTopologySpreadInjector
	if len(c.settings.DefaultSpread) > 0 {
		inject = karpsched.NewDefaultTopologySpreadInjector(c.client)
	}
	// In the order of the names, so that the numbers of classes do not depend on the
	// order of events.
	for _, k := range slices.Sorted(maps.Keys(c.unshaped)) {
		r := c.unshaped[k]
		r.shape = c.shapes.of(ctx, withDefaults(ctx, inject, r.pod))
		r.keysVersion = -1
	}
	clear(c.unshaped)
}

// withDefaults returns the pod with the default spread constraints, if it has none.
func withDefaults(ctx context.Context, inject *karpsched.DefaultTopologySpreadInjector, p *corev1.Pod) *corev1.Pod {
	if inject == nil || len(p.Spec.TopologySpreadConstraints) > 0 {
		return p
	}
	shallow := *p
	inject.Inject(ctx, []*corev1.Pod{&shallow})
	return &shallow
}
