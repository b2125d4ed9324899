// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "math"

// choice is the column chosen for new machines of a variant, with the other
// shapes that are assumed to share them, and how often it can be repeated before
// the assumption must be checked again.
type choice struct {
	col   int32
	reps  int64
	fill  []fillItem
	score float64 // value per dollar, filled as assumed
	fresh bool    // not used before
}

// fillItem is pods of a shape that are assumed to come to a machine.
type fillItem struct {
	s *shape
	n int64
}

// assume takes the pods of one machine off those that wait.
func (ch *choice) assume() {
	for _, f := range ch.fill {
		f.s.waiting = max(0, f.s.waiting-f.n)
	}
}

// giveBack takes back one use of a choice.
func (ch *choice) giveBack() {
	for _, f := range ch.fill {
		f.s.waiting += f.n
	}
	ch.reps++
}

// fullChoices is how many times in a pass every kind is compared for a new
// machine. After that, of kinds with nearly the same allocatable amounts only the
// one that can hold most value per dollar is: right-sizing makes up for most of
// the difference.
const fullChoices = 8

// choose picks the column for a new machine that starts with the variant: the
// one that holds most value per dollar when it is filled with these pods and then
// with the other shapes that wait. Pools of higher weight go first. It returns -1
// if no machine can be created.
func (ps *pass) choose(v *variant, t *tuple, n int64) int32 {
	if t.choice.reps > 0 && ps.ledger.usable(t.choice.col) {
		t.choice.reps--
		t.choice.fresh = false
		t.choice.assume()
		return t.choice.col
	}
	s := v.pc.shape
	if s != nil && s.waiting < n {
		s.waiting = n
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
				reps = min(reps, f.s.waiting/f.n)
			}
			reps = max(reps, 1)
		}
		ch.reps, ch.fresh = reps-1, true
		ch.assume()
		t.choice = ch
		return ch.col
	}
	return -1
}

// sizeRun is a range of waiting shapes that ask for the same amounts.
type sizeRun struct {
	vec    []int64
	lo, hi int
}

// others finds the waiting shapes that may share a machine with the variant,
// grouped by size.
func (mk *market) others(v *variant) ([]*shape, []sizeRun) {
	waiting, sizes := mk.waiting[:0], mk.sizes[:0]
	for _, o := range mk.shapes {
		if o.waiting > 0 && o != v.pc.shape && (o.cap == noCap || o.capCtr != v.capCtr) {
			if n := len(waiting); n == 0 || waiting[n-1].size != o.size {
				sizes = append(sizes, sizeRun{o.vec, n, n})
			}
			waiting = append(waiting, o)
			sizes[len(sizes)-1].hi++
		}
	}
	mk.waiting, mk.sizes = waiting, sizes
	return waiting, sizes
}

// filler fills an imagined machine with the pods of a variant and then with those
// of the other shapes that wait.
type filler struct {
	v       *variant
	n       int64 // pods of the variant at most
	waiting []*shape
	sizes   []sizeRun
	free    []int64
	fill    []fillItem
}

// run fills a machine of a column. It returns the value that the machine then
// holds, which is 0 if not one pod of the variant fits; fill has the pods.
func (f *filler) run(alloc []int64, col int32) (value float64, ok bool) {
	v, s, free := f.v, f.v.pc.shape, f.free
	copy(free, alloc)
	q := fitCount(v.pc.vec, free, f.n)
	if q == 0 {
		return 0, false
	}
	fill := f.fill[:0]
	value = float64(q) * v.pc.value
	for d, r := range v.pc.vec {
		free[d] -= r * q
	}
	if s != nil {
		// Pods of other classes of the shape.
		same := q
		if v.hostCap == noCap && s.waiting > q {
			more := fitCount(v.pc.vec, free, s.waiting-q)
			for d, r := range v.pc.vec {
				free[d] -= r * more
			}
			value += float64(more) * v.pc.value
			same += more
		}
		fill = append(fill, fillItem{s, same})
	}
	capUsed := v.capCtr
	for j := range f.sizes {
		g := &f.sizes[j]
		if !fits(g.vec, free) {
			continue
		}
		for _, o := range f.waiting[g.lo:g.hi] {
			if o.cap < noCap && o.capCtr == capUsed || !o.row.has(col) {
				continue
			}
			k := fitCount(o.vec, free, min(o.waiting, o.cap))
			if k == 0 {
				break // the size does not fit any more
			}
			for d, r := range o.vec {
				free[d] -= r * k
			}
			value += float64(k) * o.value
			fill = append(fill, fillItem{o, k})
			if o.cap < noCap && capUsed < 0 {
				capUsed = o.capCtr
			}
		}
	}
	f.fill = fill
	return value, true
}

// chooseIn is choose among the pools of one weight.
func (ps *pass) chooseIn(v *variant, t *tuple, n int64, tr *tier) (choice, bool) {
	mk := &ps.market
	best := choice{col: -1}
	bestScore := -1.0
	thrifty, big := ps.strategy.thrifty, ps.strategy.big
	byValue := !thrifty && !big
	mk.choices++
	var tried []bool // kinds of these numbers, see alikeKinds
	if mk.choices > fullChoices && byValue {
		if mk.alike == nil {
			mk.alike = mk.alikeKinds()
		}
		tried = make([]bool, len(mk.alike))
	}
	f := filler{v: v, n: min(n, v.hostRoom(noneThere, true)), free: make([]int64, len(ps.c.dims.names))}
	if len(v.pc.cl.pc.HostPorts) > 0 {
		f.n = min(n, 1)
	}
	f.waiting, f.sizes = mk.others(v)
	evaluated := 0
	for _, ki := range mk.kindOrder {
		k := &ps.cat.kinds[ki]
		if int(k.pool) < tr.poolLo || int(k.pool) >= tr.poolHi {
			continue
		}
		if byValue && mk.kindBest[ki] <= bestScore && evaluated > 0 {
			break
		}
		if tried != nil && tried[mk.alike[ki]] {
			continue
		}
		col := ps.ledger.usableColumn(t.mask, ki)
		if col < 0 {
			continue
		}
		price := math.Max(ps.cat.cols[col].price, 1e-9)
		switch {
		case big:
			price = 1 + 1e-6*price
		case thrifty:
			price = math.Max(ps.ledger.share(col), 1e-9)
		case mk.kindBest[ki]*k.price <= bestScore*price:
			continue
		}
		pool := &ps.cat.pools[k.pool]
		if len(pool.minValues) > 0 && ps.opt.MinValues != MinValuesBestEffort {
			if !ps.cat.minValuesHold(pool, t.mask, col, ps.cat.pinsOf(v), v.pc.vec) {
				continue
			}
		}
		evaluated++
		value, ok := f.run(k.alloc, col)
		if !ok {
			continue
		}
		if tried != nil {
			tried[mk.alike[ki]] = true
		}
		if score := value / price; score > bestScore*(1+1e-12) {
			bestScore = score
			best.col = col
			best.score = score
			best.fill = append(best.fill[:0], f.fill...)
		}
	}
	return best, best.col >= 0
}
