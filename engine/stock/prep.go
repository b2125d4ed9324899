// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
)

// model is a Problem without the dimensions that no pod asks for and the bins that
// another bin beats. Equal items are one item.
type model struct {
	p      *Problem
	nd     int // dimensions
	m      int // items
	nb     int // bins
	size   []int64
	sizef  []float64 // size / scale of the dimension
	count  []int32   // pods of the item
	per    []int32   // pods of the item that may share a bin
	cap    []int64
	capf   []float64
	inv    []float64 // 1 / scale of the dimension
	price  []float64
	binID  []int     // index in p.Bins
	member [][]int32 // items of p.Items that the item represents
	list   [][]int32 // per bin: items that may be in it
	fit    [][]int32 // per bin: how many of list[k] fit when alone, at most per
	words  int       // length of a row of bits over items
	conf   []uint64  // m rows of words: conflicts; nil when there are none
	hasCon []bool

	unplaceable []int
	pods        int
}

func hasBit(row []uint64, i int) bool {
	return i>>6 < len(row) && row[i>>6]&(1<<(i&63)) != 0
}

func anyBit(row []uint64) bool {
	for _, w := range row {
		if w != 0 {
			return true
		}
	}
	return false
}

// preparation is the intermediate state of prepare.
type preparation struct {
	p     *Problem
	md    *model
	dims  []int     // dimensions in use
	first []int     // per merged item: the first item of p that it represents
	rest  [][]int32 // per merged item: all of them
	caps  []int64   // per bin and dimension in use: the capacity, cut to the demand
	words int       // length of a row of bits over merged items
	holds []uint64  // per bin: the merged items that it may hold
	kept  []int32   // bins that no other bin beats
	renum []int32   // merged item to item of the model, or -1
}

// prepare builds the model of p.
func prepare(p *Problem) *model {
	pr := &preparation{p: p, md: &model{p: p}}
	pr.findDims()
	pr.mergeItems()
	pr.cutCapacities()
	pr.matchItems()
	pr.keepBins()
	pr.keepItems()
	if p.Conflict != nil {
		pr.conflicts()
	}
	pr.finish()
	return pr.md
}

// findDims finds the dimensions that some pod asks for.
func (pr *preparation) findDims() {
	p := pr.p
	all := 0
	for i := range p.Items {
		all = max(all, len(p.Items[i].Size))
	}
	for d := range all {
		for i := range p.Items {
			if p.Items[i].Count > 0 && p.Items[i].at(d) > 0 {
				pr.dims = append(pr.dims, d)
				break
			}
		}
	}
	pr.md.nd = len(pr.dims)
}

// mergeItems merges items that are equal in size and allowed bins and have
// neither a cap nor conflicts.
func (pr *preparation) mergeItems() {
	p := pr.p
	seen := map[string]int{}
	var key []byte
	for i := range p.Items {
		it := &p.Items[i]
		if it.Count <= 0 {
			continue
		}
		var con []uint64
		if p.Conflict != nil {
			con = p.Conflict[i]
		}
		if it.MaxPerBin == 0 && !anyBit(con) {
			key = key[:0]
			for _, d := range pr.dims {
				key = binary.AppendUvarint(key, uint64(it.at(d)))
			}
			if p.Allowed != nil {
				row := p.Allowed[i]
				for len(row) > 0 && row[len(row)-1] == 0 {
					row = row[:len(row)-1]
				}
				for _, w := range row {
					key = binary.LittleEndian.AppendUint64(key, w)
				}
			}
			if at, ok := seen[string(key)]; ok {
				pr.rest[at] = append(pr.rest[at], int32(i))
				continue
			}
			seen[string(key)] = len(pr.first)
		}
		pr.first = append(pr.first, i)
		pr.rest = append(pr.rest, []int32{int32(i)})
	}
}

