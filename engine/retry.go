// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"maps"
	"slices"
)

// Where space on nodes, in domains or under limits is scarce, the order of the
// classes decides which pods get it, and the quick path's order minimizes cost. When
// it leaves pods that might have had a place, the pass is repeated with other
// strategies, and the one that places most is kept.

// retryWork bounds the search for a strategy, in steps (a class looks at a node,
// a pod is placed).
const retryWork = 400_000

// strategy is how a run goes through the classes. The zero value is the usual
// one.
type strategy struct {
	rank    map[*passClass]int  // higher ones first
	relaxed map[*passClass]bool // these relax all preferences at once
	level   map[*passClass]int  // these have so many steps of their ladder relaxed, see pricePreferences
	bySize  int                 // 1: larger pods first, whatever their rules; -1: smaller ones
	single  bool                // one pod of each class in turn
	evenly  bool                // the least crowded domain, even if it needs a new machine
	roomy   bool                // pods that others will follow start where most room is
	thrifty bool                // machines that take least of the limits, whatever the price
	big     bool                // machines that hold most, whatever the price
	// avoid are domains that spread constraints would count as empty if a machine
	// were created there.
	avoid map[counterKey]map[int32]bool
}

// outcome is the result of a run: pods placed per priority, highest first.
type outcome struct {
	unsound bool
	per     []count
}

type count struct {
	priority int32
	placed   int
}

func (ps *pass) outcome() outcome {
	o := outcome{unsound: ps.unsound}
	sum := map[int32]int{}
	for _, pc := range ps.classes {
		sum[pc.cl.pc.Priority] += pc.used
	}
	for p, n := range sum {
		o.per = append(o.per, count{p, n})
	}
	slices.SortFunc(o.per, func(a, b count) int { return cmp.Compare(b.priority, a.priority) })
	return o
}

// better reports whether o is sound and than is not or, if they are equal in
// that, o places more pods of the highest priority that differs.
func (o outcome) better(than outcome) bool {
	if o.unsound != than.unsound {
		return than.unsound
	}
	for i := range o.per {
		if o.per[i].placed != than.per[i].placed {
			return o.per[i].placed > than.per[i].placed
		}
	}
	return false
}

// placeable returns the classes with pods left for which there would be a node or
// an offering if there were no other pods.
func (ps *pass) placeable() []*passClass {
	var out []*passClass
	for _, pc := range ps.classes {
		if pc.left() == 0 || pc.deferred() {
			continue
		}
		if !ps.relaxedRow(pc).empty() || ps.existing.hadRoom(pc.cl) {
			out = append(out, pc)
		}
	}
	return out
}

// retry looks for a strategy that places more pods.
func (ps *pass) retry() {
	lost := ps.placeable()
	if len(lost) == 0 && !ps.unsound {
		return
	}
	nodes, pods := len(ps.c.order), 0
	for _, pc := range ps.classes {
		pods += len(pc.pods)
	}
	best, bestStrategy := ps.outcome(), ps.strategy
	budget := retryWork
	rank, relaxed := map[*passClass]int{}, map[*passClass]bool{}
	var avoid map[counterKey]map[int32]bool
	learn := func() {
		rank = ps.promote(rank, lost)
		for _, pc := range lost {
			if len(pc.prefs.steps) > 0 {
				relaxed = maps.Clone(relaxed)
				relaxed[pc] = true
			}
		}
		if len(ps.domains.opened) > 0 {
			avoid = ps.domains.opened
		}
	}
	try := func(s strategy) (done bool) {
		steps := 64 + pods + len(ps.classes)*(nodes+len(ps.classes))
		if s.single {
			steps += pods * (nodes + 16)
		}
		if budget -= steps; budget < 0 {
			return true
		}
		ps.begin(&s)
		lost = ps.placeable()
		if o := ps.outcome(); o.better(best) {
			best, bestStrategy = o, ps.strategy
		}
		return len(lost) == 0 && !ps.unsound
	}
	// Functions, because a strategy depends on what the ones before it showed.
	strategies := []func() strategy{
		func() strategy { return strategy{rank: rank} },
		func() strategy { return strategy{rank: rank} },
		func() strategy { return strategy{rank: rank, roomy: true} },
		func() strategy { return strategy{rank: rank, thrifty: ps.ledger.refused} },
		func() strategy { return strategy{bySize: -1, thrifty: ps.ledger.refused} },
		func() strategy { return strategy{bySize: 1, big: true} },
		func() strategy { return strategy{rank: rank, big: true} },
		func() strategy { return strategy{bySize: 1, single: true} },
		func() strategy { return strategy{bySize: 1} },
		func() strategy { return strategy{bySize: -1} },
		func() strategy { return strategy{rank: rank, relaxed: relaxed, avoid: avoid} },
		func() strategy { return strategy{rank: rank, evenly: true} },
		func() strategy { return strategy{rank: rank, single: true, avoid: avoid} },
		func() strategy { return strategy{rank: rank, single: true, evenly: true, roomy: true} },
	}
	learn()
	for _, s := range strategies {
		if try(s()) {
			break
		}
		learn()
	}
	if ps.strategy != bestStrategy {
		ps.begin(bestStrategy)
	}
}

// begin starts over and runs the quick path with a strategy.
func (ps *pass) begin(s *strategy) {
	ps.strategy = s
	ps.domains.opened, ps.market.choices = nil, 0
	ps.restart()
	ps.solve()
}

// avoiding removes the columns in domains to avoid from a set, if any others are
// left.
func (ps *pass) avoiding(set *rowSet) *rowSet {
	if len(ps.strategy.avoid) == 0 {
		return set
	}
	out := set.bits.clone()
	for ck, vals := range ps.strategy.avoid {
		for _, vm := range ps.cat.valueMasks(ck.key) {
			if vals[vm.val] {
				out.andNot(vm.mask)
			}
		}
	}
	if out.empty() {
		return set
	}
	return ps.cat.rowSet(out)
}

// promote ranks the classes that lost pods above all others, and the classes that
// they must follow one higher.
func (ps *pass) promote(rank map[*passClass]int, lost []*passClass) map[*passClass]int {
	out := make(map[*passClass]int, len(rank)+len(lost))
	top := 0
	for pc, r := range rank {
		out[pc] = r
		top = max(top, r)
	}
	for _, pc := range lost {
		out[pc] = top + 1
	}
	for _, pc := range lost {
		for _, ctr := range pc.v.affs {
			if ctr.m.selectsClass(pc.cl) {
				continue
			}
			for _, id := range ctr.m.matched {
				if o := ps.c.classes[id].pending; o != nil {
					out[o] = top + 2
				}
			}
		}
	}
	return out
}
