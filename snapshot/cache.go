// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

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

// ErrUnknownKind is wrapped by the errors of Upsert and Delete for an object of a
// kind that no decision depends on.
var ErrUnknownKind = errors.New("no decision depends on objects of this kind")

// Cache keeps a cluster in the terms of the engine. Call Upsert and Delete for every
// change of an object of the kinds that Objects lists, and Snapshot for the input of
// the engine. A Cache is safe for concurrent use.
//
// Objects given to it must not be changed afterwards, which is also the rule for
// objects of informers.
type Cache struct {
	mu       sync.Mutex
	client   *kubemem.Client
	shapes   *shapes
	settings Settings

	pods     map[string]*podRecord
	onNode   map[string]map[string]*podRecord // by node name
	pending  map[string]*podRecord            // not bound
	refused  map[string]int                   // number of pending pods that a scheduler has refused, by its name
	unshaped map[string]*podRecord            // without a shape
	index    podIndex
	machines map[string]*machine // by key, see machineKey
	byNode   map[string]*machine // by node name
	byClaim  map[string]*machine // by claim name
	pools    map[string]*karpv1.NodePool
	daemons  map[types.NamespacedName]*appsv1.DaemonSet
	virtual  []*corev1.Pod
	marked   map[string]bool // provider IDs
	assumed  *assumedPods
	held     map[string]bool // pods left out of snapshots, see Hold
	types    map[string][]*cloudprovider.InstanceType
	quotas   []Quota

	catalogues   catalogues
	daemonSets   []daemon
	daemonsStale bool // daemonSets has to be built again
	nodesStale   bool // all nodes have to be translated again
	shapesStale  bool // the shapes of all pods have to be looked up again
	keysSeen     int  // shapes.keysVersion that the nodes were translated with
	classesMax   int  // number of classes from which on unused ones are searched for
	epoch        int  // incremented when classes get new numbers
	poolsAt      int  // incremented when pools, catalogues or daemons change

	sorted        []*machine // machines by name; nil if they have to be sorted again
	refs          map[string]NodeRef
	refsStale     bool
	usage         map[string]engine.Resources // by pool; nil if it has to be summed again
	poolsStale    bool
	poolsOut      []engine.NodePool
	cataloguesOut []engine.Catalogue
	daemonClasses []engine.ClassID

	warm warm
}

// NewCache returns an empty cache.
func NewCache(s Settings) *Cache {
	c := &Cache{
		client: kubemem.New(), settings: s,
		pods: map[string]*podRecord{}, onNode: map[string]map[string]*podRecord{}, pending: map[string]*podRecord{}, refused: map[string]int{}, unshaped: map[string]*podRecord{},
		machines: map[string]*machine{}, byNode: map[string]*machine{}, byClaim: map[string]*machine{},
		pools: map[string]*karpv1.NodePool{}, daemons: map[types.NamespacedName]*appsv1.DaemonSet{},
		marked: map[string]bool{}, types: map[string][]*cloudprovider.InstanceType{},
	}
	c.index = newPodIndex()
	c.shapes = newShapes(c.client)
	c.assumed = newAssumedPods(c.invalidatePlace)
	return c
}

// Upsert adds an object or replaces its previous version.
func (c *Cache) Upsert(obj client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known(obj) {
		return fmt.Errorf("%T %s: %w", obj, client.ObjectKeyFromObject(obj), ErrUnknownKind)
	}
	switch o := obj.(type) { // what depends on the difference to the version before
	case *corev1.Namespace:
		c.namespaceChanged(stored(c, o), o)
	case *corev1.PersistentVolume:
		c.volumeChanged(stored(c, o), o)
	case *storagev1.StorageClass:
		c.storageClassChanged(stored(c, o), o)
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
		c.poolChanged(c.pools[o.Name], o)
		c.pools[o.Name] = o
	case *appsv1.DaemonSet:
		c.daemons[client.ObjectKeyFromObject(o)] = o
		c.daemonsStale = true
	default:
		c.invalidate(obj)
	}
	return nil
}

// Delete removes an object.
func (c *Cache) Delete(obj client.Object) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known(obj) {
		return fmt.Errorf("%T %s: %w", obj, client.ObjectKeyFromObject(obj), ErrUnknownKind)
	}
	c.client.Remove(obj)
	switch o := obj.(type) {
	case *corev1.Namespace:
		c.namespaceChanged(o, nil)
	case *corev1.PersistentVolume:
		c.volumeChanged(o)
	case *storagev1.StorageClass:
		c.storageClassChanged(o, nil)
	case *corev1.Pod:
		c.removePod(PodKey(o))
	case *corev1.Node:
		c.removeNode(o.Name)
	case *karpv1.NodeClaim:
		c.removeClaim(o.Name)
	case *karpv1.NodePool:
		delete(c.pools, o.Name)
		delete(c.types, o.Name)
		c.nodesStale, c.poolsStale = true, true // nodes have no prices any more
	case *appsv1.DaemonSet:
		delete(c.daemons, client.ObjectKeyFromObject(o))
		c.daemonsStale = true
	default:
		c.invalidate(obj)
	}
	return nil
}

func (c *Cache) known(obj client.Object) bool { return (&Objects{}).Add(obj) }

// invalidate marks as stale what depends on an object that has no translation of its
// own.
func (c *Cache) invalidate(obj client.Object) {
	switch o := obj.(type) {
	case *corev1.Namespace, *corev1.PersistentVolume, *storagev1.StorageClass: // see Upsert
	case *corev1.PersistentVolumeClaim:
		c.claimChanged(client.ObjectKeyFromObject(o))
	case *storagev1.CSINode:
		if m, ok := c.byNode[o.Name]; ok {
			m.stale = true
		}
	case *policyv1.PodDisruptionBudget:
	default: // owners and services, for default spread constraints
		if len(c.settings.DefaultSpread) > 0 {
			c.shapesStale = true
		}
	}
}

// SetInstanceTypes replaces the instance types of a NodePool. The list and its
// elements must not be changed afterwards. Setting equal elements again is cheap.
func (c *Cache) SetInstanceTypes(pool string, list []*cloudprovider.InstanceType) {
	c.mu.Lock()
	defer c.mu.Unlock()
	have, known := c.types[pool]
	if known && slices.Equal(have, list) {
		return
	}
	merged, changed := mergeTypes(have, list)
	if known && slices.Equal(have, merged) {
		return
	}
	c.types[pool], c.poolsStale = merged, true
	c.typesChanged(pool, changed)
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
			c.invalidateProvider(id)
		}
	}
	for id := range now {
		if !c.marked[id] {
			c.invalidateProvider(id)
		}
	}
	c.marked = now
}

// invalidateProvider marks the machine of a provider ID as stale.
func (c *Cache) invalidateProvider(id string) {
	if m, ok := c.machines[id]; ok {
		m.stale = true
	}
}

// invalidatePlace marks the machine of a node or NodeClaim as stale.
func (c *Cache) invalidatePlace(name string) {
	if m := c.find(name); m != nil {
		m.stale = true
	}
}

// find returns the machine of a node or NodeClaim, nil if there is none.
func (c *Cache) find(name string) *machine {
	if m, ok := c.byNode[name]; ok {
		return m
	}
	return c.byClaim[name]
}

func (c *Cache) invalidateNode(name string) {
	if m, ok := c.byNode[name]; ok {
		m.stale = true
	}
}
