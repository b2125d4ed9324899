package engine

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sort"
	"strings"
)

// Place decides where the pending pods of a snapshot go and which machines to
// create for them. The error says what is inconsistent in the snapshot; a pod
// without a place is not an error but a verdict.
func Place(s *Snapshot, o Options) (*Plan, error) {
	c, err := Compile(s)
	if err != nil {
		return nil, err
	}
	return c.Place(s.Pending, o)
}

// Place decides where pending pods go. The Cluster is left as it was.
func (c *Cluster) Place(pending []PodGroup, o Options) (*Plan, error) {
	ps, err := c.newPass(pending, o)
	if err != nil {
		return nil, err
	}
	defer ps.end()
	ps.decide()
	if ps.overdrawn() {
		// Most of the time no quota is near; when one is, it is heeded from the start.
		ps.heedQuotas = true
		ps.way, ps.extra, ps.byPriority, ps.bound = nil, nil, false, nil
		ps.restart()
		ps.decide()
	}
	return ps.plan(), nil
}

// overdrawn says whether the machines draw more than is left of a quota, and
// notes what they leave.
func (ps *pass) overdrawn() bool {
	if ps.heedQuotas || len(ps.c.quotas) == 0 {
		return false
	}
	left := make([]int64, len(ps.c.quotas))
	for i := range left {
		left[i] = ps.c.quotas[i].Remaining
	}
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		for _, q := range ps.cat.cols[m.col].off.Charges {
			left[q.Quota] -= q.Amount
		}
	}
	ps.quotaNote = left
	return slices.ContainsFunc(left, func(n int64) bool { return n < 0 })
}

// decide places the pods and buys.
func (ps *pass) decide() {
	ps.solve()
	if ps.scarce() {
		// Limits or quotas refused pods: start over, the important ones first.
		ps.restart()
		ps.byPriority = true
		ps.solve()
	}
	if ps.left() > 0 || ps.unsound {
		ps.rescue()
	}
	ps.quickCost = ps.cost()
	ps.improve()
	if before := ps.cost(); ps.limitHit && ps.left() > 0 {
		// What the better purchase leaves of the limits may serve the rest, and what
		// smaller machines leave then, too.
		for range 8 {
			was := ps.left()
			ps.rightSize()
			ps.run()
			if ps.left() == was {
				break
			}
		}
		ps.rightSize()
		ps.quickCost += max(0, ps.cost()-before)
		if ps.newDomains() {
			// It does, but at the price of a spread: as before, then.
			ps.begin(ps.way)
			ps.quickCost = ps.cost()
			ps.improve()
		}
	}
}

// solve runs the quick path to its end.
func (ps *pass) solve() {
	ps.unsound = false
	for i := 0; ; i++ {
		ps.run()
		ps.rightSize()
		for j := 0; j < 8 && ps.limitHit && ps.left() > 0; j++ {
			// Smaller machines leave more of the limits: try the rest again.
			before := ps.left()
			ps.run()
			if ps.left() == before {
				break
			}
			ps.rightSize()
		}
		if !ps.newDomains() {
			break
		}
		if i == 4 {
			ps.unsound = true
			break
		}
		ps.restart()
	}
	if ps.left() > 0 && ps.forgetDomains() {
		ps.run()
		ps.rightSize()
		ps.unsound = ps.newDomains()
	}
	ps.dissolve()
}

// forgetDomains drops remembered domains in which nothing was opened this time,
// and reports whether there were any.
func (ps *pass) forgetDomains() bool {
	found := false
	for _, ctr := range ps.counters {
		for val := range ps.extra[ctr.ck] {
			if !ps.hasNodeIn(ctr, val) {
				delete(ps.extra[ctr.ck], val)
				found = true
			}
		}
	}
	if found {
		for _, pc := range ps.classes {
			if pc.used < len(pc.pods) {
				ps.setLevel(pc, pc.level)
			}
		}
	}
	return found
}

// pass is the state of one call of Place.
type pass struct {
	c   *Cluster
	cat *catalog
	opt Options

	classes      []*passClass
	counters     []*counter
	counterIndex map[counterKey]*counter

	machines   []*mach
	touched    map[int32]*savedNode
	onNode     []nodePlaced
	limits     [][]limitLeft // per catalogue pool
	heedQuotas bool          // a plan without regard to them would draw too much
	quotaLeft  []int64       // empty unless they are heeded
	quotaNote  []int64       // what a plan that did not heed them leaves
	resLeft    []int64
	byPriority bool
	way        *way // nil: the usual one
	unsound    bool // a spread does not hold: machines brought a domain that it did not reckon with
	limitHit   bool

	dimOrder  []int     // all dimensions by name
	pi        []float64 // value of a unit of each dimension, $/h
	piRows    bitset    // the columns it is proven for
	kindOrder []int32   // kinds by the most value they can hold per dollar
	kindBest  []float64 // that bound, per kind
	shapes    []*shape  // most valuable first
	waiting   []*shape  // scratch of chooseIn
	sizes     []sizeRun
	choices   int     // calls of chooseIn
	alike     []int32 // per kind, see alikeKinds
	shapeKey  map[shapeKey]*shape
	strictAny bool
	scratch   [2][]int64
	quickCost float64
	bound     *CostBound
	work      int64
	keyBuf    []int32 // scratch of labelKeys
	rankCols  []int32 // scratch of rank
	rankSeen  []bool  // offerings that rank has taken
	rankLists map[uint64][]rankList
	universes map[universeKey][]int32
	places    map[placeKey]int // indices of placeAt, see resume
	placeAt   []pausedAt
	movedAt   int // first machine moved while a class is placed
	// extra are domains that came into being in an earlier run of the pass.
	extra map[counterKey]map[int32]bool
}

type limitLeft struct {
	name string
	left int64
}

// mach is a machine to create.
type mach struct {
	col    int32
	kind   int32
	pool   int32
	free   []int64
	pods   []placed
	host   []hostCount
	pins   []int32 // keys whose value some counter relies on
	ports  []HostPort
	shared []SharedVolume

	at      int      // its place among the machines when it was opened
	pinRoom [4]int32 // for the first few of pins
}

type hostCount struct {
	ctr *counter
	n   int32
}

// placed is a run of a class's pods.
type placed struct {
	v     *variant
	first int
	n     int
}

type nodePlaced struct {
	slot int32
	p    placed
}

type savedNode struct {
	free   []int64
	ports  []HostPort
	shared map[string]int
}

// shape is classes that are alike to the packer: same columns, same size, same
// cap per machine.
type shape struct {
	id     int
	size   int // equal for neighbours that ask for the same amounts
	row    bitset
	rowID  int32
	vec    []int64
	value  float64
	cap    int64
	capCtr int
	count  int64 // pods in the pass
	look   int64 // pods not promised to an opened machine yet
}

// shapeKey is equal for classes of one shape.
type shapeKey struct {
	row, vec int32
	cap      int64
	capCtr   int
}

func (c *Cluster) newPass(pending []PodGroup, o Options) (*pass, error) {
	ps := &pass{c: c, cat: c.catalog(), opt: o,
		counterIndex: map[counterKey]*counter{}, touched: map[int32]*savedNode{},
		shapeKey: map[shapeKey]*shape{}, rankLists: map[uint64][]rankList{}, universes: map[universeKey][]int32{}, places: map[placeKey]int{}}
	var slab []passClass
	for i := range pending {
		g := &pending[i]
		if err := c.checkClass(g.Class); err != nil {
			ps.end()
			return nil, fmt.Errorf("pending group %d: %w", i, err)
		}
		if len(g.Pods) == 0 {
			continue
		}
		cl := c.classes[g.Class]
		pc := cl.pending
		if pc == nil {
			if len(slab) == 0 {
				slab = make([]passClass, min(len(pending)-i, 64))
			}
			pc, slab = &slab[0], slab[1:]
			pc.cl = cl
			pc.vec = pc.cl.vec
			pc.contrib, pc.pinKeys = pc.contribRoom[:0], pc.pinRoom[:0]
			cl.pending = pc
			ps.classes = append(ps.classes, pc)
			pc.pods = g.Pods
		} else {
			pc.pods = append(slices.Clip(pc.pods), g.Pods...)
		}
	}
	for i := range ps.cat.pools {
		for _, t := range ps.cat.pools[i].p.Taints {
			ps.strictAny = ps.strictAny || t.Effect == PreferNoSchedule
		}
	}
	for _, nd := range c.nodes {
		if nd != nil {
			for _, t := range nd.taints {
				ps.strictAny = ps.strictAny || t.Effect == PreferNoSchedule
			}
		}
	}
	ps.setupCounters()
	ps.resetAmounts()
	for _, pc := range ps.classes {
		ps.buildLadder(pc)
		ps.setLevel(pc, 0)
	}
	ps.prices()
	return ps, nil
}

