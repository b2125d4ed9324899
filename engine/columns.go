// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tmpColumn is a column during compilation.
type tmpColumn struct {
	off     *Offering
	vals    []int32 // aligned with poolBuilder.keys
	daemons string
	dset    []ClassID
}

// poolBuilder decides the labels of the machines of a pool.
type poolBuilder struct {
	c      *Cluster
	cat    *catalog
	p      *NodePool
	keys   []int32       // Cluster.inPlay, sorted
	index  map[int32]int // of keys
	byKey  map[int32][]creq
	labels map[int32]int32
	extra  []int32 // keys of the pool's requirements and labels
	zone   int32
	ct     int32
	pool   int32
	frees  map[int32][]int32 // see free
	// The combinations of these labels, see combos.
	comboOf   []decided
	comboList [][]int32
	out       []tmpColumn // scratch of columns
}

// newPoolBuilder returns the builder of a pool with these compiled requirements.
func newPoolBuilder(c *Cluster, cat *catalog, p *NodePool, reqs []creq, keys []int32) *poolBuilder {
	b := &poolBuilder{c: c, cat: cat, p: p, keys: keys, byKey: map[int32][]creq{}, labels: map[int32]int32{}, frees: map[int32][]int32{}}
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
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		id := c.sym.key(k)
		b.labels[id] = c.sym.value(id, p.Labels[k])
		add(id)
	}
	b.zone, b.ct = c.sym.key(LabelZone), c.sym.key(LabelCapacityType)
	b.pool = c.sym.key(LabelNodePool)
	return b
}

// allowed filters the values of a key by the pool's requirements and labels.
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

// free returns the values of a key that only the pool restricts, always in the
// same slice.
func (b *poolBuilder) free(key int32) []int32 {
	vs, ok := b.frees[key]
	if !ok {
		vs = b.restricted(key)
		b.frees[key] = vs
	}
	return vs
}

// restricted finds the values of a key that only the pool restricts.
func (b *poolBuilder) restricted(key int32) []int32 {
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
	// Open: any value that a class names, or another one.
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

// typeInfo is an instance type with interned labels. All pools that offer it
// share it.
type typeInfo struct {
	listed []typeLabel
	offers []offerInfo
}

// typeInfos interns the instance types of each catalogue once.
type typeInfos struct {
	c           *Cluster
	relevant    map[string]bool
	byCatalogue map[int][]*typeInfo
}

func (t *typeInfos) of(catalogue int) []*typeInfo {
	if list, ok := t.byCatalogue[catalogue]; ok {
		return list
	}
	types := t.c.catalogues[catalogue].InstanceTypes
	list := make([]*typeInfo, len(types))
	for i := range types {
		list[i] = t.c.intern(&types[i], t.relevant)
	}
	t.byCatalogue[catalogue] = list
	return list
}

// typeLabel is a label of an instance type.
type typeLabel struct {
	key int32
	op  Operator
	vs  []int32
}

// offerInfo is an offering with interned labels.
type offerInfo struct {
	zone, ct int32
	labels   [][2]int32 // key and value
}

// lists reports whether the type decides a label.
func (l *typeInfo) lists(key int32) bool {
	for i := range l.listed {
		if l.listed[i].key == key {
			return true
		}
	}
	return false
}

// brings reports whether the offering decides a label itself.
func (o *offerInfo) brings(key int32) bool {
	for i := range o.labels {
		if o.labels[i][0] == key {
			return true
		}
	}
	return false
}

// intern interns the relevant labels of an instance type.
func (c *Cluster) intern(it *InstanceType, relevant map[string]bool) *typeInfo {
	zone, ct, typ, res := c.sym.key(LabelZone), c.sym.key(LabelCapacityType), c.sym.key(LabelInstanceType), c.sym.key(LabelReservationID)
	ti := &typeInfo{listed: make([]typeLabel, 0, min(len(it.Requirements), len(relevant))+1), offers: make([]offerInfo, len(it.Offerings))}
	for i := range it.Requirements {
		r := &it.Requirements[i]
		if !relevant[r.Key] {
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
	if relevant[LabelInstanceType] && !ti.lists(typ) {
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
			if relevant[k] {
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

// columns returns the columns of an instance type in the pool, until the next
// call.
func (b *poolBuilder) columns(it *InstanceType, ti *typeInfo) []tmpColumn {
	c := b.c
	fixed := make([]decided, 0, len(ti.listed)+len(b.extra))
	absent := []int32{valAbsent}
	for i := range ti.listed {
		l := &ti.listed[i]
		if l.key == b.zone || l.key == b.ct {
			continue // the offering decides it
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
	out := b.out[:0]
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
		list := b.combos(multi)
		at := make([]int, len(multi))
		for i, m := range multi {
			at[i] = b.index[m.key]
		}
		arena := make([]int32, 0, len(list)*len(base))
		if len(out)+len(list) > cap(out) {
			out = slices.Grow(out, len(list)*(len(ti.offers)-oi))
		}
		for _, combo := range list {
			arena = append(arena, base...)
			vals := arena[len(arena)-len(base):]
			for i, v := range combo {
				vals[at[i]] = v
			}
			t := tmpColumn{off: &it.Offerings[oi], vals: vals}
			b.daemonsOf(&t, b.index)
			out = append(out, t)
		}
	}
	b.out = out
	return out
}

// daemonsOf finds the daemon classes that will run on machines of a column.
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
		for _, terms := range dc.vols {
			ok = ok && slices.ContainsFunc(terms, holds)
		}
		if ok {
			t.dset = append(t.dset, d)
			fmt.Fprintf(&sb, "%d,", d)
		}
	}
	t.daemons = sb.String()
}
