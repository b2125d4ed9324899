// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"slices"
	"sort"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/test/clustergen"
)

func TestTranslateNodesByLifecycleState(t *testing.T) {
	o := base()
	o.NodePools[0].Spec.Template.Spec.StartupTaints = []corev1.Taint{{Key: "boot", Effect: corev1.TaintEffectNoSchedule}}
	o.DaemonSets = []*appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "kube-system", UID: "agent"}, Spec: appsv1.DaemonSetSpec{Template: corev1.PodTemplateSpec{Spec: pod("x").Spec}}}}
	o.Nodes = []*corev1.Node{
		node("ready"),
		node("starting", func(n *corev1.Node) {
			delete(n.Labels, karpv1.NodeInitializedLabelKey)
			n.Spec.Taints = []corev1.Taint{{Key: "boot", Effect: corev1.TaintEffectNoSchedule}, {Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}, {Key: "stays", Effect: corev1.TaintEffectNoSchedule}}
			n.Status.Allocatable[corev1.ResourceMemory] = resource.MustParse("0")
		}),
		node("leaving"),
		node("fixed", func(n *corev1.Node) { n.Labels = map[string]string{"agentpool": "system"}; n.Spec.Unschedulable = true }),
	}
	o.NodeClaims = []*karpv1.NodeClaim{
		claim("c-ready", "id-ready"),
		claim("c-starting", "id-starting", func(nc *karpv1.NodeClaim) {
			nc.Spec.StartupTaints = o.NodePools[0].Spec.Template.Spec.StartupTaints
			nc.Status.Allocatable = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("15Gi")}
		}),
		claim("c-leaving", "id-leaving", func(nc *karpv1.NodeClaim) {
			nc.DeletionTimestamp = &metav1.Time{Time: o.Now}
			nc.Finalizers = []string{"f"}
		}),
		claim("c-undecided", "", func(nc *karpv1.NodeClaim) {
			nc.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn, Values: []string{"zone-1", "zone-2"}},
				{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"spot"}}}
		}),
	}
	yes := true
	o.Pods = []*corev1.Pod{
		pod("runs", bound("ready")), pod("ends", bound("ready"), func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: o.Now} }),
		pod("done", bound("ready"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("agent-1", bound("ready"), func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", APIVersion: "apps/v1", Name: "agent", UID: "agent", Controller: &yes}}
		}),
		pod("moves", bound("leaving")), pod("waits"), pod("assumed"),
	}
	o.Assumed = map[string]string{"default/assumed": "c-undecided"}
	in := build(t, o)
	s := in.Snapshot

	ready := find(t, s, "ready")
	if !ready.Initialized || ready.NodePool != "default" || ready.PriceUSDPerHour != 0.2 || ready.Allocatable["cpu"] != 3860 || len(ready.MissingDaemons) != 0 {
		t.Errorf("ready: %+v", ready)
	}
	if got := podsOf(ready); !slices.Equal(got, []string{"default/agent-1", "default/ends", "default/runs"}) {
		t.Errorf("pods on ready: %v", got)
	}
	starting := find(t, s, "starting")
	if starting.Initialized || len(starting.Taints) != 1 || starting.Taints[0].Key != "stays" || starting.Allocatable["memory"] != 15<<30 || len(starting.MissingDaemons) != 1 {
		t.Errorf("starting: %+v", starting)
	}
	if l := find(t, s, "leaving"); l.Closed == "" || len(podsOf(l)) != 0 {
		t.Errorf("leaving: %+v", l)
	}
	if f := find(t, s, "fixed"); f.NodePool != "" || len(f.Taints) != 1 || f.Taints[0].Key != corev1.TaintNodeUnschedulable {
		t.Errorf("fixed: %+v", f)
	}
	u := find(t, s, "c-undecided")
	if u.Labels[engine.LabelCapacityType] != "spot" || u.Labels[engine.LabelInstanceType] != "m4" || len(u.Undecided) != 1 || u.Undecided[0].Key != engine.LabelZone || len(u.Undecided[0].Values) != 2 {
		t.Errorf("undecided: %+v", u)
	}
	if got := podsOf(u); !slices.Equal(got, []string{"default/assumed"}) {
		t.Errorf("assumed pods: %v", got)
	}
	var keys []string
	for k := range in.Pods {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	if !slices.Equal(keys, []string{"default/moves", "default/waits"}) {
		t.Errorf("pending: %v", keys)
	}
	if u := s.Pools[0].Usage; u["cpu"] != 12000 || u["nodes"] != 3 { // ready, starting, undecided
		t.Errorf("usage: %v", u)
	}
}

// A claim whose size is open offers what its smallest size has, also if that is out of
// stock at the moment: it may be back when the machine is launched.
func TestUndecidedClaimOffersWhatEveryOutcomeGives(t *testing.T) {
	o := base()
	small, large := clustergen.InstanceType("m2", 2, 8, 0, "amd64", clustergen.Zones, 0.1, 0.03), clustergen.InstanceType("m16", 16, 64, 0, "amd64", clustergen.Zones, 0.8, 0.2)
	o.InstanceTypes["default"] = []*cloudprovider.InstanceType{small, large}
	o.NodeClaims = []*karpv1.NodeClaim{claim("c", "", func(nc *karpv1.NodeClaim) {
		nc.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelInstanceTypeStable, Operator: corev1.NodeSelectorOpIn, Values: []string{"m2", "m16"}}}
	})}
	for _, available := range []bool{true, false} {
		for _, of := range small.Offerings {
			of.Available = available
		}
		n := find(t, build(t, o).Snapshot, "c")
		if n.Allocatable["cpu"] >= 2000 || n.Allocatable["cpu"] <= 0 {
			t.Errorf("with the smallest size in stock %t: %d mCPU, want those of 2 cores", available, n.Allocatable["cpu"])
		}
	}
	if u := build(t, o).Snapshot.Pools[0].Usage; u["cpu"] != 16000 {
		t.Errorf("usage of the limits: %v, want the largest size", u)
	}
}

// A launch writes the labels of a NodeClaim before its status: until both are there the
// claim still takes its share of the NodePool's limits, and offers room.
func TestClaimWithLabelsButWithoutStatusCounts(t *testing.T) {
	o := base()
	it := o.InstanceTypes["default"][0]
	o.NodeClaims = []*karpv1.NodeClaim{claim("launching", "", func(nc *karpv1.NodeClaim) {
		nc.Labels[corev1.LabelInstanceTypeStable] = it.Name
		nc.Status.Capacity, nc.Status.Allocatable = nil, nil
	})}
	s := build(t, o).Snapshot
	allocatable := it.Allocatable()
	want := it.Capacity.Cpu().MilliValue()
	if got := s.Pools[0].Usage["cpu"]; want == 0 || got != want {
		t.Errorf("the NodePool uses %d millicores, want %d of %s", got, want, it.Name)
	}
	if n := find(t, s, "launching"); n.Allocatable["cpu"] != allocatable.Cpu().MilliValue() || s.Pools[0].Usage[engine.ResourceNodes] != 1 {
		t.Errorf("the claim offers %+v", n.Allocatable)
	}
}