// resetAmounts sets what limits, quotas and reservations leave.
func (ps *pass) resetAmounts() {
	ps.limits = make([][]limitLeft, len(ps.cat.pools))
	for i := range ps.cat.pools {
		p := ps.cat.pools[i].p
		for _, name := range ps.cat.pools[i].limits {
			ps.limits[i] = append(ps.limits[i], limitLeft{name, p.Limits[name] - p.Usage[name]})
		}
	}
	ps.quotaLeft = ps.quotaLeft[:0]
	if ps.heedQuotas {
		for i := range ps.c.quotas {
			ps.quotaLeft = append(ps.quotaLeft, ps.c.quotas[i].Remaining)
		}
	}
	ps.resLeft = append(ps.resLeft[:0], ps.cat.resLeft...)
}

func (ps *pass) setupCounters() {
	c := ps.c
	soft := ps.opt.Preferences != PreferencesIgnore
	for _, pc := range ps.classes {
		cl := pc.cl
		for i := range cl.pc.Spread {
			if !cl.pc.Spread[i].Soft || soft {
				ps.spreadCounter(cl, i)
			}
		}
		ps.affinityCounters(cl, nil)
		for i := range cl.pc.PodAffinity {
			if cl.pc.PodAffinity[i].Weight > 0 && soft {
				ps.affinityCounter(cl, i)
			}
		}
		for i := range cl.pc.PodAntiAffinity {
			if t := &cl.pc.PodAntiAffinity[i]; t.Weight == 0 || soft {
				ps.antiCounter(cl, i)
			}
		}
	}
	for _, id := range c.antiClasses {
		owner := c.classes[id]
		if owner.total == 0 && owner.pending == nil {
			continue
		}
		for i, m := range owner.anti {
			m.update(c)
			for _, other := range m.matched {
				if c.classes[other].pending != nil {
					ps.counterFor(owner.antiKeys[i], m, true, nil, false, false)
					break
				}
			}
		}
	}
	for _, ctr := range ps.counters {
		note := func(pc *passClass) {
			pc.contrib = append(pc.contrib, ctr)
			if !ctr.host && !slices.Contains(pc.pinKeys, ctr.key) {
				pc.pinKeys = append(pc.pinKeys, ctr.key)
			}
			if ctr.filter != nil && ctr.filter != pc.cl && ctr.filter.affID != pc.cl.affID {
				// Whether the pod is counted depends on these labels, too.
				for _, k := range ctr.filter.affKeys() {
					if k != c.hostKey && !slices.Contains(pc.pinKeys, k) {
						pc.pinKeys = append(pc.pinKeys, k)
					}
				}
			}
		}
		if ctr.inverse {
			for _, pc := range ps.classes {
				if pc.cl.ownsAnti(ctr.key, ctr.m) {
					note(pc)
				}
			}
			continue
		}
		for _, id := range ctr.m.matched {
			if pc := c.classes[id].pending; pc != nil {
				note(pc)
			}
		}
	}
}

func (ps *pass) spreadCounter(cl *class, i int) *counter {
	s := &cl.pc.Spread[i]
	return ps.counterFor(ps.c.sym.key(s.Key), ps.c.spreadMatcher(cl, i), false, cl, s.NodeAffinityPolicy != Ignore, s.NodeTaintsPolicy == Honor)
}

func (ps *pass) affinityCounter(cl *class, i int) *counter {
	m := ps.c.termMatcher(cl, cl.pc.PodAffinity, &cl.affM, i)
	return ps.counterFor(ps.c.sym.key(cl.pc.PodAffinity[i].Key), m, false, nil, false, false)
}

func (ps *pass) antiCounter(cl *class, i int) *counter {
	m := ps.c.termMatcher(cl, cl.pc.PodAntiAffinity, &cl.antiM, i)
	return ps.counterFor(ps.c.sym.key(cl.pc.PodAntiAffinity[i].Key), m, false, nil, false, false)
}

// affinityCounters returns the counters of the required pod affinity terms. A
// pod counts for them only if it satisfies all terms' selectors, as in the
// kube-scheduler.
func (ps *pass) affinityCounters(cl *class, each func(*AffinityTerm, *counter)) {
	if cl.followM == nil {
		var sels []nsSelector
		for i := range cl.pc.PodAffinity {
			if t := &cl.pc.PodAffinity[i]; t.Weight == 0 {
				sels = append(sels, ps.c.termSelector(t, cl.pc.Namespace))
			}
		}
		if len(sels) == 0 {
			return
		}
		cl.followM = ps.c.matcher(sels)
	}
	for i := range cl.pc.PodAffinity {
		if t := &cl.pc.PodAffinity[i]; t.Weight == 0 {
			ctr := ps.counterFor(ps.c.sym.key(t.Key), cl.followM, false, nil, false, false)
			if each != nil {
				each(t, ctr)
			}
		}
	}
}

// buildLadder lists the preferences of a class in the order they are given up.
func (ps *pass) buildLadder(pc *passClass) {
	cl := pc.cl
	if ps.opt.Preferences == PreferencesIgnore {
		return
	}
	type weighted struct {
		w int32
		d drop
	}
	var ws []weighted
	for i := range cl.pc.PodAffinity {
		if t := cl.pc.PodAffinity[i]; t.Weight > 0 {
			ws = append(ws, weighted{t.Weight, drop{fmt.Sprintf("preferred pod affinity over %s (weight %d)", t.Key, t.Weight),
				func(s *prefState) { s.aff = without(s.aff, i) }}})
		}
	}
	for i := range cl.pc.PodAntiAffinity {
		if t := cl.pc.PodAntiAffinity[i]; t.Weight > 0 {
			ws = append(ws, weighted{t.Weight, drop{fmt.Sprintf("preferred pod anti-affinity over %s (weight %d)", t.Key, t.Weight),
				func(s *prefState) { s.anti = without(s.anti, i) }}})
		}
	}
	sort.SliceStable(ws, func(i, j int) bool { return ws[i].w < ws[j].w })
	for _, w := range ws {
		pc.ladder = append(pc.ladder, w.d)
	}
	for i := range cl.sortedPrefs() {
		t := cl.pref[cl.sortedPrefs()[i]]
		pc.ladder = append(pc.ladder, drop{fmt.Sprintf("preferred node affinity (weight %d)", t.weight), func(s *prefState) { s.node = i + 1 }})
	}
	for i := range cl.pc.Spread {
		if s := cl.pc.Spread[i]; s.Soft {
			pc.ladder = append(pc.ladder, drop{fmt.Sprintf("spread over %s (ScheduleAnyway)", s.Key), func(p *prefState) { p.spread = without(p.spread, i) }})
		}
	}
	if ps.strictAny {
		pc.ladder = append(pc.ladder, drop{"PreferNoSchedule taints", func(s *prefState) { s.taints = false }})
	}
}

// sortedPrefs are the preferred node affinity terms, heaviest first.
func (cl *class) sortedPrefs() []int {
	if len(cl.pref) == 0 {
		return nil
	}
	idx := make([]int, len(cl.pref))
	for i := range idx {
		idx[i] = i
	}
	sort.SliceStable(idx, func(a, b int) bool { return cl.pref[idx[a]].weight > cl.pref[idx[b]].weight })
	return idx
}

func without(s []int, x int) []int {
	out := make([]int, 0, len(s))
	for _, v := range s {
		if v != x {
			out = append(out, v)
		}
	}
	return out
}

