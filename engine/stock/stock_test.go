// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"encoding/json"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genProblem draws a small problem with all features: several dimensions,
// restricted items, caps per bin, conflicts, equal items, items that fit nowhere.
func genProblem(t *rapid.T, maxItems, maxCount int) *Problem {
	nd := rapid.IntRange(1, 4).Draw(t, "dims")
	size := rapid.Int64Range(0, 12)
	p := &Problem{}
	for range rapid.IntRange(1, maxItems).Draw(t, "items") {
		it := Item{Count: rapid.IntRange(0, maxCount).Draw(t, "count")}
		if rapid.IntRange(0, 3).Draw(t, "capped") == 0 {
			it.MaxPerBin = rapid.IntRange(1, 3).Draw(t, "cap")
		}
		for range nd {
			it.Size = append(it.Size, size.Draw(t, "size"))
		}
		p.Items = append(p.Items, it)
	}
	for range rapid.IntRange(1, 6).Draw(t, "bins") {
		b := Bin{Price: float64(rapid.IntRange(1, 400).Draw(t, "cents")) / 100}
		for range nd {
			b.Capacity = append(b.Capacity, rapid.Int64Range(0, 30).Draw(t, "capacity"))
		}
		p.Bins = append(p.Bins, b)
	}
	if rapid.Bool().Draw(t, "restricted") {
		for range p.Items {
			p.Allowed = append(p.Allowed, []uint64{rapid.Uint64Range(0, 1<<len(p.Bins)-1).Draw(t, "allowed")})
		}
	}
	if rapid.Bool().Draw(t, "conflicts") {
		p.Conflict = make([][]uint64, len(p.Items))
		for i := range p.Conflict {
			p.Conflict[i] = []uint64{0}
		}
		for range rapid.IntRange(0, 4).Draw(t, "pairs") {
			i := rapid.IntRange(0, len(p.Items)-1).Draw(t, "i")
			j := rapid.IntRange(0, len(p.Items)-1).Draw(t, "j")
			p.Conflict[i][0] |= 1 << j
			p.Conflict[j][0] |= 1 << i
		}
	}
	return p
}

// quick returns what the quick heuristics find.
func quick(p *Problem) *Solution { return Solve(p, Options{Work: WorkQuick}) }

func TestSolutionsAreFeasibleAndBetweenBoundAndQuick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 12, 40)
		q := quick(p)
		if err := q.Check(p); err != nil {
			t.Fatalf("quick: %v", err)
		}
		s := Solve(p, Options{Work: rapid.Int64Range(0, 20000).Draw(t, "work")})
		if err := s.Check(p); err != nil {
			t.Fatalf("solve: %v", err)
		}
		if s.Cost > q.Cost*(1+1e-12) {
			t.Fatalf("solve costs %v, quick %v", s.Cost, q.Cost)
		}
		for _, b := range []float64{q.Bound, s.Bound} {
			if b > s.Cost*(1+1e-9) {
				t.Fatalf("bound %v above a cost of %v", b, s.Cost)
			}
		}
		if again := Solve(p, Options{Work: 3000}); again != nil {
			first := Solve(p, Options{Work: 3000})
			a, _ := json.Marshal(again)
			b, _ := json.Marshal(first)
			if string(a) != string(b) {
				t.Fatalf("two answers:\n%s\n%s", a, b)
			}
		}
		for _, i := range s.Unplaceable {
			for b := range p.Bins {
				if p.Items[i].Count == 0 || p.canBeAlone(i, b) {
					t.Fatalf("item %d called unplaceable, bin %d holds it", i, b)
				}
			}
		}
	})
}

func (p *Problem) canBeAlone(i, b int) bool {
	if p.Allowed != nil && !hasBit(p.Allowed[i], b) {
		return false
	}
	for d := range p.Items[i].Size {
		if p.Items[i].at(d) > p.Bins[b].at(d) {
			return false
		}
	}
	return true
}

// The bounds of small problems are at most their optimum, found by dynamic
// programming over the items left.
func TestBoundsAreBelowTheOptimum(t *testing.T) {
	hit, total := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 4, 3)
		s := Solve(p, Options{})
		if err := s.Check(p); err != nil {
			t.Fatal(err)
		}
		for _, i := range s.Unplaceable {
			p.Items[i].Count = 0
		}
		opt := optimum(p)
		if s.Bound > opt*(1+1e-9) || s.ResourceBound > opt*(1+1e-9) || s.PatternBound > opt*(1+1e-9) {
			t.Fatalf("bounds %v, %v above the optimum %v", s.ResourceBound, s.PatternBound, opt)
		}
		if s.Cost < opt*(1-1e-9) {
			t.Fatalf("cost %v below the optimum %v", s.Cost, opt)
		}
		total++
		if s.Cost <= opt*(1+1e-9) {
			hit++
		}
	})
	t.Logf("optimal in %d of %d", hit, total)
	if total >= 50 && hit*10 < total*9 {
		t.Errorf("only %d of %d small problems solved to the optimum", hit, total)
	}
}

