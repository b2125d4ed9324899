package snapshot_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
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
