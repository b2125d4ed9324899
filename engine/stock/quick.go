// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"math"
	"slices"
)

// solver is the state of one Solve: the model, the best solution, scratch.
type solver struct {
	md  *model
	kn  *knap
	ops int64
	aim Aim

	all      []int32 // md.count
	rem      []int32
	best     []use
	bestCost float64
	// greedyWork is the least work that a greedy purchase for all pods took.
	greedyWork int64

	resource float64
	weights  []float64 // what pods weigh in the resource bound
	hot      []pattern
	farley   float64
	duals    []float64

	lp      *cover
	cols    []pattern // the columns of the LP
	known   map[uint64]bool
	collect bool
	sown    bool      // Options.Seeds were used
	seeds   []pattern // fillings the quick heuristics saw

	// grid are the bins that are usually searched for fillings, by price: one of
	// several sizes that are close to each other.
	grid   []int32
	inGrid []bool
	every  []int32 // all bins

	alone    []float64 // per item: the least price per pod when it is alone in a bin
	aloneBin []int32

	// Scratch of greedy.
	score []float64
	good  []bool
	cache []pattern
	loadv []int64
	val   []float64
}

func newSolver(p *Problem) *solver {
	s := &solver{md: prepare(p), bestCost: math.Inf(1)}
	md := s.md
	s.kn = newKnap(md)
	s.all = md.count
	s.rem = make([]int32, md.m)
	s.score = make([]float64, md.nb)
	s.good = make([]bool, md.nb)
	s.cache = make([]pattern, md.nb)
	s.val = make([]float64, md.m)
	s.coarse()
	s.alone = make([]float64, md.m)
	s.aloneBin = make([]int32, md.m)
	for i := range s.alone {
		s.alone[i] = math.Inf(1)
	}
	for b, list := range md.list {
		for k, i := range list {
			if c := md.price[b] / float64(md.fit[b][k]); c < s.alone[i] {
				s.alone[i], s.aloneBin[i] = c, int32(b)
			}
		}
	}
	return s
}

// near is the ratio up to which, in every dimension, one size represents another.
const near = 1.08

// coarse chooses the grid. It leaves out a bin if one in the grid may hold the
// same items and has about the same capacity and price: a filling of that one is
// nearly as good, and goes into the cheapest bin that holds it anyway.
func (s *solver) coarse() {
	md := s.md
	s.inGrid = make([]bool, md.nb)
	s.every = make([]int32, md.nb)
	for b := range s.every {
		s.every[b] = int32(b)
	}
next:
	for b := range int32(md.nb) {
		for x := len(s.grid) - 1; x >= 0; x-- {
			k := s.grid[x]
			if md.price[b] > near*near*md.price[k] {
				break
			}
			if s.standsFor(k, b) {
				continue next
			}
		}
		s.refine(b)
	}
}

// standsFor reports whether bin k can represent bin b in the grid.
func (s *solver) standsFor(k, b int32) bool {
	md := s.md
	if !slices.Equal(md.list[k], md.list[b]) {
		return false
	}
	most := 1.0
	ck, cb := md.cp(k), md.cp(b)
	for d := range cb {
		x, y := float64(ck[d]), float64(cb[d])
		if y > near*x || x > near*y {
			return false
		}
		if x > 0 {
			most = max(most, y/x)
		}
	}
	return md.price[b] >= 0.99*most*md.price[k]
}

// refine adds a bin to the grid.
func (s *solver) refine(b int32) {
	if !s.inGrid[b] {
		s.inGrid[b] = true
		at, _ := slices.BinarySearch(s.grid, b)
		s.grid = slices.Insert(s.grid, at, b)
	}
}

func (s *solver) work() int64 { return (s.ops + s.kn.ops) / opsPerUnit }

// opsPerUnit is how many elementary steps (a multiplication and its memory access)
// are a work unit, about a microsecond.
const opsPerUnit = 170

