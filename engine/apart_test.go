// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// apartPods returns n pods of each of two sizes that may not share a machine with
// each other, and m pods that may go anywhere.
func apartPods(n, m int) *Snapshot {
	s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{linearTypes(30)}, Pools: []NodePool{{Name: "default"}}}
	add := func(p PodClass, n int) {
		g := PodGroup{Class: ClassID(len(s.Classes))}
		for i := range n {
			g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", p.Name, i))
		}
		s.Classes = append(s.Classes, p)
		s.Pending = append(s.Pending, g)
	}
	for i, cpu := range []int64{100, 300} {
		add(PodClass{
			Name: fmt.Sprint("apart-", i), Namespace: "n", Labels: map[string]string{"app": "nginx"}, Requests: Resources{"cpu": cpu, "memory": 128 << 20},
			PodAntiAffinity: []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", "nginx")}},
		}, n)
	}
	add(PodClass{Name: "plain", Namespace: "n", Requests: Resources{"cpu": 150, "memory": 128 << 20}}, m)
	return s
}

// Pods that may not share a machine need one each, whatever their size. The bound
// proves that, and the plan reaches it.
func TestBoundCountsAMachinePerExclusivePod(t *testing.T) {
	s := apartPods(20, 40)
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(s, p, Options{}); err != nil {
		t.Fatal(err)
	}
	cheapest := s.Catalogues[0].InstanceTypes[0].Offerings[0].PriceUSDPerHour
	if want := 40 * cheapest; p.Bound.USDPerHour < want*(1-1e-6) || p.CostUSDPerHour > want*(1+1e-6) || len(p.Machines) != 40 {
		t.Errorf("%d machines for $%f, bound $%f; want 40 machines for $%f and that as the bound", len(p.Machines), p.CostUSDPerHour, p.Bound.USDPerHour, want)
	}
}

// Rules within machines are resources to the improving path, so it also works for
// Karpenter's mixed pods, where it saves at least 5%.
func TestImprovingPathSavesOnMixedPods(t *testing.T) {
	s := mixedPods(1000)
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(s, p, Options{}); err != nil {
		t.Fatal(err)
	}
	if p.CostUSDPerHour > 0.95*p.QuickCostUSDPerHour || p.Bound.Gap > 0.05 || len(p.Machines) > 200 {
		t.Errorf("%d machines for $%f, quick $%f, gap %f", len(p.Machines), p.CostUSDPerHour, p.QuickCostUSDPerHour, p.Bound.Gap)
	}
}

// Pods with and without rules about other pods share machines, in numbers that make
// them meet: the improving path breaks no rule, loses no pod and costs no more.
func TestImprovingPathKeepsRulesWithinMachines(t *testing.T) {
	bought, total := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		num := func(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, label) }
		s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{linearTypes(num("types", 4, 40))}, Pools: []NodePool{{Name: "default"}}}
		if num("limited", 0, 4) == 0 {
			s.Pools[0].Limits = Resources{"cpu": int64(num("limit", 10, 200)) * 1000}
		}
		apps := []string{"a", "b", "c"}
		for i, n := 0, num("classes", 3, 8); i < n; i++ {
			app, other := rapid.SampledFrom(apps).Draw(t, "app"), rapid.SampledFrom(apps).Draw(t, "other")
			p := PodClass{Name: fmt.Sprint("c", i), Namespace: "n", Labels: map[string]string{"app": app}, Requests: Resources{"cpu": int64(num("cpu", 1, 4)) * 500, "memory": int64(num("mem", 1, 3)) << 30}}
			switch num("rule", 0, 6) {
			case 0:
				p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", other)}}
			case 1, 2:
				p.Spread = []SpreadConstraint{{Key: LabelHostname, MaxSkew: int32(num("skew", 1, 2)), Selector: appSelector("app", other)}}
			case 3:
				p.Spread = []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Selector: appSelector("app", app)}}
			case 4:
				p.HostPorts = []HostPort{{Port: int32(num("port", 80, 81))}}
			}
			s.Classes = append(s.Classes, p)
			g := PodGroup{Class: ClassID(i)}
			for j, k := 0, num("replicas", 1, 15); j < k; j++ {
				g.Pods = append(g.Pods, fmt.Sprintf("c%d-%d", i, j))
			}
			s.Pending = append(s.Pending, g)
		}
		p, err := Place(s, Options{Work: int64(rapid.SampledFrom([]int{0, 2000, 30000}).Draw(t, "work"))})
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(s, p, Options{}); err != nil {
			t.Fatalf("%v\n%s", err, mustJSON(s))
		}
		total++
		if p.CostUSDPerHour < p.QuickCostUSDPerHour*(1-1e-9) {
			bought++
		}
	})
	t.Logf("%d plans, %d cheaper than the quick path's", total, bought)
	if total >= 50 && bought*4 < total {
		t.Errorf("only %d of %d plans are cheaper than the quick path's", bought, total)
	}
}
