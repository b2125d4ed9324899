// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
)

// A pod that was promised room on a node that never becomes ready gets another machine,
// and not the same node again.
func TestPromiseToANodeThatIsNeverReadyEnds(t *testing.T) {
	env := newEnv(t)
	env.apply(pod("a", "1500m"))
	env.pass()
	claims := env.claims()
	if len(claims) != 1 {
		t.Fatalf("%d NodeClaims, want 1", len(claims))
	}
	up := claims[0].DeepCopy()
	up.Status.ProviderID = "azure:///dead"
	up.Labels[corev1.LabelInstanceTypeStable] = "Standard_D2s_v5"
	up.StatusConditions().SetTrue(karpv1.ConditionTypeLaunched)
	up.StatusConditions().SetTrue(karpv1.ConditionTypeRegistered)
	dead := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "dead", UID: "dead", CreationTimestamp: metav1.NewTime(env.clock.Now()), Labels: map[string]string{karpv1.NodePoolLabelKey: "default", karpv1.NodeRegisteredLabelKey: "true"}},
		Spec:       corev1.NodeSpec{ProviderID: up.Status.ProviderID},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}},
	}
	env.apply(up, dead)
	env.clock.Step(snapshot.ReadyGrace / 2)
	env.pass()
	if n := len(env.claims()); n != 1 || !env.assumed("shop/a") {
		t.Fatalf("%d NodeClaims while the node boots, want 1 with the pod assumed on it", n)
	}
	env.clock.Step(snapshot.ReadyGrace)
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims after the node took too long, want a second one", n)
	}
	if on, _ := env.p.cache.AssumedOn("shop/a"); on == claims[0].Name || on == "dead" {
		t.Errorf("the pod is promised %s again", on)
	}
}

// A pod that the scheduler never binds, say for the access mode of its volume, must not
// keep a machine by promises renewed again and again.
func TestPromiseThatIsNeverKeptEnds(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	env.applyMachine("x", "4")
	env.apply(pod("never", "500m"))
	promised, since := 0, env.clock.Now()
	for env.clock.Since(since) < time.Hour {
		env.pass()
		if env.assumed("shop/never") {
			promised++
		}
		env.clock.Step(time.Second)
	}
	if promised == 0 || promised > 300 {
		t.Errorf("the pod was promised room for %d seconds of an hour, want a few attempts", promised)
	}
	if n := len(env.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want none bought for a pod that has room", n)
	}
}

// A pod whose room other pods have taken says nothing against the machine: it is not
// bought in vain.
func TestRoomTakenByOthersIsNoFailureOfTheMachine(t *testing.T) {
	for _, busy := range []bool{true, false} {
		env := newEnv(t)
		env.applyMachine("x", "1900m")
		env.applyAssumed("a", "1800m", "x")
		env.pass() // marks the node as ready
		env.apply(pod("b", "1500m", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Status = "x", corev1.PodStatus{Phase: corev1.PodRunning}
			if !busy {
				of("agents")(p)
				p.OwnerReferences[0].Kind = "DaemonSet"
			}
		}))
		env.clock.Step(crowdedTimeout)
		env.pass()
		if failed := env.p.breaker.any(); failed == busy {
			t.Errorf("with a pod of a workload on the node (%t) the breaker knows a failure: %t", busy, failed)
		}
	}
}
