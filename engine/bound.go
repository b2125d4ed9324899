// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"slices"

	"github.com/nap-aks/nap/engine/stock"
)

// Bound returns a proven lower bound on the cost of machines for the pending pods
// of a snapshot, without placing them. No plan that places all of these pods, by
// whatever method, costs less. The bound assumes that pods fill all room on
// existing nodes, in any order, and that all preferences are relaxed. It ignores
// zones, limits and quotas, so it may be low, never high. It is about the rules as
// this package reads them (see the package comment: the least count of a spread
// over hostnames is 0).
//
// Pods that no available offering holds are left out: on a node they cost nothing.
// A plan that refuses some of the others may cost less. CostBound.Pods is the
// number of pods that the bound is about; its Gap is 0.
//
// Options.Work is the budget: WorkDefault spends up to about a second, WorkQuick
// looks at resources alone. Bound returns an error if the snapshot is
// inconsistent.
func Bound(s *Snapshot, o Options) (*CostBound, error) {
	c, err := Compile(s)
	if err != nil {
		return nil, err
	}
	return c.Bound(s.Pending, o)
}

// Bound returns a lower bound on the cost of machines for pending pods; see the
// function Bound. It leaves the Cluster as it was.
func (c *Cluster) Bound(pending []PodGroup, o Options) (*CostBound, error) {
	ps, err := c.newPass(pending, o)
	if err != nil {
		return nil, err
	}
	defer ps.end()
	type demandKey struct{ row, vec int32 }
	bases := map[demandKey]int{}
	var cells []*cell
	pods := 0
	for _, pc := range ps.classes {
		if pc.deferred() {
			continue
		}
		pc.prefs.relaxAll()
		ps.compile(pc)
		if pc.v.row.empty() {
			continue
		}
		key := demandKey{pc.v.rowID, pc.cl.vecID}
		base, ok := bases[key]
		if !ok {
			base = len(bases)
			bases[key] = base
		}
		cells = append(cells, &cell{v: pc.v, base: base, runs: []placed{{pc.v, 0, len(pc.pods)}}, n: len(pc.pods)})
		pods += len(pc.pods)
	}
	if pods == 0 {
		return &CostBound{Kind: "resource"}, nil
	}
	items, rules := ps.merge(cells, len(bases), -1)
	work := o.Work
	if work == WorkDefault {
		work = min(improveWork, max(improveBoundWork, 100*int64(pods)))
	}
	prob, _ := ps.problem(items, caps(rules), true)
	rooms := ps.rooms(items, rules)
	best := &CostBound{Kind: "resource", Pods: pods}
	full := make([]stock.Item, len(prob.Items))
	copy(full, prob.Items)
	// Values for the pods that are left when the nodes are full can prove more than
	// values for all pods, so there is a second round.
	for range 2 {
		sol := stock.Solve(prob, stock.Options{Work: work, Aim: stock.AimBound})
		total := 0.0
		for i := range sol.Values {
			if prob.Items[i].Count == 0 {
				sol.Values[i] = 0
			}
			total += sol.Values[i] * float64(full[i].Count)
		}
		most, taken := stock.MostValue(full, sol.Values, rooms)
		if b := (total - most) * (1 - 1e-9); b > best.USDPerHour {
			best.USDPerHour = b
			if best.Kind = "resource"; sol.PatternBound > sol.ResourceBound {
				best.Kind = "pattern"
			}
		}
		if most == 0 {
			best.Resource, best.Pattern = sol.ResourceBound, sol.PatternBound
			break
		}
		left := 0
		for i := range prob.Items {
			// All pods of an item or none: values for fewer pods would not hold on a
			// machine with more of them.
			if full[i].Count > int(taken[i]) {
				prob.Items[i].Count = full[i].Count
				left += full[i].Count
			} else {
				prob.Items[i].Count = 0
			}
		}
		if left == 0 {
			break
		}
	}
	if best.Resource == 0 && best.Pattern == 0 {
		if best.Kind == "pattern" {
			best.Pattern = best.USDPerHour
		} else {
			best.Resource = best.USDPerHour
		}
	}
	return best, nil
}

// Limits on how many groups of nodes are distinguished.
const (
	boundRooms = 40
	boundPairs = 600 // rooms × items
)

