package engine

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/nap-aks/nap/engine/stock"
)

// The improving path takes what the quick path put on new machines, forgets the
// machines, and buys again: as cutting stock, by package stock. Domains stay as
// the quick path chose them, so topology over zones and the like holds as it
// did; rules within a machine are checked again as pods go onto each new one.

// Limits of the improving path under WorkDefault.
const (
	improveMinPods  = 32  // fewer pods: the quick path is as good
	improveFewItems = 120 // up to here the whole budget is worth its time
	improveMaxItems = 800 // above, or with conflicts: only the quick path
	improveWork     = 600_000
	improveManyWork = 50_000 // for more than a few items
)

// item is demand of the improving path: pods that are alike to the packer and
// must stay in the same domains.
type item struct {
	row  bitset
	vec  []int64
	cap  int64
	ctr  int
	tier int
	pins []pinned // values that must stay
	runs []placed // whose pods
	n    int
}

type pinned struct{ key, val int32 }

// frozen says whether a machine is left as the quick path made it.
func (ps *pass) frozen(m *mach) bool {
	if ps.cat.cols[m.col].reserve >= 0 {
		return true
	}
	for i := range m.pods {
		v := m.pods[i].v
		if len(v.pc.cl.pc.SharedVolumes) > 0 {
			return true
		}
		for j := range v.host {
			if v.host[j].kind == checkAffinity {
				return true
			}
		}
	}
	return false
}

func (ps *pass) tierOf(pool int32) int {
	for i := range ps.cat.tiers {
		if int(pool) < ps.cat.tiers[i].poolHi {
			return i
		}
	}
	return len(ps.cat.tiers)
}

// items gathers the demand of machines.
func (ps *pass) items(ms []*mach) []*item {
	var list []*item
	// What makes pods one item, and what of it depends on the place.
	type place struct {
		tier       int
		keys, vals [4]int32 // the first pins
		more       string   // any others
	}
	type itemKey struct {
		shapeKey
		place
	}
	type runKey struct {
		v *variant
		place
	}
	index := map[itemKey]*item{}
	cache := map[runKey]*item{}
	for _, m := range ms {
		tier := ps.tierOf(m.pool)
		for i := range m.pods {
			pl := m.pods[i]
			v := pl.v
			at := place{tier: tier}
			keys := ps.pinsOf(v)
			for j, key := range keys {
				if val := ps.cat.vals[key]; key == ps.c.hostKey {
					continue
				} else if j < len(at.vals) {
					at.keys[j], at.vals[j] = key+1, val[m.col]
				} else {
					at.more += fmt.Sprint(key, "=", val[m.col], ",")
				}
			}
			it := cache[runKey{v, at}]
			if it == nil {
				key := itemKey{shapeKey{v.rowID, v.pc.cl.vecID, v.hostCap, -1}, at}
				if v.hostCap < noCap {
					key.capCtr = v.capCtr
				}
				if it = index[key]; it == nil {
					it = &item{row: v.row, vec: v.pc.vec, cap: v.hostCap, ctr: key.capCtr, tier: tier}
					for _, key := range keys {
						if key != ps.c.hostKey {
							it.pins = append(it.pins, pinned{key, ps.cat.vals[key][m.col]})
						}
					}
					index[key] = it
					list = append(list, it)
				}
				cache[runKey{v, at}] = it
			}
			it.runs = append(it.runs, pl)
			it.n += pl.n
		}
	}
	return list
}

