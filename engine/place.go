// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Place decides where the pending pods of a snapshot go and which machines to
// create for them. It returns an error if the snapshot is inconsistent; a pod
// without a place is not an error but a verdict.
func Place(s *Snapshot, o Options) (*Plan, error) {
	c, err := Compile(s)
	if err != nil {
		return nil, err
	}
	return c.Place(s.Pending, o)
}

// Place decides where pending pods go. It leaves the Cluster as it was.
func (c *Cluster) Place(pending []PodGroup, o Options) (*Plan, error) {
	ps, err := c.newPass(pending, o)
	if err != nil {
		return nil, err
	}
	defer ps.end()
	ps.decide()
	if ps.ledger.overdrawn(ps.machines) {
		ps.ledger.enforceQuotas = true
		ps.strategy, ps.domains.opened, ps.byPriority, ps.bound = &strategy{}, nil, false, nil
		ps.restart()
		ps.decide()
	}
	return ps.plan(), nil
}

// decide places the pods and chooses machines for them.
func (ps *pass) decide() {
	// 1. Place class by class: on nodes, planned machines and new machines.
	ps.solve()
	// 2. If limits or quotas refused pods, start over by priority.
	if ps.refusedPriorities() {
		ps.restart()
		ps.byPriority = true
		ps.solve()
	}
	ps.pricePreferences()
	// 3. If pods are left that might have a place, try other strategies.
	if ps.left() > 0 || ps.unsound {
		ps.retry()
	}
	// 4. Choose the machines again, together, for less.
	ps.quickCost = ps.cost()
	ps.improve()
	// 5. Place more pods within what cheaper machines leave of the limits.
	if ps.ledger.refused && ps.left() > 0 {
		ps.useFreedLimits()
	}
}

// solve runs the quick path: it places all classes, moves machines to their
// cheapest sufficient offerings, and starts over when machines opened a domain
// that breaks a spread constraint.
func (ps *pass) solve() {
	ps.unsound = false
	for i := 0; ; i++ {
		ps.run()
		ps.rightSize()
		for j := 0; j < 8 && ps.ledger.refused && ps.left() > 0; j++ {
			// Smaller machines leave more of the limits.
			before := ps.left()
			ps.run()
			if ps.left() == before {
				break
			}
			ps.rightSize()
		}
		if !ps.domains.findOpened(ps.classes, ps.machines) {
			break
		}
		if i == 4 {
			ps.unsound = true
			break
		}
		ps.restart()
	}
	if ps.left() > 0 && ps.domains.forgetUnused(ps.machines) {
		for _, pc := range ps.classes {
			if pc.left() > 0 {
				ps.compile(pc)
			}
		}
		ps.run()
		ps.rightSize()
		ps.unsound = ps.domains.findOpened(ps.classes, ps.machines)
	}
	ps.dissolve()
}

// useFreedLimits places more pods after the improving path, and returns to the
// plan before if that breaks a spread constraint.
func (ps *pass) useFreedLimits() {
	if ps.fillLimits() {
		return
	}
	// Without the domains that it opened.
	usual, careful := ps.strategy, *ps.strategy
	careful.avoid = maps.Clone(usual.avoid)
	if careful.avoid == nil {
		careful.avoid = map[counterKey]map[int32]bool{}
	}
	maps.Copy(careful.avoid, ps.domains.opened)
	again := func() {
		ps.begin(usual)
		ps.quickCost = ps.cost()
		ps.improve()
	}
	again()
	if ps.left() == 0 {
		return
	}
	ps.strategy = &careful
	for _, pc := range ps.classes {
		if pc.left() > 0 {
			ps.compile(pc)
		}
	}
	if !ps.fillLimits() {
		again()
	}
}

