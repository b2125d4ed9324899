// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// Limits of dissolve.
const (
	dissolveMachines = 8    // machines tried
	dissolvePods     = 12   // pods on a machine at most
	dissolveGrow     = 256  // machines to grow, for each pod
	dissolveColumns  = 24   // larger offerings for each of these
	dissolveSlack    = 0.02 // share of its price that one machine less may cost
)

// dissolve removes machines whose pods fit on the others, or on others made
// larger, at about the same cost, the worst filled first. They were opened for
// more pods than came. Pods stay in their domains, so only the rules within a
// machine must be checked again.
func (ps *pass) dissolve() {
	if len(ps.machines) < 2 {
		return
	}
	type filled struct {
		m   *plannedMachine
		per float64 // value per dollar
	}
	var worst []filled
	for _, m := range ps.machines {
		n, value := 0, 0.0
		for i := range m.pods {
			n += m.pods[i].n
			value += m.pods[i].v.pc.value * float64(m.pods[i].n)
		}
		if n == 0 || n > dissolvePods || m.frozen() || len(ps.cat.pools[m.pool].minValues) > 0 || ps.oneEach(m) {
			continue
		}
		worst = append(worst, filled{m, value / math.Max(m.price(), 1e-9)})
	}
	slices.SortStableFunc(worst, func(a, b filled) int { return cmp.Compare(a.per, b.per) })
	for i := 0; i < len(worst) && i < dissolveMachines; i++ {
		ps.remove(worst[i].m, dissolveSlack)
	}
}

// oneEach reports whether a machine holds a pod that is limited to one per
// machine while every other machine holds one, so that it has no other place.
func (ps *pass) oneEach(m *plannedMachine) bool {
	for i := range m.pods {
		v := m.pods[i].v
		if v.hostCap != 1 || v.capCtr < 0 {
			continue
		}
		ctr := ps.domains.counters[v.capCtr]
		if ctr.total >= int64(len(ps.machines)) && !slices.ContainsFunc(ps.machines, func(o *plannedMachine) bool { return o.count(ctr) == 0 }) {
			return true
		}
	}
	return false
}

// remove moves the pods of a machine to others and removes it, if that costs no
// more than its price and the slack, a share of it.
func (ps *pass) remove(m *plannedMachine, slack float64) {
	at := slices.Index(ps.machines, m)
	if at < 0 {
		return
	}
	budget := m.price() * (1 + slack)
	ps.machines = slices.Delete(slices.Clone(ps.machines), at, at+1)
	ps.ledger.refund(m.col)
	m.countAll(-1)
	saved := map[*plannedMachine]plannedMachine{}
	ok := true
	runs := slices.Clone(m.pods)
	sort.SliceStable(runs, func(i, j int) bool { return runs[i].v.pc.value > runs[j].v.pc.value })
	for _, run := range runs {
		for run.n > 0 && ok {
			k, cost := ps.rehouse(m, run, budget, saved)
			ok = k > 0
			run.first += int(k)
			run.n -= int(k)
			budget -= cost
		}
	}
	if ok {
		return
	}
	for o := range saved {
		// Their counts are restored below.
		o.countAll(-1)
		ps.ledger.refund(o.col)
	}
	for o, s := range saved {
		*o = s
		ps.ledger.draw(o.col)
		o.countAll(1)
	}
	ps.ledger.draw(m.col)
	m.countAll(1)
	ps.machines = slices.Insert(ps.machines, at, m)
}

// rehouse puts pods of a run that was on a machine onto another one in the same
// domains: one that has room, or else the one that is cheapest to enlarge, within
// a budget. Frozen machines are left alone. It returns how many pods and at what
// cost. It keeps copies of the machines that it changes in saved, unless that is
// nil.
func (ps *pass) rehouse(from *plannedMachine, run placed, budget float64, saved map[*plannedMachine]plannedMachine) (int64, float64) {
	v := run.v
	pins := ps.cat.pinsOf(v)
	vec := v.pc.cl.vec
	tier := ps.cat.tierOf(from.pool)
	allowed := func(col int32) bool { return v.row.has(col) && ps.cat.agree(pins, col, from.col) }
	takes := func(m *plannedMachine) bool {
		return len(m.pods) > 0 && allowed(m.col) && len(ps.cat.pools[m.pool].minValues) == 0 && ps.cat.tierOf(m.pool) == tier && !m.frozen()
	}
	save := func(m *plannedMachine) {
		if _, ok := saved[m]; !ok && saved != nil {
			saved[m] = m.clone()
		}
	}
	for _, m := range ps.machines {
		if !fits(vec, m.free) || !takes(m) {
			continue
		}
		if k := m.room(v, int64(run.n)); k > 0 {
			save(m)
			m.commit(v, run.first, k)
			return k, 0
		}
	}
	var best *plannedMachine
	bestCol, bestCost := int32(-1), budget
	used := ps.scratch[0]
	looked := 0
	for i := len(ps.machines) - 1; i >= 0 && looked < dissolveGrow; i-- {
		m := ps.machines[i]
		if !takes(m) || v.fitBeside(1, m.ports, m.count, true) == 0 {
			continue
		}
		looked++
		price := m.price()
		used = m.used(used)
		order := ps.cat.above(m.pool, price)
		for j := 0; j < len(order) && j < dissolveColumns; j++ {
			col := order[j]
			cc := &ps.cat.cols[col]
			if cc.price-price >= bestCost {
				break
			}
			kd := &ps.cat.kinds[cc.kind]
			if cc.reserve >= 0 || !allowed(col) || !m.pinned(col) || !ps.domains.alike(col, m.col) || !fitsTogether(vec, used, kd.alloc) || !m.portsFit(kd) || !m.mayBe(col) || !ps.ledger.canSwap(m.col, col) {
				continue
			}
			best, bestCol, bestCost = m, col, cc.price-price
			break
		}
	}
	ps.scratch[0] = used
	if best == nil {
		return 0, 0
	}
	save(best)
	ps.move(best, bestCol, best.used(nil))
	k := best.room(v, 1)
	if k > 0 {
		best.commit(v, run.first, k)
	}
	return k, bestCost
}
