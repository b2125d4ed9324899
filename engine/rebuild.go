// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"slices"
	"sort"

	"github.com/nap-aks/nap/engine/stock"
)

// Ranks of strictness.
const (
	free        = 2 // no rule looks at the other pods of the machine
	strictRanks = 3
)

// strictness ranks the pods that come to one machine: first those whose rules
// look at the others there and at themselves, then those whose rules look at
// others only, then those without such rules.
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

// rebuilding makes the machines of a solution of package stock.
//
// Invariant: queue holds the pods of each item that have no place yet, by
// strictness, and left their number.
type rebuilding struct {
	ps    *pass
	items []*item
	queue []strictQueues
	left  [][strictRanks]int
}

// strictQueues is what is left of an item, by strictness.
type strictQueues [strictRanks][]placed

func (ps *pass) newRebuilding(items []*item) *rebuilding {
	r := &rebuilding{ps: ps, items: items, queue: make([]strictQueues, len(items)), left: make([][strictRanks]int, len(items))}
	for i, it := range items {
		for _, run := range it.runs {
			k := run.v.strictness()
			r.queue[i][k] = append(r.queue[i][k], run)
			r.left[i][k] += run.n
		}
	}
	return r
}

// put places up to n pods of an item on a machine and returns how many of the n
// are left.
func (r *rebuilding) put(i, rank int, m *plannedMachine, n int) int {
	list := r.queue[i][rank]
	for q := range list {
		run := &list[q]
		if n == 0 {
			break
		}
		if run.n == 0 {
			continue
		}
		k := int(m.room(run.v, int64(min(n, run.n))))
		if k == 0 {
			continue
		}
		m.commit(run.v, run.first, int64(k))
		run.first += k
		run.n -= k
		n -= k
	}
	for len(list) > 0 && list[0].n == 0 {
		list = list[1:]
	}
	r.queue[i][rank] = list
	return n
}

// build makes the machines of a solution. It reports whether every pod has a
// place.
func (ps *pass) build(items []*item, sol *stock.Solution, bins []int32) bool {
	r := ps.newRebuilding(items)
	r.patterns(sol, bins)
	// Pods that rules within machines kept out take the place of unrestricted pods
	// elsewhere, or go wherever there is room, or onto new machines.
	for i, it := range items {
		for rank := range free {
			ps.swap(it, &r.queue[i], rank)
		}
	}
	for _, rank := range [strictRanks]int{free, 0, 1} {
		for i := range items {
			if len(r.queue[i][rank]) > 0 && !r.placeRest(i, rank) {
				return false
			}
		}
	}
	return true
}

// patterns makes the machines of the patterns of a solution.
func (r *rebuilding) patterns(sol *stock.Solution, bins []int32) {
	ps := r.ps
	pats := slices.Clone(sol.Patterns)
	sort.SliceStable(pats, func(a, b int) bool { return bins[pats[a].Bin] < bins[pats[b].Bin] })
	var want []int
	for _, pt := range pats {
		col := bins[pt.Bin]
		for t := 0; t < pt.Times; t++ {
			if !ps.ledger.usable(col) {
				break
			}
			m := ps.newMachine(col)
			want = append(want[:0], pt.Counts...)
			for rank := range strictRanks {
				for q, i := range pt.Items {
					n := r.fairShare(i, rank, pt.Counts[q], want[q])
					if n > 0 && r.left[i][rank] > 0 {
						rest := r.put(i, rank, m, n)
						want[q] -= n - rest
						r.left[i][rank] -= n - rest
					}
				}
			}
			if len(m.pods) == 0 {
				ps.drop(m)
			}
		}
	}
}

// fairShare returns how many pods of a rank a machine with count pods of an item
// gets, of which want are still missing. Pods with rules about other pods are
// distributed evenly over the machines of the item, so that they seldom meet.
func (r *rebuilding) fairShare(i, rank, count, want int) int {
	if rank == free {
		return want
	}
	all := 0
	for _, x := range r.left[i] {
		all += x
	}
	return min(want, (count*r.left[i][rank]+all-1)/max(all, 1))
}

