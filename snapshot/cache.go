package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

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
	marked   map[string]bool // provider IDs
	assumed  *assumedPods
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

// NewCache returns an empty mirror.
func NewCache(s Settings) *Cache {
	c := &Cache{
		client: kubemem.New(), settings: s,
		pods: map[string]*podRecord{}, onNode: map[string]map[string]*podRecord{}, pending: map[string]*podRecord{}, fresh: map[string]*podRecord{},
		machines: map[string]*machine{}, byNode: map[string]*machine{}, byClaim: map[string]*machine{},
		pools: map[string]*karpv1.NodePool{}, daemons: map[types.NamespacedName]*appsv1.DaemonSet{},
		marked: map[string]bool{}, types: map[string][]*cloudprovider.InstanceType{},
	}
	c.shapes = newShapes(c.client)
	c.assumed = newAssumedPods(c.touchName)
	return c
}

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

func (c *Cache) touchNode(name string) {
	if m, ok := c.byNode[name]; ok {
		m.old = true
	}
}
