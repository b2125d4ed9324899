// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"slices"
)

// placeClass places what is left of a class, relaxing its preferences one by one.
func (ps *pass) placeClass(pc *passClass) {
	for {
		ps.placeVariant(pc.v)
		if pc.left() == 0 || pc.prefs.exhausted() {
			return
		}
		pc.prefs.relax()
		ps.compile(pc)
	}
}

// placeVariant places as many of the remaining pods of a class as possible.
func (ps *pass) placeVariant(v *variant) {
	pc := v.pc
	ps.cursors.begin()
	nodes := ps.existing.candidates(v)
	if len(nodes) == 0 && v.row.empty() {
		return
	}
	var ts tuples
	if len(v.domain) == 0 {
		ts = singleTuple(v, nodes)
	} else {
		ts = newTuples(ps.c, ps.cat, v, nodes)
	}
	ps.cursors.resume(&ts)
	defer ps.cursors.pause(&ts)
	if ps.placeTogether(&ts) {
		return
	}
	if len(v.domain) == 0 {
		for pc.left() > 0 {
			if ps.placeIn(v, ts.list[0], int64(pc.left())) == 0 {
				return
			}
		}
		return
	}
	for pc.left() > 0 {
		t, chunk := ts.next(ps.c, ps.strategy)
		if t == nil {
			return
		}
		if ps.placeIn(v, t, min(chunk, int64(pc.left()))) > 0 {
			ts.countDomains(t)
			continue
		}
		t.dead = true
		if pc.prefs.exhausted() {
			ts.dropEmptyDomain(t, &ps.domains, ps.machines)
		}
	}
}

// placeIn places up to n pods in a tuple, on nodes, planned machines and new
// machines, and returns how many.
func (ps *pass) placeIn(v *variant, t *tuple, n int64) int64 {
	done := int64(0)
	for t.nodeCur < len(t.nodes) && done < n {
		k := ps.existing.add(v, t.nodes[t.nodeCur], n-done)
		if k == 0 {
			t.nodeCur++
			continue
		}
		done += k
	}
	for t.machineCur < len(ps.machines) && done < n {
		m := ps.machines[t.machineCur]
		if !fits(v.pc.vec, m.free) || !t.mask.has(m.col) && !ps.retarget(v, m, t.mask) {
			t.machineCur++
			continue
		}
		k := ps.addToMachine(v, m, n-done)
		if k == 0 {
			t.machineCur++
			continue
		}
		done += k
	}
	for done < n && !t.noOpen {
		k := ps.open(v, t, n-done)
		if k == 0 {
			t.noOpen = true
		}
		done += k
	}
	if done == 0 {
		done = ps.enlarge(v, t, n)
	}
	return done
}

// addToMachine puts up to n of the class's next pods on a planned machine and
// returns how many.
func (ps *pass) addToMachine(v *variant, m *plannedMachine, n int64) int64 {
	k := m.room(v, n)
	if k > 0 {
		m.commit(v, v.pc.used, k)
		v.pc.used += int(k)
	}
	return k
}

// newMachine opens a machine of a column.
func (ps *pass) newMachine(col int32) *plannedMachine {
	m := newPlannedMachine(ps.cat, col, len(ps.machines), ps.opt.MinValues)
	ps.ledger.draw(col)
	ps.machines = append(ps.machines, m)
	return m
}

// drop removes the machine that was opened last.
func (ps *pass) drop(m *plannedMachine) {
	ps.ledger.refund(m.col)
	ps.machines = ps.machines[:len(ps.machines)-1]
}

// move changes the column of a machine.
func (ps *pass) move(m *plannedMachine, to int32, used []int64) {
	if to == m.col {
		return
	}
	ps.rebook(m, to)
	m.become(to, used)
}

// rebook gives back what a machine's column draws on (limits, reservations) and
// draws on that of another, which the machine is about to get.
func (ps *pass) rebook(m *plannedMachine, to int32) {
	ps.ledger.refund(m.col)
	ps.ledger.draw(to)
	ps.cursors.changed(m)
}

