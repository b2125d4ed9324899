// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "sort"

// byPrice returns the columns of a pool by price.
func (cat *catalog) byPrice(pool int32) []int32 {
	if cat.priceOrder == nil {
		cat.priceOrder = make([][]int32, len(cat.pools))
	}
	if cat.priceOrder[pool] == nil {
		p := &cat.pools[pool]
		ord := make([]int32, 0, p.hi-p.lo)
		for i := p.lo; i < p.hi; i++ {
			ord = append(ord, i)
		}
		sort.SliceStable(ord, func(a, b int) bool { return cat.cols[ord[a]].price < cat.cols[ord[b]].price })
		cat.priceOrder[pool] = ord
	}
	return cat.priceOrder[pool]
}

// above returns the columns of a pool that cost more than a price, by price.
func (cat *catalog) above(pool int32, price float64) []int32 {
	ord := cat.byPrice(pool)
	return ord[sort.Search(len(ord), func(i int) bool { return cat.cols[ord[i]].price > price }):]
}

// rightSize moves each machine to its cheapest sufficient offering.
func (ps *pass) rightSize() {
	var row bitset
	var used []int64
	memo := map[string]int32{}
	key := make([]byte, 0, 128)
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		used = m.used(used)
		plain := ps.ledger.unconstrained(m.pool)
		if plain {
			key = m.contentKey(key[:0], used)
			if col, ok := memo[string(key)]; ok {
				ps.move(m, col, used)
				continue
			}
		}
		row = m.columns(row)
		to := ps.cheapest(m, row, used)
		if plain {
			memo[string(key)] = to
		}
		ps.move(m, to, used)
	}
}

// cheapest returns the cheapest column that holds the pods of a machine, which is
// its own if there is no cheaper one.
func (ps *pass) cheapest(m *plannedMachine, row bitset, used []int64) int32 {
	for _, col := range ps.cat.byPrice(m.pool) {
		if ps.cat.cols[col].price >= m.price() {
			break
		}
		if !row.has(col) {
			continue
		}
		k := &ps.cat.kinds[ps.cat.cols[col].kind]
		if !fits(used, k.alloc) || !m.pinned(col) || !m.portsFit(k) {
			continue
		}
		if !ps.ledger.canSwap(m.col, col) {
			continue
		}
		if ps.strategy.thrifty && ps.ledger.share(col) > ps.ledger.share(m.col) {
			continue
		}
		return col
	}
	return m.col
}
