package engine

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/nap-aks/nap/engine/stock"
)

// prices finds what a unit of each resource is worth: the dual prices of the
// relaxed question "how little does it cost to buy this much of everything". A
// machine never holds more value than its price, so value per dollar tells how
// well a machine is filled, and a sum of values is a lower bound on cost.
func (ps *pass) prices() {
	cat := ps.cat
	nd := len(ps.c.dims.names)
	ps.pi = make([]float64, nd)
	// By name: the numbers are given in the order of first sight, and sums and
	// prices that several answers fit must not depend on it.
	ps.dimOrder = make([]int, nd)
	for d := range ps.dimOrder {
		ps.dimOrder[d] = d
	}
	sort.Slice(ps.dimOrder, func(i, j int) bool {
		return ps.c.dims.names[ps.dimOrder[i]] < ps.c.dims.names[ps.dimOrder[j]]
	})
	demand := make([]float64, nd)
	rows := newBitset(len(cat.cols))
	for _, pc := range ps.classes {
		row := ps.hopedRow(pc)
		if row.empty() {
			continue
		}
		rows.or(row)
		for d, r := range pc.vec {
			demand[d] += float64(r) * float64(len(pc.pods))
		}
	}
	ps.pi = ps.resourcePrices(demand, rows)
	ps.piRows = rows
	for _, pc := range ps.classes {
		pc.value = ps.valueOf(pc.vec)
	}
	ps.kindBest = make([]float64, len(cat.kinds))
	for i := range cat.kinds {
		k := &cat.kinds[i]
		ps.kindBest[i] = ps.valueOf(k.alloc) / math.Max(k.price, 1e-9)
		ps.kindOrder = append(ps.kindOrder, int32(i))
	}
	sort.SliceStable(ps.kindOrder, func(a, b int) bool { return ps.kindBest[ps.kindOrder[a]] > ps.kindBest[ps.kindOrder[b]] })
	for _, pc := range ps.classes {
		ps.shapeOf(pc)
	}
	sort.SliceStable(ps.shapes, func(i, j int) bool { return ps.shapes[i].value > ps.shapes[j].value })
	for i, s := range ps.shapes {
		s.id = i
		if i > 0 && !slices.Equal(s.vec, ps.shapes[i-1].vec) {
			s.size = ps.shapes[i-1].size + 1
		} else if i > 0 {
			s.size = ps.shapes[i-1].size
		}
	}
}

func (ps *pass) valueOf(vec []int64) float64 {
	v := 0.0
	for _, d := range ps.dimOrder {
		if d >= len(vec) {
			continue
		}
		if r := vec[d]; d < len(ps.pi) && ps.pi[d] > 0 && r < unlimited/2 {
			v += ps.pi[d] * float64(r)
		}
	}
	return v
}

// resourcePrices solves min Σ price·x, Σ alloc·x ≥ demand over the kinds that
// have a column in rows, and returns the dual prices: w ≥ 0 with w·alloc ≤
// price for each of them.
func (ps *pass) resourcePrices(demand []float64, rows bitset) []float64 {
	cat := ps.cat
	nd := len(demand)
	out := make([]float64, nd)
	var dims []int
	for _, d := range ps.dimOrder {
		if demand[d] > 0 {
			dims = append(dims, d)
		}
	}
	if len(dims) == 0 {
		return out
	}
	need := make([]float64, len(dims))
	for i, d := range dims {
		need[i] = demand[d]
	}
	prices := make([]float64, 0, len(cat.kinds))
	flat := make([]float64, 0, len(cat.kinds)*len(dims)) // contents of each candidate
	for i := range cat.kinds {
		k := &cat.kinds[i]
		first := rows.next(k.lo, k.hi)
		if first == k.hi {
			continue
		}
		for _, d := range dims {
			flat = append(flat, math.Min(float64(max(0, k.alloc[d])), unlimited))
		}
		prices = append(prices, math.Max(cat.cols[first].price, 1e-9))
	}
	for i, w := range stock.Prices(need, flat, prices) {
		out[dims[i]] = w
	}
	return out
}

// hopedRow is the columns that a class can be on, or will when it has given up
// its preferences.
func (ps *pass) hopedRow(pc *passClass) bitset {
	if pc.v.row.empty() {
		return ps.relaxedRow(pc)
	}
	return pc.v.row
}

