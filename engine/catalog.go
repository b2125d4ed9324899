package engine

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// catalog is the compiled form of pools and catalogues: columns, each one way
// to get a machine with every label decided, grouped into kinds that have the
// same room.
type catalog struct {
	pools []cpool
	kinds []kind
	cols  []column
	// vals[key][column] is the value of a label, for keys in play.
	vals       map[int32][]int32
	openEnded  map[int32]bool // keys for which named values make columns
	multi      map[int32]bool // keys that came with several values somewhere
	all        bitset         // columns of pools that are not blocked
	avail      bitset         // available columns
	reqRows    map[string]bitset
	baseRows   map[baseKey]bitset // labels, taints, volumes, availability
	fitRows    map[fitKey]bitset  // room for one pod
	rowSets    map[rowKey]*rowSet // all of it together
	rowIDs     map[uint64][]*rowSet
	rowCount   int32
	offers     int32
	domains    map[domainKey][]domainMask
	dims       int
	tiers      []tier
	resNames   []string // reservations, by index
	priceOrder [][]int32
	masks      map[int32][]valueMask
	resLeft    []int64
}

// baseKey is the parts of a class that labels, taints and volumes decide on, by
// their signatures.
type baseKey struct {
	aff, tol, vol int32
	strict        bool
}

// fitKey is the parts that room decides on: a vector or, for what vectors
// cannot say, the class itself.
type fitKey struct {
	vec   int32
	class ClassID // or -1
}

// rowKey is all that decides which columns can hold a pod: with strict also
// PreferNoSchedule repels, and a preferred term of the class counts when
// pref ≥ 0.
type rowKey struct {
	base baseKey
	fit  fitKey
	pref int
	term ClassID // whose preferred term, or -1
}

// rowSet is an interned set of columns: equal sets have equal numbers. It is
// not changed.
type rowSet struct {
	bits bitset
	id   int32
}

// cpool is a NodePool with its range of columns and kinds.
type cpool struct {
	p              *NodePool
	index          int // in Cluster.pools
	lo, hi         int32
	kindLo, kindHi int32
	reqs           []creq
	minValues      []minValue
	limits         []string // names of what is limited, sorted
	most           []int64  // of each limit, what a machine can take
}

type minValue struct {
	key int32
	min int
}

// tier is a range of pools of equal weight.
type tier struct {
	lo, hi         int32 // columns
	poolLo, poolHi int
}

// kind is machines of one pool and instance type with the same room for pods.
type kind struct {
	pool     int32
	typ      *InstanceType
	alloc    []int64 // after daemons
	capacity Resources
	takes    []int64 // of each limit of its pool, by name
	daemon   []int64 // what the daemons take
	ports    []HostPort
	shared   []SharedVolume
	lo, hi   int32 // columns, cheapest first
	price    float64
}

type column struct {
	kind    int32
	pool    int32
	typ     *InstanceType
	off     *Offering
	price   float64
	reserve int32 // index of the reservation, or -1
	offer   int32 // number of the offering: several columns may differ in other labels
}

// tmpColumn is a column while the catalogue is being compiled.
type tmpColumn struct {
	off     *Offering
	vals    []int32 // aligned with the keys in play
	daemons string
	dset    []ClassID
}

