// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// Limits on the columns of one offering.
const (
	// comboProduct is how many combinations of label values an offering may have
	// so that there is a column for each of them.
	comboProduct = 64
	// comboUnions is how many combinations there are at most beyond that which
	// serve what two classes ask for together.
	comboUnions = 64
	// comboPairs is how many pairs of demands are looked at for that.
	comboPairs = 100_000
)

// decided is the values that a label can have on machines of an offering.
type decided struct {
	key int32
	vs  []int32
}

// combos returns the combinations of values, aligned with multi, that get a
// column: all of them if they are few. If not, a product would let whoever writes
// pods multiply the catalogue with every label, so there are only those that
// classes ask for, in number about linear in the classes, some that two of them
// ask for together, and one for everybody else. It sorts multi by name.
func (b *poolBuilder) combos(multi []decided) [][]int32 {
	// Sorted by name: numbers depend on the order in which values were seen.
	tab := b.c.sym.tab
	slices.SortFunc(multi, func(x, y decided) int { return strings.Compare(tab[x.key].name, tab[y.key].name) })
	if slices.EqualFunc(multi, b.comboOf, func(x, y decided) bool {
		return x.key == y.key && len(x.vs) == len(y.vs) && &x.vs[0] == &y.vs[0]
	}) {
		return b.comboList
	}
	sorted := make([]decided, len(multi))
	size := 1
	for i, m := range multi {
		vs := slices.Clone(m.vs)
		slices.SortFunc(vs, func(x, y int32) int {
			return strings.Compare(b.c.sym.valueName(m.key, x), b.c.sym.valueName(m.key, y))
		})
		sorted[i] = decided{m.key, vs}
		size = min(size*len(vs), comboProduct+1)
	}
	var list [][]int32
	if size <= comboProduct {
		list = [][]int32{make([]int32, len(sorted))}
		for i, m := range sorted {
			list = spread(list, i, m.vs)
		}
	} else {
		list = b.demanded(sorted)
		for _, m := range sorted {
			b.cat.sparse[m.key] = true
		}
	}
	b.comboOf, b.comboList = slices.Clone(multi), list
	return list
}

// spread returns each of the combinations with each of the values at index i.
func spread(list [][]int32, i int, vs []int32) [][]int32 {
	next := make([][]int32, 0, len(list)*len(vs))
	for _, e := range list {
		for _, v := range vs {
			n := slices.Clone(e)
			n[i] = v
			next = append(next, n)
		}
	}
	return next
}

// unasked stands for a value that a demand leaves open.
const unasked int32 = -1

// demanded returns the combinations that classes ask for, those that two of them
// ask for together and the one without any, all values of labels with minValues
// being kept.
func (b *poolBuilder) demanded(keys []decided) [][]int32 {
	d := demands{b: b, keys: keys, seen: map[string]bool{}, usual: make([]int32, len(keys))}
	for i, k := range keys {
		d.usual[i] = k.vs[0]
		if slices.Contains(k.vs, valOther) {
			d.usual[i] = valOther
		}
	}
	for _, cl := range b.c.classes {
		if slices.ContainsFunc(keys, func(k decided) bool { return slices.Contains(cl.keys, k.key) }) {
			d.addClass(cl)
		}
	}
	d.sort()
	d.unite()
	none := make([]int32, len(keys))
	for i := range none {
		none[i] = unasked
	}
	d.add(none)
	// What is left open has its usual value.
	list := d.list
	d.list, d.seen = nil, map[string]bool{}
	for _, a := range list {
		full := slices.Clone(a)
		for i, v := range full {
			if v == unasked {
				full[i] = d.usual[i]
			}
		}
		d.add(full)
	}
	for i, k := range keys {
		if slices.ContainsFunc(b.p.Requirements, func(r Requirement) bool { return r.MinValues > 0 && b.c.sym.key(r.Key) == k.key }) {
			list, d.list, d.seen = spread(d.list, i, k.vs), nil, map[string]bool{}
			for _, a := range list {
				d.add(a)
			}
		}
	}
	d.sort()
	return d.list
}

// demands collects what classes ask of labels that machines can have with several
// values.
type demands struct {
	b     *poolBuilder
	keys  []decided
	usual []int32 // the value where nobody asks for one
	list  [][]int32
	seen  map[string]bool
	buf   []byte
}

// add adds a combination and reports whether it is a new one.
func (d *demands) add(a []int32) bool {
	d.buf = d.buf[:0]
	for _, v := range a {
		d.buf = binary.LittleEndian.AppendUint32(d.buf, uint32(v))
	}
	if d.seen[string(d.buf)] {
		return false
	}
	d.seen[string(d.buf)] = true
	d.list = append(d.list, a)
	return true
}

