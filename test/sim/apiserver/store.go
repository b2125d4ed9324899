// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// change is a committed change in the log of a resource, with its encodings.
type change struct {
	version int64
	at      time.Time
	event   Event
	json    []byte
	proto   []byte
}

// accessor returns the metadata of an object. All types of the scheme have some.
func accessor(o runtime.Object) metav1.Object {
	m, err := meta.Accessor(o)
	if err != nil {
		panic(err)
	}
	return m
}

// commit stores a change and wakes the watches of its resource. The caller holds the
// lock, and calls tell once it has released it.
func (s *Server) commit(r *resource, e Event) {
	m := accessor(e.Object)
	s.version++
	m.SetResourceVersion(strconv.FormatInt(s.version, 10))
	m.SetManagedFields(nil)
	e.Object.GetObjectKind().SetGroupVersionKind(r.gvk())
	e.Resource = r.gvr
	k := key(m.GetNamespace(), m.GetName())
	if e.Type == watch.Deleted {
		delete(r.objects, k)
	} else {
		r.objects[k] = e.Object
	}
	if len(r.log) >= logLimit {
		drop := logLimit / 4
		r.compacted = r.log[drop-1].version
		r.first += drop
		r.log = append(make([]*change, 0, logLimit), r.log[drop:]...)
	}
	r.log = append(r.log, &change{version: s.version, at: time.Now(), event: e})
	for w := range r.watchers {
		w.wake()
	}
	s.queue = append(s.queue, e)
}

// tell hands committed changes to the subscribers. One goroutine at a time does;
// what they change in the meantime is told by it, too.
func (s *Server) tell() {
	s.mu.Lock()
	if s.telling {
		s.mu.Unlock()
		return
	}
	s.telling = true
	for len(s.queue) > 0 {
		e := s.queue[0]
		s.queue = s.queue[1:]
		subscribers := s.subscribers
		s.mu.Unlock()
		for _, f := range subscribers {
			f(e)
		}
		s.mu.Lock()
	}
	s.queue = nil
	s.telling = false
	s.mu.Unlock()
}

const letters = "bcdfghjklmnpqrstvwxz2456789"

// suffix returns a random end for a generated name.
func (s *Server) suffix() string {
	b := make([]byte, 5)
	for i := range b {
		b[i] = letters[s.rng.IntN(len(letters))]
	}
	return string(b)
}

func (s *Server) uid() types.UID {
	a, b := s.rng.Uint64(), s.rng.Uint64()
	return types.UID(fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", uint32(a>>32), uint16(a>>16), uint16(a)&0xfff, uint16(b>>48)&0xfff, b&0xffffffffffff))
}

// create stores a new object, which it takes over.
func (s *Server) create(r *resource, o runtime.Object, client string, dryRun bool) (runtime.Object, error) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := accessor(o)
	if r.namespaced {
		ns, _ := s.byGVR[namespaces].objects[m.GetNamespace()].(*corev1.Namespace)
		if ns == nil {
			return nil, apierrors.NewNotFound(namespaces.GroupResource(), m.GetNamespace())
		}
		if ns.DeletionTimestamp != nil {
			return nil, apierrors.NewForbidden(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("namespace %s is being terminated", ns.Name))
		}
	} else {
		m.SetNamespace("")
	}
	if m.GetName() == "" {
		if m.GetGenerateName() == "" {
			return nil, apierrors.NewBadRequest(r.kind + " has neither name nor generateName")
		}
		m.SetName(m.GetGenerateName() + s.suffix())
	}
	if _, ok := r.objects[key(m.GetNamespace(), m.GetName())]; ok {
		return nil, apierrors.NewAlreadyExists(r.gvr.GroupResource(), m.GetName())
	}
	m.SetUID(s.uid())
	m.SetCreationTimestamp(now())
	m.SetDeletionTimestamp(nil)
	m.SetDeletionGracePeriodSeconds(nil)
	m.SetGeneration(1)
	m.SetResourceVersion("")
	if r.status && r.kind != "Node" { // kubelets register with a status
		clearField(o, "Status")
	}
	o, err := s.admit(r, o)
	if err != nil {
		return nil, err
	}
	if !dryRun {
		s.commit(r, Event{Type: watch.Added, Object: o, Client: client, Verb: "create"})
	}
	return o, nil
}

