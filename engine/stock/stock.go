// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package stock chooses machines as a cutting stock problem: given items (classes
// of pods, each a vector and a count) and bins (machines that can be bought, each
// a vector and a price), choose bins and fill them so that all items are placed at
// the least cost, and prove how far from the least a solution can be.
//
// It is a pure function: no clock, no randomness, no dependence on the order of
// maps. Effort is counted in work units, never in seconds.
package stock

import (
	"fmt"
	"math"
	"slices"
)

// Item is demand: Count pods that each take Size.
type Item struct {
	// Size is what one pod takes, in the problem's dimensions.
	Size []int64
	// Count is how many pods there are.
	Count int
	// MaxPerBin is how many pods of the item may share a bin (hostname spread,
	// anti-affinity to themselves, host ports); 0 means any number.
	MaxPerBin int
}

// Bin is a kind of machine that can be bought, any number of times.
type Bin struct {
	// Capacity is what fits beside the daemons.
	Capacity []int64
	// Price in USD per hour, greater than 0.
	Price float64
}

// Problem is the input of Solve, which does not change it.
type Problem struct {
	Items []Item
	Bins  []Bin
	// Allowed[i] is the set of bins that may hold item i, as bits: bin b is
	// allowed when Allowed[i][b/64]&(1<<(b%64)) != 0. Nil allows everything.
	Allowed [][]uint64
	// Conflict[i] is the set of items that may not share a bin with item i, as
	// bits in the same way, symmetric; nil when there are no conflicts at all.
	Conflict [][]uint64
}

// Pattern is a filling of a bin that is bought Times times.
type Pattern struct {
	Bin int
	// Counts[k] is the number of pods of item Items[k].
	Items  []int
	Counts []int
	Times  int
}

// Solution is a complete purchase: every item's count is met exactly.
type Solution struct {
	Patterns []Pattern
	Cost     float64
	// Bound is a proven lower bound on the cost of any solution, the larger of
	// ResourceBound and PatternBound.
	Bound         float64
	ResourceBound float64
	PatternBound  float64
	// Duals[i] is the value of one pod of item i that proved PatternBound, a shadow
	// price for heuristics.
	Duals []float64
	// Values[i] is the value of one pod of item i that proved Bound: no bin can
	// hold more value than it costs, and the value of all pods is Bound. If there
	// are Rooms, Bound less MostValue is a bound.
	Values []float64
	// Columns are the fillings that were considered, for use as Seeds.
	Columns []Pattern
	// Unplaceable are the items with pods that no allowed bin holds, ascending.
	// Patterns, Cost and Bound are about the others.
	Unplaceable []int
	// Work is the number of work units used.
	Work int64
}

// Options of Solve.
type Options struct {
	// Work is the budget in work units (deterministic, about a microsecond
	// each): WorkDefault, WorkQuick, or a positive number.
	Work int64
	// Aim is what to spend the work on.
	Aim Aim
	// Seeds are fillings to start with, for example those of a similar problem.
	// Their Times are ignored, and so are fillings that break a rule.
	Seeds []Pattern
	// Columns asks for Solution.Columns.
	Columns bool
}

// Aim is what Solve spends its budget on. The result always has a solution and a
// bound.
type Aim int

// Aims.
const (
	AimBoth  Aim = iota
	AimCost      // a cheap solution
	AimBound     // a high bound
)

// Budgets for Options.Work.
const (
	// WorkDefault grows with the problem, up to about two seconds of one core.
	WorkDefault int64 = 0
	// WorkQuick stops after the quick heuristics and the resource bound.
	WorkQuick int64 = -1
)

// Solve returns the cheapest purchase that it finds within the budget, which is at
// least as good as with WorkQuick, and lower bounds on the cost of any. It panics if p
// does not pass Validate.
func Solve(p *Problem, opts Options) *Solution {
	if err := p.Validate(); err != nil {
		panic("stock: " + err.Error())
	}
	if parts := split(p); parts != nil {
		return solveParts(p, parts, opts)
	}
	return solve(p, opts)
}

