// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import "math"

// The linear relaxation of the knapsack, by the bounded simplex method: max tv·x,
// sf·x ≤ capf, 0 ≤ x ≤ tub, with one slack per dimension (numbers from n on).

// relax solves the relaxation. It leaves the prices of the dimensions in lam (all
// ≥ 0) and the solution in x. A rounding error does no harm: lam proves its own
// bound.
func (k *knap) relax(capf []float64) {
	nd, n := k.md.nd, len(k.tid)
	k.x = grow(k.x, n)
	k.state = grow(k.state, n+nd)
	clear(k.state)
	clear(k.binv)
	for d := range nd {
		k.binv[d*nd+d] = 1
		k.basic[d] = int32(n + d)
		k.xb[d] = capf[d]
		k.state[n+d] = 2
	}
	for it := 0; it < 40+4*nd+n; it++ {
		k.relaxPrices(n)
		in, dir := k.entering(n)
		if in < 0 {
			break
		}
		k.relaxDirection(in, n)
		if !k.relaxStep(in, dir, n) {
			break
		}
	}
	for d := range nd {
		k.lam[d] = max(k.lam[d], 0)
	}
	for j := range n {
		k.x[j] = 0
		if k.state[j] == 1 {
			k.x[j] = float64(k.tub[j])
		}
	}
	for r := range nd {
		if j := int(k.basic[r]); j < n {
			k.x[j] = min(max(k.xb[r], 0), float64(k.tub[j]))
		}
	}
}

// relaxPrices computes the prices of the dimensions under the current basis.
func (k *knap) relaxPrices(n int) {
	nd := k.md.nd
	for d := range nd {
		l := 0.0
		for r := range nd {
			if j := int(k.basic[r]); j < n {
				l += k.tv[j] * k.binv[r*nd+d]
			}
		}
		k.lam[d] = l
	}
}

// entering returns the variable that enters the basis and whether it rises (1) or
// falls (-1), or -1 at the optimum.
func (k *knap) entering(n int) (in int, dir float64) {
	const eps = 1e-11
	nd := k.md.nd
	in, dir = -1, 1
	gain := 0.0
	for j := range n {
		if k.state[j] == 2 {
			continue
		}
		r := k.tv[j]
		for d, s := range k.sf[j*nd : (j+1)*nd] {
			r -= k.lam[d] * s
		}
		tol := eps * k.tv[j]
		if k.state[j] == 0 && r > tol {
			if g := r * float64(k.tub[j]); g > gain {
				in, dir, gain = j, 1, g
			}
		} else if k.state[j] == 1 && r < -tol {
			if g := -r * float64(k.tub[j]); g > gain {
				in, dir, gain = j, -1, g
			}
		}
	}
	k.ops += int64(n * nd)
	if in >= 0 {
		return in, dir
	}
	// A slack with a negative price enters only when no item does.
	worst := 0.0
	for d := range nd {
		if k.state[n+d] == 0 && k.lam[d] < worst-1e-12 {
			in, dir, worst = n+d, 1, k.lam[d]
		}
	}
	return in, dir
}

// relaxDirection sets u to what the basic variables lose per unit of a variable.
func (k *knap) relaxDirection(in, n int) {
	nd := k.md.nd
	for r := range nd {
		x := 0.0
		if in < n {
			for d, s := range k.sf[in*nd : (in+1)*nd] {
				x += k.binv[r*nd+d] * s
			}
		} else {
			x = k.binv[r*nd+in-n]
		}
		k.u[r] = x
	}
}

// relaxStep moves the entering variable as far as possible and changes the basis.
// It returns false if nothing bounds the move.
func (k *knap) relaxStep(in int, dir float64, n int) bool {
	nd := k.md.nd
	step, out, top := math.Inf(1), -1, false
	if in < n {
		step = float64(k.tub[in])
	}
	for r := range nd {
		x := dir * k.u[r]
		if x > 1e-12 {
			if t := max(k.xb[r], 0) / x; t < step {
				step, out, top = t, r, false
			}
		} else if x < -1e-12 && int(k.basic[r]) < n {
			if t := max(float64(k.tub[k.basic[r]])-k.xb[r], 0) / -x; t < step {
				step, out, top = t, r, true
			}
		}
	}
	if math.IsInf(step, 1) {
		return false
	}
	for r := range nd {
		k.xb[r] -= dir * step * k.u[r]
	}
	if out < 0 { // from one end to the other
		k.state[in] = 1 - k.state[in]
		return true
	}
	old := k.basic[out]
	k.state[old] = 0
	if top {
		k.state[old] = 1
	}
	from := 0.0
	if k.state[in] == 1 {
		from = float64(k.tub[in])
	}
	k.state[in] = 2
	k.basic[out] = int32(in)
	k.xb[out] = from + dir*step
	piv := k.u[out]
	for d := range nd {
		k.binv[out*nd+d] /= piv
	}
	for r := range nd {
		if r == out || k.u[r] == 0 {
			continue
		}
		f := k.u[r]
		for d := range nd {
			k.binv[r*nd+d] -= f * k.binv[out*nd+d]
		}
	}
	return true
}
