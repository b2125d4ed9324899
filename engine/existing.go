// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"slices"
)

// existing is the cluster's nodes, in-flight ones included, during a pass.
//
// Invariant: saved holds the state before the pass of exactly the nodes that the
// pass has changed, so undo leaves the cluster as it was; placed lists the pods
// that were added, in order.
type existing struct {
	c      *Cluster
	saved  map[int32]*savedNode
	placed []nodePlaced
}

// nodePlaced is a run of pods on a node.
type nodePlaced struct {
	slot int32
	run  placed
}

// savedNode is what a pass changes of a node.
type savedNode struct {
	free   []int64
	ports  []HostPort
	shared map[string]int
}

func newExisting(c *Cluster) existing { return existing{c: c, saved: map[int32]*savedNode{}} }

// candidates returns the nodes with room for one pod of the variant. The slice is
// valid until the next call.
func (e *existing) candidates(v *variant) []int32 {
	out := e.c.scratchNodes[:0]
	vec := v.pc.cl.vec
	for _, slot := range e.c.order {
		if v.nodeRow.has(slot) && fits(vec, e.c.nodes[slot].free) {
			out = append(out, slot)
		}
	}
	e.c.scratchNodes = out
	return out
}

// hadRoom reports whether some node had room for a pod of the class before the
// pass.
func (e *existing) hadRoom(cl *class) bool {
	row := e.c.staticNodes(cl, false)
	for _, slot := range e.c.order {
		if !row.has(slot) {
			continue
		}
		free := e.c.nodes[slot].free
		if s := e.saved[slot]; s != nil {
			free = s.free
		}
		if fits(cl.vec, free) {
			return true
		}
	}
	return false
}

// add puts up to n of the class's next pods on a node and returns how many.
func (e *existing) add(v *variant, slot int32, n int64) int64 {
	nd, cl := e.c.nodes[slot], v.pc.cl
	k := fitCount(cl.vec, nd.free, n)
	if k == 0 {
		return 0
	}
	k = v.fitBeside(k, nd.ports, func(ctr *counter) int64 { return int64(ctr.nodes[slot]) }, false)
	if k == 0 {
		return 0
	}
	if len(cl.pc.SharedVolumes) > 0 {
		k = e.c.dims.fitShared(cl, nd.free, k, func(s SharedVolume) bool { return nd.shared[s.key()] > 0 })
		if k == 0 {
			return 0
		}
	}
	e.save(slot)
	for d, r := range cl.vec {
		nd.free[d] -= r * k
	}
	nd.ports = append(nd.ports, cl.pc.HostPorts...)
	for _, s := range cl.pc.SharedVolumes {
		if nd.shared == nil {
			nd.shared = map[string]int{}
		}
		if nd.shared[s.key()] == 0 {
			nd.free[e.c.dims.ids[attachPrefix+s.Driver]]--
		}
		nd.shared[s.key()] += int(k)
	}
	for _, ctr := range v.pc.contrib {
		ctr.addNode(e.c, slot, int32(k))
	}
	if last := len(e.placed) - 1; last >= 0 && e.placed[last].slot == slot && e.placed[last].run.continues(v, v.pc.used) {
		e.placed[last].run.n += int(k)
	} else {
		e.placed = append(e.placed, nodePlaced{slot, placed{v, v.pc.used, int(k)}})
	}
	v.pc.used += int(k)
	return k
}

// save keeps the state of a node that is about to change, once.
func (e *existing) save(slot int32) {
	if e.saved[slot] != nil {
		return
	}
	nd := e.c.nodes[slot]
	e.saved[slot] = &savedNode{nd.free, nd.ports, nd.shared}
	nd.free = e.c.dims.pad(slices.Clone(nd.free)) // resources may have become known since
	nd.ports = slices.Clip(nd.ports)
	nd.shared = maps.Clone(nd.shared)
}

// undo restores the nodes to what they were before the pass.
func (e *existing) undo() {
	for slot, s := range e.saved {
		nd := e.c.nodes[slot]
		nd.free, nd.ports, nd.shared = s.free, s.ports, s.shared
	}
	clear(e.saved)
	e.placed = nil
}

// fitShared returns how many of n pods of a class fit when the shared volumes
// that are not attached yet take an attachment each.
func (d *dimTable) fitShared(cl *class, free []int64, n int64, attached func(SharedVolume) bool) int64 {
	extra := map[int]int64{}
	for _, s := range cl.pc.SharedVolumes {
		if !attached(s) {
			extra[d.ids[attachPrefix+s.Driver]]++
		}
	}
	for dim, x := range extra {
		if dim >= len(free) {
			continue
		}
		own := int64(0)
		if dim < len(cl.vec) {
			own = cl.vec[dim]
		}
		switch left := free[dim] - x; {
		case own == 0 && left < 0:
			return 0
		case own > 0:
			n = max(0, min(n, left/own))
		}
	}
	return n
}

// key identifies a shared volume on a node.
func (s SharedVolume) key() string { return s.Driver + "\x00" + s.ID }
