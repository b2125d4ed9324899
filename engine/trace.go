// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
)

// stageTrace is what each constraint of a class leaves of its candidates.
type stageTrace struct {
	stages []Stage
	misses []Miss
}

// explain counts what each constraint leaves of offerings and nodes at the end of
// the pass, for the class with the preferences last in force.
func (ps *pass) explain(pc *passClass) stageTrace {
	c, cat, cl, v := ps.c, ps.cat, pc.cl, pc.v
	var tr stageTrace
	row := cat.all.clone()
	nodes := c.openNodes()
	stage := func(name string, reason Reason, detail string, narrow func(bitset), keep func(*node) bool) {
		if len(tr.stages) > 0 && len(nodes) == 0 && row.empty() {
			return
		}
		before := row
		if narrow != nil {
			row = row.clone()
			narrow(row)
		}
		left := nodes[:0:0]
		for _, s := range nodes {
			if keep == nil || keep(c.nodes[s]) {
				left = append(left, s)
			}
		}
		changed := name == "start" || len(left) != len(nodes) || row.count() != before.count()
		if changed {
			tr.stages = append(tr.stages, Stage{Name: name, Detail: detail, Reason: reason, Offerings: row.count(), Nodes: len(left)})
		}
		if row.empty() && !before.empty() {
			tr.miss(ps, pc, reason, detail, before)
		}
		if len(left) == 0 && len(nodes) > 0 {
			tr.missNode(ps, pc, reason, detail, nodes)
		}
		nodes = left
	}
	stage("start", ReasonNoPools, "", nil, nil)
	stage("taints", ReasonTaints, ps.taintDetail(cl), func(b bitset) { c.taintRow(cat, b, cl, v.strict) }, func(nd *node) bool {
		_, bad := firstUntolerated(cl.pc.Tolerations, nd.taints, v.strict)
		return !bad
	})
	for i := range cl.sel {
		r := &cl.sel[i]
		stage("nodeSelector", ReasonRequirement, c.reqText(r), func(b bitset) { b.and(c.reqRow(cat, r)) }, func(nd *node) bool { return c.nodeHolds(r, nd) })
	}
	if len(cl.aff) > 0 {
		stage("nodeAffinity", ReasonRequirement, c.termsText(cl.aff), func(b bitset) { c.termsRow(cat, b, cl.aff, false) }, func(nd *node) bool { return c.labelsFit(cl, nd) == nil })
	}
	for _, terms := range cl.vols {
		stage("volumeTopology", ReasonVolume, c.termsText(terms), func(b bitset) { c.termsRow(cat, b, terms, true) }, func(nd *node) bool {
			for _, t := range terms {
				if c.firstMissed(t, nd) == nil {
					return true
				}
			}
			return false
		})
	}
	if v.pref >= 0 {
		reqs := cl.pref[v.pref].reqs
		stage("preferredNodeAffinity", ReasonRequirement, c.termsText([][]creq{reqs}), func(b bitset) {
			for i := range reqs {
				b.and(c.reqRow(cat, &reqs[i]))
			}
		}, func(nd *node) bool { return c.firstMissed(reqs, nd) == nil })
	}
	stage("resources", ReasonResources, ps.sizeText(pc), func(b bitset) { c.fitRow(cat, b, cl) }, func(nd *node) bool { return fits(cl.vec, nd.free) })
	if len(cl.pc.HostPorts) > 0 {
		stage("hostPorts", ReasonHostPorts, "", nil, func(nd *node) bool { return !conflictAny(cl.pc.HostPorts, nd.ports) })
	}
	if len(c.quotas) > 0 {
		// Before availability: offerings beyond a quota are often unavailable, too.
		stage("quota", ReasonQuota, "", ps.ledger.clearBeyondQuotas, nil)
	}
	stage("available", ReasonUnavailable, "offerings that can be had now", func(b bitset) { b.and(cat.avail) }, nil)
	stage("limits", ReasonLimits, "", ps.ledger.clearBeyondLimits, nil)
	if len(ps.ledger.reservationsLeft) > 0 {
		stage("reservations", ReasonReservation, "", ps.ledger.clearUsedReservations, nil)
	}
	if ps.opt.MinValues != MinValuesBestEffort {
		stage("minValues", ReasonMinValues, "", func(b bitset) {
			for i := range cat.pools {
				p := &cat.pools[i]
				if len(p.minValues) > 0 && !ps.cat.minValuesHold(p, b, b.next(p.lo, p.hi), nil, cl.vec) {
					b.clearRange(p.lo, p.hi)
				}
			}
		}, nil)
	}
	if c.mindsDaemons(cl) {
		stage("topology", ReasonAnti, "anti-affinity between the pod and DaemonSets that run on every such machine", func(b bitset) { c.daemonRow(cat, b, cl) }, nil)
	}
	boot := v.bootstrap()
	for i := range v.domain {
		k := &v.domain[i]
		min := k.min()
		ok := func(val int32) bool {
			if val == valAbsent {
				return k.kind == checkAnti || k.kind == checkForbid
			}
			return k.room(k.count(val), min, boot) > 0
		}
		stage("topology", k.reason(), k.text(c)+ps.domainText(k), func(b bitset) {
			vals := cat.vals[k.ctr.key]
			for j := b.next(0, int32(len(cat.cols))); j < int32(len(cat.cols)); j = b.next(j+1, int32(len(cat.cols))) {
				if !ok(vals[j]) && !k.brought {
					b.clear(j)
				}
			}
		}, func(nd *node) bool { return ok(c.nodeVal(k.ctr.key, nd.slot)) })
	}
	for i := range v.host {
		k := &v.host[i]
		stage("topology", k.reason(), k.text(c), func(b bitset) {
			if k.room(0, 0, boot) == 0 && !k.brought {
				clear(b)
			}
		}, func(nd *node) bool { return k.room(int64(k.ctr.nodes[nd.slot]), 0, boot) > 0 })
	}
	return tr
}