func (c *Cluster) catalog() *catalog {
	if c.cat != nil {
		if c.cat.dims != len(c.dims.names) {
			for i := range c.cat.kinds {
				c.cat.kinds[i].alloc = c.dims.pad(c.cat.kinds[i].alloc)
			}
			c.cat.dims = len(c.dims.names)
		}
		return c.cat
	}
	cat := &catalog{vals: map[int32][]int32{}, openEnded: map[int32]bool{}, multi: map[int32]bool{}, reqRows: map[string]bitset{}, baseRows: map[baseKey]bitset{},
		fitRows: map[fitKey]bitset{}, rowSets: map[rowKey]*rowSet{}, rowIDs: map[uint64][]*rowSet{}, domains: map[domainKey][]domainMask{}}
	for i := range c.pools {
		for _, r := range c.pools[i].Requirements {
			if r.MinValues > 0 {
				c.inPlay[c.sym.key(r.Key)] = true
			}
		}
	}
	keys := make([]int32, 0, len(c.inPlay))
	for k := range c.inPlay {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		cat.vals[k] = nil
	}
	order := make([]int, len(c.pools))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool {
		a, b := &c.pools[order[i]], &c.pools[order[j]]
		if a.Weight != b.Weight {
			return a.Weight > b.Weight
		}
		return a.Name < b.Name
	})
	resIndex := map[string]int32{}
	// The labels that decide anything: most that a type has do not.
	matters := make(map[string]bool, 2*len(keys))
	for _, k := range keys {
		matters[c.sym.tab[k].name] = true
	}
	for i := range c.pools {
		for k := range c.pools[i].Labels {
			matters[k] = true
		}
		for _, r := range c.pools[i].Requirements {
			matters[r.Key] = true
		}
	}
	infos := map[int][]*typeInfo{}
	info := func(catalogue int) []*typeInfo {
		if _, ok := infos[catalogue]; !ok {
			types := c.catalogues[catalogue].InstanceTypes
			list := make([]*typeInfo, len(types))
			for i := range types {
				list[i] = c.intern(&types[i], matters)
			}
			infos[catalogue] = list
		}
		return infos[catalogue]
	}
	for _, pi := range order {
		p := &c.pools[pi]
		if p.Blocked != "" {
			continue
		}
		reqs, _ := c.sym.compileReqs(p.Requirements) // checked by SetCatalogue
		cp := cpool{p: p, index: pi, lo: int32(len(cat.cols)), kindLo: int32(len(cat.kinds)), reqs: reqs, limits: sortedKeys(p.Limits)}
		for i, r := range p.Requirements {
			if r.MinValues > 0 {
				cp.minValues = append(cp.minValues, minValue{reqs[i].key, r.MinValues})
			}
		}
		b := newPoolBuilder(c, cat, p, reqs, keys)
		types := c.catalogues[p.Catalogue].InstanceTypes
		for ti := range types {
			it := &types[ti]
			tmp := b.columns(it, info(p.Catalogue)[ti])
			if len(tmp) == 0 {
				continue
			}
			c.addKinds(cat, int32(len(cat.pools)), it, tmp, keys, resIndex)
		}
		cp.hi, cp.kindHi = int32(len(cat.cols)), int32(len(cat.kinds))
		cp.most = make([]int64, len(cp.limits))
		for ki := cp.kindLo; ki < cp.kindHi; ki++ {
			k := &cat.kinds[ki]
			k.takes = make([]int64, len(cp.limits))
			for i, name := range cp.limits {
				k.takes[i] = k.capacity[name]
				if name == ResourceNodes {
					k.takes[i] = 1
				}
				cp.most[i] = max(cp.most[i], k.takes[i])
			}
		}
		if n := len(cat.tiers); n > 0 && cat.pools[cat.tiers[n-1].poolLo].p.Weight == p.Weight {
			cat.tiers[n-1].hi = cp.hi
			cat.tiers[n-1].poolHi = len(cat.pools) + 1
		} else {
			cat.tiers = append(cat.tiers, tier{cp.lo, cp.hi, len(cat.pools), len(cat.pools) + 1})
		}
		cat.pools = append(cat.pools, cp)
	}
	cat.all = newBitset(len(cat.cols))
	cat.all.setRange(0, int32(len(cat.cols)))
	cat.avail = newBitset(len(cat.cols))
	for i := range cat.cols {
		if cat.cols[i].off.Available {
			cat.avail.set(int32(i))
		}
	}
	cat.dims = len(c.dims.names)
	for i := range cat.kinds {
		k := &cat.kinds[i]
		k.alloc = c.dims.pad(k.alloc)
		k.daemon = c.dims.pad(k.daemon)
	}
	c.cat = cat
	return cat
}