// setLevel compiles a class with the first level preferences given up.
func (ps *pass) setLevel(pc *passClass, level int) {
	cl := pc.cl
	st := prefState{}
	respect := ps.opt.Preferences != PreferencesIgnore
	if respect {
		for i := range cl.pc.PodAffinity {
			if cl.pc.PodAffinity[i].Weight > 0 {
				st.aff = append(st.aff, i)
			}
		}
		for i := range cl.pc.PodAntiAffinity {
			if cl.pc.PodAntiAffinity[i].Weight > 0 {
				st.anti = append(st.anti, i)
			}
		}
		for i := range cl.pc.Spread {
			if cl.pc.Spread[i].Soft {
				st.spread = append(st.spread, i)
			}
		}
		st.taints = ps.strictAny
	} else {
		st.node = len(cl.pref)
	}
	v := &pc.first
	if pc.v != nil {
		v = &variant{} // the first may be on a machine
	}
	v.pc, v.pref, v.capCtr, v.hostCap = pc, -1, -1, noCap
	v.domain, v.host, v.keys = v.domainRoom[:0], v.hostRoom[:0], v.keyRoom[:0]
	for i := 0; i < level; i++ {
		pc.ladder[i].apply(&st)
		v.relaxed = append(v.relaxed, pc.ladder[i].text)
	}
	v.strict = st.taints
	if st.node < len(cl.pref) {
		v.pref = cl.sortedPrefs()[st.node]
	}
	ps.variantRows(v)
	add := func(k check) {
		if k.ctr.host {
			v.host = append(v.host, k)
			if r := k.room(0, 0, true); r < v.hostCap {
				v.hostCap = r
				v.capCtr = k.ctr.id
			}
			return
		}
		v.domain = append(v.domain, k)
		if !slices.Contains(v.keys, k.ctr.key) {
			v.keys = append(v.keys, k.ctr.key)
		}
	}
	for i := range cl.pc.Spread {
		s := &cl.pc.Spread[i]
		if s.Soft && !slices.Contains(st.spread, i) {
			continue
		}
		ctr := ps.spreadCounter(cl, i)
		k := check{kind: checkSpread, ctr: ctr, self: ctr.m.has.has(int32(cl.id)), maxSkew: int64(max(s.MaxSkew, 1)), minDomains: int(s.MinDomains)}
		if !ctr.host {
			k.universe = ps.universe(v, ctr)
			k.late = pc.lateDomains(&k)
		}
		add(k)
	}
	v.selfAll = true
	ps.affinityCounters(cl, func(t *AffinityTerm, ctr *counter) {
		v.affs = append(v.affs, ctr)
		v.selfAll = ctr.m.has.has(int32(cl.id))
		add(check{kind: checkAffinity, ctr: ctr, self: v.selfAll})
	})
	for _, i := range st.aff {
		ctr := ps.affinityCounter(cl, i)
		v.affs = append(v.affs, ctr)
		self := ctr.m.has.has(int32(cl.id))
		v.selfAll = v.selfAll && self
		add(check{kind: checkAffinity, ctr: ctr, self: self, preferred: true})
	}
	for i := range cl.pc.PodAntiAffinity {
		t := &cl.pc.PodAntiAffinity[i]
		if t.Weight > 0 && !slices.Contains(st.anti, i) {
			continue
		}
		ctr := ps.antiCounter(cl, i)
		add(check{kind: checkAnti, ctr: ctr, self: ctr.m.has.has(int32(cl.id))})
	}
	for _, ctr := range ps.counters {
		if ctr.inverse && ctr.m.has.has(int32(cl.id)) {
			add(check{kind: checkForbid, ctr: ctr})
		}
	}
	if len(cl.pc.HostPorts) > 0 {
		v.hostCap = min(v.hostCap, 1)
	}
	pc.level = level
	pc.v = v
}

// lateDomains are the domains of a spread constraint that were not there when
// the first pods of the class were placed.
func (pc *passClass) lateDomains(k *check) []int32 {
	if pc.used == 0 || pc.v == nil {
		return nil
	}
	for i := range pc.v.domain {
		if old := &pc.v.domain[i]; old.kind == checkSpread && old.ctr == k.ctr {
			late := slices.Clip(old.late)
			for _, val := range k.universe {
				if !slices.Contains(old.universe, val) {
					late = append(late, val)
				}
			}
			return late
		}
	}
	return nil
}

// variantRows finds the columns and nodes a variant can be on.
func (ps *pass) variantRows(v *variant) {
	c, cl := ps.c, v.pc.cl
	v.rows = ps.avoiding(ps.columnsOf(cl, v.strict, v.pref))
	v.row, v.rowID = v.rows.bits, v.rows.id
	v.nodeRow = c.staticNodes(cl, v.strict)
	if v.pref >= 0 {
		row := v.nodeRow.clone()
		for s := row.next(0, int32(len(c.nodes))); s < int32(len(c.nodes)); s = row.next(s+1, int32(len(c.nodes))) {
			if c.allHold(cl.pref[v.pref].reqs, c.nodes[s]) != nil {
				row.clear(s)
			}
		}
		v.nodeRow = row
	}
}

// columnsOf is the set of columns that can hold one pod of a class: with strict
// also PreferNoSchedule repels, and a preferred term counts when pref ≥ 0.
func (ps *pass) columnsOf(cl *class, strict bool, pref int) *rowSet {
	c, cat := ps.c, ps.cat
	base := baseKey{cl.affID, cl.tolID, cl.volID, strict}
	key := rowKey{base, cl.fitKey(), pref, -1}
	if pref >= 0 {
		key.term = cl.id
	}
	if set, ok := cat.rowSets[key]; ok {
		return set
	}
	row, ok := cat.baseRows[base]
	if !ok {
		row = c.labelRow(cat, cl)
		c.taintRow(cat, row, cl, strict)
		c.volumeRow(cat, row, cl)
		row.and(cat.avail)
		cat.baseRows[base] = row
	}
	row = row.clone()
	if pref >= 0 {
		for i := range cl.pref[pref].reqs {
			row.and(c.reqRow(cat, &cl.pref[pref].reqs[i]))
		}
	}
	c.fitRow(cat, row, cl)
	set := cat.rowSet(row)
	cat.rowSets[key] = set
	return set
}

// universe lists the domains a spread constraint counts: those of existing
// nodes that pass its filter, those in which a machine can be created for the
// pod, and those that other pods' machines will open (see newDomains). Domains
// that exist in name only are not among them.
func (ps *pass) universe(v *variant, ctr *counter) []int32 {
	c, cat := ps.c, ps.cat
	columns := ps.columnsOf(v.pc.cl, false, -1)
	key := universeKey{ctr.id, columns.id}
	if len(ps.machines) == 0 && len(ps.extra) == 0 {
		if u, ok := ps.universes[key]; ok {
			return u
		}
	}
	seen := map[int32]bool{}
	for slot, nd := range c.nodes {
		if nd == nil || nd.n.Gone || (ctr.filter != nil && !ctr.nodeRow.has(int32(slot))) {
			continue
		}
		if val := c.nodeVal(ctr.key, int32(slot)); val != valAbsent {
			if _, open := nd.open[ctr.key]; !open {
				seen[val] = true
			}
		}
	}
	row := columns.bits
	if ctr.filter != nil {
		row = row.clone()
		row.and(ctr.colRow)
	}
	for _, vm := range cat.valueMasks(ctr.key) {
		if vm.val != valAbsent && !seen[vm.val] && ps.anyUsable(row, vm.mask) {
			seen[vm.val] = true
		}
	}
	for val := range ps.extra[ctr.ck] {
		seen[val] = true
	}
	for _, m := range ps.machines {
		if val := cat.vals[ctr.key][m.col]; val != valAbsent && len(m.pods) > 0 && (ctr.filter == nil || ctr.colRow.has(m.col)) {
			seen[val] = true
		}
	}
	out := make([]int32, 0, len(seen))
	for val := range seen {
		out = append(out, val)
	}
	// By name, as numbers depend on what was seen first.
	sort.Slice(out, func(i, j int) bool { return c.sym.valueName(ctr.key, out[i]) < c.sym.valueName(ctr.key, out[j]) })
	if len(ps.machines) == 0 && len(ps.extra) == 0 {
		ps.universes[key] = slices.Clip(out)
	}
	return out
}

// universeKey names the universe of a spread constraint before anything has
// been bought.
type universeKey struct {
	ctr int
	row int32
}