// fillLimits places pods that are left as long as there is room within the limits. It
// reports whether no spread constraint is broken.
func (ps *pass) fillLimits() bool {
	before := ps.cost()
	for range 8 {
		was := ps.left()
		ps.rightSize()
		ps.run()
		if ps.left() == was {
			break
		}
	}
	ps.rightSize()
	ps.quickCost += max(0, ps.cost()-before)
	return !ps.domains.findOpened(ps.classes, ps.machines)
}

// pass is the state of one call of Place.
type pass struct {
	c   *Cluster
	cat *catalog
	opt Options

	classes  []*passClass
	machines []*plannedMachine
	ledger   ledger
	domains  domains
	existing existing
	cursors  cursors
	market   market

	byPriority bool
	strategy   *strategy
	unsound    bool // machines opened a domain that breaks a spread constraint
	softTaints bool // PreferNoSchedule taints exist

	quickCost float64
	bound     *CostBound
	work      int64
	scratch   [2][]int64
	ranking   ranking
}

func (c *Cluster) newPass(pending []PodGroup, o Options) (*pass, error) {
	cat := c.catalog()
	ps := &pass{c: c, cat: cat, opt: o, strategy: &strategy{},
		ledger: newLedger(cat, c.quotas), domains: newDomains(c, cat), existing: newExisting(c),
		cursors: cursors{index: map[placeKey]int{}}, market: newMarket(c, cat)}
	var slab []passClass
	for i := range pending {
		g := &pending[i]
		if err := c.checkClass(g.Class); err != nil {
			ps.end()
			return nil, fmt.Errorf("pending group %d: %w", i, err)
		}
		if len(g.Pods) == 0 {
			continue
		}
		cl := c.classes[g.Class]
		if pc := cl.pending; pc != nil {
			pc.pods = append(slices.Clip(pc.pods), g.Pods...)
			continue
		}
		if len(slab) == 0 {
			slab = make([]passClass, min(len(pending)-i, 64))
		}
		pc := &slab[0]
		slab = slab[1:]
		pc.cl, pc.vec, pc.pods = cl, cl.vec, g.Pods
		pc.contrib, pc.pinKeys = pc.contribBuf[:0], pc.pinKeyBuf[:0]
		cl.pending = pc
		ps.classes = append(ps.classes, pc)
	}
	ps.softTaints = c.hasSoftTaints(cat)
	ps.domains.setup(ps.classes, o.Preferences != PreferencesIgnore)
	for _, pc := range ps.classes {
		pc.prefs = newPreferences(pc.cl, o.Preferences, ps.softTaints)
		ps.compile(pc)
	}
	ps.value()
	return ps, nil
}

// hasSoftTaints reports whether some pool or node has a PreferNoSchedule taint.
func (c *Cluster) hasSoftTaints(cat *catalog) bool {
	soft := func(t Taint) bool { return t.Effect == PreferNoSchedule }
	for i := range cat.pools {
		if slices.ContainsFunc(cat.pools[i].p.Taints, soft) {
			return true
		}
	}
	for _, nd := range c.nodes {
		if nd != nil && slices.ContainsFunc(nd.taints, soft) {
			return true
		}
	}
	return false
}

// run places what is left of all classes.
func (ps *pass) run() {
	ps.cursors.clear()
	order := ps.sortClasses()
	single := ps.strategy.single
	for {
		progress := false
		again := false
		for _, pc := range order {
			if pc.left() == 0 || pc.deferred() {
				continue
			}
			before := pc.used
			all := pc.pods
			if single {
				pc.pods = all[:pc.used+1]
			}
			ps.placeClass(pc)
			pc.pods = all
			if pc.used > before {
				progress = true
			}
			if pc.left() > 0 && (single || len(pc.v.affs) > 0 || len(pc.v.domain) > 0) {
				again = true // another class may satisfy its affinity or even out its spread
			}
		}
		if !progress || !again {
			return
		}
	}
}

