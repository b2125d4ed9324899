// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clocktesting "k8s.io/utils/clock/testing"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// objects is a store of fixed objects.
type objects map[schema.GroupVersionResource][]runtime.Object

func (o objects) Each(gvr schema.GroupVersionResource, f func(runtime.Object) bool) {
	for _, obj := range o[gvr] {
		if !f(obj) {
			return
		}
	}
}

type bench struct {
	*invariants
	objects objects
	vms     []VM
	clock   *clocktesting.FakeClock
}

func newBench(l Limits) *bench {
	b := &bench{objects: objects{}, clock: clocktesting.NewFakeClock(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))}
	b.invariants = newInvariants(l, b.objects, func() []VM { return b.vms }, b.clock)
	return b
}

// pass lets d go by, checked every second.
func (b *bench) pass(d time.Duration) {
	for range int(d / time.Second) {
		b.check()
		b.clock.Step(time.Second)
	}
	b.check()
}

// expect fails unless exactly the given violations were found: "invariant object".
func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for _, v := range b.found {
		got = append(got, v.Invariant+" "+strings.SplitN(v.Detail, ":", 2)[0])
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("violations %q, want %q", got, want)
	}
}

func claim(name, id string) *karpv1.NodeClaim {
	return &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: karpv1.NodeClaimStatus{ProviderID: id}}
}

func node(name, id string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{karpv1.NodePoolLabelKey: "default", karpv1.NodeInitializedLabelKey: "true"}},
		Spec:       corev1.NodeSpec{ProviderID: id, Taints: taints},
		Status:     corev1.NodeStatus{Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}},
	}
}

func runningPod(name, nodeName string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "uid-" + "x", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: nodeName},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func TestMachinesClaimsAndNodesBelongTogether(t *testing.T) {
	b := newBench(Limits{})
	booted := b.clock.Now()
	b.vms = []VM{
		{Name: "m1", ProviderID: "id1", Claim: "c1", Booted: booted, Alive: true},
		{Name: "gone", ProviderID: "id9", Claim: "c9", Alive: false},
	}
	b.objects[claimResource] = []runtime.Object{claim("c1", "id1"), claim("new", "")}
	b.objects[nodesResource] = []runtime.Object{node("n1", "id1")}
	b.pass(time.Hour)
	b.expect(t)

	b.vms = append(b.vms, VM{Name: "m2", ProviderID: "id2", Claim: "c2", Booted: booted, Alive: true})
	b.objects[claimResource] = append(b.objects[claimResource], claim("c3", "id3"))
	b.objects[nodesResource] = append(b.objects[nodesResource], node("n4", "id4"))
	b.pass(15 * time.Minute)
	b.expect(t)
	b.pass(2 * time.Minute)
	b.expect(t, "leak machine m2", "leak NodeClaim c3", "leak node n4")
}

func TestOneMachineForAClaim(t *testing.T) {
	b := newBench(Limits{})
	b.vms = []VM{{Name: "m1", ProviderID: "id1", Claim: "c1", Alive: true}, {Name: "m2", ProviderID: "id2", Claim: "c1", Alive: true}}
	b.objects[claimResource] = []runtime.Object{claim("c1", "id1")}
	b.check()
	b.expect(t, "double c1")
}

func TestAConditionThatEndsStartsAgain(t *testing.T) {
	b := newBench(Limits{Leak: time.Minute})
	vm := VM{Name: "m1", ProviderID: "id1", Claim: "c1", Alive: true}
	for range 10 {
		b.vms = []VM{vm}
		b.pass(50 * time.Second)
		b.vms = nil
		b.pass(time.Second)
	}
	b.expect(t)
}

func TestANodeHasToInitialize(t *testing.T) {
	b := newBench(Limits{})
	n := node("n1", "id1")
	delete(n.Labels, karpv1.NodeInitializedLabelKey)
	b.vms = []VM{{Name: "m1", ProviderID: "id1", Claim: "c1", Booted: b.clock.Now(), Alive: true}}
	b.objects[claimResource] = []runtime.Object{claim("c1", "id1")}
	b.objects[nodesResource] = []runtime.Object{n}
	b.pass(17 * time.Minute)
	b.expect(t, "fleet node n1")
}

