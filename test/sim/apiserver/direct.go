// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Each calls f with the objects of a resource, sorted by namespace and name, until f
// returns false. The objects are those of one moment and must not be changed. A
// resource that is not served has none.
func (s *Server) Each(gvr schema.GroupVersionResource, f func(runtime.Object) bool) {
	r := s.lookup(gvr)
	if r == nil {
		return
	}
	all, _ := s.snapshot(r)
	for _, v := range all {
		if !f(v.obj) {
			return
		}
	}
}

// Count returns the number of objects of a resource.
func (s *Server) Count(gvr schema.GroupVersionResource) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.resources[gvr]; r != nil {
		return len(r.objects)
	}
	return 0
}

// Get returns an object, which must not be changed, and whether it exists.
func (s *Server) Get(gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, bool) {
	r := s.lookup(gvr)
	if r == nil {
		return nil, false
	}
	v := s.find(r, namespace, name)
	if v == nil {
		return nil, false
	}
	return v.obj, true
}

// Create creates an object as a request does, without faults and delays. obj itself
// is not changed or kept.
func (s *Server) Create(obj runtime.Object) error {
	r, work, err := s.own(obj)
	if err != nil {
		return err
	}
	_, err = s.create(r, work, actor{verb: "create"}, false)
	return err
}

// Update updates an object except for its status. Without a resource version it
// overwrites whatever is there. obj itself is not changed or kept.
func (s *Server) Update(obj runtime.Object) error { return s.directUpdate(obj, "") }

// UpdateStatus updates the status of an object. Without a resource version it
// overwrites whatever is there. obj itself is not changed or kept.
func (s *Server) UpdateStatus(obj runtime.Object) error { return s.directUpdate(obj, "status") }

func (s *Server) directUpdate(obj runtime.Object, subresource string) error {
	r, work, err := s.own(obj)
	if err != nil {
		return err
	}
	m := accessor(work)
	_, err = s.update(r, m.GetNamespace(), m.GetName(), subresource, actor{verb: "update"}, false, func(*object) (runtime.Object, error) {
		return copyOf(work), nil
	})
	return err
}

// Delete deletes an object as a request without options does.
func (s *Server) Delete(gvr schema.GroupVersionResource, namespace, name string) error {
	return s.DeleteWith(gvr, namespace, name, metav1.DeleteOptions{})
}

// DeleteWith deletes an object as a request with options does: a grace period of zero
// removes a pod at once.
func (s *Server) DeleteWith(gvr schema.GroupVersionResource, namespace, name string, o metav1.DeleteOptions) error {
	r := s.lookup(gvr)
	if r == nil {
		return apierrors.NewNotFound(gvr.GroupResource(), name)
	}
	_, _, err := s.remove(r, namespace, name, o, actor{verb: "delete"}, false)
	return err
}

// own returns the resource of an object and a copy of the object in the server's form:
// what is left of it once it has been sent, times in whole seconds for example.
func (s *Server) own(obj runtime.Object) (*resource, runtime.Object, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	for _, types := range s.schemes {
		if kinds, _, err := types.ObjectKinds(obj); err == nil {
			gvk = kinds[0]
			break
		}
	}
	if gvk.Empty() {
		return nil, nil, fmt.Errorf("%T has no known kind", obj)
	}
	s.mu.Lock()
	var r *resource
	for _, candidate := range s.ordered {
		if candidate.gvk == gvk {
			r = candidate
			break
		}
	}
	s.mu.Unlock()
	if r == nil {
		return nil, nil, fmt.Errorf("%s is not served", gvk)
	}
	work, err := r.sent(obj)
	if err != nil {
		return nil, nil, fmt.Errorf("copying %s %s: %w", gvk.Kind, accessor(obj).GetName(), err)
	}
	return r, work, nil
}
