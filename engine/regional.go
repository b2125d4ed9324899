// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// ZoneRegional is the value of LabelZone of an offering that names no zone: the
// cloud picks one and does not tell which. Pods that a rule spreads over zones, or
// keeps together in one, gain nothing from it.
const ZoneRegional = "0"

// Regional offerings are the last alternative. A size that has zones is planned in
// one of them, and no machine for pods with a rule over zones is regional as long
// as there is a zonal one for them. Exceptions are what asks for it: a pod or a
// NodePool that names the value, a NodePool without zonal offerings, and, for a
// spread, a node or machine that is regional already, because the kube-scheduler
// counts its domain.

// markRegional finds the regional columns of pools that do not ask for them.
func (cat *catalog) markRegional(c *Cluster) {
	cat.regional = newBitset(len(cat.cols))
	cat.zonalRows = map[zonalKey]*rowSet{}
	for i := range cat.pools {
		p := &cat.pools[i]
		if asksRegional(p.p.Requirements) || p.p.Labels[LabelZone] == ZoneRegional {
			continue
		}
		zonal := false
		for col := p.lo; col < p.hi; col++ {
			zonal = zonal || !isRegional(cat.cols[col].off)
		}
		for col := p.lo; zonal && col < p.hi; col++ {
			if isRegional(cat.cols[col].off) {
				cat.regional.set(col)
				cat.hasRegional = true
			}
		}
	}
	cat.zoneKey = c.sym.key(LabelZone)
}

func isRegional(o *Offering) bool { return o.Zone == ZoneRegional }

// asksRegional reports whether one of the requirements names the regional value.
func asksRegional(rs []Requirement) bool {
	return slices.ContainsFunc(rs, func(r Requirement) bool {
		return r.Key == LabelZone && r.Operator == In && slices.Contains(r.Values, ZoneRegional)
	})
}

// asksRegional reports whether the pods of a class name the regional value.
func (cl *class) asksRegional() bool {
	p := &cl.pc
	if asksRegional(p.NodeSelector) || slices.ContainsFunc(p.NodeAffinity, asksRegional) {
		return true
	}
	if slices.ContainsFunc(p.VolumeTopology, func(v VolumeTopology) bool { return slices.ContainsFunc(v.Terms, asksRegional) }) {
		return true
	}
	return slices.ContainsFunc(p.PreferredNodeAffinity, func(t PreferredTerm) bool { return asksRegional(t.Requirements) })
}

// zonalKey identifies a set of columns without the regional ones.
type zonalKey struct {
	id    int32 // of the set
	ruled bool  // the pods have a rule over zones
}

// withoutRegional removes the regional columns from those of a class, except where
// they are the only ones.
func (d *domains) withoutRegional(set *rowSet, cl *class) *rowSet {
	cat := d.cat
	if !cat.hasRegional || !set.bits.meets(cat.regional) {
		return set
	}
	ruled := cl.minds(LabelZone)
	if cl.asksRegional() || ruled && d.regionalInUse() {
		return set
	}
	key := zonalKey{set.id, ruled}
	if out, ok := cat.zonalRows[key]; ok {
		return out
	}
	row := set.bits.clone()
	if ruled {
		row.andNot(cat.regional)
	} else {
		cat.dropRegional(row)
	}
	out := set
	if !row.empty() {
		out = cat.rowSet(row)
	}
	cat.zonalRows[key] = out
	return out
}

// dropRegional removes the regional columns of sizes that are in the set in a zone,
// too, with the same capacity type. Reservations stay: they are paid for.
func (cat *catalog) dropRegional(row bitset) {
	n := int32(len(cat.cols))
	for lo := int32(0); lo < n; {
		typ, pool := cat.cols[lo].typ, cat.cols[lo].pool
		hi := lo + 1
		for hi < n && cat.cols[hi].typ == typ && cat.cols[hi].pool == pool {
			hi++
		}
		var zonal []string // capacity types
		for col := row.next(lo, hi); col < hi; col = row.next(col+1, hi) {
			if o := cat.cols[col].off; !isRegional(o) && !slices.Contains(zonal, o.CapacityType) {
				zonal = append(zonal, o.CapacityType)
			}
		}
		for col := row.next(lo, hi); len(zonal) > 0 && col < hi; col = row.next(col+1, hi) {
			if cat.regional.has(col) && cat.cols[col].reserve < 0 && slices.Contains(zonal, cat.cols[col].off.CapacityType) {
				row.clear(col)
			}
		}
		lo = hi
	}
}

// minds reports whether the class has a spread, affinity or anti-affinity over a
// label, required or preferred.
func (cl *class) minds(key string) bool {
	over := func(t AffinityTerm) bool { return t.Key == key }
	return slices.ContainsFunc(cl.pc.Spread, func(s SpreadConstraint) bool { return s.Key == key }) ||
		slices.ContainsFunc(cl.pc.PodAffinity, over) || slices.ContainsFunc(cl.pc.PodAntiAffinity, over)
}

// regionalInUse reports whether a node is regional or machines of an earlier run
// were, so that the kube-scheduler counts the regional domain.
func (d *domains) regionalInUse() bool {
	key := d.cat.zoneKey
	for ck, vals := range d.opened {
		if ck.key != key {
			continue
		}
		for v := range vals {
			if d.c.sym.valueName(key, v) == ZoneRegional {
				return true
			}
		}
	}
	if d.regionalNodes == nil {
		found := false
		for _, nd := range d.c.nodes {
			if nd != nil && !nd.n.Gone && nd.n.Labels[LabelZone] == ZoneRegional {
				found = true
				break
			}
		}
		d.regionalNodes = &found
	}
	return *d.regionalNodes
}

// withRegional adds the regional columns that every pod of a machine may be on to
// row. They are the last of its offerings.
func (m *plannedMachine) withRegional(row bitset) bitset {
	if !m.cat.hasRegional || m.cat.regional.has(m.col) {
		return row
	}
	more := m.cat.regional.clone()
	for i := range m.pods {
		v := m.pods[i].v
		if v.pc.cl.minds(LabelZone) {
			return row
		}
		more.and(v.allRows.bits)
	}
	if more.empty() {
		return row
	}
	row = row.clone()
	row.or(more)
	return row
}
