// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import "math"

// cover is a covering LP, min cost·x with A·x ≥ need and x ≥ 0, solved by the
// revised simplex method. Each solve starts from the last basis: columns can be
// added (the primal method continues), and need can change (the dual method
// repairs the basis). Columns are sparse, rows few.
type cover struct {
	m    int
	need []float64
	cost []float64
	beg  []int32
	row  []int32
	val  []float64
	in   []bool // the column is in the basis

	basis []int32   // column per position; -1-i for the surplus of row i
	inv   []float64 // inverse of the basis by columns: inv[k*m+r]
	xb    []float64
	pi    []float64
	u     []float64
	p     []float64
	nz    []int32
	sin   []bool // the surplus of row i is in the basis
	ops   int64
	stop  int64 // ops at which primal stops
}

// newCover returns an LP with one column per row, which covers amount[i] of row i
// at cost[i].
func newCover(need, amount, cost []float64) *cover {
	m := len(need)
	c := &cover{m: m, stop: math.MaxInt64, need: append([]float64(nil), need...), beg: []int32{0}}
	c.basis = make([]int32, m)
	c.inv = make([]float64, m*m)
	c.xb = make([]float64, m)
	c.pi = make([]float64, m)
	c.u = make([]float64, m)
	c.p = make([]float64, m)
	c.sin = make([]bool, m)
	for i := range m {
		c.basis[i] = int32(c.add(cost[i], []int32{int32(i)}, amount[i:i+1]))
		c.in[i] = true
		c.inv[i*m+i] = 1 / amount[i]
		c.xb[i] = need[i] / amount[i]
		c.pi[i] = cost[i] / amount[i]
	}
	return c
}

// add appends a column and returns its number.
func (c *cover) add(cost float64, row []int32, val []float64) int {
	c.cost = append(c.cost, cost)
	c.row = append(c.row, row...)
	c.val = append(c.val, val...)
	c.beg = append(c.beg, int32(len(c.row)))
	c.in = append(c.in, false)
	return len(c.cost) - 1
}

func (c *cover) addPattern(p pattern, price float64) int {
	c.cost = append(c.cost, price)
	c.row = append(c.row, p.it...)
	for _, n := range p.n {
		c.val = append(c.val, float64(n))
	}
	c.beg = append(c.beg, int32(len(c.row)))
	c.in = append(c.in, false)
	return len(c.cost) - 1
}

// reduced returns the reduced cost of a column, cost − π·column.
func (c *cover) reduced(j int, pi []float64) float64 {
	r := c.cost[j]
	for k := c.beg[j]; k < c.beg[j+1]; k++ {
		r -= pi[c.row[k]] * c.val[k]
	}
	return r
}

// direction sets u to inverse × column (j < 0: the surplus of row -1-j).
func (c *cover) direction(j int) {
	m := c.m
	clear(c.u)
	if j < 0 {
		col := c.inv[(-1-j)*m : (-j)*m]
		for r, x := range col {
			c.u[r] = -x
		}
	} else {
		for k := c.beg[j]; k < c.beg[j+1]; k++ {
			i, a := int(c.row[k]), c.val[k]
			for r, x := range c.inv[i*m : (i+1)*m] {
				c.u[r] += a * x
			}
		}
		c.ops += int64(int(c.beg[j+1]-c.beg[j])*m) / 6
	}
	c.nz = c.nz[:0]
	for r, x := range c.u {
		if math.Abs(x) > 1e-13 {
			c.nz = append(c.nz, int32(r))
		}
	}
}

// pivot brings column j with reduced cost rc into the basis at position r. u must
// be its direction.
func (c *cover) pivot(j, r int, rc float64) {
	m := c.m
	piv := c.u[r]
	t := c.xb[r] / piv
	for _, q := range c.nz {
		c.xb[q] -= t * c.u[q]
	}
	c.xb[r] = t
	for k := range m {
		col := c.inv[k*m : (k+1)*m]
		p := col[r]
		if p == 0 {
			continue
		}
		p /= piv
		if len(c.nz)*2 > m {
			for q, x := range c.u {
				col[q] -= p * x
			}
		} else {
			for _, q := range c.nz {
				col[q] -= p * c.u[q]
			}
		}
		c.ops += int64(len(c.nz))/6 + 1
		col[r] = p
		c.pi[k] += rc * p
	}
	c.ops += int64(m)
	if old := c.basis[r]; old < 0 {
		c.sin[-1-old] = false
	} else {
		c.in[old] = false
	}
	c.basis[r] = int32(j)
	if j < 0 {
		c.sin[-1-j] = true
	} else {
		c.in[j] = true
	}
}

// primal iterates to the optimum, at most limit times, and reports whether it got
// there. The current solution must be feasible.
func (c *cover) primal(limit int) bool {
	for it := 0; it < limit && c.ops < c.stop; it++ {
		in, best, rc := 0, -1e-9, 0.0
		found := false
		for j := range c.cost {
			if c.in[j] {
				continue
			}
			r := c.reduced(j, c.pi)
			if x := r / c.cost[j]; x < best {
				in, best, rc, found = j, x, r, true
			}
		}
		c.ops += int64(len(c.row)) / 2
		for i, p := range c.pi {
			// The surplus of row i has cost 0 and coefficient -1.
			if p < 0 && !c.sin[i] {
				if x := p * max(c.need[i], 1); x < -1e-9 && (!found || p < best) {
					in, best, rc, found = -1-i, p, p, true
				}
			}
		}
		if !found {
			return true
		}
		c.direction(in)
		out, step := -1, math.Inf(1)
		for _, q := range c.nz {
			if x := c.u[q]; x > 1e-9 {
				t := max(c.xb[q], 0) / x
				if t < step-1e-12 || (t <= step+1e-12 && out >= 0 && x > c.u[out]*1.0001) {
					out, step = int(q), min(t, step)
				}
			}
		}
		if out < 0 {
			return true // impossible: costs are positive
		}
		c.pivot(in, out, rc)
	}
	return false
}

