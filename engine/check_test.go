// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"slices"

	. "github.com/nap-aks/nap/engine"
)

// This file checks plans by brute force. It shares no code with the engine: it
// works pod by pod on label maps, as the Kubernetes documentation describes each
// rule, and is slow and simple on purpose.

// verify checks a plan against its snapshot. It returns the first violation.
func verify(s *Snapshot, p *Plan, opt Options) error {
	c := &planCheck{world: newWorld(s), p: p, opt: opt, usage: map[string]Resources{}, quota: make([]int64, len(s.Quotas)), reserved: map[string]int{}}
	for _, step := range []func() error{c.verdicts, c.placements, c.machines, c.costs, c.amounts, c.everyPodIsPlaced, c.verifyState, c.refusals} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// planCheck is a plan that is being checked, and what its machines use.
type planCheck struct {
	*world
	p        *Plan
	opt      Options
	where    map[string]string // where the verdicts say that pods are; emptied as pods are found there
	usage    map[string]Resources
	quota    []int64
	reserved map[string]int
	cost     float64
}

// verdicts checks that every pending pod has one verdict.
func (c *planCheck) verdicts() error {
	want := map[string]ClassID{}
	for _, g := range c.s.Pending {
		for _, pod := range g.Pods {
			want[pod] = g.Class
		}
	}
	c.where = map[string]string{}
	for _, v := range c.p.Verdicts {
		for _, pod := range v.Pods {
			if _, dup := c.where[pod]; dup {
				return fmt.Errorf("pod %s is in two verdicts", pod)
			}
			if want[pod] != v.Class {
				return fmt.Errorf("pod %s has the wrong class", pod)
			}
			c.where[pod] = string(v.Outcome) + "/" + v.Node
			if v.Outcome == OnMachine {
				c.where[pod] = fmt.Sprintf("%s/%d", v.Outcome, v.Machine)
			}
			if (v.Outcome == Refused || v.Outcome == Deferred) && (v.Reason == "" || v.Code == "") {
				return fmt.Errorf("pod %s is refused without a reason", pod)
			}
		}
	}
	if len(c.where) != len(want) {
		return fmt.Errorf("%d pods pending, %d with a verdict", len(want), len(c.where))
	}
	return nil
}

// onto puts pods of the plan on a host.
func (c *planCheck) onto(h *host, gs []PodGroup, at string) error {
	for _, g := range gs {
		for _, pod := range g.Pods {
			if c.where[pod] != at {
				return fmt.Errorf("pod %s is on %s, its verdict says %s", pod, at, c.where[pod])
			}
			delete(c.where, pod)
			h.pods = append(h.pods, g.Class)
			h.added[g.Class]++
		}
	}
	return nil
}

// placements checks the nodes of the plan and puts its pods there.
func (c *planCheck) placements() error {
	for _, pl := range c.p.Placements {
		i := slices.IndexFunc(c.hosts, func(h *host) bool { return h.name == pl.Node })
		if i < 0 {
			return fmt.Errorf("placement on the unknown node %s", pl.Node)
		}
		h := c.hosts[i]
		if h.closed {
			return fmt.Errorf("placement on the closed node %s", pl.Node)
		}
		if err := c.onto(h, pl.Pods, string(OnNode)+"/"+pl.Node); err != nil {
			return err
		}
	}
	return nil
}

// machines checks the machines of the plan and adds them to the world.
func (c *planCheck) machines() error {
	s := c.s
	for i := range c.p.Machines {
		m := &c.p.Machines[i]
		pi := slices.IndexFunc(s.Pools, func(n NodePool) bool { return n.Name == m.NodePool })
		if pi < 0 || s.Pools[pi].Blocked != "" {
			return fmt.Errorf("machine %d is of NodePool %q, which is not there or blocked", i, m.NodePool)
		}
		pool := &s.Pools[pi]
		if len(m.Offerings) == 0 || len(m.Pods) == 0 {
			return fmt.Errorf("machine %d has %d offerings and %d pods", i, len(m.Offerings), len(m.Pods))
		}
		c.cost += m.PriceUSDPerHour
		for oi, r := range m.Offerings {
			if err := c.offering(i, m, pool, oi, r); err != nil {
				return err
			}
		}
		if err := c.minValues(i, m, pool); err != nil {
			return err
		}
	}
	return nil
}

// offering checks an offering of a machine. The first one is what the machine
// will be.
func (c *planCheck) offering(i int, m *Machine, pool *NodePool, oi int, r RankedOffering) error {
	s := c.s
	it, o := findOffering(s, pool, r)
	if it == nil {
		return fmt.Errorf("machine %d: offering %v does not exist", i, r)
	}
	if !o.Available {
		return fmt.Errorf("machine %d: offering %v is not available", i, r)
	}
	h := c.freshHost(fmt.Sprintf("machine-%d", i), pool, it, o, m.Requirements)
	for _, g := range m.Pods {
		if err := c.static(&s.Classes[g.Class], h); err != nil {
			return fmt.Errorf("machine %d, offering %v, pod %s: %w", i, r, g.Pods[0], err)
		}
		for range g.Pods {
			h.pods = append(h.pods, g.Class)
		}
	}
	if err := c.room(h); err != nil {
		return fmt.Errorf("machine %d, offering %v: %w", i, r, err)
	}
	if oi > 0 {
		return nil
	}
	h.pods = nil
	if err := c.onto(h, m.Pods, fmt.Sprintf("%s/%d", OnMachine, i)); err != nil {
		return err
	}
	c.hosts = append(c.hosts, h)
	u := c.usage[pool.Name]
	if u == nil {
		u = Resources{}
		c.usage[pool.Name] = u
	}
	cp := it.Capacity
	if o.Capacity != nil {
		cp = o.Capacity
	}
	for k, v := range cp {
		u[k] += v
	}
	u[ResourceNodes]++
	for _, q := range o.Charges {
		c.quota[q.Quota] += q.Amount
	}
	if o.ReservationID != "" {
		c.reserved[o.ReservationID]++
		if c.reserved[o.ReservationID] > o.ReservationRemaining {
			return fmt.Errorf("reservation %s is overdrawn", o.ReservationID)
		}
	}
	return nil
}

// minValues checks that a machine's offerings have enough different values.
func (c *planCheck) minValues(i int, m *Machine, pool *NodePool) error {
	for _, r := range pool.Requirements {
		if r.MinValues == 0 || c.opt.MinValues == MinValuesBestEffort {
			continue
		}
		vals := map[string]bool{}
		for _, ro := range m.Offerings {
			it, o := findOffering(c.s, pool, ro)
			h := c.freshHost("x", pool, it, o, m.Requirements)
			for _, v := range h.labels[r.Key] {
				vals[v] = true
			}
		}
		if len(vals) < r.MinValues {
			return fmt.Errorf("machine %d keeps %d values of %s, minValues is %d", i, len(vals), r.Key, r.MinValues)
		}
	}
	return nil
}

// costs checks the sums of prices and the bound.
func (c *planCheck) costs() error {
	p := c.p
	if d := c.cost - p.CostUSDPerHour; d > 1e-6 || d < -1e-6 {
		return fmt.Errorf("plan says $%f, its machines cost $%f", p.CostUSDPerHour, c.cost)
	}
	if p.Bound != nil && p.Bound.USDPerHour > c.cost+1e-6 {
		return fmt.Errorf("plan costs $%f, below its bound $%f", c.cost, p.Bound.USDPerHour)
	}
	if p.CostUSDPerHour > p.QuickCostUSDPerHour+1e-6 {
		return fmt.Errorf("plan costs $%f, the quick one $%f", p.CostUSDPerHour, p.QuickCostUSDPerHour)
	}
	return nil
}

// amounts checks limits and quotas.
func (c *planCheck) amounts() error {
	s := c.s
	for i := range s.Pools {
		for k, lim := range s.Pools[i].Limits {
			if u := c.usage[s.Pools[i].Name][k]; u > 0 && s.Pools[i].Usage[k]+u > lim {
				return fmt.Errorf("NodePool %s: %s %d of %d", s.Pools[i].Name, k, s.Pools[i].Usage[k]+u, lim)
			}
		}
	}
	for i, q := range c.quota {
		if q > 0 && q > s.Quotas[i].Remaining {
			return fmt.Errorf("quota %s: %d of %d", s.Quotas[i].Name, q, s.Quotas[i].Remaining)
		}
	}
	return nil
}

// everyPodIsPlaced checks that pods with a place are in a machine or placement.
func (c *planCheck) everyPodIsPlaced() error {
	for pod, at := range c.where {
		if at != string(Refused)+"/" && at != string(Deferred)+"/" {
			return fmt.Errorf("pod %s has the verdict %s but is nowhere", pod, at)
		}
	}
	return nil
}

// freshHost returns a machine of an offering as its Node will be.
func (w *world) freshHost(name string, pool *NodePool, it *InstanceType, o *Offering, reqs []Requirement) *host {
	h := &host{name: name, labels: map[string][]string{}, taints: pool.Taints, alloc: it.Allocatable, limits: it.VolumeLimits, fresh: true, added: map[ClassID]int{}}
	if o.Allocatable != nil {
		h.alloc = o.Allocatable
	}
	cand := map[string][]string{}
	for _, r := range append(slices.Clone(pool.Requirements), reqs...) {
		if r.Operator == In {
			cand[r.Key] = r.Values
		} else if r.Operator != DoesNotExist && cand[r.Key] == nil {
			cand[r.Key] = []string{"<some value>"}
		}
	}
	for k, v := range pool.Labels {
		cand[k] = []string{v}
	}
	for _, r := range it.Requirements {
		switch r.Operator {
		case In:
			cand[r.Key] = r.Values
		case DoesNotExist:
			delete(cand, r.Key)
		}
	}
	for k, v := range o.Labels {
		cand[k] = []string{v}
	}
	set := func(k, v string) {
		delete(cand, k)
		if v != "" {
			cand[k] = []string{v}
		}
	}
	set(LabelZone, o.Zone)
	set(LabelCapacityType, o.CapacityType)
	set(LabelInstanceType, it.Name)
	set(LabelNodePool, pool.Name)
	set(LabelHostname, name)
	if o.ReservationID != "" {
		set(LabelReservationID, o.ReservationID)
	}
	for k, vs := range cand {
		for _, v := range vs {
			ok := true
			for _, r := range append(slices.Clone(pool.Requirements), reqs...) {
				if r.Key == k && v != "<some value>" && !holdsValue(r, v, true) {
					ok = false
				}
			}
			if l, has := pool.Labels[k]; has && l != v {
				ok = false
			}
			if ok {
				h.labels[k] = append(h.labels[k], v)
			}
		}
	}
	for _, d := range w.s.Daemons {
		p := &w.s.Classes[d]
		if taintsTolerated(p, h) == nil && affinityHolds(p, h) {
			h.daemons = append(h.daemons, d)
		}
	}
	return h
}

// newWorld returns the world before the plan.
func newWorld(s *Snapshot) *world {
	w := &world{s: s}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Gone {
			continue
		}
		h := &host{name: n.Name, labels: map[string][]string{}, alloc: Resources{}, limits: n.VolumeLimits, pods: clonePods(n.Pods), closed: n.Closed != "", added: map[ClassID]int{}}
		for k, v := range n.Labels {
			h.labels[k] = []string{v}
		}
		for _, r := range n.Undecided {
			h.labels[r.Key] = r.Values
		}
		h.old = slices.Clone(h.pods)
		if len(h.labels[LabelHostname]) == 0 {
			h.labels[LabelHostname] = []string{n.Name}
		}
		for k, v := range n.Allocatable {
			h.alloc[k] = v - n.Reserved[k]
		}
		for _, t := range n.Taints {
			if !n.Initialized && slices.Contains(n.StartupTaints, t) {
				continue
			}
			h.taints = append(h.taints, t)
		}
		for _, d := range n.MissingDaemons {
			p := &s.Classes[d]
			switch {
			case w.static(p, h) == nil:
				h.daemons = append(h.daemons, d)
			case slices.ContainsFunc(h.outcomes(), func(o *host) bool { return w.static(p, o) == nil }):
				h.perhaps = append(h.perhaps, d)
			}
		}
		w.hosts = append(w.hosts, h)
	}
	return w
}

