package provisioning

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
)

// of makes a pod one of a workload's.
func of(workload string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: workload, UID: types.UID(workload), Controller: &yes}}
	}
}

// untried lets a pod be one that the scheduler has not looked at.
func untried(p *corev1.Pod) { p.Status.Conditions = nil }

func TestAScaleUpIsPlannedForAsAWholeBeforeTheSchedulerIsThrough(t *testing.T) {
	w := newWorld(t)
	w.apply(pod("refused", "900m", of("web")))
	for i := range 60 {
		w.apply(pod(fmt.Sprintf("p-%02d", i), "900m", of("web"), untried))
	}
	w.apply(pod("other", "900m", of("db"), untried), pod("bare", "900m", untried))
	w.pass()
	promises := w.p.cache.AssumedPods()
	if len(promises) != 61 {
		t.Errorf("%d pods are promised a place, want the one that was refused and the 60 like it", len(promises))
	}
	for _, name := range []string{"other", "bare"} {
		if to, ok := promises["shop/"+name]; ok {
			t.Errorf("%s is promised a place on %s, yet nobody has said that it needs one", name, to)
		}
	}
	machines := len(w.claims())
	// The scheduler comes to look at them: nothing new.
	for i := range 60 {
		w.apply(pod(fmt.Sprintf("p-%02d", i), "900m", of("web")))
	}
	w.pass()
	if n := len(w.claims()); n != machines {
		t.Errorf("%d NodeClaims, and %d once the scheduler had looked at the pods", machines, n)
	}
}

// TestWhatStartsAPass: the second figure tells whether the pass waits for more.
func TestWhatStartsAPass(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	signal := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	expect := func(what string, old, now client.Object, pass, more bool) {
		t.Helper()
		w.p.wake(old, now)
		if gotPass, gotMore := signal(w.p.batch.triggers), signal(w.p.batch.more); gotPass != pass || gotMore != more {
			t.Errorf("%s: starts a pass %t, makes it wait for more %t; want %t and %t", what, gotPass, gotMore, pass, more)
		}
	}
	fresh, refused := pod("a", "900m", of("web"), untried), pod("a", "900m", of("web"))
	expect("a pod appears", nil, fresh, false, true)
	expect("its status changes", fresh, fresh, false, false)
	expect("the scheduler refuses it", fresh, refused, true, true)
	expect("it refuses another of the workload", pod("b", "900m", of("web"), untried), pod("b", "900m", of("web")), true, false)
	expect("it refuses one of another workload", pod("c", "900m", of("db"), untried), pod("c", "900m", of("db")), true, true)
	expect("it refuses the pod again", refused, refused, true, false)
	w.apply(refused)
	w.pass()
	expect("it refuses a pod that has been promised a place", fresh, refused, false, false)
	expect("another workload's pod, after the pass", pod("c", "900m", of("db"), untried), pod("c", "900m", of("db")), true, true)

	node, emptied := &corev1.Node{}, &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{karpv1.DisruptedNoScheduleTaint}}}
	expect("a node changes", node, node, false, false)
	expect("a node is being emptied", node, emptied, true, true)
	expect("it reports again", emptied, emptied, false, false)
	offering, counted, other := pool("default"), pool("default"), pool("default")
	counted.Status.Conditions = offering.Status.Conditions
	counted.Status.Resources = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8")}
	other.Status.Conditions = offering.Status.Conditions
	other.Spec.Template.Spec.Requirements = nil
	expect("a NodePool appears", nil, offering, true, true)
	expect("what is in use of it is counted", offering, counted, false, false)
	expect("it offers more", offering, other, true, true)
	expect("its class gets ready", &karpv1.NodePool{Spec: offering.Spec}, &karpv1.NodePool{Spec: offering.Spec, Status: offering.Status}, true, true)
}

// launched plays a claim whose machine has come up as a node, a moment before
// its provider ID is written to the API server.
func (w *world) launched(claim karpv1.NodeClaim, node string) *karpv1.NodeClaim {
	w.t.Helper()
	w.apply(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID(node)},
		Spec:       corev1.NodeSpec{ProviderID: "azure:///" + node, Taints: []corev1.Taint{karpv1.UnregisteredNoExecuteTaint}},
	})
	launched := claim.DeepCopy()
	launched.Status.ProviderID = "azure:///" + node
	return launched
}

func (w *world) nominated(name string) string {
	w.t.Helper()
	got := &corev1.Pod{}
	if err := w.kube.Get(w.ctx, client.ObjectKey{Namespace: "shop", Name: name}, got); err != nil {
		w.t.Fatal(err)
	}
	return got.Status.NominatedNodeName
}