// cutCapacities cuts the capacities to what all pods together ask for, so that
// bins which differ only beyond that are equal.
func (pr *preparation) cutCapacities() {
	p, nd := pr.p, pr.md.nd
	total := make([]float64, nd)
	for a, f := range pr.first {
		n := 0.0
		for _, o := range pr.rest[a] {
			n += float64(p.Items[o].Count)
		}
		for k, d := range pr.dims {
			total[k] += n * float64(p.Items[f].at(d))
		}
	}
	pr.caps = make([]int64, len(p.Bins)*nd)
	for b := range p.Bins {
		for k, d := range pr.dims {
			c := p.Bins[b].at(d)
			if total[k] < float64(math.MaxInt64/2) && float64(c) > total[k] {
				c = int64(total[k]) + 1
			}
			pr.caps[b*nd+k] = c
		}
	}
}

func (pr *preparation) capacity(b int32) []int64 {
	return pr.caps[int(b)*pr.md.nd : int(b+1)*pr.md.nd]
}

func (pr *preparation) held(b int32) []uint64 {
	return pr.holds[int(b)*pr.words : int(b+1)*pr.words]
}

// matchItems finds the items that each bin may hold, by capacity and by rule.
func (pr *preparation) matchItems() {
	p := pr.p
	nb := len(p.Bins)
	pr.words = (len(pr.first) + 63) / 64
	pr.holds = make([]uint64, nb*pr.words)
	sz := make([]int64, pr.md.nd)
	for a, f := range pr.first {
		for k, d := range pr.dims {
			sz[k] = p.Items[f].at(d)
		}
		test := func(b int) {
			c := pr.capacity(int32(b))
			for k := range sz {
				if sz[k] > c[k] {
					return
				}
			}
			pr.holds[b*pr.words+a>>6] |= 1 << (a & 63)
		}
		if p.Allowed == nil {
			for b := range nb {
				test(b)
			}
			continue
		}
		eachBit(p.Allowed[f], nb, test)
	}
}

// keepBins keeps the bins that hold something and that no other bin beats.
func (pr *preparation) keepBins() {
	p := pr.p
	order := make([]int32, 0, len(p.Bins))
	for b := range int32(len(p.Bins)) {
		if anyBit(pr.held(b)) {
			order = append(order, b)
		}
	}
	slices.SortFunc(order, func(x, y int32) int {
		if c := cmp.Compare(p.Bins[x].Price, p.Bins[y].Price); c != 0 {
			return c
		}
		// Of two bins with equal prices the larger first, so that it can beat the
		// other.
		if c := slices.Compare(pr.capacity(y), pr.capacity(x)); c != 0 {
			return c
		}
		return cmp.Compare(x, y)
	})
	for _, b := range order {
		if !slices.ContainsFunc(pr.kept, func(k int32) bool { return pr.beats(k, b) }) {
			pr.kept = append(pr.kept, b)
		}
	}
}

// beats reports whether bin k, which costs no more than bin b, can hold whatever
// bin b can.
func (pr *preparation) beats(k, b int32) bool {
	ck, cb := pr.capacity(k), pr.capacity(b)
	for d := range cb {
		if ck[d] < cb[d] {
			return false
		}
	}
	wk, wb := pr.held(k), pr.held(b)
	for w := range wb {
		if wb[w]&^wk[w] != 0 {
			return false
		}
	}
	return true
}

