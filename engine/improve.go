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
	improveMinPods   = 32   // fewer pods: the quick path is as good
	improveFewPods   = 200  // fewer pods: some 20 milliseconds have to do
	improveFewItems  = 120  // up to here the whole budget is worth its time
	improveMaxItems  = 2000 // above: only the quick path
	improveTrim      = 8    // machines beyond those that are needed anyway, to be given up
	improveWork      = 600_000
	improveBoundWork = 160_000 // for the bound at least
	improveManyWork  = 150_000 // for more than a few items, or rules that keep pods apart, and some for each pod …
	improveMostWork  = 400_000 // … up to this
)

// improvePerPod is the work that some pods are worth: a pass that places few of
// them is over in some 20 milliseconds.
func improvePerPod(pods int) int64 {
	if pods < improveFewPods {
		return 20 * int64(pods)
	}
	return 200 * int64(pods-improveFewPods*9/10)
}

// item is demand of the improving path: pods that are alike to the packer and
// must stay in the same domains.
type item struct {
	row  bitset
	vec  []int64 // with the rules of apart that have a dimension
	cap  int64   // pods of the item that may share a machine
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

// apartRule lets at most cap of the pods that it binds share a machine: those
// that own a term of anti-affinity over the hostname which selects themselves,
// a spread over the hostname, or one host port.
//
// Whatever the order in which such pods come to a machine, the last of them
// sees the others: anti-affinity wants none there, a spread at most maxSkew
// with itself (the least count over hostnames is 0, as everywhere in this
// package). So the number of them on a machine never exceeds cap, the largest
// maxSkew of those who own the spread, and what the rule asks for is what a
// resource asks for of which every machine has cap and each of the pods takes
// one. Pods that a term selects without owning it are not bound: they may come
// later.
type apartRule struct {
	key   apartKey
	cap   int64
	pods  int64 // bound by the rule
	sizes int   // different demands among them
	last  int   // the demand that was counted last, +1
	dim   int   // its dimension, or -1
	own   bool  // kept as a cap of each item
}

// apartKey tells rules apart.
type apartKey struct {
	ctr    int
	spread bool
	port   HostPort
}

// caps are what rules allow on a machine.
func caps(rules []*apartRule) []int64 {
	out := make([]int64, len(rules))
	for d, r := range rules {
		out[d] = r.cap
	}
	return out
}

// apartOf lists the rules that bind the pods of a variant, with what each allows.
func (v *variant) apartOf(each func(apartKey, int64)) {
	for i := range v.host {
		switch k := &v.host[i]; {
		case !k.self:
		case k.kind == checkAnti:
			each(apartKey{ctr: k.ctr.id}, 1)
		case k.kind == checkSpread:
			each(apartKey{ctr: k.ctr.id, spread: true}, k.maxSkew)
		}
	}
	for _, p := range v.pc.cl.pc.HostPorts {
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		each(apartKey{ctr: -1, port: p}, 1)
	}
}

// Limits on rules that keep pods apart.
const (
	apartDims  = 6 // rules that get a dimension of their own
	apartShare = 8 // with many items: rules that need less than this part of the machines are left to build
)

// cell is pods that are alike to every rule.
type cell struct {
	v    *variant
	base int // number of what they ask for, the rules that keep pods apart aside
	tier int
	pins []pinned
	runs []placed
	n    int
}

// items gathers the demand of machines: in the domains and tiers they are in,
// or, with free set, wherever they might be. The second result is how many pods
// of each rule that got a dimension a machine may have.
func (ps *pass) items(ms []*mach, free bool) ([]*item, []int64) {
	// Where they must stay.
	type place struct {
		tier       int
		keys, vals [4]int32 // the first pins
		more       string   // any others
	}
	type demandKey struct {
		row, vec int32
		place
	}
	type runKey struct {
		v *variant
		place
	}
	var cells []*cell
	cache := map[runKey]*cell{}
	bases := map[demandKey]int{}
	for _, m := range ms {
		tier := ps.tierOf(m.pool)
		for i := range m.pods {
			pl := m.pods[i]
			var at place
			var keys []int32
			if !free {
				at.tier, keys = tier, ps.pinsOf(pl.v)
			}
			for j, key := range keys {
				if val := ps.cat.vals[key]; key == ps.c.hostKey {
					continue
				} else if j < len(at.vals) {
					at.keys[j], at.vals[j] = key+1, val[m.col]
				} else {
					at.more += fmt.Sprint(key, "=", val[m.col], ",")
				}
			}
			c := cache[runKey{pl.v, at}]
			if c == nil {
				c = &cell{v: pl.v, tier: tier}
				cache[runKey{pl.v, at}] = c
				cells = append(cells, c)
				for _, key := range keys {
					if key != ps.c.hostKey {
						c.pins = append(c.pins, pinned{key, ps.cat.vals[key][m.col]})
					}
				}
				base := demandKey{pl.v.rowID, pl.v.pc.cl.vecID, at}
				b, ok := bases[base]
				if !ok {
					b = len(bases)
					bases[base] = b
				}
				c.base = b
			}
			c.runs = append(c.runs, pl)
			c.n += pl.n
		}
	}
	list, rules := ps.merge(cells, len(bases), int64(len(ms)))
	return list, caps(rules)
}

// merge makes items of cells: one of those that are alike to the packer once
// rules that bind few of the machines (-1: as many as some rule needs) are left
// out. The second result are the
// rules that have a dimension.
func (ps *pass) merge(cells []*cell, bases int, machines int64) ([]*item, []*apartRule) {
	// The rules, and which of them matter.
	var rules []*apartRule
	index := map[apartKey]int{}
	bound := make([][]int, len(cells))
	for i, c := range cells {
		c.v.apartOf(func(key apartKey, most int64) {
			r, ok := index[key]
			if !ok {
				r = len(rules)
				index[key] = r
				rules = append(rules, &apartRule{key: key, cap: most, dim: -1})
			}
			rule := rules[r]
			rule.cap = max(rule.cap, most)
			rule.pods += int64(c.n)
			if rule.last != c.base+1 {
				rule.sizes++
				rule.last = c.base + 1
			}
			bound[i] = append(bound[i], r)
		})
	}
	var dims []*apartRule
	order := make([]int, len(rules))
	for r := range order {
		order[r] = r
	}
	need := func(r int) int64 { return (rules[r].pods + rules[r].cap - 1) / rules[r].cap }
	sort.SliceStable(order, func(a, b int) bool { return need(order[a]) > need(order[b]) })
	few := bases+len(rules) <= improveFewItems
	if machines < 0 && len(order) > 0 {
		machines = need(order[0])
	}
	for _, r := range order {
		rule := rules[r]
		switch {
		case need(r)*apartShare < machines && (!few || rule.sizes > 1):
		case rule.sizes > 1 && len(dims) < apartDims:
			rule.dim = len(dims)
			dims = append(dims, rule)
		default:
			rule.own = true
		}
	}
	// Items: alike to the packer with the rules that are left.
	var list []*item
	nd := len(ps.c.dims.names)
	type itemKey struct {
		base  int
		rules string
	}
	at := map[itemKey]*item{}
	buf := make([]byte, 0, 64)
	for i, c := range cells {
		buf = buf[:0]
		most := int64(noCap)
		var extra []int
		for _, r := range bound[i] {
			switch rule := rules[r]; {
			case rule.dim >= 0:
				buf = fmt.Appendf(buf, "/d%d", rule.dim)
				extra = append(extra, rule.dim)
			case rule.own:
				buf = fmt.Appendf(buf, "/r%d", r)
				most = min(most, rule.cap)
			}
		}
		key := itemKey{c.base, string(buf)}
		it := at[key]
		if it == nil {
			it = &item{row: c.v.row, vec: c.v.pc.vec, cap: most, tier: c.tier, pins: c.pins}
			if len(extra) > 0 {
				it.vec = make([]int64, nd+len(dims))
				copy(it.vec, c.v.pc.vec)
				for _, d := range extra {
					it.vec[nd+d] = 1
				}
			}
			at[key] = it
			list = append(list, it)
		}
		it.runs = append(it.runs, c.runs...)
		it.n += c.n
	}
	return list, dims
}

// problem states the purchase of items for package stock. With free set, the
// items may go to any domain and any pool they are compatible with: the answer
// to that is a lower bound whatever domains are chosen.
func (ps *pass) problem(items []*item, apart []int64, free bool) (*stock.Problem, []int32) {
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
		room := k.alloc
		if len(apart) > 0 {
			room = append(slices.Clip(room), apart...)
		}
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
			p.Bins = append(p.Bins, stock.Bin{Capacity: room, Price: math.Max(cc.price, 1e-9)})
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

// improve buys again what the quick path bought, and proves a bound.
func (ps *pass) improve() {
	if ps.opt.Work == WorkQuick && ps.opt.SkipBound {
		return
	}
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
			ps.bound = &CostBound{Kind: "resource"}
		}
		return
	}
	every := append(slices.Clone(old), keep...)
	all, apart := ps.items(every, false)
	work := ps.opt.Work
	if work == WorkDefault {
		switch {
		case pods < improveMinPods || len(all) > improveMaxItems:
			work = WorkQuick
		case len(all) > improveFewItems || len(apart) > 0:
			work = min(improveManyWork+3*int64(pods), improveMostWork, improvePerPod(pods))
		default:
			work = min(improveWork, improvePerPod(pods))
		}
	}
	same := len(keep) == 0 && len(ps.cat.tiers) == 1 && !slices.ContainsFunc(all, func(it *item) bool { return len(it.pins) > 0 }) && len(ps.quotaLeft) == 0 && len(ps.resLeft) == 0
	for i := range ps.limits {
		same = same && len(ps.limits[i]) == 0
	}
	// The relaxed problem, in which pods may go to any domain, proves the bound;
	// and its fillings, put into the domains, are what the purchase begins with.
	var relaxed *relaxation
	if work >= 0 && !same && (!ps.opt.SkipBound || len(apart) > 0) {
		most := max(1, work/3)
		switch {
		case ps.opt.Work != WorkDefault:
		case pods < improveFewPods:
			most = stock.WorkQuick
		default:
			most = max(most, min(improveBoundWork, improvePerPod(pods)))
		}
		relaxed = ps.relax(every, most)
		ps.setBound(relaxed.sol)
	}
	if work >= 0 && len(old) > 0 {
		items := all
		if len(keep) > 0 {
			items, apart = ps.items(old, false)
		}
		before := 0.0
		for _, m := range old {
			before += ps.cat.cols[m.col].price
		}
		for _, m := range old {
			ps.draw(m.col, -1)
		}
		prob, bins := ps.problem(items, apart, false)
		for _, m := range old {
			ps.draw(m.col, 1)
		}
		o := stock.Options{Work: work, Aim: stock.AimCost}
		if same && !ps.opt.SkipBound {
			o.Aim = stock.AimBoth
		}
		if relaxed != nil && len(apart) > 0 {
			o.Seeds = relaxed.seeds(ps, prob, items, bins)
		}
		sol := stock.Solve(prob, o)
		ps.work += sol.Work
		if len(sol.Unplaceable) == 0 && sol.Cost < before*(1-1e-9) {
			ps.adopt(items, sol, bins, old, keep)
		}
		if same && len(sol.Unplaceable) == 0 {
			ps.setBound(sol)
		}
	}
	if !ps.opt.SkipBound {
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
		return
	}
	for _, it := range all {
		ps.bound.Pods += it.n
	}
}

