// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
)

func TestNominationLifecycle(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	env.apply(pod("a", "900m"))
	env.pass()
	nominated := func() *corev1.Pod {
		t.Helper()
		if err := env.p.nominate(env.ctx); err != nil {
			t.Fatal(err)
		}
		got := &corev1.Pod{}
		if err := env.kube.Get(env.ctx, client.ObjectKey{Namespace: "shop", Name: "a"}, got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := nominated(); got.Status.NominatedNodeName != "" {
		t.Fatalf("nominated %q before the node exists", got.Status.NominatedNodeName)
	}
	claim := env.claims()[0].DeepCopy()
	claim.Status.ProviderID = "azure:///x"
	claim.StatusConditions().SetTrue(karpv1.ConditionTypeLaunched)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
		karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "Standard_D2s_v5", corev1.LabelArchStable: "amd64", corev1.LabelOSStable: "linux", corev1.LabelHostname: "n",
		karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true"}}, Spec: corev1.NodeSpec{ProviderID: "azure:///x"}}
	node.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1900m"), corev1.ResourceMemory: resource.MustParse("6Gi"), corev1.ResourcePods: resource.MustParse("30")}
	node.Status.Capacity = node.Status.Allocatable
	env.apply(claim, node)
	if got := nominated(); got.Status.NominatedNodeName != "" {
		t.Fatalf("nominated %q, which is not ready: the scheduler would clear it", got.Status.NominatedNodeName)
	}
	node = node.DeepCopy()
	node.Status.Conditions = ready
	if err := env.kube.Status().Update(env.ctx, node); err != nil {
		t.Fatal(err)
	}
	got := nominated()
	if got.Status.NominatedNodeName != "n" {
		t.Fatalf("nominated %q, want the new node n", got.Status.NominatedNodeName)
	}
	// The scheduler clears a nomination if it tries the node too early.
	clearNomination := func(pod *corev1.Pod) {
		t.Helper()
		cleared := pod.DeepCopy()
		cleared.Status.NominatedNodeName = ""
		if err := env.kube.Status().Update(env.ctx, cleared); err != nil || cleared.Status.NominatedNodeName != "" {
			t.Fatalf("clearing the nomination: %v", err)
		}
		env.p.nominations.observe(pod, env.clock.Now())
		env.p.nominations.observe(cleared, env.clock.Now())
	}
	clearNomination(got)
	if got = nominated(); got.Status.NominatedNodeName != "n" {
		t.Errorf("nominated %q after the scheduler cleared it once, want the same node again", got.Status.NominatedNodeName)
	}
	// When it does so again, the pod stays assumed, but is not nominated again.
	clearNomination(got)
	if err := env.p.nominate(env.ctx); err != nil || len(env.p.nominations.nominated) != 0 {
		t.Errorf("nominated again after the scheduler cleared it twice: %v, %v", env.p.nominations.nominated, err)
	}
	if got := env.nominated("a"); got != "" {
		t.Errorf("nominated %q again after the scheduler cleared it twice", got)
	}
	if !env.assumed("shop/a") {
		t.Error("the pod is not assumed any more after it lost its nomination")
	}
	env.assume("a", "n")
	if got = nominated(); got.Status.NominatedNodeName != "n" {
		t.Errorf("nominated %q after the pod was assumed again, want n", got.Status.NominatedNodeName)
	}
	// The nomination of this process does not end the assumption: its capacity stays
	// taken, and no second machine is bought.
	seen, ours := env.p.nominations.observe(got, env.clock.Now())
	if !ours {
		t.Error("a nomination of this process is treated as foreign")
	}
	if err := env.p.cache.Upsert(seen); err != nil {
		t.Fatal(err)
	}
	env.apply(pod("b", "1100m"))
	env.pass()
	if n := len(env.claims()); n != 2 {
		t.Errorf("%d NodeClaims, want another one for b, because a is assumed on the first", n)
	}
	// If the scheduler does not bind the pod, the nomination is cleared.
	env.clock.Step(bindTimeoutNominated)
	env.pass()
	env.clock.Step(bindTimeoutNominated)
	env.pass()
	if err := env.kube.Get(env.ctx, client.ObjectKey{Namespace: "shop", Name: "a"}, got); err != nil {
		t.Fatal(err)
	}
	if _, standing := env.p.nominations.nominated["shop/a"]; standing || got.Status.NominatedNodeName != "" {
		t.Errorf("nomination %q is not cleared", got.Status.NominatedNodeName)
	}
}

func TestForeignNominationsAreClearedAfterTimeout(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	left := pod("left", "900m", func(p *corev1.Pod) { p.Status.NominatedNodeName = "gone" })
	env.apply(left)
	seen, ours := env.p.nominations.observe(left, env.clock.Now())
	if ours {
		t.Error("a foreign nomination is treated as one of this process")
	}
	if err := env.p.cache.Upsert(seen); err != nil {
		t.Fatal(err)
	}
	env.pass()
	if n := len(env.claims()); n != 0 {
		t.Fatalf("%d NodeClaims for a pod that another process has nominated, want 0", n)
	}
	env.clock.Step(foreignTimeout + time.Second)
	env.pass()
	got := &corev1.Pod{}
	if err := env.kube.Get(env.ctx, client.ObjectKeyFromObject(left), got); err != nil {
		t.Fatal(err)
	}
	if got.Status.NominatedNodeName != "" {
		t.Errorf("nomination %q is not cleared after %s", got.Status.NominatedNodeName, foreignTimeout)
	}
}

func TestRegistrationHookNominatesAssumedPods(t *testing.T) {
	env := newEnv(t)
	env.p.Nominate = true
	env.apply(pod("a", "900m"))
	env.pass()
	first := env.claims()[0]
	env.apply(pod("b", "1900m"))
	env.pass()
	var second karpv1.NodeClaim
	for _, c := range env.claims() {
		if c.Name != first.Name {
			second = c
		}
	}
	if to := env.p.cache.AssumedPods()["shop/b"]; to != second.Name {
		t.Fatalf("b is assumed on %q, want the second NodeClaim", to)
	}
	hook := env.p.Hook()
	env.apply(env.launch(second, "y")) // the API server has the provider ID of y
	if err := env.p.nominate(env.ctx); err != nil {
		t.Fatal(err)
	}
	if result, err := hook.Registered(env.ctx, env.launch(first, "x")); err != nil || result.Requeue || result.RequeueAfter > 0 {
		t.Fatalf("the hook delays the registration: %+v, %v", result, err)
	}
	if got := env.nominated("a"); got != "x" {
		t.Errorf("a is nominated for %q, want x, although its NodeClaim has no provider ID in the API yet", got)
	}
	if got := env.nominated("b"); got != "" {
		t.Errorf("b is nominated for %q, want none before its node registers", got)
	}
	if _, err := hook.Registered(env.ctx, env.launch(second, "y")); err != nil {
		t.Fatal(err)
	}
	if got := env.nominated("b"); got != "y" {
		t.Errorf("b is nominated for %q, want y", got)
	}
}

func TestRegistrationWaitsUntilTheNodeIsOpen(t *testing.T) {
	notReady := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	env := newEnv(t)
	env.p.Nominate = true
	env.apply(pod("a", "900m"))
	env.pass()
	claim := env.claims()[0]
	waits := func(claim *karpv1.NodeClaim) bool {
		t.Helper()
		result, err := env.p.Hook().Registered(env.ctx, claim)
		if err != nil {
			t.Fatal(err)
		}
		return result.RequeueAfter > 0
	}
	if !waits(env.launch(claim, "x", notReady)) || env.nominated("a") != "" {
		t.Errorf("the registration does not wait for a node that is not ready; a is nominated for %q", env.nominated("a"))
	}
	env.clock.Step(openTimeout)
	launched := claim.DeepCopy()
	launched.Status.ProviderID = "azure:///x"
	if waits(launched) {
		t.Errorf("the registration still waits after %v", openTimeout)
	}
	if waits(env.launch(claim, "x")) || env.nominated("a") != "x" {
		t.Errorf("the registration waits for a node that is open, or a is nominated for %q", env.nominated("a"))
	}
	// Its startup taint goes away only after the registration.
	started := claim.DeepCopy()
	started.Spec.StartupTaints = []corev1.Taint{{Key: "cni", Effect: corev1.TaintEffectNoSchedule}}
	if waits(env.launch(*started, "y", started.Spec.StartupTaints...)) {
		t.Error("the registration waits for startup taints")
	}
	// No pod is meant for it.
	if err := env.p.cache.Delete(pod("a", "1")); err != nil {
		t.Fatal(err)
	}
	if waits(env.launch(claim, "z", notReady)) {
		t.Error("the registration waits although there is nothing to nominate")
	}
}

// The scheduler counts all pods nominated to a node there. So those that spread over
// zones are refused, and then go in turns, as many on a node as the skew allows.
func TestSpreadPodsAreNominatedInTurns(t *testing.T) {
	spread := func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "web"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{TopologyKey: corev1.LabelTopologyZone, MaxSkew: 2, WhenUnsatisfiable: corev1.DoNotSchedule,
			LabelSelector: &metav1.LabelSelector{MatchLabels: p.Labels}}}
	}
	n, now := newNominations(), time.Now()
	on := map[string]string{"shop/a": "x", "shop/b": "x", "shop/c": "x", "shop/d": "y", "shop/plain": "x"}
	take := func() []string {
		return slices.Sorted(maps.Keys(n.take(map[string]string{"x": "x", "y": "y"}, func(key string) (string, bool) { return on[key], true }, now)))
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		n.want(pod(name, "1", of("web"), spread))
	}
	n.want(pod("plain", "1", of("db")))
	if got, want := take(), []string{"shop/a", "shop/b", "shop/c", "shop/d", "shop/plain"}; !slices.Equal(got, want) {
		t.Errorf("nominated are %v, want %v: all, to keep their room", got, want)
	}
	n.observe(pod("c", "1", of("web"), spread, func(p *corev1.Pod) { p.Status.NominatedNodeName = "x" }), now)
	n.observe(pod("c", "1", of("web"), spread), now)
	now = now.Add(refusedFirst)
	if got := take(); len(got) > 0 {
		t.Errorf("nominated are %v while two others of web are on the node", got)
	}
	n.observe(pod("a", "1", of("web"), spread, func(p *corev1.Pod) { p.Spec.NodeName = "x" }), now)
	if got, want := take(), []string{"shop/c"}; !slices.Equal(got, want) {
		t.Errorf("after one is bound nominated are %v, want %v", got, want)
	}
	// The scheduler refuses b again and again.
	for i, wait := range []time.Duration{refusedFirst, 2 * refusedFirst, 4 * refusedFirst} {
		n.observe(pod("b", "1", of("web"), spread, func(p *corev1.Pod) { p.Status.NominatedNodeName = "x" }), now)
		n.observe(pod("b", "1", of("web"), spread), now)
		now = now.Add(wait - 1)
		if got := take(); len(got) > 0 {
			t.Errorf("refusal %d: nominated are %v before %v have passed", i+1, got, wait)
		}
		now = now.Add(1)
		if got, want := take(), []string{"shop/b"}; !slices.Equal(got, want) {
			t.Errorf("refusal %d: nominated are %v, want %v again", i+1, got, want)
		}
	}
}