// keepItems puts the items that some bin holds into the model.
func (pr *preparation) keepItems() {
	p, md := pr.p, pr.md
	placeable := make([]uint64, pr.words)
	for b := range int32(len(p.Bins)) {
		for w, x := range pr.held(b) {
			placeable[w] |= x
		}
	}
	pr.renum = make([]int32, len(pr.first))
	for a, f := range pr.first {
		pr.renum[a] = -1
		if !hasBit(placeable, a) {
			for _, o := range pr.rest[a] {
				md.unplaceable = append(md.unplaceable, int(o))
			}
			continue
		}
		pr.renum[a] = int32(md.m)
		md.m++
		it := &p.Items[f]
		n := 0
		for _, o := range pr.rest[a] {
			n += p.Items[o].Count
		}
		md.pods += n
		n = min(n, math.MaxInt32)
		per := n
		if it.MaxPerBin > 0 {
			per = min(per, it.MaxPerBin)
		}
		if p.Conflict != nil && hasBit(p.Conflict[f], f) {
			per = 1
		}
		md.count = append(md.count, int32(n))
		md.per = append(md.per, int32(per))
		md.member = append(md.member, pr.rest[a])
		for _, d := range pr.dims {
			md.size = append(md.size, it.at(d))
		}
	}
	slices.Sort(md.unplaceable)
	md.words = (md.m + 63) / 64
}

// conflicts puts the conflicts between items into the model.
func (pr *preparation) conflicts() {
	p, md := pr.p, pr.md
	back := make([]int32, len(p.Items)) // item of p to item of the model, +1
	for a, ms := range md.member {
		for _, o := range ms {
			back[o] = int32(a) + 1
		}
	}
	conf := make([]uint64, md.m*md.words)
	has := make([]bool, md.m)
	found := false
	for a, ms := range md.member {
		eachBit(p.Conflict[ms[0]], len(back), func(o int) {
			if back[o] == 0 || int(back[o]) == a+1 {
				return
			}
			x := int(back[o] - 1)
			conf[a*md.words+x>>6] |= 1 << (x & 63)
			conf[x*md.words+a>>6] |= 1 << (a & 63)
			has[a], has[x], found = true, true, true
		})
	}
	if found {
		md.conf, md.hasCon = conf, has
	}
}

// finish puts the bins into the model and scales all amounts.
func (pr *preparation) finish() {
	md := pr.md
	md.nb = len(pr.kept)
	scale := make([]float64, md.nd)
	for _, b := range pr.kept {
		for d, c := range pr.capacity(b) {
			scale[d] = max(scale[d], float64(c))
		}
	}
	md.inv = make([]float64, md.nd)
	for d, s := range scale {
		md.inv[d] = 1 / max(s, 1)
	}
	md.sizef = make([]float64, len(md.size))
	for i := range md.size {
		md.sizef[i] = float64(md.size[i]) * md.inv[i%md.nd]
	}
	for _, b := range pr.kept {
		c := pr.capacity(b)
		md.cap = append(md.cap, c...)
		for d := range c {
			md.capf = append(md.capf, float64(c[d])*md.inv[d])
		}
		md.price = append(md.price, pr.p.Bins[b].Price)
		md.binID = append(md.binID, int(b))
		var list, fit []int32
		row := pr.held(b)
		for a, i := range pr.renum {
			if i < 0 || !hasBit(row, a) {
				continue
			}
			list = append(list, i)
			fit = append(fit, fits(c, md.size[int(i)*md.nd:int(i+1)*md.nd], md.per[i]))
		}
		md.list = append(md.list, list)
		md.fit = append(md.fit, fit)
	}
}

// fits returns how many of size fit into room, at most most.
func fits(room, size []int64, most int32) int32 {
	n := int64(most)
	for d, s := range size {
		if s > 0 {
			n = min(n, room[d]/s)
		}
	}
	return int32(n)
}

func (it *Item) at(d int) int64 {
	if d < len(it.Size) {
		return it.Size[d]
	}
	return 0
}

func (b *Bin) at(d int) int64 {
	if d < len(b.Capacity) {
		return b.Capacity[d]
	}
	return 0
}

func (md *model) sz(i int32) []int64 { return md.size[int(i)*md.nd : int(i+1)*md.nd] }

func (md *model) sf(i int32) []float64 { return md.sizef[int(i)*md.nd : int(i+1)*md.nd] }

func (md *model) cp(b int32) []int64 { return md.cap[int(b)*md.nd : int(b+1)*md.nd] }

