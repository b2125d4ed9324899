// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import "math"

// Prices returns what a unit of each resource is worth when the resources can be
// bought in bins: the dual prices of buying the demand, in fractions of bins. For
// each bin content has len(demand) amounts, price has its price (greater than 0).
// The prices are not negative, and no bin holds more value than its price, so the
// value of the demand is a lower bound on its cost. Demand must be greater than 0;
// a resource that no bin has is worth nothing.
func Prices(demand, content, price []float64) []float64 {
	nd := len(demand)
	out := make([]float64, nd)
	// Rows are scaled to a demand of 1. Each starts with the bin in which the
	// resource is cheapest.
	rowOf := make([]int32, nd)
	var need, amount, cost []float64
	for d := range nd {
		rowOf[d] = -1
		best, at := math.Inf(1), -1
		for b, p := range price {
			if c := content[b*nd+d]; c > 0 && p/c < best {
				best, at = p/c, b
			}
		}
		if at < 0 {
			continue
		}
		rowOf[d] = int32(len(need))
		need, amount, cost = append(need, 1), append(amount, content[at*nd+d]/demand[d]), append(cost, price[at])
	}
	if len(need) == 0 {
		return out
	}
	lp := newCover(need, amount, cost)
	row, val := make([]int32, 0, nd), make([]float64, 0, nd)
	for b, p := range price {
		row, val = row[:0], val[:0]
		for d := range nd {
			if c := content[b*nd+d]; c > 0 {
				row, val = append(row, rowOf[d]), append(val, c/demand[d])
			}
		}
		if len(row) > 0 {
			lp.add(p, row, val)
		}
	}
	lp.primal(60*len(need) + 60)
	for d, r := range rowOf {
		if r >= 0 {
			out[d] = max(lp.pi[r], 0) / demand[d]
		}
	}
	// Make it a proof whatever the solver did.
	worst := 1.0
	for b, p := range price {
		v := 0.0
		for d, w := range out {
			v += w * content[b*nd+d]
		}
		worst = max(worst, v/p)
	}
	for d := range out {
		out[d] /= worst
	}
	return out
}
