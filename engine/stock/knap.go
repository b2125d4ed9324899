// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"math"
	"slices"
)

// up is the factor by which upper bounds are raised so that rounding errors cannot
// make them too low. Sums have at most some thousands of terms, whose relative
// error is below 1e-12.
const up = 1 + 1e-9

// knap finds the most valuable filling of a bin: a bounded knapsack in several
// dimensions, by branch and bound. The bound comes from the dual prices of the
// linear relaxation, which fold all dimensions into one.
type knap struct {
	md *model

	// Candidates in order of efficiency.
	n    int
	id   []int32
	v    []float64
	s    []int64   // n × nd
	w    []float64 // size in the folded dimension
	ub   []int32
	smin []int64   // (n+1) × nd: the least size from this candidate on, per dimension
	dens []float64 // (n+1) × nd: the best value per size from this candidate on

	// Linear relaxation.
	lam   []float64
	sf    []float64
	binv  []float64
	xb    []float64
	basic []int32
	state []int8 // 0 at 0, 1 at its upper end, 2 basic
	x     []float64
	u     []float64

	// Search.
	room  []int64
	cnt   []int32
	stack []int32
	set   []uint64
	rc    []float64

	best    []int32
	bestV   float64
	ops     int64 // elementary steps done so far
	stop    int64 // ops at which a search by layers stops
	scratch []int32
	perm    []int32
	tv      []float64
	tid     []int32
	tub     []int32

	lay   layers
	slack []float64
}

func newKnap(md *model) *knap {
	k := &knap{md: md, stop: math.MaxInt64}
	nd := md.nd
	k.lam = make([]float64, nd)
	k.binv = make([]float64, nd*nd)
	k.xb = make([]float64, nd)
	k.basic = make([]int32, nd)
	k.u = make([]float64, nd)
	k.room = make([]int64, nd)
	k.set = make([]uint64, md.words)
	return k
}

// grow returns a slice of length n, s if it is large enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/2)
	}
	return s[:n]
}

// run searches for the filling of bin b with the most value, with val[i] per pod
// of item i and at most rem[i] pods. It returns the value of the best filling that
// is worth more than floor (0 if it found none) and an upper bound on the value of
// any. The search is depth first with at most nodes leaves or, if nodes is
// negative, by layers of at most -nodes states.
func (k *knap) run(b int32, val []float64, rem []int32, floor float64, nodes int) (best, bound float64) {
	nd := k.md.nd
	k.bestV = 0
	k.n = 0
	root := k.relaxed(b, val, rem)
	n := len(k.tid)
	if n == 0 || root <= floor {
		return 0, root
	}
	// Start with the filling of the relaxation, rounded down.
	k.perm = grow(k.perm, n)
	for q := range k.perm {
		k.perm[q] = int32(q)
	}
	eff := k.x
	k.scratch = grow(k.scratch, n)
	for q := range n {
		k.scratch[q] = int32(eff[q] + 1e-9)
	}
	k.w = grow(k.w, n)
	for q := range n {
		w := 0.0
		for d, s := range k.sf[q*nd : (q+1)*nd] {
			w += k.lam[d] * s
		}
		k.w[q] = w
	}
	w, tv := k.w, k.tv
	slices.SortFunc(k.perm, func(a, c int32) int {
		// Descending value per folded size; of equals the larger first.
		if x := cmp.Compare(tv[c]*w[a], tv[a]*w[c]); x != 0 {
			return x
		}
		if x := cmp.Compare(w[c], w[a]); x != 0 {
			return x
		}
		return cmp.Compare(a, c)
	})
	k.ops += int64(n * (nd + 8))
	// Store the candidates in that order.
	k.id, k.v, k.ub = grow(k.id, n), grow(k.v, n), grow(k.ub, n)
	k.s = grow(k.s, n*nd)
	k.cnt, k.best = grow(k.cnt, n), grow(k.best, n)
	k.smin, k.dens = grow(k.smin, (n+1)*nd), grow(k.dens, (n+1)*nd)
	start := k.x // not needed any more
	ww := k.rc   // nor this
	for a, q := range k.perm {
		k.id[a], k.v[a], k.ub[a] = k.tid[q], k.tv[q], k.tub[q]
		ww[a] = k.w[q]
		start[a] = float64(k.scratch[q])
		copy(k.s[a*nd:(a+1)*nd], k.md.sz(k.tid[q]))
	}
	k.w, k.rc = ww, k.w
	k.n = n
	k.suffixes()

	cap := k.md.cp(b)
	k.reset(cap)
	for a := range n {
		if c := int32(start[a]); c > 0 {
			k.put(a, c)
		}
	}
	k.topUp(0, -1)
	k.keep()
	if k.bestV < root/up*(1-1e-9) {
		k.polish(cap)
	}
	cut := max(floor, k.bestV)
	if root <= cut*up || nodes == 0 {
		return k.result(floor), root
	}
	// A candidate of which one pod costs more than the difference of root and cut is
	// in no filling of interest.
	m := 0
	for a := range n {
		r := k.v[a] - k.w[a]
		if r < 0 && k.best[a] == 0 && (root+r)*up <= cut {
			continue
		}
		if m != a {
			k.id[m], k.v[m], k.w[m], k.ub[m], k.best[m] = k.id[a], k.v[a], k.w[a], k.ub[a], k.best[a]
			copy(k.s[m*nd:(m+1)*nd], k.s[a*nd:(a+1)*nd])
		}
		m++
	}
	if m < n {
		k.n = m
		k.suffixes()
	}
	if nodes < 0 {
		return k.layered(cap, floor, root, -nodes)
	}
	return k.search(cap, floor, root, nodes)
}

