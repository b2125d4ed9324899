// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"
)

// catalog is the compiled form of pools and catalogues: columns, each an offering
// with all labels decided, grouped into kinds with the same amounts.
type catalog struct {
	pools []cpool
	kinds []kind
	cols  []column
	// vals[key][column] is the value of a label, for the keys in Cluster.inPlay.
	vals         map[int32][]int32
	openEnded    map[int32]bool // keys with a column per value that classes name
	multi        map[int32]bool // keys with several values for some offering
	sparse       map[int32]bool // of these, keys without a column for each combination
	all          bitset         // all columns
	avail        bitset         // available columns
	reqRows      map[string]bitset
	baseRows     map[baseKey]bitset // by labels, taints, volumes and availability
	fitRows      map[fitKey]bitset  // by room for one pod
	rowSets      map[rowKey]*rowSet // by all of that
	rowIDs       map[uint64][]*rowSet
	rowCount     int32
	offers       int32
	domains      map[domainKey][]domainMask
	resources    *dimTable
	padded       int   // resources that the kinds know
	hostKey      int32 // the hostname label
	tiers        []tier
	reservations map[string]int32 // index of each reservation
	priceOrder   [][]int32
	masks        map[int32][]valueMask
	resLeft      []int64
	// Regional columns, see withoutRegional.
	regional    bitset
	hasRegional bool
	zoneKey     int32
	zonalRows   map[zonalKey]*rowSet
}

// cpool is a NodePool with its range of columns and kinds.
type cpool struct {
	p              *NodePool
	lo, hi         int32
	kindLo, kindHi int32
	minValues      []minValue
	limits         []string // limited resources, sorted
	most           []int64  // what a machine can take of each limit at most
}

// minValue is a requirement with minValues.
type minValue struct {
	key int32
	min int
}

// tier is a range of pools of equal weight.
type tier struct {
	lo, hi         int32 // columns
	poolLo, poolHi int
}

// kind is the columns of one pool and instance type that have the same amounts.
type kind struct {
	pool     int32
	alloc    []int64 // after daemons
	capacity Resources
	takes    []int64 // of each limit of the pool
	daemon   []int64 // what the daemons take of the allocatable amounts
	daemons  []ClassID
	ports    []HostPort
	shared   []SharedVolume
	lo, hi   int32 // columns, cheapest first
	price    float64
}

// column is an offering of a pool with all labels decided.
type column struct {
	kind    int32
	pool    int32
	typ     *InstanceType
	off     *Offering
	price   float64
	reserve int32 // index of the reservation, or -1
	offer   int32 // number of the offering, which several columns can share
}

// catalog returns the compiled catalogue, compiling it if something it depends on
// has changed.
func (c *Cluster) catalog() *catalog {
	if c.cat != nil {
		c.cat.pad()
		return c.cat
	}
	cat := &catalog{
		resources: &c.dims, hostKey: c.hostKey, reservations: map[string]int32{},
		vals: map[int32][]int32{}, openEnded: map[int32]bool{}, multi: map[int32]bool{}, sparse: map[int32]bool{}, reqRows: map[string]bitset{}, baseRows: map[baseKey]bitset{},
		fitRows: map[fitKey]bitset{}, rowSets: map[rowKey]*rowSet{}, rowIDs: map[uint64][]*rowSet{}, domains: map[domainKey][]domainMask{},
	}
	for i := range c.pools {
		for _, r := range c.pools[i].Requirements {
			if r.MinValues > 0 {
				c.inPlay[c.sym.key(r.Key)] = true
			}
		}
	}
	keys := slices.Sorted(maps.Keys(c.inPlay))
	for _, k := range keys {
		cat.vals[k] = nil
	}
	types := typeInfos{c: c, relevant: c.relevantLabels(keys), byCatalogue: map[int][]*typeInfo{}}
	for _, pi := range c.poolOrder() {
		if c.pools[pi].Blocked == "" {
			cat.addPool(c, pi, keys, &types)
		}
	}
	cat.all = newBitset(len(cat.cols))
	cat.all.setRange(0, int32(len(cat.cols)))
	cat.avail = newBitset(len(cat.cols))
	for i := range cat.cols {
		if cat.cols[i].off.Available {
			cat.avail.set(int32(i))
		}
	}
	cat.markRegional(c)
	cat.pad()
	c.cat = cat
	return cat
}

// pad extends the amounts of the kinds by the resources that have become known.
func (cat *catalog) pad() {
	if cat.padded == len(cat.resources.names) {
		return
	}
	cat.padded = len(cat.resources.names)
	for i := range cat.kinds {
		k := &cat.kinds[i]
		k.alloc = cat.resources.pad(k.alloc)
	}
}

// poolOrder returns the pools by weight, the highest first, then by name.
func (c *Cluster) poolOrder() []int {
	order := make([]int, len(c.pools))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool {
		a, b := &c.pools[order[i]], &c.pools[order[j]]
		if a.Weight != b.Weight {
			return a.Weight > b.Weight
		}
		return a.Name < b.Name
	})
	return order
}

// relevantLabels returns the labels that a decision can depend on. Most labels of
// an instance type are not among them.
func (c *Cluster) relevantLabels(keys []int32) map[string]bool {
	relevant := make(map[string]bool, 2*len(keys))
	for _, k := range keys {
		relevant[c.sym.tab[k].name] = true
	}
	for i := range c.pools {
		for k := range c.pools[i].Labels {
			relevant[k] = true
		}
		for _, r := range c.pools[i].Requirements {
			relevant[r.Key] = true
		}
	}
	return relevant
}

// manyColumns is how many columns of an instance type are so many that room for
// as many of each other type is made at once.
const manyColumns = 256

