package engine

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// maxOfferings is how many ranked offerings a machine carries by default.
const maxOfferings = 60

// byPrice lists the columns of a pool by price.
func (ps *pass) byPrice(pool int32) []int32 {
	if ps.cat.priceOrder == nil {
		ps.cat.priceOrder = make([][]int32, len(ps.cat.pools))
	}
	if ps.cat.priceOrder[pool] == nil {
		p := &ps.cat.pools[pool]
		ord := make([]int32, 0, p.hi-p.lo)
		for i := p.lo; i < p.hi; i++ {
			ord = append(ord, i)
		}
		sort.SliceStable(ord, func(a, b int) bool { return ps.cat.cols[ord[a]].price < ps.cat.cols[ord[b]].price })
		ps.cat.priceOrder[pool] = ord
	}
	return ps.cat.priceOrder[pool]
}

// dearer lists the columns of a pool that cost more than a price, by price.
func (ps *pass) dearer(pool int32, price float64) []int32 {
	ord := ps.byPrice(pool)
	return ord[sort.Search(len(ord), func(i int) bool { return ps.cat.cols[ord[i]].price > price }):]
}

// used is what the pods of a machine take.
func (ps *pass) used(m *mach, buf []int64) []int64 {
	alloc := ps.cat.kinds[m.kind].alloc
	buf = append(buf[:0], alloc...)
	for d := range buf {
		buf[d] -= m.free[d]
	}
	return buf
}

// altRow is the set of columns that every pod of a machine may be on.
func (ps *pass) altRow(m *mach, row bitset) bitset {
	if row == nil {
		row = newBitset(len(ps.cat.cols))
	}
	copy(row, m.pods[0].v.row)
	last := m.pods[0].v.rowID
	for i := 1; i < len(m.pods); i++ {
		if id := m.pods[i].v.rowID; id != last {
			row.and(m.pods[i].v.row)
			last = id
		}
	}
	return row
}

// portsFit says whether the pods' host ports are free of a kind's daemons.
func (ps *pass) portsFit(m *mach, k *kind) bool {
	if len(k.ports) == 0 {
		return true
	}
	for i := range m.pods {
		if conflictAny(m.pods[i].v.pc.cl.pc.HostPorts, k.ports) {
			return false
		}
	}
	return true
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
		used = ps.used(m, used)
		plain := ps.unhindered(m.pool)
		if plain {
			key = ps.patternKey(key[:0], m, used)
			if col, ok := memo[string(key)]; ok {
				ps.move(m, col, used)
				continue
			}
		}
		row = ps.altRow(m, row)
		to := ps.cheapest(m, row, used)
		if plain {
			memo[string(key)] = to
		}
		ps.move(m, to, used)
	}
}

// cheapest is the cheapest column for what is on a machine; its own when there
// is none better.
func (ps *pass) cheapest(m *mach, row bitset, used []int64) int32 {
	for _, col := range ps.byPrice(m.pool) {
		if ps.cat.cols[col].price >= ps.cat.cols[m.col].price {
			break
		}
		if !row.has(col) {
			continue
		}
		k := &ps.cat.kinds[ps.cat.cols[col].kind]
		if !fits(used, k.alloc) || !ps.pinned(m, col) || !ps.portsFit(m, k) {
			continue
		}
		if !ps.swapAllowed(m.col, col) {
			continue
		}
		if ps.way != nil && ps.way.thrifty && ps.thrift(col) > ps.thrift(m.col) {
			continue
		}
		return col
	}
	return m.col
}

// swapAllowed says whether limits allow a machine to change its column.
func (ps *pass) swapAllowed(from, to int32) bool {
	if ps.unhindered(ps.cat.cols[from].pool) {
		return true
	}
	hit := ps.limitHit
	ps.draw(from, -1)
	ok := ps.usable(to)
	ps.draw(from, 1)
	ps.limitHit = hit
	return ok
}

func (ps *pass) move(m *mach, to int32, used []int64) {
	if to == m.col {
		return
	}
	ps.draw(m.col, -1)
	ps.draw(to, 1)
	ps.changed(m)
	m.col = to
	m.kind = ps.cat.cols[to].kind
	alloc := ps.cat.kinds[m.kind].alloc
	m.free = append(m.free[:0], alloc...)
	sub(m.free, used)
}

