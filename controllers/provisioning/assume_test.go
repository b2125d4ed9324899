// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

func TestAssumedPodsAreNotPlacedAgain(t *testing.T) {
	env := newEnv(t)
	env.apply(pods(10, "900m")...)
	env.pass()
	before := len(env.claims())
	for range 3 {
		env.clock.Step(10 * time.Second)
		env.pass()
	}
	if after := len(env.claims()); after != before {
		t.Fatalf("%d NodeClaims for the same pods, %d after the first pass", after, before)
	}
	// One launch fails: its NodeClaim is deleted, and only its pods are placed again.
	victim := env.claims()[0]
	if err := env.kube.Delete(env.ctx, &victim); err != nil {
		t.Fatal(err)
	}
	if err := env.p.cache.Delete(&victim); err != nil {
		t.Fatal(err)
	}
	env.cluster.DeleteNodeClaim(victim.Name)
	env.pass()
	if after := len(env.claims()); after != before {
		t.Errorf("%d NodeClaims after one failed and was replaced, want %d", after, before)
	}
}

func TestAssumedPodExpiresWhenNodeCannotTakeIt(t *testing.T) {
	env := newEnv(t)
	env.apply(pod("stuck", "900m"))
	env.pass()
	claim := env.claims()[0].DeepCopy()
	// The node is ready and empty, but the scheduler does not bind the pod.
	claim.Status.ProviderID, claim.Status.NodeName = "azure:///x", "n"
	claim.Labels[corev1.LabelInstanceTypeStable] = "Standard_D2s_v5"
	for _, c := range []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized} {
		claim.StatusConditions().SetTrue(c)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{karpv1.NodeInitializedLabelKey: "true", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodePoolLabelKey: "default", corev1.LabelArchStable: "arm64", corev1.LabelOSStable: "linux", karpv1.CapacityTypeLabelKey: "on-demand", corev1.LabelTopologyZone: "eastus-1", corev1.LabelHostname: "n"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///x"}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("30")}
	node.Status.Capacity = node.Status.Allocatable
	env.apply(claim, node) // too small for the pod
	env.pass()
	env.clock.Step(crowdedTimeout / 2)
	env.pass()
	if n := len(env.claims()); n != 1 {
		t.Fatalf("%d NodeClaims while the pod is assumed, want 1", n)
	}
	env.clock.Step(crowdedTimeout)
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims %s after the node could not take the pod, want 2", n, crowdedTimeout)
	}
}

func TestAssumedPodExpiresLaterWhileOthersAreBound(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	env.applyMachine("x", "3800m")
	env.applyAssumed("slow", "800m", "x")
	bind := func(i int) {
		name := fmt.Sprintf("p-%02d", i)
		env.applyAssumed(name, "10m", "x")
		bound := pod(name, "10m", func(p *corev1.Pod) { p.Spec.NodeName = "x" })
		env.p.noteBound(bound)
		env.apply(bound)
	}
	env.pass() // marks the node as ready
	assumed := func() bool { return env.assumed("shop/slow") }
	start := env.clock.Now()
	for i := 0; env.clock.Since(start)+bindTimeoutNominated/2 < bindTimeoutMax; i++ {
		bind(i)
		env.clock.Step(bindTimeoutNominated / 2)
		env.pass()
		if !assumed() {
			t.Fatalf("the assumed pod expired after %s, while other pods were bound", env.clock.Since(start))
		}
	}
	bind(99)
	env.clock.Step(bindTimeoutNominated)
	env.p.expireAssumed(context.WithoutCancel(env.ctx))
	if assumed() {
		t.Errorf("the pod is still assumed after %s", env.clock.Since(start))
	}
	// If no other pod is bound, it expires after the usual time.
	env.applyAssumed("slow", "800m", "x")
	env.p.expireAssumed(env.ctx)
	env.clock.Step(bindTimeoutNominated)
	env.p.expireAssumed(env.ctx)
	if assumed() {
		t.Errorf("the pod is still assumed %s after the last pod was bound", bindTimeoutNominated)
	}
}

func TestNodeWithAssumedPodsIsNominated(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	env.applyMachine("x", "3800m")
	env.applyMachine("y", "3800m")
	env.applyAssumed("slow", "800m", "x")
	nominated := func(name string) bool {
		for n := range env.cluster.Nodes() {
			if n.Node != nil && n.Node.Name == name {
				return n.Nominated(env.clock)
			}
		}
		t.Fatalf("no node %s", name)
		return false
	}
	env.pass()
	if !nominated("x") || nominated("y") {
		t.Errorf("nominated: x %t, y %t; want x, which has an assumed pod, and not y", nominated("x"), nominated("y"))
	}
}
