// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"slices"
)

// plannedMachine is a machine to create and the pods that will be on it.
//
// Invariant: free is what its column has for pods less what pods take; every pod
// may be on the column; pins are the labels whose values it must keep when it
// changes to another column, because a counter or a rule relies on them. A
// machine of a NodePool with minValues can still be of enough offerings.
//
// It does not touch the ledger: the caller that opens a machine or changes its
// column draws and refunds there.
type plannedMachine struct {
	cat    *catalog
	col    int32
	kind   int32
	pool   int32
	free   []int64
	pods   []placed
	host   []hostCount // by counter over the hostname
	pins   []int32
	ports  []HostPort     // taken
	shared []SharedVolume // attached

	at        int        // index among the machines when it was opened
	minValues []minValue // to be kept; nil under best effort
	pinBuf    [4]int32   // space for the first few pins
}

// hostCount is what a counter over the hostname counts on a machine.
type hostCount struct {
	ctr *counter
	n   int32
}

// newPlannedMachine returns an empty machine of a column.
func newPlannedMachine(cat *catalog, col int32, at int, policy MinValuesPolicy) *plannedMachine {
	ki := cat.cols[col].kind
	k := &cat.kinds[ki]
	m := &plannedMachine{cat: cat, col: col, kind: ki, pool: k.pool, free: slices.Clone(k.alloc), ports: slices.Clip(k.ports), shared: slices.Clip(k.shared), at: at}
	m.pods, m.pins = make([]placed, 0, 8), m.pinBuf[:0]
	if policy != MinValuesBestEffort {
		m.minValues = cat.pools[k.pool].minValues
	}
	return m
}

// room returns how many of n pods of the variant the machine can take.
func (m *plannedMachine) room(v *variant, n int64) int64 {
	cl := v.pc.cl
	k := fitCount(cl.vec, m.free, n)
	if k == 0 {
		return 0
	}
	if k = v.fitBeside(k, m.ports, m.count, true); k == 0 {
		return 0
	}
	if len(cl.pc.SharedVolumes) > 0 {
		k = m.cat.resources.fitShared(cl, m.free, k, func(s SharedVolume) bool { return slices.Contains(m.shared, s) })
	}
	if len(m.minValues) > 0 {
		for k > 0 && !m.keepsMinValues(v, k) {
			k /= 2
		}
	}
	return k
}

// commit puts k pods of the class on the machine, from the one numbered first on.
// There must be room for them.
func (m *plannedMachine) commit(v *variant, first int, k int64) {
	cl := v.pc.cl
	for d, r := range cl.vec {
		m.free[d] -= r * k
	}
	m.ports = append(m.ports, cl.pc.HostPorts...)
	for _, s := range cl.pc.SharedVolumes {
		if !slices.Contains(m.shared, s) {
			m.shared = append(m.shared, s)
			m.free[m.cat.resources.ids[attachPrefix+s.Driver]]--
		}
	}
	for _, ctr := range v.pc.contrib {
		ctr.addMachine(m, int32(k))
	}
	for _, key := range m.cat.pinsOf(v) {
		if !slices.Contains(m.pins, key) {
			m.pins = append(m.pins, key)
		}
	}
	if last := len(m.pods) - 1; last >= 0 && m.pods[last].continues(v, first) {
		m.pods[last].n += int(k)
	} else {
		m.pods = append(m.pods, placed{v, first, int(k)})
	}
}

// unload takes the last pod of run j off the machine, or puts it back (sign -1).
// The pod must not have host ports or shared volumes.
func (m *plannedMachine) unload(j int, sign int) {
	p := &m.pods[j]
	p.n -= sign
	for d, r := range p.v.pc.vec {
		m.free[d] += r * int64(sign)
	}
	for _, ctr := range p.v.pc.contrib {
		ctr.addMachine(m, int32(-sign))
	}
}

// count returns what a counter over the hostname counts on the machine.
func (m *plannedMachine) count(ctr *counter) int64 {
	for i := range m.host {
		if m.host[i].ctr == ctr {
			return int64(m.host[i].n)
		}
	}
	return 0
}

func (m *plannedMachine) addCount(ctr *counter, n int32) {
	for i := range m.host {
		if m.host[i].ctr == ctr {
			m.host[i].n += n
			return
		}
	}
	m.host = append(m.host, hostCount{ctr, n})
}

// countAll adds all pods of the machine to the counters that count them (sign 1),
// which starts the machine's own counts anew, or takes them out (sign -1).
func (m *plannedMachine) countAll(sign int32) {
	if sign > 0 {
		m.host = m.host[:0:0]
	}
	for i := range m.pods {
		for _, ctr := range m.pods[i].v.pc.contrib {
			ctr.addMachine(m, sign*int32(m.pods[i].n))
		}
	}
}

// clone returns a copy that later changes of the machine do not affect.
func (m *plannedMachine) clone() plannedMachine {
	c := *m
	c.free, c.pods, c.host, c.pins = slices.Clone(m.free), slices.Clone(m.pods), slices.Clone(m.host), slices.Clone(m.pins)
	c.ports, c.shared = slices.Clone(m.ports), slices.Clone(m.shared)
	return c
}