func TestANodeIsRegisteredOnceItsPodsAreNominated(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	w.apply(pod("a", "900m"))
	w.pass()
	first := w.claims()[0]
	w.apply(pod("b", "1900m"))
	w.pass()
	var second karpv1.NodeClaim
	for _, c := range w.claims() {
		if c.Name != first.Name {
			second = c
		}
	}
	if to := w.p.cache.AssumedPods()["shop/b"]; to != second.Name {
		t.Fatalf("b is promised a place on %q, want a machine of its own", to)
	}
	hook := w.p.Hook()
	w.apply(w.launched(second, "y")) // the API server knows whose node y is
	if err := w.p.nominate(w.ctx); err != nil {
		t.Fatal(err)
	}
	if result, err := hook.Registered(w.ctx, w.launched(first, "x")); err != nil || result.Requeue || result.RequeueAfter > 0 {
		t.Fatalf("the registration is held back: %+v, %v", result, err)
	}
	if got := w.nominated("a"); got != "x" {
		t.Errorf("a is nominated for %q, want x, although the API server does not know yet whose node that is", got)
	}
	if got := w.nominated("b"); got != "" {
		t.Errorf("b is nominated for %q, want not yet: its claim is not being registered", got)
	}
	if _, err := hook.Registered(w.ctx, w.launched(second, "y")); err != nil {
		t.Fatal(err)
	}
	if got := w.nominated("b"); got != "y" {
		t.Errorf("b is nominated for %q, want y", got)
	}
}

func TestARegistrationWaitsForNominationsThatAreBeingWritten(t *testing.T) {
	n := newNominations()
	places := map[string]string{"shop/a": "claim", "shop/b": "other"}
	assumedOn := func(key string) (string, bool) { on, ok := places[key]; return on, ok }
	n.want("shop/a")
	n.want("shop/b")
	if due := n.take(map[string]string{"claim": "x"}, assumedOn); len(due) != 1 || due["shop/a"] != "x" {
		t.Fatalf("due are %v, want a for x", due)
	}
	n.wait("y") // nothing is written for it
	over := make(chan struct{})
	go func() {
		n.wait("x")
		close(over)
	}()
	select {
	case <-over:
		t.Fatal("the wait for x is over while a nomination is being written")
	case <-time.After(20 * time.Millisecond):
	}
	n.done("x")
	<-over
}

func TestPatienceLastsWhileTheSchedulerIsAtWork(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	w.machineOf("x", "3800m")
	w.applyAssumed("slow", "800m", "x")
	arrive := func(i int) {
		name := fmt.Sprintf("p-%02d", i)
		w.applyAssumed(name, "10m", "x")
		bound := pod(name, "10m", func(p *corev1.Pod) { p.Spec.NodeName = "x" })
		w.p.noteBound(bound)
		w.apply(bound)
	}
	w.pass() // sees the node ready
	stands := func() bool { return w.assumed("shop/slow") }
	began := w.clock.Now()
	for i := 0; w.clock.Since(began)+bindTimeoutNominated/2 < bindTimeoutMax; i++ {
		arrive(i)
		w.clock.Step(bindTimeoutNominated / 2)
		w.pass()
		if !stands() {
			t.Fatalf("the promise was given up after %s, while other pods arrived", w.clock.Since(began))
		}
	}
	arrive(99)
	w.clock.Step(bindTimeoutNominated)
	w.p.expireAssumed(context.WithoutCancel(w.ctx))
	if stands() {
		t.Errorf("the promise stands for %s", w.clock.Since(began))
	}
	// Without arrivals it is given up as before.
	w.applyAssumed("slow", "800m", "x")
	w.p.expireAssumed(w.ctx)
	w.clock.Step(bindTimeoutNominated)
	w.p.expireAssumed(w.ctx)
	if stands() {
		t.Errorf("the promise stands %s after the last arrival", bindTimeoutNominated)
	}
}

// window is how long a window lasts when each tells of something every quarter of
// a second.
func window(t *testing.T, each func(*batch)) time.Duration {
	t.Helper()
	var took time.Duration
	synctest.Test(t, func(t *testing.T) {
		b := newBatch(clock.RealClock{}, time.Second, 10*time.Second)
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for {
				each(b)
				select {
				case <-ctx.Done():
					return
				case <-time.After(250 * time.Millisecond):
				}
			}
		}()
		if !b.wait(ctx, time.Minute) {
			t.Error("the wait ended without a pass")
		}
		took = time.Since(began)
	})
	return took
}

func TestANodeThatPodsAreOnTheirWayToIsNotEmpty(t *testing.T) {
	w := newWorld(t)
	w.p.Nominate = true
	w.machineOf("x", "3800m")
	w.machineOf("y", "3800m")
	w.applyAssumed("slow", "800m", "x")
	nominated := func(name string) bool {
		for n := range w.cluster.Nodes() {
			if n.Node != nil && n.Node.Name == name {
				return n.Nominated(w.clock)
			}
		}
		t.Fatalf("no node %s", name)
		return false
	}
	w.pass()
	if !nominated("x") || nominated("y") {
		t.Errorf("kept from disruption: x %t, y %t, want x, to which a pod is on its way, and not y", nominated("x"), nominated("y"))
	}
}

func TestAWindowIsKeptOpenByNewsOnly(t *testing.T) {
	if took := window(t, (*batch).trigger); took > 1500*time.Millisecond {
		t.Errorf("the window was open for %s although nothing new came, want about a second", took)
	}
	if took := window(t, func(b *batch) { b.trigger(); b.extend() }); took < 9*time.Second || took > 11*time.Second {
		t.Errorf("the window was open for %s under steady news, want about 10s", took)
	}
	if took := window(t, (*batch).extend); took != time.Minute {
		t.Errorf("a pass came after %s although none was asked for, want the time in which nothing happens", took)
	}
}