func findOffering(s *Snapshot, pool *NodePool, r RankedOffering) (*InstanceType, *Offering) {
	types := s.Catalogues[pool.Catalogue].InstanceTypes
	for i := range types {
		if types[i].Name != r.InstanceType {
			continue
		}
		for j := range types[i].Offerings {
			o := &types[i].Offerings[j]
			if o.Zone == r.Zone && o.CapacityType == r.CapacityType && o.ReservationID == r.ReservationID && o.PriceUSDPerHour == r.PriceUSDPerHour {
				return &types[i], o
			}
		}
	}
	return nil, nil
}

// verifyState checks the hosts after the plan.
func (w *world) verifyState() error {
	for _, h := range w.hosts {
		if len(h.added) == 0 {
			continue
		}
		if err := w.room(h); err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
		for id, n := range h.added {
			p := &w.s.Classes[id]
			if err := w.static(p, h); err != nil {
				return fmt.Errorf("host %s, class %s: %w", h.name, p.Name, err)
			}
			if err := w.settled(p, h, n); err != nil {
				return fmt.Errorf("host %s, class %s: %w", h.name, p.Name, err)
			}
		}
	}
	return nil
}

// settled checks the topology rules of pods that are in place.
func (w *world) settled(p *PodClass, h *host, n int) error {
	for _, id := range h.daemons {
		if o := &w.s.Classes[id]; setApart(p, o, h, h) || setApart(o, p, h, h) {
			return fmt.Errorf("anti-affinity with the daemon %s", o.Name)
		}
	}
	for _, t := range p.PodAntiAffinity {
		if t.Weight > 0 {
			continue
		}
		d, has := h.domain(t.Key)
		if !has {
			if len(h.labels[t.Key]) > 1 {
				return fmt.Errorf("anti-affinity over %s, which is not decided", t.Key)
			}
			continue
		}
		c := w.count(t.Key, anyHost, func(o *PodClass) bool { return termSelects(t, p, o) })[d]
		if termSelects(t, p, p) {
			c--
		}
		if c > 0 {
			return fmt.Errorf("anti-affinity over %s", t.Key)
		}
	}
	for _, t := range p.PodAffinity {
		if t.Weight > 0 {
			continue
		}
		d, has := h.domain(t.Key)
		if !has {
			return fmt.Errorf("affinity over %s, which is not there", t.Key)
		}
		daemon := slices.ContainsFunc(w.hosts, func(o *host) bool {
			a, ok := o.domain(t.Key)
			return ok && a == d && slices.ContainsFunc(o.daemons, func(id ClassID) bool { return termSelects(t, p, &w.s.Classes[id]) })
		})
		if !daemon && w.count(t.Key, anyHost, func(o *PodClass) bool { return termSelects(t, p, o) })[d] == 0 {
			return fmt.Errorf("affinity over %s", t.Key)
		}
	}
	for _, s := range p.Spread {
		if s.Soft {
			continue
		}
		d, has := h.domain(s.Key)
		if !has {
			return fmt.Errorf("spread over %s, which is not there", s.Key)
		}
		if !w.ownersOnly(p, s) {
			continue // others move the counts without being bound by them
		}
		eligible := eligibleFor(p, s)
		c := w.count(s.Key, eligible, func(o *PodClass) bool { return o.Namespace == p.Namespace && matches(s.Selector, o.Labels) })
		least, domains := w.least(c, s, eligible, h)
		if domains < int(s.MinDomains) || s.Key == LabelHostname {
			least = 0
		}
		if c[d]-least > int(s.MaxSkew) {
			return fmt.Errorf("spread over %s: %v", s.Key, c)
		}
	}
	return nil
}

