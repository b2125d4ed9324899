// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// A NodeClaim lists instance types, zones and capacity types, and allows every
// combination of these. This file drops offerings of a machine so that all
// combinations hold its pods.

// place is where an offering is: what a NodeClaim lists beside the instance type.
type place struct{ zone, capacityType string }

// withoutUnfit drops offerings, the last ranked first, until every combination of
// the types, zones and capacity types that are left holds the pods of the machine,
// stock or not. The machine's own offering is the first and stays. If the rest
// has too few values for the pool's minValues, nothing is dropped.
func (ps *pass) withoutUnfit(m *plannedMachine, cols []int32, row bitset, used []int64) []int32 {
	cat := ps.cat
	unfit := map[*InstanceType][]place{}
	found := false
	listed := func(list []int32, p place) bool {
		zone, ct := false, false
		for _, col := range list {
			o := cat.cols[col].off
			zone = zone || o.Zone == p.zone
			ct = ct || o.CapacityType == p.capacityType
			if zone && ct {
				return true
			}
		}
		return false
	}
	for _, col := range cols {
		typ := cat.cols[col].typ
		if _, ok := unfit[typ]; ok {
			continue
		}
		places := ps.unfitPlaces(m, col, row, used)
		unfit[typ] = places
		found = found || slices.ContainsFunc(places, func(p place) bool { return listed(cols, p) })
	}
	if !found {
		return cols
	}
	kept := make([]int32, 0, len(cols))
	types := map[*InstanceType]bool{}
	for i, col := range cols {
		typ := cat.cols[col].typ
		kept = append(kept, col)
		bad := slices.ContainsFunc(unfit[typ], func(p place) bool { return listed(kept, p) })
		for t := range types {
			bad = bad || slices.ContainsFunc(unfit[t], func(p place) bool { return listed(kept, p) })
		}
		if bad && i > 0 {
			kept = kept[:len(kept)-1]
			continue
		}
		types[typ] = true
	}
	for _, mv := range cat.pools[m.pool].minValues {
		values := map[int32]bool{}
		for _, col := range kept {
			values[cat.vals[mv.key][col]] = true
		}
		if len(values) < mv.min && len(m.minValues) > 0 {
			return cols
		}
	}
	return kept
}

// unfitPlaces returns where machines of the instance type of a column would not
// hold the pods of the machine.
func (ps *pass) unfitPlaces(m *plannedMachine, col int32, row bitset, used []int64) []place {
	cat := ps.cat
	typ := cat.cols[col].typ
	pool := &cat.pools[m.pool]
	first := cat.cols[col].kind
	for first > pool.kindLo && cat.cols[cat.kinds[first-1].lo].typ == typ {
		first--
	}
	var out, good []place
	for ki := first; ki < pool.kindHi && cat.cols[cat.kinds[ki].lo].typ == typ; ki++ {
		k := &cat.kinds[ki]
		fit := fits(used, k.alloc) && m.portsFit(k)
		for c := k.lo; c < k.hi; c++ {
			cc := &cat.cols[c]
			if cc.reserve >= 0 {
				continue
			}
			p := place{cc.off.Zone, cc.off.CapacityType}
			switch {
			case fit && m.pinned(c) && (row.has(c) || !cat.avail.has(c)):
				good = append(good, p)
			case !slices.Contains(out, p):
				out = append(out, p)
			}
		}
	}
	return slices.DeleteFunc(out, func(p place) bool { return slices.Contains(good, p) })
}
