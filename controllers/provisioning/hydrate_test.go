// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// hydrate runs hydrated and moves the fake clock until it returns.
func hydrate(ctx context.Context, env *testEnv) (ok bool, took time.Duration) {
	done := make(chan bool, 1)
	start := env.clock.Now()
	go func() { done <- env.p.hydrated(ctx) }()
	for {
		select {
		case ok := <-done:
			return ok, env.clock.Since(start)
		case <-clock.RealClock{}.After(time.Millisecond):
			env.clock.Step(hydrationPoll)
		}
	}
}

// One NodeClaim that is never launched must not stop all provisioning.
func TestStuckObjectDoesNotStopProvisioning(t *testing.T) {
	env := newEnv(t)
	stuck := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "stuck", UID: "stuck", Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}},
		Spec: karpv1.NodeClaimSpec{NodeClassRef: &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"}}}
	env.apply(stuck)
	if env.cluster.Synced(env.ctx) {
		t.Fatal("Karpenter's state is synced although a claim has no machine: the test shows nothing")
	}
	if ok, took := hydrate(env.ctx, env); !ok || took < hydrationPatience {
		t.Errorf("hydrated %t after %v, want true after %v", ok, took, hydrationPatience)
	}
	env.apply(pod("a", "7")) // more than the smallest size, which the stuck claim may become
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want the stuck one and one for the pod", n)
	}
}

func TestFirstPassWaitsForKarpentersStateAndItsContext(t *testing.T) {
	env := newEnv(t)
	if ok, took := hydrate(env.ctx, env); !ok || took >= hydrationPatience {
		t.Errorf("hydrated %t after %v, want at once with a complete state", ok, took)
	}
	env = newEnv(t)
	env.apply(&karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "stuck", UID: "stuck"}, Spec: karpv1.NodeClaimSpec{NodeClassRef: &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"}}})
	ctx, cancel := context.WithCancel(env.ctx)
	cancel()
	if ok, _ := hydrate(ctx, env); ok {
		t.Error("hydrated although the context has ended")
	}
}
