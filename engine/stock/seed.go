// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"slices"
)

// columns returns the fillings of the LP in terms of the problem. An item that
// represents several equal ones is named by the first.
func (s *solver) columns() []Pattern {
	md := s.md
	out := make([]Pattern, 0, len(s.cols))
	for _, c := range s.cols {
		p := Pattern{Bin: md.binID[c.bin], Times: 1}
		for k, i := range c.it {
			p.Items = append(p.Items, int(md.member[i][0]))
			p.Counts = append(p.Counts, int(c.n[k]))
		}
		sortItems(&p)
		out = append(out, p)
	}
	return out
}

// sow takes the given fillings that keep all rules as seeds.
func (s *solver) sow(given []Pattern) {
	md := s.md
	item := make([]int32, len(md.p.Items)) // item of the problem to item here, +1
	for i, ms := range md.member {
		for _, o := range ms {
			item[o] = int32(i) + 1
		}
	}
	bin := make([]int32, len(md.p.Bins)) // bin of the problem to bin here, +1
	for b, o := range md.binID {
		bin[o] = int32(b) + 1
	}
	set := make([]uint64, md.words)
	count := map[int32]int32{}
next:
	for _, g := range given {
		if g.Bin < 0 || g.Bin >= len(bin) || len(g.Items) != len(g.Counts) {
			continue
		}
		clear(count)
		for k, o := range g.Items {
			if o < 0 || o >= len(item) || item[o] == 0 {
				continue next
			}
			count[item[o]-1] += int32(g.Counts[k])
		}
		p := pattern{}
		clear(set)
		for i, n := range count {
			if n <= 0 || n > md.per[i] || md.clash(i, set) {
				continue next
			}
			set[i>>6] |= 1 << (i & 63)
			p.it = append(p.it, i)
		}
		if len(p.it) == 0 {
			continue
		}
		slices.SortFunc(p.it, cmp.Compare[int32])
		for _, i := range p.it {
			p.n = append(p.n, count[i])
		}
		s.loadv = md.load(p.it, p.n, s.loadv)
		p.bin = bin[g.Bin] - 1
		if p.bin < 0 || !md.canHold(p.bin, s.loadv, p.it) {
			// Another bin beats its bin: take the cheapest that holds it.
			p.bin = -1
			for b := range int32(md.nb) {
				if md.canHold(b, s.loadv, p.it) {
					p.bin = b
					break
				}
			}
			if p.bin < 0 {
				continue
			}
		}
		s.seeds = append(s.seeds, p)
	}
	s.sown = len(s.seeds) > 0
}
