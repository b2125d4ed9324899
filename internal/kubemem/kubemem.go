// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubemem is a read-only Kubernetes client on objects in memory. Karpenter's
// helpers (volume topology, topology counting, daemon pods, cluster state) need a
// client; with this one they run without an API server on a snapshot file, manifests,
// generated clusters and copies of the informer cache.
//
// It behaves like a controller-runtime cache: reads return copies, except with
// client.UnsafeDisableDeepCopy, and lists can select by namespace, labels and the
// fields that Karpenter indexes.
package kubemem

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// ErrReadOnly is wrapped by the errors of all write methods.
var ErrReadOnly = errors.New("the client is read-only")

// Client is the in-memory client. It is safe for concurrent use.
type Client struct {
	mu     sync.RWMutex
	kinds  map[reflect.Type]*store
	scheme *runtime.Scheme
}

// store holds the objects of one Go type by name, with indexes for Karpenter's frequent
// lists.
type store struct {
	objects map[types.NamespacedName]client.Object
	byNode  map[string]map[types.NamespacedName]client.Object // pods only
	byNS    map[string]map[types.NamespacedName]client.Object
}

// New returns a client on the given objects. They are not copied: the caller must not
// change them afterwards.
func New(objects ...client.Object) *Client {
	c := &Client{kinds: map[reflect.Type]*store{}, scheme: scheme.Scheme}
	for _, o := range objects {
		c.Upsert(o)
	}
	return c
}

// Upsert adds an object or replaces the one of the same type and name.
func (c *Client) Upsert(o client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := reflect.TypeOf(o).Elem()
	s, ok := c.kinds[t]
	if !ok {
		s = &store{objects: map[types.NamespacedName]client.Object{}, byNode: map[string]map[types.NamespacedName]client.Object{}, byNS: map[string]map[types.NamespacedName]client.Object{}}
		c.kinds[t] = s
	}
	key := client.ObjectKeyFromObject(o)
	s.remove(key)
	s.objects[key] = o
	put(s.byNS, key.Namespace, key, o)
	if p, ok := o.(*corev1.Pod); ok {
		put(s.byNode, p.Spec.NodeName, key, o)
	}
}

// Remove deletes the object of the same type and name, if there is one.
func (c *Client) Remove(o client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.kinds[reflect.TypeOf(o).Elem()]; ok {
		s.remove(client.ObjectKeyFromObject(o))
	}
}

func (s *store) remove(key types.NamespacedName) {
	old, ok := s.objects[key]
	if !ok {
		return
	}
	delete(s.objects, key)
	drop(s.byNS, key.Namespace, key)
	if p, ok := old.(*corev1.Pod); ok {
		drop(s.byNode, p.Spec.NodeName, key)
	}
}

func put(index map[string]map[types.NamespacedName]client.Object, at string, key types.NamespacedName, o client.Object) {
	m, ok := index[at]
	if !ok {
		m = map[types.NamespacedName]client.Object{}
		index[at] = m
	}
	m[key] = o
}

func drop(index map[string]map[types.NamespacedName]client.Object, at string, key types.NamespacedName) {
	delete(index[at], key)
	if len(index[at]) == 0 {
		delete(index, at)
	}
}

// Each calls f with every object, in no particular order. f must not call the
// client.
func (c *Client) Each(f func(client.Object)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, s := range c.kinds {
		for _, o := range s.objects {
			f(o)
		}
	}
}

// Get copies the object of obj's type and the given name into obj. The error is
// a Kubernetes NotFound error if there is none.
func (c *Client) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	t := reflect.TypeOf(obj).Elem()
	var found client.Object
	if s, ok := c.kinds[t]; ok {
		found, ok = s.objects[key]
		if !ok { // callers may pass a namespace for cluster-scoped kinds
			found = s.objects[client.ObjectKey{Name: key.Name}]
		}
	}
	if found == nil {
		return apierrors.NewNotFound(schema.GroupResource{Group: c.groupOf(obj), Resource: t.Name()}, key.Name)
	}
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(found.DeepCopyObject()).Elem())
	return nil
}

func (c *Client) groupOf(obj runtime.Object) string {
	gvk, err := c.GroupVersionKindFor(obj)
	if err != nil {
		return ""
	}
	return gvk.Group
}

// List fills the list with the objects that match the options, ordered by
// namespace and name.
func (c *Client) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	var o client.ListOptions
	o.ApplyOptions(opts)
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	if !items.IsValid() || items.Kind() != reflect.Slice || items.Type().Elem().Kind() != reflect.Struct {
		return fmt.Errorf("listing %T: not a typed list", list)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	objects, rest, err := c.candidates(items.Type().Elem(), &o)
	if err != nil {
		return fmt.Errorf("listing %T: %w", list, err)
	}
	share := o.UnsafeDisableDeepCopy != nil && *o.UnsafeDisableDeepCopy
	out := reflect.MakeSlice(items.Type(), 0, len(objects))
	for _, obj := range objects {
		if o.LabelSelector != nil && !o.LabelSelector.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		if ok, err := matchesFields(obj, rest); err != nil {
			return fmt.Errorf("listing %T: %w", list, err)
		} else if !ok {
			continue
		}
		if !share {
			obj = obj.DeepCopyObject().(client.Object)
		}
		out = reflect.Append(out, reflect.ValueOf(obj).Elem())
	}
	items.Set(out)
	return nil
}

