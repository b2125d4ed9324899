// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "math"

// cursors remember, per shape, where the search for room among the planned
// machines has stopped and which machine to open next, so that the next class of
// the shape continues there.
//
// Invariant: a machine before a shape's cursor has no room for its pods. Room
// only shrinks, except on machines that change their column: changed sets the
// cursors back to these.
type cursors struct {
	index   map[placeKey]int
	at      []paused
	changes int // first machine that changed while a class is placed
}

// placeKey identifies pods of one shape, and their domain if they have one.
type placeKey struct {
	s      *shape
	domain int32
}

// paused is where the search for room has stopped.
type paused struct {
	cursor int
	choice choice
}

// clear forgets everything, at the start of a run.
func (cs *cursors) clear() {
	clear(cs.index)
	cs.at = cs.at[:0]
}

// begin starts to place a class.
func (cs *cursors) begin() { cs.changes = math.MaxInt }

func (v *variant) placeKey(t *tuple) (placeKey, bool) {
	k := placeKey{v.pc.shape, -1}
	if len(t.vals) == 1 {
		k.domain = t.vals[0]
	}
	return k, k.s != nil && k.s.rowID == v.rowID && len(v.keys) <= 1
}

// sharesCursor reports whether machines without room for the class have none for
// any class of its shape: no rule within a host distinguishes the classes.
func (v *variant) sharesCursor() bool {
	return len(v.host) == 0 && len(v.pc.cl.pc.HostPorts) == 0 && len(v.pc.cl.pc.SharedVolumes) == 0
}

// resume continues where the last class of the same shape stopped.
func (cs *cursors) resume(ts *tuples) {
	for _, t := range ts.list {
		k, ok := ts.v.placeKey(t)
		if !ok {
			continue
		}
		i, ok := cs.index[k]
		if !ok {
			continue
		}
		if ts.v.sharesCursor() {
			t.machineCur = cs.at[i].cursor
		}
		t.choice = cs.at[i].choice
	}
}

// pause records where the search has stopped.
func (cs *cursors) pause(ts *tuples) {
	for _, t := range ts.list {
		k, ok := ts.v.placeKey(t)
		if !ok {
			continue
		}
		i, ok := cs.index[k]
		if !ok {
			i = len(cs.at)
			cs.index[k] = i
			cs.at = append(cs.at, paused{})
		}
		if ts.v.sharesCursor() {
			cs.at[i].cursor = min(t.machineCur, cs.changes)
		}
		cs.at[i].choice = t.choice
	}
}

// changed records that a machine changed its column.
func (cs *cursors) changed(m *plannedMachine) {
	cs.changes = min(cs.changes, m.at)
	for i := range cs.at {
		cs.at[i].cursor = min(cs.at[i].cursor, m.at)
	}
}
