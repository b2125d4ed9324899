// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/nap-aks/nap/test/sim/apiserver"
)

// GarbageOptions are the rates of the garbage collector.
type GarbageOptions struct {
	// Delay is how long it takes until the collector notices that an owner is gone.
	Delay time.Duration
	// Workers is how many objects are deleted at the same time. It must be positive.
	Workers int
	// QPS and Burst limit the collector's requests a second. A QPS of 0 is no limit.
	QPS   float32
	Burst int
	// Logger gets the collector's log. The zero value drops it.
	Logger logr.Logger
}

// LocalGarbage returns the options of the garbage collector in a local cluster.
func LocalGarbage() GarbageOptions {
	return GarbageOptions{Delay: 100 * time.Millisecond, Workers: 10, QPS: 400, Burst: 800}
}

// garbage deletes objects whose owners are gone. Unlike Kubernetes' own collector it
// is told about all changes in order and does not watch: an owner that it does not
// know does not exist.
//
// An owner being deleted with the finalizer "orphan" keeps its dependents; one with
// "foregroundDeletion" goes after those that block it.
type garbage struct {
	client dynamic.Interface
	delay  time.Duration
	queue  *keyQueue

	mu         sync.Mutex
	complete   bool               // all objects are known
	gone       map[types.UID]bool // deleted before that
	objects    map[types.UID]*tracked
	dependents map[types.UID]map[types.UID]bool // by owner, which need not be known
}

// tracked is what the collector remembers of an object.
type tracked struct {
	resource        schema.GroupVersionResource
	namespace, name string
	owners          []metav1.OwnerReference
	deleting        bool
	orphan          bool // deleted, its dependents stay
	foreground      bool // deleted, after its dependents
}

func (t *tracked) String() string {
	return t.resource.Resource + " " + strings.TrimPrefix(t.namespace+"/"+t.name, "/")
}

// StartGarbageCollector starts the garbage collector on the objects of s, which it
// deletes through cfg. It runs until ctx ends; stopped is closed when it has ended.
// After that it can be started again with another context.
func StartGarbageCollector(ctx context.Context, cfg *rest.Config, s *apiserver.Server, o GarbageOptions) (stopped <-chan struct{}, err error) {
	if o.Workers <= 0 {
		return nil, errors.New("garbage collector: the number of workers must be positive")
	}
	ctx = withLogger(ctx, o.Logger)
	g, err := newGarbage(ctx, cfg, o)
	if err != nil {
		return nil, err
	}
	resources, err := discovery.NewDiscoveryClientForConfig(configFor(ctx, cfg, limits{}))
	if err != nil {
		return nil, fmt.Errorf("garbage collector: making a client: %w", err)
	}
	// The server keeps its subscribers: let it not keep what a stopped one knew.
	var current atomic.Pointer[garbage]
	current.Store(g)
	s.Subscribe(func(e apiserver.Event) {
		if g := current.Load(); g != nil {
			g.observe(e.Resource, e.Object, e.Type == watch.Deleted)
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer current.Store(nil)
		for _, r := range g.discover(ctx, resources) {
			s.Each(r, func(obj runtime.Object) bool {
				g.observe(r, obj, false)
				return true
			})
		}
		g.start()
		g.queue.run(ctx, o.Workers)
	}()
	return done, nil
}

// discover returns the resources whose objects can be deleted, sorted. It tries until
// the API answers or ctx ends.
func (g *garbage) discover(ctx context.Context, client discovery.DiscoveryInterface) (out []schema.GroupVersionResource) {
	for {
		lists, err := client.ServerPreferredResources()
		if err == nil {
			found, err := discovery.GroupVersionResources(discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists))
			if err == nil {
				for r := range found {
					out = append(out, r)
				}
				slices.SortFunc(out, func(a, b schema.GroupVersionResource) int { return strings.Compare(a.String(), b.String()) })
				return out
			}
		}
		klog.FromContext(ctx).Info("The garbage collector reads the API's resources again in a second", "error", err)
		if !sleep(ctx, time.Second) {
			return nil
		}
	}
}

func newGarbage(ctx context.Context, cfg *rest.Config, o GarbageOptions) (*garbage, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeJSON
	cfg.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := dynamic.NewForConfig(configFor(ctx, cfg, limits{o.QPS, o.Burst}))
	if err != nil {
		return nil, fmt.Errorf("garbage collector: making a client: %w", err)
	}
	g := &garbage{client: client, delay: o.Delay, gone: map[types.UID]bool{}, objects: map[types.UID]*tracked{}, dependents: map[types.UID]map[types.UID]bool{}}
	g.queue = newKeyQueue(func(ctx context.Context, key string) error { return g.collect(ctx, types.UID(key)) })
	return g, nil
}

// observe tells about an object that was created, changed or deleted.
func (g *garbage) observe(resource schema.GroupVersionResource, obj runtime.Object, deleted bool) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return // lists and reviews have no owners
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	uid := m.GetUID()
	old := g.objects[uid]
	if deleted {
		g.forget(uid, old)
		if !g.complete {
			g.gone[uid] = true
		}
		return
	}
	if g.gone[uid] {
		return // listed before, observed after its deletion
	}
	if old != nil && !old.deleting && m.GetDeletionTimestamp() == nil && sameOwners(old.owners, m.GetOwnerReferences()) {
		return // most changes
	}
	now := &tracked{resource: resource, namespace: m.GetNamespace(), name: m.GetName(), owners: m.GetOwnerReferences(), deleting: m.GetDeletionTimestamp() != nil}
	if now.deleting {
		now.orphan = slices.Contains(m.GetFinalizers(), metav1.FinalizerOrphanDependents)
		now.foreground = slices.Contains(m.GetFinalizers(), metav1.FinalizerDeleteDependents)
	}
	if old != nil {
		g.unlink(uid, old)
	}
	g.objects[uid] = now
	for _, o := range now.owners {
		if g.dependents[o.UID] == nil {
			g.dependents[o.UID] = map[types.UID]bool{}
		}
		g.dependents[o.UID][uid] = true
	}
	if g.complete && (len(now.owners) > 0 && !g.allKnown(now.owners) || now.orphan || now.foreground) {
		g.queue.addAfter(string(uid), g.delay)
	}
}

