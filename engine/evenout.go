// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// evenOutWork bounds EvenOut, in groups of pods looked at.
const evenOutWork = 1 << 20

// EvenOut exchanges pods between machines of a plan that have the same zone, so that a
// machine has no more pods of a class that spreads over zones than the skew allows,
// where that is possible. Price, offerings chosen first, and zone of every pod stay as
// they are. It returns the number of pods moved.
//
// A kube-scheduler counts all pods that are nominated to a node as if they ran there, so
// more of them than the skew refuse each other, and their room can be kept only for one
// after the other. Pods that share a machine with none of their kind can be nominated
// all at once.
//
// The snapshot is the one that the plan was made for. Machines that share their slice of
// offerings with others get one of their own when it changes.
func EvenOut(s *Snapshot, p *Plan) int {
	e := &evenOut{s: s, p: p, work: evenOutWork, movable: make([]bool, len(s.Classes)), skew: make([]int, len(s.Classes)), neutral: make([]bool, len(s.Classes)), types: map[string]*InstanceType{}}
	if !e.classes() {
		return 0
	}
	e.machines()
	for _, key := range e.order {
		for _, id := range e.largestFirst() {
			e.even(id, key)
		}
	}
	if e.moved > 0 {
		e.verdicts()
	}
	return e.moved
}

// largestFirst returns the classes that spread, those that are hardest to exchange
// first.
func (e *evenOut) largestFirst() []ClassID {
	var out []ClassID
	for i, skew := range e.skew {
		if skew > 0 {
			out = append(out, ClassID(i))
		}
	}
	slices.SortFunc(out, e.larger)
	return out
}

// larger compares classes: the one that requests more comes first.
func (e *evenOut) larger(a, b ClassID) int {
	x, y := e.s.Classes[a].Requests, e.s.Classes[b].Requests
	return cmp.Or(cmp.Compare(y[ResourceCPU], x[ResourceCPU]), cmp.Compare(y[ResourceMemory], x[ResourceMemory]), cmp.Compare(a, b))
}

// evenOut is the state of EvenOut.
type evenOut struct {
	s *Snapshot
	p *Plan
	// movable are the classes whose pods may change machines within a zone: no rule but
	// spread over zones has to do with them. skew is that of the classes that spread.
	movable []bool
	skew    []int
	// neutral are the classes that no rule over zones looks at but their own: a machine
	// of such pods may be fixed to a zone.
	neutral []bool
	daemons Resources // of all DaemonSets
	types   map[string]*InstanceType
	zones   map[zoneOf][]*evenMachine // machines that may exchange pods
	order   []zoneOf
	work    int
	moved   int
}

// zoneOf is a zone of a NodePool.
type zoneOf struct{ pool, zone string }

// evenMachine is a machine with room for exchanges.
type evenMachine struct {
	at int // index in Plan.Machines
	// zone is the only zone of its offerings, or "": then it is in the lists of all zones
	// until it is fixed to one.
	zone  string
	slack Resources
	pods  map[ClassID][]string
	count Resources // requests of its pods, for the check of other offerings
	first Resources // the same in the plan as it was
	dirty bool
}

