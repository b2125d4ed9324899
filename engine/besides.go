// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "slices"

// A machine comes with the pods of the DaemonSets that run on it. This file tells
// which columns the rules about other pods rule out, or allow, because of these.
// Spread constraints leave daemons out: one more on every host is no difference.

// runsOn reports whether the pods of one of the classes that f selects come to
// machines of each kind.
func (c *Cluster) runsOn(cat *catalog, f func(*class) bool) []bool {
	var out []bool
	for _, d := range c.daemons {
		if !f(c.classes[d]) {
			continue
		}
		for i := range cat.kinds {
			if slices.Contains(cat.kinds[i].daemons, d) {
				if out == nil {
					out = make([]bool, len(cat.kinds))
				}
				out[i] = true
			}
		}
	}
	return out
}

// clearKinds removes the columns of some kinds that have a value of a label.
func (cat *catalog) clearKinds(row bitset, kinds []bool, key int32) {
	vals := cat.vals[key]
	for i, there := range kinds {
		if !there {
			continue
		}
		k := &cat.kinds[i]
		for col := row.next(k.lo, k.hi); col < k.hi; col = row.next(col+1, k.hi) {
			if key == cat.hostKey || vals[col] != valAbsent {
				row.clear(col)
			}
		}
	}
}

// daemonRow removes the columns on which a daemon and the class exclude each
// other by required anti-affinity.
func (c *Cluster) daemonRow(cat *catalog, row bitset, cl *class) {
	for i, m := range cl.anti {
		c.clearBesideDaemons(cat, row, m, cl.antiKeys[i])
	}
	for _, d := range c.daemons {
		owner := c.classes[d]
		for i, m := range owner.anti {
			m.update(c)
			if m.selectsClass(cl) {
				cat.clearKinds(row, c.runsOn(cat, func(o *class) bool { return o == owner }), owner.antiKeys[i])
			}
		}
	}
}

// clearBesideDaemons removes the columns to which a daemon comes that a matcher
// selects.
func (c *Cluster) clearBesideDaemons(cat *catalog, row bitset, m *matcher, key int32) {
	m.update(c)
	cat.clearKinds(row, c.runsOn(cat, m.selectsClass), key)
}

// minds reports whether required anti-affinity sets the class and a daemon apart.
func (c *Cluster) mindsDaemons(cl *class) bool {
	for _, d := range c.daemons {
		dc := c.classes[d]
		for _, m := range cl.anti {
			if m.update(c); m.selectsClass(dc) {
				return true
			}
		}
		for _, m := range dc.anti {
			if m.update(c); m.selectsClass(cl) {
				return true
			}
		}
	}
	return false
}

// besideDaemons narrows the columns of a variant to those that its rules about
// other pods allow beside the daemons that come with a machine. A daemon that a
// required pod affinity selects meets it, so that new machines have to have it.
func (ps *pass) besideDaemons(v *variant) {
	if len(ps.c.daemons) == 0 {
		return
	}
	var row bitset
	narrow := func(f func(bitset)) {
		if row == nil {
			row = v.row.clone()
		}
		f(row)
	}
	for _, list := range [][]check{v.host, v.domain} {
		for i := range list {
			k := &list[i]
			if k.kind == checkAnti && slices.ContainsFunc(ps.c.daemons, func(d ClassID) bool { return k.ctr.m.has.has(int32(d)) }) {
				narrow(func(b bitset) { ps.c.clearBesideDaemons(ps.cat, b, k.ctr.m, k.ctr.key) })
			}
			if k.kind == checkAffinity && ps.comesWithDaemons(k) {
				there := ps.c.runsOn(ps.cat, k.ctr.m.selectsClass)
				if there == nil {
					continue
				}
				without := make([]bool, len(there))
				for j := range there {
					without[j] = !there[j]
				}
				before := v.row
				if row != nil {
					before = row
				}
				only := before.clone()
				ps.cat.clearKinds(only, without, ps.c.hostKey)
				// Where pods on nodes meet it in some domains, machines without the daemon
				// may join them there, so none is ruled out.
				elsewhere := !k.ctr.host && k.ctr.total > 0
				if all := only.count() == before.count(); !only.empty() && (all || !elsewhere) {
					k.brought, row = true, only
				}
			}
		}
	}
	if row != nil {
		v.rows = ps.cat.rowSet(row)
		v.row, v.rowID = v.rows.bits, v.rows.id
		v.allRows = v.rows
	}
}

// comesWithDaemons reports whether new machines can meet an affinity rule by their
// daemons: a daemon meets it and no pending pod does.
func (ps *pass) comesWithDaemons(k *check) bool {
	daemon := false
	for _, id := range k.ctr.m.matched {
		if ps.c.classes[id].pending != nil {
			return false
		}
		daemon = daemon || slices.Contains(ps.c.daemons, id)
	}
	return daemon
}