// forget removes a deleted object and enqueues whom that concerns.
func (g *garbage) forget(uid types.UID, old *tracked) {
	if old == nil {
		return
	}
	g.unlink(uid, old)
	delete(g.objects, uid)
	for _, d := range g.sorted(g.dependents[uid]) {
		g.queue.addAfter(string(d), g.delay)
	}
	for _, o := range old.owners {
		if owner := g.objects[o.UID]; owner != nil && owner.foreground {
			g.queue.addAfter(string(o.UID), g.delay)
		}
	}
}

// unlink removes an object from the dependents of its owners.
func (g *garbage) unlink(uid types.UID, t *tracked) {
	for _, o := range t.owners {
		delete(g.dependents[o.UID], uid)
		if len(g.dependents[o.UID]) == 0 {
			delete(g.dependents, o.UID)
		}
	}
}

// allKnown reports whether all owners exist and none waits for its dependents.
func (g *garbage) allKnown(owners []metav1.OwnerReference) bool {
	for _, o := range owners {
		if owner := g.objects[o.UID]; owner == nil || owner.foreground {
			return false
		}
	}
	return true
}

// sorted returns objects in the order of their names.
func (g *garbage) sorted(uids map[types.UID]bool) []types.UID {
	var out []types.UID
	for uid := range uids {
		out = append(out, uid)
	}
	slices.SortFunc(out, func(a, b types.UID) int {
		return strings.Compare(g.objects[a].String()+string(a), g.objects[b].String()+string(b))
	})
	return out
}

// start says that all objects were observed, and looks for those whose owners are gone.
func (g *garbage) start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.complete, g.gone = true, nil
	all := map[types.UID]bool{}
	for uid, t := range g.objects {
		if len(t.owners) > 0 && !g.allKnown(t.owners) || t.orphan || t.foreground {
			all[uid] = true
		}
	}
	for _, uid := range g.sorted(all) {
		g.queue.add(string(uid))
	}
}

func sameOwners(a, b []metav1.OwnerReference) bool {
	return slices.EqualFunc(a, b, func(a, b metav1.OwnerReference) bool {
		return a.UID == b.UID && blocks(a) == blocks(b)
	})
}

// blocks reports whether the reference's object keeps its owner from being deleted
// in the foreground.
func blocks(o metav1.OwnerReference) bool {
	return o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion
}