// relaxation is the purchase without domains, tiers and limits, and its answer.
type relaxation struct {
	items []*item
	bins  []int32
	sol   *stock.Solution
}

func (ps *pass) relax(ms []*mach, work int64) *relaxation {
	r := &relaxation{}
	items, apart := ps.items(ms, true)
	prob, bins := ps.problem(items, apart, true)
	r.items, r.bins = items, bins
	r.sol = stock.Solve(prob, stock.Options{Work: work, Aim: stock.AimBound, Columns: true})
	ps.work += r.sol.Work
	return r
}

// seeds are the fillings of a relaxation in terms of a purchase: in each domain
// with the items that are there.
func (r *relaxation) seeds(ps *pass, prob *stock.Problem, items []*item, bins []int32) []stock.Pattern {
	of := map[*variant]int{}
	for f, it := range r.items {
		for i := range it.runs {
			of[it.runs[i].v] = f
		}
	}
	here := make([][]int, len(r.items))
	for i, it := range items {
		f := of[it.runs[0].v]
		here[f] = append(here[f], i)
	}
	byKind := map[int32][]int{}
	for b, col := range bins {
		ki := ps.cat.cols[col].kind
		byKind[ki] = append(byKind[ki], b)
	}
	var out []stock.Pattern
	for _, c := range r.sol.Columns {
		for _, b := range byKind[ps.cat.cols[r.bins[c.Bin]].kind] {
			p := stock.Pattern{Bin: b, Times: 1}
			for q, f := range c.Items {
				n := c.Counts[q]
				for _, i := range here[f] {
					if k := min(n, items[i].n); k > 0 && prob.Allowed[i][b/64]&(1<<(b%64)) != 0 {
						p.Items, p.Counts = append(p.Items, i), append(p.Counts, k)
						n -= k
					}
				}
			}
			if len(p.Items) > 0 {
				out = append(out, p)
			}
		}
	}
	return out
}

