// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"sort"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

// canonical returns a text that is the same for equivalent snapshots: classes are
// written in full instead of by number, and unused ones are dropped.
func canonical(t *testing.T, s *engine.Snapshot) string {
	t.Helper()
	// Labels that only selectors of unused classes refer to do not matter.
	selected := map[string]bool{}
	addKeys := func(sel *engine.Selector) {
		for _, r := range sel.Requirements {
			selected[r.Key] = true
		}
	}
	each := func(id engine.ClassID) {
		c := s.Classes[id]
		for _, x := range c.Spread {
			addKeys(x.Selector)
		}
		for _, x := range append(slices.Clone(c.PodAffinity), c.PodAntiAffinity...) {
			addKeys(x.Selector)
		}
	}
	for _, g := range s.Pending {
		each(g.Class)
	}
	for _, n := range s.Nodes {
		for _, g := range n.Pods {
			each(g.Class)
		}
	}
	name := func(id engine.ClassID) string {
		c := s.Classes[id]
		c.Name = ""
		labels := map[string]string{}
		for k, v := range c.Labels {
			if selected[k] {
				labels[k] = v
			}
		}
		c.Labels = labels
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	groups := func(list []engine.PodGroup) []string {
		var out []string
		for _, g := range list {
			for _, p := range g.Pods {
				out = append(out, p+" "+name(g.Class))
			}
		}
		sort.Strings(out)
		return out
	}
	var nodes []any
	for _, n := range s.Nodes {
		pods := groups(n.Pods)
		var missing []string
		for _, d := range n.MissingDaemons {
			missing = append(missing, name(d))
		}
		n.Pods, n.MissingDaemons = nil, nil
		n.Taints = slices.Clone(n.Taints)
		nodes = append(nodes, []any{n, pods, missing})
	}
	var daemons []string
	for _, d := range s.Daemons {
		daemons = append(daemons, name(d))
	}
	b, err := json.MarshalIndent([]any{s.Time, groups(s.Pending), daemons, nodes, s.Pools, s.Catalogues, s.Quotas}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func build(t *testing.T, o *snapshot.Objects) *snapshot.Input {
	t.Helper()
	in, err := snapshot.Build(o)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func diff(t *testing.T, what, a, b string) {
	t.Helper()
	if a == b {
		return
	}
	la, lb := bytes.Split([]byte(a), []byte("\n")), bytes.Split([]byte(b), []byte("\n"))
	for i := range la {
		if i >= len(lb) || !bytes.Equal(la[i], lb[i]) {
			other := ""
			if i < len(lb) {
				other = string(lb[i])
			}
			t.Fatalf("%s: line %d differs:\n  %s\n  %s", what, i, la[i], other)
		}
	}
	t.Fatalf("%s: the second is longer", what)
}

func base() *snapshot.Objects {
	o := &snapshot.Objects{Now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	np := clustergen.NodePool("default")
	o.NodePools = append(o.NodePools, np)
	o.InstanceTypes = map[string][]*cloudprovider.InstanceType{"default": {clustergen.InstanceType("m4", 4, 16, 0, "amd64", clustergen.Zones, 0.2, 0.05)}}
	return o
}

func pod(name string, mutate ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": "web"}}}
	p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("1Gi"),
	}}}}
	p.Status.Phase = corev1.PodPending
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable}}
	for _, m := range mutate {
		m(p)
	}
	return p
}

func node(name string, mutate ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		corev1.LabelHostname: name, karpv1.NodePoolLabelKey: "default", corev1.LabelInstanceTypeStable: "m4", corev1.LabelTopologyZone: "zone-1",
		karpv1.CapacityTypeLabelKey: "on-demand", karpv1.NodeRegisteredLabelKey: "true", karpv1.NodeInitializedLabelKey: "true",
	}}, Spec: corev1.NodeSpec{ProviderID: "id-" + name}}
	n.Status.Capacity = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("40")}
	n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("3860m")
	for _, m := range mutate {
		m(n)
	}
	return n
}

func claim(name, providerID string, mutate ...func(*karpv1.NodeClaim)) *karpv1.NodeClaim {
	nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}}}
	nc.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: "g", Kind: "K", Name: "n"}
	nc.Status.ProviderID = providerID
	for _, m := range mutate {
		m(nc)
	}
	return nc
}

func bound(to string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.NodeName = to
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	}
}

func only(t *testing.T, p *corev1.Pod, extra ...client.Object) engine.PodClass {
	t.Helper()
	o := base()
	o.Pods = append(o.Pods, p)
	for _, e := range extra {
		if !o.Add(e) {
			t.Fatalf("%T is not known", e)
		}
	}
	in := build(t, o)
	if err := in.Invalid[snapshot.PodKey(p)]; err != nil {
		t.Fatalf("the pod is invalid: %v", err)
	}
	if len(in.Snapshot.Pending) != 1 {
		t.Fatalf("%d groups", len(in.Snapshot.Pending))
	}
	return in.Snapshot.Classes[in.Snapshot.Pending[0].Class]
}

func find(t *testing.T, s *engine.Snapshot, name string) engine.Node {
	t.Helper()
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("no node %s", name)
	return engine.Node{}
}

func podsOf(n engine.Node) []string {
	var out []string
	for _, g := range n.Pods {
		out = append(out, g.Pods...)
	}
	sort.Strings(out)
	return out
}

// quotas returns the quotas of two families, partly used.
func quotas(used int64) []snapshot.Quota {
	return []snapshot.Quota{
		{Name: "small", Title: "small sizes", Used: used, Limit: 48, CapacityTypes: []string{karpv1.CapacityTypeOnDemand}, Charges: map[string]int64{"m1-2-amd64": 1, "m2-4-amd64": 2, "m4-4-amd64": 4}},
		{Name: "spot", Used: used / 2, Limit: 32, CapacityTypes: []string{karpv1.CapacityTypeSpot}, Charges: map[string]int64{"m8-4-amd64": 8, "m16-4-amd64": 16}},
	}
}

func ptr[T any](v T) *T { return &v }