// problem states the purchase of items for package stock. With free set, the
// items may go to any domain and any pool they are compatible with: the answer
// to that is a lower bound whatever domains are chosen.
func (ps *pass) problem(items []*item, free bool) (*stock.Problem, []int32) {
	cat := ps.cat
	var keys []int32
	if !free {
		for _, it := range items {
			for _, p := range it.pins {
				if !slices.Contains(keys, p.key) {
					keys = append(keys, p.key)
				}
			}
		}
	}
	rows := newBitset(len(cat.cols))
	for _, it := range items {
		rows.or(it.row)
	}
	// Bins: per kind the cheapest column for each combination of pinned values
	// and of items that may use it.
	var bins []int32
	p := &stock.Problem{}
	distinct := distinctRows(items)
	seen := map[string]bool{}
	var sig []byte
	for ki := range cat.kinds {
		k := &cat.kinds[ki]
		clear(seen)
		for col := rows.next(k.lo, k.hi); col < k.hi; col = rows.next(col+1, k.hi) {
			cc := &cat.cols[col]
			if !free && (cc.reserve >= 0 || !ps.usable(col)) {
				continue
			}
			sig = sig[:0]
			for _, key := range keys {
				sig = fmt.Appendf(sig, "%d,", cat.vals[key][col])
			}
			for _, r := range distinct {
				if r.has(col) {
					sig = append(sig, '1')
				} else {
					sig = append(sig, '0')
				}
			}
			if seen[string(sig)] {
				continue // columns of a kind are sorted by price
			}
			seen[string(sig)] = true
			bins = append(bins, col)
			p.Bins = append(p.Bins, stock.Bin{Capacity: k.alloc, Price: math.Max(cc.price, 1e-9)})
		}
	}
	for _, it := range items {
		si := stock.Item{Size: it.vec, Count: it.n}
		if it.cap < noCap {
			si.MaxPerBin = int(it.cap)
		}
		p.Items = append(p.Items, si)
		allowed := make([]uint64, (len(bins)+63)/64)
		for b, col := range bins {
			if !it.row.has(col) {
				continue
			}
			if !free {
				if ps.tierOf(cat.cols[col].pool) != it.tier {
					continue
				}
				ok := true
				for _, pin := range it.pins {
					if cat.vals[pin.key][col] != pin.val {
						ok = false
						break
					}
				}
				if !ok {
					continue
				}
			}
			allowed[b/64] |= 1 << (b % 64)
		}
		p.Allowed = append(p.Allowed, allowed)
	}
	if !free {
		ps.conflicts(p, items)
	}
	return p, bins
}

func distinctRows(items []*item) []bitset {
	var out []bitset
	for _, it := range items {
		if !slices.ContainsFunc(out, func(r bitset) bool { return slices.Equal(r, it.row) }) {
			out = append(out, it.row)
		}
	}
	return out
}

// anyConflict says whether some items share a cap of one pod per machine.
func anyConflict(items []*item) bool {
	seen := map[int]bool{}
	for _, it := range items {
		if it.cap == 1 && it.ctr >= 0 {
			if seen[it.ctr] {
				return true
			}
			seen[it.ctr] = true
		}
	}
	return false
}

// conflicts marks items of which only one pod in all may be on a machine.
func (ps *pass) conflicts(p *stock.Problem, items []*item) {
	words := (len(items) + 63) / 64
	for i, a := range items {
		for j, b := range items {
			if i == j || a.cap != 1 || b.cap != 1 || a.ctr != b.ctr || a.ctr < 0 {
				continue
			}
			if p.Conflict == nil {
				p.Conflict = make([][]uint64, len(items))
				for k := range p.Conflict {
					p.Conflict[k] = make([]uint64, words)
				}
			}
			p.Conflict[i][j/64] |= 1 << (j % 64)
		}
	}
}

// improve buys again what the quick path bought, and proves a bound.
func (ps *pass) improve() {
	var old, keep []*mach
	pods := 0
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		if ps.frozen(m) {
			keep = append(keep, m)
			continue
		}
		old = append(old, m)
		for i := range m.pods {
			pods += m.pods[i].n
		}
	}
	if len(old)+len(keep) == 0 {
		if !ps.opt.SkipBound {
			ps.bound = &Bound{Kind: "resource"}
		}
		return
	}
	all := ps.items(append(slices.Clone(old), keep...))
	work := ps.opt.Work
	if work == WorkDefault {
		switch {
		case pods < improveMinPods || len(all) > improveMaxItems:
			work = WorkQuick
		case len(all) > improveFewItems && anyConflict(all):
			work = WorkQuick
		case len(all) > improveFewItems:
			work = min(improveManyWork, 100*int64(pods))
		default:
			work = min(improveWork, 100*int64(pods))
		}
	}
	same := len(keep) == 0 && len(ps.cat.tiers) == 1 && !slices.ContainsFunc(all, func(it *item) bool { return len(it.pins) > 0 }) && len(ps.quotaLeft) == 0
	for i := range ps.limits {
		same = same && len(ps.limits[i]) == 0
	}
	if work >= 0 && len(old) > 0 {
		items := all
		if len(keep) > 0 {
			items = ps.items(old)
		}
		before := 0.0
		for _, m := range old {
			before += ps.cat.cols[m.col].price
		}
		for _, m := range old {
			ps.draw(m.col, -1)
		}
		prob, bins := ps.problem(items, false)
		for _, m := range old {
			ps.draw(m.col, 1)
		}
		sol := stock.Solve(prob, stock.Options{Work: work})
		ps.work += sol.Work
		if len(sol.Unplaceable) == 0 && sol.Cost < before*(1-1e-9) {
			ps.adopt(items, sol, bins, old, keep)
		}
		if same && len(sol.Unplaceable) == 0 {
			ps.setBound(sol)
		}
	}
	if !ps.opt.SkipBound {
		if ps.bound == nil && work >= 0 && len(all) <= improveFewItems {
			prob, _ := ps.problem(all, true)
			sol := stock.Solve(prob, stock.Options{Work: max(1, work/3)})
			ps.work += sol.Work
			ps.setBound(sol)
		}
		b := ps.resourceBound(all)
		switch {
		case ps.bound == nil:
			ps.bound = b
		case b.Resource > ps.bound.Resource:
			ps.bound.Resource = b.Resource
			ps.bound.USDPerHour = max(ps.bound.Resource, ps.bound.Pattern)
			if ps.bound.Resource > ps.bound.Pattern {
				ps.bound.Kind = "resource"
			}
		}
	}
	if ps.opt.SkipBound {
		ps.bound = nil
	}
}