// placeRest places what is left of an item wherever there is room, or on new
// machines. It reports whether every pod has a place.
func (r *rebuilding) placeRest(i, rank int) bool {
	ps, it := r.ps, r.items[i]
	mask := it.row.clone()
	for col := mask.next(0, int32(len(ps.cat.cols))); col < int32(len(ps.cat.cols)); col = mask.next(col+1, int32(len(ps.cat.cols))) {
		if !it.keepsPins(ps.cat, col) {
			mask.clear(col)
		}
	}
	for _, m := range ps.machines {
		if len(r.queue[i][rank]) == 0 {
			break
		}
		if mask.has(m.col) && !m.frozen() {
			r.put(i, rank, m, math.MaxInt32)
		}
	}
	for len(r.queue[i][rank]) > 0 {
		run := r.queue[i][rank][0]
		if run.n == 0 { // placed although an earlier one could not be
			r.queue[i][rank] = r.queue[i][rank][1:]
			continue
		}
		if alone := ps.cheapestOf(mask); alone >= 0 {
			// On a machine made larger, if that costs less than a new one.
			like := &plannedMachine{cat: ps.cat, col: alone, pool: ps.cat.cols[alone].pool}
			if k, _ := ps.rehouse(like, run, ps.cat.cols[alone].price, nil); k > 0 {
				if run.n -= int(k); run.n == 0 {
					r.queue[i][rank] = r.queue[i][rank][1:]
				} else {
					run.first += int(k)
					r.queue[i][rank][0] = run
				}
				continue
			}
		}
		col := ps.choose(run.v, &tuple{mask: mask}, int64(run.n))
		if col < 0 {
			return false
		}
		m := ps.newMachine(col)
		r.put(i, rank, m, math.MaxInt32)
		if len(m.pods) == 0 {
			ps.drop(m)
			return false
		}
	}
	return true
}

// keepsPins reports whether a column has the values that the item's pods rely on.
func (it *item) keepsPins(cat *catalog, col int32) bool {
	for _, pin := range it.pins {
		if cat.vals[pin.key][col] != pin.val {
			return false
		}
	}
	return true
}

// cheapestOf returns the cheapest column in a mask that can be created, or -1.
func (ps *pass) cheapestOf(mask bitset) int32 {
	best := int32(-1)
	n := int32(len(ps.cat.cols))
	for col := mask.next(0, n); col < n; col = mask.next(col+1, n) {
		if (best < 0 || ps.cat.cols[col].price < ps.cat.cols[best].price) && ps.ledger.usable(col) {
			best = col
		}
	}
	return best
}

// swap places queued pods of an item where unrestricted pods of the same item
// are. Those go to the last queue, to fill the room that was meant for the
// others.
func (ps *pass) swap(it *item, queue *strictQueues, rank int) {
	list := queue[rank]
	if len(list) == 0 {
		return
	}
	for q := range list {
		run := &list[q]
		for _, m := range ps.machines {
			if run.n == 0 {
				break
			}
			if it.row.has(m.col) && !m.frozen() && ps.cat.tierOf(m.pool) == it.tier && it.keepsPins(ps.cat, m.col) {
				ps.swapOn(m, run, queue)
			}
		}
	}
	queue[rank] = slices.DeleteFunc(list, func(p placed) bool { return p.n == 0 })
	for _, m := range ps.machines {
		m.pods = slices.DeleteFunc(m.pods, func(p placed) bool { return p.n == 0 })
	}
}

// swapOn exchanges one unrestricted pod of a machine for one of a run, if the
// rules of the run's pods allow it.
func (ps *pass) swapOn(m *plannedMachine, run *placed, queue *strictQueues) {
	for j := range m.pods {
		out := &m.pods[j]
		if out.n == 0 || out.v.strictness() != free || out.v.rowID != run.v.rowID || !slices.Equal(out.v.pc.vec, run.v.pc.vec) || !ps.samePins(out.v, run.v) {
			continue
		}
		m.unload(j, 1)
		if m.room(run.v, 1) == 0 {
			m.unload(j, -1)
			return
		}
		queue[free] = append(queue[free], placed{out.v, out.first + out.n, 1})
		m.commit(run.v, run.first, 1)
		run.first++
		run.n--
		return
	}
}

// samePins reports whether two variants rely on the same labels.
func (ps *pass) samePins(a, b *variant) bool {
	return a == b || slices.Equal(ps.cat.pinsOf(a), ps.cat.pinsOf(b))
}