// ownersOnly reports whether all pods that a constraint counts are of the class
// that has it.
func (w *world) ownersOnly(p *PodClass, s SpreadConstraint) bool {
	if !matches(s.Selector, p.Labels) {
		return false
	}
	for i := range w.s.Classes {
		o := &w.s.Classes[i]
		if o != p && o.Namespace == p.Namespace && matches(s.Selector, o.Labels) {
			return false
		}
	}
	return true
}

// newDomain reports whether a host would be the first one in a domain that the
// spread of some class counts. An empty domain could break the spread of other
// pods.
func (w *world) newDomain(h *host) bool {
	for i := range w.s.Classes {
		for _, s := range w.s.Classes[i].Spread {
			if s.Key == LabelHostname {
				continue
			}
			for _, val := range h.labels[s.Key] {
				if !slices.ContainsFunc(w.hosts, func(o *host) bool { return slices.Contains(o.labels[s.Key], val) }) {
					return true
				}
			}
		}
	}
	return false
}

// refusals checks that no refused pod has an obvious place in the world after the
// plan, neither on a host nor on one more machine.
func (w *planCheck) refusals() error {
	s := w.s
	for _, v := range w.p.Verdicts {
		if v.Outcome != Refused {
			continue
		}
		c := &s.Classes[v.Class]
		for _, h := range w.hosts {
			if h.closed || h.fresh {
				continue
			}
			if w.static(c, h) == nil && w.room(h, v.Class) == nil && w.topology(c, h) == nil && decided(c, h) {
				return fmt.Errorf("pod %s is refused (%s) but fits on %s", v.Pods[0], v.Reason, h.name)
			}
		}
		for pi := range s.Pools {
			pool := &s.Pools[pi]
			if pool.Blocked != "" || slices.ContainsFunc(pool.Requirements, func(r Requirement) bool { return r.MinValues > 0 }) {
				continue
			}
			for ti := range s.Catalogues[pool.Catalogue].InstanceTypes {
				it := &s.Catalogues[pool.Catalogue].InstanceTypes[ti]
				for oi := range it.Offerings {
					o := &it.Offerings[oi]
					if !o.Available || !w.affordable(pool, it, o) {
						continue
					}
					h := w.freshHost("one-more", pool, it, o, nil)
					if !compatible(pool, it, o) || w.static(c, h) != nil || w.room(h, v.Class) != nil {
						continue
					}
					if w.topology(c, h) == nil && decided(c, h) && !w.newDomain(h) {
						return fmt.Errorf("pod %s is refused (%s) but fits on a new %s/%s/%s/%s", v.Pods[0], v.Reason, pool.Name, it.Name, o.Zone, o.CapacityType)
					}
				}
			}
		}
	}
	return nil
}