func (ps *pass) setBound(sol *stock.Solution) {
	ps.bound = &CostBound{USDPerHour: sol.Bound, Resource: sol.ResourceBound, Pattern: sol.PatternBound, Kind: "resource"}
	if sol.PatternBound > sol.ResourceBound {
		ps.bound.Kind = "pattern"
	}
}

// adopt carries out a purchase in place of the old machines, if it turns out to
// be cheaper once every rule within a machine has been heard.
func (ps *pass) adopt(items []*item, sol *stock.Solution, bins []int32, old, keep []*mach) {
	before := ps.cost()
	savedMachines := ps.machines
	for _, m := range old {
		ps.countAll(m, -1)
		ps.draw(m.col, -1)
	}
	ps.machines = slices.Clone(keep)
	ok := ps.build(items, sol, bins)
	if ok {
		ps.rightSize()
		ps.dissolve()
		ps.trim()
		ok = ps.cost() < before*(1-1e-9) && !ps.newDomains()
	}
	if ok {
		return
	}
	// Back to what was.
	for _, m := range ps.machines[len(keep):] {
		ps.countAll(m, -1)
		ps.draw(m.col, -1)
	}
	ps.machines = savedMachines
	for _, m := range old {
		ps.draw(m.col, 1)
		ps.countAll(m, 1)
	}
}

