// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"strings"
	"testing"
)

func TestPodsOfFailedCreationArePlacedByNextPass(t *testing.T) {
	env := newEnv(t)
	env.apply(pod("a", "900m"))
	env.refuse = 1
	if err := env.p.Pass(env.ctx); err == nil || !strings.Contains(err.Error(), "not well") {
		t.Fatalf("error of the pass is %v, want what failed", err)
	}
	env.pass()
	if n := len(env.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want 1 from the second pass", n)
	}
}

func TestUnansweredCreationIsNotRepeated(t *testing.T) {
	env := newEnv(t)
	env.apply(pod("a", "900m"))
	env.unanswered = 1
	if err := env.p.Pass(env.ctx); err == nil || !strings.Contains(err.Error(), "connection reset") {
		t.Fatalf("error of the pass is %v, want what failed", err)
	}
	// The watch has not reported the claim yet.
	env.pass()
	claims := env.claims()
	if len(claims) != 1 {
		t.Fatalf("%d NodeClaims for one pod, want 1", len(claims))
	}
	if to := env.p.cache.AssumedPods()["shop/a"]; to != claims[0].Name {
		t.Errorf("the pod is assumed on %q, want %s", to, claims[0].Name)
	}
}