// relaxed returns an upper bound on the value of any filling of bin b, from the
// linear relaxation. It leaves the candidates in tid, tv and tub and the
// relaxation's filling in x.
func (k *knap) relaxed(b int32, val []float64, rem []int32) (root float64) {
	md := k.md
	nd := md.nd
	list, fit := md.list[b], md.fit[b]
	k.tid, k.tv, k.tub = k.tid[:0], k.tv[:0], k.tub[:0]
	for q, i := range list {
		if rem[i] > 0 && val[i] > 0 {
			k.tid = append(k.tid, i)
			k.tv = append(k.tv, val[i])
			k.tub = append(k.tub, min(fit[q], rem[i]))
		}
	}
	n := len(k.tid)
	k.ops += int64(len(list))
	if n == 0 {
		return 0
	}
	k.sf = grow(k.sf, n*nd)
	capf := md.capf[int(b)*nd : int(b+1)*nd]
	for q, i := range k.tid {
		copy(k.sf[q*nd:(q+1)*nd], md.sf(i))
	}
	k.relax(capf)
	// Any prices ≥ 0 prove a bound.
	root = 0
	for d := range nd {
		root += k.lam[d] * capf[d]
	}
	k.rc = grow(k.rc, n)
	for q := range n {
		r := k.tv[q]
		for d, s := range k.sf[q*nd : (q+1)*nd] {
			r -= k.lam[d] * s
		}
		k.rc[q] = r
		if r > 0 {
			root += r * float64(k.tub[q])
		}
	}
	return root * up

}

// suffixes computes smin and dens.
func (k *knap) suffixes() {
	n, nd := k.n, k.md.nd
	for d := range nd {
		k.smin[n*nd+d], k.dens[n*nd+d] = math.MaxInt64, 0
	}
	for a := n - 1; a >= 0; a-- {
		for d := range nd {
			s := k.s[a*nd+d]
			k.smin[a*nd+d] = min(k.smin[(a+1)*nd+d], s)
			x := math.Inf(1)
			if s > 0 {
				x = k.v[a] / float64(s)
			}
			k.dens[a*nd+d] = max(k.dens[(a+1)*nd+d], x)
		}
	}
	k.ops += int64(2 * n * nd)
}

