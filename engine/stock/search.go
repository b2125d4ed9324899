// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import "slices"

// rng is splitmix64, a generator with the same numbers in every run.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rng) below(n int) int { return int(r.next() % uint64(n)) }

func (r *rng) unit() float64 { return float64(r.next()>>11) / (1 << 53) }

// patience is how many rounds without success search continues, at least.
const patience = 1500

// search empties some machines, preferably those that waste most of their price,
// and buys for their pods again at slightly different values. It keeps the new
// machines if they are cheaper.
func (s *solver) search(until int64) {
	md := s.md
	r := rng(1)
	val := make([]float64, md.m)
	cur := append([]use(nil), s.best...)
	cost := s.bestCost
	var part, fresh []use
	base := s.duals
	var loss []float64
	hit := 0
	for round := 0; s.work() < until && !s.done() && round < patience+3*hit; round++ {
		loss = loss[:0]
		sum := 0.0
		for _, u := range cur {
			v := md.price[u.bin]
			for k, i := range u.it {
				v -= base[i] * float64(u.n[k])
			}
			v = max(v, 0)/md.price[u.bin] + 0.02
			sum += v
			loss = append(loss, v)
		}
		s.ops += int64(4 * len(cur))
		// Choose copies, those that waste more with a higher probability.
		want := 2 + r.below(8)
		part = part[:0]
		old := 0.0
		clear(s.rem)
		for range want {
			x := r.unit() * sum
			at := -1
			for q := range cur {
				if cur[q].times == 0 {
					continue
				}
				at = q
				if x -= loss[q]; x <= 0 {
					break
				}
			}
			if at < 0 {
				break
			}
			u := &cur[at]
			u.times--
			if u.times == 0 {
				sum -= loss[at]
			}
			part = append(part, use{u.pattern, 1})
			old += md.price[u.bin]
			for k, i := range u.it {
				s.rem[i] += u.n[k]
			}
		}
		eps := [4]float64{0, 0.03, 0.1, 0.3}[r.below(4)]
		for i := range val {
			if s.rem[i] > 0 {
				val[i] = max(base[i], 0.01*s.alone[i]) * (1 + eps*(2*r.unit()-1))
			}
		}
		var c float64
		fresh, c = s.greedy(val, s.rem, 60, fresh[:0])
		if c <= old+1e-12 {
			cost += c - old
			cur = append(cur, fresh...)
		} else {
			cur = append(cur, part...)
		}
		cur = tidy(cur)
		if cost < s.bestCost-1e-9 {
			s.offer(cur, cost)
			hit = round
		}
	}
}

// tidy removes uses without copies and merges equal ones at the end.
func tidy(uses []use) []use {
	out := uses[:0]
	for _, u := range uses {
		if u.times > 0 {
			out = append(out, u)
		}
	}
	// Merge copies that were put back with the use that they came from.
	for k := len(out) - 1; k > 0 && k >= len(out)-16; k-- {
		for q := 0; q < k; q++ {
			if out[q].bin == out[k].bin && slices.Equal(out[q].it, out[k].it) && slices.Equal(out[q].n, out[k].n) {
				out[q].times += out[k].times
				out[k].times = 0
				break
			}
		}
	}
	fin := out[:0]
	for _, u := range out {
		if u.times > 0 {
			fin = append(fin, u)
		}
	}
	return fin
}