// decided reports whether all topology keys of the class have one value on the
// host.
func decided(c *PodClass, h *host) bool {
	ok := func(k string) bool { _, has := h.domain(k); return has || len(h.labels[k]) == 0 }
	for _, s := range c.Spread {
		if !ok(s.Key) {
			return false
		}
	}
	for _, t := range append(slices.Clone(c.PodAffinity), c.PodAntiAffinity...) {
		if !ok(t.Key) {
			return false
		}
	}
	return true
}

func compatible(pool *NodePool, it *InstanceType, o *Offering) bool {
	value := func(k string) (string, bool, bool) {
		switch k {
		case LabelZone:
			return o.Zone, o.Zone != "", true
		case LabelCapacityType:
			return o.CapacityType, o.CapacityType != "", true
		}
		if v, ok := o.Labels[k]; ok {
			return v, true, true
		}
		return "", false, false
	}
	for _, r := range pool.Requirements {
		if v, present, known := value(r.Key); known && !holdsValue(r, v, present) {
			return false
		} else if known {
			continue
		}
		for _, tr := range it.Requirements {
			if tr.Key != r.Key {
				continue
			}
			if tr.Operator == In && !slices.ContainsFunc(tr.Values, func(v string) bool { return holdsValue(r, v, true) }) {
				return false
			}
			if tr.Operator == DoesNotExist && !holdsValue(r, "", false) {
				return false
			}
		}
	}
	for k, v := range pool.Labels {
		if ov, present, known := value(k); known && (!present || ov != v) {
			return false
		}
		for _, tr := range it.Requirements {
			if tr.Key == k && (tr.Operator == DoesNotExist || tr.Operator == In && !slices.Contains(tr.Values, v)) {
				return false
			}
		}
	}
	return true
}

// affordable reports whether limits, quotas and reservations leave room for one
// more machine.
func (w *planCheck) affordable(pool *NodePool, it *InstanceType, o *Offering) bool {
	cp := it.Capacity
	if o.Capacity != nil {
		cp = o.Capacity
	}
	for k, lim := range pool.Limits {
		need := cp[k]
		if k == ResourceNodes {
			need = 1
		}
		if pool.Usage[k]+w.usage[pool.Name][k]+need > lim {
			return false
		}
	}
	for _, q := range o.Charges {
		if w.quota[q.Quota]+q.Amount > w.s.Quotas[q.Quota].Remaining {
			return false
		}
	}
	return o.ReservationID == "" || w.reserved[o.ReservationID] < o.ReservationRemaining
}