// candidates returns the sorted objects from the best index, and the field requirements
// that the index does not cover.
func (c *Client) candidates(t reflect.Type, o *client.ListOptions) ([]client.Object, fields.Requirements, error) {
	s, ok := c.kinds[t]
	if !ok {
		return nil, nil, nil
	}
	var rest fields.Requirements
	from := s.objects
	if o.Namespace != "" {
		from = s.byNS[o.Namespace]
	}
	if o.FieldSelector != nil {
		for _, r := range o.FieldSelector.Requirements() {
			if r.Field == "spec.nodeName" && t == reflect.TypeFor[corev1.Pod]() && o.Namespace == "" {
				from = s.byNode[r.Value]
				continue
			}
			rest = append(rest, r)
		}
	}
	out := make([]client.Object, 0, len(from))
	for _, obj := range from {
		out = append(out, obj)
	}
	sort.Slice(out, func(i, j int) bool {
		if a, b := out[i].GetNamespace(), out[j].GetNamespace(); a != b {
			return a < b
		}
		return out[i].GetName() < out[j].GetName()
	})
	return out, rest, nil
}

func matchesFields(obj client.Object, reqs fields.Requirements) (bool, error) {
	for _, r := range reqs {
		v, ok := fieldOf(obj, r.Field)
		if !ok {
			return false, fmt.Errorf("no index for field %q of %T", r.Field, obj)
		}
		if v != r.Value {
			return false, nil
		}
	}
	return true, nil
}

func fieldOf(obj client.Object, field string) (string, bool) {
	if field == "metadata.name" {
		return obj.GetName(), true
	}
	switch o := obj.(type) {
	case *corev1.Pod:
		if field == "spec.nodeName" {
			return o.Spec.NodeName, true
		}
	case *corev1.Node:
		if field == "spec.providerID" {
			return o.Spec.ProviderID, true
		}
	case *storagev1.VolumeAttachment:
		if field == "spec.nodeName" {
			return o.Spec.NodeName, true
		}
	case *karpv1.NodeClaim:
		switch field {
		case "status.providerID":
			return o.Status.ProviderID, true
		case "spec.nodeClassRef.group":
			return o.Spec.NodeClassRef.Group, true
		case "spec.nodeClassRef.kind":
			return o.Spec.NodeClassRef.Kind, true
		case "spec.nodeClassRef.name":
			return o.Spec.NodeClassRef.Name, true
		}
	case *karpv1.NodePool:
		ref := o.Spec.Template.Spec.NodeClassRef
		switch field {
		case "spec.template.spec.nodeClassRef.group":
			return ref.Group, true
		case "spec.template.spec.nodeClassRef.kind":
			return ref.Kind, true
		case "spec.template.spec.nodeClassRef.name":
			return ref.Name, true
		}
	}
	return "", false
}

func readOnly(verb string, obj any) error { return fmt.Errorf("%s of %T: %w", verb, obj, ErrReadOnly) }

// Apply returns ErrReadOnly.
func (c *Client) Apply(_ context.Context, obj runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	return readOnly("apply", obj)
}

// Create returns ErrReadOnly.
func (c *Client) Create(_ context.Context, obj client.Object, _ ...client.CreateOption) error {
	return readOnly("create", obj)
}

// Delete returns ErrReadOnly.
func (c *Client) Delete(_ context.Context, obj client.Object, _ ...client.DeleteOption) error {
	return readOnly("delete", obj)
}

// Update returns ErrReadOnly.
func (c *Client) Update(_ context.Context, obj client.Object, _ ...client.UpdateOption) error {
	return readOnly("update", obj)
}

// Patch returns ErrReadOnly.
func (c *Client) Patch(_ context.Context, obj client.Object, _ client.Patch, _ ...client.PatchOption) error {
	return readOnly("patch", obj)
}

// DeleteAllOf returns ErrReadOnly.
func (c *Client) DeleteAllOf(_ context.Context, obj client.Object, _ ...client.DeleteAllOfOption) error {
	return readOnly("delete", obj)
}

// Status returns a writer whose methods return ErrReadOnly.
func (c *Client) Status() client.SubResourceWriter { return readOnlySub{} }

// SubResource returns a client whose methods return ErrReadOnly.
func (c *Client) SubResource(string) client.SubResourceClient { return readOnlySub{} }

// Scheme returns the scheme with the Kubernetes and Karpenter types.
func (c *Client) Scheme() *runtime.Scheme { return c.scheme }

// RESTMapper returns nil: there is no API server.
func (c *Client) RESTMapper() meta.RESTMapper { return nil }

// GroupVersionKindFor returns the kind that the scheme registers for the object.
func (c *Client) GroupVersionKindFor(obj runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(obj, c.scheme)
}

// IsObjectNamespaced reports whether the object has a namespace.
func (c *Client) IsObjectNamespaced(obj runtime.Object) (bool, error) {
	o, ok := obj.(client.Object)
	return ok && o.GetNamespace() != "", nil
}

type readOnlySub struct{}

func (readOnlySub) Get(_ context.Context, obj, _ client.Object, _ ...client.SubResourceGetOption) error {
	return readOnly("subresource read", obj)
}

func (readOnlySub) Create(_ context.Context, obj, _ client.Object, _ ...client.SubResourceCreateOption) error {
	return readOnly("subresource create", obj)
}

func (readOnlySub) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	return readOnly("status update", obj)
}

func (readOnlySub) Patch(_ context.Context, obj client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	return readOnly("status patch", obj)
}

func (readOnlySub) Apply(_ context.Context, obj runtime.ApplyConfiguration, _ ...client.SubResourceApplyOption) error {
	return readOnly("status apply", obj)
}