func (ps *pass) shapeOf(pc *passClass) {
	row := ps.hopedRow(pc)
	if row.empty() {
		return
	}
	v := pc.v
	ctr := -1
	if v.hostCap < noCap {
		ctr = v.capCtr
	}
	id := v.rowID
	if v.row.empty() {
		id = ps.cat.rowSet(row).id
	}
	key := shapeKey{id, pc.cl.vecID, v.hostCap, ctr}
	s := ps.shapeKey[key]
	if s == nil {
		s = &shape{row: row, rowID: id, vec: pc.vec, value: pc.value, cap: v.hostCap, capCtr: ctr}
		ps.shapeKey[key] = s
		ps.shapes = append(ps.shapes, s)
	}
	s.count += int64(len(pc.pods))
	s.look += int64(len(pc.pods))
	pc.shape = s
}

// choice is the column chosen for new machines of a variant, with the other
// shapes expected to share them, and how often it can be repeated before the
// expectation must be looked at again.
type choice struct {
	col   int32
	reps  int64
	fill  []fillItem
	score float64 // value per dollar, filled as expected
	fresh bool    // not used before
}

type fillItem struct {
	s *shape
	n int64
}

// choose picks the column for a new machine that starts with the variant: the
// one that holds most value per dollar when it is filled with these pods and
// then with the other shapes still waiting. Pools of higher weight go first.
func (ps *pass) choose(v *variant, t *tuple, n int64) int32 {
	if t.choice.reps > 0 && ps.usable(t.choice.col) {
		t.choice.reps--
		t.choice.fresh = false
		ps.promise(t.choice.fill, 1)
		return t.choice.col
	}
	s := v.pc.shape
	if s != nil && s.look < n {
		s.look = n
	}
	for ti := range ps.cat.tiers {
		tr := &ps.cat.tiers[ti]
		if !t.mask.anyIn(tr.lo, tr.hi) {
			continue
		}
		ch, ok := ps.chooseIn(v, t, n, tr)
		if !ok {
			continue
		}
		reps := int64(1)
		if len(ch.fill) > 0 {
			reps = math.MaxInt64
			for _, f := range ch.fill {
				reps = min(reps, f.s.look/f.n)
			}
			reps = max(reps, 1)
		}
		ch.reps, ch.fresh = reps-1, true
		ps.promise(ch.fill, 1)
		t.choice = ch
		return ch.col
	}
	return -1
}

func (ps *pass) usable(col int32) bool {
	k := &ps.cat.kinds[ps.cat.cols[col].kind]
	for i, take := range k.takes {
		if take > ps.limits[k.pool][i].left {
			return false
		}
	}
	return ps.drawable(col)
}

func (ps *pass) promise(fill []fillItem, times int64) {
	for _, f := range fill {
		f.s.look = max(0, f.s.look-f.n*times)
	}
}

// unpromise takes back one use of a choice.
func (ps *pass) unpromise(ch *choice) {
	for _, f := range ch.fill {
		f.s.look += f.n
	}
	ch.reps++
}

// fullChoices is how many times in a pass every kind is weighed for a new
// machine. After that, of kinds of nearly the same room only the one that can
// hold most value per dollar is: right-sizing settles what is left of the
// difference.
const fullChoices = 8

// classOfKinds numbers the kinds so that those of one pool with nearly the same
// room (19% in each resource that has a price) have the same number.
func (ps *pass) alikeKinds() []int32 {
	index := map[string]int32{}
	out := make([]int32, len(ps.cat.kinds))
	var key []byte
	for i := range ps.cat.kinds {
		k := &ps.cat.kinds[i]
		key = strconv.AppendInt(key[:0], int64(k.pool), 10)
		for d, a := range k.alloc {
			if d < len(ps.pi) && ps.pi[d] > 0 && a > 0 {
				key = append(key, ' ')
				key = strconv.AppendInt(key, int64(4*math.Log2(float64(a))), 10)
			}
		}
		n, ok := index[string(key)]
		if !ok {
			n = int32(len(index))
			index[string(key)] = n
		}
		out[i] = n
	}
	return out
}

