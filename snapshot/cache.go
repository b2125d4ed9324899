package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	"sigs.k8s.io/karpenter/pkg/operator/options"
	"sigs.k8s.io/karpenter/pkg/utils/pdb"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/kubemem"
)

// ErrUnknownKind is wrapped by Upsert and Delete for an object of a kind that
// no decision depends on.
var ErrUnknownKind = errors.New("no decision depends on objects of this kind")

// Cache follows a cluster and keeps it in the engine's terms. Give it every
// object of the kinds that Objects lists, as they appear, change and go; ask it
// for the engine's input when a decision is due. It is safe for concurrent use.
//
// Objects given to it must not be changed afterwards (informers' objects are
// not).
type Cache struct {
	mu       sync.Mutex
	client   *kubemem.Client
	shapes   *shapes
	settings Settings

	pods     map[string]*podRecord
	onNode   map[string]map[string]*podRecord // by node name
	pending  map[string]*podRecord            // without a node
	fresh    map[string]*podRecord            // without a shape
	machines map[string]*machine              // by key, see machineKey
	byNode   map[string]*machine              // by node name
	byClaim  map[string]*machine              // by claim name
	pools    map[string]*karpv1.NodePool
	daemons  map[types.NamespacedName]*appsv1.DaemonSet
	virtual  []*corev1.Pod
	marked   map[string]bool   // provider IDs
	promised map[string]string // pod key to node or claim name
	types    map[string][]*cloudprovider.InstanceType
	quotas   []Quota

	catalogues catalogues
	daemonSets []daemon
	daemonsOld bool // daemonSets has to be made again
	nodesOld   bool // every node has to be translated again
	shapesOld  bool // every pod has to be looked up again
	keysSeen   int  // shapes.keysVersion that the nodes were translated with
	classesMax int  // number of classes at which the unused ones are looked for
	epoch      int  // moves when classes are numbered anew
	poolsAt    int  // moves when pools, catalogues or daemons change

	sorted   []*machine // machines by name; nil when they have to be sorted again
	refs     map[string]NodeRef
	counted  map[string]engine.Resources // usage by pool; nil when it has to be summed again
	poolsOld bool
	poolsOut []engine.NodePool
	catsOut  []engine.Catalogue
	daemonID []engine.ClassID

	warm warm
}

// podRecord is a pod with its class.
type podRecord struct {
	key         string
	pod         *corev1.Pod
	shape       *shape
	class       engine.ClassID
	keysVersion int
	created     int64 // Unix time
	toPlace     bool  // Karpenter would provision for it
	untried     bool  // no scheduler has looked at it yet
}

func newPodRecord(key string, p *corev1.Pod) *podRecord {
	return &podRecord{key: key, pod: p, created: p.CreationTimestamp.Unix(), toPlace: podutils.IsProvisionable(p), untried: Untried(p)}
}

// Untried tells whether a pod that may be scheduled has not been looked at by its
// scheduler yet: nothing says whether there is a place for it. Pods of DaemonSets
// and of nodes are never meant.
func Untried(p *corev1.Pod) bool {
	if p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" || len(p.Spec.SchedulingGates) > 0 || podutils.IsTerminal(p) || podutils.IsTerminating(p) ||
		podutils.IsOwnedByDaemonSet(p) || podutils.IsOwnedByNode(p) {
		return false
	}
	return !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
}

// sibling is what pods share that a scheduler cannot tell apart: when it has found
// no place for one, it finds none for the others either.
type sibling struct {
	owner     types.UID
	shape     *shape
	scheduler string
	priority  int32
}

// siblingOf returns false for a pod that nothing controls.
func siblingOf(r *podRecord) (sibling, bool) {
	o := metav1.GetControllerOfNoCopy(r.pod)
	if o == nil {
		return sibling{}, false
	}
	s := sibling{owner: o.UID, shape: r.shape, scheduler: r.pod.Spec.SchedulerName}
	if r.pod.Spec.Priority != nil {
		s.priority = *r.pod.Spec.Priority
	}
	return s, true
}

// siblingsOfRefused are pods that no scheduler has looked at, while it has found no
// place for others like them. A large scale-up is thus planned for as a whole: the
// scheduler takes its time to look at each of its pods.
func (c *Cache) siblingsOfRefused() map[string]bool {
	refused := map[sibling]bool{}
	some := false
	for _, r := range c.pending {
		some = some || r.untried
		if r.toPlace {
			if s, ok := siblingOf(r); ok {
				refused[s] = true
			}
		}
	}
	out := map[string]bool{}
	if !some || len(refused) == 0 {
		return out
	}
	for k, r := range c.pending {
		if r.untried {
			if s, ok := siblingOf(r); ok && refused[s] {
				out[k] = true
			}
		}
	}
	return out
}