// become changes the column to another one that holds what the pods use.
func (m *plannedMachine) become(col int32, used []int64) {
	m.col = col
	m.kind = m.cat.cols[col].kind
	m.free = append(m.free[:0], m.cat.kinds[m.kind].alloc...)
	sub(m.free, used)
}

// used returns what the pods take, in buf.
func (m *plannedMachine) used(buf []int64) []int64 {
	buf = append(buf[:0], m.cat.kinds[m.kind].alloc...)
	for d := range buf {
		buf[d] -= m.free[d]
	}
	return buf
}

// price returns the price of the machine's column.
func (m *plannedMachine) price() float64 { return m.cat.cols[m.col].price }

// mayBe reports whether every pod may be on a column, by the rules of its class.
func (m *plannedMachine) mayBe(col int32) bool {
	for i := range m.pods {
		if !m.pods[i].v.row.has(col) {
			return false
		}
	}
	return true
}

// columns returns the columns that every pod may be on, in row if it is not nil.
func (m *plannedMachine) columns(row bitset) bitset {
	if row == nil {
		row = newBitset(len(m.cat.cols))
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

// pinned reports whether a column has the values that the machine must keep.
func (m *plannedMachine) pinned(col int32) bool { return m.cat.agree(m.pins, col, m.col) }

// portsFit reports whether the daemons of a kind leave the pods' host ports free.
func (m *plannedMachine) portsFit(k *kind) bool {
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

// inTuple reports whether the machine is in a tuple's domains or could be.
func (m *plannedMachine) inTuple(v *variant, t *tuple) bool {
	for i, key := range v.keys {
		if m.cat.vals[key][m.col] != t.vals[i] && slices.Contains(m.pins, key) {
			return false
		}
	}
	return true
}

// frozen reports whether the machine must stay as the quick path made it: it uses
// a reservation, or its pods share volumes or follow each other on the host.
func (m *plannedMachine) frozen() bool {
	if m.cat.cols[m.col].reserve >= 0 {
		return true
	}
	for i := range m.pods {
		if v := m.pods[i].v; len(v.pc.cl.pc.SharedVolumes) > 0 || v.followsOnHost() {
			return true
		}
	}
	return false
}

// keepsMinValues reports whether the machine with k more pods can still be of
// enough different offerings.
func (m *plannedMachine) keepsMinValues(v *variant, k int64) bool {
	used := m.used(nil)
	cl := v.pc.cl
	for d, r := range cl.vec {
		used[d] += r * k
	}
	for i, s := range cl.pc.SharedVolumes {
		if !slices.Contains(m.shared, s) && !slices.Contains(cl.pc.SharedVolumes[:i], s) {
			used[m.cat.resources.ids[attachPrefix+s.Driver]]++
		}
	}
	row := v.row.clone()
	pins := append(slices.Clone(m.pins), m.cat.pinsOf(v)...)
	for i := range m.pods {
		row.and(m.pods[i].v.row)
	}
	return m.cat.minValuesHold(&m.cat.pools[m.pool], row, m.col, pins, used)
}

// contentKey appends a key that is equal for machines of one column that hold the
// same.
func (m *plannedMachine) contentKey(b []byte, used []int64) []byte {
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

// pinsOf returns the labels whose values are settled on a machine that takes a
// pod of the variant: those that a counter or a rule of its relies on, and those
// that it looks at and of which the machine could still take one of several
// values, as two requirements could otherwise be met by different ones.
func (cat *catalog) pinsOf(v *variant) []int32 {
	if v.pins != nil {
		return v.pins
	}
	v.pins = append(append(v.pinBuf[:0], v.pc.pinKeys...), v.keys...)
	for _, key := range v.pc.cl.keys {
		if cat.multi[key] {
			v.pins = append(v.pins, key)
		}
	}
	slices.Sort(v.pins)
	v.pins = slices.Compact(v.pins)
	return v.pins
}

// agree reports whether two columns have the same values of some labels. The
// hostname is left out, as every machine has a different one.
func (cat *catalog) agree(keys []int32, a, b int32) bool {
	for _, key := range keys {
		vals := cat.vals[key]
		if key != cat.hostKey && vals[a] != vals[b] {
			return false
		}
	}
	return true
}

// minValuesHold reports whether the columns in row that agree with column at on
// the pins and hold what is used have as many different values as the pool's
// minValues require.
func (cat *catalog) minValuesHold(pool *cpool, row bitset, at int32, pins []int32, used []int64) bool {
	missing := len(pool.minValues)
	got := make([]map[int32]bool, len(pool.minValues))
	for i := range got {
		got[i] = map[int32]bool{}
	}
	for ki := pool.kindLo; ki < pool.kindHi; ki++ {
		k := &cat.kinds[ki]
		if !row.anyIn(k.lo, k.hi) || !fits(used, k.alloc) {
			continue
		}
		for col := row.next(k.lo, k.hi); col < k.hi; col = row.next(col+1, k.hi) {
			if col != at && cat.cols[col].reserve >= 0 || !cat.agree(pins, col, at) {
				continue
			}
			for i, mv := range pool.minValues {
				val := cat.vals[mv.key][col]
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
