// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

func TestPodsAreBoundOnce(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, pods := t.Context(), k.CoreV1().Pods("default")
		must(t, s.Create(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}}))
		must(t, s.Create(newPod("p")))
		must(t, s.Create(newPod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} })))
		_, err := pods.Patch(ctx, "p", types.MergePatchType, []byte(`{"status":{"nominatedNodeName":"m"}}`), metav1.PatchOptions{}, "status")
		must(t, err)
		b := binding("p", "n")
		b.UID = "other"
		if err := pods.Bind(ctx, b, metav1.CreateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("binding another pod of that name: %v", err)
		}
		b.UID, b.Annotations = "", map[string]string{"by": "me"}
		must(t, pods.Bind(ctx, b, metav1.CreateOptions{}))
		p, err := pods.Get(ctx, "p", metav1.GetOptions{})
		must(t, err)
		if p.Spec.NodeName != "n" || p.Status.NominatedNodeName != "" || p.Annotations["by"] != "me" || p.Labels[corev1.LabelTopologyZone] != "z1" || p.Labels["app"] != "a" ||
			len(p.Status.Conditions) != 1 || p.Status.Conditions[0].Type != corev1.PodScheduled || p.Status.Conditions[0].Status != corev1.ConditionTrue {
			t.Errorf("a bound pod: node %q, nominated %q, labels %v, annotations %v, conditions %v", p.Spec.NodeName, p.Status.NominatedNodeName, p.Labels, p.Annotations, p.Status.Conditions)
		}
		for pod, want := range map[string]string{"p": `already assigned to node "n"`, "gated": "schedulingGates"} {
			if err := pods.Bind(ctx, binding(pod, "m"), metav1.CreateOptions{}); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("binding %s: %v", pod, err)
			}
		}
		if err := pods.Bind(ctx, binding("missing", "n"), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("binding what is not there: %v", err)
		}
		must(t, pods.Delete(ctx, "p", metav1.DeleteOptions{}))
		if err := pods.Bind(ctx, binding("p", "m"), metav1.CreateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("binding a pod that is being deleted: %v", err)
		}
	})
}

// runningPod creates a pod that runs, ready or not.
func runningPod(t *testing.T, s *Server, name string, ready bool) {
	t.Helper()
	must(t, s.Create(newPod(name, onNode("n"))))
	p := newPod(name)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
	if ready {
		p.Status.Conditions[0].Status = corev1.ConditionTrue
	}
	must(t, s.UpdateStatus(p))
}

// newBudget creates a budget whose status the disruption controller has written.
func newBudget(t *testing.T, s *Server, name string, change func(*policyv1.PodDisruptionBudget)) {
	t.Helper()
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}},
		Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1},
	}
	change(b)
	must(t, s.Create(b))
	must(t, s.UpdateStatus(b))
}

func eviction(pod string) *policyv1.Eviction {
	return &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: pod}}
}

func TestEvictionsSpendTheBudget(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx := t.Context()
		for i := range 3 {
			runningPod(t, s, fmt.Sprintf("p%d", i), true)
		}
		newBudget(t, s, "b", func(b *policyv1.PodDisruptionBudget) {
			b.Status.DisruptionsAllowed, b.Status.CurrentHealthy, b.Status.DesiredHealthy = 1, 3, 3
		})
		must(t, k.PolicyV1().Evictions("default").Evict(ctx, eviction("p0")))
		p, err := k.CoreV1().Pods("default").Get(ctx, "p0", metav1.GetOptions{})
		must(t, err)
		if p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 30 {
			t.Errorf("the evicted pod: deleted at %v", p.DeletionTimestamp)
		}
		if c := p.Status.Conditions[len(p.Status.Conditions)-1]; c.Type != corev1.DisruptionTarget || c.Reason != "EvictionByEvictionAPI" {
			t.Errorf("the evicted pod has the conditions %v", p.Status.Conditions)
		}
		b, err := k.PolicyV1().PodDisruptionBudgets("default").Get(ctx, "b", metav1.GetOptions{})
		must(t, err)
		if _, ok := b.Status.DisruptedPods["p0"]; !ok || b.Status.DisruptionsAllowed != 0 {
			t.Errorf("after the eviction: %+v", b.Status)
		}
		err = k.PolicyV1().Evictions("default").Evict(ctx, eviction("p1"))
		if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) || !strings.Contains(fmt.Sprint(causes(err)), "needs 3 healthy pods and has 3 currently") {
			t.Errorf("the second eviction: %v, causes %v", err, causes(err))
		}
		must(t, k.PolicyV1().Evictions("default").Evict(ctx, eviction("p0"))) // goes anyway
		if accepted, refused := s.Evictions(); accepted != 2 || refused != 1 {
			t.Errorf("%d evictions accepted, %d refused", accepted, refused)
		}
		b.Spec.MinAvailable = ptr(intstr.FromInt32(2))
		b, err = k.PolicyV1().PodDisruptionBudgets("default").Update(ctx, b, metav1.UpdateOptions{})
		must(t, err)
		b.Status.DisruptionsAllowed = 5
		_, err = k.PolicyV1().PodDisruptionBudgets("default").UpdateStatus(ctx, b, metav1.UpdateOptions{})
		must(t, err)
		err = k.PolicyV1().Evictions("default").Evict(ctx, eviction("p1"))
		if s, ok := apierrors.SuggestsClientDelay(err); !apierrors.IsTooManyRequests(err) || !ok || s != 10 {
			t.Errorf("evicting while the budget is looked at: %v, again after %d", err, s)
		}
	})
}

