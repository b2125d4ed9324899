// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"math"
	"slices"
)

// layers is a knapsack search by layers, one per candidate. It drops partial
// fillings that another one beats in room and value or that cannot get above the
// cut. If too many are left, those with the lowest bound are merged into
// fictitious ones with the most room and value of each: the bound stays proven,
// only looser.
type layers struct {
	dims []int // dimensions that can bind
	nd   int

	// States of all layers; a layer is a range.
	room []int64 // n × nd
	val  []float64
	hope []float64 // upper bound on the value of any completion
	from []int32
	n    []int32
	fake []bool
	perm []int32

	// For the dominance test, one per level of the dimension with the least room.
	stairs []staircase
}

// staircase has the best value for the room in one dimension: room strictly
// descending, value strictly ascending.
type staircase struct {
	room []int64
	val  []float64
}

// beats reports whether a state with at least this room has at least this value.
func (s *staircase) beats(room int64, val float64) bool {
	at := s.after(room)
	return at > 0 && s.val[at-1] >= val
}

// after returns the number of steps with at least this room.
func (s *staircase) after(room int64) int {
	at, _ := slices.BinarySearchFunc(s.room, room, func(x, y int64) int { return cmp.Compare(y, x) })
	for at < len(s.room) && s.room[at] >= room {
		at++
	}
	return at
}

// put adds a state that no other one beats.
func (s *staircase) put(room int64, val float64) {
	start := s.after(room)
	end := start
	for end < len(s.room) && s.val[end] <= val {
		end++
	}
	if start > 0 && s.room[start-1] == room {
		start--
	}
	s.room = slices.Replace(s.room, start, end, room)
	s.val = slices.Replace(s.val, start, end, val)
}

// levels is up to how much room each value of a dimension has a staircase.
const levels = 16

// binding returns the dimensions that can be full before the others are.
func (k *knap) binding(cap []int64) []int {
	nd := k.md.nd
	out := k.lay.dims[:0]
	for d := range nd {
		binds := true
		sum := 0.0
		for a := range k.n {
			sum += float64(k.ub[a]) * float64(k.s[a*nd+d])
		}
		if sum <= float64(cap[d])*(1-1e-9) {
			binds = false
		}
		for e := 0; e < nd && binds; e++ {
			if e == d {
				continue
			}
			worst := 0.0
			for a := range k.n {
				if x := k.s[a*nd+d]; x > 0 {
					y := k.s[a*nd+e]
					if y == 0 {
						worst = math.Inf(1)
						break
					}
					worst = max(worst, float64(x)/float64(y))
				}
			}
			// Of two dimensions that bound each other one must stay, hence strictly
			// less than the capacity.
			if worst*float64(cap[e]) < float64(cap[d])*(1-1e-9) {
				binds = false
			}
		}
		if binds {
			out = append(out, d)
		}
	}
	k.lay.dims = out
	return out
}

// restAt is rest for the room of a state.
func (k *knap) restAt(a int, room []int64) (bound, folded float64) {
	if a >= k.n {
		return 0, 0
	}
	nd := k.md.nd
	bound = math.Inf(1)
	left := 0.0
	fitsAny := true
	for q, d := range k.lay.dims {
		r := room[q]
		if r < k.smin[a*nd+d] {
			fitsAny = false
		}
		if x := k.dens[a*nd+d]; !math.IsInf(x, 1) {
			bound = min(bound, x*float64(r))
		}
		left += k.lam[d] * (float64(r) * k.md.inv[d])
	}
	k.ops += int64(len(k.lay.dims))
	if !fitsAny {
		bound = 0
	}
	for _, x := range k.slack {
		left += x
	}
	left *= up
	folded = k.dantzig(a, left)
	return min(folded, bound) * up, folded * up
}