func TestRegistrationWaitsForNominationsInFlight(t *testing.T) {
	n := newNominations()
	places := map[string]string{"shop/a": "claim", "shop/b": "other"}
	assumedOn := func(key string) (string, bool) { on, ok := places[key]; return on, ok }
	n.want(pod("a", "1"))
	n.want(pod("b", "1"))
	if due := n.take(map[string]string{"claim": "x"}, assumedOn, time.Now()); len(due) != 1 || due["shop/a"] != "x" {
		t.Fatalf("due are %v, want a for x", due)
	}
	n.wait("y") // nothing is in flight for it
	over := make(chan struct{})
	go func() {
		n.wait("x")
		close(over)
	}()
	select {
	case <-over:
		t.Fatal("the wait for x ended while a nomination is in flight")
	case <-time.After(20 * time.Millisecond):
	}
	n.done("x")
	<-over
}

// Nodes of one plan open together: each waits until the others are open, and then until
// their pods are nominated, but not for long.
func TestNodesOfOnePlanOpenTogether(t *testing.T) {
	b, now := newPurchases(), time.Now()
	m := &engine.Machine{Offerings: []engine.RankedOffering{{}}}
	for _, claim := range []string{"a", "b"} {
		b.add(claim, 1, m, nil, now)
	}
	b.add("late", 2, m, nil, now)
	if !b.opened("a", now) {
		t.Error("a does not wait for b")
	}
	if b.opened("b", now) {
		t.Error("b waits although a and b are open")
	}
	if !b.settled("a", now) {
		t.Error("a does not wait for the nominations to b")
	}
	if b.settled("b", now) || b.settled("a", now) {
		t.Error("a or b waits although the pods of both are nominated")
	}
	if b.opened("foreign", now) || b.settled("foreign", now) {
		t.Error("a claim of another process waits")
	}
	b.add("c", 3, m, nil, now)
	b.add("never", 3, m, nil, now)
	if patience := time.Duration(togetherShare * float64(firstBoot)); !b.opened("c", now) || !b.opened("c", now.Add(patience-1)) || b.opened("c", now.Add(patience)) {
		t.Errorf("c does not wait for %v", patience)
	}
}