func TestLimitsOfNodePools(t *testing.T) {
	b := newBench(Limits{})
	np := &karpv1.NodePool{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	np.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("8")}
	b.objects[poolResource] = []runtime.Object{np}
	for _, name := range []string{"1", "2", "3"} {
		if b.check(); len(b.found) > 0 {
			t.Fatalf("violations %v", b.found)
		}
		b.vms = append(b.vms, VM{Name: name, ProviderID: name, Claim: name, Alive: true})
		b.objects[claimResource] = append(b.objects[claimResource], claim(name, name))
		b.objects[nodesResource] = append(b.objects[nodesResource], node(name, name))
	}
	b.check()
	b.expect(t, "limits NodePool default")
}

func TestBudgetsOfNodePools(t *testing.T) {
	b := newBench(Limits{})
	np := &karpv1.NodePool{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	np.Spec.Disruption.Budgets = []karpv1.Budget{{Nodes: "2"}}
	b.objects[poolResource] = []runtime.Object{np}
	taint := corev1.Taint{Key: karpv1.DisruptedTaintKey, Effect: corev1.TaintEffectNoSchedule}
	for _, name := range []string{"1", "2", "3", "4", "5"} {
		b.objects[nodesResource] = append(b.objects[nodesResource], node(name, name))
	}
	for i := range 3 {
		b.expect(t)
		n := b.objects[nodesResource][i].(*corev1.Node)
		n.Spec.Taints = append(n.Spec.Taints, taint)
		b.disrupted(n)
	}
	b.expect(t, "budgets NodePool default")
}

func TestEvictionsKeepPromisesToPods(t *testing.T) {
	b := newBench(Limits{})
	taint := corev1.Taint{Key: karpv1.DisruptedTaintKey, Effect: corev1.TaintEffectNoSchedule}
	n := node("n1", "id1", taint)
	first, second := runningPod("a", "n1"), runningPod("b", "n1")
	second.UID = "other"
	b.objects[podsResource] = []runtime.Object{first, second}
	pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	pdb.Status.DesiredHealthy = 1
	b.objects[pdbsResource] = []runtime.Object{pdb}
	b.evicted(first, n, nil, true)
	b.expect(t)
	pdb.Status.DesiredHealthy = 2
	b.evicted(first, n, nil, true)
	b.expect(t, "pdbs PodDisruptionBudget shop/web")
	second.Annotations = map[string]string{karpv1.DoNotDisruptAnnotationKey: "true"}
	b.evicted(second, node("n1", "id1"), nil, true) // somebody deleted the node
	b.evicted(second, n, nil, false)                // the machine is gone
	b.expect(t, "pdbs PodDisruptionBudget shop/web")
	b.evicted(second, n, nil, true)
	b.expect(t, "pdbs PodDisruptionBudget shop/web", "doNotDisrupt pod shop/b")
}

func TestMachinesAreBoughtForPods(t *testing.T) {
	b := newBench(Limits{Wasted: 2})
	b.objects[podsResource] = []runtime.Object{runningPod("a", "n0")}
	b.check()
	for i, nodeName := range []string{"n0", "n1", "n2", "n3"} {
		if i < 3 {
			b.expect(t)
		}
		b.machineBought(nodeName)
		b.machineGone(VM{Name: nodeName, NodeName: nodeName})
	}
	b.machineGone(VM{Name: "n4", NodeName: "n4", Broken: true})
	b.expect(t, "bounded machines")
}

func TestNoChangeAfterConvergence(t *testing.T) {
	b := newBench(Limits{Converge: 10 * time.Minute})
	b.machineBought("before")
	b.clock.Step(time.Hour)
	b.quietSince = b.clock.Now()
	b.clock.Step(9 * time.Minute)
	b.machineBought("soon after")
	b.expect(t)
	b.clock.Step(2 * time.Minute)
	b.machineBought("late")
	b.expect(t, "convergence fleet")
}

func TestNominatedPodsAreNotStranded(t *testing.T) {
	b := newBench(Limits{})
	p := runningPod("a", "")
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, NominatedNodeName: "n1"}
	b.objects[podsResource] = []runtime.Object{p}
	b.pass(4 * time.Minute)
	b.expect(t)
	b.pass(2 * time.Minute)
	b.expect(t, "assumed pod shop/a")
}