// classes finds the movable classes, and reports whether any of them spreads.
func (e *evenOut) classes() bool {
	var others, zonal []*Selector // of rules that look at pods on a machine, and in a zone
	zonalOf := make([]int, len(e.s.Classes))
	for i := range e.s.Classes {
		c := &e.s.Classes[i]
		for _, list := range [][]AffinityTerm{c.PodAffinity, c.PodAntiAffinity} {
			for j := range list {
				if list[j].Key != LabelZone {
					others = append(others, list[j].Selector)
				} else {
					zonal = append(zonal, list[j].Selector)
					zonalOf[i]++
				}
			}
		}
		for j := range c.Spread {
			if c.Spread[j].Key != LabelZone {
				others = append(others, c.Spread[j].Selector)
			} else {
				zonal = append(zonal, c.Spread[j].Selector)
				zonalOf[i]++
			}
		}
	}
	some := false
	for i := range e.s.Classes {
		c := &e.s.Classes[i]
		e.neutral[i] = zonalOf[i] == 0 && !slices.ContainsFunc(zonal, func(s *Selector) bool { return s.selects(c.Labels) })
		if len(c.NodeSelector)+len(c.NodeAffinity)+len(c.PreferredNodeAffinity)+len(c.PodAffinity)+len(c.PodAntiAffinity)+
			len(c.HostPorts)+len(c.Volumes)+len(c.SharedVolumes)+len(c.VolumeTopology) > 0 {
			continue
		}
		if slices.ContainsFunc(c.Spread, func(s SpreadConstraint) bool { return s.Key != LabelZone }) ||
			slices.ContainsFunc(others, func(s *Selector) bool { return s.selects(c.Labels) }) {
			continue
		}
		e.movable[i] = true
		for _, s := range c.Spread {
			if !s.Soft && s.Selector.selects(c.Labels) {
				e.skew[i], some = int(s.MaxSkew), true
			}
		}
	}
	e.daemons = Resources{}
	for _, d := range e.s.Daemons {
		addResources(e.daemons, e.s.Classes[d].Requests, 1)
		e.daemons[ResourcePods]++
	}
	return some
}

// machines groups the machines of the plan by NodePool and zone.
func (e *evenOut) machines() {
	pools := map[string]int{}
	for i := range e.s.Pools {
		pools[e.s.Pools[i].Name] = i
	}
	for _, c := range e.s.Catalogues {
		for j := range c.InstanceTypes {
			e.types[c.InstanceTypes[j].Name] = &c.InstanceTypes[j]
		}
	}
	e.zones = map[zoneOf][]*evenMachine{}
	var flexible []*evenMachine
	for i := range e.p.Machines {
		m := &e.p.Machines[i]
		pool, ok := pools[m.NodePool]
		if !ok || slices.ContainsFunc(m.Requirements, func(r Requirement) bool { return r.MinValues > 0 }) {
			continue
		}
		em := e.machine(i, pool)
		switch {
		case em == nil:
		case em.zone != "":
			key := zoneOf{m.NodePool, em.zone}
			if e.zones[key] == nil {
				e.order = append(e.order, key)
			}
			e.zones[key] = append(e.zones[key], em)
		case !slices.ContainsFunc(m.Pods, func(g PodGroup) bool { return !e.neutral[g.Class] }):
			flexible = append(flexible, em)
		}
	}
	if slices.ContainsFunc(e.s.Daemons, e.zonalDaemon) {
		flexible = nil // what a machine has to hold beside its pods depends on the zone
	}
	for _, em := range flexible {
		for _, key := range e.order {
			if key.pool == e.p.Machines[em.at].NodePool {
				e.zones[key] = append(e.zones[key], em)
			}
		}
	}
}

// zonalDaemon reports whether pods of a DaemonSet run in some zones only.
func (e *evenOut) zonalDaemon(id ClassID) bool {
	zonal := func(list []Requirement) bool {
		return slices.ContainsFunc(list, func(r Requirement) bool { return r.Key == LabelZone })
	}
	return zonal(e.s.Classes[id].NodeSelector) || slices.ContainsFunc(e.s.Classes[id].NodeAffinity, zonal)
}