// grow makes room for n more columns.
func (cat *catalog) grow(keys []int32, n int) {
	cat.cols = slices.Grow(cat.cols, n)
	for _, key := range keys {
		cat.vals[key] = slices.Grow(cat.vals[key], n)
	}
}

// addPool appends the kinds and columns of a pool.
func (cat *catalog) addPool(c *Cluster, pi int, keys []int32, infos *typeInfos) {
	p := &c.pools[pi]
	reqs, _ := c.sym.compileReqs(p.Requirements) // checked by SetCatalogue
	cp := cpool{p: p, lo: int32(len(cat.cols)), kindLo: int32(len(cat.kinds)), limits: slices.Sorted(maps.Keys(p.Limits))}
	for i, r := range p.Requirements {
		if r.MinValues > 0 {
			cp.minValues = append(cp.minValues, minValue{reqs[i].key, r.MinValues})
		}
	}
	b := newPoolBuilder(c, cat, p, reqs, keys)
	types := c.catalogues[p.Catalogue].InstanceTypes
	for ti := range types {
		it := &types[ti]
		tmp := b.columns(it, infos.of(p.Catalogue)[ti])
		if len(tmp) == 0 {
			continue
		}
		if len(tmp) > manyColumns && len(cat.cols)+len(tmp) > cap(cat.cols) {
			cat.grow(keys, len(tmp)*(len(types)-ti))
		}
		c.addKinds(cat, int32(len(cat.pools)), it, tmp, keys)
	}
	cp.hi, cp.kindHi = int32(len(cat.cols)), int32(len(cat.kinds))
	cp.most = make([]int64, len(cp.limits))
	for ki := cp.kindLo; ki < cp.kindHi; ki++ {
		k := &cat.kinds[ki]
		k.takes = make([]int64, len(cp.limits))
		for i, name := range cp.limits {
			k.takes[i] = k.capacity[name]
			if name == ResourceNodes {
				k.takes[i] = 1
			}
			cp.most[i] = max(cp.most[i], k.takes[i])
		}
	}
	if n := len(cat.tiers); n > 0 && cat.pools[cat.tiers[n-1].poolLo].p.Weight == p.Weight {
		cat.tiers[n-1].hi = cp.hi
		cat.tiers[n-1].poolHi = len(cat.pools) + 1
	} else {
		cat.tiers = append(cat.tiers, tier{cp.lo, cp.hi, len(cat.pools), len(cat.pools) + 1})
	}
	cat.pools = append(cat.pools, cp)
}

// addKinds appends the columns of one instance type, grouped into kinds.
func (c *Cluster) addKinds(cat *catalog, pool int32, it *InstanceType, tmp []tmpColumn, keys []int32) {
	slices.SortStableFunc(tmp, func(a, b tmpColumn) int {
		if oa, ob := overrides(a.off), overrides(b.off); oa != ob {
			if ob {
				return -1
			}
			return 1
		}
		if a.daemons != b.daemons {
			return strings.Compare(a.daemons, b.daemons)
		}
		if c := cmp.Compare(a.off.PriceUSDPerHour, b.off.PriceUSDPerHour); c != 0 {
			return c
		}
		if ra, rb := isRegional(a.off), isRegional(b.off); ra != rb {
			if rb {
				return -1
			}
			return 1
		}
		return 0
	})
	for i := range tmp {
		t := &tmp[i]
		newKind := i == 0 || t.daemons != tmp[i-1].daemons || overrides(t.off) || overrides(tmp[i-1].off)
		if newKind {
			k := kind{pool: pool, lo: int32(len(cat.cols)), price: t.off.PriceUSDPerHour}
			alloc := it.Allocatable
			if t.off.Allocatable != nil {
				alloc = t.off.Allocatable
			}
			k.capacity = it.Capacity
			if t.off.Capacity != nil {
				k.capacity = t.off.Capacity
			}
			k.alloc = c.dims.capacityVec(alloc, it.VolumeLimits)
			k.daemon = make([]int64, len(c.dims.names))
			k.daemons = t.dset
			seen := map[SharedVolume]bool{}
			for _, d := range t.dset {
				dc := c.classes[d]
				for dim, r := range dc.vec {
					k.daemon[dim] += r
				}
				k.ports = append(k.ports, dc.pc.HostPorts...)
				for _, v := range dc.pc.SharedVolumes {
					if !seen[v] {
						seen[v] = true
						k.daemon[c.dims.id(attachPrefix+v.Driver)]++
						k.shared = append(k.shared, v)
					}
				}
			}
			k.alloc = c.dims.pad(k.alloc)
			sub(k.alloc, k.daemon)
			cat.kinds = append(cat.kinds, k)
		}
		ki := int32(len(cat.kinds) - 1)
		if i == 0 || t.off != tmp[i-1].off {
			cat.offers++
		}
		col := column{kind: ki, pool: pool, typ: it, off: t.off, price: t.off.PriceUSDPerHour, reserve: -1, offer: cat.offers}
		if id := t.off.ReservationID; id != "" {
			ri, ok := cat.reservations[id]
			if !ok {
				ri = int32(len(cat.resLeft))
				cat.reservations[id] = ri
				cat.resLeft = append(cat.resLeft, int64(t.off.ReservationRemaining))
			}
			col.reserve = ri
		}
		cat.cols = append(cat.cols, col)
		for j, key := range keys {
			cat.vals[key] = append(cat.vals[key], t.vals[j])
		}
		cat.kinds[ki].hi = int32(len(cat.cols))
	}
}

// overrides reports whether an offering overrides the amounts of its type.
func overrides(o *Offering) bool { return o.Allocatable != nil || o.Capacity != nil }