// anyUsable says whether a column in both sets can be bought now.
func (ps *pass) anyUsable(row, mask bitset) bool {
	if !row.meets(mask) {
		return false
	}
	free := true
	for i := range ps.limits {
		free = free && ps.unhindered(int32(i))
	}
	if free {
		return true
	}
	hit := ps.limitHit
	defer func() { ps.limitHit = hit }()
	for i, w := range row {
		for w &= mask[i]; w != 0; w &= w - 1 {
			if ps.usable(int32(i*64 + bits.TrailingZeros64(w))) {
				return true
			}
		}
	}
	return false
}

// run places all classes.
func (ps *pass) run() {
	clear(ps.places)
	ps.placeAt = ps.placeAt[:0]
	order := slices.Clone(ps.classes)
	w := ps.way
	if w == nil {
		w = &way{}
	}
	// Pods for which no machine can be bought have the first choice of the nodes.
	for i, pc := range order {
		pc.order = i
		pc.nodesOnly = pc.v.row.empty() && ps.relaxedRow(pc).empty()
	}
	// Then those that need most machines whatever their size: a rule that keeps
	// them apart makes as many machines as it has pods, for others to fill up.
	need := make([]int64, len(ps.counters)+1) // by counter, the last for none
	at := func(pc *passClass) *int64 { return &need[(pc.v.capCtr+len(need))%len(need)] }
	for _, pc := range order {
		if pc.v.hostCap < noCap && pc.v.hostCap > 0 {
			*at(pc) += (int64(len(pc.pods)) + pc.v.hostCap - 1) / pc.v.hostCap
		}
	}
	for _, pc := range order {
		pc.apart = 0
		if pc.v.hostCap < noCap {
			pc.apart = *at(pc)
		}
	}
	slices.SortFunc(order, func(a, b *passClass) int {
		if pa, pb := a.cl.pc.Priority, b.cl.pc.Priority; ps.byPriority && pa != pb {
			return cmp.Compare(pb, pa)
		}
		if ra, rb := w.rank[a], w.rank[b]; ra != rb {
			return cmp.Compare(rb, ra)
		}
		if w.bySize != 0 {
			if c := slices.Compare(a.vec[:dimPods], b.vec[:dimPods]); c != 0 { // further dimensions have no fixed order
				return -c * w.bySize
			}
			return cmp.Compare(a.order, b.order)
		}
		if a.nodesOnly != b.nodesOnly {
			if a.nodesOnly {
				return -1
			}
			return 1
		}
		if a.apart != b.apart {
			return cmp.Compare(b.apart, a.apart)
		}
		if a.value != b.value {
			return cmp.Compare(b.value, a.value)
		}
		if c := slices.Compare(b.vec, a.vec); c != 0 { // what no machine prices: the larger first
			return c
		}
		return cmp.Compare(a.order, b.order)
	})
	for {
		progress := false
		retry := false
		for _, pc := range order {
			if pc.used == len(pc.pods) || len(pc.cl.pc.Unsupported) > 0 {
				continue
			}
			before := pc.used
			all := pc.pods
			if w.single {
				pc.pods = all[:pc.used+1]
			}
			ps.placeClass(pc)
			pc.pods = all
			if pc.used > before {
				progress = true
			}
			if pc.used < len(pc.pods) && (w.single || len(pc.v.affs) > 0 || len(pc.v.domain) > 0) {
				retry = true // another class may make room for its affinity or even out its spread
			}
		}
		if !progress || !retry {
			return
		}
	}
}

// left is the number of pods without a place.
func (ps *pass) left() int {
	n := 0
	for _, pc := range ps.classes {
		n += len(pc.pods) - pc.used
	}
	return n
}

// newDomains looks for machines that brought a domain into being which a spread
// constraint did not reckon with, because its own pods cannot go there. The
// kube-scheduler will count it as empty. If that breaks the constraint, the
// domain is remembered, and true says that the pass must start over with it.
func (ps *pass) newDomains() bool {
	found := false
	seen := map[*counter]map[int32]bool{}
	for _, pc := range ps.classes {
		for i := range pc.v.domain {
			k := &pc.v.domain[i]
			if k.kind != checkSpread {
				continue
			}
			vals := seen[k.ctr]
			if vals == nil {
				vals = map[int32]bool{}
				seen[k.ctr] = vals
				col := ps.cat.vals[k.ctr.key]
				for _, m := range ps.machines {
					if v := col[m.col]; v != valAbsent && (k.ctr.filter == nil || k.ctr.colRow.has(m.col)) {
						vals[v] = true
					}
				}
			}
			most := int64(0)
			for _, v := range k.universe {
				most = max(most, k.ctr.at(v))
			}
			for v := range vals {
				if slices.Contains(k.universe, v) && !slices.Contains(k.late, v) {
					continue
				}
				helps := pc.used < len(pc.pods) && len(k.universe) < k.minDomains
				if !helps && most-k.ctr.at(v) <= k.maxSkew {
					continue
				}
				ck := k.ctr.ck
				if ps.extra == nil {
					ps.extra = map[counterKey]map[int32]bool{}
				}
				if ps.extra[ck] == nil {
					ps.extra[ck] = map[int32]bool{}
				}
				if !ps.extra[ck][v] {
					ps.extra[ck][v] = true
					found = true
				}
			}
		}
	}
	return found
}

// relaxedRow is the columns a class can be on once all its preferences are
// given up.
func (ps *pass) relaxedRow(pc *passClass) bitset {
	if len(pc.ladder) == 0 {
		return pc.v.row
	}
	v := &variant{pc: pc, pref: -1}
	ps.variantRows(v)
	return v.row
}

// scarce says whether limits kept out pods while priorities differ.
func (ps *pass) scarce() bool {
	if !ps.limitHit || ps.byPriority {
		return false
	}
	lo, hi := int32(math.MaxInt32), int32(math.MinInt32)
	refused := false
	for _, pc := range ps.classes {
		lo, hi = min(lo, pc.cl.pc.Priority), max(hi, pc.cl.pc.Priority)
		refused = refused || (pc.used < len(pc.pods) && !pc.v.row.empty())
	}
	return refused && lo < hi
}

// restart takes everything back.
func (ps *pass) restart() {
	ps.undo()
	ps.machines = nil
	ps.onNode = nil
	ps.limitHit = false
	ps.resetAmounts()
	for _, pc := range ps.classes {
		pc.used = 0
		pc.contrib = nil
		pc.pinKeys = nil
	}
	ps.counters = nil
	ps.counterIndex = map[counterKey]*counter{}
	clear(ps.universes)
	ps.setupCounters()
	for _, pc := range ps.classes {
		ps.setLevel(pc, ps.startLevel(pc))
	}
	for _, s := range ps.shapes {
		s.look = s.count
	}
}

// end leaves the cluster as it was before the pass.
func (ps *pass) end() {
	ps.undo()
	for _, pc := range ps.classes {
		pc.cl.pending = nil
	}
}

// undo gives the nodes back as they were.
func (ps *pass) undo() {
	for slot, s := range ps.touched {
		nd := ps.c.nodes[slot]
		nd.free, nd.ports, nd.shared = s.free, s.ports, s.shared
	}
	clear(ps.touched)
}

// placeClass places what is left of a class, giving up preferences one by one.
func (ps *pass) placeClass(pc *passClass) {
	for {
		ps.placeVariant(pc.v)
		if pc.used == len(pc.pods) || pc.level >= len(pc.ladder) {
			return
		}
		ps.setLevel(pc, pc.level+1)
	}
}

// tuple is a combination of domains, one per topology key of the variant, with
// the nodes and columns in it. Room for the class only shrinks while it is
// being placed, so cursors never go back.
type tuple struct {
	vals    []int32
	mask    bitset
	nodes   []int32
	nodeCur int
	machCur int
	noOpen  bool
	dead    bool
	choice  choice
}

