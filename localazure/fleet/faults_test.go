// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/intent"
)

func TestFaultsMatchMachines(t *testing.T) {
	spot := aMachine(func(m *intent.MachineIntent) { m.Spot = true })
	tests := []struct {
		fault Fault
		m     intent.MachineIntent
		want  bool
	}{
		{Fault{}, aMachine(nil), true},
		{Fault{Size: "STANDARD_D*_v5"}, aMachine(nil), true},
		{Fault{Size: "Standard_E*"}, aMachine(nil), false},
		{Fault{Zone: "2"}, aMachine(nil), true},
		{Fault{Zone: "1"}, aMachine(nil), false},
		{Fault{Capacity: "spot"}, aMachine(nil), false},
		{Fault{Capacity: "spot"}, spot, true},
		{Fault{Pool: "systempool"}, spot, false},
		{Fault{Node: spot.NodeName, Capacity: "spot"}, spot, true},
	}
	for _, tt := range tests {
		if got := tt.fault.hits(tt.m); got != tt.want {
			t.Errorf("%+v hits a %s in zone %s, spot %t: %t, want %t", tt.fault, tt.m.VMSize, tt.m.Zone, tt.m.Spot, got, tt.want)
		}
	}
}

func TestFaultHitsTheSameShareOfMachines(t *testing.T) {
	f := Fault{Name: "half", Share: 0.5}
	hit := 0
	for i := range 400 {
		m := aMachine(func(m *intent.MachineIntent) { m.Name = fmt.Sprint("m", i) })
		first := f.hits(m)
		if first != f.hits(m) {
			t.Fatalf("%s is hit only sometimes", m.Name)
		}
		if first {
			hit++
		}
	}
	if hit < 140 || hit > 260 {
		t.Errorf("%d of 400 are hit, want about half", hit)
	}
}

func TestFaultsAreValidatedAndDefaulted(t *testing.T) {
	zonal := Fault{Name: "a", Kind: Stockout, Zone: "1"}
	if err := zonal.Check(); err != nil || zonal.Code != "ZonalAllocationFailed" {
		t.Errorf("a zone's stockout: code %q, %v", zonal.Code, err)
	}
	regional := Fault{Name: "a", Kind: Stockout}
	if err := regional.Check(); err != nil || regional.Code != "AllocationFailed" {
		t.Errorf("a stockout: code %q, %v", regional.Code, err)
	}
	for _, bad := range []Fault{
		{Kind: Stockout}, {Name: "a/b", Kind: Stockout}, {Name: "a", Kind: "odd"}, {Name: "a", Kind: SlowBoot}, {Name: "a", Kind: Silent},
		{Name: "a", Kind: Stockout, Size: "["}, {Name: "a", Kind: Stockout, Share: 2}, {Name: "a", Kind: Stockout, Capacity: "cheap"},
	} {
		if err := bad.Check(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestSlowBootReplacesTheBootTime(t *testing.T) {
	f := &fleet{Options: Options{BootTime: time.Second}, clusters: map[string]*clusterFleet{}, faults: map[string]Fault{}}
	f.setFault("slow", &Fault{Name: "slow", Kind: SlowBoot, BootTime: time.Minute, Zone: "2"})
	if d := f.bootDelay(aMachine(nil)); d != time.Minute {
		t.Errorf("boot takes %s, want 1m", d)
	}
	f.setFault("slow", nil)
	if d := f.bootDelay(aMachine(nil)); d > 2*time.Second {
		t.Errorf("boot takes %s after the fault was cleared", d)
	}
}
