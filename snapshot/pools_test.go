// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

func TestBlockedNodePoolsHaveAReason(t *testing.T) {
	o := base()
	static := clustergen.NodePool("static")
	static.Spec.Replicas = ptr(int64(3))
	unready := clustergen.NodePool("unready")
	unready.Status.Conditions = nil
	going := clustergen.NodePool("going")
	going.DeletionTimestamp = &metav1.Time{Time: o.Now}
	empty := clustergen.NodePool("empty")
	o.NodePools = append(o.NodePools, static, unready, going, empty)
	heavy := clustergen.NodePool("heavy")
	heavy.Spec.Weight = ptr(int32(50))
	heavy.Spec.Limits = karpv1.Limits{corev1.ResourceCPU: resource.MustParse("10"), "nodes": resource.MustParse("3")}
	heavy.Spec.Template.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: corev1.LabelInstanceTypeStable, Operator: corev1.NodeSelectorOpExists, MinValues: ptr(2)}}
	o.NodePools = append(o.NodePools, heavy)
	for _, n := range []string{"static", "unready", "going", "heavy"} {
		o.InstanceTypes[n] = o.InstanceTypes["default"]
	}
	s := build(t, o).Snapshot
	blocked := map[string]string{}
	for _, p := range s.Pools {
		blocked[p.Name] = p.Blocked
	}
	for _, n := range []string{"static", "unready", "going", "empty"} {
		if blocked[n] == "" {
			t.Errorf("pool %s is not blocked", n)
		}
	}
	if p := s.Pools[0]; p.Name != "heavy" || p.Blocked != "" || p.Limits["cpu"] != 10000 || p.Limits["nodes"] != 3 || p.Requirements[0].MinValues != 2 {
		t.Errorf("first NodePool is %+v, want heavy", p)
	}
	if len(s.Catalogues) != 2 {
		t.Errorf("%d catalogues, want 2: the shared one and the empty one", len(s.Catalogues))
	}
}

func TestCataloguesHaveTheOfferings(t *testing.T) {
	o := base()
	s := build(t, o).Snapshot
	it := s.Catalogues[0].InstanceTypes[0]
	if it.Name != "m4" || len(it.Offerings) != 6 || it.Capacity["cpu"] != 4000 || it.Allocatable["cpu"] != 3860 || it.VolumeLimits[clustergen.Driver] != 5 {
		t.Errorf("instance type is %+v", it)
	}
	for _, r := range it.Requirements {
		if r.Key == engine.LabelZone || r.Key == engine.LabelCapacityType {
			t.Errorf("%s is a requirement of the type, want it in offerings only", r.Key)
		}
	}
	if of := it.Offerings[1]; of.Zone != "zone-1" || of.CapacityType != "spot" || of.PriceUSDPerHour != 0.05 || !of.Available {
		t.Errorf("offering is %+v", of)
	}
}

func TestQuotasCountNodeClaimsWithoutMachine(t *testing.T) {
	o := base()
	o.InstanceTypes["default"] = append(o.InstanceTypes["default"], clustergen.InstanceType("m8", 8, 32, 0, "amd64", clustergen.Zones, 0.4, 0))
	o.Quotas = []snapshot.Quota{
		{Name: "d", Used: 10, Limit: 30, CapacityTypes: []string{karpv1.CapacityTypeOnDemand}, Charges: map[string]int64{"m4": 4, "m8": 8}},
		{Name: "spot", Used: 1, Limit: 9, CapacityTypes: []string{karpv1.CapacityTypeSpot}, Charges: map[string]int64{"m4": 4}},
	}
	claim := func(name, capacityType, providerID string, types ...string) *karpv1.NodeClaim {
		nc := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{karpv1.NodePoolLabelKey: "default"}}}
		nc.Status.ProviderID = providerID
		nc.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{
			{Key: corev1.LabelInstanceTypeStable, Operator: corev1.NodeSelectorOpIn, Values: types},
			{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{capacityType}},
		}
		return nc
	}
	o.NodeClaims = []*karpv1.NodeClaim{
		claim("decided", "on-demand", "", "m8"),          // 8 of d
		claim("either", "on-demand", "", "m8", "m4"),     // the cheaper one is tried first: 4 of d
		claim("spot", "spot", "", "m4"),                  // 4 of spot
		claim("launched", "on-demand", "test://x", "m8"), // the cloud counts it
	}
	s := build(t, o).Snapshot
	var left []int64
	for _, q := range s.Quotas {
		left = append(left, q.Remaining)
	}
	if want := []int64{30 - 10 - 8 - 4, 9 - 1 - 4}; !slices.Equal(left, want) {
		t.Errorf("quotas have %v remaining, want %v", left, want)
	}
	for _, it := range s.Catalogues[0].InstanceTypes {
		for _, of := range it.Offerings {
			want := []engine.QuotaCharge{{Quota: 0, Amount: map[string]int64{"m4": 4, "m8": 8}[it.Name]}}
			if of.CapacityType == karpv1.CapacityTypeSpot {
				want = []engine.QuotaCharge{{Quota: 1, Amount: 4}}
			}
			if !slices.Equal(of.Charges, want) {
				t.Errorf("%s/%s is charged %v, want %v", it.Name, of.CapacityType, of.Charges, want)
			}
		}
	}
}
