// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"slices"
)

// prove bounds the value of fillings where the search cannot: when many sizes of
// bins have many fillings of nearly the same value. All of these bins share one
// table: the knapsack by dynamic programming over two dimensions (and a third one
// of which a bin has few units: a rule that keeps pods apart, or GPUs), with
// amounts rounded down to whole cells.
//
// Why that bounds the value of any filling: let a filling take Σ s ≤ c of a
// dimension, and let u be the size of a cell. Then Σ ⌊s/u⌋ ≤ ⌊Σ s/u⌋ ≤ ⌊c/u⌋, so
// the table contains the filling for ⌊c/u⌋ cells. It ignores other dimensions,
// conflicts and which items a bin may hold, and pods of an item come in chunks
// (see table); all of that only allows more fillings.
//
// The values are the prices of the LP. The table takes the bins whose relaxation
// is loosest, as many as the work suffices for; the relaxation of the others
// limits the bound.
func (s *solver) prove(until int64) {
	md := s.md
	if s.lp == nil || md.nd < 2 {
		return
	}
	pi := make([]float64, md.m)
	sum := 0.0
	for i, x := range s.lp.pi {
		pi[i] = max(x, 0)
		sum += pi[i] * float64(md.count[i])
	}
	ratio := make([]float64, md.nb)
	order := make([]int32, 0, md.nb)
	for b := range int32(md.nb) {
		ratio[b] = s.kn.relaxed(b, pi, md.count) / md.price[b]
		if ratio[b] > 1+closeEnough {
			order = append(order, b)
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(ratio[b], ratio[a]) })
	// The bins that the table takes.
	var t *table
	budget := (until - s.work()) * opsPerUnit
	size := make([]int64, md.nd)
	taken := 0
	for k, b := range order {
		for d, c := range md.cp(b) {
			size[d] = max(size[d], c)
		}
		next := md.layOut(pi, size)
		if next == nil || next.cost() > budget {
			break
		}
		t, taken = next, k+1
	}
	if t == nil {
		return
	}
	t.fill()
	s.ops += t.cost()
	for _, b := range order[:taken] {
		ratio[b] = min(ratio[b], t.value(md.cp(b))*up*up/md.price[b])
	}
	worst := 0.0
	for _, r := range ratio {
		worst = max(worst, r)
	}
	if worst == 0 {
		return
	}
	if bound := sum / (worst * up) / up; bound > s.farley {
		s.farley = bound
		s.duals = append(s.duals[:0], pi...)
		for i := range s.duals {
			s.duals[i] /= worst * up
		}
	}
}

// table is a knapsack over rounded capacities.
type table struct {
	dim   [2]int   // the dimensions
	unit  [2]int64 // size of a cell
	cells [2]int
	level int // the dimension with few units, or -1
	top   int // its units
	item  []chunk
	best  [][]float64 // by units of level: value by cells
}

// chunk is a number of pods of an item.
type chunk struct {
	value float64
	size  [2]int
	level int
}

// Sizes of tables.
const (
	tableLevels = 4    // units of the level dimension at most
	tableCells  = 1024 // in one dimension
)

// layOut returns a table for bins up to a size, or nil if there are fewer than two
// dimensions for it.
func (md *model) layOut(val []float64, size []int64) *table {
	t := &table{level: -1}
	used := 0
	asks := func(d int) bool {
		for i := range md.m {
			if val[i] > 0 && md.size[i*md.nd+d] > 0 {
				return true
			}
		}
		return false
	}
	// The dimensions that pods take most of, relative to the size.
	share := make([]float64, md.nd)
	for i := range md.m {
		for d, x := range md.sz(int32(i)) {
			if size[d] > 0 {
				share[d] += float64(x) / float64(size[d]) * float64(md.count[i])
			}
		}
	}
	order := make([]int, md.nd)
	for d := range order {
		order[d] = d
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(share[b], share[a]) })
	for _, d := range order {
		switch {
		case !asks(d):
		case size[d] <= tableLevels:
			if t.level < 0 {
				t.level, t.top = d, int(size[d])
			}
		case used < 2:
			t.dim[used] = d
			used++
		}
	}
	if used < 2 {
		return nil
	}
	for k, d := range t.dim {
		g := int64(0)
		for i := range md.m {
			g = gcd(g, md.size[i*md.nd+d])
		}
		for t.unit[k] = max(g, 1); size[d]/t.unit[k] > tableCells; {
			t.unit[k] *= 2
		}
		t.cells[k] = int(size[d]/t.unit[k]) + 1
	}
	for i := range md.m {
		if val[i] <= 0 {
			continue
		}
		sz := md.sz(int32(i))
		most := fits(size, sz, min(md.per[i], md.count[i]))
		for n := int32(1); most > 0; n *= 2 {
			n = min(n, most)
			most -= n
			c := chunk{value: val[i] * float64(n)}
			for k, d := range t.dim {
				c.size[k] = int(int64(n) * sz[d] / t.unit[k])
			}
			if t.level >= 0 {
				c.level = int(int64(n) * sz[t.level])
			}
			t.item = append(t.item, c)
		}
	}
	// Pods without units of the level first: they are alike on all levels.
	slices.SortStableFunc(t.item, func(a, b chunk) int { return cmp.Compare(a.level, b.level) })
	return t
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// cost returns how many elementary steps the table takes.
func (t *table) cost() int64 {
	n := int64(0)
	for _, c := range t.item {
		levels := 1
		if c.level > 0 {
			levels = t.top - c.level + 1
		}
		n += int64(levels) * int64(max(t.cells[0]-c.size[0], 0)) * int64(max(t.cells[1]-c.size[1], 0))
	}
	return n / 4
}

// fill computes the table.
func (t *table) fill() {
	w := t.cells[1]
	t.best = [][]float64{make([]float64, t.cells[0]*w)}
	for _, c := range t.item {
		if c.level > 0 {
			for len(t.best) <= t.top {
				t.best = append(t.best, slices.Clone(t.best[0]))
			}
		}
		for l := len(t.best) - 1; l >= c.level; l-- {
			to, from := t.best[l], t.best[l-c.level]
			for x := t.cells[0] - 1; x >= c.size[0]; x-- {
				a := to[x*w+c.size[1] : (x+1)*w]
				b := from[(x-c.size[0])*w : (x-c.size[0]+1)*w-c.size[1]]
				// Downwards, because a row may be its own source.
				for y := len(a) - 1; y >= 0; y-- {
					if v := b[y] + c.value; v > a[y] {
						a[y] = v
					}
				}
			}
		}
	}
}

// value returns an upper bound on the value of a filling of a bin of this size.
func (t *table) value(size []int64) float64 {
	l := 0
	if t.level >= 0 {
		l = min(int(size[t.level]), len(t.best)-1)
	}
	x := min(int(size[t.dim[0]]/t.unit[0]), t.cells[0]-1)
	y := min(int(size[t.dim[1]]/t.unit[1]), t.cells[1]-1)
	return t.best[l][x*t.cells[1]+y]
}
