// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "testing"

// smallCluster has two sizes in two zones, one NodePool, and a node in z1 with 3
// CPUs free.
func smallCluster() *Snapshot {
	size := func(name string, cpus int64, price float64) InstanceType {
		amounts := Resources{ResourceCPU: cpus * 1000, ResourceMemory: cpus << 32, ResourcePods: 30}
		it := InstanceType{Name: name, Capacity: amounts, Allocatable: amounts}
		for _, zone := range []string{"z1", "z2"} {
			it.Offerings = append(it.Offerings, Offering{Zone: zone, CapacityType: CapacityOnDemand, PriceUSDPerHour: price, Available: true})
		}
		return it
	}
	return &Snapshot{
		Version:    SnapshotVersion,
		Pools:      []NodePool{{Name: "default"}},
		Catalogues: []Catalogue{{InstanceTypes: []InstanceType{size("small", 2, 0.1), size("large", 8, 0.3)}}},
		Nodes: []Node{{
			Name: "node", Initialized: true, Labels: map[string]string{LabelZone: "z1"},
			Allocatable: Resources{ResourceCPU: 3000, ResourceMemory: 16 << 30, ResourcePods: 10},
		}},
	}
}

// addClass adds a class with pending pods of 1 CPU and the label app: name.
func addClass(s *Snapshot, name string, pods int, change func(*PodClass)) ClassID {
	id := ClassID(len(s.Classes))
	p := PodClass{Name: name, Namespace: "default", Labels: map[string]string{"app": name}, Requests: Resources{ResourceCPU: 1000, ResourceMemory: 1 << 30}}
	if change != nil {
		change(&p)
	}
	s.Classes = append(s.Classes, p)
	g := PodGroup{Class: id}
	for i := range pods {
		g.Pods = append(g.Pods, name+"-"+string(rune('a'+i)))
	}
	s.Pending = append(s.Pending, g)
	return id
}

func selectApp(name string) *Selector {
	return &Selector{Requirements: []Requirement{{Key: "app", Operator: In, Values: []string{name}}}}
}

// beginPass compiles a snapshot and begins a pass over its pending pods.
func beginPass(t *testing.T, s *Snapshot, o Options) *pass {
	t.Helper()
	c, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	ps, err := c.newPass(s.Pending, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ps.end)
	return ps
}

// columnOf returns the column of a size and zone.
func (ps *pass) columnOf(t *testing.T, size, zone string) int32 {
	t.Helper()
	for i := range ps.cat.cols {
		if c := &ps.cat.cols[i]; c.typ.Name == size && c.off.Zone == zone {
			return int32(i)
		}
	}
	t.Fatalf("no column %s/%s", size, zone)
	return -1
}