// placeTogether handles pods that must share a machine (affinity over the
// hostname): it looks for a node, then a planned machine, then a new one, that
// holds all of them. It returns false if the rest is to be placed like other pods.
func (ps *pass) placeTogether(ts *tuples) bool {
	v := ts.v
	if len(v.affs) == 0 || !v.bootstrap() || !v.followsOnHost() {
		return false
	}
	pc := v.pc
	left := int64(pc.left())
	var starts []start
	for _, t := range ts.list {
		if len(v.domain) == 0 {
			starts = append(starts, start{t, left})
			continue
		}
		one := tuples{v, []*tuple{t}}
		if best, _ := one.next(ps.c, ps.strategy); best != nil {
			starts = append(starts, start{t, min(left, t.together(v))})
		}
	}
	for _, st := range starts {
		for _, slot := range st.t.nodes {
			if fitCount(pc.cl.vec, ps.c.nodes[slot].free, st.n) == st.n && ps.existing.add(v, slot, st.n) > 0 {
				return pc.left() == 0
			}
		}
	}
	for _, st := range starts {
		for i := st.t.machineCur; i < len(ps.machines); i++ {
			m := ps.machines[i]
			if st.t.mask.has(m.col) && fitCount(pc.cl.vec, m.free, st.n) == st.n && ps.addToMachine(v, m, st.n) > 0 {
				return pc.left() == 0
			}
		}
	}
	col, n := ps.columnForAll(pc, starts)
	if col < 0 {
		return false
	}
	m := ps.newMachine(col)
	if ps.addToMachine(v, m, n) == 0 {
		ps.drop(m)
	}
	return pc.left() == 0
}

// start is a tuple in which pods that must share a machine may begin.
type start struct {
	t *tuple
	n int64 // how many pods the domains may take at once
}

// columnForAll returns the cheapest column for a machine that holds all pods, or
// the one that holds most, and how many pods its tuple may take. It returns -1 if
// there is none.
func (ps *pass) columnForAll(pc *passClass, starts []start) (int32, int64) {
	best, bestN := int32(-1), int64(0)
	var bestFit int64
	var bestPrice float64
	for _, st := range starts {
		if st.t.noOpen {
			continue
		}
		for ti := range ps.cat.tiers {
			for pi := ps.cat.tiers[ti].poolLo; pi < ps.cat.tiers[ti].poolHi; pi++ {
				p := &ps.cat.pools[pi]
				for ki := p.kindLo; ki < p.kindHi; ki++ {
					col := ps.ledger.usableColumn(st.t.mask, ki)
					if col < 0 {
						continue
					}
					f := fitCount(pc.cl.vec, ps.cat.kinds[ki].alloc, st.n)
					if pr := ps.cat.cols[col].price; f > bestFit || f == bestFit && f > 0 && pr < bestPrice {
						best, bestN, bestFit, bestPrice = col, st.n, f, pr
					}
				}
			}
			if bestFit == st.n {
				break
			}
		}
	}
	return best, bestN
}

// enlarge makes room for pods that must follow others onto a planned machine
// (affinity over the hostname): it moves the machine to the cheapest column that
// holds its pods and as many of the new ones as possible. It returns how many it
// placed.
func (ps *pass) enlarge(v *variant, t *tuple, n int64) int64 {
	if !v.followsOnHost() {
		return 0
	}
	vec := v.pc.cl.vec
	var row bitset
	var used []int64
	for _, m := range ps.machines {
		if len(m.pods) == 0 || !slices.ContainsFunc(v.host, func(k check) bool { return k.kind == checkAffinity && m.count(k.ctr) > 0 }) {
			continue
		}
		k := min(n, v.hostRoom(m.count, true))
		if k == 0 {
			continue
		}
		row, used = m.columns(row), m.used(used)
		row.and(t.mask)
		best, bestFit := int32(-1), int64(0)
		for _, col := range ps.cat.byPrice(m.pool) {
			if !row.has(col) || !m.pinned(col) {
				continue
			}
			kd := &ps.cat.kinds[ps.cat.cols[col].kind]
			if !fits(used, kd.alloc) || !m.portsFit(kd) || !ps.ledger.canSwap(m.col, col) {
				continue
			}
			free := slices.Clone(kd.alloc)
			sub(free, used)
			if fit := fitCount(vec, free, k); fit > bestFit {
				if best, bestFit = col, fit; fit == k {
					break
				}
			}
		}
		if best < 0 {
			continue
		}
		ps.move(m, best, used)
		if got := ps.addToMachine(v, m, bestFit); got > 0 {
			return got
		}
	}
	return 0
}