// machine returns a machine of the plan with its room, nil if its instance type is
// unknown or it has an offering without a zone.
func (e *evenOut) machine(at, pool int) *evenMachine {
	m := &e.p.Machines[at]
	it := e.typeOf(pool, m.Offerings[0].InstanceType)
	if it == nil || slices.ContainsFunc(m.Offerings, func(o RankedOffering) bool { return o.Zone == "" }) {
		return nil
	}
	em := &evenMachine{at: at, slack: maps.Clone(it.Allocatable), pods: map[ClassID][]string{}, count: Resources{}}
	if zone := m.Offerings[0].Zone; !slices.ContainsFunc(m.Offerings, func(o RankedOffering) bool { return o.Zone != zone }) {
		em.zone = zone
	}
	addResources(em.slack, m.Requests, -1)
	n := 0
	for _, g := range m.Pods {
		em.pods[g.Class] = append(em.pods[g.Class], g.Pods...)
		addResources(em.count, e.s.Classes[g.Class].Requests, int64(len(g.Pods)))
		n += len(g.Pods)
	}
	em.count[ResourcePods] = int64(n)
	em.first = maps.Clone(em.count)
	if _, limited := it.Allocatable[ResourcePods]; !limited {
		em.slack[ResourcePods] = math.MaxInt32
	}
	if _, counted := m.Requests[ResourcePods]; !counted {
		em.slack[ResourcePods] -= int64(n) + e.daemons[ResourcePods]
	}
	return em
}

// in reports whether a machine is in a zone, or can be fixed to it at the price and
// with the instance type that the plan counts with.
func (e *evenOut) in(m *evenMachine, zone string) bool {
	return m.zone == zone || m.zone == "" && slices.ContainsFunc(e.p.Machines[m.at].Offerings, func(o RankedOffering) bool { return e.same(m, o, zone) })
}

// same reports whether an offering is the first one of a machine, in a given zone.
func (e *evenOut) same(m *evenMachine, o RankedOffering, zone string) bool {
	first := e.p.Machines[m.at].Offerings[0]
	return o.Zone == zone && o.InstanceType == first.InstanceType && o.CapacityType == first.CapacityType && o.ReservationID == first.ReservationID &&
		o.PriceUSDPerHour == first.PriceUSDPerHour
}

