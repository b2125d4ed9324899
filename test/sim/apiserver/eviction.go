// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// maxDisruptedPods is how many evicted pods a budget remembers.
const maxDisruptedPods = 2000

// evict deletes a pod if its PodDisruptionBudget allows it
// (https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/).
func (s *Server) evict(q *request, e *policyv1.Eviction) error {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := q.resource.objects[key(q.Namespace, q.Name)].(*corev1.Pod)
	if !ok {
		return apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
	}
	o := metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		o = *e.DeleteOptions
	}
	if p.Status.Phase != corev1.PodPending && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && p.DeletionTimestamp == nil {
		if err := s.spend(p); err != nil {
			if apierrors.IsTooManyRequests(err) {
				s.refused++
			}
			return err
		}
	}
	_, err := s.removeLocked(q.resource, q.Namespace, q.Name, &o, q.Client, "evict")
	return err
}

// spend takes one allowed disruption from the budget of a pod, if it has one and the
// pod counts as healthy there.
func (s *Server) spend(p *corev1.Pod) error {
	var budget *policyv1.PodDisruptionBudget
	r := s.byGVR[budgets]
	for _, o := range r.sorted() {
		b := o.(*policyv1.PodDisruptionBudget)
		if b.Namespace != p.Namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		if budget != nil {
			return apierrors.NewInternalError(errors.New("this pod has more than one PodDisruptionBudget, which the eviction subresource does not support"))
		}
		budget = b
	}
	if budget == nil {
		return nil
	}
	if !ready(p) {
		always := budget.Spec.UnhealthyPodEvictionPolicy != nil && *budget.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
		if always || budget.Status.CurrentHealthy >= budget.Status.DesiredHealthy && budget.Status.DesiredHealthy > 0 {
			return nil
		}
	}
	next := budget.DeepCopy()
	switch {
	case next.Status.ObservedGeneration < next.Generation:
		return tooMany(10, "The disruption budget %s is still being processed by the server.", next.Name)
	case len(next.Status.DisruptedPods) > maxDisruptedPods:
		return apierrors.NewForbidden(schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"}, next.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case next.Status.DisruptionsAllowed <= 0:
		return tooMany(0, "The disruption budget %s needs %d healthy pods and has %d currently", next.Name, next.Status.DesiredHealthy, next.Status.CurrentHealthy)
	}
	next.Status.DisruptionsAllowed--
	if next.Status.DisruptedPods == nil {
		next.Status.DisruptedPods = map[string]metav1.Time{}
	}
	next.Status.DisruptedPods[p.Name] = now()
	_, err := s.updateLocked(r, next, "status", "", "evict")
	return err
}

// tooMany returns the answer to an eviction that has to wait.
func tooMany(retryAfter int, format string, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retryAfter)
	err.ErrStatus.Code = http.StatusTooManyRequests
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...)})
	return err
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
