package stock

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
)

// model is a Problem made small: dimensions nobody asks for are gone, equal
// items are one item, bins that another bin makes pointless are gone.
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
	member [][]int32 // items of p.Items that the item stands for
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

// prepare builds the model of p.
func prepare(p *Problem) *model {
	md := &model{p: p}
	// Dimensions in use.
	all := 0
	for i := range p.Items {
		all = max(all, len(p.Items[i].Size))
	}
	var dims []int
	for d := range all {
		for i := range p.Items {
			if p.Items[i].Count > 0 && p.Items[i].at(d) > 0 {
				dims = append(dims, d)
				break
			}
		}
	}
	md.nd = len(dims)

	// Items: which are there, merged where equal.
	type proto struct{ first int }
	var items []proto
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
			for _, d := range dims {
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
				md.member[at] = append(md.member[at], int32(i))
				continue
			}
			seen[string(key)] = len(items)
		}
		items = append(items, proto{i})
		md.member = append(md.member, []int32{int32(i)})
	}

	// Bins: the columns of items that each may hold, by capacity and by rule.
	nb := len(p.Bins)
	mm := len(items)
	words := (mm + 63) / 64
	total := make([]float64, md.nd)
	for a := range items {
		n := 0.0
		for _, o := range md.member[a] {
			n += float64(p.Items[o].Count)
		}
		for k, d := range dims {
			total[k] += n * float64(p.Items[items[a].first].at(d))
		}
	}
	caps := make([]int64, nb*md.nd)
	for b := range p.Bins {
		for k, d := range dims {
			c := p.Bins[b].at(d)
			if total[k] < float64(math.MaxInt64/2) && float64(c) > total[k] {
				c = int64(total[k]) + 1 // more is no use; the same for all bins
			}
			caps[b*md.nd+k] = c
		}
	}
	col := make([]uint64, nb*words)
	for a := range items {
		it := &p.Items[items[a].first]
		sz := make([]int64, md.nd)
		for k, d := range dims {
			sz[k] = it.at(d)
		}
		test := func(b int) {
			c := caps[b*md.nd : (b+1)*md.nd]
			for k := range sz {
				if sz[k] > c[k] {
					return
				}
			}
			col[b*words+a>>6] |= 1 << (a & 63)
		}
		if p.Allowed == nil {
			for b := range nb {
				test(b)
			}
			continue
		}
		for w, set := range p.Allowed[items[a].first] {
			for ; set != 0; set &= set - 1 {
				if b := w<<6 + bits.TrailingZeros64(set); b < nb {
					test(b)
				}
			}
		}
	}
	placeable := make([]uint64, words)
	for b := range nb {
		for w := range words {
			placeable[w] |= col[b*words+w]
		}
	}

	// Bins that no other bin beats.
	order := make([]int32, 0, nb)
	for b := range nb {
		if anyBit(col[b*words : (b+1)*words]) {
			order = append(order, int32(b))
		}
	}
	slices.SortFunc(order, func(x, y int32) int {
		if c := cmp.Compare(p.Bins[x].Price, p.Bins[y].Price); c != 0 {
			return c
		}
		// Of equally dear bins the roomier first, so that it can beat the other.
		for k := range md.nd {
			if c := cmp.Compare(caps[int(y)*md.nd+k], caps[int(x)*md.nd+k]); c != 0 {
				return c
			}
		}
		return cmp.Compare(x, y)
	})
	beats := func(k, b int32) bool {
		ck, cb := caps[int(k)*md.nd:int(k+1)*md.nd], caps[int(b)*md.nd:int(b+1)*md.nd]
		for d := range cb {
			if ck[d] < cb[d] {
				return false
			}
		}
		wk, wb := col[int(k)*words:int(k+1)*words], col[int(b)*words:int(b+1)*words]
		for w := range wb {
			if wb[w]&^wk[w] != 0 {
				return false
			}
		}
		return true
	}
	var kept []int32