// typeOf returns an instance type of a NodePool's catalogue, nil if it is not there.
func (e *evenOut) typeOf(pool int, name string) *InstanceType {
	list := e.s.Catalogues[e.s.Pools[pool].Catalogue].InstanceTypes
	if it := e.types[name]; it != nil && len(e.s.Catalogues) == 1 {
		return it
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// addResources adds n times r to sum.
func addResources(sum, r Resources, n int64) {
	for k, v := range r {
		sum[k] += n * v
	}
}

// even moves pods of a class off the machines that have too many of them.
func (e *evenOut) even(id ClassID, key zoneOf) {
	zone := e.zones[key]
	for _, from := range zone {
		for len(from.pods[id]) > e.skew[id] {
			done := false
			for _, to := range zone {
				if to != from && len(to.pods[id]) < e.skew[id] && e.in(to, key.zone) && e.exchange(id, from, to) {
					to.zone, done = key.zone, true
					break
				}
				if e.work <= 0 {
					return
				}
			}
			if !done {
				break
			}
		}
	}
}

// exchange moves a pod of a class from one machine to another, which gives back pods
// that make room for it. It reports whether it could.
func (e *evenOut) exchange(id ClassID, from, to *evenMachine) bool {
	size := e.size(id)
	back := map[ClassID]int{}
	given := Resources{}
	if !covers(to.slack, given, size) {
		var candidates []ClassID
		for q, pods := range to.pods {
			if q != id && e.movable[q] && len(pods) > 0 {
				candidates = append(candidates, q)
			}
		}
		e.work -= len(to.pods)
		slices.SortFunc(candidates, e.larger)
		for _, q := range candidates {
			one := e.size(q)
			for n := range len(to.pods[q]) {
				if covers(to.slack, given, size) || e.skew[q] > 0 && len(from.pods[q])+n >= e.skew[q] {
					break
				}
				// What comes back has to fit where the pod leaves.
				addResources(given, one, 1)
				if !covers(from.slack, size, given) {
					addResources(given, one, -1)
					break
				}
				back[q]++
			}
		}
		if !covers(to.slack, given, size) {
			return false
		}
	}
	if !e.offeringsLeft(from, given, size) || !e.offeringsLeft(to, size, given) {
		return false
	}
	e.move(id, 1, from, to)
	for _, q := range slices.Sorted(maps.Keys(back)) {
		e.move(q, back[q], to, from)
	}
	return true
}

// size returns what a pod of a class takes.
func (e *evenOut) size(id ClassID) Resources {
	r := maps.Clone(e.s.Classes[id].Requests)
	if r == nil {
		r = Resources{}
	}
	r[ResourcePods] = 1
	return r
}

// covers reports whether slack and what is freed hold what is wanted.
func covers(slack, freed, wanted Resources) bool {
	for k, v := range wanted {
		if v > 0 && slack[k]+freed[k] < v {
			return false
		}
	}
	return true
}

// offeringsLeft reports whether the first offering of a machine is not the only one
// left that holds its pods after an exchange, unless it was before.
func (e *evenOut) offeringsLeft(m *evenMachine, comes, goes Resources) bool {
	offerings := e.p.Machines[m.at].Offerings
	if len(offerings) == 1 || m.zone == "" {
		return true
	}
	total := maps.Clone(m.count)
	addResources(total, comes, 1)
	addResources(total, goes, -1)
	return slices.ContainsFunc(offerings[1:], func(o RankedOffering) bool { return e.holds(m, o, total) })
}

// holds reports whether an offering of a machine holds pods that request the total.
func (e *evenOut) holds(m *evenMachine, o RankedOffering, total Resources) bool {
	pool := slices.IndexFunc(e.s.Pools, func(p NodePool) bool { return p.Name == e.p.Machines[m.at].NodePool })
	it := e.typeOf(pool, o.InstanceType)
	if it == nil {
		return false
	}
	for k, v := range total {
		// It held what the machine had, with the daemons that it has.
		if v > m.first[k] && it.Allocatable[k] < v+e.daemons[k] {
			return false
		}
	}
	return true
}

// move moves the last pods of a class.
func (e *evenOut) move(id ClassID, n int, from, to *evenMachine) {
	list := from.pods[id]
	to.pods[id] = append(slices.Clone(to.pods[id]), list[len(list)-n:]...)
	from.pods[id] = list[:len(list)-n]
	size := e.size(id)
	for _, m := range []struct {
		m *evenMachine
		n int64
	}{{from, -int64(n)}, {to, int64(n)}} {
		addResources(m.m.count, size, m.n)
		addResources(m.m.slack, size, -m.n)
		m.m.dirty = true
	}
	e.moved += n
}

// verdicts writes the machines back, and the verdicts that name them.
func (e *evenOut) verdicts() {
	at := map[string]int{}
	for _, key := range e.order {
		for _, em := range e.zones[key] {
			if !em.dirty {
				continue
			}
			em.dirty = false
			m := &e.p.Machines[em.at]
			first := slices.IndexFunc(m.Offerings, func(o RankedOffering) bool { return e.same(em, o, em.zone) })
			offerings := []RankedOffering{m.Offerings[first]}
			for i, o := range m.Offerings {
				if i != first && o.Zone == em.zone && e.holds(em, o, em.count) {
					offerings = append(offerings, o)
				}
			}
			m.Offerings = offerings
			requests := maps.Clone(m.Requests)
			for k := range requests {
				requests[k] += em.count[k] - em.first[k]
			}
			var pods []PodGroup
			for _, id := range slices.Sorted(maps.Keys(em.pods)) {
				if list := em.pods[id]; len(list) > 0 {
					pods = append(pods, PodGroup{Class: id, Pods: list})
					for _, pod := range list {
						at[pod] = em.at
					}
				}
			}
			m.Requests, m.Pods = requests, pods
		}
	}
	var out []Verdict
	for _, v := range e.p.Verdicts {
		if v.Outcome != OnMachine {
			out = append(out, v)
			continue
		}
		var order []int
		split := map[int][]string{}
		for _, pod := range v.Pods {
			to, ok := at[pod]
			if !ok {
				to = v.Machine
			}
			if _, there := split[to]; !there {
				order = append(order, to)
			}
			split[to] = append(split[to], pod)
		}
		for _, to := range order {
			part := v
			part.Machine, part.Pods = to, split[to]
			out = append(out, part)
		}
	}
	e.p.Verdicts = out
}