// addKinds appends the columns of one instance type, grouped into kinds.
func (c *Cluster) addKinds(cat *catalog, pool int32, it *InstanceType, tmp []tmpColumn, keys []int32, resIndex map[string]int32) {
	slices.SortStableFunc(tmp, func(a, b tmpColumn) int {
		if oa, ob := overrides(a.off), overrides(b.off); oa != ob {
			if ob {
				return -1
			}
			return 1
		}
		if a.daemons != b.daemons {
			return strings.Compare(a.daemons, b.daemons)
		}
		return cmp.Compare(a.off.PriceUSDPerHour, b.off.PriceUSDPerHour)
	})
	for i := range tmp {
		t := &tmp[i]
		newKind := i == 0 || t.daemons != tmp[i-1].daemons || overrides(t.off) || overrides(tmp[i-1].off)
		if newKind {
			k := kind{pool: pool, typ: it, lo: int32(len(cat.cols)), price: t.off.PriceUSDPerHour}
			alloc := it.Allocatable
			if t.off.Allocatable != nil {
				alloc = t.off.Allocatable
			}
			k.capacity = it.Capacity
			if t.off.Capacity != nil {
				k.capacity = t.off.Capacity
			}
			k.alloc = c.dims.capacityVec(alloc, it.VolumeLimits)
			k.daemon = make([]int64, len(c.dims.names))
			seen := map[SharedVolume]bool{}
			for _, d := range t.dset {
				dc := c.classes[d]
				for dim, r := range dc.vec {
					k.daemon[dim] += r
				}
				k.ports = append(k.ports, dc.pc.HostPorts...)
				for _, v := range dc.pc.SharedVolumes {
					if !seen[v] {
						seen[v] = true
						k.daemon[c.dims.id(attachPrefix+v.Driver)]++
						k.shared = append(k.shared, v)
					}
				}
			}
			k.alloc = c.dims.pad(k.alloc)
			sub(k.alloc, k.daemon)
			cat.kinds = append(cat.kinds, k)
		}
		ki := int32(len(cat.kinds) - 1)
		if i == 0 || t.off != tmp[i-1].off {
			cat.offers++
		}
		col := column{kind: ki, pool: pool, typ: it, off: t.off, price: t.off.PriceUSDPerHour, reserve: -1, offer: cat.offers}
		if id := t.off.ReservationID; id != "" {
			ri, ok := resIndex[id]
			if !ok {
				ri = int32(len(cat.resLeft))
				resIndex[id] = ri
				cat.resLeft = append(cat.resLeft, int64(t.off.ReservationRemaining))
				cat.resNames = append(cat.resNames, id)
			}
			col.reserve = ri
		}
		cat.cols = append(cat.cols, col)
		for j, key := range keys {
			cat.vals[key] = append(cat.vals[key], t.vals[j])
		}
		cat.kinds[ki].hi = int32(len(cat.cols))
	}
}

func overrides(o *Offering) bool { return o.Allocatable != nil || o.Capacity != nil }

// poolBuilder decides the labels of a pool's machines.
type poolBuilder struct {
	c      *Cluster
	cat    *catalog
	p      *NodePool
	keys   []int32       // in play
	index  map[int32]int // of keys
	byKey  map[int32][]creq
	labels map[int32]int32
	extra  []int32 // keys of the pool's requirements and labels
	zone   int32
	ct     int32
	pool   int32
}

func newPoolBuilder(c *Cluster, cat *catalog, p *NodePool, reqs []creq, keys []int32) *poolBuilder {
	b := &poolBuilder{c: c, cat: cat, p: p, keys: keys, byKey: map[int32][]creq{}, labels: map[int32]int32{}}
	b.index = make(map[int32]int, len(keys))
	for i, k := range keys {
		b.index[k] = i
	}
	add := func(k int32) {
		if !slices.Contains(b.extra, k) {
			b.extra = append(b.extra, k)
		}
	}
	for _, r := range reqs {
		b.byKey[r.key] = append(b.byKey[r.key], r)
		add(r.key)
	}
	for _, k := range sortedKeys(p.Labels) {
		id := c.sym.key(k)
		b.labels[id] = c.sym.value(id, p.Labels[k])
		add(id)
	}
	b.zone, b.ct = c.sym.key(LabelZone), c.sym.key(LabelCapacityType)
	b.pool = c.sym.key(LabelNodePool)
	return b
}