// openNodes returns the slots of the nodes that take pods.
func (c *Cluster) openNodes() []int32 {
	nodes := make([]int32, 0, len(c.order))
	for _, s := range c.order {
		if nd := c.nodes[s]; nd.n.Closed == "" && !nd.n.Gone {
			nodes = append(nodes, s)
		}
	}
	return nodes
}

// explained caches explain per class.
func (ps *pass) explained(pc *passClass) *stageTrace {
	if pc.trace == nil {
		tr := ps.explain(pc)
		pc.trace = &tr
	}
	return pc.trace
}

// domainText lists the counts of the domains of a spread constraint.
func (ps *pass) domainText(k *check) string {
	if k.kind != checkSpread {
		return ""
	}
	var parts []string
	for _, v := range k.universe {
		parts = append(parts, fmt.Sprintf("%s:%d", ps.c.sym.valueName(k.ctr.key, v), k.ctr.at(v)))
	}
	return " (" + strings.Join(parts, " ") + ")"
}

func (c *Cluster) termsText(terms [][]creq) string {
	var ts []string
	for _, t := range terms {
		var rs []string
		for i := range t {
			rs = append(rs, c.reqText(&t[i]))
		}
		ts = append(ts, strings.Join(rs, " and "))
	}
	return strings.Join(ts, " or ")
}

func (ps *pass) taintDetail(cl *class) string {
	seen := map[string]bool{}
	for i := range ps.cat.pools {
		if t, bad := firstUntolerated(cl.pc.Tolerations, ps.cat.pools[i].p.Taints, false); bad {
			seen[taintText(t)] = true
		}
	}
	ts := slices.Sorted(maps.Keys(seen))
	if len(ts) > 4 {
		ts = append(ts[:4], "…")
	}
	return strings.Join(ts, ", ")
}

func (ps *pass) sizeText(pc *passClass) string {
	var parts []string
	for d, r := range pc.vec {
		if r > 0 && d != dimPods {
			parts = append(parts, amount(ps.c.dims.names[d], r))
		}
	}
	return strings.Join(parts, ", ")
}

// amount formats a quantity of a resource.
func amount(name string, v int64) string {
	neg := ""
	if v < 0 {
		neg, v = "-", -v
	}
	if name == ResourceCPU {
		if v%1000 == 0 {
			return fmt.Sprintf("%s %s%d", name, neg, v/1000)
		}
		return fmt.Sprintf("%s %s%dm", name, neg, v)
	}
	if name == ResourceMemory || strings.Contains(name, "storage") || strings.HasPrefix(name, "hugepages") {
		switch {
		case v >= 1<<30:
			return fmt.Sprintf("%s %s%sGi", name, neg, trim(float64(v)/(1<<30)))
		case v >= 1<<20:
			return fmt.Sprintf("%s %s%sMi", name, neg, trim(float64(v)/(1<<20)))
		}
	}
	return fmt.Sprintf("%s %s%d", name, neg, v)
}