// optimum returns the least cost by exhaustive search.
func optimum(p *Problem) float64 {
	radix := 1
	step := make([]int, len(p.Items))
	full := 0
	for i := range p.Items {
		step[i] = radix
		full += radix * p.Items[i].Count
		radix *= p.Items[i].Count + 1
	}
	// What each bin can hold, as differences of the state.
	type move struct {
		state int
		price float64
	}
	var moves []move
	for b := range p.Bins {
		left := slices.Clone(p.Bins[b].Capacity)
		cnt := make([]int, len(p.Items))
		var rec func(i, state int)
		rec = func(i, state int) {
			if i == len(p.Items) {
				if state > 0 {
					moves = append(moves, move{state, p.Bins[b].Price})
				}
				return
			}
			it := &p.Items[i]
			for n := 0; n <= it.Count; n++ {
				if n > 0 {
					if p.Allowed != nil && !hasBit(p.Allowed[i], b) || it.MaxPerBin > 0 && n > it.MaxPerBin {
						break
					}
					ok := true
					for d := range it.Size {
						ok = ok && int64(n)*it.at(d) <= left[d]
					}
					if p.Conflict != nil {
						ok = ok && !(n > 1 && hasBit(p.Conflict[i], i))
						for j := range i {
							ok = ok && !(cnt[j] > 0 && hasBit(p.Conflict[i], j))
						}
					}
					if !ok {
						break
					}
				}
				for d := range it.Size {
					left[d] -= int64(n) * it.at(d)
				}
				cnt[i] = n
				rec(i+1, state+n*step[i])
				cnt[i] = 0
				for d := range it.Size {
					left[d] += int64(n) * it.at(d)
				}
			}
		}
		rec(0, 0)
	}
	cheap := map[int]float64{}
	for _, m := range moves {
		if x, ok := cheap[m.state]; !ok || m.price < x {
			cheap[m.state] = m.price
		}
	}
	best := make([]float64, full+1)
	for st := 1; st <= full; st++ {
		best[st] = math.Inf(1)
		for d, price := range cheap {
			if d <= st && digitsFit(p, step, st, d) {
				best[st] = min(best[st], best[st-d]+price)
			}
		}
	}
	return best[full]
}

func digitsFit(p *Problem, step []int, st, d int) bool {
	for i := range p.Items {
		base := p.Items[i].Count + 1
		if d/step[i]%base > st/step[i]%base {
			return false
		}
	}
	return true
}

func TestEqualItemsAreMergedAndNamedSeparately(t *testing.T) {
	p := &Problem{Bins: []Bin{{Capacity: []int64{10}, Price: 1}}}
	for range 7 {
		p.Items = append(p.Items, Item{Size: []int64{2}, Count: 3})
	}
	s := Solve(p, Options{})
	if err := s.Check(p); err != nil {
		t.Fatal(err)
	}
	if s.Cost != 5 { // 21 pods, 5 to a bin
		t.Errorf("cost %v, want 5", s.Cost)
	}
}

func TestCapsAndConflictsAreKept(t *testing.T) {
	p := &Problem{
		Items: []Item{
			{Size: []int64{1}, Count: 4, MaxPerBin: 1},
			{Size: []int64{1}, Count: 4},
			{Size: []int64{1}, Count: 2},
		},
		Bins:     []Bin{{Capacity: []int64{10}, Price: 1}, {Capacity: []int64{100}, Price: 3}},
		Conflict: [][]uint64{{0}, {1 << 2}, {1 << 1}},
	}
	s := Solve(p, Options{})
	if err := s.Check(p); err != nil {
		t.Fatal(err)
	}
	if s.Cost != 4 { // the capped item needs four bins, the others find room in them
		t.Errorf("cost %v, want 4: %+v", s.Cost, s.Patterns)
	}
}

func TestUnplaceableItemsAreListedAndTheRestIsSolved(t *testing.T) {
	p := &Problem{
		Items: []Item{
			{Size: []int64{5, 1}, Count: 2},
			{Size: []int64{11, 1}, Count: 1},
			{Size: []int64{1, 1}, Count: 1},
		},
		Bins:    []Bin{{Capacity: []int64{10, 10}, Price: 2}},
		Allowed: [][]uint64{{1}, {1}, {0}},
	}
	s := Solve(p, Options{})
	if err := s.Check(p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.Unplaceable, []int{1, 2}) || s.Cost != 2 {
		t.Errorf("unplaceable %v, cost %v; want [1 2] and 2", s.Unplaceable, s.Cost)
	}
}

