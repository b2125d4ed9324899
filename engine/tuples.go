// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"slices"
	"strings"
)

// tuple is a combination of domains, one per topology key of a variant, with the
// nodes and columns in it.
//
// Invariant: while a class is placed its room in a tuple only shrinks, so the
// cursors never go back.
type tuple struct {
	vals       []int32 // aligned with variant.keys
	mask       bitset  // columns
	nodes      []int32
	nodeCur    int
	machineCur int
	noOpen     bool // no machine can be created here
	dead       bool // nothing more can be placed here
	choice     choice
}

// tuples are the domains that the pods of a variant can go to.
type tuples struct {
	v    *variant
	list []*tuple
}

// value returns the tuple's domain for the topology key of a rule.
func (t *tuple) value(v *variant, k *check) int32 { return t.vals[slices.Index(v.keys, k.ctr.key)] }

// singleTuple holds all nodes and columns, for a variant without rules over
// domains.
func singleTuple(v *variant, nodes []int32) tuples {
	return tuples{v, []*tuple{{mask: v.row, nodes: nodes}}}
}

// tupleIndex finds tuples by their values.
type tupleIndex struct {
	list  []*tuple
	short map[[4]int32]*tuple
	long  map[string]*tuple // for more keys than four
	buf   []byte
}

func (x *tupleIndex) find(vals []int32) *tuple {
	var k [4]int32
	if len(vals) <= len(k) {
		copy(k[:], vals)
		if t := x.short[k]; t != nil {
			return t
		}
	} else {
		x.buf = x.buf[:0]
		for _, val := range vals {
			x.buf = binary.LittleEndian.AppendUint32(x.buf, uint32(val))
		}
		if t := x.long[string(x.buf)]; t != nil {
			return t
		}
	}
	t := &tuple{vals: slices.Clone(vals)}
	x.list = append(x.list, t)
	if len(vals) <= len(k) {
		x.short[k] = t
		return t
	}
	if x.long == nil {
		x.long = map[string]*tuple{}
	}
	x.long[string(x.buf)] = t
	return t
}

// newTuples groups nodes and columns by their domains, in the order of the
// domains' names.
func newTuples(c *Cluster, cat *catalog, v *variant, nodes []int32) tuples {
	keys := v.keys
	x := tupleIndex{short: make(map[[4]int32]*tuple, 8)}
	vals := make([]int32, len(keys))
	for _, slot := range nodes {
		open := false
		for i, key := range keys {
			vals[i] = c.nodeVal(key, slot)
			if _, o := c.nodes[slot].open[key]; o {
				open = true
			}
		}
		if open {
			continue
		}
		t := x.find(vals)
		if !v.unmet(vals) {
			t.nodes = append(t.nodes, slot)
		}
	}
	n := int32(len(cat.cols))
	if len(keys) == 1 {
		ds := c.domainsOf(cat, v.rows, keys[0])
		if len(x.list) == 0 {
			list := make([]*tuple, 0, len(ds))
			for i := range ds {
				list = append(list, &tuple{vals: []int32{ds[i].val}, mask: ds[i].mask})
			}
			return tuples{v, list}
		}
		for i := range ds {
			vals[0] = ds[i].val
			x.find(vals).mask = ds[i].mask
		}
	} else {
		for i := v.row.next(0, n); i < n; i = v.row.next(i+1, n) {
			for j, key := range keys {
				vals[j] = cat.vals[key][i]
			}
			t := x.find(vals)
			if t.mask == nil {
				t.mask = newBitset(int(n))
			}
			t.mask.set(i)
		}
	}
	// Sorted by name: numbers depend on the order in which values were seen.
	slices.SortFunc(x.list, func(a, b *tuple) int {
		for i, key := range keys {
			names := c.sym.tab[key].names
			if c := strings.Compare(names[a.vals[i]], names[b.vals[i]]); c != 0 {
				return c
			}
		}
		return 0
	})
	for _, t := range x.list {
		if t.mask == nil {
			t.mask = newBitset(int(n))
			t.noOpen = true
		}
	}
	return tuples{v, x.list}
}

// unmet reports whether nodes in some domains do not meet an affinity that new
// machines meet by their daemons.
func (v *variant) unmet(vals []int32) bool {
	for i := range v.domain {
		if k := &v.domain[i]; k.brought && k.ctr.at(vals[slices.Index(v.keys, k.ctr.key)]) == 0 {
			return true
		}
	}
	return false
}

