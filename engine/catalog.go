package engine

import (
	"cmp"
	"maps"
	"slices"
	"sort"
	"strings"
)

// catalog is the compiled form of pools and catalogues: columns, each one way
// to get a machine with every label decided, grouped into kinds that have the
// same room.
type catalog struct {
	pools []cpool
	kinds []kind
	cols  []column
	// vals[key][column] is the value of a label, for keys in play.
	vals       map[int32][]int32
	openEnded  map[int32]bool // keys for which named values make columns
	multi      map[int32]bool // keys that came with several values somewhere
	all        bitset         // columns of pools that are not blocked
	avail      bitset         // available columns
	reqRows    map[string]bitset
	baseRows   map[baseKey]bitset // labels, taints, volumes, availability
	fitRows    map[fitKey]bitset  // room for one pod
	rowSets    map[rowKey]*rowSet // all of it together
	rowIDs     map[uint64][]*rowSet
	rowCount   int32
	offers     int32
	domains    map[domainKey][]domainMask
	resources  *dimTable
	padded     int   // resources that the kinds know
	hostKey    int32 // the hostname label
	tiers      []tier
	resNames   []string // reservations, by index
	priceOrder [][]int32
	masks      map[int32][]valueMask
	resLeft    []int64
}

// cpool is a NodePool with its range of columns and kinds.
type cpool struct {
	p              *NodePool
	index          int // in Cluster.pools
	lo, hi         int32
	kindLo, kindHi int32
	reqs           []creq
	minValues      []minValue
	limits         []string // names of what is limited, sorted
	most           []int64  // of each limit, what a machine can take
}

type minValue struct {
	key int32
	min int
}

// tier is a range of pools of equal weight.
type tier struct {
	lo, hi         int32 // columns
	poolLo, poolHi int
}

// kind is machines of one pool and instance type with the same room for pods.
type kind struct {
	pool     int32
	typ      *InstanceType
	alloc    []int64 // after daemons
	capacity Resources
	takes    []int64 // of each limit of its pool, by name
	daemon   []int64 // what the daemons take
	ports    []HostPort
	shared   []SharedVolume
	lo, hi   int32 // columns, cheapest first
	price    float64
}

type column struct {
	kind    int32
	pool    int32
	typ     *InstanceType
	off     *Offering
	price   float64
	reserve int32 // index of the reservation, or -1
	offer   int32 // number of the offering: several columns may differ in other labels
}

func (c *Cluster) catalog() *catalog {
	if c.cat != nil {
		if c.cat.padded != len(c.dims.names) {
			for i := range c.cat.kinds {
				c.cat.kinds[i].alloc = c.dims.pad(c.cat.kinds[i].alloc)
			}
			c.cat.padded = len(c.dims.names)
		}
		return c.cat
	}
	cat := &catalog{resources: &c.dims, hostKey: c.hostKey, vals: map[int32][]int32{}, openEnded: map[int32]bool{}, multi: map[int32]bool{}, reqRows: map[string]bitset{}, baseRows: map[baseKey]bitset{},
		fitRows: map[fitKey]bitset{}, rowSets: map[rowKey]*rowSet{}, rowIDs: map[uint64][]*rowSet{}, domains: map[domainKey][]domainMask{}}
	for i := range c.pools {
		for _, r := range c.pools[i].Requirements {
			if r.MinValues > 0 {
				c.inPlay[c.sym.key(r.Key)] = true
			}
		}
	}
	keys := make([]int32, 0, len(c.inPlay))
	for k := range c.inPlay {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		cat.vals[k] = nil
	}
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
	resIndex := map[string]int32{}
	// The labels that decide anything: most that a type has do not.
	matters := make(map[string]bool, 2*len(keys))
	for _, k := range keys {
		matters[c.sym.tab[k].name] = true
	}
	for i := range c.pools {
		for k := range c.pools[i].Labels {
			matters[k] = true
		}
		for _, r := range c.pools[i].Requirements {
			matters[r.Key] = true
		}
	}
	infos := map[int][]*typeInfo{}
	info := func(catalogue int) []*typeInfo {
		if _, ok := infos[catalogue]; !ok {
			types := c.catalogues[catalogue].InstanceTypes
			list := make([]*typeInfo, len(types))
			for i := range types {
				list[i] = c.intern(&types[i], matters)
			}
			infos[catalogue] = list
		}
		return infos[catalogue]
	}
	for _, pi := range order {
		p := &c.pools[pi]
		if p.Blocked != "" {
			continue
		}
		reqs, _ := c.sym.compileReqs(p.Requirements) // checked by SetCatalogue
		cp := cpool{p: p, index: pi, lo: int32(len(cat.cols)), kindLo: int32(len(cat.kinds)), reqs: reqs, limits: slices.Sorted(maps.Keys(p.Limits))}
		for i, r := range p.Requirements {
			if r.MinValues > 0 {
				cp.minValues = append(cp.minValues, minValue{reqs[i].key, r.MinValues})
			}
		}
		b := newPoolBuilder(c, cat, p, reqs, keys)
		types := c.catalogues[p.Catalogue].InstanceTypes
		for ti := range types {
			it := &types[ti]
			tmp := b.columns(it, info(p.Catalogue)[ti])
			if len(tmp) == 0 {
				continue
			}
			c.addKinds(cat, int32(len(cat.pools)), it, tmp, keys, resIndex)
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
	cat.all = newBitset(len(cat.cols))
	cat.all.setRange(0, int32(len(cat.cols)))
	cat.avail = newBitset(len(cat.cols))
	for i := range cat.cols {
		if cat.cols[i].off.Available {
			cat.avail.set(int32(i))
		}
	}
	cat.padded = len(c.dims.names)
	for i := range cat.kinds {
		k := &cat.kinds[i]
		k.alloc = c.dims.pad(k.alloc)
		k.daemon = c.dims.pad(k.daemon)
	}
	c.cat = cat
	return cat
}

// addKinds appends the columns of one instance type, grouped into kinds.
func (c *Cluster) addKinds(cat *catalog, pool int32, it *InstanceType, tmp []tmpColumn, keys []int32, resIndex map[string]int32) {
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
		return cmp.Compare(a.off.PriceUSDPerHour, b.off.PriceUSDPerHour)
	})
	for i := range tmp {
		t := &tmp[i]
		newKind := i == 0 || t.daemons != tmp[i-1].daemons || overrides(t.off) || overrides(tmp[i-1].off)
		if newKind {
			k := kind{pool: pool, typ: it, lo: int32(len(cat.cols)), price: t.off.PriceUSDPerHour}
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
			ri, ok := resIndex[id]
			if !ok {
				ri = int32(len(cat.resLeft))
				resIndex[id] = ri
				cat.resLeft = append(cat.resLeft, int64(t.off.ReservationRemaining))
				cat.resNames = append(cat.resNames, id)
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

func overrides(o *Offering) bool { return o.Allocatable != nil || o.Capacity != nil }