next:
	for _, b := range order {
		for _, k := range kept {
			if beats(k, b) {
				continue next
			}
		}
		kept = append(kept, b)
	}

	// Items that are left, renumbered.
	renum := make([]int32, mm)
	members := md.member
	md.member = nil
	for a := range items {
		renum[a] = -1
		if !hasBit(placeable, a) {
			for _, o := range members[a] {
				md.unplaceable = append(md.unplaceable, int(o))
			}
			continue
		}
		renum[a] = int32(md.m)
		md.m++
		it := &p.Items[items[a].first]
		n := 0
		for _, o := range members[a] {
			n += p.Items[o].Count
		}
		md.pods += n
		n = min(n, math.MaxInt32)
		per := n
		if it.MaxPerBin > 0 {
			per = min(per, it.MaxPerBin)
		}
		if p.Conflict != nil && hasBit(p.Conflict[items[a].first], items[a].first) {
			per = 1
		}
		md.count = append(md.count, int32(n))
		md.per = append(md.per, int32(per))
		md.member = append(md.member, members[a])
		for _, d := range dims {
			md.size = append(md.size, it.at(d))
		}
	}
	slices.Sort(md.unplaceable)
	md.words = (md.m + 63) / 64
	if p.Conflict != nil {
		back := make([]int32, len(p.Items)) // item of p to item here, +1
		for a, ms := range md.member {
			for _, o := range ms {
				back[o] = int32(a) + 1
			}
		}
		conf := make([]uint64, md.m*md.words)
		has := make([]bool, md.m)
		found := false
		for a, ms := range md.member {
			for w, set := range p.Conflict[ms[0]] {
				for ; set != 0; set &= set - 1 {
					o := w<<6 + bits.TrailingZeros64(set)
					if o >= len(back) || back[o] == 0 || int(back[o]) == a+1 {
						continue
					}
					x := int(back[o] - 1)
					conf[a*md.words+x>>6] |= 1 << (x & 63)
					conf[x*md.words+a>>6] |= 1 << (a & 63)
					has[a], has[x], found = true, true, true
				}
			}
		}
		if found {
			md.conf, md.hasCon = conf, has
		}
	}

	md.nb = len(kept)
	scale := make([]float64, md.nd)
	for _, b := range kept {
		for d := range md.nd {
			scale[d] = max(scale[d], float64(caps[int(b)*md.nd+d]))
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
	for _, b := range kept {
		c := caps[int(b)*md.nd : int(b+1)*md.nd]
		md.cap = append(md.cap, c...)
		for d := range c {
			md.capf = append(md.capf, float64(c[d])*md.inv[d])
		}
		md.price = append(md.price, p.Bins[b].Price)
		md.binID = append(md.binID, int(b))
		var list, fit []int32
		for a := range items {
			if renum[a] < 0 || !hasBit(col[int(b)*words:int(b+1)*words], a) {
				continue
			}
			i := renum[a]
			list = append(list, i)
			fit = append(fit, fits(c, md.size[int(i)*md.nd:int(i+1)*md.nd], md.per[i]))
		}
		md.list = append(md.list, list)
		md.fit = append(md.fit, fit)
	}
	return md
}

// fits says how many of size fit into room, at most most.
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

// clash says whether item i conflicts with an item whose bit is set.
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

// pattern is a way to fill a bin of the model.
type pattern struct {
	bin int32
	it  []int32 // items, ascending
	n   []int32
}

// use is a pattern and how often it is bought.
type use struct {
	pattern
	times int32
}

// canHold says whether bin b may hold the pattern's items, by capacity and by
// rule. Conflicts and caps per bin are the pattern's own and not looked at.
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
	cur := make([]int, md.m)  // member being served
	left := make([]int, md.m) // its pods not served yet
	for i := range left {
		left[i] = md.p.Items[md.member[i][0]].Count
	}
	var out []Pattern
	cost := 0.0
	for _, u := range uses {
		for t := int(u.times); t > 0; {
			// As many copies as the members being served suffice for.
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
