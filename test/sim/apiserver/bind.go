// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// bind gives a pod its node, once.
func (s *Server) bind(q *request) (*answer, error) {
	b := &corev1.Binding{}
	b.SetGroupVersionKind(bindingKind)
	if err := q.decode(b); err != nil {
		return nil, err
	}
	if b.Name != q.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if b.Target.Name == "" || b.Target.Kind != "" && b.Target.Kind != "Node" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the target of a Binding must be a Node with a name, not %s %q", b.Target.Kind, b.Target.Name))
	}
	var want metav1.Preconditions
	if b.UID != "" {
		want.UID = &b.UID
	}
	if b.ResourceVersion != "" {
		want.ResourceVersion = &b.ResourceVersion
	}
	by := actor{client: q.Client, verb: "bind"}
	_, err := s.modify(q.resource, q.Namespace, q.Name, by, q.dryRun(), func(old *object) (runtime.Object, error) {
		if err := precondition(q.resource, old, &want); err != nil {
			return nil, err
		}
		next, err := s.bound(old.obj.(*corev1.Pod), b)
		if err != nil {
			return nil, apierrors.NewConflict(corev1.Resource("pods/binding"), q.Name, err)
		}
		return next, nil
	})
	if err != nil {
		return nil, err
	}
	return success(http.StatusCreated), nil
}

// bound returns a pod as a binding leaves it.
func (s *Server) bound(old *corev1.Pod, b *corev1.Binding) (*corev1.Pod, error) {
	switch {
	case old.DeletionTimestamp != nil:
		return nil, fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", old.Name)
	case old.Spec.NodeName != "":
		return nil, fmt.Errorf("pod %s is already assigned to node %q", old.Name, old.Spec.NodeName)
	case len(old.Spec.SchedulingGates) > 0:
		return nil, fmt.Errorf("pod %s has non-empty .spec.schedulingGates", old.Name)
	}
	p := copyOf(old).(*corev1.Pod)
	p.Spec.NodeName = b.Target.Name
	p.Status.NominatedNodeName = ""
	if len(b.Annotations) > 0 {
		p.Annotations = maps.Clone(p.Annotations)
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		maps.Copy(p.Annotations, b.Annotations)
	}
	for k, v := range b.Labels {
		p.Labels = with(p.Labels, k, v)
	}
	s.copyTopology(p, p.Spec.NodeName)
	p.Status.Conditions = withCondition(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue})
	return p, nil
}

// withCondition returns conditions with c in place of the one of its type.
func withCondition(have []corev1.PodCondition, c corev1.PodCondition) []corev1.PodCondition {
	out := slices.Clone(have)
	c.LastTransitionTime = now()
	i := slices.IndexFunc(out, func(o corev1.PodCondition) bool { return o.Type == c.Type })
	if i < 0 {
		return append(out, c)
	}
	if out[i].Status == c.Status {
		c.LastTransitionTime = out[i].LastTransitionTime
	}
	out[i] = c
	return out
}