func trim(f float64) string {
	return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", f), "0"), ".0")
}

// miss records the nearest of the offerings that a stage ruled out.
func (tr *stageTrace) miss(ps *pass, pc *passClass, reason Reason, detail string, row bitset) {
	best, bestShort := int32(-1), math.Inf(1)
	for ki := range ps.cat.kinds {
		k := &ps.cat.kinds[ki]
		col := row.next(k.lo, k.hi)
		if col == k.hi {
			continue
		}
		if reason == ReasonQuota {
			if q := ps.ledger.shortQuota(col); q != nil && float64(q.Amount) < bestShort {
				best, bestShort = col, float64(q.Amount)
			}
			continue
		}
		if reason != ReasonResources {
			best = col
			break
		}
		if short := shortfall(pc.vec, k.alloc); short < bestShort {
			best, bestShort = col, short
		}
	}
	if best < 0 {
		return
	}
	switch k := &ps.cat.kinds[ps.cat.cols[best].kind]; reason {
	case ReasonResources:
		detail = ps.shortText(pc.vec, k.alloc)
	case ReasonLimits:
		detail = ps.limitText(k)
	case ReasonQuota:
		detail = ps.quotaText(best)
	case ReasonReservation:
		detail = "reservation " + ps.cat.cols[best].off.ReservationID + " is used up"
	case ReasonMinValues:
		for _, mv := range ps.cat.pools[k.pool].minValues {
			detail = fmt.Sprintf("the NodePool asks for %d values of %s", mv.min, ps.c.sym.tab[mv.key].name)
		}
	}
	tr.misses = append(tr.misses, Miss{What: ps.describe(best), Reason: reason, Detail: detail})
}

// limitText describes the limit that rules out a kind, and by how much.
func (ps *pass) limitText(k *kind) string {
	for i, l := range ps.ledger.limits[k.pool] {
		if need := k.takes[i]; need > l.left {
			return fmt.Sprintf("needs %s, the NodePool's limit leaves %s", amount(l.name, need), strings.TrimPrefix(amount(l.name, l.left), l.name+" "))
		}
	}
	return ""
}

// quotaText describes the quota that rules out a column, by how much, and what to
// do about it.
func (ps *pass) quotaText(col int32) string {
	charge := ps.ledger.shortQuota(col)
	if charge == nil {
		return ""
	}
	q, left := &ps.c.quotas[charge.Quota], ps.ledger.afterPlan()[charge.Quota]
	text := fmt.Sprintf("needs %d of quota %s", charge.Amount, q.Name)
	if q.Title != "" {
		text += fmt.Sprintf(" (%s)", q.Title)
	}
	text += fmt.Sprintf(", %d left", max(0, left))
	if q.Limit > 0 {
		text += fmt.Sprintf(" of %d", q.Limit)
	}
	if planned := q.Remaining - left; planned > 0 {
		text += fmt.Sprintf(" after the %d of this plan", planned)
	}
	if q.Advice != "" {
		text += ": " + q.Advice
	}
	return text
}

// missNode records the nearest of the nodes that a stage ruled out.
func (tr *stageTrace) missNode(ps *pass, pc *passClass, reason Reason, detail string, nodes []int32) {
	best, bestShort := nodes[0], math.Inf(1)
	if reason == ReasonResources {
		for _, s := range nodes {
			if short := shortfall(pc.vec, ps.c.nodes[s].free); short < bestShort {
				best, bestShort = s, short
			}
		}
		detail = ps.shortText(pc.vec, ps.c.nodes[best].free)
	}
	tr.misses = append(tr.misses, Miss{What: "node " + ps.c.nodes[best].n.Name, Reason: reason, Detail: detail})
}

// shortfall returns the largest relative shortage over the dimensions.
func shortfall(vec, free []int64) float64 {
	worst := 0.0
	for d, r := range vec {
		have := int64(0)
		if d < len(free) {
			have = max(0, free[d])
		}
		if r > have {
			worst = max(worst, float64(r-have)/float64(r))
		}
	}
	return worst
}