// NewCache returns an empty mirror.
func NewCache(s Settings) *Cache {
	c := &Cache{
		client: kubemem.New(), settings: s,
		pods: map[string]*podRecord{}, onNode: map[string]map[string]*podRecord{}, pending: map[string]*podRecord{}, fresh: map[string]*podRecord{},
		machines: map[string]*machine{}, byNode: map[string]*machine{}, byClaim: map[string]*machine{},
		pools: map[string]*karpv1.NodePool{}, daemons: map[types.NamespacedName]*appsv1.DaemonSet{},
		marked: map[string]bool{}, promised: map[string]string{}, types: map[string][]*cloudprovider.InstanceType{},
	}
	c.shapes = newShapes(c.client)
	return c
}

// PodKey is how the engine's plans name a pod: namespace/name.
func PodKey(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }

// Upsert tells that an object is there or has changed.
func (c *Cache) Upsert(obj client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known(obj) {
		return fmt.Errorf("%T %s: %w", obj, client.ObjectKeyFromObject(obj), ErrUnknownKind)
	}
	c.client.Upsert(obj)
	switch o := obj.(type) {
	case *corev1.Pod:
		c.upsertPod(o)
	case *corev1.Node:
		c.upsertNode(o)
	case *karpv1.NodeClaim:
		c.upsertClaim(o)
	case *karpv1.NodePool:
		c.pools[o.Name] = o
		c.nodesOld, c.poolsOld = true, true
	case *appsv1.DaemonSet:
		c.daemons[client.ObjectKeyFromObject(o)] = o
		c.daemonsOld = true
	default:
		c.touched(obj)
	}
	return nil
}

// Delete tells that an object is gone.
func (c *Cache) Delete(obj client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known(obj) {
		return fmt.Errorf("%T %s: %w", obj, client.ObjectKeyFromObject(obj), ErrUnknownKind)
	}
	c.client.Remove(obj)
	switch o := obj.(type) {
	case *corev1.Pod:
		c.removePod(PodKey(o))
	case *corev1.Node:
		c.removeNode(o.Name)
	case *karpv1.NodeClaim:
		c.removeClaim(o.Name)
	case *karpv1.NodePool:
		delete(c.pools, o.Name)
		delete(c.types, o.Name)
		c.nodesOld, c.poolsOld = true, true
	case *appsv1.DaemonSet:
		delete(c.daemons, client.ObjectKeyFromObject(o))
		c.daemonsOld = true
	default:
		c.touched(obj)
	}
	return nil
}

func (c *Cache) known(obj client.Object) bool { return (&Objects{}).Add(obj) }

// touched marks what depends on an object that has no translation of its own.
func (c *Cache) touched(obj client.Object) {
	switch o := obj.(type) {
	case *corev1.Namespace, *corev1.PersistentVolumeClaim, *corev1.PersistentVolume, *storagev1.StorageClass:
		c.shapesOld = true
	case *storagev1.CSINode:
		if m, ok := c.byNode[o.Name]; ok {
			m.old = true
		}
	case *policyv1.PodDisruptionBudget:
	default: // owners and services, for default spread constraints
		if len(c.settings.DefaultSpread) > 0 {
			c.shapesOld = true
		}
	}
}

// SetInstanceTypes tells which instance types a NodePool has now. The list and
// its elements must not be changed afterwards; the same elements again cost
// nothing.
func (c *Cache) SetInstanceTypes(pool string, list []*cloudprovider.InstanceType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.types[pool], list) {
		c.types[pool] = list
		c.nodesOld, c.poolsOld = true, true
	}
}

// SetVirtualPods replaces the placeholder pods of CapacityBuffers.
func (c *Cache) SetVirtualPods(list []*corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.virtual = list
}

// SetMarked replaces the provider IDs of the machines that a running disruption
// is about to delete.
func (c *Cache) SetMarked(providerIDs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[string]bool{}
	for _, id := range providerIDs {
		now[id] = true
	}
	for id := range c.marked {
		if !now[id] {
			c.touchProvider(id)
		}
	}
	for id := range now {
		if !c.marked[id] {
			c.touchProvider(id)
		}
	}
	c.marked = now
}

func (c *Cache) touchProvider(id string) {
	if m, ok := c.machines[id]; ok {
		m.old = true
	}
}

// Promise records that a pending pod is going to run on a node, or on the
// machine of a NodeClaim: until it is bound or released, the pod is counted
// there and not placed again.
func (c *Cache) Promise(podKey, nodeOrClaim string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.promise(podKey, nodeOrClaim)
}

