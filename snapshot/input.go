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

// Input is the engine's input and what is needed to act on its answer.
type Input struct {
	Snapshot *engine.Snapshot
	// Options as Karpenter's settings ask; the caller adds budget and trace.
	Options engine.Options
	// Pods are the pending pods by the key the plan names them with.
	Pods map[string]*corev1.Pod
	// Invalid are pods that nothing can be planned for, and why: they are in no
	// verdict of the plan.
	Invalid map[string]error
	// Nodes are the nodes and claims by the name the plan uses. Read-only.
	Nodes map[string]NodeRef

	stamps         []int // what state of each node is in Snapshot.Nodes
	epoch, poolsAt int
}

// NodeRef is what stands behind an engine node. One of the two can be nil.
type NodeRef struct {
	Node  *corev1.Node
	Claim *karpv1.NodeClaim
}

// Build translates a cluster once, from lists.
func Build(o *Objects) (*Input, error) {
	c, err := Load(o)
	if err != nil {
		return nil, err
	}
	return c.Snapshot(o.Now)
}

// Load makes a Cache of a cluster given as lists.
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
	for id := range c.marked {
		o.Marked = append(o.Marked, id)
	}
	o.sort()
	return o
}

// Snapshot returns the engine's input for now. Parts of it are shared with later
// snapshots: treat it as read-only.
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
	leaving, err := c.leaving(ctx, now)
	if err != nil {
		return nil, err
	}
	// Pending pods first: their shapes can bring new label keys.
	waiting := c.waiting(ctx, leaving, in)
	c.assumed.keepExpired(func(key string) bool { return in.Pods[key] != nil })
	c.refreshDaemonClasses()
	if c.keysSeen != c.shapes.keysVersion {
		c.keysSeen = c.shapes.keysVersion
		c.nodesOld = true
	}
	c.addPools(in.Snapshot)
	c.addNodes(ctx, in, leaving)
	c.addQuotas(in.Snapshot)
	in.Snapshot.Pending = c.groups(waiting)
	in.Snapshot.Daemons = c.daemonID
	in.Snapshot.Classes = slices.Clip(c.shapes.classes)
	in.epoch, in.poolsAt = c.epoch, c.poolsAt
	c.collect(in.Snapshot)
	return in, nil
}

// collect starts anew with the shapes when most classes are those of pods long
// gone, so that a long life does not make the cache grow.
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
	c.shapesOld, c.daemonsOld = true, true
	c.epoch++
}

func (s Settings) options() engine.Options {
	var o engine.Options
	if s.IgnorePreferences {
		o.Preferences = engine.PreferencesIgnore
	}
	if s.MinValuesBestEffort {
		o.MinValues = engine.MinValuesBestEffort
	}
	return o
}

// context carries the options that Karpenter's helpers read.
func (c *Cache) context() context.Context {
	o := &options.Options{FeatureGates: options.DefaultFeatureGates()}
	if len(c.settings.DefaultSpread) > 0 {
		o.SchedulerConfig = &options.SchedulerConfiguration{PodTopologySpread: &options.PodTopologySpreadConfig{DefaultConstraints: c.settings.DefaultSpread}}
	}
	return log.IntoContext(options.ToContext(context.Background(), o), logging.NopLogger)
}

// refreshShapes sees to it that every pod has a shape, so that all label keys
// that matter are known before classes are numbered.
func (c *Cache) refreshShapes(ctx context.Context) {
	if len(c.shapes.byKey) > 1024+4*len(c.pods) { // claims of pods long gone
		c.shapesOld = true
	}
	if c.shapesOld {
		c.shapes.forget()
		c.shapesOld = false
		c.nodesOld = true
		for k, r := range c.pods {
			r.shape = nil
			c.fresh[k] = r
		}
	}
	if len(c.fresh) == 0 {
		return
	}
	var inject *karpsched.DefaultTopologySpreadInjector
	if len(c.settings.DefaultSpread) > 0 {
		inject = karpsched.NewDefaultTopologySpreadInjector(c.client)
	}
	// In the order of the names, so that classes are numbered the same way
	// whatever the order of the events was.
	for _, k := range slices.Sorted(maps.Keys(c.fresh)) {
		r := c.fresh[k]
		r.shape = c.shapes.of(ctx, withDefaults(ctx, inject, r.pod))
		r.keysVersion = -1
	}
	clear(c.fresh)
}

func withDefaults(ctx context.Context, inject *karpsched.DefaultTopologySpreadInjector, p *corev1.Pod) *corev1.Pod {
	if inject == nil || len(p.Spec.TopologySpreadConstraints) > 0 {
		return p
	}
	shallow := *p
	inject.Inject(ctx, []*corev1.Pod{&shallow})
	return &shallow
}
