// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math"
	"slices"
	"sort"
)

// domains counts pods per topology domain for the rules of a pass.
//
// Invariant: every counter counts the pods on the nodes of the cluster and those
// that the pass has added to nodes and planned machines. The universes are those
// of an empty pass (no machines, no opened domains).
type domains struct {
	c        *Cluster
	cat      *catalog
	counters []*counter
	index    map[counterKey]*counter
	// opened are domains that machines of an earlier run brought into being and
	// that a spread constraint did not count (see findOpened).
	opened    map[counterKey]map[int32]bool
	universes map[universeKey][]int32
	// regionalNodes tells whether a node is regional; nil: not looked for yet.
	regionalNodes *bool
}

// universeKey identifies the universe of a spread constraint in an empty pass.
type universeKey struct {
	ctr int
	row int32
}

// counter counts pods per domain of a topology key: those that a matcher
// selects or, when inverse, those that own an anti-affinity term.
type counter struct {
	ck      counterKey
	id      int
	key     int32
	host    bool
	m       *matcher
	inverse bool
	// filter restricts counting to the nodes that this class's affinity (and
	// tolerations) admit. nil: all nodes.
	filter  *class
	nodeRow bitset
	colRow  bitset
	dom     []int32         // by value
	nodes   map[int32]int32 // by slot, for hostname
	total   int64
}

// counterKey is equal for counters that count the same.
type counterKey struct {
	key      int32
	m        int
	inverse  bool
	aff, tol int32 // signatures of the filter
	taints   bool
}

func newDomains(c *Cluster, cat *catalog) domains {
	return domains{c: c, cat: cat, index: map[counterKey]*counter{}, universes: map[universeKey][]int32{}}
}

// reset drops the counters. Opened domains are kept.
func (d *domains) reset() {
	d.counters = nil
	d.index = map[counterKey]*counter{}
	clear(d.universes)
}

// setup makes the counters that the rules of the classes and of the pods on
// nodes need (soft: also those of preferences), and records per class which
// counters count it and which labels they look at.
func (d *domains) setup(classes []*passClass, soft bool) {
	c := d.c
	for _, pc := range classes {
		cl := pc.cl
		for i := range cl.pc.Spread {
			if !cl.pc.Spread[i].Soft || soft {
				d.spread(cl, i)
			}
		}
		d.requiredAffinity(cl, nil)
		for i := range cl.pc.PodAffinity {
			if cl.pc.PodAffinity[i].Weight > 0 && soft {
				d.affinity(cl, i)
			}
		}
		for i := range cl.pc.PodAntiAffinity {
			if t := &cl.pc.PodAntiAffinity[i]; t.Weight == 0 || soft {
				d.antiAffinity(cl, i)
			}
		}
	}
	for _, id := range c.antiClasses {
		owner := c.classes[id]
		if owner.total == 0 && owner.pending == nil && len(owner.coming) == 0 {
			continue
		}
		for i, m := range owner.anti {
			m.update(c)
			for _, other := range m.matched {
				if c.classes[other].pending != nil {
					d.counter(owner.antiKeys[i], m, true, nil, false, false)
					break
				}
			}
		}
	}
	for _, ctr := range d.counters {
		if ctr.inverse {
			for _, pc := range classes {
				if pc.cl.ownsAnti(ctr.key, ctr.m) {
					pc.countedBy(ctr, c.hostKey)
				}
			}
			continue
		}
		for _, id := range ctr.m.matched {
			if pc := c.classes[id].pending; pc != nil {
				pc.countedBy(ctr, c.hostKey)
			}
		}
	}
}

// countedBy records a counter that counts the pods of the class.
func (pc *passClass) countedBy(ctr *counter, hostKey int32) {
	pc.contrib = append(pc.contrib, ctr)
	if !ctr.host && !slices.Contains(pc.pinKeys, ctr.key) {
		pc.pinKeys = append(pc.pinKeys, ctr.key)
	}
	if ctr.filter != nil && ctr.filter != pc.cl && ctr.filter.affID != pc.cl.affID {
		// These labels decide whether the pod is counted.
		for _, k := range ctr.filter.affKeys() {
			if k != hostKey && !slices.Contains(pc.pinKeys, k) {
				pc.pinKeys = append(pc.pinKeys, k)
			}
		}
	}
}

