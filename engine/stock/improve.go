// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"math"
	"slices"
)

// closeEnough is the gap to the bound at which the search stops.
const closeEnough = 5e-4

// improve spends up to work units on a cheaper solution and a better bound.
func (s *solver) improve(work int64) {
	md := s.md
	m := md.m
	if work == WorkDefault {
		// A few pods get about a millisecond each. The LP of very many items costs
		// more than it saves, and pods that are small compared to machines need it
		// less.
		n := float64(min(md.pods, 1<<20))
		work = int64(min(100*n+2*n*n, 1.8e6*min(1, 100/float64(m))))
	}
	end := s.work() + work
	if s.done() {
		return
	}
	s.openLP()
	start := s.work()
	s.generate(md.count, start+(end-start)*7/10, true)
	if s.aim != AimCost && !s.done() {
		s.prove(end)
	}
	if s.aim == AimBound {
		return
	}
	if s.duals == nil { // no bound proven in the time
		s.duals = append(s.duals, s.alone...)
	}
	if s.done() || s.work()+s.greedyWork > end {
		return
	}
	if !s.sown {
		copy(s.rem, md.count)
		uses, c := s.greedy(s.duals, s.rem, 100, nil)
		s.offer(uses, c)
	}
	s.dive(start + (end-start)*9/10)
	s.search(end)
}

// openLP creates the LP over fillings, with one filling per item, and adds the
// fillings that heuristics have seen since the last call.
func (s *solver) openLP() {
	md := s.md
	if s.lp == nil {
		m := md.m
		need := make([]float64, m)
		amount := make([]float64, m)
		cost := make([]float64, m)
		s.known = map[uint64]bool{}
		for i := range m {
			b := s.aloneBin[i]
			need[i] = float64(md.count[i])
			cost[i] = md.price[b]
			amount[i] = math.Round(cost[i] / s.alone[i])
			s.cols = append(s.cols, pattern{b, []int32{int32(i)}, []int32{int32(amount[i])}})
			s.known[s.cols[i].hash()] = true
		}
		s.lp = newCover(need, amount, cost)
	}
	for _, p := range s.seeds {
		s.column(p)
	}
	s.seeds = s.seeds[:0]
}

// solveLP continues to the optimum over the known fillings.
func (s *solver) solveLP() {
	ops := s.lp.ops
	s.lp.primal(50 * s.md.m)
	s.lp.refresh()
	s.ops += s.lp.ops - ops
}

// done reports whether the best solution is practically proven optimal.
func (s *solver) done() bool {
	return s.bestCost <= max(s.resource, s.farley)*(1+closeEnough)
}

func (p pattern) hash() uint64 {
	h := uint64(14695981039346656037)
	mix := func(x int32) {
		h ^= uint64(uint32(x))
		h *= 1099511628211
		h ^= h >> 29
	}
	mix(p.bin)
	for k, i := range p.it {
		mix(i)
		mix(p.n[k])
	}
	return h
}

// column adds a filling to the LP and reports whether it is new.
func (s *solver) column(p pattern) bool {
	h := p.hash()
	if s.known[h] {
		return false
	}
	s.known[h] = true
	s.lp.addPattern(p, s.md.price[p.bin])
	s.cols = append(s.cols, p)
	return true
}

