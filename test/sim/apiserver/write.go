// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
)

// errModified is the reason of all conflicts of versions.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// create stores a new object in the server's form, which it takes over.
func (s *Server) create(r *resource, work runtime.Object, by actor, dryRun bool) (*object, error) {
	defer s.tell()
	m := accessor(work)
	if !r.namespaced {
		m.SetNamespace("")
	} else if err := s.namespaceTakes(r, m); err != nil {
		return nil, err
	}
	if m.GetName() == "" && m.GetGenerateName() == "" {
		return nil, apierrors.NewInvalid(r.gvk.GroupKind(), "", field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name or generateName is required")})
	}
	generated := m.GetName() == ""
	s.mu.Lock()
	if generated {
		m.SetName(s.nameFor(r, m.GetNamespace(), m.GetGenerateName()))
	}
	m.SetUID(s.uid())
	s.mu.Unlock()
	m.SetCreationTimestamp(now())
	m.SetDeletionTimestamp(nil)
	m.SetDeletionGracePeriodSeconds(nil)
	m.SetResourceVersion("")
	m.SetSelfLink("")
	m.SetGeneration(0)
	if r.generations {
		m.SetGeneration(1)
	}
	if r.status && r.custom == nil && r.gvk.Kind != "Node" { // kubelets register with a status
		clearField(work, "Status")
	}
	if err := s.admit(r, work); err != nil {
		return nil, err
	}
	next, err := r.newState(work)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.objects[next.key] != nil {
		if !generated {
			return nil, apierrors.NewAlreadyExists(r.gvr.GroupResource(), m.GetName())
		}
		m.SetName(s.nameFor(r, m.GetNamespace(), m.GetGenerateName()))
		accessor(next.obj).SetName(m.GetName())
		next.key = key(m.GetNamespace(), m.GetName())
	}
	if s.resources[r.gvr] != r {
		return nil, notServed(r.gvr)
	}
	if !dryRun {
		s.commit(r, watch.Added, next, nil, by)
		s.expire(r)
		if r.gvr == definitions {
			s.definitionChanged(next, false)
		}
	}
	return next, nil
}

func notServed(gvr schema.GroupVersionResource) error {
	return apierrors.NewGenericServerResponse(404, "", gvr.GroupResource(), "", "the server could not find the requested resource", 0, true)
}

// namespaceTakes returns an error unless new objects may be created in the namespace
// of m.
func (s *Server) namespaceTakes(r *resource, m metav1.Object) error {
	if m.GetNamespace() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("an empty namespace may not be set during creation of %s %q", r.gvr.Resource, m.GetName()))
	}
	o := s.find(s.lookup(namespaces), "", m.GetNamespace())
	if o == nil {
		return apierrors.NewNotFound(namespaces.GroupResource(), m.GetNamespace())
	}
	if o.obj.(*corev1.Namespace).DeletionTimestamp == nil {
		return nil
	}
	err := apierrors.NewForbidden(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", m.GetNamespace()))
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", m.GetNamespace()), Field: "metadata.namespace",
	})
	return err
}

// update replaces an object, or one of its subresources, by what change makes of its
// present state. change must not change that state; it is called again if somebody
// else was faster. strict asks for the resource version of custom resources.
func (s *Server) update(r *resource, namespace, name, subresource string, by actor, strict bool, change func(*object) (runtime.Object, error)) (*object, error) {
	return s.modify(r, namespace, name, by, false, func(old *object) (runtime.Object, error) {
		next, err := change(old)
		if err != nil {
			return nil, err
		}
		return s.prepare(r, next, old, subresource, strict)
	})
}

// modify commits what change makes of the present state of an object, unless that is
// nothing new. An object that was only waiting for its last finalizer goes.
func (s *Server) modify(r *resource, namespace, name string, by actor, dryRun bool, change func(*object) (runtime.Object, error)) (*object, error) {
	defer s.tell()
	for {
		old := s.find(r, namespace, name)
		if old == nil {
			return nil, apierrors.NewNotFound(r.gvr.GroupResource(), name)
		}
		work, err := change(old)
		if err != nil {
			return nil, err
		}
		if r.same(work, old) {
			return old, nil
		}
		next, err := r.newState(work)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if dryRun {
			next.setVersion(old.version)
			return next, nil
		}
		if s.replace(r, next, old, by) {
			return next, nil
		}
	}
}