// sort sorts the combinations by the names of the values.
func (d *demands) sort() {
	slices.SortFunc(d.list, func(x, y []int32) int {
		for i, k := range d.keys {
			switch vx, vy := x[i], y[i]; {
			case vx == vy:
			case vx == unasked || vy == unasked:
				return cmp.Compare(vx, vy)
			default:
				names := d.b.c.sym.tab[k.key].names
				return strings.Compare(names[vx], names[vy])
			}
		}
		return 0
	})
}

// addClass adds what each alternative of a class asks for.
func (d *demands) addClass(cl *class) {
	alternatives := [][]creq{cl.sel}
	if len(cl.aff) > 0 {
		alternatives = alternatives[:0]
		for _, t := range cl.aff {
			alternatives = append(alternatives, slices.Concat(cl.sel, t))
		}
	}
	for _, terms := range cl.vols {
		if len(terms) == 0 {
			continue
		}
		var next [][]creq
		for i, a := range alternatives {
			for j, t := range terms {
				// All with all while they are few, else each term at least once.
				if len(alternatives)*len(terms) <= comboProduct || j == i%len(terms) || i == j%len(alternatives) {
					next = append(next, slices.Concat(a, t))
				}
			}
		}
		alternatives = next
	}
	for _, a := range alternatives {
		d.addTerm(cl, a)
		for i := range cl.pref {
			d.addTerm(cl, slices.Concat(a, cl.pref[i].reqs))
		}
	}
}

// addTerm adds what a class with these requirements asks for.
func (d *demands) addTerm(cl *class, reqs []creq) {
	c := d.b.c
	values := make([][]int32, len(d.keys))
	size, most, asks := 1, 1, false
	for i, k := range d.keys {
		listed, bound := c.spreadsOver(cl, k.key), false
		for j := range reqs {
			if reqs[j].key == k.key {
				bound = true
				listed = listed || reqs[j].op == In
			}
		}
		if !listed && !bound {
			values[i] = []int32{unasked}
			continue
		}
		vs := make([]int32, 0, 1)
		for _, v := range k.vs {
			if !slices.ContainsFunc(reqs, func(r creq) bool { return r.key == k.key && !c.sym.holds(&r, v) }) {
				vs = append(vs, v)
			}
		}
		switch {
		case len(vs) == 0:
			return // not with this pool
		case listed:
		case slices.Contains(vs, d.usual[i]):
			vs = []int32{unasked}
		default:
			vs = vs[:1]
		}
		asks = asks || vs[0] != unasked
		values[i] = vs
		size = min(size*len(vs), comboProduct+1)
		most = max(most, len(vs))
	}
	if !asks {
		return
	}
	if size <= comboProduct {
		list := [][]int32{make([]int32, len(d.keys))}
		for i, vs := range values {
			list = spread(list, i, vs)
		}
		for _, a := range list {
			d.add(a)
		}
		return
	}
	for n := range most { // each value at least once
		a := make([]int32, len(d.keys))
		for i, vs := range values {
			a[i] = vs[n%len(vs)]
		}
		d.add(a)
	}
}

// spreadsOver reports whether a label is a topology key of a class.
func (c *Cluster) spreadsOver(cl *class, key int32) bool {
	name := c.sym.tab[key].name
	return slices.ContainsFunc(cl.pc.Spread, func(s SpreadConstraint) bool { return s.Key == name }) ||
		slices.ContainsFunc(cl.pc.PodAffinity, func(t AffinityTerm) bool { return t.Key == name }) ||
		slices.ContainsFunc(cl.pc.PodAntiAffinity, func(t AffinityTerm) bool { return t.Key == name })
}

// unite adds combinations that serve two demands at once, so that their pods can
// share a machine.
func (d *demands) unite() {
	n, added, pairs := len(d.list), 0, 0
	for gap := 1; gap < n; gap++ {
		for i := 0; i+gap < n; i++ {
			if pairs++; added == comboUnions || pairs > comboPairs {
				return
			}
			if u := united(d.list[i], d.list[i+gap]); u != nil && d.add(u) {
				added++
			}
		}
	}
}

// united returns the combination that serves both demands, or nil if none does.
func united(x, y []int32) []int32 {
	for i := range x {
		if x[i] != y[i] && x[i] != unasked && y[i] != unasked {
			return nil
		}
	}
	u := slices.Clone(x)
	for i, v := range y {
		if v != unasked {
			u[i] = v
		}
	}
	return u
}