// demand changes need. It updates xb, which may become negative.
func (c *cover) demand(need []float64) {
	copy(c.need, need)
	clear(c.xb)
	for k, d := range c.need {
		if d != 0 {
			for r, x := range c.inv[k*c.m : (k+1)*c.m] {
				c.xb[r] += d * x
			}
		}
	}
	c.ops += int64(c.m*c.m) / 6
}

// dual makes xb ≥ 0 again while reduced costs stay ≥ 0. It reports whether it got
// there within limit pivots.
func (c *cover) dual(limit int) bool {
	m := c.m
	for it := 0; it < limit; it++ {
		r, worst := -1, -1e-7
		for q, x := range c.xb {
			if x < worst {
				r, worst = q, x
			}
		}
		if r < 0 {
			return true
		}
		for k := range m {
			c.p[k] = c.inv[k*m+r]
		}
		in, ratio, rcIn, alpha := 0, math.Inf(1), 0.0, 0.0
		found := false
		for j := range c.cost {
			if c.in[j] {
				continue
			}
			a := 0.0
			for k := c.beg[j]; k < c.beg[j+1]; k++ {
				a += c.p[c.row[k]] * c.val[k]
			}
			if a < -1e-9 {
				rc := max(c.reduced(j, c.pi), 0)
				if t := rc / -a; t < ratio-1e-13 || (t <= ratio && a < alpha) {
					in, ratio, rcIn, alpha, found = j, t, rc, a, true
				}
			}
		}
		c.ops += int64(len(c.row))
		for i := range m {
			if c.sin[i] {
				continue
			}
			if a := -c.p[i]; a < -1e-9 {
				rc := max(c.pi[i], 0)
				if t := rc / -a; t < ratio-1e-13 || (t <= ratio && a < alpha) {
					in, ratio, rcIn, alpha, found = -1-i, t, rc, a, true
				}
			}
		}
		if !found {
			return false
		}
		c.direction(in)
		if math.Abs(c.u[r]) < 1e-10 {
			return false
		}
		c.pivot(in, r, rcIn)
	}
	return false
}

// objective returns the cost of the current basis.
func (c *cover) objective() float64 {
	sum := 0.0
	for r, j := range c.basis {
		if j >= 0 {
			sum += c.cost[j] * c.xb[r]
		}
	}
	return sum
}

// refresh recomputes the inverse if rounding errors have grown and there is time.
// It reports whether the basis is still good.
func (c *cover) refresh() bool {
	// The residual of A·x − s = need.
	m := c.m
	res := c.p
	copy(res, c.need)
	for r, j := range c.basis {
		if j < 0 {
			res[-1-j] += c.xb[r]
			continue
		}
		for k := c.beg[j]; k < c.beg[j+1]; k++ {
			res[c.row[k]] -= c.val[k] * c.xb[r]
		}
	}
	worst := 0.0
	for i, x := range res {
		worst = max(worst, math.Abs(x)/max(1, c.need[i]))
	}
	if worst < 1e-6 {
		return true
	}
	if c.stop < math.MaxInt64 && c.ops+int64(m)*int64(m)*int64(m)/4 > c.stop {
		return false // no time
	}
	// Gauss-Jordan with row pivoting on [basis | I].
	a := make([]float64, m*m)
	b := make([]float64, m*m)
	for r, j := range c.basis {
		if j < 0 {
			a[(-1-int(j))*m+r] = -1
		} else {
			for k := c.beg[j]; k < c.beg[j+1]; k++ {
				a[int(c.row[k])*m+r] = c.val[k]
			}
		}
		b[r*m+r] = 1
	}
	for q := range m {
		piv := q
		for i := q + 1; i < m; i++ {
			if math.Abs(a[i*m+q]) > math.Abs(a[piv*m+q]) {
				piv = i
			}
		}
		if math.Abs(a[piv*m+q]) < 1e-12 {
			return false
		}
		if piv != q {
			for k := range m {
				a[piv*m+k], a[q*m+k] = a[q*m+k], a[piv*m+k]
				b[piv*m+k], b[q*m+k] = b[q*m+k], b[piv*m+k]
			}
		}
		f := 1 / a[q*m+q]
		for k := range m {
			a[q*m+k] *= f
			b[q*m+k] *= f
		}
		for i := range m {
			if i == q || a[i*m+q] == 0 {
				continue
			}
			f := a[i*m+q]
			for k := range m {
				a[i*m+k] -= f * a[q*m+k]
				b[i*m+k] -= f * b[q*m+k]
			}
		}
	}
	c.ops += int64(m) * int64(m) * int64(m) / 4
	// b has the inverse by rows.
	for r := range m {
		for k := range m {
			c.inv[k*m+r] = b[r*m+k]
		}
	}
	c.demand(c.need)
	for k := range m {
		s := 0.0
		for r, j := range c.basis {
			if j >= 0 {
				s += c.cost[j] * c.inv[k*m+r]
			}
		}
		c.pi[k] = s
	}
	return true
}
