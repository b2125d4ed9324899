// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/nap-aks/nap/engine/stock"
)

// item is demand of the improving path: pods that are alike to the packer and
// must stay in the same domains.
type item struct {
	row  bitset
	vec  []int64 // requests, and one unit of each apartRule that has a dimension
	cap  int64   // pods of the item that may share a machine
	tier int
	pins []pinned // label values that must stay
	runs []placed // the pods
	n    int
}

// pinned is a label value that must stay.
type pinned struct{ key, val int32 }

// tierOf returns the index of a pool's tier.
func (cat *catalog) tierOf(pool int32) int {
	for i := range cat.tiers {
		if int(pool) < cat.tiers[i].poolHi {
			return i
		}
	}
	return len(cat.tiers)
}

// apartRule lets at most cap of the pods that it binds share a machine. It binds
// the pods that have an anti-affinity term over the hostname which selects
// themselves, a spread over the hostname, or one host port.
//
// In whatever order such pods come to a machine, the last one sees the others:
// anti-affinity allows none there, a spread at most maxSkew with itself (the
// least count over hostnames is 0, as everywhere in this package). So a machine
// never has more than cap of them, the largest maxSkew among the owners of the
// spread. The rule is therefore like a resource of which every machine has cap
// units and each of the pods takes one. Pods that a term selects but that do not
// own it are not bound: they may come later.
type apartRule struct {
	key   apartKey
	cap   int64
	pods  int64 // bound
	sizes int   // different demands among them
	last  int   // number of the demand that was counted last, +1
	dim   int   // its dimension, or -1
	own   bool  // kept as a cap of each item
}

// apartKey identifies a rule.
type apartKey struct {
	ctr    int
	spread bool
	port   HostPort
}

// caps returns how many pods the rules allow on a machine.
func caps(rules []*apartRule) []int64 {
	out := make([]int64, len(rules))
	for d, r := range rules {
		out[d] = r.cap
	}
	return out
}

// apartOf calls each with the rules that bind the pods of a variant and how many
// pods they allow.
func (v *variant) apartOf(each func(apartKey, int64)) {
	for i := range v.host {
		switch k := &v.host[i]; {
		case !k.self:
		case k.kind == checkAnti:
			each(apartKey{ctr: k.ctr.id}, 1)
		case k.kind == checkSpread:
			each(apartKey{ctr: k.ctr.id, spread: true}, k.maxSkew)
		}
	}
	for _, p := range v.pc.cl.pc.HostPorts {
		if p.Protocol == "" {
			p.Protocol = "TCP"
		}
		each(apartKey{ctr: -1, port: p}, 1)
	}
}

// Limits on rules that keep pods apart.
const (
	apartDims  = 6 // rules that get a dimension
	apartShare = 8 // of many items, rules that need less than 1/apartShare of the machines are left to build
)

// cell is pods that are alike to every rule.
type cell struct {
	v    *variant
	base int // number of what they need, apart rules aside
	tier int
	pins []pinned
	runs []placed
	n    int
}