// rooms returns the existing nodes as room for items. Nodes that can hold the same
// items form one room with what is free on all of them: of an item at most as many
// pods fit as on each node alone, together. Of a rule that keeps pods apart it has
// the units that are left on each node.
func (ps *pass) rooms(items []*item, rules []*apartRule) []stock.Room {
	c := ps.c
	nd := len(c.dims.names)
	var groups []*stock.Room
	index := map[string]*stock.Room{}
	limit := max(1, min(boundRooms, boundPairs/max(1, len(items))))
	can := make([][]bitset, len(items)) // nodes, by variant
	for i, it := range items {
		for _, run := range it.runs {
			can[i] = append(can[i], run.v.nodeRow)
		}
	}
	most := make([]int64, len(items))
	sig := make([]byte, len(items))
	for _, slot := range c.order {
		// Resources may have become known since the node was read.
		nodeFree := c.dims.pad(slices.Clip(c.nodes[slot].free))
		any := false
		for i, it := range items {
			most[i], sig[i] = 0, '0'
			fit := fitCount(it.vec[:min(nd, len(it.vec))], nodeFree, int64(it.n))
			if fit == 0 {
				continue
			}
			// Each class by its own rules.
			for q, run := range it.runs {
				if can[i][q].has(slot) {
					most[i] += ps.roomBeside(run.v, slot, int64(run.n))
				}
			}
			if most[i] = min(most[i], fit); most[i] > 0 {
				sig[i], any = '1', true
			}
		}
		if !any {
			continue
		}
		g := index[string(sig)]
		if g == nil {
			if len(groups) < limit {
				g = &stock.Room{Capacity: make([]int64, nd+len(rules)), Most: make([]int, len(items))}
				groups = append(groups, g)
			} else {
				g = groups[limit-1]
			}
			index[string(sig)] = g
		}
		for d := range nd {
			if nodeFree[d] > 0 {
				g.Capacity[d] = min(g.Capacity[d]+min(nodeFree[d], unlimited), unlimited)
			}
		}
		for d, r := range rules {
			g.Capacity[nd+d] += r.leaves(ps, slot)
		}
		for i := range items {
			g.Most[i] += int(most[i])
		}
	}
	out := make([]stock.Room, len(groups))
	for k, g := range groups {
		out[k] = *g
	}
	return out
}

// roomBeside returns how many of n pods the rules within a node allow beside its
// pods. Affinity is ignored: the pods to follow may still come.
func (ps *pass) roomBeside(v *variant, slot int32, n int64) int64 {
	if len(v.pc.cl.pc.HostPorts) > 0 {
		if conflictAny(v.pc.cl.pc.HostPorts, ps.c.nodes[slot].ports) {
			return 0
		}
		n = min(n, 1)
	}
	for i := range v.host {
		if k := &v.host[i]; k.kind != checkAffinity {
			n = min(n, k.room(int64(k.ctr.nodes[slot]), 0, true))
		}
	}
	return n
}

// leaves returns how many pods of a rule a node can still take.
func (r *apartRule) leaves(ps *pass, slot int32) int64 {
	if r.key.ctr < 0 {
		if conflictAny([]HostPort{r.key.port}, ps.c.nodes[slot].ports) {
			return 0
		}
		return 1
	}
	return max(0, r.cap-int64(ps.domains.counters[r.key.ctr].nodes[slot]))
}

// boundGroups is how many groups of items the resource bound distinguishes.
const boundGroups = 12

// resourceBound values what the items take at prices at which no machine that they
// may be on holds more than it costs. Items that may use the same offerings form a
// group with its own prices: a pod that must be on-demand is worth more than one
// that may be on spot. A machine that several groups may use is valued at the
// highest of their prices in each dimension, and all prices are scaled down until
// no machine holds more than it costs, so the sum is a bound whatever the groups
// are.
func (ps *pass) resourceBound(items []*item) *CostBound {
	nd := len(ps.c.dims.names)
	type group struct {
		rows   bitset
		demand []float64
		w      []float64
	}
	var groups []*group
	index := map[baseKey]*group{}
	most, pods := boundGroups, 0
	for _, it := range items {
		pods += it.n
	}
	if pods < improveMinPods {
		most = 1 // the prices of the pass are good enough
	}
	for _, it := range items {
		cl := it.runs[0].v.pc.cl
		key := baseKey{cl.affID, cl.tolID, cl.volID, false}
		g := index[key]
		if g == nil {
			if len(groups) < most {
				g = &group{rows: newBitset(len(ps.cat.cols)), demand: make([]float64, nd)}
				groups = append(groups, g)
			} else {
				g = groups[most-1]
			}
			index[key] = g
		}
		g.rows.or(it.row)
		for d, r := range it.vec[:min(nd, len(it.vec))] {
			g.demand[d] += float64(r) * float64(it.n)
		}
	}
	for _, g := range groups {
		if len(groups) == 1 {
			outside := g.rows.clone()
			outside.andNot(ps.market.pricedFor)
			if outside.empty() {
				g.w = ps.market.prices
				break
			}
		}
		g.w = ps.market.resourcePrices(g.demand, g.rows)
	}
	worst := 1.0
	if len(groups) > 1 {
		for ki := range ps.cat.kinds {
			k := &ps.cat.kinds[ki]
			for col := k.lo; col < k.hi; col++ {
				held := 0.0
				for d := range nd {
					top := 0.0
					for _, g := range groups {
						if g.w[d] > top && g.rows.has(col) {
							top = g.w[d]
						}
					}
					if top > 0 && k.alloc[d] > 0 {
						held += top * math.Min(float64(k.alloc[d]), unlimited)
					}
				}
				worst = math.Max(worst, held/math.Max(ps.cat.cols[col].price, 1e-9))
			}
		}
	}
	sum, one := 0.0, 0.0
	for _, g := range groups {
		own := 0.0
		for d, w := range g.w {
			own += w * g.demand[d]
		}
		sum += own
		one = math.Max(one, own) // any group alone proves a bound, too
	}
	sum = math.Max(sum/worst, one) * (1 - 1e-9) // rounding
	return &CostBound{USDPerHour: sum, Resource: sum, Kind: "resource"}
}