// clash reports whether item i conflicts with an item in set.
func (md *model) clash(i int32, set []uint64) bool {
	if md.conf == nil || !md.hasCon[i] {
		return false
	}
	row := md.conf[int(i)*md.words : int(i+1)*md.words]
	for w := range row {
		if row[w]&set[w] != 0 {
			return true
		}
	}
	return false
}

// pattern is a filling of a bin of the model.
type pattern struct {
	bin int32
	it  []int32 // items, ascending
	n   []int32
}

// use is a pattern and how many times it is bought.
type use struct {
	pattern
	times int32
}

// canHold reports whether bin b may hold items with a load, by capacity and by
// rule. It ignores conflicts and caps per bin, which do not depend on the bin.
func (md *model) canHold(b int32, load []int64, it []int32) bool {
	c := md.cp(b)
	for d := range load {
		if load[d] > c[d] {
			return false
		}
	}
	list, k := md.list[b], 0
	for _, i := range it {
		for k < len(list) && list[k] < i {
			k++
		}
		if k == len(list) || list[k] != i {
			return false
		}
	}
	return true
}

// load returns what pods take, in out.
func (md *model) load(it, n []int32, out []int64) []int64 {
	out = out[:0]
	for range md.nd {
		out = append(out, 0)
	}
	for k, i := range it {
		for d, s := range md.sz(i) {
			out[d] += s * int64(n[k])
		}
	}
	return out
}

// expand turns uses of the model into patterns of the problem.
func (md *model) expand(uses []use) ([]Pattern, float64) {
	cur := make([]int, md.m)  // current member
	left := make([]int, md.m) // its pods that are left
	for i := range left {
		left[i] = md.p.Items[md.member[i][0]].Count
	}
	var out []Pattern
	cost := 0.0
	for _, u := range uses {
		for t := int(u.times); t > 0; {
			// As many copies as the current members have pods for.
			piece := t
			for k, i := range u.it {
				for left[i] == 0 {
					cur[i]++
					left[i] = md.p.Items[md.member[i][cur[i]]].Count
				}
				piece = min(piece, left[i]/int(u.n[k]))
			}
			one := Pattern{Bin: md.binID[u.bin], Times: max(piece, 1)}
			for k, i := range u.it {
				for need := int(u.n[k]) * one.Times; need > 0; {
					for left[i] == 0 {
						cur[i]++
						left[i] = md.p.Items[md.member[i][cur[i]]].Count
					}
					take := min(need, left[i])
					left[i] -= take
					need -= take
					one.Items = append(one.Items, int(md.member[i][cur[i]]))
					one.Counts = append(one.Counts, take/one.Times)
				}
			}
			sortItems(&one)
			out = append(out, one)
			t -= one.Times
		}
	}
	slices.SortFunc(out, func(a, b Pattern) int {
		if c := cmp.Compare(a.Bin, b.Bin); c != 0 {
			return c
		}
		if c := slices.Compare(a.Items, b.Items); c != 0 {
			return c
		}
		return slices.Compare(a.Counts, b.Counts)
	})
	merged := out[:0]
	for _, o := range out {
		if n := len(merged); n > 0 && merged[n-1].Bin == o.Bin &&
			slices.Equal(merged[n-1].Items, o.Items) && slices.Equal(merged[n-1].Counts, o.Counts) {
			merged[n-1].Times += o.Times
			continue
		}
		merged = append(merged, o)
	}
	for _, o := range merged {
		cost += md.p.Bins[o.Bin].Price * float64(o.Times)
	}
	return merged, cost
}

func sortItems(p *Pattern) {
	for a := 1; a < len(p.Items); a++ {
		for b := a; b > 0 && p.Items[b] < p.Items[b-1]; b-- {
			p.Items[b], p.Items[b-1] = p.Items[b-1], p.Items[b]
			p.Counts[b], p.Counts[b-1] = p.Counts[b-1], p.Counts[b]
		}
	}
}