// trim gives up the machines that are more than pods which each want one of their
// own ask for, if they are few: what they save is little, and fewer machines are
// worth that.
func (ps *pass) trim() {
	var most *counter
	for _, m := range ps.machines {
		for i := range m.pods {
			if v := m.pods[i].v; v.hostCap == 1 && v.capCtr >= 0 {
				if ctr := ps.counters[v.capCtr]; most == nil || ctr.total > most.total {
					most = ctr
				}
			}
		}
	}
	if most == nil || int64(len(ps.machines)) > most.total+improveTrim {
		return
	}
	for _, m := range slices.Clone(ps.machines) {
		if len(m.pods) > 0 && m.count(most) == 0 && !ps.frozen(m) {
			ps.giveUp(m, 1)
		}
	}
}

// strictness orders pods that come to one machine: first those whose rules look
// at the others there and at themselves, then those that look at others only,
// then those that nobody need make room for.
func (v *variant) strictness() int {
	rank := free
	for i := range v.host {
		if v.host[i].self {
			return 0
		}
		rank = 1
	}
	if len(v.pc.cl.pc.HostPorts) > 0 {
		return 0
	}
	return rank
}

// Ranks of strictness.
const (
	free        = 2 // no rule looks at who else is on the machine
	strictRanks = 3
)

// strictQueues is what is left of an item, by strictness.
type strictQueues [strictRanks][]placed