// items returns the demand of the pods on machines, in their domains and tiers or,
// with free set, in any. The second result is how many pods a machine may have of
// each rule that has a dimension.
func (ps *pass) items(ms []*plannedMachine, free bool) ([]*item, []int64) {
	// Where the pods must stay.
	type place struct {
		tier       int
		keys, vals [4]int32 // the first pins
		more       string   // any others
	}
	type demandKey struct {
		row, vec int32
		place
	}
	type runKey struct {
		v *variant
		place
	}
	var cells []*cell
	cache := map[runKey]*cell{}
	bases := map[demandKey]int{}
	for _, m := range ms {
		tier := ps.cat.tierOf(m.pool)
		for i := range m.pods {
			pl := m.pods[i]
			var at place
			var keys []int32
			if !free {
				at.tier, keys = tier, ps.cat.pinsOf(pl.v)
			}
			for j, key := range keys {
				if val := ps.cat.vals[key]; key == ps.c.hostKey {
					continue
				} else if j < len(at.vals) {
					at.keys[j], at.vals[j] = key+1, val[m.col]
				} else {
					at.more += fmt.Sprint(key, "=", val[m.col], ",")
				}
			}
			c := cache[runKey{pl.v, at}]
			if c == nil {
				c = &cell{v: pl.v, tier: tier}
				cache[runKey{pl.v, at}] = c
				cells = append(cells, c)
				for _, key := range keys {
					if key != ps.c.hostKey {
						c.pins = append(c.pins, pinned{key, ps.cat.vals[key][m.col]})
					}
				}
				base := demandKey{pl.v.rowID, pl.v.pc.cl.vecID, at}
				b, ok := bases[base]
				if !ok {
					b = len(bases)
					bases[base] = b
				}
				c.base = b
			}
			c.runs = append(c.runs, pl)
			c.n += pl.n
		}
	}
	list, rules := ps.merge(cells, len(bases), int64(len(ms)))
	return list, caps(rules)
}

// merge merges the cells that are alike to the packer once the rules that bind few
// of the machines are left out (machines -1: as many as some rule needs). The
// second result is the rules that have a dimension.
func (ps *pass) merge(cells []*cell, bases int, machines int64) ([]*item, []*apartRule) {
	// Find the rules.
	var rules []*apartRule
	index := map[apartKey]int{}
	bound := make([][]int, len(cells))
	for i, c := range cells {
		c.v.apartOf(func(key apartKey, most int64) {
			r, ok := index[key]
			if !ok {
				r = len(rules)
				index[key] = r
				rules = append(rules, &apartRule{key: key, cap: most, dim: -1})
			}
			rule := rules[r]
			rule.cap = max(rule.cap, most)
			rule.pods += int64(c.n)
			if rule.last != c.base+1 {
				rule.sizes++
				rule.last = c.base + 1
			}
			bound[i] = append(bound[i], r)
		})
	}
	var dims []*apartRule
	order := make([]int, len(rules))
	for r := range order {
		order[r] = r
	}
	need := func(r int) int64 { return (rules[r].pods + rules[r].cap - 1) / rules[r].cap }
	sort.SliceStable(order, func(a, b int) bool { return need(order[a]) > need(order[b]) })
	few := bases+len(rules) <= improveFewItems
	if machines < 0 && len(order) > 0 {
		machines = need(order[0])
	}
	for _, r := range order {
		rule := rules[r]
		switch {
		case need(r)*apartShare < machines && (!few || rule.sizes > 1):
		case rule.sizes > 1 && len(dims) < apartDims:
			rule.dim = len(dims)
			dims = append(dims, rule)
		default:
			rule.own = true
		}
	}
	// Merge what is alike under the rules that are left.
	var list []*item
	nd := len(ps.c.dims.names)
	type itemKey struct {
		base  int
		rules string
	}
	at := map[itemKey]*item{}
	buf := make([]byte, 0, 64)
	for i, c := range cells {
		buf = buf[:0]
		most := int64(noCap)
		var extra []int
		for _, r := range bound[i] {
			switch rule := rules[r]; {
			case rule.dim >= 0:
				buf = fmt.Appendf(buf, "/d%d", rule.dim)
				extra = append(extra, rule.dim)
			case rule.own:
				buf = fmt.Appendf(buf, "/r%d", r)
				most = min(most, rule.cap)
			}
		}
		key := itemKey{c.base, string(buf)}
		it := at[key]
		if it == nil {
			it = &item{row: c.v.row, vec: c.v.pc.vec, cap: most, tier: c.tier, pins: c.pins}
			if len(extra) > 0 {
				it.vec = make([]int64, nd+len(dims))
				copy(it.vec, c.v.pc.vec)
				for _, d := range extra {
					it.vec[nd+d] = 1
				}
			}
			at[key] = it
			list = append(list, it)
		}
		it.runs = append(it.runs, c.runs...)
		it.n += c.n
	}
	return list, dims
}

