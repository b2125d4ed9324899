// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// namespaceDelay is how long it takes until the content of a deleted namespace is
// deleted.
const namespaceDelay = time.Second

// remove deletes an object: at once, or by marking it if it has finalizers or is a pod
// that a kubelet has to stop. It returns its last state, and whether it is gone.
func (s *Server) remove(r *resource, namespace, name string, o metav1.DeleteOptions, by actor, dryRun bool) (*object, bool, error) {
	defer s.tell()
	for {
		old := s.find(r, namespace, name)
		if old == nil {
			return nil, false, apierrors.NewNotFound(r.gvr.GroupResource(), name)
		}
		if err := precondition(r, old, o.Preconditions); err != nil {
			return nil, false, err
		}
		work, gone := marked(r, old, o)
		if !gone && r.same(work, old) {
			return old, false, nil
		}
		next, err := r.newState(work)
		if err != nil {
			return nil, false, apierrors.NewInternalError(err)
		}
		if dryRun {
			next.setVersion(old.version)
			return next, gone, nil
		}
		if s.removed(r, next, old, gone, by) {
			return next, gone, nil
		}
	}
}

// removed commits a deletion, or the mark of one, and reports whether old was still
// the present state.
func (s *Server) removed(r *resource, next, old *object, gone bool, by actor) bool {
	if !gone {
		if !s.replace(r, next, old, by) {
			return false
		}
		if r.gvr == namespaces {
			s.emptyLater(next.meta().GetName(), namespaceDelay)
		}
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.objects[old.key] != old {
		return false
	}
	s.commit(r, watch.Deleted, next, old, by)
	if r.gvr == definitions {
		s.definitionChanged(next, true)
	}
	return true
}

// precondition returns an error unless an object is the one that a client means.
func precondition(r *resource, o *object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	m := o.meta()
	if p.UID != nil && *p.UID != "" && *p.UID != m.GetUID() {
		return apierrors.NewConflict(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, m.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != "" && *p.ResourceVersion != m.GetResourceVersion() {
		return apierrors.NewConflict(r.gvr.GroupResource(), m.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, m.GetResourceVersion()))
	}
	return nil
}

// marked returns an object as deletion leaves it, and whether nothing keeps it from
// going at once.
func marked(r *resource, old *object, o metav1.DeleteOptions) (work runtime.Object, gone bool) {
	work = copyOf(old.work)
	m := accessor(work)
	grace, deleting := gracePeriod(old.obj, o), m.GetDeletionTimestamp() != nil
	if deleting {
		present := int64(0)
		if g := m.GetDeletionGracePeriodSeconds(); g != nil {
			present = *g
		}
		if grace >= present { // it can only become shorter
			return work, present == 0 && len(m.GetFinalizers()) == 0 && r.gvr != namespaces
		}
		t := metav1.NewTime(m.GetDeletionTimestamp().Add(time.Duration(grace-present) * time.Second))
		m.SetDeletionTimestamp(&t)
		m.SetDeletionGracePeriodSeconds(&grace)
		return work, grace == 0 && len(m.GetFinalizers()) == 0
	}
	m.SetFinalizers(finalizersFor(m.GetFinalizers(), o))
	gone = grace == 0 && len(m.GetFinalizers()) == 0 && r.gvr != namespaces
	if gone {
		return work, true
	}
	t := metav1.NewTime(now().Add(time.Duration(grace) * time.Second))
	m.SetDeletionTimestamp(&t)
	m.SetDeletionGracePeriodSeconds(&grace)
	if g := m.GetGeneration(); g > 0 {
		m.SetGeneration(g + 1)
	}
	if ns, ok := work.(*corev1.Namespace); ok {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	return work, false
}

// gracePeriod returns how many seconds a pod has to stop; everything else has none.
func gracePeriod(o runtime.Object, options metav1.DeleteOptions) int64 {
	p, ok := o.(*corev1.Pod)
	if !ok || p.Spec.NodeName == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return 0
	}
	var grace int64
	switch {
	case options.GracePeriodSeconds != nil:
		grace = *options.GracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	if grace < 0 {
		return 1 // as the API server does
	}
	return grace
}

// finalizersFor adds or removes the finalizers by which the garbage collector knows
// what becomes of the dependents.
func finalizersFor(have []string, o metav1.DeleteOptions) []string {
	var want string
	switch {
	case o.PropagationPolicy != nil && *o.PropagationPolicy == metav1.DeletePropagationForeground:
		want = metav1.FinalizerDeleteDependents
	case o.PropagationPolicy != nil && *o.PropagationPolicy == metav1.DeletePropagationOrphan,
		o.PropagationPolicy == nil && o.OrphanDependents != nil && *o.OrphanDependents: //nolint:staticcheck // old clients send it
		want = metav1.FinalizerOrphanDependents
	case o.PropagationPolicy == nil:
		return have // as the object says
	}
	out := slices.DeleteFunc(slices.Clone(have), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
	if want != "" {
		out = append(out, want)
	}
	return out
}

// emptyLater calls emptyNamespace after some time.
func (s *Server) emptyLater(name string, d time.Duration) {
	time.AfterFunc(d, func() { s.emptyNamespace(name, d) })
}

// emptyNamespace deletes what is in a namespace, and the namespace once nothing is
// left; until then it looks again, less and less often. waited is how long it has
// waited before this time.
func (s *Server) emptyNamespace(name string, waited time.Duration) {
	defer s.tell()
	s.mu.Lock()
	resources, stopped := slices.Clone(s.ordered), s.stopped
	spaces := s.resources[namespaces]
	s.mu.Unlock()
	if stopped {
		return
	}
	left := false
	for _, r := range resources {
		if !r.namespaced {
			continue
		}
		all, _ := s.snapshot(r)
		for _, o := range all {
			if m := o.meta(); m.GetNamespace() == name {
				_, gone, err := s.remove(r, name, m.GetName(), metav1.DeleteOptions{}, actor{verb: "delete"}, false)
				left = left || err == nil && !gone
			}
		}
	}
	old := s.find(spaces, "", name)
	if old == nil {
		return
	}
	if !left && len(old.meta().GetFinalizers()) == 0 {
		next, err := spaces.newState(copyOf(old.work))
		if err == nil && s.removed(spaces, next, old, true, actor{verb: "delete"}) {
			return
		}
	}
	s.emptyLater(name, min(2*waited, time.Minute))
}