func (c *Cache) promise(podKey, to string) {
	if old, ok := c.promised[podKey]; ok {
		c.touchName(old)
	}
	c.promised[podKey] = to
	c.touchName(to)
}

// Release takes a promise back.
func (c *Cache) Release(podKey string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.release(podKey)
}

func (c *Cache) release(podKey string) {
	if to, ok := c.promised[podKey]; ok {
		c.touchName(to)
		delete(c.promised, podKey)
	}
}

// Promised tells whether a pod is promised a place.
func (c *Cache) Promised(podKey string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.promised[podKey]
	return ok
}

// Promises returns where each promised pod is to run: node or claim name by pod key.
func (c *Cache) Promises() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]string, len(c.promised))
	for k, v := range c.promised {
		out[k] = v
	}
	return out
}

func (c *Cache) touchName(name string) {
	if m := c.find(name); m != nil {
		m.old = true
	}
}

func (c *Cache) find(name string) *machine {
	if m, ok := c.byNode[name]; ok {
		return m
	}
	return c.byClaim[name]
}

func (c *Cache) upsertPod(p *corev1.Pod) {
	key := PodKey(p)
	if old, ok := c.pods[key]; ok {
		if old.pod.Spec.NodeName == p.Spec.NodeName && old.shape != nil && samePod(old.pod, p) {
			old.pod = p // nothing that a decision sees has changed
			return
		}
		c.detach(old)
	}
	r := newPodRecord(key, p)
	c.pods[key], c.fresh[key] = r, r
	if p.Spec.NodeName == "" {
		c.pending[key] = r
		if podutils.IsTerminal(p) {
			c.release(key)
		}
		return
	}
	c.release(key)
	on, ok := c.onNode[p.Spec.NodeName]
	if !ok {
		on = map[string]*podRecord{}
		c.onNode[p.Spec.NodeName] = on
	}
	on[key] = r
	c.touchNode(p.Spec.NodeName)
	if podutils.IsOwnedByDaemonSet(p) {
		c.daemonsOld = true
	}
}

// samePod tells whether nothing has changed that depends on the pod itself: its
// place, shape, labels, owners, phase and marks.
func samePod(a, b *corev1.Pod) bool {
	return a.UID == b.UID && podutils.IsTerminal(a) == podutils.IsTerminal(b) && podutils.IsTerminating(a) == podutils.IsTerminating(b) &&
		podutils.IsProvisionable(a) == podutils.IsProvisionable(b) && Untried(a) == Untried(b) &&
		string(appendShape(nil, a)) == string(appendShape(nil, b)) && reflect.DeepEqual(a.Labels, b.Labels) &&
		a.Annotations[karpv1.DoNotDisruptAnnotationKey] == b.Annotations[karpv1.DoNotDisruptAnnotationKey] &&
		reflect.DeepEqual(a.OwnerReferences, b.OwnerReferences)
}

func (c *Cache) detach(r *podRecord) {
	delete(c.pods, r.key)
	delete(c.pending, r.key)
	delete(c.fresh, r.key)
	if n := r.pod.Spec.NodeName; n != "" {
		delete(c.onNode[n], r.key)
		if len(c.onNode[n]) == 0 {
			delete(c.onNode, n)
		}
		c.touchNode(n)
		if podutils.IsOwnedByDaemonSet(r.pod) {
			c.daemonsOld = true
		}
	}
}

func (c *Cache) removePod(key string) {
	if r, ok := c.pods[key]; ok {
		c.detach(r)
	}
	c.release(key)
}

func (c *Cache) touchNode(name string) {
	if m, ok := c.byNode[name]; ok {
		m.old = true
	}
}

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
	for pod, to := range o.Promised {
		c.Promise(pod, to)
	}
	return c, nil
}