func causes(err error) []metav1.StatusCause {
	if st, ok := err.(apierrors.APIStatus); ok && st.Status().Details != nil {
		return st.Status().Details.Causes
	}
	return nil
}

func TestEvictionsOfPodsThatAreNotHealthy(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		evict := func(name string) error { return k.PolicyV1().Evictions("default").Evict(t.Context(), eviction(name)) }
		runningPod(t, s, "sick", false)
		must(t, s.Create(newPod("pending", onNode("n"))))
		newBudget(t, s, "b", func(b *policyv1.PodDisruptionBudget) {
			b.Status.CurrentHealthy, b.Status.DesiredHealthy = 1, 2
		})
		if err := evict("sick"); !apierrors.IsTooManyRequests(err) {
			t.Errorf("evicting a sick pod of a sick application: %v", err)
		}
		must(t, evict("pending"))
		b, err := k.PolicyV1().PodDisruptionBudgets("default").Get(t.Context(), "b", metav1.GetOptions{})
		must(t, err)
		b.Status.CurrentHealthy = 2
		_, err = k.PolicyV1().PodDisruptionBudgets("default").UpdateStatus(t.Context(), b, metav1.UpdateOptions{})
		must(t, err)
		must(t, evict("sick"))

		runningPod(t, s, "always", false)
		b.ResourceVersion, b.Status.CurrentHealthy = "", 1
		must(t, s.UpdateStatus(b))
		always := policyv1.AlwaysAllow
		b.Spec.UnhealthyPodEvictionPolicy = &always
		must(t, s.Update(b))
		must(t, evict("always"))

		runningPod(t, s, "two", true)
		newBudget(t, s, "another", func(*policyv1.PodDisruptionBudget) {})
		if err := evict("two"); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "more than one PodDisruptionBudget") {
			t.Errorf("evicting a pod with two budgets: %v", err)
		}
		if err := evict("missing"); !apierrors.IsNotFound(err) {
			t.Errorf("evicting what is not there: %v", err)
		}
	})
}

func TestEvictionHonoursDeleteOptions(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		runningPod(t, s, "p", true)
		e := eviction("p")
		wrong := types.UID("other")
		e.DeleteOptions = &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &wrong}}
		if err := k.PolicyV1().Evictions("default").Evict(t.Context(), e); !apierrors.IsConflict(err) {
			t.Errorf("evicting another pod of that name: %v", err)
		}
		e.DeleteOptions = &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
		must(t, k.PolicyV1().Evictions("default").Evict(t.Context(), e))
		p, err := k.CoreV1().Pods("default").Get(t.Context(), "p", metav1.GetOptions{})
		must(t, err)
		if p.DeletionTimestamp != nil || len(p.Status.Conditions) != 1 {
			t.Errorf("a dry run deleted at %v, conditions %v", p.DeletionTimestamp, p.Status.Conditions)
		}
		e.DeleteOptions = &metav1.DeleteOptions{GracePeriodSeconds: ptr[int64](0)}
		must(t, k.PolicyV1().Evictions("default").Evict(t.Context(), e))
		if n := s.Count(podsResource); n != 0 {
			t.Errorf("%d pods are left", n)
		}
	})
}

func TestScale(t *testing.T) {
	inBoth(t, func(t *testing.T, s *Server, k kubernetes.Interface) {
		ctx, deployments := t.Context(), k.AppsV1().Deployments("default")
		must(t, s.Create(newDeployment("d", 3)))
		scale, err := deployments.GetScale(ctx, "d", metav1.GetOptions{})
		must(t, err)
		if scale.Spec.Replicas != 3 || scale.Status.Selector != "app=d" || scale.UID == "" {
			t.Errorf("scale %+v", scale)
		}
		old := scale.DeepCopy()
		scale.Spec.Replicas = 5
		scale, err = deployments.UpdateScale(ctx, "d", scale, metav1.UpdateOptions{})
		must(t, err)
		d, err := deployments.Get(ctx, "d", metav1.GetOptions{})
		must(t, err)
		if scale.Spec.Replicas != 5 || *d.Spec.Replicas != 5 || d.Generation != 2 || scale.ResourceVersion != d.ResourceVersion {
			t.Errorf("scaled to %d, the deployment has %d, generation %d", scale.Spec.Replicas, *d.Spec.Replicas, d.Generation)
		}
		if err := errorOf(deployments.UpdateScale(ctx, "d", old, metav1.UpdateOptions{})); !apierrors.IsConflict(err) {
			t.Errorf("scaling an old version: %v", err)
		}
		var patched autoscalingv1.Scale
		must(t, k.AppsV1().RESTClient().Patch(types.MergePatchType).Namespace("default").Resource("deployments").Name("d").SubResource("scale").Body([]byte(`{"spec":{"replicas":1}}`)).Do(ctx).Into(&patched))
		if patched.Spec.Replicas != 1 {
			t.Errorf("patched to %d", patched.Spec.Replicas)
		}
		scale.ResourceVersion, scale.Spec.Replicas = "", -1
		if err := errorOf(deployments.UpdateScale(ctx, "d", scale, metav1.UpdateOptions{})); !apierrors.IsInvalid(err) {
			t.Errorf("scaling to -1: %v", err)
		}
	})
}