func TestValidateRejectsMalformedProblems(t *testing.T) {
	for name, p := range map[string]*Problem{
		"negative size":  {Items: []Item{{Size: []int64{-1}, Count: 1}}},
		"negative count": {Items: []Item{{Count: -1}}},
		"free bin":       {Bins: []Bin{{Capacity: []int64{1}}}},
		"NaN price":      {Bins: []Bin{{Capacity: []int64{1}, Price: math.NaN()}}},
		"allowed rows":   {Items: []Item{{Count: 1}}, Allowed: [][]uint64{{1}, {1}}},
		"conflict rows":  {Items: []Item{{Count: 1}}, Conflict: [][]uint64{}},
	} {
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Every search of a knapsack is compared to trying all fillings: the filling found
// is feasible and has the value stated, the bound is at least the best value, and
// with enough effort both are equal.
func TestKnapsackSearchesAreBounded(t *testing.T) {
	met, total := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genProblem(t, 6, 4)
		md := prepare(p)
		if md.nb == 0 {
			t.Skip("nothing fits")
		}
		k := newKnap(md)
		val := make([]float64, md.m)
		for i := range val {
			val[i] = float64(rapid.IntRange(0, 30).Draw(t, "value")) / 7
		}
		b := int32(rapid.IntRange(0, md.nb-1).Draw(t, "bin"))
		want := bestFilling(md, b, val)
		floor := want * float64(rapid.IntRange(0, 12).Draw(t, "floor")) / 10
		for _, nodes := range []int{0, 1, 5, 10000, -2, -3, -8, -10000} {
			got, bound := k.run(b, val, md.count, floor, nodes)
			if bound < want-1e-9 && bound < floor {
				t.Fatalf("effort %d: bound %v is below the best %v and the floor %v", nodes, bound, want, floor)
			}
			if max(bound, floor) < want*(1-1e-9) {
				t.Fatalf("effort %d: bound %v (floor %v) is below the best %v", nodes, bound, floor, want)
			}
			if got > want*(1+1e-9) {
				t.Fatalf("effort %d: found %v, the best is %v", nodes, got, want)
			}
			if got > 0 {
				f := k.pattern(b)
				v := 0.0
				for q, i := range f.it {
					v += val[i] * float64(f.n[q])
					if f.n[q] > md.per[i] || f.n[q] > md.count[i] {
						t.Fatalf("effort %d: %d of item %d", nodes, f.n[q], i)
					}
					for _, j := range f.it {
						if i != j && md.conf != nil && hasBit(md.conf[int(i)*md.words:int(i+1)*md.words], int(j)) {
							t.Fatalf("effort %d: items %d and %d together", nodes, i, j)
						}
					}
				}
				if math.Abs(v-got) > 1e-9*v || !md.canHold(b, md.load(f.it, f.n, nil), f.it) {
					t.Fatalf("effort %d: filling %+v worth %v, said %v", nodes, f, v, got)
				}
			}
			if nodes == 10000 || nodes == -10000 && md.conf == nil {
				total++
				if floor < want*(1-1e-9) && math.Abs(got-want) > 1e-9*want || bound > max(want, floor)*(1+1e-7) {
					t.Fatalf("effort %d: found %v with bound %v, the best is %v, floor %v", nodes, got, bound, want, floor)
				}
				if want > 0 {
					met++
				}
			}
		}
	})
	if total > 0 && met == 0 {
		t.Error("no knapsack had a filling")
	}
}

func bestFilling(md *model, b int32, val []float64) float64 {
	best := 0.0
	room := slices.Clone(md.cp(b))
	set := make([]uint64, md.words)
	var rec func(k int, v float64)
	rec = func(k int, v float64) {
		best = max(best, v)
		if k == len(md.list[b]) {
			return
		}
		i := md.list[b][k]
		rec(k+1, v)
		if md.clash(i, set) {
			return
		}
		set[i>>6] |= 1 << (i & 63)
		for n := int32(1); n <= md.per[i]; n++ {
			if fits(room, md.sz(i), 1) == 0 {
				for d, s := range md.sz(i) {
					room[d] += s * int64(n-1)
				}
				set[i>>6] &^= 1 << (i & 63)
				return
			}
			for d, s := range md.sz(i) {
				room[d] -= s
			}
			rec(k+1, v+float64(n)*val[i])
		}
		for d, s := range md.sz(i) {
			room[d] += s * int64(md.per[i])
		}
		set[i>>6] &^= 1 << (i & 63)
	}
	rec(0, 0)
	return best
}