// collect does what is due for one object.
func (g *garbage) collect(ctx context.Context, uid types.UID) error {
	g.mu.Lock()
	t := g.objects[uid]
	if t == nil {
		g.mu.Unlock()
		return nil
	}
	var blocked bool
	dependents := g.sorted(g.dependents[uid])
	var orphans []*tracked
	for _, d := range dependents {
		orphans = append(orphans, g.objects[d])
		blocked = blocked || slices.ContainsFunc(g.objects[d].owners, func(o metav1.OwnerReference) bool { return o.UID == uid && blocks(o) })
	}
	// An owner counts as long as it exists and does not wait for this object.
	var kept []types.UID
	for _, o := range t.owners {
		if owner := g.objects[o.UID]; owner != nil && !owner.foreground {
			kept = append(kept, o.UID)
		}
	}
	g.mu.Unlock()

	switch {
	case t.orphan:
		for i, d := range dependents {
			if err := g.release(ctx, d, orphans[i], func(o metav1.OwnerReference) bool { return o.UID != uid }); err != nil {
				return err
			}
		}
		return g.removeFinalizer(ctx, uid, t, metav1.FinalizerOrphanDependents)
	case t.foreground && !blocked:
		return g.removeFinalizer(ctx, uid, t, metav1.FinalizerDeleteDependents)
	case t.foreground:
		for _, d := range dependents {
			g.queue.add(string(d))
		}
		return nil
	case t.deleting || len(kept) == len(t.owners):
		return nil
	case len(kept) > 0:
		return g.release(ctx, uid, t, func(o metav1.OwnerReference) bool { return slices.Contains(kept, o.UID) })
	}
	policy := metav1.DeletePropagationBackground
	if len(dependents) > 0 && g.waitedFor(t) {
		policy = metav1.DeletePropagationForeground
	}
	err := g.of(t).Delete(ctx, t.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &policy})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting %s, whose owner is gone: %w", t, err)
	}
	return nil
}

// waitedFor reports whether an owner of the object waits for its deletion.
func (g *garbage) waitedFor(t *tracked) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(t.owners, func(o metav1.OwnerReference) bool {
		owner := g.objects[o.UID]
		return owner != nil && owner.foreground && blocks(o)
	})
}

// of returns the client of an object's resource and namespace.
func (g *garbage) of(t *tracked) dynamic.ResourceInterface {
	if t.namespace == "" {
		return g.client.Resource(t.resource)
	}
	return g.client.Resource(t.resource).Namespace(t.namespace)
}

// release removes the owners of an object that keep does not report.
func (g *garbage) release(ctx context.Context, uid types.UID, t *tracked, keep func(metav1.OwnerReference) bool) error {
	return g.edit(ctx, uid, t, func(m metav1.Object) (string, any) {
		owners := slices.DeleteFunc(slices.Clone(m.GetOwnerReferences()), func(o metav1.OwnerReference) bool { return !keep(o) })
		if len(owners) == len(m.GetOwnerReferences()) {
			return "", nil
		}
		return "ownerReferences", owners
	})
}

// removeFinalizer removes one of an object's finalizers.
func (g *garbage) removeFinalizer(ctx context.Context, uid types.UID, t *tracked, finalizer string) error {
	return g.edit(ctx, uid, t, func(m metav1.Object) (string, any) {
		if !slices.Contains(m.GetFinalizers(), finalizer) {
			return "", nil
		}
		return "finalizers", slices.DeleteFunc(slices.Clone(m.GetFinalizers()), func(f string) bool { return f == finalizer })
	})
}

// edit changes one field of an object's metadata, if the object still exists. change
// returns the field's name and new value, or no name to leave the object alone.
func (g *garbage) edit(ctx context.Context, uid types.UID, t *tracked, change func(metav1.Object) (string, any)) error {
	now, err := g.of(t).Get(ctx, t.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && now.GetUID() != uid {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", t, err)
	}
	field, value := change(now)
	if field == "" {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": now.GetResourceVersion(), field: value}})
	if err != nil {
		return fmt.Errorf("changing the %s of %s: %w", field, t, err)
	}
	if _, err := g.of(t).Patch(ctx, t.name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("changing the %s of %s: %w", field, t, err)
	}
	return nil
}
