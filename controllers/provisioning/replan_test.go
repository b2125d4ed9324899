package provisioning

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// machineOf plays a machine of the pool that has come up with so much cpu.
func (w *world) machineOf(name, cpu string) {
	w.t.Helper()
	labels := map[string]string{
		karpv1.NodePoolLabelKey: "default", karpv1.CapacityTypeLabelKey: "on-demand", corev1.LabelInstanceTypeStable: "Standard_D4s_v5",
		corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux", corev1.LabelTopologyZone: "eastus-1", corev1.LabelHostname: name,
		karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true",
	}
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "claim-" + name, UID: types.UID("claim-" + name), Labels: labels}}
	claim.Status.ProviderID, claim.Status.NodeName = "azure:///"+name, name
	for _, c := range []string{karpv1.ConditionTypeLaunched, karpv1.ConditionTypeRegistered, karpv1.ConditionTypeInitialized} {
		claim.StatusConditions().SetTrue(c)
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: labels}, Spec: corev1.NodeSpec{ProviderID: claim.Status.ProviderID}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("14Gi"), corev1.ResourcePods: resource.MustParse("50")}
	node.Status.Capacity = node.Status.Allocatable
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	w.apply(claim, node)
}

// applyAssumed applies a pending pod and assumes it on a node.
func (w *world) applyAssumed(name, cpu, node string) {
	w.t.Helper()
	w.apply(pod(name, cpu))
	w.assume(name, node)
}

// assume assumes a pending pod on a node.
func (w *world) assume(name, node string) {
	w.t.Helper()
	w.p.assumePod(pod(name, "1"), node, w.p.cache.Assume)
	if !w.assumed("shop/" + name) {
		w.t.Fatalf("pod %s is not assumed: it is not pending", name)
	}
}

func (w *world) assumed(key string) bool {
	_, ok := w.p.cache.AssumedOn(key)
	return ok
}

// bind lets the scheduler put a pod on a node.
func (w *world) bind(name, cpu, node string) {
	w.apply(pod(name, cpu, func(p *corev1.Pod) {
		p.Spec.NodeName = node
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	}))
}

// twoMachines is a scale-up of two machines, one of whose pods the scheduler has
// put on the other: there, b has no room any more.
func twoMachines(t *testing.T) *world {
	w := newWorld(t)
	w.machineOf("x", "3800m")
	w.machineOf("y", "3800m")
	w.applyAssumed("a", "1800m", "x")
	w.applyAssumed("c", "800m", "x")
	w.applyAssumed("d", "800m", "x")
	w.applyAssumed("b", "1800m", "y")
	w.applyAssumed("e", "1500m", "y")
	w.pass() // sees the nodes ready
	w.bind("d", "800m", "y")
	w.bind("e", "1500m", "y")
	return w
}

func TestPromisesAreChangedBeforeAMachineIsBought(t *testing.T) {
	w := twoMachines(t)
	for range 3 {
		w.clock.Step(crowdedTimeout)
		w.pass()
	}
	// 1.2 is left on x and 1.5 on y: b has room if c, which waits for x, goes to y.
	if n := len(w.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want the two: a and b have room on x, c on y", n)
	}
	got := w.p.cache.AssumedPods()
	for _, want := range []struct{ pod, node string }{{"a", "x"}, {"b", "x"}, {"c", "y"}} {
		if to := got["shop/"+want.pod]; to != want.node {
			t.Errorf("pod %s is promised a place on %q, want %s", want.pod, to, want.node)
		}
	}
}

func TestAMachineIsBoughtWhenNoPromiseHelps(t *testing.T) {
	w := twoMachines(t)
	w.bind("c", "800m", "x") // it has come: nothing can be moved to y
	w.clock.Step(crowdedTimeout)
	w.pass()
	if n := len(w.claims()); n != 3 {
		t.Errorf("%d NodeClaims, want a third for b", n)
	}
	if to := w.p.cache.AssumedPods()["shop/a"]; to != "x" {
		t.Errorf("pod a is promised a place on %q, want x as before", to)
	}
	for i := range 4 {
		w.clock.Step(time.Second)
		w.pass()
		if n := len(w.claims()); n != 3 {
			t.Fatalf("%d NodeClaims %d s later, want three", n, i+1)
		}
	}
}

func TestAScaleUpThatTheSchedulerMixesUpIsNotBoughtTwice(t *testing.T) {
	w := newWorld(t)
	for i := range 8 {
		w.machineOf(fmt.Sprintf("m%d", i), "3800m")
		for j, cpu := range []string{"1200m", "900m", "900m", "700m"} {
			w.applyAssumed(fmt.Sprintf("p%d-%d", i, j), cpu, fmt.Sprintf("m%d", i))
		}
	}
	w.pass()
	// The first pod of each machine but the last goes to the next one.
	for i := range 7 {
		w.bind(fmt.Sprintf("p%d-0", i), "1200m", fmt.Sprintf("m%d", i+1))
	}
	for range 4 {
		w.clock.Step(crowdedTimeout)
		w.pass()
	}
	if n := len(w.claims()); n != 8 {
		t.Errorf("%d NodeClaims, want the eight that hold all pods", n)
	}
	if n := len(w.p.cache.AssumedPods()); n != 8*4-7 {
		t.Errorf("%d pods have a promised place, want all 25 that wait", n)
	}
}