// placeVariant places as many of the remaining pods of a class as possible.
func (ps *pass) placeVariant(v *variant) {
	pc := v.pc
	ps.movedAt = math.MaxInt
	nodes := ps.candidates(v)
	if len(nodes) == 0 && v.row.empty() {
		return
	}
	if len(v.domain) == 0 {
		t := &tuple{mask: v.row, nodes: nodes}
		ps.resume(v, t)
		defer ps.pause(v, t)
		if ps.growTogether(v, []*tuple{t}) {
			return
		}
		for pc.used < len(pc.pods) {
			if ps.placeIn(v, t, int64(len(pc.pods)-pc.used)) == 0 {
				return
			}
		}
		return
	}
	tuples := ps.tuples(v, nodes)
	for _, t := range tuples {
		ps.resume(v, t)
	}
	defer ps.pause(v, tuples...)
	if ps.growTogether(v, tuples) {
		return
	}
	for pc.used < len(pc.pods) {
		t, chunk := ps.bestTuple(v, tuples)
		if t == nil {
			return
		}
		left := int64(len(pc.pods) - pc.used)
		if ps.placeIn(v, t, min(chunk, left)) > 0 {
			v.countDomains(t)
			continue
		}
		t.dead = true
		if pc.level == len(pc.ladder) {
			ps.dropEmptyDomain(v, t, tuples)
		}
	}
}

// placeKey names pods of one shape, in one domain if their place depends on it.
type placeKey struct {
	s      *shape
	domain int32
}

func (v *variant) placeKey(t *tuple) (placeKey, bool) {
	k := placeKey{v.pc.shape, -1}
	if len(t.vals) == 1 {
		k.domain = t.vals[0]
	}
	return k, k.s != nil && k.s.rowID == v.rowID && len(v.keys) <= 1
}

// sharesCursor says whether what the machines before a cursor lack, they lack
// for every class of the same shape: no rule within a machine tells the classes
// apart.
func (v *variant) sharesCursor() bool {
	return len(v.host) == 0 && len(v.pc.cl.pc.HostPorts) == 0 && len(v.pc.cl.pc.SharedVolumes) == 0
}

// resume goes on where the last class of the same shape has paused: with the
// first machine that may have room, which only shrinks, but for machines that
// are moved to another column, which set cursors back; and with the machine to
// open next.
func (ps *pass) resume(v *variant, t *tuple) {
	k, ok := v.placeKey(t)
	if !ok {
		return
	}
	i, ok := ps.places[k]
	if !ok {
		return
	}
	if v.sharesCursor() {
		t.machCur = ps.placeAt[i].cursor
	}
	t.choice = ps.placeAt[i].choice
}

func (ps *pass) pause(v *variant, tuples ...*tuple) {
	for _, t := range tuples {
		k, ok := v.placeKey(t)
		if !ok {
			continue
		}
		i, ok := ps.places[k]
		if !ok {
			i = len(ps.placeAt)
			ps.places[k] = i
			ps.placeAt = append(ps.placeAt, pausedAt{})
		}
		if v.sharesCursor() {
			ps.placeAt[i].cursor = min(t.machCur, ps.movedAt)
		}
		ps.placeAt[i].choice = t.choice
	}
}

// pausedAt is where the search for room has come to, see pass.resume.
type pausedAt struct {
	cursor int
	choice choice
}

// changed sets cursors back to a machine that has been moved.
func (ps *pass) changed(m *mach) {
	ps.movedAt = min(ps.movedAt, m.at)
	for i := range ps.placeAt {
		ps.placeAt[i].cursor = min(ps.placeAt[i].cursor, m.at)
	}
}

// candidates are the nodes with room for one pod of the class. The slice is
// good until the next call.
func (ps *pass) candidates(v *variant) []int32 {
	out := ps.c.scratchNodes[:0]
	c, cl := ps.c, v.pc.cl
	for _, slot := range c.order {
		if !v.nodeRow.has(slot) {
			continue
		}
		nd := c.nodes[slot]
		if !fits(cl.vec, nd.free) {
			continue
		}
		out = append(out, slot)
	}
	ps.c.scratchNodes = out
	return out
}

// tuples groups nodes and columns by their domains.
func (ps *pass) tuples(v *variant, nodes []int32) []*tuple {
	type key [4]int32
	keys := v.keys
	var list []*tuple
	index := make(map[key]*tuple, 8)
	var indexLong map[string]*tuple // for more keys than that
	var long []byte
	find := func(vals []int32) *tuple {
		var k key
		if len(vals) <= len(k) {
			copy(k[:], vals)
			if t := index[k]; t != nil {
				return t
			}
		} else {
			long = long[:0]
			for _, val := range vals {
				long = binary.LittleEndian.AppendUint32(long, uint32(val))
			}
			if t := indexLong[string(long)]; t != nil {
				return t
			}
		}
		t := &tuple{vals: slices.Clone(vals)}
		list = append(list, t)
		if len(vals) <= len(k) {
			index[k] = t
			return t
		}
		if indexLong == nil {
			indexLong = map[string]*tuple{}
		}
		indexLong[string(long)] = t
		return t
	}
	k := make([]int32, len(keys))
	for _, slot := range nodes {
		open := false
		for i, tk := range keys {
			k[i] = ps.c.nodeVal(tk, slot)
			if _, o := ps.c.nodes[slot].open[tk]; o {
				open = true
			}
		}
		if open {
			continue
		}
		t := find(k)
		t.nodes = append(t.nodes, slot)
	}
	n := int32(len(ps.cat.cols))
	if len(keys) == 1 {
		ds := ps.c.domainsOf(ps.cat, v.rows, keys[0])
		if len(list) == 0 {
			list = make([]*tuple, 0, len(ds))
			for i := range ds {
				list = append(list, &tuple{vals: []int32{ds[i].val}, mask: ds[i].mask})
			}
			return list
		}
		for i := range ds {
			k[0] = ds[i].val
			find(k).mask = ds[i].mask
		}
	} else {
		for i := v.row.next(0, n); i < n; i = v.row.next(i+1, n) {
			for j, tk := range keys {
				k[j] = ps.cat.vals[tk][i]
			}
			t := find(k)
			if t.mask == nil {
				t.mask = newBitset(int(n))
			}
			t.mask.set(i)
		}
	}
	// By name: numbers are given in the order of first sight, which must not matter.
	slices.SortFunc(list, func(a, b *tuple) int {
		for i, key := range keys {
			names := ps.c.sym.tab[key].names
			if c := strings.Compare(names[a.vals[i]], names[b.vals[i]]); c != 0 {
				return c
			}
		}
		return 0
	})
	for _, t := range list {
		if t.mask == nil {
			t.mask = newBitset(int(n))
			t.noOpen = true
		}
	}
	return list
}

// bootstrap says whether the affinity of the variant has nobody to follow yet
// and may choose freely.
func (v *variant) bootstrap() bool {
	if len(v.affs) == 0 || !v.selfAll {
		return false
	}
	for _, a := range v.affs {
		if a.total > 0 {
			return false
		}
	}
	return true
}

// bestTuple picks the domains for the next pods: of those allowed the ones with
// nodes that have room, then the least crowded, then the first.
func (ps *pass) bestTuple(v *variant, tuples []*tuple) (*tuple, int64) {
	boot := v.bootstrap()
	var few [4]int64
	mins := append(few[:0], make([]int64, len(v.domain))...)
	for i := range v.domain {
		mins[i] = v.domain[i].min()
	}
	var best *tuple
	var bestCrowd, bestRoom int64
	bestFree := false
	for _, t := range tuples {
		if t.dead {
			continue
		}
		room, crowd := int64(noCap), int64(0)
		for i := range v.domain {
			k := &v.domain[i]
			val := t.vals[slices.Index(v.keys, k.ctr.key)]
			if val == valAbsent {
				if k.kind == checkAnti || k.kind == checkForbid {
					continue // no domain, no conflict
				}
				room = 0
				break
			}
			cnt := k.ctr.at(val)
			room = min(room, k.room(cnt, k.withDomain(mins[i], val), boot))
			if k.kind == checkSpread {
				crowd += cnt
				if k.self && room > 1 {
					room = 1
				}
			}
		}
		if room == 0 {
			continue
		}
		// A domain whose nodes have room costs nothing, so it goes before a less
		// crowded one where a machine would have to be bought.
		free := t.nodeCur < len(t.nodes) && (ps.way == nil || !ps.way.evenly && !(boot && ps.way.roomy))
		if boot && ps.way != nil && ps.way.roomy {
			crowd = -ps.roomIn(v, t)
		}
		if best == nil || free && !bestFree || free == bestFree && crowd < bestCrowd {
			best, bestCrowd, bestRoom, bestFree = t, crowd, room, free
		}
	}
	return best, bestRoom
}

