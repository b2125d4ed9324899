// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genSteps draws a problem with many sizes that are close to each other. Some items
// are exclusive: each pod takes the only unit of a bin in the last dimension.
func genSteps(t *rapid.T) *Problem {
	p := &Problem{}
	per := int64(rapid.IntRange(1, 4).Draw(t, "per"))
	overhead := int64(rapid.IntRange(0, 6).Draw(t, "overhead"))
	for i := range rapid.Int64Range(5, 60).Draw(t, "sizes") {
		i++
		p.Bins = append(p.Bins, Bin{Capacity: []int64{10*i - overhead, 10*per*i - 1, 1}, Price: float64(i) * 0.3})
	}
	for range rapid.IntRange(1, 4).Draw(t, "items") {
		p.Items = append(p.Items, Item{
			Size:  []int64{rapid.Int64Range(1, 60).Draw(t, "cpu"), rapid.Int64Range(0, 90).Draw(t, "memory"), rapid.Int64Range(0, 1).Draw(t, "apart")},
			Count: rapid.IntRange(1, 3).Draw(t, "count"),
		})
	}
	return p
}

// With every aim the optimum is between bound and solution.
func TestOptimumIsBetweenBoundAndSolutionForEveryAim(t *testing.T) {
	coarse, tight, total := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genSteps(t)
		s := newSolver(p)
		if len(s.grid) < s.md.nb {
			coarse++
		}
		out := quick(p).Unplaceable
		for _, i := range out {
			p.Items[i].Count = 0
		}
		opt := optimum(p)
		total++
		for _, aim := range []Aim{AimBoth, AimCost, AimBound} {
			sol := Solve(p, Options{Work: int64(rapid.SampledFrom([]int{1, 300, 20000}).Draw(t, "work")), Aim: aim})
			if err := sol.Check(p); err != nil {
				t.Fatalf("aim %d: %v", aim, err)
			}
			if sol.Bound > opt*(1+1e-9) || sol.Cost < opt*(1-1e-9) {
				t.Fatalf("aim %d: bound %v, optimum %v, cost %v", aim, sol.Bound, opt, sol.Cost)
			}
			if aim == AimBound && sol.Bound > opt*0.98 {
				tight++
			}
		}
	})
	t.Logf("%d problems, %d with a grid; the bound within 2%% for %d", total, coarse, tight)
}

// The value of a table is never below that of the best filling, for any bin that
// the table is for.
func TestTablesBoundFillings(t *testing.T) {
	tables := 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 6, 4)
		if rapid.Bool().Draw(t, "steps") {
			p = genSteps(t)
		}
		md := prepare(p)
		if md.nb == 0 {
			t.Skip("nothing fits")
		}
		val := make([]float64, md.m)
		for i := range val {
			val[i] = float64(rapid.IntRange(0, 30).Draw(t, "value")) / 7
		}
		size := make([]int64, md.nd)
		for b := range int32(md.nb) {
			for d, c := range md.cp(b) {
				size[d] = max(size[d], c)
			}
		}
		tab := md.layOut(val, size)
		if tab == nil {
			t.Skip("fewer than two dimensions")
		}
		tables++
		for k := range tab.dim { // coarser cells
			f := int64(rapid.IntRange(1, 5).Draw(t, "coarser"))
			for i := range tab.item {
				tab.item[i].size[k] /= int(f)
			}
			tab.unit[k] *= f
			tab.cells[k] = int(size[tab.dim[k]]/tab.unit[k]) + 1
		}
		tab.fill()
		for b := range int32(md.nb) {
			if want, got := bestFilling(md, b, val), tab.value(md.cp(b)); got < want*(1-1e-12) {
				t.Fatalf("bin %d: the table says %v, a filling is worth %v", b, got, want)
			}
		}
	})
	t.Logf("%d tables", tables)
}

// Parts that share no bin are solved separately, and their solutions together
// solve the whole problem.
func TestPartsSolveTheWholeProblem(t *testing.T) {
	split2 := 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 6, 3)
		if p.Allowed == nil {
			t.Skip("nothing restricted")
		}
		parts := split(p)
		if parts == nil {
			t.Skip("one part")
		}
		split2++
		seen := make([]int, len(p.Items))
		for _, pt := range parts {
			for k, i := range pt.items {
				seen[i]++
				for q, b := range pt.bins {
					if hasBit(pt.p.Allowed[k], q) != hasBit(p.Allowed[i], b) {
						t.Fatalf("item %d and bin %d: allowed in one only", i, b)
					}
				}
			}
		}
		for i, n := range seen {
			if want := min(p.Items[i].Count, 1); n != want {
				t.Fatalf("item %d is in %d parts", i, n)
			}
		}
		s := Solve(p, Options{Work: 5000})
		if err := s.Check(p); err != nil {
			t.Fatal(err)
		}
		whole := solve(p, Options{Work: 5000})
		if !slices.Equal(s.Unplaceable, whole.Unplaceable) {
			t.Fatalf("unplaceable %v, solved whole %v", s.Unplaceable, whole.Unplaceable)
		}
		if max(s.Bound, whole.Bound) > min(s.Cost, whole.Cost)*(1+1e-9) {
			t.Fatalf("bounds %v, %v above the costs %v, %v", s.Bound, whole.Bound, s.Cost, whole.Cost)
		}
	})
	t.Logf("%d problems in parts", split2)
}

