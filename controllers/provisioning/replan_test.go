// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"testing"
	"time"
)

// scaleUpBoundDifferently returns a scale-up of two machines. The scheduler has bound a
// pod planned for x to y, so y cannot take b any more.
func scaleUpBoundDifferently(t *testing.T) *testEnv {
	env := newEnv(t)
	env.applyMachine("x", "3800m")
	env.applyMachine("y", "3800m")
	env.applyAssumed("a", "1800m", "x")
	env.applyAssumed("c", "800m", "x")
	env.applyAssumed("d", "800m", "x")
	env.applyAssumed("b", "1800m", "y")
	env.applyAssumed("e", "1500m", "y")
	env.pass() // marks the nodes as ready
	env.bind("d", "800m", "y")
	env.bind("e", "1500m", "y")
	return env
}

func TestReplanMovesAssumedPodsInsteadOfBuying(t *testing.T) {
	env := scaleUpBoundDifferently(t)
	for range 3 {
		env.clock.Step(crowdedTimeout)
		env.pass()
	}
	// 1.2 cpus are free on x and 1.5 on y: b fits on x if c, which waits for x, moves to y.
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want 2: a and b fit on x, c on y", n)
	}
	got := env.p.cache.AssumedPods()
	for _, want := range []struct{ pod, node string }{{"a", "x"}, {"b", "x"}, {"c", "y"}} {
		if to := got["shop/"+want.pod]; to != want.node {
			t.Errorf("pod %s is assumed on %q, want %s", want.pod, to, want.node)
		}
	}
}

func TestMachineIsBoughtWhenReplanDoesNotHelp(t *testing.T) {
	env := scaleUpBoundDifferently(t)
	env.bind("c", "800m", "x") // so nothing can be moved to y
	env.clock.Step(crowdedTimeout)
	env.pass()
	if n := len(env.claims()); n != 3 {
		t.Errorf("%d NodeClaims, want a third one for b", n)
	}
	if to := env.p.cache.AssumedPods()["shop/a"]; to != "x" {
		t.Errorf("pod a is assumed on %q, want x as before", to)
	}
	for i := range 4 {
		env.clock.Step(time.Second)
		env.pass()
		if n := len(env.claims()); n != 3 {
			t.Fatalf("%d NodeClaims %d s later, want 3", n, i+1)
		}
	}
}

func TestScaleUpBoundDifferentlyIsNotBoughtTwice(t *testing.T) {
	env := newEnv(t)
	for i := range 8 {
		env.applyMachine(fmt.Sprintf("m%d", i), "3800m")
		for j, cpu := range []string{"1200m", "900m", "900m", "700m"} {
			env.applyAssumed(fmt.Sprintf("p%d-%d", i, j), cpu, fmt.Sprintf("m%d", i))
		}
	}
	env.pass()
	// The first pod of each machine but the last is bound to the next machine.
	for i := range 7 {
		env.bind(fmt.Sprintf("p%d-0", i), "1200m", fmt.Sprintf("m%d", i+1))
	}
	for range 4 {
		env.clock.Step(crowdedTimeout)
		env.pass()
	}
	if n := len(env.claims()); n != 8 {
		t.Errorf("%d NodeClaims, want the 8 that hold all pods", n)
	}
	if n := len(env.p.cache.AssumedPods()); n != 8*4-7 {
		t.Errorf("%d pods are assumed, want all 25 pending ones", n)
	}
}
