// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// maxDisruptedPods is how many evicted pods a budget remembers until the disruption
// controller has counted them.
const maxDisruptedPods = 2000

// evict deletes a pod if its PodDisruptionBudget allows it, by the rules of
// https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/.
func (s *Server) evict(q *request) (*answer, error) {
	e := &policyv1.Eviction{}
	e.SetGroupVersionKind(evictionKind)
	if err := q.decode(e); err != nil {
		return nil, err
	}
	if e.Name != q.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	options := metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		options = *e.DeleteOptions
	}
	dryRun := q.dryRun() || slices.Contains(options.DryRun, metav1.DryRunAll)
	err := s.evictPod(q, options, dryRun)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && !dryRun:
		s.evicted++
	case apierrors.IsTooManyRequests(err):
		s.refused++
	}
	if err != nil {
		return nil, err
	}
	return success(http.StatusCreated), nil
}

// evictPod deletes the pod that q is about, after its budget has paid for it.
func (s *Server) evictPod(q *request, options metav1.DeleteOptions, dryRun bool) error {
	anyVersion := options.Preconditions == nil || options.Preconditions.ResourceVersion == nil
	for {
		o := s.find(q.resource, q.Namespace, q.Name)
		if o == nil {
			return apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
		}
		p := o.obj.(*corev1.Pod)
		// A pod that has ended, or is going anyway, disrupts nobody; nor does one that
		// has not started, if it does not become healthy in this moment.
		over := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil
		exact := !over && p.Status.Phase == corev1.PodPending
		var budget string
		if !over && !exact {
			var err error
			if budget, exact, err = s.spend(p, dryRun); err != nil {
				return err
			}
		}
		err := s.deleteEvicted(q, o, options, exact && anyVersion, dryRun)
		switch {
		case !apierrors.IsConflict(err) || !exact || !anyVersion:
			return err
		case budget != "":
			return tooMany(10, "The disruption budget %s is still being processed by the server.", budget)
		}
	}
}

// deleteEvicted marks a pod as evicted and deletes it. If exact is true it must still
// be in the given state.
func (s *Server) deleteEvicted(q *request, o *object, options metav1.DeleteOptions, exact, dryRun bool) error {
	want := metav1.Preconditions{}
	if options.Preconditions != nil {
		want = *options.Preconditions
	}
	if exact {
		v := o.meta().GetResourceVersion()
		want.ResourceVersion = &v
	}
	next, err := s.modify(q.resource, q.Namespace, q.Name, actor{client: q.Client, verb: "update"}, dryRun, func(old *object) (runtime.Object, error) {
		if err := precondition(q.resource, old, &want); err != nil {
			return nil, err
		}
		p := copyOf(old.obj).(*corev1.Pod)
		p.Status.Conditions = withCondition(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		})
		return p, nil
	})
	if err != nil {
		return err
	}
	if want.ResourceVersion != nil && !dryRun {
		v := next.meta().GetResourceVersion()
		want.ResourceVersion = &v
	}
	options.Preconditions = &want
	_, _, err = s.remove(q.resource, q.Namespace, q.Name, options, actor{client: q.Client, verb: "evict"}, dryRun)
	return err
}

// spend takes one allowed disruption from the budget of a running pod, if it has one,
// and returns the budget's name. exact says that nothing was taken because the pod is
// not healthy: it must still be like that when it is deleted.
func (s *Server) spend(p *corev1.Pod, dryRun bool) (name string, exact bool, err error) {
	r := s.lookup(budgets)
	all, _ := s.snapshot(r)
	var found *policyv1.PodDisruptionBudget
	for _, o := range all {
		b := o.obj.(*policyv1.PodDisruptionBudget)
		if b.Namespace != p.Namespace {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		if found != nil {
			return "", false, &apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
				Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
			}}
		}
		found = b
	}
	if found == nil {
		return "", false, nil
	}
	if !ready(p) {
		always := found.Spec.UnhealthyPodEvictionPolicy != nil && *found.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
		if always || found.Status.CurrentHealthy >= found.Status.DesiredHealthy && found.Status.DesiredHealthy > 0 {
			return found.Name, true, nil
		}
	}
	_, err = s.modify(r, found.Namespace, found.Name, actor{verb: "update"}, dryRun, func(old *object) (runtime.Object, error) {
		b := copyOf(old.obj).(*policyv1.PodDisruptionBudget)
		return b, pay(b, p.Name)
	})
	if apierrors.IsNotFound(err) {
		err = nil // nobody asks for it any more
	}
	return found.Name, false, err
}

// pay takes one allowed disruption from a budget, or returns why there is none.
func pay(b *policyv1.PodDisruptionBudget, pod string) error {
	st := &b.Status
	switch {
	case st.ObservedGeneration < b.Generation:
		return tooMany(10, "The disruption budget %s is still being processed by the server.", b.Name)
	case st.DisruptionsAllowed < 0:
		return forbidden(b.Name, errors.New("pdb disruptions allowed is negative"))
	case len(st.DisruptedPods) > maxDisruptedPods:
		return forbidden(b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case st.DisruptionsAllowed == 0:
		c := meta.FindStatusCondition(st.Conditions, policyv1.DisruptionAllowedCondition)
		switch known := c != nil && c.Status == metav1.ConditionFalse && c.Message != ""; {
		case known && c.Reason == policyv1.SyncFailedReason:
			return tooMany(0, "The disruption budget %s does not allow evicting pods currently because it failed sync: %s", b.Name, c.Message)
		case st.CurrentHealthy <= st.DesiredHealthy:
			return tooMany(0, "The disruption budget %s needs %d healthy pods and has %d currently", b.Name, st.DesiredHealthy, st.CurrentHealthy)
		case known:
			return tooMany(0, "The disruption budget %s does not allow evicting pods currently (%s): %s", b.Name, c.Reason, c.Message)
		}
		return tooMany(0, "The disruption budget %s does not allow evicting pods currently", b.Name)
	}
	st.DisruptionsAllowed--
	if st.DisruptionsAllowed == 0 {
		st.Conditions = slices.Clone(st.Conditions)
		meta.SetStatusCondition(&st.Conditions, metav1.Condition{
			Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason, ObservedGeneration: st.ObservedGeneration, LastTransitionTime: now(),
		})
	}
	st.DisruptedPods = maps.Clone(st.DisruptedPods)
	if st.DisruptedPods == nil {
		st.DisruptedPods = map[string]metav1.Time{}
	}
	st.DisruptedPods[pod] = now()
	return nil
}

// forbidden returns the answer to an eviction that a budget in a bad state refuses.
func forbidden(name string, why error) error {
	err := apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), name, why)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s does not allow evicting pods currently: %v", name, why),
	})
	return err
}

// tooMany returns the answer to an eviction that has to wait.
func tooMany(retryAfter int, format string, args ...any) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retryAfter)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...)})
	return err
}

// ready reports whether a pod is ready, which budgets count as healthy.
func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