// patternKey appends a key that is equal for machines that hold the same.
func (ps *pass) patternKey(b []byte, m *mach, used []int64) []byte {
	b = binary.AppendVarint(b, int64(m.col))
	var ids [16]int32
	set := ids[:0]
	for i := range m.pods {
		if id := m.pods[i].v.rowID; !slices.Contains(set, id) {
			set = append(set, id)
		}
	}
	slices.Sort(set)
	for _, id := range set {
		b = binary.AppendVarint(b, int64(id))
	}
	b = binary.AppendVarint(b, -1)
	for _, key := range m.pins {
		b = binary.AppendVarint(b, int64(key))
	}
	b = binary.AppendVarint(b, -2)
	for _, u := range used {
		b = binary.AppendVarint(b, u)
	}
	for i := range m.pods {
		if len(m.pods[i].v.pc.cl.pc.HostPorts) > 0 {
			b = binary.AppendVarint(b, int64(m.pods[i].v.pc.cl.id))
		}
	}
	return b
}

func (ps *pass) cost() float64 {
	z := 0.0
	for _, m := range ps.machines {
		z += ps.cat.cols[m.col].price
	}
	return z
}

// plan writes the answer.
func (ps *pass) plan() *Plan {
	p := &Plan{Version: PlanVersion, CostUSDPerHour: ps.cost()}
	p.QuickCostUSDPerHour = ps.quickCost
	p.Work = ps.work
	if ps.bound != nil {
		p.Bound = ps.bound
		if p.Bound.USDPerHour > 0 {
			p.Bound.Gap = p.CostUSDPerHour/p.Bound.USDPerHour - 1
		}
	}
	ps.layOut(p)
	ps.planMachines(p)
	ps.planNodes(p)
	for _, pc := range ps.classes {
		if pc.used == len(pc.pods) {
			continue
		}
		v := Verdict{Class: pc.cl.id, Pods: pc.pods[pc.used:], Machine: -1}
		if len(pc.cl.pc.Unsupported) > 0 {
			v.Outcome, v.Code = Deferred, ReasonUnsupported
			v.Reason = "uses " + strings.Join(pc.cl.pc.Unsupported, ", ") + ", which another scheduler decides"
		} else {
			v.Outcome = Refused
			v.Code, v.Reason = ps.why(pc)
			v.Relaxed = pc.v.relaxed
		}
		p.Verdicts[pc.verdict] = v
	}
	ps.trace(p)
	return p
}

// layOut makes room for the verdicts, class by class: one for each run of pods
// that went to the same place, and one for those without a place.
func (ps *pass) layOut(p *Plan) {
	for _, pc := range ps.classes {
		pc.verdict = 0
	}
	for _, m := range ps.machines {
		for i := range m.pods {
			m.pods[i].v.pc.verdict++
		}
	}
	for i := range ps.onNode {
		ps.onNode[i].p.v.pc.verdict++
	}
	n := 0
	for _, pc := range ps.classes {
		k := pc.verdict
		pc.verdict = n
		n += k
		if pc.used < len(pc.pods) {
			n++
		}
	}
	p.Verdicts = make([]Verdict, n)
}

func (p *Plan) verdict(pl *placed, v Verdict) {
	v.Class, v.Pods, v.Relaxed = pl.v.pc.cl.id, pl.pods(), pl.v.relaxed
	p.Verdicts[pl.v.pc.verdict] = v
	pl.v.pc.verdict++
}

func (ps *pass) planMachines(p *Plan) {
	var row bitset
	var used []int64
	runs, machines := 0, 0
	for _, m := range ps.machines {
		runs += len(m.pods)
		machines += min(1, len(m.pods))
	}
	p.Machines = make([]Machine, 0, machines)
	groups := make([]PodGroup, 0, runs) // of all machines
	reqs := map[string][]Requirement{}
	lists := map[string][]RankedOffering{}
	var key, own []byte
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		used = ps.used(m, used)
		key = ps.patternKey(key[:0], m, used)
		ranked, ok := lists[string(key)]
		if !ok {
			row = ps.altRow(m, row)
			ranked = ps.rank(m, row, used)
			lists[string(key)] = ranked
		}
		out := Machine{NodePool: ps.cat.pools[m.pool].p.Name, Offerings: ranked, PriceUSDPerHour: ranked[0].PriceUSDPerHour}
		own = ps.requirementsKey(own[:0], m, key)
		if out.Requirements, ok = reqs[string(own)]; !ok {
			out.Requirements = ps.requirements(m, used)
			reqs[string(own)] = out.Requirements
		}
		at := len(groups)
		for i := range m.pods {
			pl := &m.pods[i]
			groups = appendPods(groups, at, pl)
			p.verdict(pl, Verdict{Outcome: OnMachine, Machine: len(p.Machines)})
		}
		out.Pods = groups[at:len(groups):len(groups)]
		out.Requests = ps.requests(used, ps.cat.kinds[m.kind].daemon)
		p.Machines = append(p.Machines, out)
	}
}