func (ps *pass) setBound(sol *stock.Solution) {
	ps.bound = &Bound{USDPerHour: sol.Bound, Resource: sol.ResourceBound, Pattern: sol.PatternBound, Kind: "resource"}
	if sol.PatternBound > sol.ResourceBound {
		ps.bound.Kind = "pattern"
	}
}

// adopt carries out a purchase in place of the old machines, if it turns out to
// be cheaper once every rule within a machine has been heard.
func (ps *pass) adopt(items []*item, sol *stock.Solution, bins []int32, old, keep []*mach) {
	before := ps.cost()
	savedMachines := ps.machines
	uncount := func(ms []*mach, sign int32) {
		for _, m := range ms {
			for i := range m.pods {
				for _, ctr := range m.pods[i].v.pc.contrib {
					if sign < 0 || !ctr.host {
						ps.countMachine(ctr, m, sign*int32(m.pods[i].n))
					} else {
						ctr.total += int64(m.pods[i].n)
						m.hostAdd(ctr, int32(m.pods[i].n))
					}
				}
			}
		}
	}
	uncount(old, -1)
	for _, m := range old {
		ps.draw(m.col, -1)
	}
	ps.machines = slices.Clone(keep)
	ok := ps.build(items, sol, bins)
	if ok {
		ps.rightSize()
		ok = ps.cost() < before*(1-1e-9) && !ps.newDomains()
	}
	if ok {
		return
	}
	// Back to what was.
	for _, m := range ps.machines[len(keep):] {
		for i := range m.pods {
			for _, ctr := range m.pods[i].v.pc.contrib {
				ps.countMachine(ctr, m, -int32(m.pods[i].n))
			}
		}
		ps.draw(m.col, -1)
	}
	ps.machines = savedMachines
	for _, m := range old {
		ps.draw(m.col, 1)
	}
	uncount(old, 1)
}

func (m *mach) hostAdd(ctr *counter, n int32) {
	for i := range m.host {
		if m.host[i].ctr == ctr {
			m.host[i].n += n
			return
		}
	}
	m.host = append(m.host, hostCount{ctr, n})
}