// Whichever pods the rooms take, the machines for the others cost at least the
// proven bound.
func TestMostValueBoundsWhatRoomsTake(t *testing.T) {
	above, tight := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 4, 3)
		for _, i := range quick(p).Unplaceable {
			p.Items[i].Count = 0
		}
		nd := len(p.Items[0].Size)
		var rooms []Room
		for range rapid.IntRange(1, 3).Draw(t, "rooms") {
			r := Room{}
			for range nd {
				r.Capacity = append(r.Capacity, rapid.Int64Range(0, 20).Draw(t, "free"))
			}
			for i := range p.Items {
				n := min(int(fits(r.Capacity, p.Items[i].Size, int32(p.Items[i].Count))), rapid.IntRange(0, 3).Draw(t, "most"))
				r.Most = append(r.Most, n)
			}
			rooms = append(rooms, r)
		}
		s := Solve(p, Options{Work: 3000, Aim: AimBound})
		value, taken := MostValue(p.Items, s.Values, rooms)
		// The exact answer: every way to fill the rooms, and machines for the rest.
		least := optimum(p)
		seen := map[string]bool{}
		var fill func(k, i int, left []int64)
		fill = func(k, i int, left []int64) {
			if k == len(rooms) {
				key := ""
				for _, it := range p.Items {
					key += string(rune('0' + it.Count))
				}
				if !seen[key] {
					seen[key] = true
					least = min(least, optimum(p))
				}
				return
			}
			if i == len(p.Items) {
				if k++; k < len(rooms) {
					fill(k, 0, slices.Clone(rooms[k].Capacity))
				} else {
					fill(k, 0, nil)
				}
				return
			}
			it := &p.Items[i]
			for n := 0; n <= rooms[k].Most[i] && n <= it.Count; n++ {
				rest := slices.Clone(left)
				ok := true
				for d, x := range it.Size {
					rest[d] -= x * int64(n)
					ok = ok && rest[d] >= 0
				}
				if !ok {
					break
				}
				it.Count -= n
				fill(k, i+1, rest)
				it.Count += n
			}
		}
		fill(0, 0, slices.Clone(rooms[0].Capacity))
		bound := s.Bound - value
		if bound > least+1e-9 {
			t.Fatalf("bound %v − %v, but %v suffices (%v taken)", s.Bound, value, least, taken)
		}
		if least > 0 {
			above++
			if bound > 0.7*least {
				tight++
			}
		}
	})
	t.Logf("something to buy in %d, the bound within 30%% in %d", above, tight)
	if above > 50 && tight*3 < above {
		t.Errorf("the bound is far off: within 30%% in %d of %d", tight, above)
	}
}

// Any seeds give a valid solution, also those that break rules or name items that
// do not exist.
func TestInvalidSeedsAreIgnored(t *testing.T) {
	used := 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 8, 20)
		first := Solve(p, Options{Work: 3000, Aim: AimBound, Columns: true})
		seeds := first.Columns
		used += len(seeds)
		for range rapid.IntRange(0, 4).Draw(t, "odd") {
			seeds = append(seeds, Pattern{
				Bin:    rapid.IntRange(-1, len(p.Bins)).Draw(t, "bin"),
				Items:  []int{rapid.IntRange(-1, len(p.Items)).Draw(t, "item")},
				Counts: []int{rapid.IntRange(-1, 30).Draw(t, "count")},
			})
		}
		for _, work := range []int64{WorkQuick, 5000} {
			s := Solve(p, Options{Work: work, Aim: AimCost, Seeds: seeds})
			if err := s.Check(p); err != nil {
				t.Fatal(err)
			}
			if first.Bound > s.Cost*(1+1e-9) {
				t.Fatalf("bound %v above the cost %v", first.Bound, s.Cost)
			}
			again := Solve(p, Options{Work: work, Aim: AimCost, Seeds: seeds})
			if a, b := s.Patterns, again.Patterns; len(a) != len(b) || s.Cost != again.Cost {
				t.Fatalf("two answers: %v and %v", s.Cost, again.Cost)
			}
		}
	})
	if used == 0 {
		t.Error("no seeds")
	}
}