func (k *knap) result(floor float64) float64 {
	if k.bestV > floor {
		return k.bestV
	}
	return 0
}

func (k *knap) reset(cap []int64) {
	copy(k.room, cap)
	clear(k.cnt[:k.n])
	clear(k.set)
}

// put adds c pods of candidate a, or as many as fit and conflict with none, and
// returns how many.
func (k *knap) put(a int, c int32) int32 {
	nd := k.md.nd
	if k.md.conf != nil && k.cnt[a] == 0 && k.md.clash(k.id[a], k.set) {
		return 0
	}
	s := k.s[a*nd : (a+1)*nd]
	c = min(c, k.ub[a]-k.cnt[a])
	if c <= 0 {
		return 0
	}
	for d, x := range s {
		if x > 0 && k.room[d] < int64(c)*x {
			c = int32(k.room[d] / x)
		}
	}
	if c <= 0 {
		return 0
	}
	for d, x := range s {
		k.room[d] -= int64(c) * x
	}
	if k.md.conf != nil && k.cnt[a] == 0 {
		i := k.id[a]
		k.set[i>>6] |= 1 << (i & 63)
	}
	k.cnt[a] += c
	return c
}

// take removes c pods of candidate a.
func (k *knap) take(a int, c int32) {
	nd := k.md.nd
	for d, x := range k.s[a*nd : (a+1)*nd] {
		k.room[d] += int64(c) * x
	}
	k.cnt[a] -= c
	if k.md.conf != nil && k.cnt[a] == 0 {
		i := k.id[a]
		k.set[i>>6] &^= 1 << (i & 63)
	}
}

// topUp adds what fits from candidate a on, the most efficient first, except skip.
func (k *knap) topUp(a, skip int) {
	nd := k.md.nd
	for ; a < k.n; a++ {
		for d, x := range k.smin[a*nd : (a+1)*nd] {
			if k.room[d] < x {
				k.ops += 2
				return
			}
		}
		if a != skip {
			k.put(a, k.ub[a])
		}
		k.ops += int64(nd)
	}
}

func (k *knap) value() float64 {
	v := 0.0
	for a, c := range k.cnt[:k.n] {
		if c > 0 {
			v += float64(c) * k.v[a]
		}
	}
	k.ops += int64(k.n)
	return v
}

// keep keeps the current filling if it is the best one and reports whether it is.
func (k *knap) keep() bool {
	if v := k.value(); v > k.bestV {
		k.bestV = v
		copy(k.best, k.cnt[:k.n])
		return true
	}
	return false
}

// polish removes one pod (or all) of an item from the best filling and adds
// others, as long as that helps.
func (k *knap) polish(cap []int64) {
	for round := 0; round < 4; round++ {
		better := false
		for a := 0; a < k.n; a++ {
			if k.best[a] == 0 {
				continue
			}
			for _, c := range [2]int32{1, k.best[a]} {
				k.reset(cap)
				for q, x := range k.best[:k.n] {
					if x > 0 {
						k.put(q, x)
					}
				}
				k.take(a, min(c, k.cnt[a]))
				k.topUp(0, a)
				k.topUp(a, -1)
				if k.keep() {
					better = true
				}
				if k.best[a] <= 1 {
					break
				}
			}
		}
		if !better {
			return
		}
	}
}

// rest returns two upper bounds on the value that candidates from a on can add to
// the filling. folded takes only the folded dimension into account: with fewer
// pods of a candidate before a, the sum of value and folded never grows.
func (k *knap) rest(a int) (bound, folded float64) {
	nd := k.md.nd
	if a >= k.n {
		return 0, 0
	}
	bound = math.Inf(1)
	left := 0.0
	for d, r := range k.room {
		if x := k.dens[a*nd+d]; !math.IsInf(x, 1) {
			bound = min(bound, x*float64(r))
		}
		left += k.lam[d] * (float64(r) * k.md.inv[d])
	}
	k.ops += int64(nd)
	folded = k.dantzig(a, left*up)
	return min(bound, folded) * up, folded * up
}

