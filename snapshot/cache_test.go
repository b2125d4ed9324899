// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

// TestEventOrderDoesNotChangeTheSnapshot adds the objects of a cluster in random order,
// mixed with pods that are created and deleted, and compares the snapshot with that of
// the same cluster built at once.
func TestEventOrderDoesNotChangeTheSnapshot(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		want := canonical(t, build(t, o).Snapshot)
		r := rand.New(rand.NewPCG(seed, 1))
		c := snapshot.NewCache(o.Settings)
		var events []func() error
		o.Each(func(obj client.Object) { events = append(events, func() error { return c.Upsert(obj) }) })
		for pool, list := range o.InstanceTypes {
			events = append(events, func() error { c.SetInstanceTypes(pool, list); return nil })
		}
		events = append(events, func() error { c.SetMarked(o.Marked); return nil })
		other := clustergen.Generate(seed+1000, clustergen.Options{})
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		extra := other.Pods
		for i, e := range events {
			if i < len(extra) { // a pod of another cluster, whose name this one may use too
				if err := c.Upsert(extra[i]); err != nil {
					t.Fatal(err)
				}
				if i%5 == 0 {
					if _, err := c.Snapshot(o.Now); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Delete(extra[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := e(); err != nil {
				t.Fatal(err)
			}
		}
		// The deletions may have removed pods of the same name.
		for _, p := range o.Pods {
			if err := c.Upsert(p); err != nil {
				t.Fatal(err)
			}
		}
		in, err := c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d", seed), want, canonical(t, in.Snapshot))
		// Once more, without a change.
		in, err = c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d, second time", seed), want, canonical(t, in.Snapshot))
	}
}

// Objects that are created and deleted within a moment, in any order, must not block
// anything or leave anything behind; see kubernetes-sigs/karpenter#3176.
func TestShortLivedObjectsDoNotChangeThePlan(t *testing.T) {
	o := base()
	o.Pods = append(o.Pods, pod("waiting"))
	c, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	plan := func() string {
		t.Helper()
		in, err := c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Place(in, in.Options)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent([]any{p, in.Snapshot.Nodes, in.Snapshot.Pools[0].Usage}, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := plan()
	labels := map[string]string{karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "m4", corev1.LabelTopologyZone: "zone-1", karpv1.CapacityTypeLabelKey: "spot"}
	claim := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "short", Labels: labels}, Status: karpv1.NodeClaimStatus{ProviderID: "test://short"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "short-node", Labels: labels}, Spec: corev1.NodeSpec{ProviderID: "test://short"}}
	bound := pod("bound", func(p *corev1.Pod) { p.Spec.NodeName = "short-node" })
	up := func(list ...client.Object) {
		for _, obj := range list {
			if err := c.Upsert(obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	down := func(list ...client.Object) {
		for _, obj := range list {
			if err := c.Delete(obj); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, f := range map[string]func(){
		"a claim and its node":                 func() { up(claim, node); down(claim, node) },
		"seen by a pass":                       func() { up(claim, node, bound); plan(); down(node, claim, bound) },
		"the node outlives the claim":          func() { up(claim, node); down(claim); plan(); down(node) },
		"the claim outlives the node":          func() { up(claim, node); down(node); plan(); down(claim) },
		"a pod of a node never seen":           func() { up(bound); plan(); down(bound) },
		"a deletion of what was never created": func() { down(claim, node, bound) },
		"a pod assumed on a deleted claim":     func() { up(claim); c.Assume("default/waiting", "short"); plan(); down(claim) },
	} {
		f()
		if after := plan(); after != before {
			t.Errorf("%s: the plan has changed:\n%s", name, after)
		}
	}
}

func TestUnchangedNodesAreNotTranslatedAgain(t *testing.T) {
	o := clustergen.Generate(7, clustergen.Options{Nodes: 5})
	c, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Snapshot(o.Now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Snapshot(o.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.Snapshot.Nodes {
		a, b := first.Snapshot.Nodes[i], second.Snapshot.Nodes[i]
		if a.Closed == "" && len(a.Labels) > 0 && reflect.ValueOf(a.Labels).Pointer() != reflect.ValueOf(b.Labels).Pointer() {
			t.Errorf("node %s was translated again without a change", a.Name)
		}
	}
}

func TestAssumedPodsArePendingPods(t *testing.T) {
	ended := func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }
	for name, c := range map[string]struct {
		event func(*snapshot.Cache) error
		want  bool
	}{
		"nothing happens":    {func(*snapshot.Cache) error { return nil }, true},
		"the pod is updated": {func(c *snapshot.Cache) error { return c.Upsert(pod("p", func(p *corev1.Pod) { p.Labels["a"] = "b" })) }, true},
		"the pod is bound":   {func(c *snapshot.Cache) error { return c.Upsert(pod("p", bound("n"))) }, false},
		"the pod ends":       {func(c *snapshot.Cache) error { return c.Upsert(pod("p", ended)) }, false},
		"the pod is deleted": {func(c *snapshot.Cache) error { return c.Delete(pod("p")) }, false},
		"the place is gone":  {func(c *snapshot.Cache) error { return c.Delete(node("n")) }, false},
		"the place is going": {func(c *snapshot.Cache) error { c.SetMarked([]string{"id-n"}); return nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := base()
			o.Nodes, o.NodeClaims, o.Pods = []*corev1.Node{node("n")}, []*karpv1.NodeClaim{claim("c", "id-n")}, []*corev1.Pod{pod("p"), pod("b", bound("n"))}
			cache, err := snapshot.Load(o)
			if err != nil {
				t.Fatal(err)
			}
			if cache.Assume("default/b", "n") || cache.Assume("default/unknown", "n") {
				t.Error("a pod that is not pending was assumed")
			}
			if !cache.Assume("default/p", "n") {
				t.Fatal("a pending pod was not assumed")
			}
			if err := c.event(cache); err != nil {
				t.Fatal(err)
			}
			if _, err := cache.Snapshot(o.Now); err != nil {
				t.Fatal(err)
			}
			if _, got := cache.AssumedOn("default/p"); got != c.want {
				t.Errorf("assumed: %t, want %t", got, c.want)
			}
			if cache.SuspendAssumed(); cache.AnyAssumed() != c.want {
				t.Errorf("assumed while suspended: %t, want %t", cache.AnyAssumed(), c.want)
			}
		})
	}
}

func TestSuspendedPodsArePlannedForAgain(t *testing.T) {
	o := base()
	o.Nodes, o.NodeClaims, o.Pods = []*corev1.Node{node("n")}, []*karpv1.NodeClaim{claim("c", "id-n")}, []*corev1.Pod{pod("p"), pod("fixed")}
	c, err := snapshot.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	c.Assume("default/p", "c")
	c.AssumeFixed("default/fixed", "n")
	expect := func(when string, onNode, pending []string) {
		t.Helper()
		in, err := c.Snapshot(o.Now)
		if err != nil {
			t.Fatal(err)
		}
		if got := podsOf(find(t, in.Snapshot, "n")); !slices.Equal(got, onNode) {
			t.Errorf("%s: pods on the node are %v, want %v", when, got, onNode)
		}
		if got := slices.Sorted(maps.Keys(in.Pods)); !slices.Equal(got, pending) {
			t.Errorf("%s: pods to place are %v, want %v", when, got, pending)
		}
	}
	both, fixed, p := []string{"default/fixed", "default/p"}, []string{"default/fixed"}, []string{"default/p"}
	expect("assumed", both, nil)
	if n := c.SuspendAssumed(); n != 1 {
		t.Errorf("%d pods are suspended, want 1", n)
	}
	expect("suspended", fixed, p)
	c.ResumeAssumed()
	expect("resumed", both, nil)
	c.SuspendAssumed()
	c.ForgetSuspended()
	expect("forgotten", fixed, p)
	c.Assume("default/p", "n")
	expect("assumed again", both, nil)
	c.Expire("default/p")
	expect("expired", fixed, p)
	if got := c.ExpiredPods(); !got["default/p"] || len(got) != 1 {
		t.Errorf("expired are %v, want p", got)
	}
}