// spread returns the counter of a spread constraint.
func (d *domains) spread(cl *class, i int) *counter {
	s := &cl.pc.Spread[i]
	return d.counter(d.c.sym.key(s.Key), d.c.spreadMatcher(cl, i), false, cl, s.NodeAffinityPolicy != Ignore, s.NodeTaintsPolicy == Honor)
}

// affinity returns the counter of a preferred pod affinity term.
func (d *domains) affinity(cl *class, i int) *counter {
	m := d.c.termMatcher(cl, cl.pc.PodAffinity, &cl.affM, i)
	return d.counter(d.c.sym.key(cl.pc.PodAffinity[i].Key), m, false, nil, false, false)
}

// antiAffinity returns the counter of a pod anti-affinity term.
func (d *domains) antiAffinity(cl *class, i int) *counter {
	m := d.c.termMatcher(cl, cl.pc.PodAntiAffinity, &cl.antiM, i)
	return d.counter(d.c.sym.key(cl.pc.PodAntiAffinity[i].Key), m, false, nil, false, false)
}

// requiredAffinity calls each with the counters of the required pod affinity
// terms. A pod counts for them only if it satisfies the selectors of all terms,
// as in the kube-scheduler.
func (d *domains) requiredAffinity(cl *class, each func(*counter)) {
	if cl.followM == nil {
		var sels []nsSelector
		for i := range cl.pc.PodAffinity {
			if t := &cl.pc.PodAffinity[i]; t.Weight == 0 {
				sels = append(sels, d.c.termSelector(t, cl.pc.Namespace))
			}
		}
		if len(sels) == 0 {
			return
		}
		cl.followM = d.c.matcher(sels)
	}
	for i := range cl.pc.PodAffinity {
		if t := &cl.pc.PodAffinity[i]; t.Weight == 0 {
			ctr := d.counter(d.c.sym.key(t.Key), cl.followM, false, nil, false, false)
			if each != nil {
				each(ctr)
			}
		}
	}
}

// counter finds or makes a counter and counts the pods that are there already.
func (d *domains) counter(key int32, m *matcher, inverse bool, filter *class, honorAff, honorTaints bool) *counter {
	c := d.c
	k := counterKey{key: key, m: m.id, inverse: inverse}
	if filter != nil && honorAff {
		k.aff = filter.affID
	}
	if filter != nil && honorTaints {
		k.taints, k.tol = true, filter.tolID
	}
	if k.aff == 0 && !k.taints {
		filter = nil
	}
	if ctr, ok := d.index[k]; ok {
		return ctr
	}
	ctr := &counter{ck: k, id: len(d.counters), key: key, host: key == c.hostKey, m: m, inverse: inverse, filter: filter}
	d.index[k] = ctr
	d.counters = append(d.counters, ctr)
	if filter != nil {
		d.restrict(ctr, honorAff, honorTaints)
	}
	if ctr.host {
		ctr.nodes = map[int32]int32{}
	}
	m.update(c)
	count := func(cl *class) {
		for slot, n := range cl.on {
			if nd := c.nodes[slot]; nd != nil && !nd.n.Gone {
				ctr.addNode(c, slot, n)
			}
		}
		if m.terms[0].spread {
			return // a daemon pod that is still to come evens out no spread
		}
		for slot := range cl.coming {
			if nd := c.nodes[slot]; nd != nil && !nd.n.Gone {
				ctr.addNode(c, slot, 1)
			}
		}
	}
	if inverse {
		for _, id := range c.antiClasses {
			if cl := c.classes[id]; (cl.total > 0 || len(cl.coming) > 0) && cl.ownsAnti(key, m) {
				count(cl)
			}
		}
	} else {
		for _, id := range m.matched {
			if cl := c.classes[id]; cl.total > 0 || len(cl.coming) > 0 {
				count(cl)
			}
		}
	}
	return ctr
}