// now returns the time as objects have it, in whole seconds.
func now() metav1.Time { return metav1.Now().Rfc3339Copy() }

// structField returns a field of the struct that an object points to.
func structField(o runtime.Object, name string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

func clearField(o runtime.Object, name string) {
	if f := structField(o, name); f.IsValid() {
		f.SetZero()
	}
}

// update replaces an object, or its status, by a new state, which it takes over.
func (s *Server) update(r *resource, o runtime.Object, subresource, client, verb string) (runtime.Object, error) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(r, o, subresource, client, verb)
}

func (s *Server) updateLocked(r *resource, o runtime.Object, subresource, client, verb string) (runtime.Object, error) {
	m := accessor(o)
	old, ok := r.objects[key(m.GetNamespace(), m.GetName())]
	if !ok {
		return nil, apierrors.NewNotFound(r.gvr.GroupResource(), m.GetName())
	}
	om := accessor(old)
	if m.GetUID() != "" && m.GetUID() != om.GetUID() {
		return nil, apierrors.NewConflict(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("the UID in the precondition (%s) is not that of the object (%s)", m.GetUID(), om.GetUID()))
	}
	if v := m.GetResourceVersion(); v != "" && v != om.GetResourceVersion() {
		return nil, apierrors.NewConflict(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	if subresource == "status" {
		next := old.DeepCopyObject()
		if f := structField(o, "Status"); f.IsValid() {
			structField(next, "Status").Set(f)
		}
		// The status of these says something in metadata, too.
		if r.kind == "Pod" || r.custom != nil {
			accessor(next).SetAnnotations(om.GetAnnotations())
		}
		o = next
		m = accessor(o)
	} else if r.status {
		structField(o, "Status").Set(structField(old.DeepCopyObject(), "Status"))
	}
	m.SetUID(om.GetUID())
	m.SetCreationTimestamp(om.GetCreationTimestamp())
	m.SetGeneration(om.GetGeneration())
	m.SetDeletionTimestamp(om.GetDeletionTimestamp())
	m.SetDeletionGracePeriodSeconds(om.GetDeletionGracePeriodSeconds())
	m.SetResourceVersion(om.GetResourceVersion())
	m.SetManagedFields(nil)
	o.GetObjectKind().SetGroupVersionKind(r.gvk())
	if subresource != "status" {
		s.scheme.Default(o)
		if spec := structField(o, "Spec"); spec.IsValid() && !equality.Semantic.DeepEqual(spec.Interface(), structField(old, "Spec").Interface()) {
			if r.custom != nil {
				var err error
				if o, err = r.custom.validate(r, o, old); err != nil {
					return nil, err
				}
				m = accessor(o)
			}
			m.SetGeneration(om.GetGeneration() + 1)
		}
	}
	if equality.Semantic.DeepEqual(o, old) {
		return old, nil
	}
	if m.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 && !graceful(r, m) {
		s.commit(r, Event{Type: watch.Deleted, Object: o, Old: old, Client: client, Verb: verb})
		return o, nil
	}
	s.commit(r, Event{Type: watch.Modified, Object: o, Old: old, Client: client, Verb: verb})
	return o, nil
}

// graceful reports whether an object that is being deleted waits for a kubelet.
func graceful(r *resource, m metav1.Object) bool {
	g := m.GetDeletionGracePeriodSeconds()
	return r.kind == "Pod" && g != nil && *g > 0
}

// remove deletes an object: at once, or by marking it if it has finalizers or is a pod
// that a kubelet has to stop.
func (s *Server) remove(r *resource, namespace, name string, o *metav1.DeleteOptions, client, verb string) (runtime.Object, error) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removeLocked(r, namespace, name, o, client, verb)
}

func (s *Server) removeLocked(r *resource, namespace, name string, o *metav1.DeleteOptions, client, verb string) (runtime.Object, error) {
	old, ok := r.objects[key(namespace, name)]
	if !ok {
		return nil, apierrors.NewNotFound(r.gvr.GroupResource(), name)
	}
	om := accessor(old)
	if p := o.Preconditions; p != nil {
		if p.UID != nil && *p.UID != om.GetUID() {
			return nil, apierrors.NewConflict(r.gvr.GroupResource(), name, fmt.Errorf("the UID in the precondition (%s) is not that of the object (%s)", *p.UID, om.GetUID()))
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != om.GetResourceVersion() {
			return nil, apierrors.NewConflict(r.gvr.GroupResource(), name, fmt.Errorf("the object has been modified"))
		}
	}
	next := old.DeepCopyObject()
	m := accessor(next)
	if p := o.PropagationPolicy; p != nil && m.GetDeletionTimestamp() == nil {
		if f := map[metav1.DeletionPropagation]string{metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents, metav1.DeletePropagationOrphan: metav1.FinalizerOrphanDependents}[*p]; f != "" && !slices.Contains(m.GetFinalizers(), f) {
			m.SetFinalizers(append(m.GetFinalizers(), f))
		}
	}
	grace := int64(0)
	if p, ok := next.(*corev1.Pod); ok && p.Spec.NodeName != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
		grace = corev1.DefaultTerminationGracePeriodSeconds
		if p.Spec.TerminationGracePeriodSeconds != nil {
			grace = *p.Spec.TerminationGracePeriodSeconds
		}
		if o.GracePeriodSeconds != nil {
			grace = max(*o.GracePeriodSeconds, 0)
		}
	}
	if grace == 0 && len(m.GetFinalizers()) == 0 {
		if r.gvr == namespaces {
			return s.emptyNamespace(r, next, old, client)
		}
		s.commit(r, Event{Type: watch.Deleted, Object: next, Old: old, Client: client, Verb: verb})
		return next, nil
	}
	if g := m.GetDeletionGracePeriodSeconds(); m.GetDeletionTimestamp() == nil || g != nil && grace < *g {
		t := metav1.NewTime(now().Add(time.Duration(grace) * time.Second))
		m.SetDeletionTimestamp(&t)
		m.SetDeletionGracePeriodSeconds(&grace)
		m.SetGeneration(m.GetGeneration() + 1)
		s.commit(r, Event{Type: watch.Modified, Object: next, Old: old, Client: client, Verb: verb})
	}
	return next, nil
}

// namespaceDeletion is how long the content of a deleted namespace stays.
const namespaceDeletion = time.Second

// emptyNamespace marks a namespace as terminating, and removes its content and itself
// in the background.
func (s *Server) emptyNamespace(r *resource, next, old runtime.Object, client string) (runtime.Object, error) {
	m := accessor(next)
	if m.GetDeletionTimestamp() == nil {
		t := now()
		m.SetDeletionTimestamp(&t)
		next.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating
		s.commit(r, Event{Type: watch.Modified, Object: next, Old: old, Client: client, Verb: "delete"})
		time.AfterFunc(namespaceDeletion, func() { s.removeContent(m.GetName()) })
	}
	return next, nil
}

// removeContent deletes what is in a namespace, again until nothing is left, and then
// the namespace.
func (s *Server) removeContent(name string) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	left := 0
	for _, r := range s.ordered {
		if !r.namespaced {
			continue
		}
		for _, o := range r.sorted() {
			if m := accessor(o); m.GetNamespace() == name {
				left++
				_, _ = s.removeLocked(r, name, m.GetName(), &metav1.DeleteOptions{}, "", "delete")
			}
		}
	}
	r := s.byGVR[namespaces]
	ns := r.objects[name]
	if ns == nil {
		return
	}
	if left > 0 {
		time.AfterFunc(namespaceDeletion, func() { s.removeContent(name) })
		return
	}
	s.commit(r, Event{Type: watch.Deleted, Object: ns.DeepCopyObject(), Old: ns, Verb: "delete"})
}
