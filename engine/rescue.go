package engine

import (
	"cmp"
	"maps"
	"slices"
)

// Where room on nodes, in domains or under limits is short, the order in which
// classes come decides who gets it, and the quick path's order is made for cost.
// When it leaves pods that could have had a place, the pass is repeated in other
// ways, and the one that places most is kept.

// Limits of the search for another way, in steps (a class looking at a node, a
// pod being placed).
const rescueWork = 400_000

// way is how a run goes through the classes. The zero value (or nil) is the
// usual one.
type way struct {
	rank    map[*passClass]int  // the higher first
	relaxed map[*passClass]bool // these give up their preferences at once
	bySize  int                 // 1: larger pods first, whatever their rules; -1: smaller ones
	single  bool                // one pod of each class in turn
	evenly  bool                // the least crowded domain, also where a machine must be bought
	roomy   bool                // pods that others will follow begin where most room is
	thrifty bool                // machines that take least of the limits, whatever they cost
	big     bool                // machines that hold most, whatever they cost
	// avoid are domains that spread constraints would count, and suffer from, if
	// a machine were bought there.
	avoid map[counterKey]map[int32]bool
}

// outcome is what a run came to: pods placed per priority, highest first.
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

// better says whether more pods of the highest priority that differs are placed.
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

// hopeful are the classes with pods left for which there is a node or an
// offering when nobody else is there.
func (ps *pass) hopeful() []*passClass {
	var out []*passClass
	for _, pc := range ps.classes {
		if pc.used == len(pc.pods) || len(pc.cl.pc.Unsupported) > 0 {
			continue
		}
		if !ps.relaxedRow(pc).empty() || ps.hadRoom(pc) {
			out = append(out, pc)
		}
	}
	return out
}

// hadRoom says whether some node had room for a pod of the class before the pass.
func (ps *pass) hadRoom(pc *passClass) bool {
	row := ps.c.staticNodes(pc.cl, false)
	for _, slot := range ps.c.order {
		if !row.has(slot) {
			continue
		}
		free := ps.c.nodes[slot].free
		if s := ps.touched[slot]; s != nil {
			free = s.free
		}
		if fits(pc.cl.vec, free) {
			return true
		}
	}
	return false
}

// rescue looks for a way that places more pods.
func (ps *pass) rescue() {
	lost := ps.hopeful()
	if len(lost) == 0 && !ps.unsound {
		return
	}
	nodes, pods := len(ps.c.order), 0
	for _, pc := range ps.classes {
		pods += len(pc.pods)
	}
	best, bestWay := ps.outcome(), ps.way
	budget := rescueWork
	rank, relaxed := map[*passClass]int{}, map[*passClass]bool{}
	var avoid map[counterKey]map[int32]bool
	learn := func() {
		rank = ps.promote(rank, lost)
		for _, pc := range lost {
			if len(pc.ladder) > 0 {
				relaxed = maps.Clone(relaxed)
				relaxed[pc] = true
			}
		}
		if len(ps.extra) > 0 {
			avoid = ps.extra
		}
	}
	try := func(w way) (done bool) {
		steps := 64 + pods + len(ps.classes)*(nodes+len(ps.classes))
		if w.single {
			steps += pods * (nodes + 16)
		}
		if budget -= steps; budget < 0 {
			return true
		}
		ps.begin(&w)
		lost = ps.hopeful()
		if o := ps.outcome(); o.better(best) {
			best, bestWay = o, ps.way
		}
		return len(lost) == 0 && !ps.unsound
	}
	ways := []func() way{
		func() way { return way{rank: rank} },
		func() way { return way{rank: rank} },
		func() way { return way{rank: rank, roomy: true} },
		func() way { return way{rank: rank, thrifty: ps.limitHit} },
		func() way { return way{bySize: -1, thrifty: ps.limitHit} },
		func() way { return way{bySize: 1, big: true} },
		func() way { return way{rank: rank, big: true} },
		func() way { return way{bySize: 1, single: true} },
		func() way { return way{bySize: 1} },
		func() way { return way{bySize: -1} },
		func() way { return way{rank: rank, relaxed: relaxed, avoid: avoid} },
		func() way { return way{rank: rank, evenly: true} },
		func() way { return way{rank: rank, single: true, avoid: avoid} },
		func() way { return way{rank: rank, single: true, evenly: true, roomy: true} },
	}
	learn()
	for _, w := range ways {
		if try(w()) {
			break
		}
		learn()
	}
	if ps.way != bestWay {
		ps.begin(bestWay)
	}
}

// begin takes everything back and runs the quick path in some way.
func (ps *pass) begin(w *way) {
	ps.way = w
	ps.extra, ps.choices = nil, 0
	ps.restart()
	ps.solve()
}

// avoiding takes the columns in domains to avoid out of a set, if any others are
// left.
func (ps *pass) avoiding(set *rowSet) *rowSet {
	if ps.way == nil || len(ps.way.avoid) == 0 {
		return set
	}
	out := set.bits.clone()
	for ck, vals := range ps.way.avoid {
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

// startLevel is how many preferences of a class are given up from the start.
func (ps *pass) startLevel(pc *passClass) int {
	if ps.way != nil && ps.way.relaxed[pc] {
		return len(pc.ladder)
	}
	return 0
}

// promote gives the classes that lost pods a higher rank, and those that they
// must follow one above.
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
			if ctr.m.has.has(int32(pc.cl.id)) {
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

// roomIn is how many pods of a variant fit in a tuple's domains by their size.
func (ps *pass) roomIn(v *variant, t *tuple) int64 {
	if !t.noOpen && !t.mask.empty() {
		return noCap
	}
	n := int64(0)
	for _, slot := range t.nodes {
		n += fitCount(v.pc.cl.vec, ps.c.nodes[slot].free, int64(len(v.pc.pods)))
	}
	return n
}

// thrift is the share that a machine of a kind takes of what is left of the
// limits and quotas, with a little of its price to decide among equals.
func (ps *pass) thrift(col int32) float64 {
	cc := &ps.cat.cols[col]
	k := &ps.cat.kinds[cc.kind]
	share := 0.0
	take := func(need, left int64) {
		if left > 0 {
			share = max(share, float64(need)/float64(left))
		}
	}
	for i, need := range k.takes {
		take(need, ps.limits[k.pool][i].left)
	}
	for _, q := range cc.off.Charges {
		if !ps.heedQuotas {
			break
		}
		take(q.Amount, ps.quotaLeft[q.Quota])
	}
	return share + 1e-6*cc.price
}