// build makes the machines of a solution. It reports whether every pod found a
// place.
func (ps *pass) build(items []*item, sol *stock.Solution, bins []int32) bool {
	queue := make([]strictQueues, len(items))
	left := make([][strictRanks]int, len(items))
	for i, it := range items {
		for _, run := range it.runs {
			k := run.v.strictness()
			queue[i][k] = append(queue[i][k], run)
			left[i][k] += run.n
		}
	}
	// put places up to n pods of an item and returns how many are left of n.
	put := func(i, rank int, m *mach, n int) int {
		list := queue[i][rank]
		for q := range list {
			run := &list[q]
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
		for len(list) > 0 && list[0].n == 0 {
			list = list[1:]
		}
		queue[i][rank] = list
		return n
	}
	pats := slices.Clone(sol.Patterns)
	sort.SliceStable(pats, func(a, b int) bool { return bins[pats[a].Bin] < bins[pats[b].Bin] })
	var want []int
	for _, pt := range pats {
		col := bins[pt.Bin]
		for t := 0; t < pt.Times; t++ {
			if !ps.usable(col) {
				break
			}
			m := ps.newMachine(col)
			want = append(want[:0], pt.Counts...)
			for rank := range strictRanks {
				for q, i := range pt.Items {
					// Pods that rules keep out of some machines are spread over all
					// machines of the item, so that they seldom meet.
					n, some := want[q], left[i][rank]
					if rank < free {
						all := 0
						for _, x := range left[i] {
							all += x
						}
						n = min(n, (pt.Counts[q]*some+all-1)/max(all, 1))
					}
					if n > 0 && some > 0 {
						rest := put(i, rank, m, n)
						want[q] -= n - rest
						left[i][rank] -= n - rest
					}
				}
			}
			if len(m.pods) == 0 {
				ps.drop(m)
			}
		}
	}
	// What rules within machines kept out takes the place of pods that nothing
	// keeps out elsewhere, or goes wherever there is room, or onto machines of its
	// own.
	for i, it := range items {
		for rank := range free {
			ps.swap(it, &queue[i], rank)
		}
	}
	for _, rank := range [strictRanks]int{free, 0, 1} {
		for i, it := range items {
			if len(queue[i][rank]) == 0 {
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
				if len(queue[i][rank]) == 0 {
					break
				}
				if mask.has(m.col) && !ps.frozen(m) {
					put(i, rank, m, math.MaxInt32)
				}
			}
			for len(queue[i][rank]) > 0 {
				run := queue[i][rank][0]
				if run.n == 0 { // placed while an earlier one could not be
					queue[i][rank] = queue[i][rank][1:]
					continue
				}
				if alone := ps.cheapestOf(mask); alone >= 0 {
					// Onto one made larger, if that is less than one of its own.
					like := &mach{col: alone, pool: ps.cat.cols[alone].pool}
					if k, _ := ps.rehouse(like, run, ps.cat.cols[alone].price, nil); k > 0 {
						if run.n -= int(k); run.n == 0 {
							queue[i][rank] = queue[i][rank][1:]
						} else {
							run.first += int(k)
							queue[i][rank][0] = run
						}
						continue
					}
				}
				col := ps.choose(run.v, &tuple{mask: mask}, int64(run.n))
				if col < 0 {
					return false
				}
				m := ps.newMachine(col)
				put(i, rank, m, math.MaxInt32)
				if len(m.pods) == 0 {
					ps.drop(m)
					return false
				}
			}
		}
	}
	return true
}

// cheapestOf is the cheapest column in a mask that can be bought now, or -1.
func (ps *pass) cheapestOf(mask bitset) int32 {
	best := int32(-1)
	n := int32(len(ps.cat.cols))
	for col := mask.next(0, n); col < n; col = mask.next(col+1, n) {
		if (best < 0 || ps.cat.cols[col].price < ps.cat.cols[best].price) && ps.usable(col) {
			best = col
		}
	}
	return best
}

// swap finds places for the pods of an item in a queue where pods of the same
// item are that no rule keeps out anywhere: these go into the last queue, for
// the room that was meant for the others.
func (ps *pass) swap(it *item, queue *strictQueues, rank int) {
	list := queue[rank]
	if len(list) == 0 {
		return
	}
	for q := range list {
		run := &list[q]
		vec := run.v.pc.vec
	machines:
		for _, m := range ps.machines {
			if run.n == 0 {
				break
			}
			if !it.row.has(m.col) || ps.frozen(m) || ps.tierOf(m.pool) != it.tier {
				continue
			}
			for _, pin := range it.pins {
				if ps.cat.vals[pin.key][m.col] != pin.val {
					continue machines
				}
			}
			for j := range m.pods {
				out := &m.pods[j]
				if out.n == 0 || out.v.strictness() != free || out.v.rowID != run.v.rowID || !slices.Equal(out.v.pc.vec, vec) || !ps.samePins(out.v, run.v) {
					continue
				}
				ps.shift(m, j, 1)
				if ps.roomOn(run.v, m, 1) == 0 {
					ps.shift(m, j, -1)
					continue machines
				}
				queue[free] = append(queue[free], placed{out.v, out.first + out.n, 1})
				ps.commit(run.v, m, run.first, 1)
				run.first++
				run.n--
				break
			}
		}
	}
	queue[rank] = slices.DeleteFunc(list, func(p placed) bool { return p.n == 0 })
	for _, m := range ps.machines {
		m.pods = slices.DeleteFunc(m.pods, func(p placed) bool { return p.n == 0 })
	}
}

// samePins says whether two variants rely on the same labels.
func (ps *pass) samePins(a, b *variant) bool {
	return a == b || slices.Equal(ps.pinsOf(a), ps.pinsOf(b))
}

// shift takes the last pod of a run of unrestricted pods off a machine, or with
// sign -1 puts it there again.
func (ps *pass) shift(m *mach, j int, sign int) {
	p := &m.pods[j]
	p.n -= sign
	for d, r := range p.v.pc.vec {
		m.free[d] += r * int64(sign)
	}
	for _, ctr := range p.v.pc.contrib {
		ps.countMachine(ctr, m, int32(-sign))
	}
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
func (ps *pass) resourceBound(items []*item) *CostBound {
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
		for d, r := range it.vec[:min(nd, len(it.vec))] {
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
	return &CostBound{USDPerHour: sum, Resource: sum, Kind: "resource"}
}
