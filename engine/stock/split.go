// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"math/bits"
	"runtime"
	"slices"
	"sync"
)

// part is a part of a problem that shares no bin with the rest.
type part struct {
	p     *Problem
	items []int // items of the whole problem
	bins  []int // bins of the whole problem
	pods  int
}

// split splits a problem into parts that can be solved separately: items that no
// chain of allowed bins connects (pods in different zones, pools of different
// teams). It returns nil if there is only one part.
func split(p *Problem) []*part {
	if p.Allowed == nil || len(p.Items) < 2 {
		return nil
	}
	root := make([]int, len(p.Items))
	for i := range root {
		root[i] = i
	}
	find := func(i int) int {
		for root[i] != i {
			root[i] = root[root[i]]
			i = root[i]
		}
		return i
	}
	join := func(i, j int) {
		if a, b := find(i), find(j); a != b {
			root[max(a, b)] = min(a, b)
		}
	}
	first := make([]int, len(p.Bins)) // some item of the bin, +1
	for i := range p.Items {
		if p.Items[i].Count == 0 {
			continue
		}
		eachBit(p.Allowed[i], len(p.Bins), func(b int) {
			if first[b] == 0 {
				first[b] = i + 1
			} else {
				join(first[b]-1, i)
			}
		})
		if p.Conflict != nil {
			eachBit(p.Conflict[i], len(p.Items), func(j int) {
				if p.Items[j].Count > 0 {
					join(i, j)
				}
			})
		}
	}
	var parts []*part
	index := map[int]*part{}
	local := make([]int, len(p.Items))
	for i := range p.Items {
		if p.Items[i].Count == 0 {
			continue
		}
		r := find(i)
		pt := index[r]
		if pt == nil {
			pt = &part{p: &Problem{}}
			index[r] = pt
			parts = append(parts, pt)
		}
		local[i] = len(pt.items)
		pt.items = append(pt.items, i)
		pt.pods += p.Items[i].Count
	}
	if len(parts) < 2 {
		return nil
	}
	for b, f := range first {
		if f > 0 {
			pt := index[find(f-1)]
			pt.bins = append(pt.bins, b)
			pt.p.Bins = append(pt.p.Bins, p.Bins[b])
		}
	}
	at := make([]int, len(p.Bins))
	for _, pt := range parts {
		for k, b := range pt.bins {
			at[b] = k
		}
		for _, i := range pt.items {
			row := make([]uint64, (len(pt.bins)+63)/64)
			eachBit(p.Allowed[i], len(p.Bins), func(b int) { row[at[b]>>6] |= 1 << (at[b] & 63) })
			pt.p.Items = append(pt.p.Items, p.Items[i])
			pt.p.Allowed = append(pt.p.Allowed, row)
			if p.Conflict == nil {
				continue
			}
			con := make([]uint64, (len(pt.items)+63)/64)
			eachBit(p.Conflict[i], len(p.Items), func(j int) {
				if p.Items[j].Count > 0 {
					con[local[j]>>6] |= 1 << (local[j] & 63)
				}
			})
			pt.p.Conflict = append(pt.p.Conflict, con)
		}
	}
	return parts
}

// seeds returns the fillings of the whole problem that are about the part.
func (pt *part) seeds(given []Pattern, items, bins int) []Pattern {
	if len(given) == 0 {
		return nil
	}
	item, bin := make([]int, items), make([]int, bins) // number in the part, +1
	for k, i := range pt.items {
		item[i] = k + 1
	}
	for k, b := range pt.bins {
		bin[b] = k + 1
	}
	var out []Pattern
next:
	for _, g := range given {
		if g.Bin < 0 || g.Bin >= bins || bin[g.Bin] == 0 {
			continue
		}
		t := Pattern{Bin: bin[g.Bin] - 1, Counts: g.Counts, Times: 1}
		for _, i := range g.Items {
			if i < 0 || i >= items || item[i] == 0 {
				continue next
			}
			t.Items = append(t.Items, item[i]-1)
		}
		out = append(out, t)
	}
	return out
}

// eachBit calls f with the members of a set below n.
func eachBit(row []uint64, n int, f func(int)) {
	for w, set := range row {
		for ; set != 0; set &= set - 1 {
			if b := w<<6 + bits.TrailingZeros64(set); b < n {
				f(b)
			}
		}
	}
}

// solveParts solves the parts in parallel and combines the solutions. The budget
// is divided by pods, so the result does not depend on the number of processors.
func solveParts(p *Problem, parts []*part, opts Options) *Solution {
	pods := 0
	for _, pt := range parts {
		pods += pt.pods
	}
	sols := make([]*Solution, len(parts))
	next := make(chan int, len(parts))
	for k := range parts {
		next <- k
	}
	close(next)
	var wg sync.WaitGroup
	for range min(len(parts), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for k := range next {
				o := opts
				if o.Work > 0 {
					o.Work = max(1, int64(float64(opts.Work)*float64(parts[k].pods)/float64(pods)))
				}
				o.Seeds = parts[k].seeds(opts.Seeds, len(p.Items), len(p.Bins))
				sols[k] = solve(parts[k].p, o)
			}
		})
	}
	wg.Wait()
	sol := &Solution{Duals: make([]float64, len(p.Items)), Values: make([]float64, len(p.Items))}
	proved := false
	for k, s := range sols {
		pt := parts[k]
		whole := func(t Pattern) Pattern {
			t.Bin = pt.bins[t.Bin]
			items := make([]int, len(t.Items))
			for q, i := range t.Items {
				items[q] = pt.items[i]
			}
			t.Items = items
			return t
		}
		for _, t := range s.Patterns {
			sol.Patterns = append(sol.Patterns, whole(t))
		}
		for _, t := range s.Columns {
			sol.Columns = append(sol.Columns, whole(t))
		}
		sol.Cost += s.Cost
		sol.Bound += s.Bound
		sol.ResourceBound += s.ResourceBound
		proved = proved || s.PatternBound > 0
		for i, v := range s.Duals {
			sol.Duals[pt.items[i]], sol.Values[pt.items[i]] = v, s.Values[i]
		}
		for _, i := range s.Unplaceable {
			sol.Unplaceable = append(sol.Unplaceable, pt.items[i])
		}
		sol.Work += s.Work
	}
	if proved {
		sol.PatternBound = sol.Bound // the better bound of each part
	}
	slices.Sort(sol.Unplaceable)
	slices.SortStableFunc(sol.Patterns, func(a, b Pattern) int { return cmp.Compare(a.Bin, b.Bin) })
	return sol
}
