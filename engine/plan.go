// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"maps"
	"slices"
	"sort"
	"strings"
)

// plan writes the Plan.
func (ps *pass) plan() *Plan {
	p := &Plan{Version: PlanVersion, CostUSDPerHour: ps.cost()}
	p.QuickCostUSDPerHour = ps.quickCost
	p.Work = ps.work
	if ps.bound != nil {
		p.Bound = ps.bound
		if p.Bound.USDPerHour > 0 {
			p.Bound.Gap = p.CostUSDPerHour/p.Bound.USDPerHour - 1
		}
	}
	ps.layOut(p)
	ps.planMachines(p)
	ps.planNodes(p)
	for _, pc := range ps.classes {
		if pc.left() == 0 {
			continue
		}
		v := Verdict{Class: pc.cl.id, Pods: pc.pods[pc.used:], Machine: -1}
		if pc.deferred() {
			v.Outcome, v.Code = Deferred, ReasonUnsupported
			v.Reason = "uses " + strings.Join(pc.cl.pc.Unsupported, ", ") + ", which another scheduler decides"
		} else {
			v.Outcome = Refused
			v.Code, v.Reason = ps.why(pc)
			v.Relaxed = pc.v.relaxed
		}
		p.Verdicts[pc.verdict] = v
	}
	ps.trace(p)
	return p
}

// layOut allocates the verdicts, class by class: one for each run of pods in the
// same place, and one for those without a place.
func (ps *pass) layOut(p *Plan) {
	for _, pc := range ps.classes {
		pc.verdict = 0
	}
	for _, m := range ps.machines {
		for i := range m.pods {
			m.pods[i].v.pc.verdict++
		}
	}
	for i := range ps.existing.placed {
		ps.existing.placed[i].run.v.pc.verdict++
	}
	n := 0
	for _, pc := range ps.classes {
		k := pc.verdict
		pc.verdict = n
		n += k
		if pc.left() > 0 {
			n++
		}
	}
	p.Verdicts = make([]Verdict, n)
}

// verdict records the verdict of a run.
func (p *Plan) verdict(pl *placed, v Verdict) {
	v.Class, v.Pods, v.Relaxed = pl.v.pc.cl.id, pl.pods(), pl.v.relaxed
	p.Verdicts[pl.v.pc.verdict] = v
	pl.v.pc.verdict++
}

// planMachines writes the machines.
func (ps *pass) planMachines(p *Plan) {
	var row bitset
	var used []int64
	runs, machines := 0, 0
	for _, m := range ps.machines {
		runs += len(m.pods)
		machines += min(1, len(m.pods))
	}
	p.Machines = make([]Machine, 0, machines)
	groups := make([]PodGroup, 0, runs) // of all machines
	reqs := map[string][]Requirement{}
	lists := map[string][]RankedOffering{}
	var key, own []byte
	for _, m := range ps.machines {
		if len(m.pods) == 0 {
			continue
		}
		used = m.used(used)
		key = m.contentKey(key[:0], used)
		ranked, ok := lists[string(key)]
		if !ok {
			row = m.columns(row)
			ranked = ps.rank(m, row, used)
			lists[string(key)] = ranked
		}
		out := Machine{NodePool: ps.cat.pools[m.pool].p.Name, Offerings: ranked, PriceUSDPerHour: ranked[0].PriceUSDPerHour}
		own = ps.requirementsKey(own[:0], m, key)
		if out.Requirements, ok = reqs[string(own)]; !ok {
			out.Requirements = ps.requirements(m, used)
			reqs[string(own)] = out.Requirements
		}
		at := len(groups)
		for i := range m.pods {
			pl := &m.pods[i]
			groups = appendPods(groups, at, pl)
			p.verdict(pl, Verdict{Outcome: OnMachine, Machine: len(p.Machines)})
		}
		out.Pods = groups[at:len(groups):len(groups)]
		out.Requests = ps.requests(used, ps.cat.kinds[m.kind].daemon)
		p.Machines = append(p.Machines, out)
	}
}

// appendPods adds a run to the groups from index at on.
func appendPods(gs []PodGroup, at int, pl *placed) []PodGroup {
	for i := at; i < len(gs); i++ {
		if gs[i].Class == pl.v.pc.cl.id {
			gs[i].Pods = append(gs[i].Pods, pl.pods()...)
			return gs
		}
	}
	return append(gs, PodGroup{Class: pl.v.pc.cl.id, Pods: pl.pods()})
}

