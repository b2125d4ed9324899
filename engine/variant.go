// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// passClass is a pending class during a pass.
type passClass struct {
	cl    *class
	vec   []int64
	shape *shape
	pods  []string
	used  int // pods placed so far
	// Space for the first few of the lists below.
	contribBuf [4]*counter
	pinKeyBuf  [2]int32
	first      variant
	verdict    int        // index of its next verdict in the plan
	contrib    []*counter // counters that count its pods
	pinKeys    []int32    // labels that must be decided where its pods go
	prefs      preferences
	v          *variant // as it is placed now
	value      float64  // of one pod, USD per hour
	// Position in the order of placing, see pass.sortClasses.
	nodesOnly bool
	apart     int64
	order     int // as given
	trace     *stageTrace
}

// left returns how many pods have no place yet.
func (pc *passClass) left() int { return len(pc.pods) - pc.used }

// deferred reports whether the class uses features that the engine leaves to
// another scheduler.
func (pc *passClass) deferred() bool { return len(pc.cl.pc.Unsupported) > 0 }

// variant is a class with the preferences in force treated as required.
type variant struct {
	pc      *passClass
	relaxed []string
	rows    *rowSet // columns that can hold one pod
	allRows *rowSet // rows with the regional columns that are the last alternative
	rowID   int32   // rows.id
	row     bitset  // rows.bits
	nodeRow bitset  // nodes that can hold it, room aside
	strict  bool    // PreferNoSchedule taints repel
	pref    int     // index of the preferred node affinity term in force, or -1
	domain  []check
	host    []check // over the hostname
	keys    []int32 // topology keys of domain checks
	pins    []int32 // see catalog.pinsOf
	// Space for the first few of the lists above.
	domainBuf, hostBuf [1]check
	keyBuf             [1]int32
	pinBuf             [4]int32
	affs               []*counter
	selfAll            bool
	hostCap            int64 // pods of the class a new machine can take
	capCtr             int   // counter that caps new machines, or -1
}

// placed is a run of a class's pods.
type placed struct {
	v     *variant
	first int
	n     int
}

// continues reports whether pods of a variant from first on extend the run.
func (p *placed) continues(v *variant, first int) bool { return p.v == v && p.first+p.n == first }

// pods returns the keys of the pods.
func (p *placed) pods() []string { return p.v.pc.pods[p.first : p.first+p.n : p.first+p.n] }

// compile makes the variant of a class with the preferences that are in force.
func (ps *pass) compile(pc *passClass) {
	cl := pc.cl
	inForce := pc.prefs.inForce()
	v := &pc.first
	if pc.v != nil {
		v = &variant{} // the first may be on a machine
	}
	v.pc, v.pref, v.capCtr, v.hostCap = pc, -1, -1, noCap
	v.domain, v.host, v.keys = v.domainBuf[:0], v.hostBuf[:0], v.keyBuf[:0]
	v.relaxed = pc.prefs.relaxed()
	v.strict = inForce.taints
	if inForce.node < len(cl.pref) {
		v.pref = cl.preferredTerms()[inForce.node]
	}
	ps.findRows(v)
	for i := range cl.pc.Spread {
		s := &cl.pc.Spread[i]
		if s.Soft && !slices.Contains(inForce.spread, i) {
			continue
		}
		ctr := ps.domains.spread(cl, i)
		k := check{kind: checkSpread, ctr: ctr, self: ctr.m.selectsClass(cl), maxSkew: int64(max(s.MaxSkew, 1)), minDomains: int(s.MinDomains)}
		if !ctr.host {
			k.universe = ps.domains.universe(v, ctr, ps.machines, &ps.ledger)
			k.late = pc.lateDomains(&k)
		}
		v.add(k)
	}
	v.selfAll = true
	ps.domains.requiredAffinity(cl, func(ctr *counter) {
		v.affs = append(v.affs, ctr)
		v.selfAll = ctr.m.selectsClass(cl)
		v.add(check{kind: checkAffinity, ctr: ctr, self: v.selfAll})
	})
	for _, i := range inForce.aff {
		ctr := ps.domains.affinity(cl, i)
		v.affs = append(v.affs, ctr)
		self := ctr.m.selectsClass(cl)
		v.selfAll = v.selfAll && self
		v.add(check{kind: checkAffinity, ctr: ctr, self: self, preferred: true})
	}
	for i := range cl.pc.PodAntiAffinity {
		if cl.pc.PodAntiAffinity[i].Weight > 0 && !slices.Contains(inForce.anti, i) {
			continue
		}
		ctr := ps.domains.antiAffinity(cl, i)
		v.add(check{kind: checkAnti, ctr: ctr, self: ctr.m.selectsClass(cl)})
	}
	for _, ctr := range ps.domains.counters {
		if ctr.inverse && ctr.m.selectsClass(cl) {
			v.add(check{kind: checkForbid, ctr: ctr})
		}
	}
	if len(cl.pc.HostPorts) > 0 {
		v.hostCap = min(v.hostCap, 1)
	}
	ps.besideDaemons(v)
	pc.v = v
}

// add adds a rule to the variant.
func (v *variant) add(k check) {
	if k.ctr.host {
		v.host = append(v.host, k)
		if r := k.room(0, 0, true); r < v.hostCap {
			v.hostCap, v.capCtr = r, k.ctr.id
		}
		return
	}
	v.domain = append(v.domain, k)
	if !slices.Contains(v.keys, k.ctr.key) {
		v.keys = append(v.keys, k.ctr.key)
	}
}

// lateDomains returns the domains of a spread constraint that were not there
// when the first pods of the class were placed.
func (pc *passClass) lateDomains(k *check) []int32 {
	if pc.used == 0 || pc.v == nil {
		return nil
	}
	for i := range pc.v.domain {
		if old := &pc.v.domain[i]; old.kind == checkSpread && old.ctr == k.ctr {
			late := slices.Clip(old.late)
			for _, val := range k.universe {
				if !slices.Contains(old.universe, val) {
					late = append(late, val)
				}
			}
			return late
		}
	}
	return nil
}

// findRows finds the columns and nodes that a variant can be on.
func (ps *pass) findRows(v *variant) {
	c, cl := ps.c, v.pc.cl
	v.allRows = ps.avoiding(c.columnsOf(ps.cat, cl, v.strict, v.pref))
	v.rows = ps.domains.withoutRegional(v.allRows, cl)
	v.row, v.rowID = v.rows.bits, v.rows.id
	v.nodeRow = c.staticNodes(cl, v.strict)
	if v.pref >= 0 {
		row := v.nodeRow.clone()
		for s := row.next(0, int32(len(c.nodes))); s < int32(len(c.nodes)); s = row.next(s+1, int32(len(c.nodes))) {
			if c.firstMissed(cl.pref[v.pref].reqs, c.nodes[s]) != nil {
				row.clear(s)
			}
		}
		v.nodeRow = row
	}
}

// relaxedRow returns the columns that a class can be on once all its preferences
// are relaxed.
func (ps *pass) relaxedRow(pc *passClass) bitset {
	if len(pc.prefs.steps) == 0 {
		return pc.v.row
	}
	v := &variant{pc: pc, pref: -1}
	ps.findRows(v)
	return v.row
}

// reachableRow returns the columns that a class can be on, if need be once its
// preferences are relaxed.
func (ps *pass) reachableRow(pc *passClass) bitset {
	if pc.v.row.empty() {
		return ps.relaxedRow(pc)
	}
	return pc.v.row
}
