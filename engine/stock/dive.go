// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"slices"
)

// dive is one rounding of the LP.
//
// Invariant: uses cost cost and place all pods except rem.
type dive struct {
	s     *solver
	lp    *cover
	rem   []int32
	uses  []use
	cost  float64
	start int64 // work at the start …
	until int64 // … and the end of the budget
	steps int64
	last  int64 // work of the last greedy end …
	tails int64 // … and of all of them

	// Scratch.
	need  []float64
	pi    []float64
	tmp   []int32
	tail  []use
	order []int32
	near  []nearColumn
}

// nearColumn is a column of the LP's solution that is not bought a whole time.
type nearColumn struct {
	score float64
	col   int32
}

// dive rounds the LP: it buys whole copies, then one more pattern, the LP adapts
// to what is left, and so on. After every step it tries to finish greedily.
func (s *solver) dive(until int64) {
	m := s.md.m
	lp := s.lp
	d := &dive{s: s, lp: lp, rem: slices.Clone(s.md.count), need: slices.Clone(lp.need), tmp: make([]int32, m), pi: make([]float64, m),
		order: make([]int32, 0, m), last: s.greedyWork, start: s.work(), until: until}
	for i, x := range lp.pi {
		d.pi[i] = max(x, 0)
	}
	if d.start+d.last > until {
		return
	}
	for s.work()+d.last < until {
		if !d.buyWhole() && !d.buyNearest() {
			break // the LP is of no more help
		}
		if d.adapt() {
			return
		}
	}
	// Out of time: place the rest greedily.
	if s.done() {
		return
	}
	tail, c := s.greedy(d.pi, d.rem, 30, d.uses)
	s.offer(tail, d.cost+c)
}

// buy buys column j up to most times, or once without the pods that are all
// placed. It reports whether it bought anything.
func (d *dive) buy(j int32, most int32) bool {
	s := d.s
	p := s.cols[j]
	times := most
	for k, i := range p.it {
		times = min(times, d.rem[i]/p.n[k])
	}
	if times == 0 {
		q := pattern{bin: p.bin}
		for k, i := range p.it {
			if n := min(p.n[k], d.rem[i]); n > 0 {
				q.it, q.n = append(q.it, i), append(q.n, n)
			}
		}
		if len(q.it) == 0 {
			return false
		}
		p, times = q, 1
	}
	u := use{p, times}
	u.bin = s.cheapest(p)
	for k, i := range p.it {
		d.rem[i] -= times * p.n[k]
	}
	d.cost += s.md.price[u.bin] * float64(times)
	d.uses = append(d.uses, u)
	return true
}

// buyWhole buys the columns that the LP buys whole times.
func (d *dive) buyWhole() bool {
	lp := d.lp
	bought := false
	d.order = d.order[:0]
	for r, j := range lp.basis {
		if j >= 0 && lp.xb[r] >= 1-1e-6 {
			d.order = append(d.order, int32(r))
		}
	}
	slices.SortFunc(d.order, func(a, b int32) int { return cmp.Compare(lp.basis[a], lp.basis[b]) })
	for _, r := range d.order {
		p := d.s.cols[lp.basis[r]]
		t := int32(lp.xb[r] + 1e-6)
		for k, i := range p.it {
			t = min(t, d.rem[i]/p.n[k])
		}
		if t > 0 && d.buy(lp.basis[r], t) {
			bought = true
		}
	}
	return bought
}

// buyNearest buys the column that is nearest to a whole copy and keeps its value,
// or several of them if there is no time to take them one by one.
func (d *dive) buyNearest() bool {
	s, lp := d.s, d.lp
	d.near = d.near[:0]
	for r, j := range lp.basis {
		if j < 0 || lp.xb[r] <= 1e-9 {
			continue
		}
		v := 0.0
		p := s.cols[j]
		for k, i := range p.it {
			v += max(lp.pi[i], 0) * float64(min(p.n[k], d.rem[i]))
		}
		if v > 0 {
			d.near = append(d.near, nearColumn{(0.3 + min(lp.xb[r], 1)) * v / s.md.price[p.bin], j})
		}
	}
	slices.SortStableFunc(d.near, func(a, b nearColumn) int { return cmp.Compare(b.score, a.score) })
	n := 1
	if d.steps > 0 {
		each := max((s.work()-d.start-d.tails)/d.steps, 1)
		n = int(int64(len(d.near)) * each / max(d.until-s.work()-d.last, 1))
		n = max(min(n, len(d.near)/4), 1)
	}
	bought := false
	for k := 0; k < n && k < len(d.near); k++ {
		bought = d.buy(d.near[k].col, 1) || bought
	}
	return bought
}

// adapt solves the LP for the pods that are left and tries to finish greedily. It
// reports whether the dive is over.
func (d *dive) adapt() bool {
	s, lp, m := d.s, d.lp, d.s.md.m
	d.steps++
	left := 0
	for i, r := range d.rem {
		d.need[i] = float64(r)
		left += int(r)
	}
	if left == 0 {
		s.offer(d.uses, d.cost)
		return true
	}
	ops := lp.ops
	lp.demand(d.need)
	ok := lp.dual(20 * m)
	if ok {
		lp.primal(20 * m)
		ok = lp.refresh()
	}
	s.ops += lp.ops - ops
	d.takePrices()
	if ok && left <= 40*m {
		for range 2 {
			if _, added := s.price(d.pi, d.pi, d.rem, 30, false); added == 0 {
				break
			}
			ops := lp.ops
			lp.primal(20 * m)
			s.ops += lp.ops - ops
			d.takePrices()
		}
	}
	if before := s.work(); !ok || 2*d.tails <= before-d.start {
		copy(d.tmp, d.rem)
		var c float64
		d.tail, c = s.greedy(d.pi, d.tmp, 50, append(d.tail[:0], d.uses...))
		s.offer(d.tail, d.cost+c)
		d.last = s.work() - before
		d.tails += d.last
	}
	return !ok || s.done()
}

// takePrices takes the prices of the LP; no pod is worthless.
func (d *dive) takePrices() {
	for i, x := range d.lp.pi {
		d.pi[i] = max(x, 1e-6*d.s.alone[i])
	}
}