// build makes the machines of a solution. It reports whether every pod found a
// place.
func (ps *pass) build(items []*item, sol *stock.Solution, bins []int32) bool {
	queue := make([][]placed, len(items))
	for i, it := range items {
		queue[i] = slices.Clone(it.runs)
	}
	put := func(i int, m *mach, n int) int {
		for q := range queue[i] {
			run := &queue[i][q]
			if n == 0 {
				break
			}
			if run.n == 0 {
				continue
			}
			k := int(ps.roomOn(run.v, m, int64(min(n, run.n))))
			if k == 0 {
				continue
			}
			ps.commit(run.v, m, run.first, int64(k))
			run.first += k
			run.n -= k
			n -= k
		}
		for len(queue[i]) > 0 && queue[i][0].n == 0 {
			queue[i] = queue[i][1:]
		}
		return n
	}
	pats := slices.Clone(sol.Patterns)
	sort.SliceStable(pats, func(a, b int) bool { return bins[pats[a].Bin] < bins[pats[b].Bin] })
	for _, pt := range pats {
		col := bins[pt.Bin]
		for t := 0; t < pt.Times; t++ {
			if !ps.usable(col) {
				break
			}
			m := ps.newMachine(col)
			for q, i := range pt.Items {
				put(i, m, pt.Counts[q])
			}
			if len(m.pods) == 0 {
				ps.drop(m)
			}
		}
	}
	// What rules within machines kept out goes wherever there is room, or onto
	// machines of its own.
	for i, it := range items {
		if len(queue[i]) == 0 {
			continue
		}
		mask := it.row.clone()
		for col := mask.next(0, int32(len(ps.cat.cols))); col < int32(len(ps.cat.cols)); col = mask.next(col+1, int32(len(ps.cat.cols))) {
			for _, pin := range it.pins {
				if ps.cat.vals[pin.key][col] != pin.val {
					mask.clear(col)
					break
				}
			}
		}
		for _, m := range ps.machines {
			if len(queue[i]) == 0 {
				break
			}
			if mask.has(m.col) && !ps.frozen(m) {
				put(i, m, math.MaxInt32)
			}
		}
		for len(queue[i]) > 0 {
			run := queue[i][0]
			col := ps.choose(run.v, &tuple{mask: mask}, int64(run.n))
			if col < 0 {
				return false
			}
			m := ps.newMachine(col)
			put(i, m, math.MaxInt32)
			if len(m.pods) == 0 {
				ps.drop(m)
				return false
			}
		}
	}
	return true
}

// boundGroups is how many groups of items the resource bound tells apart.
const boundGroups = 12

// resourceBound values what the items take at prices at which no machine they
// may be on holds more than it costs. Items that may use the same offerings
// have prices of their own: a pod that must be on-demand is worth more than one
// that may be on spot. A machine that several groups may use is held to the
// highest of their prices in each dimension, and all prices are scaled down
// until none holds more than it costs, so the sum is a bound whatever the
// groups are.
func (ps *pass) resourceBound(items []*item) *Bound {
	nd := len(ps.c.dims.names)
	type group struct {
		rows   bitset
		demand []float64
		w      []float64
	}
	var groups []*group
	index := map[baseKey]*group{}
	most, pods := boundGroups, 0
	for _, it := range items {
		pods += it.n
	}
	if pods < improveMinPods {
		most = 1 // the prices the pass has already are good enough
	}
	for _, it := range items {
		cl := it.runs[0].v.pc.cl
		key := baseKey{cl.affID, cl.tolID, cl.volID, false}
		g := index[key]
		if g == nil {
			if len(groups) < most {
				g = &group{rows: newBitset(len(ps.cat.cols)), demand: make([]float64, nd)}
				groups = append(groups, g)
			} else {
				g = groups[most-1]
			}
			index[key] = g
		}
		g.rows.or(it.row)
		for d, r := range it.vec {
			g.demand[d] += float64(r) * float64(it.n)
		}
	}
	for _, g := range groups {
		if len(groups) == 1 {
			outside := g.rows.clone()
			outside.andNot(ps.piRows)
			if outside.empty() {
				g.w = ps.pi
				break
			}
		}
		g.w = ps.resourcePrices(g.demand, g.rows)
	}
	worst := 1.0
	if len(groups) > 1 {
		for ki := range ps.cat.kinds {
			k := &ps.cat.kinds[ki]
			for col := k.lo; col < k.hi; col++ {
				held := 0.0
				for d := range nd {
					top := 0.0
					for _, g := range groups {
						if g.w[d] > top && g.rows.has(col) {
							top = g.w[d]
						}
					}
					if top > 0 && k.alloc[d] > 0 {
						held += top * math.Min(float64(k.alloc[d]), unlimited)
					}
				}
				worst = math.Max(worst, held/math.Max(ps.cat.cols[col].price, 1e-9))
			}
		}
	}
	sum, one := 0.0, 0.0
	for _, g := range groups {
		own := 0.0
		for d, w := range g.w {
			own += w * g.demand[d]
		}
		sum += own
		one = math.Max(one, own) // any group alone is a bound, too
	}
	sum = math.Max(sum/worst, one) * (1 - 1e-9) // rounding
	return &Bound{USDPerHour: sum, Resource: sum, Kind: "resource"}
}