// retarget moves a machine to another offering of its kind that is in the mask,
// if no pod on it relies on the present one (its zone, say) and the other costs
// no more. It reports whether it did.
func (ps *pass) retarget(v *variant, m *plannedMachine, mask bitset) bool {
	k := &ps.cat.kinds[m.kind]
	col := mask.next(k.lo, k.hi)
	if col == k.hi {
		return false
	}
	price := m.price()
	for ; col < k.hi && ps.cat.cols[col].price <= price; col = mask.next(col+1, k.hi) {
		if ps.cat.cols[col].reserve >= 0 || !m.pinned(col) || !m.mayBe(col) {
			continue
		}
		if ps.ledger.canSwap(m.col, col) && m.room(v, 1) > 0 {
			ps.rebook(m, col)
			m.col = col
			return true
		}
	}
	return false
}

// open creates a machine for up to n pods of the variant, or grows a planned one
// if that is the better buy, and returns how many pods it placed.
func (ps *pass) open(v *variant, t *tuple, n int64) int64 {
	if v.hostRoom(noneThere, true) == 0 {
		return 0
	}
	for range 3 {
		col := ps.choose(v, t, n)
		score := 0.0
		if col >= 0 {
			score = t.choice.score
		}
		// For many pods and a choice that is repeated, growing has been tried.
		if col < 0 || t.choice.fresh || v.pc.left() <= 8 {
			if k := ps.grow(v, t, n, score); k > 0 {
				if col >= 0 {
					t.choice.giveBack()
				}
				return k
			}
		}
		if col < 0 {
			return 0
		}
		m := ps.newMachine(col)
		if k := ps.addToMachine(v, m, n); k > 0 {
			return k
		}
		ps.drop(m)
		t.choice = choice{}
	}
	return 0
}

// Limits of the search for a machine to grow.
const (
	growMachines = 64   // the latest machines that are in the right domain …
	growBack     = 1024 // … among as many of the latest
	growColumns  = 40   // larger offerings for each
)

// grow puts pods onto a planned machine by making it larger, where that buys more
// value per added dollar than a new machine with the given score. It returns how
// many.
func (ps *pass) grow(v *variant, t *tuple, n int64, score float64) int64 {
	cl := v.pc.cl
	if len(cl.pc.SharedVolumes) > 0 || v.pc.value <= 0 {
		return 0
	}
	var best *plannedMachine
	bestCol, bestFit, bestRatio := int32(-1), int64(0), score
	used, free := ps.scratch[0], ps.scratch[1]
	tried := 0
	for i := len(ps.machines) - 1; i >= 0 && tried < growMachines && i >= len(ps.machines)-growBack; i-- {
		m := ps.machines[i]
		if !m.inTuple(v, t) {
			continue
		}
		tried++
		if len(m.pods) == 0 || len(ps.cat.pools[m.pool].minValues) > 0 {
			continue
		}
		k := v.fitBeside(n, m.ports, m.count, true)
		if k == 0 {
			continue
		}
		price := m.price()
		used = m.used(used)
		looked := 0
		for _, col := range ps.cat.above(m.pool, price) {
			cc := &ps.cat.cols[col]
			if looked++; looked > growColumns {
				break
			}
			delta := math.Max(cc.price-price, 1e-9)
			if float64(k)*v.pc.value <= bestRatio*delta {
				break // more expensive ones cannot be better
			}
			if !t.mask.has(col) || cc.reserve >= 0 || cc.kind == m.kind || !m.pinned(col) {
				continue
			}
			kd := &ps.cat.kinds[cc.kind]
			if !fits(used, kd.alloc) || !m.portsFit(kd) || !m.mayBe(col) {
				continue
			}
			free = append(free[:0], kd.alloc...)
			sub(free, used)
			f := fitCount(cl.vec, free, k)
			if f == 0 {
				continue
			}
			if r := float64(f) * v.pc.value / delta; r > bestRatio && ps.ledger.canSwap(m.col, col) {
				best, bestCol, bestFit, bestRatio = m, col, f, r
			}
			if f == k {
				break
			}
		}
	}
	ps.scratch[0], ps.scratch[1] = used, free
	if best == nil {
		return 0
	}
	from := best.col
	used = best.used(used)
	ps.move(best, bestCol, used)
	got := ps.addToMachine(v, best, bestFit)
	if got == 0 {
		ps.move(best, from, used)
	}
	return got
}
