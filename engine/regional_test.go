// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"testing"

	. "github.com/nap-aks/nap/engine"
)

// regionalSnapshot is a pool with two sizes in zones z-1 to z-3 and regional.
func regionalSnapshot(class PodClass, pods int) *Snapshot {
	size := func(name string, cpu int64, zones ...string) InstanceType {
		it := InstanceType{Name: name, Capacity: Resources{ResourceCPU: cpu, ResourcePods: 110}, Allocatable: Resources{ResourceCPU: cpu, ResourcePods: 110}}
		for _, z := range zones {
			it.Offerings = append(it.Offerings, Offering{Zone: z, CapacityType: CapacityOnDemand, PriceUSDPerHour: float64(cpu) / 10000, Available: true})
		}
		return it
	}
	s := &Snapshot{Version: SnapshotVersion, Classes: []PodClass{class},
		Pools: []NodePool{{Name: "default"}},
		Catalogues: []Catalogue{{InstanceTypes: []InstanceType{
			size("a", 4000, ZoneRegional, "z-1", "z-2", "z-3"), size("b", 8000, ZoneRegional, "z-1", "z-2", "z-3"),
		}}},
	}
	g := PodGroup{}
	for i := range pods {
		g.Pods = append(g.Pods, fmt.Sprintf("pod-%d", i))
	}
	s.Pending = []PodGroup{g}
	return s
}

// zonesOf counts the pods of a plan by the zone of their machine.
func zonesOf(t *testing.T, s *Snapshot) map[string]int {
	t.Helper()
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for i := range p.Machines {
		m := &p.Machines[i]
		last := false
		for _, o := range m.Offerings {
			if o.Zone == ZoneRegional {
				last = true
			} else if last {
				t.Errorf("machine %d: a zonal offering after a regional one", i)
			}
		}
		for _, g := range m.Pods {
			out[m.Offerings[0].Zone] += len(g.Pods)
		}
	}
	return out
}

func spreadOverZones() PodClass {
	return PodClass{Name: "web", Labels: map[string]string{"app": "web"}, Requests: Resources{ResourceCPU: 1000},
		Spread: []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Selector: &Selector{Requirements: []Requirement{{Key: "app", Operator: In, Values: []string{"web"}}}}}}}
}

func TestRegionalOfferingsAreNoDomain(t *testing.T) {
	s := regionalSnapshot(spreadOverZones(), 30)
	if got := zonesOf(t, s); got[ZoneRegional] != 0 || got["z-1"] != 10 || got["z-2"] != 10 || got["z-3"] != 10 {
		t.Errorf("pods by zone: %v", got)
	}
	p, _ := Place(s, Options{})
	for _, m := range p.Machines {
		for _, o := range m.Offerings {
			if o.Zone == ZoneRegional {
				t.Error("a machine for pods with a spread over zones has a regional alternative")
			}
		}
	}
}

func TestRegionalOfferingsComeLast(t *testing.T) {
	s := regionalSnapshot(PodClass{Name: "plain", Requests: Resources{ResourceCPU: 1000}}, 20)
	if got := zonesOf(t, s); got[ZoneRegional] != 0 {
		t.Errorf("pods by zone: %v", got)
	}
	p, _ := Place(s, Options{})
	if o := p.Machines[0].Offerings; o[len(o)-1].Zone != ZoneRegional {
		t.Errorf("no regional offering is the last alternative: %v", o)
	}
	// Without stock in any zone, it is the first.
	for i := range s.Catalogues[0].InstanceTypes {
		os := s.Catalogues[0].InstanceTypes[i].Offerings
		for j := range os {
			os[j].Available = os[j].Zone == ZoneRegional
		}
	}
	if got := zonesOf(t, s); got[ZoneRegional] != 20 {
		t.Errorf("no stock in zones: pods by zone: %v", got)
	}
}

func TestRegionalOfferingsOnRequest(t *testing.T) {
	c := spreadOverZones()
	c.NodeAffinity = [][]Requirement{{{Key: LabelZone, Operator: In, Values: []string{ZoneRegional, "z-1"}}}}
	if got := zonesOf(t, regionalSnapshot(c, 10)); got[ZoneRegional] != 5 || got["z-1"] != 5 {
		t.Errorf("asked for by the pods: pods by zone: %v", got)
	}
	s := regionalSnapshot(spreadOverZones(), 20)
	s.Pools[0].Requirements = []Requirement{{Key: LabelZone, Operator: In, Values: []string{ZoneRegional, "z-1"}}}
	if got := zonesOf(t, s); got[ZoneRegional] != 10 || got["z-1"] != 10 {
		t.Errorf("asked for by the NodePool: pods by zone: %v", got)
	}
	// A node that is regional already is a domain of the spread: the kube-scheduler
	// refuses the others without a pod there.
	s = regionalSnapshot(spreadOverZones(), 20)
	s.Nodes = []Node{{Name: "old", Initialized: true, Labels: map[string]string{LabelZone: ZoneRegional}, Allocatable: Resources{ResourceCPU: 100, ResourcePods: 110}}}
	got := zonesOf(t, s)
	if got[ZoneRegional] != 5 || got["z-1"]+got["z-2"]+got["z-3"] != 15 {
		t.Errorf("a regional node: pods by zone: %v", got)
	}
	// A region without zones.
	s = regionalSnapshot(spreadOverZones(), 7)
	for i := range s.Catalogues[0].InstanceTypes {
		it := &s.Catalogues[0].InstanceTypes[i]
		it.Offerings = it.Offerings[:1]
	}
	if got := zonesOf(t, s); got[ZoneRegional] != 7 {
		t.Errorf("a region without zones: pods by zone: %v", got)
	}
}