// room returns how many pods the rules of a variant allow in a tuple now, and how
// many pods its spread constraints count there. mins are the least counts of the
// rules.
func (t *tuple) room(v *variant, mins []int64, boot bool) (room, crowd int64) {
	room = noCap
	for i := range v.domain {
		k := &v.domain[i]
		val := t.value(v, k)
		if val == valAbsent {
			if k.kind == checkAnti || k.kind == checkForbid {
				continue // no domain, no conflict
			}
			return 0, 0
		}
		cnt := k.count(val)
		room = min(room, k.room(cnt, k.minWith(mins[i], val), boot || k.brought && !t.noOpen))
		if k.kind == checkSpread {
			crowd += cnt
			if k.self && room > 1 {
				room = 1
			}
		}
	}
	return room, crowd
}

// next returns the tuple for the next pods and how many of them it takes: of
// those that the rules allow first the ones whose nodes have room, then the least
// crowded, then the first. It returns nil if no pod can be placed.
func (ts *tuples) next(c *Cluster, s *strategy) (*tuple, int64) {
	v := ts.v
	boot := v.bootstrap()
	var few [4]int64
	mins := append(few[:0], make([]int64, len(v.domain))...)
	for i := range v.domain {
		mins[i] = v.domain[i].min()
	}
	var best *tuple
	var bestCrowd, bestRoom int64
	bestFree := false
	for _, t := range ts.list {
		if t.dead {
			continue
		}
		room, crowd := t.room(v, mins, boot)
		if room == 0 {
			continue
		}
		// A domain whose nodes have room is free, so it goes before a less crowded
		// one that needs a new machine.
		free := t.nodeCur < len(t.nodes) && !s.evenly && !(boot && s.roomy)
		if boot && s.roomy {
			crowd = -t.capacity(c, v)
		}
		if best == nil || free && !bestFree || free == bestFree && crowd < bestCrowd {
			best, bestCrowd, bestRoom, bestFree = t, crowd, room, free
		}
	}
	return best, bestRoom
}

// capacity returns how many pods of a variant fit in a tuple by their size.
func (t *tuple) capacity(c *Cluster, v *variant) int64 {
	if !t.noOpen && !t.mask.empty() {
		return noCap
	}
	n := int64(0)
	for _, slot := range t.nodes {
		n += fitCount(v.pc.cl.vec, c.nodes[slot].free, int64(len(v.pc.pods)))
	}
	return n
}

// together returns how many pods of the variant may be in a tuple's domains when
// all of them go there.
func (t *tuple) together(v *variant) int64 {
	room := int64(noCap)
	for i := range v.domain {
		k := &v.domain[i]
		val := t.value(v, k)
		if val == valAbsent {
			continue
		}
		room = min(room, k.room(k.count(val), k.minWith(k.min(), val), true))
	}
	return max(room, 1)
}

// countDomains adds a tuple's domains, where a pod of the class was placed, to
// those that its spread constraints count.
func (ts *tuples) countDomains(t *tuple) {
	v := ts.v
	for i := range v.domain {
		k := &v.domain[i]
		if k.kind != checkSpread {
			continue
		}
		if val := t.value(v, k); val != valAbsent && !slices.Contains(k.universe, val) {
			k.universe = append(slices.Clip(k.universe), val)
			k.late = append(slices.Clip(k.late), val)
		}
	}
}

// dropEmptyDomain removes a domain from those that the spread constraints count
// once it has turned out that nothing runs there and no machine can be created.
func (ts *tuples) dropEmptyDomain(t *tuple, d *domains, machines []*plannedMachine) {
	v := ts.v
	for i := range v.domain {
		k := &v.domain[i]
		if k.kind != checkSpread {
			continue
		}
		val := t.value(v, k)
		if val == valAbsent || k.ctr.at(val) > 0 {
			continue
		}
		alive := slices.ContainsFunc(ts.list, func(o *tuple) bool { return !o.dead && o.value(v, k) == val })
		if alive || d.opened[k.ctr.ck][val] || d.occupied(k.ctr, val, machines) {
			continue
		}
		k.universe = slices.DeleteFunc(slices.Clone(k.universe), func(x int32) bool { return x == val })
	}
}