func (pl *placed) pods() []string { return pl.v.pc.pods[pl.first : pl.first+pl.n : pl.first+pl.n] }

// appendPods adds a run to the groups from the one numbered at on.
func appendPods(gs []PodGroup, at int, pl *placed) []PodGroup {
	for i := at; i < len(gs); i++ {
		if gs[i].Class == pl.v.pc.cl.id {
			gs[i].Pods = append(gs[i].Pods, pl.pods()...)
			return gs
		}
	}
	return append(gs, PodGroup{Class: pl.v.pc.cl.id, Pods: pl.pods()})
}

func (ps *pass) planNodes(p *Plan) {
	index := map[int32]int{}
	for i := range ps.onNode {
		np := &ps.onNode[i]
		at, ok := index[np.slot]
		if !ok {
			at = len(p.Placements)
			index[np.slot] = at
			p.Placements = append(p.Placements, Placement{Node: ps.c.nodes[np.slot].n.Name})
		}
		p.Placements[at].Pods = appendPods(p.Placements[at].Pods, 0, &np.p)
		p.verdict(&np.p, Verdict{Outcome: OnNode, Node: ps.c.nodes[np.slot].n.Name, Machine: -1})
	}
}

func (ps *pass) requests(used, daemon []int64) Resources {
	r := Resources{}
	for d, u := range used {
		n := u
		if d < len(daemon) {
			n += daemon[d]
		}
		if n > 0 && !strings.HasPrefix(ps.c.dims.names[d], attachPrefix) {
			r[ps.c.dims.names[d]] = n
		}
	}
	return r
}

// rankList is a ranking that machines share.
type rankList struct {
	cols []int32
	list []RankedOffering
}

// rank lists the offerings that hold a machine's pods, its own first, then by
// price. Machines with the same offerings get the same list.
func (ps *pass) rank(m *mach, row bitset, used []int64) []RankedOffering {
	limit := ps.opt.MaxOfferings
	if limit == 0 {
		limit = maxOfferings
	}
	cat := ps.cat
	pool := &cat.pools[m.pool]
	if ps.rankSeen == nil {
		ps.rankSeen = make([]bool, cat.offers+1)
	}
	out := ps.rankCols[:0]
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
		if ps.rankSeen[offer] {
			return // another label variant of the same offering
		}
		ps.rankSeen[offer] = true
		for _, mv := range pool.minValues {
			missing[mv.key][cat.vals[mv.key][col]] = true
		}
		out = append(out, col)
	}
	add(m.col)
	order := ps.byPrice(m.pool)
	plain := ps.unhindered(m.pool)
	if plain {
		// Right-sizing has found that nothing cheaper holds them.
		price := cat.cols[m.col].price
		order = order[sort.Search(len(order), func(i int) bool { return cat.cols[order[i]].price >= price }):]
	}
	scan := func(strict bool) {
		for _, col := range order {
			if limit > 0 && len(out) >= limit && satisfied() {
				break
			}
			if col == m.col || !row.has(col) {
				continue
			}
			cc := &cat.cols[col]
			k := &cat.kinds[cc.kind]
			if !fits(used, k.alloc) || cc.reserve >= 0 || !ps.pinned(m, col) || !ps.portsFit(m, k) {
				continue
			}
			if strict && !plain && (!ps.noMore(m.kind, cc.kind) || !ps.drawable(col)) {
				continue
			}
			add(col)
		}
	}
	scan(true)
	if !plain && !satisfied() {
		// minValues asks for choice, even such as has no quota now.
		scan(false)
	}
	ps.rankCols = out
	hash := uint64(14695981039346656037)
	for _, col := range out {
		ps.rankSeen[cat.cols[col].offer] = false
		hash = (hash ^ uint64(col)) * 1099511628211
	}
	for _, l := range ps.rankLists[hash] {
		if slices.Equal(l.cols, out) {
			return l.list
		}
	}
	list := make([]RankedOffering, len(out))
	for i, col := range out {
		cc := &cat.cols[col]
		list[i] = RankedOffering{InstanceType: cc.typ.Name, Zone: cc.off.Zone, CapacityType: cc.off.CapacityType, ReservationID: cc.off.ReservationID, PriceUSDPerHour: cc.price}
	}
	ps.rankLists[hash] = append(ps.rankLists[hash], rankList{slices.Clone(out), list})
	return list
}