// withDomain is the least count over the domains of a spread constraint once val
// is one of them. It may not be: nothing could be had there before (see
// dropEmptyDomain). With a pod in it, it is a domain like the others.
func (k *check) withDomain(least int64, val int32) int64 {
	if k.kind == checkSpread && !slices.Contains(k.universe, val) {
		return min(least, k.ctr.at(val))
	}
	return least
}

// countDomains makes a tuple's domains, where a pod of the class has come, ones
// that its spread constraints count.
func (v *variant) countDomains(t *tuple) {
	for i := range v.domain {
		k := &v.domain[i]
		if k.kind != checkSpread {
			continue
		}
		if val := t.vals[slices.Index(v.keys, k.ctr.key)]; val != valAbsent && !slices.Contains(k.universe, val) {
			k.universe = append(slices.Clip(k.universe), val)
			k.late = append(slices.Clip(k.late), val)
		}
	}
}

// dropEmptyDomain takes a domain out of the spread constraints' counts when it
// has turned out to be impossible: nothing runs there and nothing can be had.
func (ps *pass) dropEmptyDomain(v *variant, t *tuple, tuples []*tuple) {
	for i := range v.domain {
		k := &v.domain[i]
		if k.kind != checkSpread {
			continue
		}
		val := t.vals[slices.Index(v.keys, k.ctr.key)]
		if val == valAbsent || k.ctr.at(val) > 0 {
			continue
		}
		alive := false
		for _, o := range tuples {
			if !o.dead && o.vals[slices.Index(v.keys, k.ctr.key)] == val {
				alive = true
			}
		}
		if alive || ps.extra[k.ctr.ck][val] || ps.hasNodeIn(k.ctr, val) {
			continue
		}
		k.universe = slices.DeleteFunc(slices.Clone(k.universe), func(x int32) bool { return x == val })
	}
}

func (ps *pass) hasNodeIn(ctr *counter, val int32) bool {
	for slot, nd := range ps.c.nodes {
		if nd != nil && !nd.n.Gone && ps.c.nodeVal(ctr.key, int32(slot)) == val && (ctr.filter == nil || ctr.nodeRow.has(int32(slot))) {
			return true
		}
	}
	for _, m := range ps.machines {
		if ps.cat.vals[ctr.key][m.col] == val && (ctr.filter == nil || ctr.colRow.has(m.col)) && len(m.pods) > 0 {
			return true
		}
	}
	return false
}

