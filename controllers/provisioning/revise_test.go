// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	autoscalingv1beta1 "sigs.k8s.io/karpenter/pkg/apis/autoscaling/v1beta1"

	"github.com/nap-aks/nap/engine"
)

// costOf returns the price of the machines on their way, as planned.
func costOf(env *testEnv) float64 {
	sum := 0.0
	for _, b := range env.p.purchases.byClaim {
		sum += b.machine.PriceUSDPerHour
	}
	return sum
}

// arrive applies the workloads, one wave of pods for each, with a pass and a pause after
// each, and returns the number of pods.
func arrive(env *testEnv, waves int, pause time.Duration) int {
	env.t.Helper()
	n := 0
	for w := range waves {
		for i, cpu := range []string{"1500m", "900m", "700m"} {
			env.apply(pod(fmt.Sprintf("w%d-%d", w, i), cpu, of(fmt.Sprintf("w%d", w))))
			n++
		}
		env.pass()
		env.clock.Step(pause)
	}
	return n
}

func TestMachinesOnTheirWayAreRevised(t *testing.T) {
	together := newEnv(t)
	n := arrive(together, 8, 0)
	want := costOf(together)

	env := newEnv(t)
	arrive(env, 8, 2*time.Second)
	if got := costOf(env); got > want*1.03 {
		t.Errorf("workloads that arrive within 16 s get machines of $%.3f an hour, together they get $%.3f", got, want)
	}
	if assumed := env.p.cache.AssumedPods(); len(assumed) != n {
		t.Errorf("%d of %d pods are assumed", len(assumed), n)
	} else {
		for key, on := range assumed {
			if env.p.cache.Machine(on).Claim == nil {
				t.Errorf("pod %s is assumed on %s, which is not there", key, on)
			}
		}
	}
	alive := map[string]bool{}
	for _, c := range env.claims() {
		alive[c.Name] = true
	}
	for name := range env.p.purchases.byClaim {
		if !alive[name] {
			t.Errorf("%s counts as on its way although it was cancelled", name)
		}
	}
	if len(alive) != len(env.p.purchases.byClaim) {
		t.Errorf("%d NodeClaims, %d of them wanted", len(alive), len(env.p.purchases.byClaim))
	}
}

func TestMachinesAlmostReadyAreNotRevised(t *testing.T) {
	env := newEnv(t)
	arrive(env, 1, time.Duration(reviseShare*float64(firstBoot))+time.Second)
	before := env.claims()
	arrive(env, 4, 0)
	after := map[string]bool{}
	for _, c := range env.claims() {
		after[c.Name] = true
	}
	for _, c := range before {
		if !after[c.Name] {
			t.Errorf("%s was cancelled %v after its creation", c.Name, time.Duration(reviseShare*float64(firstBoot)))
		}
	}
}

func TestReadyMachinesAreNotCancelled(t *testing.T) {
	env := newEnv(t)
	arrive(env, 1, 0)
	env.registerAll()
	env.p.cancel(env.ctx, []string{env.claims()[0].Name}, "Revised")
	if n := len(env.claims()); n != 1 {
		t.Errorf("%d NodeClaims, want the one whose node is ready", n)
	}
}

func TestMachinesThatNoPodNeedsAreGivenBack(t *testing.T) {
	env := newEnv(t)
	n := arrive(env, 2, 0)
	if len(env.claims()) == 0 {
		t.Fatal("nothing was bought")
	}
	for w := range 2 {
		for i := range n / 2 {
			if err := env.p.cache.Delete(pod(fmt.Sprintf("w%d-%d", w, i), "1")); err != nil {
				t.Fatal(err)
			}
		}
	}
	env.pass()
	if len(env.claims()) == 0 {
		t.Error("the machines were given back at once, want a little patience")
	}
	env.clock.Step(idlePurchase)
	env.pass()
	if n := len(env.claims()); n != 0 {
		t.Errorf("%d NodeClaims, want none: their pods are gone", n)
	}
	if len(env.p.purchases.byClaim) != 0 {
		t.Errorf("still on their way: %v", env.p.purchases.byClaim)
	}
}

