// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"sort"
)

// maxOfferings is how many ranked offerings a machine has by default.
const maxOfferings = 60

// ranking ranks the offerings of machines.
type ranking struct {
	lists map[uint64][]rankList // by hash of the columns
	cols  []int32               // scratch
	seen  []bool                // offerings in cols
	keys  []int32               // scratch of labelKeys
}

// rankList is a ranking that machines share.
type rankList struct {
	cols []int32
	list []RankedOffering
}

// rank returns the offerings that hold the pods of a machine, its own first, then
// by price, the regional ones last. Machines with the same offerings share a list.
func (ps *pass) rank(m *plannedMachine, row bitset, used []int64) []RankedOffering {
	limit := ps.opt.MaxOfferings
	if limit == 0 {
		limit = maxOfferings
	}
	r, cat := &ps.ranking, ps.cat
	pool := &cat.pools[m.pool]
	if r.lists == nil {
		r.lists = map[uint64][]rankList{}

		r.seen = make([]bool, cat.offers+1)
	}
	out := r.cols[:0]
	missing := map[int32]map[int32]bool{}
	for _, mv := range pool.minValues {
		missing[mv.key] = map[int32]bool{}
	}
	satisfied := func() bool {
		for _, mv := range pool.minValues {
			if len(missing[mv.key]) < mv.min {
				return false
			}
		}
		return true
	}
	add := func(col int32) {
		offer := cat.cols[col].offer
		if r.seen[offer] {
			return // a column of the same offering with other labels
		}
		r.seen[offer] = true
		for _, mv := range pool.minValues {
			missing[mv.key][cat.vals[mv.key][col]] = true
		}
		out = append(out, col)
	}
	add(m.col)
	order := ps.cat.byPrice(m.pool)
	plain := ps.ledger.unconstrained(m.pool)
	if plain {
		// Right-sizing has shown that nothing cheaper holds them.
		price := cat.cols[m.col].price
		order = order[sort.Search(len(order), func(i int) bool { return cat.cols[order[i]].price >= price }):]
	}
	row = m.withRegional(row)
	scan := func(strict, regional bool) {
		for _, col := range order {
			if limit > 0 && len(out) >= limit && satisfied() {
				break
			}
			if col == m.col || !row.has(col) || cat.regional.has(col) != regional {
				continue
			}
			cc := &cat.cols[col]
			k := &cat.kinds[cc.kind]
			if !fits(used, k.alloc) || cc.reserve >= 0 || !m.pinned(col) || !m.portsFit(k) {
				continue
			}
			if strict && !plain && (!ps.ledger.canFallBack(m.kind, cc.kind) || !ps.ledger.withinQuotas(col)) {
				continue
			}
			add(col)
		}
	}
	scan(true, false)
	scan(true, true)
	if !plain && !satisfied() {
		// minValues counts offerings that limits rule out now, too.
		scan(false, false)
		scan(false, true)
	}
	r.cols = out
	for _, col := range out {
		r.seen[cat.cols[col].offer] = false
	}
	out = ps.withoutUnfit(m, out, row, used)
	hash := uint64(14695981039346656037)
	for _, col := range out {
		hash = (hash ^ uint64(col)) * 1099511628211
	}
	for _, l := range r.lists[hash] {
		if slices.Equal(l.cols, out) {
			return l.list
		}
	}
	list := make([]RankedOffering, len(out))
	for i, col := range out {
		cc := &cat.cols[col]
		list[i] = RankedOffering{InstanceType: cc.typ.Name, Zone: cc.off.Zone, CapacityType: cc.off.CapacityType, ReservationID: cc.off.ReservationID, PriceUSDPerHour: cc.price}
	}
	r.lists[hash] = append(r.lists[hash], rankList{slices.Clone(out), list})
	return list
}