// restrict finds the nodes and columns that the filter of a counter admits.
func (d *domains) restrict(ctr *counter, honorAff, honorTaints bool) {
	c, filter := d.c, ctr.filter
	ctr.nodeRow = newBitset(len(c.nodes))
	for s, nd := range c.nodes {
		if nd == nil || nd.n.Gone {
			continue
		}
		if honorAff && c.labelsFit(filter, nd) != nil {
			continue
		}
		if honorTaints {
			if _, bad := firstUntolerated(filter.pc.Tolerations, nd.taints, false); bad {
				continue
			}
		}
		ctr.nodeRow.set(int32(s))
	}
	ctr.colRow = d.cat.all.clone()
	if honorAff {
		ctr.colRow = c.labelRow(d.cat, filter)
	}
	if honorTaints {
		c.taintRow(d.cat, ctr.colRow, filter, false)
	}
}

// countsColumn reports whether pods on machines of a column are counted.
func (ctr *counter) countsColumn(col int32) bool { return ctr.filter == nil || ctr.colRow.has(col) }

// countsNode reports whether pods on a node are counted.
func (ctr *counter) countsNode(slot int32) bool { return ctr.filter == nil || ctr.nodeRow.has(slot) }

// at returns the count of a domain.
func (ctr *counter) at(v int32) int64 {
	if int(v) < len(ctr.dom) {
		return int64(ctr.dom[v])
	}
	return 0
}

func (ctr *counter) add(v int32, n int32) {
	for int(v) >= len(ctr.dom) {
		ctr.dom = append(ctr.dom, 0)
	}
	ctr.dom[v] += n
	ctr.total += int64(n)
}

// addNode counts n more pods on a node.
func (ctr *counter) addNode(c *Cluster, slot, n int32) {
	if !ctr.countsNode(slot) {
		return
	}
	if ctr.host {
		ctr.nodes[slot] += n
		ctr.total += int64(n)
		return
	}
	if vs, open := c.nodes[slot].open[ctr.key]; open {
		// The domain is not known yet. Anti-affinity must avoid all candidates;
		// the other rules cannot rely on the pods.
		if ctr.inverse {
			for _, v := range vs {
				ctr.add(v, n)
			}
		}
		return
	}
	if v := c.nodeVal(ctr.key, slot); v != valAbsent {
		ctr.add(v, n)
	}
}

// addMachine counts n more pods (less, when negative) on a planned machine.
func (ctr *counter) addMachine(m *plannedMachine, n int32) {
	if !ctr.countsColumn(m.col) {
		return
	}
	if ctr.host {
		m.addCount(ctr, n)
		ctr.total += int64(n)
		return
	}
	if v := m.cat.vals[ctr.key][m.col]; v != valAbsent {
		ctr.add(v, n)
	}
}

// alike reports whether machines of two columns are in the same domains of all
// counters and are counted by the same ones. Otherwise the move of a machine
// could open a domain for a spread constraint.
func (d *domains) alike(a, b int32) bool {
	for _, ctr := range d.counters {
		if vals := d.cat.vals[ctr.key]; !ctr.host && vals[a] != vals[b] {
			return false
		}
		if ctr.filter != nil && ctr.colRow.has(a) != ctr.colRow.has(b) {
			return false
		}
	}
	return true
}

// universe lists the domains that a spread constraint counts: those of existing
// nodes that pass its filter, those in which a machine can be created for the
// pod, and those that machines for other pods open (see findOpened). Domains that
// only the catalogue names are not among them.
func (d *domains) universe(v *variant, ctr *counter, machines []*plannedMachine, l *ledger) []int32 {
	c, cat := d.c, d.cat
	columns := d.withoutRegional(c.columnsOf(cat, v.pc.cl, false, -1), v.pc.cl)
	key := universeKey{ctr.id, columns.id}
	empty := len(machines) == 0 && len(d.opened) == 0
	if u, ok := d.universes[key]; ok && empty {
		return u
	}
	seen := map[int32]bool{}
	for slot, nd := range c.nodes {
		if nd == nil || nd.n.Gone || !ctr.countsNode(int32(slot)) {
			continue
		}
		if val := c.nodeVal(ctr.key, int32(slot)); val != valAbsent {
			if _, open := nd.open[ctr.key]; !open {
				seen[val] = true
			}
		}
	}
	row := columns.bits
	if ctr.filter != nil {
		row = row.clone()
		row.and(ctr.colRow)
	}
	for _, vm := range cat.valueMasks(ctr.key) {
		if vm.val != valAbsent && !seen[vm.val] && l.anyUsable(row, vm.mask) {
			seen[vm.val] = true
		}
	}
	for val := range d.opened[ctr.ck] {
		seen[val] = true
	}
	for _, m := range machines {
		if val := cat.vals[ctr.key][m.col]; val != valAbsent && len(m.pods) > 0 && ctr.countsColumn(m.col) {
			seen[val] = true
		}
	}
	out := make([]int32, 0, len(seen))
	for val := range seen {
		out = append(out, val)
	}
	// Sorted by name: numbers depend on the order in which values were seen.
	sort.Slice(out, func(i, j int) bool { return c.sym.valueName(ctr.key, out[i]) < c.sym.valueName(ctr.key, out[j]) })
	if empty {
		d.universes[key] = slices.Clip(out)
	}
	return out
}