// greedy repeatedly buys the filling with the most value per dollar, as many times
// as there are pods for it. It uses up rem.
func (s *solver) greedy(val []float64, rem []int32, nodes int, out []use) ([]use, float64) {
	md := s.md
	left := 0
	for i, r := range rem {
		if r > 0 {
			left++
		}
		// Pods without value need a place, too.
		s.val[i] = max(val[i], 1e-6*s.alone[i])
	}
	val = s.val
	for _, b := range s.grid {
		s.score[b] = math.Inf(1)
		s.good[b] = false
	}
	cost := 0.0
	for left > 0 {
		// The best bin; an outdated score is an upper bound.
		b, top := -1, 0.0
		okTop := 0.0
		for _, q := range s.grid {
			x := s.score[q]
			if x > top {
				b, top = int(q), x
			}
			if s.good[q] && x > okTop {
				okTop = x
			}
		}
		s.ops += int64(len(s.grid)) / 2
		if b < 0 {
			panic("stock: pods left that no bin holds")
		}
		if !s.good[b] {
			v, bound := s.kn.run(int32(b), val, rem, okTop*md.price[b], nodes)
			if v > 0 {
				s.score[b] = v / md.price[b]
				s.good[b] = true
				s.cache[b] = s.kn.pattern(int32(b))
				if s.collect {
					s.seeds = append(s.seeds, s.cache[b])
				}
			} else {
				s.score[b] = min(bound/md.price[b], okTop*(1-1e-9))
			}
			continue
		}
		p := s.cache[b]
		times := int32(math.MaxInt32)
		for k, i := range p.it {
			times = min(times, rem[i]/p.n[k])
		}
		for k, i := range p.it {
			if rem[i] -= times * p.n[k]; rem[i] == 0 {
				left--
			}
		}
		for _, q := range s.grid {
			if s.good[q] && !within(s.cache[q], rem) {
				s.good[q] = false
			}
		}
		u := use{p, times}
		u.bin = s.cheapest(p)
		cost += md.price[u.bin] * float64(times)
		out = append(out, u)
	}
	return out, cost
}

// within reports whether there are pods for one more copy of a pattern.
func within(p pattern, rem []int32) bool {
	for k, i := range p.it {
		if p.n[k] > rem[i] {
			return false
		}
	}
	return true
}

// cheapest returns the cheapest bin that holds the pattern.
func (s *solver) cheapest(p pattern) int32 {
	md := s.md
	s.loadv = md.load(p.it, p.n, s.loadv)
	for b := range int32(md.nb) { // ascending price
		if md.price[b] >= md.price[p.bin] {
			break
		}
		if md.canHold(b, s.loadv, p.it) {
			return b
		}
	}
	return p.bin
}

// offer keeps a solution if it is the cheapest one and reports whether it is.
func (s *solver) offer(uses []use, cost float64) bool {
	if cost < s.bestCost-1e-12 {
		s.best = append(s.best[:0:0], uses...)
		s.bestCost = cost
		return true
	}
	return false
}

// quick finds a first solution.
func (s *solver) quick() {
	var value []float64
	s.resource, value = s.resourceBound()
	s.weights = value
	s.collect = true
	defer func() { s.collect = false }()
	var uses []use
	try := func(val []float64) {
		copy(s.rem, s.all)
		var cost float64
		before := s.work()
		uses, cost = s.greedy(val, s.rem, 30, uses[:0])
		if w := s.work() - before; s.greedyWork == 0 || w < s.greedyWork {
			s.greedyWork = w
		}
		s.offer(uses, cost)
	}
	mix := make([]float64, s.md.m)
	if s.sown {
		// The values of pods in the given fillings are better than any guess.
		s.openLP()
		s.solveLP()
		for i, x := range s.lp.pi {
			mix[i] = max(x, 0)
		}
		try(mix)
		return
	}
	try(s.alone)
	if s.aim == AimBound {
		return
	}
	if s.work() < quickTries && !s.done() {
		for i := range mix {
			mix[i] = value[i] + 1e-6*s.alone[i]
		}
		try(mix)
		for i := range mix {
			mix[i] = (value[i] + s.alone[i]) / 2
		}
		try(mix)
	}
	// Value the pods by the best combination of the fillings seen so far.
	for round := 0; round < 4 && s.md.pods >= quickPods && s.work() < quickWork && !s.done(); round++ {
		known := len(s.cols)
		s.openLP()
		if len(s.cols) == known {
			break
		}
		s.lp.stop = s.lp.ops + (quickWork-s.work())*opsPerUnit
		s.solveLP()
		s.lp.stop = math.MaxInt64
		for i, x := range s.lp.pi {
			mix[i] = max(x, 0)
		}
		try(mix)
	}
}

// Limits of the quick heuristics.
const (
	quickTries = 3000  // work units after which no further values are tried
	quickWork  = 10000 // work units up to which the LP is used
	quickPods  = 32    // pods from which on the LP helps
)