func solve(p *Problem, opts Options) *Solution {
	s := newSolver(p)
	s.aim = opts.Aim
	sol := &Solution{Unplaceable: s.md.unplaceable, Duals: make([]float64, len(p.Items)), Values: make([]float64, len(p.Items))}
	if s.md.m == 0 {
		return sol
	}
	s.sow(opts.Seeds)
	s.quick()
	if opts.Work >= 0 {
		s.improve(opts.Work)
	}
	sol.Patterns, sol.Cost = s.md.expand(s.best)
	sol.ResourceBound, sol.PatternBound = s.resource, s.farley
	sol.Bound = max(s.resource, s.farley)
	for i, v := range s.duals {
		for _, o := range s.md.member[i] {
			sol.Duals[o] = v
		}
	}
	proof := s.weights
	if s.farley > s.resource {
		proof = s.duals
	}
	for i, v := range proof {
		for _, o := range s.md.member[i] {
			sol.Values[o] = v
		}
	}
	if opts.Columns {
		sol.Columns = s.columns()
	}
	sol.Work = s.work()
	return sol
}

// Validate returns an error if the problem is malformed.
func (p *Problem) Validate() error {
	for i := range p.Items {
		it := &p.Items[i]
		if it.Count < 0 || it.MaxPerBin < 0 {
			return fmt.Errorf("item %d: count %d and cap per bin %d must not be negative", i, it.Count, it.MaxPerBin)
		}
		for d, x := range it.Size {
			if x < 0 {
				return fmt.Errorf("item %d: size %d in dimension %d is negative", i, x, d)
			}
		}
	}
	for b := range p.Bins {
		if q := p.Bins[b].Price; !(q > 0) || math.IsInf(q, 0) {
			return fmt.Errorf("bin %d: price %v is not a positive number", b, q)
		}
	}
	if p.Allowed != nil && len(p.Allowed) != len(p.Items) {
		return fmt.Errorf("%d rows of allowed bins for %d items", len(p.Allowed), len(p.Items))
	}
	if p.Conflict != nil && len(p.Conflict) != len(p.Items) {
		return fmt.Errorf("%d rows of conflicts for %d items", len(p.Conflict), len(p.Items))
	}
	return nil
}

// Check returns an error if a solution of p is wrong: a bin is overfull, holds an
// item that it may not, more of an item than its cap or two items in conflict, a
// count is not met exactly, the cost is not the sum of prices or below the bound.
func (sol *Solution) Check(p *Problem) error {
	got := make([]int, len(p.Items))
	cost := 0.0
	for k := range sol.Patterns {
		t := &sol.Patterns[k]
		if t.Bin < 0 || t.Bin >= len(p.Bins) || t.Times <= 0 || len(t.Items) != len(t.Counts) || len(t.Items) == 0 {
			return fmt.Errorf("pattern %d: malformed", k)
		}
		bin := &p.Bins[t.Bin]
		var load []int64
		for q, i := range t.Items {
			it := &p.Items[i]
			if t.Counts[q] <= 0 || q > 0 && t.Items[q-1] >= i {
				return fmt.Errorf("pattern %d: items not ascending or count not positive", k)
			}
			got[i] += t.Counts[q] * t.Times
			if p.Allowed != nil && !hasBit(p.Allowed[i], t.Bin) {
				return fmt.Errorf("pattern %d: item %d is not allowed in bin %d", k, i, t.Bin)
			}
			if it.MaxPerBin > 0 && t.Counts[q] > it.MaxPerBin {
				return fmt.Errorf("pattern %d: %d pods of item %d, at most %d may share a bin", k, t.Counts[q], i, it.MaxPerBin)
			}
			for d, x := range it.Size {
				for len(load) <= d {
					load = append(load, 0)
				}
				load[d] += x * int64(t.Counts[q])
			}
			if p.Conflict == nil {
				continue
			}
			for r, j := range t.Items {
				if hasBit(p.Conflict[i], j) && (r != q || t.Counts[q] > 1) {
					return fmt.Errorf("pattern %d: items %d and %d may not share a bin", k, i, j)
				}
			}
		}
		for d, x := range load {
			if x > bin.at(d) {
				return fmt.Errorf("pattern %d: %d in dimension %d, bin %d has %d", k, x, d, t.Bin, bin.at(d))
			}
		}
		cost += bin.Price * float64(t.Times)
	}
	for i := range p.Items {
		want := p.Items[i].Count
		if _, out := slices.BinarySearch(sol.Unplaceable, i); out {
			want = 0
		}
		if got[i] != want {
			return fmt.Errorf("item %d: %d pods placed of %d", i, got[i], want)
		}
	}
	if math.Abs(cost-sol.Cost) > 1e-9*cost {
		return fmt.Errorf("cost %v, the sum of prices is %v", sol.Cost, cost)
	}
	if sol.Cost < sol.Bound*(1-1e-12) {
		return fmt.Errorf("cost %v is below the bound %v", sol.Cost, sol.Bound)
	}
	return nil
}