// dantzig fills the folded capacity with candidates from a on, the last one
// partly.
func (k *knap) dantzig(a int, left float64) float64 {
	sum := 0.0
	for q := a; q < k.n; q++ {
		k.ops++
		need := k.w[q] * float64(k.ub[q])
		if need > left {
			return sum + k.v[q]*left/k.w[q]
		}
		left -= need
		sum += k.v[q] * float64(k.ub[q])
	}
	return sum
}

// search is the branch and bound: depth first, the most efficient candidate first,
// with as many pods of it as possible first.
func (k *knap) search(cap []int64, floor, root float64, nodes int) (best, bound float64) {
	k.reset(cap)
	k.stack = k.stack[:0]
	cut := max(floor, k.bestV) * up
	cur := 0.0
	a := 0
	for node := 0; ; node++ {
		// Forward: fill greedily.
		nd := k.md.nd
	fill:
		for ; a < k.n; a++ {
			for d, x := range k.smin[a*nd : (a+1)*nd] {
				if k.room[d] < x {
					break fill
				}
			}
			k.ops += int64(nd)
			if c := k.put(a, k.ub[a]); c > 0 {
				cur += float64(c) * k.v[a]
				k.stack = append(k.stack, int32(a))
			}
		}
		if cur > k.bestV {
			k.bestV = cur
			copy(k.best, k.cnt[:k.n])
			cut = max(cut, cur*up)
		}
		if node >= nodes {
			// Stop: bound what is open, level by level.
			bound = cut
			for len(k.stack) > 0 {
				q := int(k.stack[len(k.stack)-1])
				k.stack = k.stack[:len(k.stack)-1]
				k.take(q, 1)
				cur -= k.v[q]
				// Of the lower counts of q the next one has the highest folded bound.
				_, folded := k.rest(q + 1)
				bound = max(bound, (max(cur, 0)+folded)*up)
				c := k.cnt[q]
				if c > 0 {
					k.take(q, c)
				}
				cur -= float64(c) * k.v[q]
			}
			return k.result(floor), min(bound, root)
		}
		// Back: one pod less of the last item, if that can still be better.
		open := false
		for len(k.stack) > 0 {
			q := int(k.stack[len(k.stack)-1])
			k.take(q, 1)
			cur -= k.v[q]
			if k.cnt[q] == 0 {
				k.stack = k.stack[:len(k.stack)-1]
			}
			rest, folded := k.rest(q + 1)
			if (max(cur, 0)+rest)*up > cut {
				a, open = q+1, true
				break
			}
			if c := k.cnt[q]; c > 0 && (max(cur, 0)+folded)*up <= cut {
				k.take(q, c)
				cur -= float64(c) * k.v[q]
				k.stack = k.stack[:len(k.stack)-1]
			}
		}
		if !open {
			return k.result(floor), min(max(cut, 0), root)
		}
	}
}

// pattern returns the best filling found by the last run.
func (k *knap) pattern(b int32) pattern {
	p := pattern{bin: b}
	k.scratch = k.scratch[:0]
	for a, c := range k.best[:k.n] {
		if c > 0 {
			k.scratch = append(k.scratch, int32(a))
		}
	}
	id := k.id
	slices.SortFunc(k.scratch, func(x, y int32) int { return cmp.Compare(id[x], id[y]) })
	p.it = make([]int32, len(k.scratch))
	p.n = make([]int32, len(k.scratch))
	for q, a := range k.scratch {
		p.it[q], p.n[q] = k.id[a], k.best[a]
	}
	return p
}