// layered finds the most valuable filling, or a bound on it, with at most width
// states per layer.
func (k *knap) layered(cap []int64, floor, root float64, width int) (best, bound float64) {
	l := &k.lay
	dims := k.binding(cap)
	l.nd = len(dims)
	nd, bd := k.md.nd, l.nd
	// Dimensions that cannot bind still contribute to the folded capacity.
	k.slack = k.slack[:0]
	for d := range nd {
		if k.lam[d] > 0 && !slices.Contains(dims, d) {
			k.slack = append(k.slack, k.lam[d]*float64(cap[d])*k.md.inv[d])
		}
	}
	l.room, l.val, l.hope = l.room[:0], l.val[:0], l.hope[:0]
	l.from, l.n, l.fake = l.from[:0], l.n[:0], l.fake[:0]
	for _, d := range dims {
		l.room = append(l.room, cap[d])
	}
	l.val, l.hope = append(l.val, 0), append(l.hope, root)
	l.from, l.n, l.fake = append(l.from, -1), append(l.n, 0), append(l.fake, false)
	cut := max(floor, k.bestV) * up
	bound = 0
	conflicts := k.md.conf != nil
	lo, hi := 0, 1
	for a := 0; a < k.n && lo < hi; a++ {
		if k.ops > k.stop {
			return k.result(floor), root // out of budget
		}
		s := k.s[a*nd : (a+1)*nd]
		for q := lo; q < hi; q++ {
			most := k.ub[a]
			for x, d := range dims {
				if y := s[d]; y > 0 && l.room[q*bd+x] < int64(most)*y {
					most = int32(l.room[q*bd+x] / y)
				}
			}
			k.ops += int64(bd)
			for c := most; c >= 0; c-- {
				v := l.val[q] + float64(c)*k.v[a]
				at := len(l.val)
				for x, d := range dims {
					l.room = append(l.room, l.room[q*bd+x]-int64(c)*s[d])
				}
				rest, folded := k.restAt(a+1, l.room[at*bd:])
				hope := (v + rest) * up
				k.ops += 4
				if !l.fake[q] && v > k.bestV && (!conflicts || k.agree(int32(q), a, c)) {
					k.bestV = v
					cut = max(cut, v*up)
					clear(k.best[:k.n])
					k.best[a] = c
					for p, at := int32(q), a-1; at >= 0; p, at = l.from[p], at-1 {
						k.best[at] = l.n[p]
					}
				}
				if hope <= cut {
					l.room = l.room[:at*bd]
					if (v+folded)*up <= cut {
						// Lower counts have a lower bound still.
						break
					}
					continue
				}
				if rest == 0 && (l.fake[q] || conflicts) {
					bound = max(bound, hope)
				}
				l.val, l.hope = append(l.val, v), append(l.hope, hope)
				l.from, l.n, l.fake = append(l.from, int32(q)), append(l.n, c), append(l.fake, l.fake[q])
			}
		}
		lo, hi = hi, len(l.val)
		hi = k.thin(lo, hi, cut, width)
	}
	return k.result(floor), min(max(cut, bound), root)
}

// agree reports whether c pods of candidate a may join the items of state q.
func (k *knap) agree(q int32, a int, c int32) bool {
	l := &k.lay
	if c == 0 {
		return false // its parent has the same value and was not taken
	}
	clear(k.set)
	for at := a - 1; at >= 0; q, at = l.from[q], at-1 {
		if l.n[q] > 0 {
			i := k.id[at]
			if k.md.clash(i, k.set) {
				return false
			}
			k.set[i>>6] |= 1 << (i & 63)
		}
	}
	return !k.md.clash(k.id[a], k.set)
}