// sizeRun is a range of waiting shapes that ask for the same amounts.
type sizeRun struct {
	vec    []int64
	lo, hi int
}

func (ps *pass) chooseIn(v *variant, t *tuple, n int64, tr *tier) (choice, bool) {
	best := choice{col: -1}
	bestScore := -1.0
	room := hostRoom(v, func(*counter) int64 { return 0 })
	if len(v.pc.cl.pc.HostPorts) > 0 {
		room = 1
	}
	thrifty := ps.way != nil && ps.way.thrifty
	big := ps.way != nil && ps.way.big
	ps.choices++
	var tried []bool // kinds of these numbers
	if ps.choices > fullChoices && !thrifty && !big {
		if ps.alike == nil {
			ps.alike = ps.alikeKinds()
		}
		tried = make([]bool, len(ps.alike))
	}
	free := make([]int64, len(ps.c.dims.names))
	s := v.pc.shape
	// What else waits, those of one size together.
	waiting, sizes := ps.waiting[:0], ps.sizes[:0]
	for _, o := range ps.shapes {
		if o.look > 0 && o != s && (o.cap == noCap || o.capCtr != v.capCtr) {
			if n := len(waiting); n == 0 || waiting[n-1].size != o.size {
				sizes = append(sizes, sizeRun{o.vec, n, n})
			}
			waiting = append(waiting, o)
			sizes[len(sizes)-1].hi++
		}
	}
	ps.waiting, ps.sizes = waiting, sizes
	var fill []fillItem
	evaluated := 0
	for _, ki := range ps.kindOrder {
		k := &ps.cat.kinds[ki]
		if int(k.pool) < tr.poolLo || int(k.pool) >= tr.poolHi {
			continue
		}
		if ps.kindBest[ki] <= bestScore && evaluated > 0 && !thrifty && !big {
			break
		}
		if tried != nil && tried[ps.alike[ki]] {
			continue
		}
		col := ps.usableColumn(t.mask, ki)
		if col < 0 {
			continue
		}
		price := math.Max(ps.cat.cols[col].price, 1e-9)
		if big {
			price = 1 + 1e-6*price
		} else if thrifty {
			price = math.Max(ps.thrift(col), 1e-9)
		} else if ps.kindBest[ki]*k.price <= bestScore*price {
			continue
		}
		pool := &ps.cat.pools[k.pool]
		if len(pool.minValues) > 0 && ps.opt.MinValues != MinValuesBestEffort {
			if !ps.minValuesHold(pool, t.mask, col, ps.pinsOf(v), v.pc.vec) {
				continue
			}
		}
		evaluated++
		copy(free, k.alloc)
		q := fitCount(v.pc.vec, free, min(n, room))
		if q == 0 {
			continue
		}
		if tried != nil {
			tried[ps.alike[ki]] = true
		}
		fill = fill[:0]
		value := float64(q) * v.pc.value
		for d, r := range v.pc.vec {
			free[d] -= r * q
		}
		if s != nil {
			// Pods of other classes may look the same to a machine.
			same := q
			if v.hostCap == noCap && s.look > q {
				more := fitCount(v.pc.vec, free, s.look-q)
				for d, r := range v.pc.vec {
					free[d] -= r * more
				}
				value += float64(more) * v.pc.value
				same += more
			}
			fill = append(fill, fillItem{s, same})
		}
		capUsed := v.capCtr
		for j := range sizes {
			g := &sizes[j]
			if !fits(g.vec, free) {
				continue
			}
			for _, o := range waiting[g.lo:g.hi] {
				if o.cap < noCap && o.capCtr == capUsed || !o.row.has(col) {
					continue
				}
				f := fitCount(o.vec, free, min(o.look, o.cap))
				if f == 0 {
					break // the size does not fit any more
				}
				for d, r := range o.vec {
					free[d] -= r * f
				}
				value += float64(f) * o.value
				fill = append(fill, fillItem{o, f})
				if o.cap < noCap && capUsed < 0 {
					capUsed = o.capCtr
				}
			}
		}
		score := value / price
		if score > bestScore*(1+1e-12) {
			bestScore = score
			best.col = col
			best.score = score
			best.fill = append(best.fill[:0], fill...)
		}
	}
	return best, best.col >= 0
}