// problem states the purchase of items as a problem of package stock. With free
// set, items may go to any domain and pool that they are compatible with: the
// solution then is a lower bound whatever domains are chosen.
func (ps *pass) problem(items []*item, apart []int64, free bool) (*stock.Problem, []int32) {
	cat := ps.cat
	var keys []int32
	if !free {
		for _, it := range items {
			for _, p := range it.pins {
				if !slices.Contains(keys, p.key) {
					keys = append(keys, p.key)
				}
			}
		}
	}
	rows := newBitset(len(cat.cols))
	for _, it := range items {
		rows.or(it.row)
	}
	// Bins: per kind the cheapest column for each combination of pinned values and
	// of items that may be on it.
	var bins []int32
	p := &stock.Problem{}
	alike := ps.alikeColumns(rows, distinctRows(items), keys)
	seen := map[int32]bool{}
	for ki := range cat.kinds {
		k := &cat.kinds[ki]
		clear(seen)
		room := k.alloc
		if len(apart) > 0 {
			room = append(slices.Clip(room), apart...)
		}
		for col := rows.next(k.lo, k.hi); col < k.hi; col = rows.next(col+1, k.hi) {
			cc := &cat.cols[col]
			if !free && (cc.reserve >= 0 || !ps.ledger.usable(col)) {
				continue
			}
			if seen[alike[col]] {
				continue // columns of a kind are sorted by price
			}
			seen[alike[col]] = true
			bins = append(bins, col)
			p.Bins = append(p.Bins, stock.Bin{Capacity: room, Price: math.Max(cc.price, 1e-9)})
		}
	}
	for _, it := range items {
		si := stock.Item{Size: it.vec, Count: it.n}
		if it.cap < noCap {
			si.MaxPerBin = int(it.cap)
		}
		p.Items = append(p.Items, si)
		allowed := make([]uint64, (len(bins)+63)/64)
		for b, col := range bins {
			if !it.row.has(col) {
				continue
			}
			if !free {
				if ps.cat.tierOf(cat.cols[col].pool) != it.tier {
					continue
				}
				if !it.keepsPins(cat, col) {
					continue
				}
			}
			allowed[b/64] |= 1 << (b % 64)
		}
		p.Allowed = append(p.Allowed, allowed)
	}
	return p, bins
}

// alikeColumns numbers the columns in rows so that those that are in the same sets
// and have the same values of some labels have the same number. The work grows
// with the columns in the sets, not with sets times columns.
func (ps *pass) alikeColumns(rows bitset, sets []bitset, keys []int32) []int32 {
	type step struct{ from, by int32 }
	n := int32(len(ps.cat.cols))
	alike := make([]int32, n)
	count := int32(0)
	refine := func(row bitset, by func(col int32) int32) {
		next := map[step]int32{}
		last, to := step{-1, -1}, int32(0)
		for col := row.next(0, n); col < n; col = row.next(col+1, n) {
			if s := (step{alike[col], by(col)}); s != last {
				last = s
				var ok bool
				if to, ok = next[s]; !ok {
					count++
					to = count
					next[s] = to
				}
			}
			alike[col] = to
		}
	}
	for _, key := range keys {
		vals := ps.cat.vals[key]
		refine(rows, func(col int32) int32 { return vals[col] })
	}
	for _, set := range sets {
		refine(set, func(int32) int32 { return 0 })
	}
	return alike
}

// distinctRows returns the different sets of columns of items.
func distinctRows(items []*item) []bitset {
	var out []bitset
	for _, it := range items {
		if !slices.ContainsFunc(out, func(r bitset) bool { return slices.Equal(r, it.row) }) {
			out = append(out, it.row)
		}
	}
	return out
}