// planNodes writes the placements on nodes.
func (ps *pass) planNodes(p *Plan) {
	index := map[int32]int{}
	for i := range ps.existing.placed {
		np := &ps.existing.placed[i]
		at, ok := index[np.slot]
		if !ok {
			at = len(p.Placements)
			index[np.slot] = at
			p.Placements = append(p.Placements, Placement{Node: ps.c.nodes[np.slot].n.Name})
		}
		p.Placements[at].Pods = appendPods(p.Placements[at].Pods, 0, &np.run)
		p.verdict(&np.run, Verdict{Outcome: OnNode, Node: ps.c.nodes[np.slot].n.Name, Machine: -1})
	}
}

// requests returns what pods and daemons request, CSI attachments aside.
func (ps *pass) requests(used, daemon []int64) Resources {
	r := Resources{}
	for d, u := range used {
		n := u
		if d < len(daemon) {
			n += daemon[d]
		}
		if n > 0 && !strings.HasPrefix(ps.c.dims.names[d], attachPrefix) {
			r[ps.c.dims.names[d]] = n
		}
	}
	return r
}

// labelKeys returns the labels that the pods of a machine look at or rely on.
func (ps *pass) labelKeys(m *plannedMachine) []int32 {
	keys := append(ps.ranking.keys[:0], m.pins...)
	for i := range m.pods {
		for _, k := range m.pods[i].v.pc.cl.keys {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	ps.ranking.keys = keys
	return keys
}

// requirementsKey appends a key that is equal for machines with the same
// requirements. If all labels are pinned, their values suffice; if not, the
// content of the machine matters, too.
func (ps *pass) requirementsKey(b []byte, m *plannedMachine, content []byte) []byte {
	b = binary.AppendVarint(b, int64(m.pool))
	pinned := true
	for _, key := range ps.labelKeys(m) {
		if key == ps.c.hostKey {
			continue
		}
		b = binary.AppendVarint(b, int64(key))
		if slices.Contains(m.pins, key) {
			b = binary.AppendVarint(b, int64(ps.cat.vals[key][m.col]))
		} else {
			pinned = false
		}
	}
	if !pinned {
		b = append(b, content...)
	}
	return b
}

// requirements returns those that the NodeClaim must have: the pool's own,
// narrowed to the values of the offerings for the labels that the pods look at.
func (ps *pass) requirements(m *plannedMachine, used []int64) []Requirement {
	pool := &ps.cat.pools[m.pool]
	var row bitset
	narrowed := map[string]Requirement{}
	var out []Requirement
	for _, key := range ps.labelKeys(m) {
		if key == ps.c.hostKey {
			continue
		}
		seen := map[int32]bool{}
		if slices.Contains(m.pins, key) {
			seen[ps.cat.vals[key][m.col]] = true
		} else {
			if row == nil {
				row = m.columns(nil)
			}
			for col := row.next(pool.lo, pool.hi); col < pool.hi; col = row.next(col+1, pool.hi) {
				if m.pinned(col) && fits(used, ps.cat.kinds[ps.cat.cols[col].kind].alloc) {
					seen[ps.cat.vals[key][col]] = true
				}
			}
		}
		name := ps.c.sym.tab[key].name
		if seen[valOther] && len(seen) == 1 {
			// Any value that no class names.
			r := Requirement{Key: name, Operator: NotIn}
			for v := range ps.c.mentioned[key] {
				r.Values = append(r.Values, ps.c.sym.valueName(key, v))
			}
			sort.Strings(r.Values)
			if len(r.Values) > 0 {
				out = append(out, r)
			}
			continue
		}
		if seen[valOther] || (seen[valAbsent] && len(seen) > 1) {
			continue
		}
		if seen[valAbsent] {
			continue
		}
		r := Requirement{Key: name, Operator: In}
		for v := range seen {
			r.Values = append(r.Values, ps.c.sym.valueName(key, v))
		}
		sort.Strings(r.Values)
		narrowed[name] = r
	}
	for _, r := range pool.p.Requirements {
		if n, ok := narrowed[r.Key]; ok {
			if r.MinValues > 0 {
				n.MinValues = r.MinValues
			}
			narrowed[r.Key] = n
			continue
		}
		out = append(out, r)
	}
	for _, k := range slices.Sorted(maps.Keys(narrowed)) {
		out = append(out, narrowed[k])
	}
	return out
}