// Objects returns the cluster as lists, for a snapshot file.
func (c *Cache) Objects(now time.Time) *Objects {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &Objects{Now: now, Settings: c.settings, VirtualPods: c.virtual, Quotas: slices.Clone(c.quotas), InstanceTypes: map[string][]*cloudprovider.InstanceType{}, Promised: map[string]string{}}
	c.client.Each(func(obj client.Object) { o.Add(obj) })
	for k, v := range c.types {
		o.InstanceTypes[k] = v
	}
	for k, v := range c.promised {
		o.Promised[k] = v
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

func (c *Cache) classOf(r *podRecord) engine.ClassID {
	if r.keysVersion != c.shapes.keysVersion {
		r.class = c.shapes.class(r.shape, r.pod.Labels, ownerName(r.pod))
		r.keysVersion = c.shapes.keysVersion
	}
	return r.class
}

// ownerName names the workload of a pod for people.
func ownerName(p *corev1.Pod) string {
	o := metav1.GetControllerOfNoCopy(p)
	if o == nil {
		return p.Name
	}
	name := o.Name
	if o.Kind == "ReplicaSet" {
		if h := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; h != "" {
			name = strings.TrimSuffix(name, "-"+h)
		}
	}
	return name
}

// leaving returns the pods that have to be placed because their node is being
// deleted, by key.
func (c *Cache) leaving(ctx context.Context, now time.Time) (map[string]*podRecord, error) {
	out := map[string]*podRecord{}
	var limits pdb.Limits
	clk := clocktesting.NewFakeClock(now)
	recorder := events.NewRecorder(discard{})
	for _, m := range c.machines {
		if m.old {
			m.going = m.deleting(c.marked)
		}
		if m.node == nil || !m.going || len(c.onNode[m.node.Name]) == 0 {
			continue
		}
		if limits == nil {
			var err error
			if limits, err = pdb.NewLimits(ctx, c.client); err != nil {
				return nil, fmt.Errorf("reading the disruption budgets: %w", err)
			}
		}
		for k, r := range c.onNode[m.node.Name] {
			if limits.IsCurrentlyReschedulable(r.pod, clk, recorder) {
				out[k] = r
			}
		}
	}
	return out, nil
}

// waiting returns the pods to place, and fills in.Pods and in.Invalid.
func (c *Cache) waiting(ctx context.Context, leaving map[string]*podRecord, in *Input) []*podRecord {
	in.Pods = make(map[string]*corev1.Pod, len(c.pending)+len(leaving))
	out := make([]*podRecord, 0, len(c.pending)+len(leaving))
	validator := provisioning.NewProvisioner(c.client, events.NewRecorder(discard{}), nil, nil, clocktesting.NewFakeClock(in.Snapshot.Time), nil, nil)
	siblings := c.siblingsOfRefused()
	for k, r := range c.pending {
		if !r.toPlace && !siblings[k] {
			continue
		}
		if to, ok := c.promised[k]; ok {
			if m := c.find(to); m != nil && !m.deleting(c.marked) {
				continue
			}
			delete(c.promised, k)
		}
		claims := hasClaims(r.pod)
		if !r.shape.validated || claims {
			// A copy: Karpenter sorts the preferences of the pod in place.
			r.shape.invalid = validator.Validate(ctx, r.pod.DeepCopy())
			r.shape.validated = !claims
		}
		if err := cmp.Or(r.shape.invalid, r.shape.err); err != nil {
			in.Invalid[k] = err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
	for k, r := range leaving {
		if r.shape.err != nil {
			in.Invalid[k] = r.shape.err
			continue
		}
		out = append(out, r)
		in.Pods[k] = r.pod
	}
	for _, p := range c.virtual {
		r := newPodRecord(PodKey(p), p)
		r.shape, r.keysVersion = c.shapes.of(ctx, p), -1
		if _, taken := in.Pods[r.key]; taken || r.shape.err != nil {
			continue
		}
		out = append(out, r)
		in.Pods[r.key] = p
	}
	return out
}

// groups puts pods into groups by class: older pods first within a group, which
// is the order in which they get what is scarce.
func (c *Cache) groups(list []*podRecord) []engine.PodGroup {
	byName := func(a, b *podRecord) int { return strings.Compare(a.key, b.key) }
	var unnumbered []*podRecord
	for _, r := range list {
		if r.keysVersion != c.shapes.keysVersion {
			unnumbered = append(unnumbered, r)
		}
	}
	slices.SortFunc(unnumbered, byName) // numbering in the order of the names
	for _, r := range unnumbered {
		c.classOf(r)
	}
	slices.SortFunc(list, func(a, b *podRecord) int {
		if a.class != b.class {
			return cmp.Compare(a.class, b.class)
		}
		if a.created != b.created {
			return cmp.Compare(a.created, b.created)
		}
		return byName(a, b)
	})
	var out []engine.PodGroup
	keys := make([]string, len(list)) // of all groups
	for start := 0; start < len(list); {
		end := start
		for ; end < len(list) && list[end].class == list[start].class; end++ {
			keys[end] = list[end].key
		}
		out = append(out, engine.PodGroup{Class: list[start].class, Pods: keys[start:end:end]})
		start = end
	}
	return out
}

type discard struct{}

func (discard) Event(runtime.Object, string, string, string)                                      {}
func (discard) Eventf(runtime.Object, string, string, string, ...any)                             {}
func (discard) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

var _ record.EventRecorder = discard{}