// shortText describes the dimension with the largest relative shortage.
func (ps *pass) shortText(vec, free []int64) string {
	worst, text := 0.0, "fits, but its host ports or volumes do not"
	for d, r := range vec {
		have := int64(0)
		if d < len(free) {
			have = max(0, free[d])
		}
		if r > have {
			if s := float64(r-have) / float64(r); s > worst {
				worst = s
				name := ps.c.dims.names[d]
				text = fmt.Sprintf("needs %s, has %s", amount(name, r), strings.TrimPrefix(amount(name, have), name+" "))
			}
		}
	}
	return text
}

// why returns the constraint that left no candidate, and a sentence about it.
func (ps *pass) why(pc *passClass) (Reason, string) {
	tr := ps.explained(pc)
	if len(ps.cat.cols) == 0 && len(ps.c.order) == 0 {
		return ReasonNoPools, "there is no NodePool to create a machine from, and no node"
	}
	code := ReasonNone
	var parts []string
	for i, s := range tr.stages {
		if i == 0 {
			parts = append(parts, fmt.Sprintf("of %d offerings and %d nodes", s.Offerings, s.Nodes))
			if s.Offerings == 0 {
				code = ReasonNoPools
			}
			continue
		}
		prev := tr.stages[i-1]
		detail := s.Name
		if s.Detail != "" {
			detail += " (" + s.Detail + ")"
		}
		parts = append(parts, fmt.Sprintf("%s leaves %d and %d", detail, s.Offerings, s.Nodes))
		if prev.Offerings > 0 && s.Offerings == 0 || len(ps.cat.cols) == 0 && prev.Nodes > 0 && s.Nodes == 0 {
			code = s.Reason
		}
		if s.Offerings == 0 && s.Nodes == 0 {
			break
		}
	}
	if code == ReasonNone {
		code = ReasonSpread
		for _, k := range append(append([]check(nil), pc.v.domain...), pc.v.host...) {
			code = k.reason()
		}
		if len(pc.v.domain)+len(pc.v.host) == 0 {
			code = ReasonMinValues
		}
		parts = append(parts, "together its rules leave no place for one more pod")
	}
	text := strings.Join(parts, "; ")
	for _, m := range tr.misses {
		if m.Reason == code {
			text += fmt.Sprintf("; nearest: %s: %s", m.What, m.Detail)
			break
		}
	}
	return code, text
}

// trace adds the explanations that Options.Trace asks for.
func (ps *pass) trace(p *Plan) {
	if ps.opt.Trace == TraceNone {
		return
	}
	t := &Trace{}
	for _, pc := range ps.classes {
		refused := pc.left() > 0 && !pc.deferred()
		if !refused && ps.opt.Trace != TraceAll {
			continue
		}
		e := ps.explained(pc)
		t.Classes = append(t.Classes, ClassTrace{Class: pc.cl.id, Stages: e.stages, Nearest: e.misses})
	}
	if len(t.Classes) == 0 {
		return
	}
	sort.SliceStable(t.Classes, func(i, j int) bool { return t.Classes[i].Class < t.Classes[j].Class })
	p.Trace = t
}

func taintText(t Taint) string {
	if t.Value == "" {
		return t.Key + ":" + string(t.Effect)
	}
	return t.Key + "=" + t.Value + ":" + string(t.Effect)
}

func (c *Cluster) reqText(r *creq) string {
	t := &c.sym.tab[r.key]
	switch r.op {
	case In, NotIn:
		var vs []string
		for _, v := range r.values {
			vs = append(vs, t.names[v])
		}
		sort.Strings(vs)
		return fmt.Sprintf("%s %s [%s]", t.name, r.op, strings.Join(vs, " "))
	case Exists, DoesNotExist:
		return t.name + " " + string(r.op)
	}
	return fmt.Sprintf("%s %s %d", t.name, r.op, r.num)
}

// describe names a column as pool/type/zone/capacity type.
func (ps *pass) describe(col int32) string {
	cc := &ps.cat.cols[col]
	return strings.Join([]string{ps.cat.pools[cc.pool].p.Name, cc.typ.Name, cc.off.Zone, cc.off.CapacityType}, "/")
}
