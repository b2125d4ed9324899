// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"reflect"
	"slices"
	"testing"
)

func ledgerOf(t *testing.T, change func(*Snapshot)) (*pass, *ledger) {
	s := smallCluster()
	change(s)
	ps := beginPass(t, s, Options{})
	return ps, &ps.ledger
}

func TestLedgerDrawsAndRefundsLimits(t *testing.T) {
	ps, l := ledgerOf(t, func(s *Snapshot) {
		s.Pools[0].Limits = Resources{ResourceCPU: 12_000, ResourceNodes: 2}
		s.Pools[0].Usage = Resources{ResourceCPU: 1000}
	})
	small, large := ps.columnOf(t, "small", "z1"), ps.columnOf(t, "large", "z2")
	if want := [][]limitLeft{{{ResourceCPU, 11_000}, {ResourceNodes, 2}}}; !reflect.DeepEqual(l.limits, want) {
		t.Fatalf("left %v, want %v", l.limits, want)
	}
	l.draw(large)
	if !l.usable(small) || l.usable(large) {
		t.Errorf("of 3 CPUs left: small usable %v, large usable %v", l.usable(small), l.usable(large))
	}
	l.draw(small)
	if l.usable(small) {
		t.Error("two machines are the limit, a third is usable")
	}
	l.refund(small)
	l.refund(large)
	if want := [][]limitLeft{{{ResourceCPU, 11_000}, {ResourceNodes, 2}}}; !reflect.DeepEqual(l.limits, want) || l.machines != 0 {
		t.Errorf("after the refund %v are left, %d machines", l.limits, l.machines)
	}
}

func TestLedgerKnowsReservations(t *testing.T) {
	ps, l := ledgerOf(t, func(s *Snapshot) {
		it := &s.Catalogues[0].InstanceTypes[0]
		it.Offerings = append(it.Offerings, Offering{Zone: "z3", CapacityType: CapacityReserved, ReservationID: "r", ReservationRemaining: 1, Available: true})
	})
	col := ps.columnOf(t, "small", "z3")
	l.draw(col)
	if l.usable(col) {
		t.Error("the reservation is used up and its column usable")
	}
	row := ps.cat.all.clone()
	l.clearUsedReservations(row)
	if row.has(col) || row.count() != len(ps.cat.cols)-1 {
		t.Errorf("%d of %d columns left", row.count(), len(ps.cat.cols))
	}
	l.reset()
	if !l.usable(col) {
		t.Error("after a reset the reservation is still used up")
	}
}

func TestLedgerEnforcesQuotasOnDemand(t *testing.T) {
	ps, l := ledgerOf(t, func(s *Snapshot) {
		s.Quotas = []Quota{{Name: "vCPUs", Remaining: 8}}
		for i, cpus := range []int64{2, 8} {
			for j := range s.Catalogues[0].InstanceTypes[i].Offerings {
				s.Catalogues[0].InstanceTypes[i].Offerings[j].Charges = []QuotaCharge{{Quota: 0, Amount: cpus}}
			}
		}
	})
	small, large := ps.columnOf(t, "small", "z1"), ps.columnOf(t, "large", "z1")
	l.draw(small)
	if !l.usable(large) || l.refused {
		t.Error("a quota that is not enforced rules a machine out")
	}
	two := []*plannedMachine{{col: small, pods: make([]placed, 1)}, {col: large, pods: make([]placed, 1)}}
	if !l.overdrawn(two) || l.overdrawn(two[1:]) {
		t.Error("10 of 8 vCPUs are not overdrawn, or 8 of 8 are")
	}
	l.enforceQuotas = true
	l.reset()
	l.draw(small)
	if l.usable(large) || !l.refused {
		t.Error("the enforced quota does not rule out a machine")
	}
	if !l.canSwap(small, large) {
		t.Error("the machine may become a large one: its own quota is free then")
	}
	if got := l.afterPlan(); !slices.Equal(got, []int64{6}) {
		t.Errorf("%v left of the quota, want 6", got)
	}
}

func TestLedgerIsUnconstrainedFarFromLimits(t *testing.T) {
	for _, test := range []struct {
		cpus int64
		want bool
	}{{8000, true}, {7000, false}} {
		_, l := ledgerOf(t, func(s *Snapshot) { s.Pools[0].Limits = Resources{ResourceCPU: test.cpus} })
		if got := l.unconstrained(0); got != test.want {
			t.Errorf("limit of %dm CPU: unconstrained %v", test.cpus, got)
		}
		if l.unlimited() {
			t.Error("a pool with a limit is unlimited")
		}
	}
}
