// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"math"
	"slices"
)

// resourceBound finds weights per group of items and dimension such that no bin
// can hold more weight than it costs and the total weight is as large as possible:
// a lower bound on the cost of any solution. It is an LP over fictitious fillings
// that give each dimension of a bin to one group. The most valuable such filling
// is a sum of maxima, so every round proves a bound (total ÷ largest ratio), also
// before the LP is optimal. value[i] is the weight of one pod of item i.
func (s *solver) resourceBound() (bound float64, value []float64) {
	md := s.md
	nd := md.nd
	group, ng := md.groups(12)
	// Rows: (group, dimension) with demand.
	rowOf := make([]int32, ng*nd)
	total := make([]float64, ng*nd)
	for i := range md.m {
		for d, x := range md.sf(int32(i)) {
			total[group[i]*nd+d] += x * float64(md.count[i])
		}
	}
	// The groups that each bin can hold.
	holds := make([][]int32, md.nb)
	mark := make([]int, ng)
	for b := range holds {
		for _, i := range md.list[b] {
			if g := group[i]; mark[g] != b+1 {
				mark[g] = b + 1
				holds[b] = append(holds[b], int32(g))
			}
		}
	}
	var need, amount, cost []float64
	for g := range ng {
		for d := range nd {
			rowOf[g*nd+d] = -1
			if total[g*nd+d] <= 0 {
				continue
			}
			at, best := -1, math.Inf(1)
			for b := range md.nb {
				for _, h := range holds[b] {
					if int(h) == g {
						if c := md.capf[b*nd+d]; c > 0 && md.price[b]/c < best {
							at, best = b, md.price[b]/c
						}
					}
				}
			}
			rowOf[g*nd+d] = int32(len(need))
			need = append(need, total[g*nd+d])
			amount = append(amount, md.capf[at*nd+d])
			cost = append(cost, md.price[at])
		}
	}
	value = make([]float64, md.m)
	if len(need) == 0 {
		return 0, value
	}
	lp := newCover(need, amount, cost)
	var row []int32
	var val []float64
	pick := make([]int32, nd)
	for range 60 {
		lp.primal(20 * len(need))
		lp.refresh()
		pi := lp.pi
		sum := 0.0
		for r, p := range pi {
			pi[r] = max(p, 0)
			sum += pi[r] * need[r]
		}
		ratio, cols := 0.0, 0
		for b := range md.nb {
			v := 0.0
			for d := range nd {
				pick[d] = -1
				top := 0.0
				for _, g := range holds[b] {
					if r := rowOf[int(g)*nd+d]; r >= 0 && pi[r] > top {
						top, pick[d] = pi[r], r
					}
				}
				v += top * md.capf[b*nd+d]
			}
			q := v / md.price[b]
			if q > ratio {
				ratio = q
			}
			if q > 1+1e-7 {
				row, val = row[:0], val[:0]
				for d := range nd {
					if pick[d] >= 0 {
						row, val = append(row, pick[d]), append(val, md.capf[b*nd+d])
					}
				}
				lp.add(md.price[b], row, val)
				cols++
			}
			s.ops += int64(nd * (len(holds[b]) + 1))
		}
		ratio *= up
		if ratio > 0 && sum/ratio > bound {
			bound = sum / ratio
			for i := range md.m {
				v := 0.0
				for d, x := range md.sf(int32(i)) {
					if r := rowOf[group[i]*nd+d]; r >= 0 {
						v += pi[r] * x
					}
				}
				value[i] = v / ratio
			}
		}
		if cols == 0 {
			break
		}
	}
	s.ops += lp.ops
	return bound / up, value
}

// groups numbers items by the set of bins that may hold them, and returns the
// number of groups. With more than most sets all items are one group, which is
// looser but still right.
func (md *model) groups(most int) ([]int, int) {
	words := (md.nb + 63) / 64
	rows := make([]uint64, md.m*words)
	for b, list := range md.list {
		for _, i := range list {
			rows[int(i)*words+b>>6] |= 1 << (b & 63)
		}
	}
	group := make([]int, md.m)
	var first []int
	for i := range md.m {
		row := rows[i*words : (i+1)*words]
		found := false
		for g, f := range first {
			if slices.Equal(row, rows[f*words:(f+1)*words]) {
				group[i], found = g, true
				break
			}
		}
		if !found {
			group[i] = len(first)
			first = append(first, i)
			if len(first) > most {
				clear(group)
				return group, 1
			}
		}
	}
	return group, len(first)
}