// generate adds fillings that improve the LP until there are none, the bound meets
// the LP, or the work is spent. With prove set, rem is all demand, and the bound
// and the duals are kept.
func (s *solver) generate(rem []int32, until int64, prove bool) {
	m := s.md.m
	lp := s.lp
	lp.stop = lp.ops + (until-s.work())*opsPerUnit
	defer func() { lp.stop = math.MaxInt64 }()
	pi := make([]float64, m)
	sep := make([]float64, m)
	center := make([]float64, m)
	haveCenter := false
	best := 0.0
	if prove && s.resource > 0 {
		haveCenter = true
		best = s.resource
		copy(center, s.weights)
	}
	nodes := 60
	smooth := 0.6
	if s.sown {
		smooth = 0
	}
	// Rounds over the grid alone prove nothing: when they find no more fillings, a
	// round over all bins follows, or the proof is left to the method prove.
	full := len(s.grid) == s.md.nb
	s.kn.stop = until*opsPerUnit - s.ops
	defer func() { s.kn.stop = math.MaxInt64 }()
	coarse := !full
	atCenter := false // use the best values again
	for s.work() < until {
		s.solveLP()
		obj := lp.objective()
		for i, x := range lp.pi {
			pi[i] = max(x, 0)
			sep[i] = pi[i]
			if atCenter {
				sep[i] = center[i]
			} else if haveCenter {
				sep[i] = smooth*center[i] + (1-smooth)*pi[i]
			}
		}
		atCenter = false
		ratio, added := s.price(sep, pi, rem, nodes, full)
		sum := 0.0
		for i, x := range sep {
			sum += x * float64(rem[i])
		}
		bound := 0.0
		if ratio > 0 {
			bound = sum / (ratio * up)
		}
		if full && prove && bound/up > s.farley {
			s.farley = bound / up
			s.duals = append(s.duals[:0], sep...)
			for i := range s.duals {
				s.duals[i] /= ratio * up
			}
			if s.done() {
				return
			}
		}
		if coarse && full {
			best = max(s.resource, s.farley) // a bound of the grid may not hold
		}
		if bound > best {
			best = bound
			haveCenter = true
			copy(center, sep)
		}
		if best >= obj*(1-closeEnough/2) {
			if full || s.aim == AimCost {
				return
			}
			full, atCenter = true, true
			continue
		}
		full = !coarse
		if added > 0 {
			continue
		}
		switch {
		case smooth > 0 && haveCenter:
			smooth = max(smooth-0.3, 0) // the mixture found nothing: move towards the LP's prices
		case coarse && prove:
			return // too many bins: see prove
		case nodes > 0:
			nodes, smooth = -1500, 0.5
		case nodes > -20000 && prove:
			nodes *= 4
		default:
			return
		}
	}
}

// price searches the bins of the grid, or with full set every bin, for a filling
// that is worth more than the bin at values sep, and adds those for which that is
// also true at pi. In the bins where it found one it searches again without the
// items found, so that one round of the LP covers many items. It returns the
// largest ratio of value (an upper bound) to price.
func (s *solver) price(sep, pi []float64, rem []int32, nodes int, full bool) (ratio float64, added int) {
	md := s.md
	s.hot = s.hot[:0]
	look := func(b int32, val []float64) (found pattern, ok bool, bound float64) {
		floor := md.price[b] * (1 + 1e-7)
		if nodes < 0 {
			floor = md.price[b] * (1 + 2e-4)
		}
		v, bound := s.kn.run(b, val, rem, floor, nodes)
		if v == 0 {
			return found, false, bound
		}
		found = s.kn.pattern(b)
		x := md.price[b]
		for k, i := range found.it {
			x -= pi[i] * float64(found.n[k])
		}
		if x < -1e-7*md.price[b] && s.column(found) {
			added++
			s.refine(b)
		}
		return found, true, bound
	}
	bins := s.grid
	if full {
		bins = s.every
	}
	bins = slices.Clone(bins) // refine changes the grid
	for _, b := range bins {
		if s.kn.ops > s.kn.stop {
			return math.Inf(1), added // bins left out: nothing is proven
		}
		p, ok, bound := look(b, sep)
		ratio = max(ratio, bound/md.price[b])
		if ok {
			s.hot = append(s.hot, p)
		}
	}
	if len(s.hot) == 0 {
		return ratio, added
	}
	worth := func(p pattern) float64 {
		v := 0.0
		for k, i := range p.it {
			v += sep[i] * float64(p.n[k])
		}
		return v / md.price[p.bin]
	}
	slices.SortStableFunc(s.hot, func(a, b pattern) int { return cmp.Compare(worth(b), worth(a)) })
	for _, p := range s.hot[:min(len(s.hot), 4)] {
		copy(s.val, sep)
		for range 6 {
			for _, i := range p.it {
				s.val[i] = 0
			}
			var ok bool
			if p, ok, _ = look(p.bin, s.val); !ok {
				break
			}
		}
	}
	return ratio, added
}
