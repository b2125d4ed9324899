// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"sort"
	"strings"
)

// baseKey identifies what decides by labels, taints and volumes which columns can
// hold a class: signatures of the class.
type baseKey struct {
	aff, tol, vol int32
	strict        bool
}

// fitKey identifies what decides by size which columns can hold a class: its
// requests or, if it has host ports or shared volumes, the class.
type fitKey struct {
	vec   int32
	class ClassID // or -1
}

// rowKey identifies all that decides which columns can hold a class. The preferred
// term with index pref counts if pref ≥ 0.
type rowKey struct {
	base baseKey
	fit  fitKey
	pref int
	term ClassID // the class of the preferred term, or -1
	anti ClassID // the class, if anti-affinity sets it and a daemon apart, or -1
}

// rowSet is an interned set of columns. Equal sets have equal numbers. It must not
// be changed.
type rowSet struct {
	bits bitset
	id   int32
}

// rowSet interns a set of columns. The catalogue takes ownership of it.
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

// columnsOf returns the available columns that can hold one pod of a class. With
// strict PreferNoSchedule taints repel, and the preferred term with index pref
// counts if pref ≥ 0.
func (c *Cluster) columnsOf(cat *catalog, cl *class, strict bool, pref int) *rowSet {
	base := baseKey{cl.affID, cl.tolID, cl.volID, strict}
	key := rowKey{base, cl.fitKey(), pref, -1, -1}
	if c.mindsDaemons(cl) {
		key.anti = cl.id
	}
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
	if key.anti >= 0 {
		c.daemonRow(cat, row, cl)
	}
	set := cat.rowSet(row)
	cat.rowSets[key] = set
	return set
}

func (cl *class) fitKey() fitKey {
	if len(cl.pc.HostPorts) == 0 && len(cl.pc.SharedVolumes) == 0 {
		return fitKey{cl.vecID, -1}
	}
	return fitKey{cl.vecID, cl.id}
}

// fitOf returns the columns with room for one pod of the class. Classes of the
// same size share the set.
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

// newShared returns how many shared volumes of the class are not in have, or -1 if
// free does not suffice to attach them.
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

// valueMask is the columns with one value of a label.
type valueMask struct {
	val  int32
	mask bitset
}

// valueMasks returns the columns per value of a key, sorted by value.
func (cat *catalog) valueMasks(key int32) []valueMask {
	if ms, ok := cat.masks[key]; ok {
		return ms
	}
	var index []int32 // by value: 1 + index in ms
	var ms []valueMask
	for col, val := range cat.vals[key] {
		if int(val) >= len(index) {
			index = append(index, make([]int32, int(val)+1-len(index))...)
		}
		if index[val] == 0 {
			ms = append(ms, valueMask{val, newBitset(len(cat.cols))})
			index[val] = int32(len(ms))
		}
		ms[index[val]-1].mask.set(int32(col))
	}
	sort.Slice(ms, func(i, j int) bool { return ms[i].val < ms[j].val })
	if cat.masks == nil {
		cat.masks = map[int32][]valueMask{}
	}
	cat.masks[key] = ms
	return ms
}

// reqRow returns the columns on which a requirement holds.
func (c *Cluster) reqRow(cat *catalog, r *creq) bitset {
	c.text = r.cacheKey(c.text[:0])
	if row, ok := cat.reqRows[string(c.text)]; ok {
		return row
	}
	key := string(c.text)
	row := newBitset(len(cat.cols))
	for _, vm := range cat.valueMasks(r.key) {
		if c.sym.holds(r, vm.val) {
			row.or(vm.mask)
		}
	}
	cat.reqRows[key] = row
	return row
}

// termsRow removes the columns on which none of the terms holds.
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

// labelRow returns the columns that satisfy node selector and required node
// affinity.
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

// taintRow removes the pools whose taints the class does not tolerate.
func (c *Cluster) taintRow(cat *catalog, row bitset, cl *class, strict bool) {
	for i := range cat.pools {
		p := &cat.pools[i]
		if _, bad := firstUntolerated(cl.pc.Tolerations, p.p.Taints, strict); bad {
			row.clearRange(p.lo, p.hi)
		}
	}
}

// volumeRow removes the columns where the class's volumes cannot be.
func (c *Cluster) volumeRow(cat *catalog, row bitset, cl *class) {
	for _, terms := range cl.vols {
		c.termsRow(cat, row, terms, true)
	}
}

// fitRow removes the kinds that cannot hold one pod of the class.
func (c *Cluster) fitRow(cat *catalog, row bitset, cl *class) { row.and(c.fitOf(cat, cl)) }

// domainKey identifies a set of columns and the label that splits it.
type domainKey struct {
	row int32
	key int32
}

// domainMask is the columns of a set with one value of a label. It must not be
// changed.
type domainMask struct {
	val  int32
	mask bitset
}

// domainsOf splits a set of columns by the values of a label, sorted by name:
// numbers depend on the order in which values were seen.
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
