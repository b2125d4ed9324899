// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"math"
	"slices"
)

// Room is capacity that exists already and costs nothing: that of a node, or of
// several nodes together.
type Room struct {
	// Capacity is what is free, in the problem's dimensions.
	Capacity []int64
	// Most is how many pods of each item fit at most.
	Most []int
}

func (r *Room) at(d int) int64 {
	if d < len(r.Capacity) {
		return r.Capacity[d]
	}
	return 0
}

// MostValue returns an upper bound on the value of the pods that the rooms can
// take, with values[i] ≥ 0 per pod of item i, and how many pods of each item they
// take for that (fractions).
//
// It is the dual of a linear program, so it holds whatever the solver did: for any
// prices λ ≥ 0 of the rooms' dimensions, a pod of item i in room k is worth r =
// max(0, value − λ·size) more than the capacity it takes. At most Count pods of an
// item are placed, at most Most of them in one room. So the rooms take at most
// λ·capacity plus the best of these r.
func MostValue(items []Item, values []float64, rooms []Room) (most float64, taken []float64) {
	taken = make([]float64, len(items))
	nd := 0
	for i := range items {
		nd = max(nd, len(items[i].Size))
	}
	scale := make([]float64, nd)
	for k := range rooms {
		for d := range nd {
			scale[d] = max(scale[d], float64(rooms[k].at(d)))
		}
	}
	type pair struct{ k, i int }
	var pairs []pair
	var need, amount, cost []float64
	rowsOf := make([][]int32, len(items))
	for k := range rooms {
		for i := range items {
			if n := min(rooms[k].Most[i], items[i].Count); n > 0 && values[i] > 0 {
				rowsOf[i] = append(rowsOf[i], int32(len(pairs)))
				pairs = append(pairs, pair{k, i})
				need, amount, cost = append(need, values[i]), append(amount, 1), append(cost, float64(n))
			}
		}
	}
	if len(pairs) == 0 {
		return 0, taken
	}
	lp := newCover(need, amount, cost)
	ones := slices.Repeat([]float64{1}, len(rooms))
	for i, rows := range rowsOf {
		if len(rows) > 1 {
			lp.add(float64(items[i].Count), rows, ones[:len(rows)])
		}
	}
	price := map[[2]int]int{} // column of a room's dimension
	for k := range rooms {
		for d := range nd {
			if rooms[k].at(d) <= 0 {
				continue
			}
			var row []int32
			var val []float64
			for r, p := range pairs {
				if x := items[p.i].at(d); p.k == k && x > 0 {
					row, val = append(row, int32(r)), append(val, float64(x)/scale[d])
				}
			}
			if len(row) > 0 {
				price[[2]int{k, d}] = lp.add(float64(rooms[k].at(d))/scale[d], row, val)
			}
		}
	}
	lp.primal(50 * len(pairs))
	lp.refresh()
	lambda := make([]float64, len(lp.cost))
	for r, j := range lp.basis {
		if j >= 0 {
			lambda[j] = max(lp.xb[r], 0)
		}
	}
	for r, p := range pairs {
		taken[p.i] += max(lp.pi[r], 0)
	}
	// Compute the bound that these prices prove.
	rest := make([]float64, len(pairs))
	for r, p := range pairs {
		rest[r] = values[p.i]
	}
	for k := range rooms {
		for d := range nd {
			j, ok := price[[2]int{k, d}]
			if !ok || lambda[j] == 0 {
				continue
			}
			most += lambda[j] * lp.cost[j]
			for e := lp.beg[j]; e < lp.beg[j+1]; e++ {
				rest[lp.row[e]] -= lambda[j] * lp.val[e]
			}
		}
	}
	for i, rows := range rowsOf {
		slices.SortFunc(rows, func(a, b int32) int {
			switch {
			case rest[a] > rest[b]:
				return -1
			case rest[a] < rest[b]:
				return 1
			}
			return 0
		})
		left := float64(items[i].Count)
		for _, r := range rows {
			n := math.Min(left, cost[r])
			most += n * max(rest[r], 0)
			left -= n
		}
		taken[i] = min(taken[i], float64(items[i].Count))
	}
	return most * up, taken
}