// sortClasses returns the classes in the order of placing. Classes for which no
// machine can be created go first: they need the nodes. Then those that need most
// machines whatever their size, because a rule keeps their pods apart: others
// fill these machines up. Then the most valuable. The strategy and priorities
// come before all of that.
func (ps *pass) sortClasses() []*passClass {
	order := slices.Clone(ps.classes)
	s := ps.strategy
	for i, pc := range order {
		pc.order = i
		pc.nodesOnly = pc.v.row.empty() && ps.relaxedRow(pc).empty()
	}
	need := make([]int64, len(ps.domains.counters)+1) // machines by counter, the last for none
	at := func(pc *passClass) *int64 { return &need[(pc.v.capCtr+len(need))%len(need)] }
	for _, pc := range order {
		if pc.v.hostCap < noCap && pc.v.hostCap > 0 {
			*at(pc) += (int64(len(pc.pods)) + pc.v.hostCap - 1) / pc.v.hostCap
		}
	}
	for _, pc := range order {
		pc.apart = 0
		if pc.v.hostCap < noCap {
			pc.apart = *at(pc)
		}
	}
	slices.SortFunc(order, func(a, b *passClass) int {
		if pa, pb := a.cl.pc.Priority, b.cl.pc.Priority; ps.byPriority && pa != pb {
			return cmp.Compare(pb, pa)
		}
		if ra, rb := s.rank[a], s.rank[b]; ra != rb {
			return cmp.Compare(rb, ra)
		}
		if s.bySize != 0 {
			if c := slices.Compare(a.vec[:dimPods], b.vec[:dimPods]); c != 0 { // further dimensions have no fixed order
				return -c * s.bySize
			}
			return cmp.Compare(a.order, b.order)
		}
		if a.nodesOnly != b.nodesOnly {
			if a.nodesOnly {
				return -1
			}
			return 1
		}
		if a.apart != b.apart {
			return cmp.Compare(b.apart, a.apart)
		}
		if a.value != b.value {
			return cmp.Compare(b.value, a.value)
		}
		if c := slices.Compare(b.vec, a.vec); c != 0 { // the larger of those that no machine prices
			return c
		}
		return cmp.Compare(a.order, b.order)
	})
	return order
}

// left returns the number of pods without a place.
func (ps *pass) left() int {
	n := 0
	for _, pc := range ps.classes {
		n += pc.left()
	}
	return n
}

// refusedPriorities reports whether limits refused pods while priorities differ
// and have not been taken into account.
func (ps *pass) refusedPriorities() bool {
	if !ps.ledger.refused || ps.byPriority {
		return false
	}
	lo, hi := int32(math.MaxInt32), int32(math.MinInt32)
	refused := false
	for _, pc := range ps.classes {
		lo, hi = min(lo, pc.cl.pc.Priority), max(hi, pc.cl.pc.Priority)
		refused = refused || (pc.left() > 0 && !pc.v.row.empty())
	}
	return refused && lo < hi
}

// restart removes all pods and machines from the pass.
func (ps *pass) restart() {
	ps.existing.undo()
	ps.machines = nil
	ps.ledger.reset()
	for _, pc := range ps.classes {
		pc.used = 0
		pc.contrib = nil
		pc.pinKeys = nil
	}
	ps.domains.reset()
	ps.domains.setup(ps.classes, ps.opt.Preferences != PreferencesIgnore)
	for _, pc := range ps.classes {
		pc.prefs.restore()
		if ps.strategy.relaxed[pc] {
			pc.prefs.relaxAll()
		} else if n := ps.strategy.level[pc]; n > 0 {
			pc.prefs.level = n
		}
		ps.compile(pc)
	}
	ps.market.restart()
}

// end leaves the cluster as it was before the pass.
func (ps *pass) end() {
	ps.existing.undo()
	for _, pc := range ps.classes {
		pc.cl.pending = nil
	}
}

// cost returns the price of all machines.
func (ps *pass) cost() float64 {
	z := 0.0
	for _, m := range ps.machines {
		z += m.price()
	}
	return z
}
