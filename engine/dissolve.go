package engine

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// Limits of giving machines up.
const (
	dissolveMachines = 8    // machines tried, the worst filled first
	dissolvePods     = 12   // pods on a machine at most
	dissolveGrow     = 256  // machines looked at for growing, for each pod
	dissolveColumns  = 24   // larger offerings looked at for each of those
	dissolveSlack    = 0.02 // what one machine less may cost, of its price
)

// dissolve gives up machines whose pods find room on the others, or on others
// made larger, for no more money: the worst filled first. What was bought in the
// hope that more pods would come to it goes away with it. Pods stay in their
// domains, so only the rules within a machine have to be heard again.
func (ps *pass) dissolve() {
	if len(ps.machines) < 2 {
		return
	}
	type filled struct {
		m   *mach
		per float64 // value per dollar
	}
	var worst []filled
	for _, m := range ps.machines {
		n, value := 0, 0.0
		for i := range m.pods {
			n += m.pods[i].n
			value += m.pods[i].v.pc.value * float64(m.pods[i].n)
		}
		if n == 0 || n > dissolvePods || ps.frozen(m) || len(ps.cat.pools[m.pool].minValues) > 0 || ps.oneEach(m) {
			continue
		}
		worst = append(worst, filled{m, value / math.Max(ps.cat.cols[m.col].price, 1e-9)})
	}
	slices.SortStableFunc(worst, func(a, b filled) int { return cmp.Compare(a.per, b.per) })
	for i := 0; i < len(worst) && i < dissolveMachines; i++ {
		ps.giveUp(worst[i].m, dissolveSlack)
	}
}

// oneEach says whether a machine holds a pod of a kind that every machine has
// as many of as are allowed: there is no other place for it.
func (ps *pass) oneEach(m *mach) bool {
	for i := range m.pods {
		v := m.pods[i].v
		if v.hostCap != 1 || v.capCtr < 0 {
			continue
		}
		ctr := ps.counters[v.capCtr]
		if ctr.total >= int64(len(ps.machines)) && !slices.ContainsFunc(ps.machines, func(o *mach) bool { return o.count(ctr) == 0 }) {
			return true
		}
	}
	return false
}

// giveUp moves the pods of a machine to others if that costs no more than the
// machine and a part of it.
func (ps *pass) giveUp(m *mach, slack float64) {
	at := slices.Index(ps.machines, m)
	if at < 0 {
		return
	}
	budget := ps.cat.cols[m.col].price * (1 + slack)
	ps.machines = slices.Delete(slices.Clone(ps.machines), at, at+1)
	ps.draw(m.col, -1)
	ps.countAll(m, -1)
	saved := map[*mach]mach{}
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
		// All of it: what the machine had counts again below.
		ps.countAll(o, -1)
		ps.draw(o.col, -1)
	}
	for o, s := range saved {
		*o = s
		ps.draw(o.col, 1)
		ps.countAll(o, 1)
	}
	ps.draw(m.col, 1)
	ps.countAll(m, 1)
	ps.machines = slices.Insert(ps.machines, at, m)
}

// countAll counts (sign 1) or takes out (sign -1) all pods of a machine. The
// machine's own counts are made anew when it counts.
func (ps *pass) countAll(m *mach, sign int32) {
	if sign > 0 {
		m.host = m.host[:0:0]
	}
	for i := range m.pods {
		for _, ctr := range m.pods[i].v.pc.contrib {
			ps.countMachine(ctr, m, sign*int32(m.pods[i].n))
		}
	}
}

// rehouse puts pods of a run that was on a machine onto another one in the same
// domains: where there is room, else where room costs least, within a budget.
// Machines that the improving path leaves alone are left alone here, too.
// It returns how many and what it costs. The machines that it changes are kept in
// saved as they were, unless that is nil.
func (ps *pass) rehouse(from *mach, run placed, budget float64, saved map[*mach]mach) (int64, float64) {
	v := run.v
	pins := ps.pinsOf(v)
	vec := v.pc.cl.vec
	tier := ps.tierOf(from.pool)
	allowed := func(col int32) bool { return v.row.has(col) && ps.agrees(pins, col, from.col) }
	takes := func(m *mach) bool {
		return len(m.pods) > 0 && allowed(m.col) && len(ps.cat.pools[m.pool].minValues) == 0 && ps.tierOf(m.pool) == tier && !ps.frozen(m)
	}
	save := func(m *mach) {
		if _, ok := saved[m]; !ok && saved != nil {
			c := *m
			c.free, c.pods, c.host, c.pins = slices.Clone(m.free), slices.Clone(m.pods), slices.Clone(m.host), slices.Clone(m.pins)
			c.ports, c.shared = slices.Clone(m.ports), slices.Clone(m.shared)
			saved[m] = c
		}
	}
	for _, m := range ps.machines {
		if !fits(vec, m.free) || !takes(m) {
			continue
		}
		if k := ps.roomOn(v, m, int64(run.n)); k > 0 {
			save(m)
			ps.commit(v, m, run.first, k)
			return k, 0
		}
	}
	var best *mach
	bestCol, bestCost := int32(-1), budget
	used := ps.scratch[0]
	looked := 0
	for i := len(ps.machines) - 1; i >= 0 && looked < dissolveGrow; i-- {
		m := ps.machines[i]
		if !takes(m) || len(v.host) > 0 && hostRoom(v, m.count) == 0 || conflictAny(v.pc.cl.pc.HostPorts, m.ports) {
			continue
		}
		looked++
		price := ps.cat.cols[m.col].price
		used = ps.used(m, used)
		order := ps.dearer(m.pool, price)
		for j := 0; j < len(order) && j < dissolveColumns; j++ {
			col := order[j]
			cc := &ps.cat.cols[col]
			if cc.price-price >= bestCost {
				break
			}
			kd := &ps.cat.kinds[cc.kind]
			if cc.reserve >= 0 || !allowed(col) || !ps.pinned(m, col) || !ps.countsAlike(col, m.col) || !fitsTogether(vec, used, kd.alloc) || !ps.portsFit(m, kd) || !m.mayBe(col) || !ps.swapAllowed(m.col, col) {
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
	ps.move(best, bestCol, ps.used(best, nil))
	k := ps.roomOn(v, best, 1)
	if k > 0 {
		ps.commit(v, best, run.first, k)
	}
	return k, bestCost
}

// countsAlike says whether a machine of one column is in the same domains as one
// of another, also those that nothing on it relies on, and is counted there by
// the same counters: elsewhere it might be the first one that a spread counts.
func (ps *pass) countsAlike(a, b int32) bool {
	for _, ctr := range ps.counters {
		if vals := ps.cat.vals[ctr.key]; !ctr.host && vals[a] != vals[b] {
			return false
		}
		if ctr.filter != nil && ctr.colRow.has(a) != ctr.colRow.has(b) {
			return false
		}
	}
	return true
}

// fitsTogether says whether two vectors fit into what is there.
func fitsTogether(a, b, alloc []int64) bool {
	for d, r := range a {
		if d < len(b) {
			r += b[d]
		}
		if r > 0 && (d >= len(alloc) || r > alloc[d]) {
			return false
		}
	}
	return fits(b, alloc)
}