// findOpened looks for machines that opened a domain which a spread constraint
// does not count, because its own pods cannot go there. The kube-scheduler will
// count it as empty. If that breaks the constraint, findOpened remembers the
// domain and returns true: the pass must start over with it.
func (d *domains) findOpened(classes []*passClass, machines []*plannedMachine) bool {
	found := false
	inUse := map[*counter]map[int32]bool{}
	for _, pc := range classes {
		for i := range pc.v.domain {
			k := &pc.v.domain[i]
			if k.kind != checkSpread {
				continue
			}
			vals := inUse[k.ctr]
			if vals == nil {
				vals = map[int32]bool{}
				inUse[k.ctr] = vals
				col := d.cat.vals[k.ctr.key]
				for _, m := range machines {
					if v := col[m.col]; v != valAbsent && k.ctr.countsColumn(m.col) {
						vals[v] = true
					}
				}
			}
			most := int64(0)
			for _, v := range k.universe {
				most = max(most, k.ctr.at(v))
			}
			for v := range vals {
				if slices.Contains(k.universe, v) && !slices.Contains(k.late, v) {
					continue
				}
				helps := pc.used < len(pc.pods) && len(k.universe) < k.minDomains
				if !helps && most-k.ctr.at(v) <= k.maxSkew {
					continue
				}
				found = d.open(k.ctr.ck, v) || found
			}
		}
	}
	return found
}

// open remembers an opened domain and reports whether it is a new one.
func (d *domains) open(ck counterKey, val int32) bool {
	if d.opened == nil {
		d.opened = map[counterKey]map[int32]bool{}
	}
	if d.opened[ck] == nil {
		d.opened[ck] = map[int32]bool{}
	}
	if d.opened[ck][val] {
		return false
	}
	d.opened[ck][val] = true
	return true
}

// forgetUnused forgets opened domains in which nothing is this time, and reports
// whether there were any.
func (d *domains) forgetUnused(machines []*plannedMachine) bool {
	found := false
	for _, ctr := range d.counters {
		for val := range d.opened[ctr.ck] {
			if !d.occupied(ctr, val, machines) {
				delete(d.opened[ctr.ck], val)
				found = true
			}
		}
	}
	return found
}

// occupied reports whether a node or a machine with pods is in a domain of a
// counter.
func (d *domains) occupied(ctr *counter, val int32, machines []*plannedMachine) bool {
	for slot, nd := range d.c.nodes {
		if nd != nil && !nd.n.Gone && d.c.nodeVal(ctr.key, int32(slot)) == val && ctr.countsNode(int32(slot)) {
			return true
		}
	}
	for _, m := range machines {
		if d.cat.vals[ctr.key][m.col] == val && ctr.countsColumn(m.col) && len(m.pods) > 0 {
			return true
		}
	}
	return false
}

// min returns the least count over the domains of a spread constraint, or 0 if
// there are fewer domains than minDomains.
func (k *check) min() int64 {
	if k.kind != checkSpread || len(k.universe) < k.minDomains || len(k.universe) == 0 {
		return 0
	}
	least := int64(math.MaxInt64)
	for _, v := range k.universe {
		if n := k.ctr.at(v); n < least {
			least = n
		}
	}
	return least
}

// minWith returns the least count once val is one of the domains, given the
// least count without it. A domain in which no machine could be created may not
// be one of them (see tuples.dropEmptyDomain); with a pod in it, it counts.
func (k *check) minWith(least int64, val int32) int64 {
	if k.kind == checkSpread && !slices.Contains(k.universe, val) {
		return min(least, k.ctr.at(val))
	}
	return least
}