// placeIn places up to n pods in a tuple: nodes, open machines, a new machine.
// It returns how many.
func (ps *pass) placeIn(v *variant, t *tuple, n int64) int64 {
	done := int64(0)
	for t.nodeCur < len(t.nodes) && done < n {
		k := ps.addToNode(v, t.nodes[t.nodeCur], n-done)
		if k == 0 {
			t.nodeCur++
			continue
		}
		done += k
	}
	for t.machCur < len(ps.machines) && done < n {
		m := ps.machines[t.machCur]
		if !fits(v.pc.vec, m.free) || !t.mask.has(m.col) && !ps.retarget(v, m, t.mask) {
			t.machCur++
			continue
		}
		k := ps.addToMachine(v, m, n-done)
		if k == 0 {
			t.machCur++
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

// enlarge makes room for pods that must follow others onto a planned machine
// (affinity over the hostname): it moves the machine to the cheapest column that
// holds what is on it and as many of them as possible. It returns how many have
// been placed.
func (ps *pass) enlarge(v *variant, t *tuple, n int64) int64 {
	if !slices.ContainsFunc(v.host, func(k check) bool { return k.kind == checkAffinity }) {
		return 0
	}
	vec := v.pc.cl.vec
	var row bitset
	var used []int64
	for _, m := range ps.machines {
		if len(m.pods) == 0 || !slices.ContainsFunc(v.host, func(k check) bool { return k.kind == checkAffinity && m.count(k.ctr) > 0 }) {
			continue
		}
		k := min(n, hostRoom(v, m.count))
		if k == 0 {
			continue
		}
		row, used = ps.altRow(m, row), ps.used(m, used)
		row.and(t.mask)
		best, bestFit := int32(-1), int64(0)
		for _, col := range ps.byPrice(m.pool) {
			if !row.has(col) || !ps.pinned(m, col) {
				continue
			}
			kd := &ps.cat.kinds[ps.cat.cols[col].kind]
			if !fits(used, kd.alloc) || !ps.portsFit(m, kd) || !ps.swapAllowed(m.col, col) {
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
// when nothing on it relies on the present one (its zone, say) and it costs no
// more. It reports whether it did.
func (ps *pass) retarget(v *variant, m *mach, mask bitset) bool {
	k := &ps.cat.kinds[m.kind]
	col := mask.next(k.lo, k.hi)
	if col == k.hi {
		return false
	}
	price := ps.cat.cols[m.col].price
	for ; col < k.hi && ps.cat.cols[col].price <= price; col = mask.next(col+1, k.hi) {
		if ps.cat.cols[col].reserve >= 0 || !ps.pinned(m, col) || !m.mayBe(col) {
			continue
		}
		if ps.swapAllowed(m.col, col) && ps.roomOn(v, m, 1) > 0 {
			ps.draw(m.col, -1)
			ps.draw(col, 1)
			m.col = col
			ps.changed(m)
			return true
		}
	}
	return false
}

// hostRoom is how many pods of a variant the host-level rules allow where
// count tells the pods that are there already.
func hostRoom(v *variant, count func(*counter) int64) int64 {
	room := int64(noCap)
	boot := false
	if len(v.affs) > 0 {
		boot = v.bootstrap()
	}
	for i := range v.host {
		room = min(room, v.host[i].room(count(v.host[i].ctr), 0, boot))
		if room == 0 {
			return 0
		}
	}
	return room
}

// addToNode puts up to n pods on an existing node.
func (ps *pass) addToNode(v *variant, slot int32, n int64) int64 {
	nd, cl := ps.c.nodes[slot], v.pc.cl
	k := fitCount(cl.vec, nd.free, n)
	if k == 0 {
		return 0
	}
	if len(cl.pc.HostPorts) > 0 {
		if conflictAny(cl.pc.HostPorts, nd.ports) {
			return 0
		}
		k = 1
	}
	if len(v.host) > 0 {
		k = min(k, hostRoom(v, func(ctr *counter) int64 { return int64(ctr.nodes[slot]) }))
		if k == 0 {
			return 0
		}
	}
	if len(cl.pc.SharedVolumes) > 0 {
		k = ps.sharedOnNode(cl, nd, k)
		if k == 0 {
			return 0
		}
	}
	if ps.touched[slot] == nil {
		ps.touched[slot] = &savedNode{nd.free, nd.ports, nd.shared}
		nd.free = ps.c.dims.pad(slices.Clone(nd.free)) // resources may have become known since
		nd.ports = slices.Clip(nd.ports)
		if nd.shared != nil {
			m := make(map[string]int, len(nd.shared))
			for a, b := range nd.shared {
				m[a] = b
			}
			nd.shared = m
		}
	}
	for d, r := range cl.vec {
		nd.free[d] -= r * k
	}
	nd.ports = append(nd.ports, cl.pc.HostPorts...)
	for _, sv := range cl.pc.SharedVolumes {
		if nd.shared == nil {
			nd.shared = map[string]int{}
		}
		key := sv.Driver + "\x00" + sv.ID
		if nd.shared[key] == 0 {
			nd.free[ps.c.dims.ids[attachPrefix+sv.Driver]]--
		}
		nd.shared[key] += int(k)
	}
	for _, ctr := range v.pc.contrib {
		ps.countNode(ctr, slot, int32(k))
	}
	p := placed{v, v.pc.used, int(k)}
	if last := len(ps.onNode) - 1; last >= 0 && ps.onNode[last].slot == slot && ps.onNode[last].p.v == v && ps.onNode[last].p.first+ps.onNode[last].p.n == v.pc.used {
		ps.onNode[last].p.n += int(k)
	} else {
		ps.onNode = append(ps.onNode, nodePlaced{slot, p})
	}
	v.pc.used += int(k)
	return k
}

// sharedOnNode checks attachment limits for shared volumes not yet there.
func (ps *pass) sharedOnNode(cl *class, nd *node, k int64) int64 {
	need := map[int]int64{}
	for _, v := range cl.pc.SharedVolumes {
		if nd.shared[v.Driver+"\x00"+v.ID] == 0 {
			need[ps.c.dims.ids[attachPrefix+v.Driver]]++
		}
	}
	for k > 0 {
		ok := true
		for d, extra := range need {
			own := int64(0)
			if d < len(cl.vec) {
				own = cl.vec[d]
			}
			if d < len(nd.free) && own*k+extra > nd.free[d] {
				ok = false
			}
		}
		if ok {
			return k
		}
		k--
	}
	return 0
}

// addToMachine puts up to n pods on a machine to create.
func (ps *pass) addToMachine(v *variant, m *mach, n int64) int64 {
	k := ps.roomOn(v, m, n)
	if k > 0 {
		ps.commit(v, m, v.pc.used, k)
		v.pc.used += int(k)
	}
	return k
}

// roomOn is how many of n pods a machine to create can take.
func (ps *pass) roomOn(v *variant, m *mach, n int64) int64 {
	cl := v.pc.cl
	k := fitCount(cl.vec, m.free, n)
	if k == 0 {
		return 0
	}
	if len(cl.pc.HostPorts) > 0 {
		if conflictAny(cl.pc.HostPorts, m.ports) {
			return 0
		}
		k = 1
	}
	if len(v.host) > 0 {
		k = min(k, hostRoom(v, m.count))
		if k == 0 {
			return 0
		}
	}
	if len(cl.pc.SharedVolumes) > 0 {
		for k > 0 && !ps.sharedFits(cl, m, k) {
			k--
		}
		if k == 0 {
			return 0
		}
	}
	if pool := &ps.cat.pools[m.pool]; len(pool.minValues) > 0 && ps.opt.MinValues != MinValuesBestEffort {
		for k > 0 && !ps.keepsMinValues(pool, m, v, k) {
			k /= 2
		}
	}
	return k
}

// commit books k pods of the class, from the one numbered first, on a machine.
func (ps *pass) commit(v *variant, m *mach, first int, k int64) {
	cl := v.pc.cl
	for d, r := range cl.vec {
		m.free[d] -= r * k
	}
	m.ports = append(m.ports, cl.pc.HostPorts...)
	for _, sv := range cl.pc.SharedVolumes {
		if !slices.Contains(m.shared, sv) {
			m.shared = append(m.shared, sv)
			m.free[ps.c.dims.ids[attachPrefix+sv.Driver]]--
		}
	}
	for _, ctr := range v.pc.contrib {
		ps.countMachine(ctr, m, int32(k))
	}
	for _, key := range ps.pinsOf(v) {
		m.pin(key)
	}
	if last := len(m.pods) - 1; last >= 0 && m.pods[last].v == v && m.pods[last].first+m.pods[last].n == first {
		m.pods[last].n += int(k)
	} else {
		m.pods = append(m.pods, placed{v, first, int(k)})
	}
}

// pinsOf are the keys whose values are settled on a machine that takes a pod of
// the variant: those that some counter or rule of its relies on, and labels
// that the machine could still choose and the pod looks at, or two rules could
// each be met by another value.
func (ps *pass) pinsOf(v *variant) []int32 {
	if v.pins != nil {
		return v.pins
	}
	v.pins = append(append(v.pinRoom[:0], v.pc.pinKeys...), v.keys...)
	for _, key := range v.pc.cl.keys {
		if ps.cat.multi[key] {
			v.pins = append(v.pins, key)
		}
	}
	slices.Sort(v.pins)
	v.pins = slices.Compact(v.pins)
	return v.pins
}

func (m *mach) pin(key int32) {
	if !slices.Contains(m.pins, key) {
		m.pins = append(m.pins, key)
	}
}

// mayBe says whether every pod of a machine may be on a column.
func (m *mach) mayBe(col int32) bool {
	for i := range m.pods {
		if !m.pods[i].v.row.has(col) {
			return false
		}
	}
	return true
}

func (m *mach) count(ctr *counter) int64 {
	for i := range m.host {
		if m.host[i].ctr == ctr {
			return int64(m.host[i].n)
		}
	}
	return 0
}

func (ps *pass) sharedFits(cl *class, m *mach, k int64) bool {
	need := map[int]int64{}
	for _, v := range cl.pc.SharedVolumes {
		if !slices.Contains(m.shared, v) {
			need[ps.c.dims.ids[attachPrefix+v.Driver]]++
		}
	}
	for d, extra := range need {
		own := int64(0)
		if d < len(cl.vec) {
			own = cl.vec[d]
		}
		if own*k+extra > m.free[d] {
			return false
		}
	}
	return true
}

// keepsMinValues says whether a machine with k more pods can still be any of
// enough different offerings.
func (ps *pass) keepsMinValues(pool *cpool, m *mach, v *variant, k int64) bool {
	used := slices.Clone(ps.cat.kinds[m.kind].alloc)
	for d := range used {
		used[d] -= m.free[d]
	}
	for d, r := range v.pc.cl.vec {
		used[d] += r * k
	}
	for i, sv := range v.pc.cl.pc.SharedVolumes {
		if !slices.Contains(m.shared, sv) && !slices.Contains(v.pc.cl.pc.SharedVolumes[:i], sv) {
			used[ps.c.dims.ids[attachPrefix+sv.Driver]]++
		}
	}
	row := v.row.clone()
	pins := append(slices.Clone(m.pins), ps.pinsOf(v)...)
	for i := range m.pods {
		row.and(m.pods[i].v.row)
	}
	return ps.minValuesHold(pool, row, m.col, pins, used)
}

// minValuesHold says whether the columns in row that agree with col on the
// pinned keys and hold what is used have enough different values.
func (ps *pass) minValuesHold(pool *cpool, row bitset, at int32, pins []int32, used []int64) bool {
	missing := len(pool.minValues)
	got := make([]map[int32]bool, len(pool.minValues))
	for i := range got {
		got[i] = map[int32]bool{}
	}
	for ki := pool.kindLo; ki < pool.kindHi; ki++ {
		k := &ps.cat.kinds[ki]
		if !row.anyIn(k.lo, k.hi) || !fits(used, k.alloc) {
			continue
		}
		for col := row.next(k.lo, k.hi); col < k.hi; col = row.next(col+1, k.hi) {
			if col != at && ps.cat.cols[col].reserve >= 0 || !ps.agrees(pins, col, at) {
				continue
			}
			for i, mv := range pool.minValues {
				val := ps.cat.vals[mv.key][col]
				if val == valAbsent || got[i][val] || len(got[i]) >= mv.min {
					continue
				}
				got[i][val] = true
				if len(got[i]) == mv.min {
					missing--
				}
			}
			if missing == 0 {
				return true
			}
		}
	}
	return missing == 0
}

// agrees says whether two columns have the same values of some keys.
func (ps *pass) agrees(pins []int32, a, b int32) bool {
	for _, key := range pins {
		vals := ps.cat.vals[key]
		if key != ps.c.hostKey && vals[a] != vals[b] {
			return false
		}
	}
	return true
}

// pinned says whether a column agrees with the values others rely on.
func (ps *pass) pinned(m *mach, col int32) bool { return ps.agrees(m.pins, col, m.col) }

// growTogether handles pods that must share one machine (affinity over the
// hostname): it looks for a node, then a machine, that holds all of them. It
// returns false to leave the rest to the ordinary way.
func (ps *pass) growTogether(v *variant, tuples []*tuple) bool {
	if len(v.affs) == 0 || !v.bootstrap() || !slices.ContainsFunc(v.host, func(k check) bool { return k.kind == checkAffinity }) {
		return false
	}
	pc := v.pc
	left := int64(len(pc.pods) - pc.used)
	type start struct {
		t *tuple
		n int64 // how many pods the domain may take at once
	}
	var starts []start
	for _, t := range tuples {
		if len(v.domain) == 0 {
			starts = append(starts, start{t, left})
		} else if b, _ := ps.bestTuple(v, []*tuple{t}); b != nil {
			starts = append(starts, start{t, min(left, ps.crowdRoom(v, t))})
		}
	}
	for _, st := range starts {
		for _, slot := range st.t.nodes {
			if fitCount(pc.cl.vec, ps.c.nodes[slot].free, st.n) == st.n && ps.addToNode(v, slot, st.n) > 0 {
				return pc.used == len(pc.pods)
			}
		}
	}
	for _, st := range starts {
		for i := st.t.machCur; i < len(ps.machines); i++ {
			m := ps.machines[i]
			if st.t.mask.has(m.col) && fitCount(pc.cl.vec, m.free, st.n) == st.n && ps.addToMachine(v, m, st.n) > 0 {
				return pc.used == len(pc.pods)
			}
		}
	}
	// The cheapest new machine for all, else the one that holds most.
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
					col := ps.usableColumn(st.t.mask, ki)
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
	if best < 0 {
		return false
	}
	m := ps.newMachine(best)
	if ps.addToMachine(v, m, bestN) == 0 {
		ps.drop(m)
	}
	return pc.used == len(pc.pods)
}

// crowdRoom is how many pods of the variant can be in a tuple's domains when all
// of them go there.
func (ps *pass) crowdRoom(v *variant, t *tuple) int64 {
	room := int64(noCap)
	for i := range v.domain {
		k := &v.domain[i]
		val := t.vals[slices.Index(v.keys, k.ctr.key)]
		if val == valAbsent {
			continue
		}
		room = min(room, k.room(k.ctr.at(val), k.withDomain(k.min(), val), true))
	}
	return max(room, 1)
}

// usableColumn is the cheapest column of a kind in the mask that limits,
// quotas and reservations allow now, or -1.
func (ps *pass) usableColumn(mask bitset, ki int32) int32 {
	k := &ps.cat.kinds[ki]
	if !mask.anyIn(k.lo, k.hi) {
		return -1
	}
	for i, take := range k.takes {
		if take > ps.limits[k.pool][i].left {
			ps.limitHit = true
			return -1
		}
	}
	for col := mask.next(k.lo, k.hi); col < k.hi; col = mask.next(col+1, k.hi) {
		if ps.drawable(col) {
			return col
		}
	}
	return -1
}

func (ps *pass) drawable(col int32) bool {
	cc := &ps.cat.cols[col]
	if cc.reserve >= 0 && ps.resLeft[cc.reserve] <= 0 {
		return false
	}
	if !ps.heedQuotas {
		return true
	}
	for _, q := range cc.off.Charges {
		if ps.quotaLeft[q.Quota] < q.Amount {
			ps.limitHit = true
			return false
		}
	}
	return true
}

// unhindered says that neither limits nor quotas nor reservations can keep any
// machine of a pool from being any other of its columns.
func (ps *pass) unhindered(pool int32) bool {
	if len(ps.quotaLeft) > 0 || len(ps.resLeft) > 0 {
		return false
	}
	for i, most := range ps.cat.pools[pool].most {
		if left := ps.limits[pool][i].left; left < 0 || left/int64(len(ps.machines)+1) < most {
			return false
		}
	}
	return true
}

// draw books (sign 1) or gives back (sign -1) what a machine of a column takes
// of limits, quotas and reservations.
func (ps *pass) draw(col int32, sign int64) {
	cc := &ps.cat.cols[col]
	k := &ps.cat.kinds[cc.kind]
	for i, take := range k.takes {
		ps.limits[k.pool][i].left -= sign * take
	}
	if cc.reserve >= 0 {
		ps.resLeft[cc.reserve] -= sign
	}
	if !ps.heedQuotas {
		return
	}
	for _, q := range cc.off.Charges {
		ps.quotaLeft[q.Quota] -= sign * q.Amount
	}
}

func (ps *pass) newMachine(col int32) *mach {
	ki := ps.cat.cols[col].kind
	k := &ps.cat.kinds[ki]
	m := &mach{col: col, kind: ki, pool: k.pool, free: slices.Clone(k.alloc), ports: slices.Clip(k.ports), shared: slices.Clip(k.shared)}
	m.pods, m.pins, m.at = make([]placed, 0, 8), m.pinRoom[:0], len(ps.machines)
	ps.draw(col, 1)
	ps.machines = append(ps.machines, m)
	return m
}

// drop takes back the machine opened last.
func (ps *pass) drop(m *mach) {
	ps.draw(m.col, -1)
	ps.machines = ps.machines[:len(ps.machines)-1]
}

// open creates a machine for up to n pods of the variant and returns how many
// it took.
func (ps *pass) open(v *variant, t *tuple, n int64) int64 {
	if hostRoom(v, func(*counter) int64 { return 0 }) == 0 {
		return 0
	}
	for try := 0; try < 3; try++ {
		col := ps.choose(v, t, n)
		score := 0.0
		if col >= 0 {
			score = t.choice.score
		}
		if col >= 0 && !t.choice.fresh && len(v.pc.pods)-v.pc.used > 8 {
			// The same choice again, for many pods: what could grow was asked.
		} else if k := ps.grow(v, t, n, score); k > 0 {
			if col >= 0 {
				ps.unpromise(&t.choice)
			}
			return k
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
	growMachines = 64   // the latest machines looked at …
	growBack     = 1024 // … as far back as this, for those in the right domain
	growColumns  = 40   // larger offerings looked at for each
)

// inDomain says whether a machine is in the tuple's domains, or can still be.
func (ps *pass) inDomain(v *variant, t *tuple, m *mach) bool {
	for i, key := range v.keys {
		if ps.cat.vals[key][m.col] != t.vals[i] && slices.Contains(m.pins, key) {
			return false
		}
	}
	return true
}

// grow puts pods onto a planned machine by making it larger, where that buys
// more value per added dollar than the new machine with the given score would.
func (ps *pass) grow(v *variant, t *tuple, n int64, score float64) int64 {
	cl := v.pc.cl
	if len(cl.pc.SharedVolumes) > 0 || v.pc.value <= 0 {
		return 0
	}
	var best *mach
	bestCol, bestFit, bestRatio := int32(-1), int64(0), score
	used, free := ps.scratch[0], ps.scratch[1]
	tried := 0
	for i := len(ps.machines) - 1; i >= 0 && tried < growMachines && i >= len(ps.machines)-growBack; i-- {
		m := ps.machines[i]
		if !ps.inDomain(v, t, m) {
			continue
		}
		tried++
		if len(m.pods) == 0 || len(ps.cat.pools[m.pool].minValues) > 0 {
			continue
		}
		k := n
		if len(cl.pc.HostPorts) > 0 {
			if conflictAny(cl.pc.HostPorts, m.ports) {
				continue
			}
			k = 1
		}
		if len(v.host) > 0 {
			if k = min(k, hostRoom(v, m.count)); k == 0 {
				continue
			}
		}
		price := ps.cat.cols[m.col].price
		used = ps.used(m, used)
		looked := 0
		for _, col := range ps.dearer(m.pool, price) {
			cc := &ps.cat.cols[col]
			if looked++; looked > growColumns {
				break
			}
			delta := math.Max(cc.price-price, 1e-9)
			if float64(k)*v.pc.value <= bestRatio*delta {
				break // dearer ones cannot be better
			}
			if !t.mask.has(col) || cc.reserve >= 0 || cc.kind == m.kind || !ps.pinned(m, col) {
				continue
			}
			kd := &ps.cat.kinds[cc.kind]
			if !fits(used, kd.alloc) || !ps.portsFit(m, kd) || !m.mayBe(col) {
				continue
			}
			free = append(free[:0], kd.alloc...)
			sub(free, used)
			f := fitCount(cl.vec, free, k)
			if f == 0 {
				continue
			}
			if r := float64(f) * v.pc.value / delta; r > bestRatio && ps.swapAllowed(m.col, col) {
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
	used = ps.used(best, used)
	ps.move(best, bestCol, used)
	got := ps.addToMachine(v, best, bestFit)
	if got == 0 {
		ps.move(best, from, used)
	}
	return got
}

func (ps *pass) describe(col int32) string {
	cc := &ps.cat.cols[col]
	return strings.Join([]string{ps.cat.pools[cc.pool].p.Name, cc.typ.Name, cc.off.Zone, cc.off.CapacityType}, "/")
}