func TestMachinesForPlaceholdersAndMovingPodsStay(t *testing.T) {
	b := newPurchases()
	m := &engine.Machine{Pods: []engine.PodGroup{{Pods: []string{"shop/a"}}}}
	placeholder := pod("a", "1")
	placeholder.Annotations = map[string]string{autoscalingv1beta1.FakePodAnnotationKey: autoscalingv1beta1.FakePodAnnotationValue}
	for _, c := range []struct {
		what   string
		pods   map[string]*corev1.Pod
		others bool
	}{
		{"a pending pod", map[string]*corev1.Pod{"shop/a": pod("a", "1")}, false},
		{"a placeholder", map[string]*corev1.Pod{"shop/a": placeholder}, true},
		{"a pod of a node being drained", map[string]*corev1.Pod{"shop/a": pod("a", "1", func(p *corev1.Pod) { p.Spec.NodeName = "n" })}, true},
	} {
		b.add("c", 1, m, c.pods, time.Now())
		if got := b.byClaim["c"].others; got != c.others {
			t.Errorf("%s: for pods that are never assumed %t, want %t", c.what, got, c.others)
		}
	}
}

func TestBootTimeIsLearned(t *testing.T) {
	env := newEnv(t)
	for range 30 {
		env.applyMachine("m", "4")
		env.p.purchases.byClaim["claim-m"] = purchase{at: env.clock.Now().Add(-10 * time.Second)}
		env.p.purchases.prune(env.p.cache.Machine, env.clock.Now())
	}
	if got := env.p.purchases.boot().Round(time.Second); got != 10*time.Second {
		t.Errorf("a machine takes %v, want 10s as the last thirty", got)
	}
}

// A revised plan buys before it cancels, and what is cancelled takes a while to go: both
// have to fit into limits and quotas.
func TestRevisionsFitBesideWhatTheyCancel(t *testing.T) {
	machine := func(offering engine.RankedOffering) engine.Machine {
		return engine.Machine{NodePool: "p", Offerings: []engine.RankedOffering{offering}}
	}
	four := engine.RankedOffering{InstanceType: "four", Zone: "1", CapacityType: "on-demand"}
	s := &engine.Snapshot{
		Pools:  []engine.NodePool{{Name: "p", Usage: engine.Resources{"cpu": 8000, "nodes": 2}}},
		Quotas: []engine.Quota{{Name: "q", Remaining: 8}},
		Catalogues: []engine.Catalogue{{InstanceTypes: []engine.InstanceType{{Name: "four", Capacity: engine.Resources{"cpu": 4000},
			Offerings: []engine.Offering{{Zone: "1", CapacityType: "on-demand", Charges: []engine.QuotaCharge{{Quota: 0, Amount: 4}}}}}}}},
	}
	for _, c := range []struct {
		name   string
		limits engine.Resources
		bought int
		kept   map[int]string
		want   bool
	}{
		{"no limits", nil, 2, nil, true},
		{"the quota is used up", nil, 3, nil, false},
		{"machines that are kept draw nothing", nil, 3, map[int]string{1: "c"}, true},
		{"within the limit", engine.Resources{"cpu": 16000}, 2, nil, true},
		{"beyond the limit", engine.Resources{"cpu": 15000}, 2, nil, false},
		{"beyond the number of nodes", engine.Resources{"nodes": 3}, 2, nil, false},
	} {
		s.Pools[0].Limits = c.limits
		plan := &engine.Plan{}
		for range c.bought {
			plan.Machines = append(plan.Machines, machine(four))
		}
		if got := roomBeside(s, plan, c.kept); got != c.want {
			t.Errorf("%s: room %t, want %t", c.name, got, c.want)
		}
	}
}