// genCluster draws a problem with the size and proportions of a cluster.
func genCluster(t *rapid.T) *Problem {
	p := &Problem{}
	nb := rapid.IntRange(3, 40).Draw(t, "bins")
	for range nb {
		cores := int64(1) << rapid.IntRange(1, 7).Draw(t, "cores")
		per := rapid.SampledFrom([]int64{2, 4, 8}).Draw(t, "GiB per core")
		gpus := int64(0)
		price := float64(cores) * (0.03 + 0.004*float64(per)) * rapid.Float64Range(0.8, 1.3).Draw(t, "dear")
		if rapid.IntRange(0, 5).Draw(t, "gpu bin") == 0 {
			gpus = max(cores/16, 1)
			price += float64(gpus)
		}
		p.Bins = append(p.Bins, Bin{Capacity: []int64{cores*1000 - 100, (cores*per*9/10 - 1) << 30, 110, gpus}, Price: price})
	}
	words := (nb + 63) / 64
	ni := rapid.IntRange(5, 60).Draw(t, "items")
	for range ni {
		it := Item{
			Size: []int64{
				rapid.Int64Range(1, 160).Draw(t, "cpu") * 50,
				rapid.Int64Range(1, 60).Draw(t, "mem") << 28,
				1, 0,
			},
			Count: rapid.IntRange(1, 60).Draw(t, "count"),
		}
		if rapid.IntRange(0, 9).Draw(t, "gpu") == 0 {
			it.Size[3] = 1
		}
		if rapid.IntRange(0, 4).Draw(t, "capped") == 0 {
			it.MaxPerBin = rapid.IntRange(1, 3).Draw(t, "cap")
		}
		p.Items = append(p.Items, it)
		row := make([]uint64, words)
		some := rapid.IntRange(0, 2).Draw(t, "restricted") == 0
		for b := range nb {
			if !some || rapid.Bool().Draw(t, "allowed") {
				row[b>>6] |= 1 << (b & 63)
			}
		}
		p.Allowed = append(p.Allowed, row)
	}
	if rapid.Bool().Draw(t, "conflicts") {
		p.Conflict = make([][]uint64, ni)
		for i := range p.Conflict {
			p.Conflict[i] = make([]uint64, (ni+63)/64)
		}
		for range rapid.IntRange(1, 10).Draw(t, "pairs") {
			i := rapid.IntRange(0, ni-1).Draw(t, "i")
			j := rapid.IntRange(0, ni-1).Draw(t, "j")
			p.Conflict[i][j>>6] |= 1 << (j & 63)
			p.Conflict[j][i>>6] |= 1 << (i & 63)
		}
	}
	return p
}

func TestClusters(t *testing.T) {
	plain, gaps := 0, 0.0
	rapid.Check(t, func(t *rapid.T) {
		p := genCluster(t)
		q := quick(p)
		work := int64(rapid.SampledFrom([]int{500, 5000, 30000}).Draw(t, "work"))
		s := Solve(p, Options{Work: work})
		for _, x := range []*Solution{q, s} {
			if err := x.Check(p); err != nil {
				t.Fatal(err)
			}
		}
		if s.Cost > q.Cost*(1+1e-12) || s.Bound < q.Bound || max(s.Bound, q.Bound) > s.Cost*(1+1e-9) {
			t.Fatalf("costs %v quick, %v; bounds %v, %v", q.Cost, s.Cost, q.Bound, s.Bound)
		}
		if s.Work > q.Work+work+work/2+5000 {
			t.Fatalf("work %d, quick %d, budget %d", s.Work, q.Work, work)
		}
		a, _ := json.Marshal(s)
		b, _ := json.Marshal(Solve(p, Options{Work: work}))
		if string(a) != string(b) {
			t.Fatalf("two answers:\n%s\n%s", a, b)
		}
		if work == 30000 && p.Conflict == nil && s.Bound > 0 {
			plain++
			gaps += s.Cost/s.Bound - 1
		}
	})
	if plain > 0 {
		t.Logf("mean gap %.2f%% of %d without conflicts", 100*gaps/float64(plain), plain)
	}
}

func TestLPFindsTheOptimumAndFollowsDemand(t *testing.T) {
	// Two rows; together they are cheaper.
	c := newCover([]float64{4, 6}, []float64{1, 1}, []float64{2, 3})
	c.add(3.5, []int32{0, 1}, []float64{1, 1})
	if !c.primal(100) || math.Abs(c.objective()-(4*3.5+2*3)) > 1e-9 {
		t.Errorf("objective %v, want 20", c.objective())
	}
	if math.Abs(c.pi[0]-0.5) > 1e-9 || math.Abs(c.pi[1]-3) > 1e-9 {
		t.Errorf("prices %v, want 0.5 and 3", c.pi)
	}
	c.demand([]float64{6, 1})
	if !c.dual(100) || !c.primal(100) || math.Abs(c.objective()-(3.5+5*2)) > 1e-9 {
		t.Errorf("objective %v after the demand changed, want 13.5", c.objective())
	}
	if !c.refresh() {
		t.Error("the basis is said to be singular")
	}
}