// replace commits the successor of a state, and reports whether it was still the
// present one.
func (s *Server) replace(r *resource, next, old *object, by actor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.objects[old.key] != old {
		return false
	}
	t := watch.Modified
	if m := next.meta(); m.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 && !waits(m) && !waits(old.meta()) && r.gvr != namespaces {
		t = watch.Deleted
	}
	s.commit(r, t, next, old, by)
	if r.gvr == definitions {
		s.definitionChanged(next, t == watch.Deleted)
	}
	return true
}

// waits reports whether an object that is being deleted waits for somebody to stop it,
// a kubelet.
func waits(m metav1.Object) bool {
	g := m.GetDeletionGracePeriodSeconds()
	return g != nil && *g > 0
}

// prepare returns what becomes of an object that a client sends as the successor of
// old: without what the client cannot change, with defaults, and valid.
func (s *Server) prepare(r *resource, next runtime.Object, old *object, subresource string, strict bool) (runtime.Object, error) {
	m, before := accessor(next), old.meta()
	if err := r.sameIdentity(m, before, old, strict); err != nil {
		return nil, err
	}
	next.GetObjectKind().SetGroupVersionKind(r.gvk)
	m.SetUID(before.GetUID())
	m.SetNamespace(before.GetNamespace())
	m.SetGenerateName(before.GetGenerateName())
	m.SetCreationTimestamp(before.GetCreationTimestamp())
	m.SetGeneration(before.GetGeneration())
	m.SetDeletionTimestamp(before.GetDeletionTimestamp())
	m.SetDeletionGracePeriodSeconds(before.GetDeletionGracePeriodSeconds())
	m.SetResourceVersion(before.GetResourceVersion())
	m.SetSelfLink("")
	m.SetManagedFields(nil)
	var err error
	switch {
	case r.custom != nil:
		next, err = r.updateCustom(next.(*unstructured.Unstructured), old.work.(*unstructured.Unstructured), subresource)
	case subresource == "status":
		next = prepareStatus(r, next, old.obj)
	default:
		if r.status {
			takeField(next, old.obj, "Status")
		}
		legacyscheme.Scheme.Default(next)
		if r.generations && !sameField(next, old.obj, "Spec") {
			if err := s.validateUpdate(r, next); err != nil {
				return nil, err
			}
			m.SetGeneration(before.GetGeneration() + 1)
		}
	}
	if err != nil {
		return nil, err
	}
	if before.GetDeletionTimestamp() != nil {
		for _, f := range accessor(next).GetFinalizers() {
			if !slices.Contains(before.GetFinalizers(), f) {
				return nil, apierrors.NewInvalid(r.gvk.GroupKind(), m.GetName(), field.ErrorList{field.Forbidden(field.NewPath("metadata", "finalizers"), "no new finalizers can be added if the object is being deleted, found new finalizer "+f)})
			}
		}
	}
	if crd, ok := next.(*apiextensionsv1.CustomResourceDefinition); ok && subresource == "" {
		return next, s.checkDefinition(crd)
	}
	return next, nil
}

// sameIdentity returns an error unless m is about the same object as before, in the
// same version if it says which.
func (r *resource) sameIdentity(m, before metav1.Object, old *object, strict bool) error {
	resource := r.gvr.GroupResource()
	if m.GetName() != before.GetName() {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), before.GetName()))
	}
	if ns := m.GetNamespace(); ns != "" && ns != before.GetNamespace() {
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the request (%s)", ns, before.GetNamespace()))
	}
	if uid := m.GetUID(); uid != "" && uid != before.GetUID() {
		return apierrors.NewConflict(resource, m.GetName(), fmt.Errorf("the UID in the object (%s) is not that of the stored object (%s), which was created later", uid, before.GetUID()))
	}
	switch v := m.GetResourceVersion(); {
	case v == before.GetResourceVersion():
	case v != "" && v != "0":
		return apierrors.NewConflict(resource, m.GetName(), errModified)
	case strict && r.custom != nil:
		return apierrors.NewInvalid(r.gvk.GroupKind(), m.GetName(), field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
	}
	return nil
}

// prepareStatus returns the successor of old with the status of next. Pods and nodes
// take metadata with it, as kubelets send it.
func prepareStatus(r *resource, next, old runtime.Object) runtime.Object {
	switch r.gvk.Kind {
	case "Pod":
		p, before := next.(*corev1.Pod), old.(*corev1.Pod)
		p.OwnerReferences = before.OwnerReferences
		if p.Status.QOSClass == "" {
			p.Status.QOSClass = before.Status.QOSClass
		}
		takeField(next, old, "Spec")
	case "Node":
		takeField(next, old, "Spec")
	default:
		out := copyOf(old)
		takeField(out, next, "Status")
		return out
	}
	return next
}