// thin drops the states of lo..hi that others beat, merges those beyond width and
// returns the new end.
func (k *knap) thin(lo, hi int, cut float64, width int) int {
	l := &k.lay
	bd := l.nd
	l.perm = l.perm[:0]
	for q := lo; q < hi; q++ {
		if l.hope[q] > cut {
			l.perm = append(l.perm, int32(q))
		}
	}
	if bd > 0 {
		slices.SortFunc(l.perm, func(x, y int32) int {
			for d := range bd {
				if c := cmp.Compare(l.room[int(y)*bd+d], l.room[int(x)*bd+d]); c != 0 {
					return c
				}
			}
			if c := cmp.Compare(l.val[y], l.val[x]); c != 0 {
				return c
			}
			return cmp.Compare(x, y)
		})
	}
	k.ops += int64(12 * len(l.perm))
	// The dimension with levels and the one on the staircase. With two dimensions
	// there is one level.
	level, step, n := -1, 1, 1
	if bd == 3 {
		for d := 1; d < 3; d++ {
			most := int64(0)
			for _, q := range l.perm {
				most = max(most, l.room[int(q)*bd+d])
			}
			if most < levels {
				level, step, n = d, 3-d, int(most)+1
			}
		}
	}
	for len(l.stairs) < n {
		l.stairs = append(l.stairs, staircase{})
	}
	for x := range l.stairs {
		l.stairs[x].room, l.stairs[x].val = l.stairs[x].room[:0], l.stairs[x].val[:0]
	}
	keep := l.perm[:0]
	top := math.Inf(-1)
	// With conflicts a beaten state may be the one without conflicts later on. The
	// bound still holds; the best filling is then found heuristically.
	for _, q := range l.perm {
		v := l.val[q]
		beaten := false
		switch {
		case bd < 2:
			beaten = v <= top
			top = max(top, v)
		case bd == 2 || level > 0:
			r, at := l.room[int(q)*bd+step], 0
			if level > 0 {
				at = int(l.room[int(q)*bd+level])
			}
			for x := at; x < n && !beaten; x++ {
				beaten = l.stairs[x].beats(r, v)
			}
			if !beaten {
				l.stairs[at].put(r, v)
			}
			k.ops += int64(4 * (n - at))
		default:
			for x := len(keep) - 1; x >= 0 && x >= len(keep)-48; x-- {
				o := keep[x]
				if l.val[o] < v {
					continue
				}
				ok := true
				for d := range bd {
					if l.room[int(o)*bd+d] < l.room[int(q)*bd+d] {
						ok = false
						break
					}
				}
				k.ops += int64(bd)
				if ok {
					beaten = true
					break
				}
			}
		}
		if beaten {
			continue
		}
		keep = append(keep, q)
	}
	// keep is in order of room.
	if len(keep) > width {
		return k.merge(lo, keep, width)
	}
	return k.compact(lo, keep)
}

// compact moves the states in keep to lo and returns the new end.
func (k *knap) compact(lo int, keep []int32) int {
	l := &k.lay
	bd := l.nd
	n := len(keep)
	// Copies at the end of the arrays, because the ranges may overlap.
	base := len(l.val)
	for _, q := range keep {
		l.room = append(l.room, l.room[int(q)*bd:int(q+1)*bd]...)
		l.val, l.hope = append(l.val, l.val[q]), append(l.hope, l.hope[q])
		l.from, l.n, l.fake = append(l.from, l.from[q]), append(l.n, l.n[q]), append(l.fake, l.fake[q])
	}
	copy(l.room[lo*bd:], l.room[base*bd:])
	copy(l.val[lo:], l.val[base:])
	copy(l.hope[lo:], l.hope[base:])
	copy(l.from[lo:], l.from[base:])
	copy(l.n[lo:], l.n[base:])
	copy(l.fake[lo:], l.fake[base:])
	l.room = l.room[:(lo+n)*bd]
	l.val, l.hope = l.val[:lo+n], l.hope[:lo+n]
	l.from, l.n, l.fake = l.from[:lo+n], l.n[:lo+n], l.fake[:lo+n]
	k.ops += int64(4 * n)
	return lo + n
}

// merge keeps the states with the highest bounds, three quarters of width, and
// merges the others, neighbours in room, into fictitious states.
func (k *knap) merge(lo int, keep []int32, width int) int {
	l := &k.lay
	bd := l.nd
	hopes := make([]float64, len(keep))
	for x, q := range keep {
		hopes[x] = l.hope[q]
	}
	slices.Sort(hopes)
	limit := hopes[len(hopes)-width*3/4]
	low := 0
	for _, q := range keep {
		if l.hope[q] < limit {
			low++
		}
	}
	each := max((low+width/4-1)/max(width/4, 1), 2)
	out := keep[:0]
	group := 0
	into := int32(-1)
	for _, q := range keep {
		if l.hope[q] >= limit {
			out = append(out, q)
			continue
		}
		if group%each == 0 {
			into = q
			out = append(out, q)
		} else {
			for d := range bd {
				l.room[int(into)*bd+d] = max(l.room[int(into)*bd+d], l.room[int(q)*bd+d])
			}
			l.val[into] = max(l.val[into], l.val[q])
			l.fake[into] = true
		}
		group++
	}
	k.ops += int64(10 * len(keep))
	return k.compact(lo, out)
}
