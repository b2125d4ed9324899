// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/nap-aks/nap/engine/stock"
)

// market is what resources are worth in a pass and which pods still wait for a
// machine.
//
// Invariant: no machine that the pods may be on holds more value than it costs,
// so a sum of values is a lower bound on cost. A shape's waiting pods are those
// that no choice of a machine has assumed yet.
type market struct {
	c   *Cluster
	cat *catalog

	dimOrder  []int     // all dimensions by name
	prices    []float64 // value of a unit of each dimension, USD per hour
	pricedFor bitset    // the columns for which prices are proven
	kindOrder []int32   // kinds by the most value they can hold per dollar
	kindBest  []float64 // that most, per kind

	shapes   []*shape // most valuable first
	shapeKey map[shapeKey]*shape
	choices  int     // calls of chooseIn
	alike    []int32 // per kind, see alikeKinds
	waiting  []*shape
	sizes    []sizeRun
}

// shape is classes that are alike to the packer: same columns, same size, same
// cap per machine.
type shape struct {
	size    int // equal for neighbours that ask for the same amounts
	row     bitset
	rowID   int32
	vec     []int64
	value   float64
	cap     int64
	capCtr  int
	count   int64 // pods in the pass
	waiting int64 // pods that no chosen machine is assumed to take yet
}

// shapeKey is equal for classes of one shape.
type shapeKey struct {
	row, vec int32
	cap      int64
	capCtr   int
}

func newMarket(c *Cluster, cat *catalog) market {
	return market{c: c, cat: cat, shapeKey: map[shapeKey]*shape{}}
}

// restart makes all pods wait again.
func (mk *market) restart() {
	for _, s := range mk.shapes {
		s.waiting = s.count
	}
}

// value finds what a unit of each resource is worth and values classes and kinds
// by it. Values are the dual prices of a relaxed question: what does it cost at
// least to buy this much of everything? A machine never holds more value than its
// price, so value per dollar measures how well a machine is filled.
func (ps *pass) value() {
	mk, cat := &ps.market, ps.cat
	nd := len(ps.c.dims.names)
	// By name: numbers depend on the order in which resources were seen, but sums
	// and ties between prices must not.
	mk.dimOrder = make([]int, nd)
	for d := range mk.dimOrder {
		mk.dimOrder[d] = d
	}
	sort.Slice(mk.dimOrder, func(i, j int) bool {
		return ps.c.dims.names[mk.dimOrder[i]] < ps.c.dims.names[mk.dimOrder[j]]
	})
	demand := make([]float64, nd)
	rows := newBitset(len(cat.cols))
	for _, pc := range ps.classes {
		row := ps.reachableRow(pc)
		if row.empty() {
			continue
		}
		rows.or(row)
		for d, r := range pc.vec {
			demand[d] += float64(r) * float64(len(pc.pods))
		}
	}
	mk.prices = mk.resourcePrices(demand, rows)
	mk.pricedFor = rows
	for _, pc := range ps.classes {
		pc.value = mk.valueOf(pc.vec)
	}
	mk.kindBest = make([]float64, len(cat.kinds))
	for i := range cat.kinds {
		k := &cat.kinds[i]
		mk.kindBest[i] = mk.valueOf(k.alloc) / math.Max(k.price, 1e-9)
		mk.kindOrder = append(mk.kindOrder, int32(i))
	}
	sort.SliceStable(mk.kindOrder, func(a, b int) bool { return mk.kindBest[mk.kindOrder[a]] > mk.kindBest[mk.kindOrder[b]] })
	for _, pc := range ps.classes {
		if row := ps.reachableRow(pc); !row.empty() {
			mk.addShape(pc, row)
		}
	}
	mk.sortShapes()
}

// valueOf returns the value of an amount of every resource.
func (mk *market) valueOf(vec []int64) float64 {
	v := 0.0
	for _, d := range mk.dimOrder {
		if d >= len(vec) {
			continue
		}
		if r := vec[d]; d < len(mk.prices) && mk.prices[d] > 0 && r < unlimited/2 {
			v += mk.prices[d] * float64(r)
		}
	}
	return v
}

// resourcePrices solves min Σ price·x, Σ alloc·x ≥ demand over the kinds that
// have a column in rows, and returns the dual prices: w ≥ 0 with w·alloc ≤
// price for each of them.
func (mk *market) resourcePrices(demand []float64, rows bitset) []float64 {
	cat := mk.cat
	out := make([]float64, len(demand))
	var dims []int
	for _, d := range mk.dimOrder {
		if demand[d] > 0 {
			dims = append(dims, d)
		}
	}
	if len(dims) == 0 {
		return out
	}
	need := make([]float64, len(dims))
	for i, d := range dims {
		need[i] = demand[d]
	}
	prices := make([]float64, 0, len(cat.kinds))
	flat := make([]float64, 0, len(cat.kinds)*len(dims)) // contents of each kind
	for i := range cat.kinds {
		k := &cat.kinds[i]
		first := rows.next(k.lo, k.hi)
		if first == k.hi {
			continue
		}
		for _, d := range dims {
			flat = append(flat, math.Min(float64(max(0, k.alloc[d])), unlimited))
		}
		prices = append(prices, math.Max(cat.cols[first].price, 1e-9))
	}
	for i, w := range stock.Prices(need, flat, prices) {
		out[dims[i]] = w
	}
	return out
}

// addShape adds the pods of a class that can be on the columns in row.
func (mk *market) addShape(pc *passClass, row bitset) {
	v := pc.v
	ctr := -1
	if v.hostCap < noCap {
		ctr = v.capCtr
	}
	id := v.rowID
	if v.row.empty() {
		id = mk.cat.rowSet(row).id
	}
	key := shapeKey{id, pc.cl.vecID, v.hostCap, ctr}
	s := mk.shapeKey[key]
	if s == nil {
		s = &shape{row: row, rowID: id, vec: pc.vec, value: pc.value, cap: v.hostCap, capCtr: ctr}
		mk.shapeKey[key] = s
		mk.shapes = append(mk.shapes, s)
	}
	s.count += int64(len(pc.pods))
	s.waiting += int64(len(pc.pods))
	pc.shape = s
}

// sortShapes sorts the shapes by value and numbers their sizes.
func (mk *market) sortShapes() {
	sort.SliceStable(mk.shapes, func(i, j int) bool { return mk.shapes[i].value > mk.shapes[j].value })
	for i, s := range mk.shapes {
		if i > 0 && !slices.Equal(s.vec, mk.shapes[i-1].vec) {
			s.size = mk.shapes[i-1].size + 1
		} else if i > 0 {
			s.size = mk.shapes[i-1].size
		}
	}
}

// alikeKinds numbers the kinds so that those of one pool with nearly the same
// allocatable amounts (within 19% in each resource that has a price) have the
// same number.
func (mk *market) alikeKinds() []int32 {
	index := map[string]int32{}
	out := make([]int32, len(mk.cat.kinds))
	var key []byte
	for i := range mk.cat.kinds {
		k := &mk.cat.kinds[i]
		key = strconv.AppendInt(key[:0], int64(k.pool), 10)
		for d, a := range k.alloc {
			if d < len(mk.prices) && mk.prices[d] > 0 && a > 0 {
				key = append(key, ' ')
				key = strconv.AppendInt(key, int64(4*math.Log2(float64(a))), 10)
			}
		}
		n, ok := index[string(key)]
		if !ok {
			n = int32(len(index))
			index[string(key)] = n
		}
		out[i] = n
	}
	return out
}