// noMore says whether a kind takes no more of the pool's limits than the one
// that was booked, so that a fallback cannot break a limit.
func (ps *pass) noMore(booked, other int32) bool {
	b, o := &ps.cat.kinds[booked], &ps.cat.kinds[other]
	for _, l := range ps.limits[b.pool] {
		if l.name == ResourceNodes {
			continue
		}
		if extra := o.capacity[l.name] - b.capacity[l.name]; extra > 0 {
			// Room for every machine of the pool to fall back that far?
			if extra > l.left/int64(1+len(ps.machines)) {
				return false
			}
		}
	}
	return true
}

// labelKeys are the labels that the pods of a machine look at or rely on.
func (ps *pass) labelKeys(m *mach) []int32 {
	keys := append(ps.keyBuf[:0], m.pins...)
	for i := range m.pods {
		for _, k := range m.pods[i].v.pc.cl.keys {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	ps.keyBuf = keys
	return keys
}

// requirementsKey appends a key that is equal for machines with the same
// requirements. Labels that are settled tell it all; if there are others, what
// is on the machine (pattern) decides, too.
func (ps *pass) requirementsKey(b []byte, m *mach, pattern []byte) []byte {
	b = binary.AppendVarint(b, int64(m.pool))
	settled := true
	for _, key := range ps.labelKeys(m) {
		if key == ps.c.hostKey {
			continue
		}
		b = binary.AppendVarint(b, int64(key))
		if slices.Contains(m.pins, key) {
			b = binary.AppendVarint(b, int64(ps.cat.vals[key][m.col]))
		} else {
			settled = false
		}
	}
	if !settled {
		b = append(b, pattern...)
	}
	return b
}

// requirements are what the NodeClaim must carry: the pool's own, narrowed for
// the labels that the pods look at to the values the offerings have.
func (ps *pass) requirements(m *mach, used []int64) []Requirement {
	pool := &ps.cat.pools[m.pool]
	var row bitset
	narrowed := map[string]Requirement{}
	var out []Requirement
	for _, key := range ps.labelKeys(m) {
		if key == ps.c.hostKey {
			continue
		}
		seen := map[int32]bool{}
		if slices.Contains(m.pins, key) {
			seen[ps.cat.vals[key][m.col]] = true
		} else {
			if row == nil {
				row = ps.altRow(m, nil)
			}
			for col := row.next(pool.lo, pool.hi); col < pool.hi; col = row.next(col+1, pool.hi) {
				if ps.pinned(m, col) && fits(used, ps.cat.kinds[ps.cat.cols[col].kind].alloc) {
					seen[ps.cat.vals[key][col]] = true
				}
			}
		}
		name := ps.c.sym.tab[key].name
		if seen[valOther] && len(seen) == 1 {
			// Some value, but none that anybody names.
			r := Requirement{Key: name, Operator: NotIn}
			for v := range ps.c.mentioned[key] {
				r.Values = append(r.Values, ps.c.sym.valueName(key, v))
			}
			sort.Strings(r.Values)
			if len(r.Values) > 0 {
				out = append(out, r)
			}
			continue
		}
		if seen[valOther] || (seen[valAbsent] && len(seen) > 1) {
			continue
		}
		if seen[valAbsent] {
			continue
		}
		r := Requirement{Key: name, Operator: In}
		for v := range seen {
			r.Values = append(r.Values, ps.c.sym.valueName(key, v))
		}
		sort.Strings(r.Values)
		narrowed[name] = r
	}
	for _, r := range pool.p.Requirements {
		if n, ok := narrowed[r.Key]; ok {
			if r.MinValues > 0 {
				n.MinValues = r.MinValues
			}
			narrowed[r.Key] = n
			continue
		}
		out = append(out, r)
	}
	for _, k := range sortedKeys(narrowed) {
		out = append(out, narrowed[k])
	}
	return out
}