// allowed filters values by the pool's requirements and label of the key.
func (b *poolBuilder) allowed(key int32, vs []int32) []int32 {
	reqs, hasReq := b.byKey[key]
	lv, hasLabel := b.labels[key]
	if !hasReq && !hasLabel {
		return vs
	}
	holds := func(v int32) bool {
		if hasLabel && v != lv {
			return false
		}
		for i := range reqs {
			if !b.c.sym.holds(&reqs[i], v) {
				return false
			}
		}
		return true
	}
	if len(vs) == 1 {
		if holds(vs[0]) {
			return vs
		}
		return nil
	}
	var out []int32
	for _, v := range vs {
		if holds(v) {
			out = append(out, v)
		}
	}
	return out
}

// free returns the values of a key that only the pool defines.
func (b *poolBuilder) free(key int32) []int32 {
	if v, ok := b.labels[key]; ok {
		return b.allowed(key, []int32{v})
	}
	reqs := b.byKey[key]
	for i := range reqs {
		if reqs[i].op == In {
			return b.allowed(key, reqs[i].values)
		}
	}
	if len(reqs) == 0 || slices.ContainsFunc(reqs, func(r creq) bool { return r.op == DoesNotExist }) {
		return b.allowed(key, []int32{valAbsent})
	}
	// Open: any value that a class names, or one that nobody names.
	b.cat.openEnded[key] = true
	var vs []int32
	for v := range b.c.mentioned[key] {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	vs = b.allowed(key, vs)
	other := true
	for i := range reqs {
		if reqs[i].op != Exists && reqs[i].op != NotIn {
			other = false
		}
	}
	if other || len(vs) == 0 {
		vs = append(vs, valOther)
	}
	return vs
}

// typeInfo is an instance type with its labels interned: the same for every
// pool that offers it.
type typeInfo struct {
	listed []typeLabel
	offers []offerInfo
}

type typeLabel struct {
	key int32
	op  Operator
	vs  []int32
}

type offerInfo struct {
	zone, ct int32
	labels   [][2]int32 // key and value
}

func (l *typeInfo) lists(key int32) bool {
	for i := range l.listed {
		if l.listed[i].key == key {
			return true
		}
	}
	return false
}

func (o *offerInfo) brings(key int32) bool {
	for i := range o.labels {
		if o.labels[i][0] == key {
			return true
		}
	}
	return false
}

// intern reads the labels of an instance type, of those that matter.
func (c *Cluster) intern(it *InstanceType, matters map[string]bool) *typeInfo {
	zone, ct, typ, res := c.sym.key(LabelZone), c.sym.key(LabelCapacityType), c.sym.key(LabelInstanceType), c.sym.key(LabelReservationID)
	ti := &typeInfo{listed: make([]typeLabel, 0, min(len(it.Requirements), len(matters))+1), offers: make([]offerInfo, len(it.Offerings))}
	for i := range it.Requirements {
		r := &it.Requirements[i]
		if !matters[r.Key] {
			continue
		}
		l := typeLabel{key: c.sym.key(r.Key), op: r.Operator}
		if r.Operator == In {
			l.vs = make([]int32, 0, len(r.Values))
			for _, v := range r.Values {
				l.vs = append(l.vs, c.sym.value(l.key, v))
			}
		}
		ti.listed = append(ti.listed, l)
	}
	if matters[LabelInstanceType] && !ti.lists(typ) {
		ti.listed = append(ti.listed, typeLabel{typ, In, []int32{c.sym.value(typ, it.Name)}})
	}
	value := func(key int32, v string) int32 {
		if v == "" {
			return valAbsent
		}
		return c.sym.value(key, v)
	}
	for i := range it.Offerings {
		o := &it.Offerings[i]
		oi := &ti.offers[i]
		oi.zone, oi.ct = value(zone, o.Zone), value(ct, o.CapacityType)
		var room [8]string
		own := room[:0]
		for k := range o.Labels {
			if matters[k] {
				own = append(own, k)
			}
		}
		slices.Sort(own)
		for _, k := range own {
			if key := c.sym.key(k); key != zone && key != ct {
				oi.labels = append(oi.labels, [2]int32{key, value(key, o.Labels[k])})
			}
		}
		if o.ReservationID != "" && !oi.brings(res) {
			oi.labels = append(oi.labels, [2]int32{res, c.sym.value(res, o.ReservationID)})
		}
	}
	return ti
}

// columns lists the ways to get an instance type from the pool.
func (b *poolBuilder) columns(it *InstanceType, ti *typeInfo) []tmpColumn {
	c := b.c
	type decided struct {
		key int32
		vs  []int32
	}
	fixed := make([]decided, 0, len(ti.listed)+len(b.extra))
	absent := []int32{valAbsent}
	for i := range ti.listed {
		l := &ti.listed[i]
		if l.key == b.zone || l.key == b.ct {
			continue // the offering decides
		}
		var vs []int32
		switch l.op {
		case In:
			vs = b.allowed(l.key, l.vs)
		case Exists:
			vs = b.free(l.key)
		default:
			vs = b.allowed(l.key, absent)
		}
		if len(vs) == 0 && !slices.ContainsFunc(ti.offers, func(o offerInfo) bool { return o.brings(l.key) }) {
			return nil
		}
		fixed = append(fixed, decided{l.key, vs})
	}
	for _, k := range b.extra {
		if k != b.pool && k != b.zone && k != b.ct && !ti.lists(k) {
			fixed = append(fixed, decided{k, b.free(k)})
		}
	}
	out := make([]tmpColumn, 0, len(ti.offers))
	var multi []decided
	arena := make([]int32, len(ti.offers)*len(b.keys))
	var one [1]int32
	for oi := range ti.offers {
		o := &ti.offers[oi]
		ok := true
		base := arena[:len(b.keys):len(b.keys)]
		arena = arena[len(b.keys):]
		multi = multi[:0]
		settle := func(key int32, vs []int32) {
			if len(vs) == 0 {
				ok = false
				return
			}
			i, play := b.index[key]
			if !play {
				return
			}
			base[i] = vs[0]
			if len(vs) > 1 {
				multi = append(multi, decided{key, vs})
				b.cat.multi[key] = true
			}
		}
		single := func(key, val int32) {
			one[0] = val
			settle(key, b.allowed(key, one[:]))
		}
		single(b.zone, o.zone)
		single(b.ct, o.ct)
		for _, l := range o.labels {
			single(l[0], l[1])
		}
		for _, d := range fixed {
			if !ok {
				break
			}
			if !o.brings(d.key) {
				settle(d.key, d.vs)
			}
		}
		if !ok {
			continue
		}
		if i, play := b.index[b.pool]; play {
			base[i] = c.sym.value(b.pool, b.p.Name)
		}
		if i, play := b.index[c.hostKey]; play {
			base[i] = valOther
		}
		if len(multi) == 0 {
			t := tmpColumn{off: &it.Offerings[oi], vals: base}
			b.daemonsOf(&t, b.index)
			out = append(out, t)
			continue
		}
		// By name: the numbers are given in the order of first sight, which must
		// not matter.
		slices.SortFunc(multi, func(x, y decided) int { return strings.Compare(c.sym.tab[x.key].name, c.sym.tab[y.key].name) })
		expand := [][]int32{base}
		for _, m := range multi {
			m.vs = slices.Clone(m.vs)
			slices.SortFunc(m.vs, func(x, y int32) int { return strings.Compare(c.sym.valueName(m.key, x), c.sym.valueName(m.key, y)) })
			i := b.index[m.key]
			var next [][]int32
			for _, e := range expand {
				for _, v := range m.vs {
					n := slices.Clone(e)
					n[i] = v
					next = append(next, n)
				}
			}
			expand = next
		}
		for _, vals := range expand {
			t := tmpColumn{off: &it.Offerings[oi], vals: vals}
			b.daemonsOf(&t, b.index)
			out = append(out, t)
		}
	}
	return out
}

// daemonsOf finds the daemon classes that will run on a column's machines.
func (b *poolBuilder) daemonsOf(t *tmpColumn, index map[int32]int) {
	if len(b.c.daemons) == 0 {
		return
	}
	holds := func(rs []creq) bool {
		for i := range rs {
			if !b.c.sym.holds(&rs[i], t.vals[index[rs[i].key]]) {
				return false
			}
		}
		return true
	}
	var sb strings.Builder
	for _, d := range b.c.daemons {
		dc := b.c.classes[d]
		if _, bad := firstUntolerated(dc.pc.Tolerations, b.p.Taints, false); bad {
			continue
		}
		if !holds(dc.sel) {
			continue
		}
		ok := len(dc.aff) == 0
		for _, term := range dc.aff {
			if len(term) > 0 && holds(term) {
				ok = true
				break
			}
		}
		if ok {
			t.dset = append(t.dset, d)
			fmt.Fprintf(&sb, "%d,", d)
		}
	}
	t.daemons = sb.String()
}

// valueMask is the columns on which a label has a value.
type valueMask struct {
	val  int32
	mask bitset
}

// valueMasks lists the values of a key over all columns, by value.
func (cat *catalog) valueMasks(key int32) []valueMask {
	if ms, ok := cat.masks[key]; ok {
		return ms
	}
	index := map[int32]int{}
	var ms []valueMask
	for col, val := range cat.vals[key] {
		i, ok := index[val]
		if !ok {
			i = len(ms)
			index[val] = i
			ms = append(ms, valueMask{val, newBitset(len(cat.cols))})
		}
		ms[i].mask.set(int32(col))
	}
	sort.Slice(ms, func(i, j int) bool { return ms[i].val < ms[j].val })
	if cat.masks == nil {
		cat.masks = map[int32][]valueMask{}
	}
	cat.masks[key] = ms
	return ms
}

// reqRow is the set of columns on which a requirement holds.
func (c *Cluster) reqRow(cat *catalog, r *creq) bitset {
	c.text = r.cacheKey(c.text[:0])
	if row, ok := cat.reqRows[string(c.text)]; ok {
		return row
	}
	key := string(c.text)
	row := newBitset(len(cat.cols))
	vals := cat.vals[r.key]
	verdict := map[int32]bool{}
	for i, v := range vals {
		ok, seen := verdict[v]
		if !seen {
			ok = c.sym.holds(r, v)
			verdict[v] = ok
		}
		if ok {
			row.set(int32(i))
		}
	}
	cat.reqRows[key] = row
	return row
}

// termsRow ANDs into row the columns on which one of the terms holds.
func (c *Cluster) termsRow(cat *catalog, row bitset, terms [][]creq, emptyHolds bool) {
	any := newBitset(len(cat.cols))
	for _, t := range terms {
		if len(t) == 0 && !emptyHolds {
			continue
		}
		one := cat.all.clone()
		for i := range t {
			one.and(c.reqRow(cat, &t[i]))
		}
		any.or(one)
	}
	row.and(any)
}

// labelRow is the set of columns that satisfy node selector and affinity.
func (c *Cluster) labelRow(cat *catalog, cl *class) bitset {
	row := cat.all.clone()
	for i := range cl.sel {
		row.and(c.reqRow(cat, &cl.sel[i]))
	}
	if len(cl.aff) > 0 {
		c.termsRow(cat, row, cl.aff, false)
	}
	return row
}

// taintRow takes out the pools whose taints the class does not tolerate.
func (c *Cluster) taintRow(cat *catalog, row bitset, cl *class, strict bool) {
	for i := range cat.pools {
		p := &cat.pools[i]
		if _, bad := firstUntolerated(cl.pc.Tolerations, p.p.Taints, strict); bad {
			row.clearRange(p.lo, p.hi)
		}
	}
}

// volumeRow ANDs the places where the class's volumes can be.
func (c *Cluster) volumeRow(cat *catalog, row bitset, cl *class) {
	for _, terms := range cl.vols {
		c.termsRow(cat, row, terms, true)
	}
}

// fitRow takes out the kinds that cannot hold one pod of the class.
func (c *Cluster) fitRow(cat *catalog, row bitset, cl *class) { row.and(c.fitOf(cat, cl)) }

// fitOf is the set of columns with room for one pod of the class; classes of
// the same size share it.
func (c *Cluster) fitOf(cat *catalog, cl *class) bitset {
	key := cl.fitKey()
	plain := key.class < 0
	if row, ok := cat.fitRows[key]; ok {
		return row
	}
	row := newBitset(len(cat.cols))
	for i := range cat.kinds {
		k := &cat.kinds[i]
		if fits(cl.vec, k.alloc) && (plain || !conflictAny(cl.pc.HostPorts, k.ports) && c.newShared(cl, k.shared, k.alloc) >= 0) {
			row.setRange(k.lo, k.hi)
		}
	}
	cat.fitRows[key] = row
	return row
}

func (cl *class) fitKey() fitKey {
	if len(cl.pc.HostPorts) == 0 && len(cl.pc.SharedVolumes) == 0 {
		return fitKey{cl.vecID, -1}
	}
	return fitKey{cl.vecID, cl.id}
}

// rowSet interns a set of columns, which belongs to the catalogue from then on.
func (cat *catalog) rowSet(row bitset) *rowSet {
	h := uint64(14695981039346656037)
	for _, w := range row {
		h = (h ^ w) * 1099511628211
	}
	for _, s := range cat.rowIDs[h] {
		if slices.Equal(s.bits, row) {
			return s
		}
	}
	cat.rowCount++
	s := &rowSet{row, cat.rowCount}
	cat.rowIDs[h] = append(cat.rowIDs[h], s)
	return s
}

// domainKey names the columns of a row set split by a label.
type domainKey struct {
	row int32
	key int32
}

// domainMask is the columns of a set on which a label has a value. It is not
// changed.
type domainMask struct {
	val  int32
	mask bitset
}

// domainsOf splits a set of columns by the values of a label, in the order of
// their names: numbers are given in the order of first sight, which must not
// matter.
func (c *Cluster) domainsOf(cat *catalog, row *rowSet, key int32) []domainMask {
	k := domainKey{row.id, key}
	ds, ok := cat.domains[k]
	if ok {
		return ds
	}
	for _, vm := range cat.valueMasks(key) {
		if row.bits.meets(vm.mask) {
			mask := row.bits.clone()
			mask.and(vm.mask)
			ds = append(ds, domainMask{vm.val, mask})
		}
	}
	names := c.sym.tab[key].names
	slices.SortFunc(ds, func(a, b domainMask) int { return strings.Compare(names[a.val], names[b.val]) })
	cat.domains[k] = ds
	return ds
}

// newShared returns how many shared volumes of the class are not in have, or
// -1 when the room left does not suffice for them.
func (c *Cluster) newShared(cl *class, have []SharedVolume, free []int64) int {
	n := 0
	for i, v := range cl.pc.SharedVolumes {
		if slices.Contains(have, v) || slices.Contains(cl.pc.SharedVolumes[:i], v) {
			continue
		}
		n++
		d := c.dims.ids[attachPrefix+v.Driver]
		need := int64(n)
		if d < len(cl.vec) {
			need += cl.vec[d]
		}
		if d < len(free) && need > free[d] {
			return -1
		}
	}
	return n
}

func conflictAny(a, b []HostPort) bool {
	for _, x := range a {
		for _, y := range b {
			if portsConflict(x, y) {
				return true
			}
		}
	}
	return false
}

// fits says whether a vector fits into what is free. Missing trailing
// dimensions of either are zero.
func fits(vec, free []int64) bool {
	for d, r := range vec {
		if r > 0 && (d >= len(free) || r > free[d]) {
			return false
		}
	}
	return true
}

// fitCount is how many times a vector fits, at most limit.
func fitCount(vec, free []int64, limit int64) int64 {
	for d, r := range vec {
		if r <= 0 {
			continue
		}
		if d >= len(free) || free[d] < r {
			return 0
		}
		if limit > math.MaxInt32 || free[d] < r*limit {
			limit = min(limit, free[d]/r)
		}
	}
	return limit
}
