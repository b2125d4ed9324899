package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	. "github.com/nap-aks/nap/engine"
)

// This file checks plans by brute force. It shares no code with the engine: it
// works pod by pod on label maps, the way the Kubernetes documentation
// describes each rule, and it is slow and simple on purpose.

// host is a node or a planned machine, as the checker sees it.
type host struct {
	name    string
	labels  map[string][]string // the values each label can have
	taints  []Taint
	alloc   Resources
	limits  map[string]int // volumes per driver
	pods    []ClassID
	daemons []ClassID // their room is kept
	old     []ClassID // pods that were there before the plan
	closed  bool
	fresh   bool
	added   map[ClassID]int
}

type world struct {
	s     *Snapshot
	hosts []*host
}

func clonePods(gs []PodGroup) []ClassID {
	var out []ClassID
	for _, g := range gs {
		for range g.Pods {
			out = append(out, g.Class)
		}
	}
	return out
}

func holdsValue(r Requirement, v string, present bool) bool {
	num := func(s string) (int64, bool) { n, err := strconv.ParseInt(s, 10, 64); return n, err == nil }
	switch r.Operator {
	case In:
		return present && slices.Contains(r.Values, v)
	case NotIn:
		return !present || !slices.Contains(r.Values, v)
	case Exists:
		return present
	case DoesNotExist:
		return !present
	}
	a, ok1 := num(v)
	b, ok2 := num(r.Values[0])
	if !present || !ok1 || !ok2 {
		return false
	}
	switch r.Operator {
	case Gt:
		return a > b
	case Lt:
		return a < b
	case Gte:
		return a >= b
	case Lte:
		return a <= b
	}
	return false
}

// holds: a requirement must hold for every value the label can have.
func (h *host) holds(r Requirement) bool {
	vs := h.labels[r.Key]
	if len(vs) == 0 {
		return holdsValue(r, "", false)
	}
	for _, v := range vs {
		if !holdsValue(r, v, true) {
			return false
		}
	}
	return true
}

func (h *host) holdsAll(rs []Requirement) bool {
	for _, r := range rs {
		if !h.holds(r) {
			return false
		}
	}
	return true
}

// holdsAny: for every way to settle the labels, one of the terms holds.
func (h *host) holdsAny(terms [][]Requirement) bool {
	for _, t := range terms {
		for _, r := range t {
			if vs := h.labels[r.Key]; len(vs) > 1 {
				for _, v := range vs {
					one := *h
					one.labels = maps.Clone(h.labels)
					one.labels[r.Key] = []string{v}
					if !one.holdsAny(terms) {
						return false
					}
				}
				return true
			}
		}
	}
	for _, t := range terms {
		if h.holdsAll(t) {
			return true
		}
	}
	return false
}

func tolerated(ts []Toleration, t Taint) bool {
	for _, o := range ts {
		if (o.Effect == "" || o.Effect == t.Effect) && (o.Key == "" || o.Key == t.Key) && (o.Operator == "Exists" || o.Key != "" && o.Value == t.Value) {
			return true
		}
	}
	return false
}

func matches(sel *Selector, labels map[string]string) bool {
	if sel == nil {
		return false
	}
	for _, r := range sel.Requirements {
		v, ok := labels[r.Key]
		if !holdsValue(r, v, ok) {
			return false
		}
	}
	return true
}

func termSelects(t AffinityTerm, owner, other *PodClass) bool {
	ns := t.Namespaces
	if len(ns) == 0 {
		ns = []string{owner.Namespace}
	}
	return (t.AllNamespaces || slices.Contains(ns, other.Namespace)) && matches(t.Selector, other.Labels)
}

func (h *host) domain(key string) (string, bool) {
	if key == LabelHostname {
		return h.name, true
	}
	if vs := h.labels[key]; len(vs) == 1 {
		return vs[0], true
	}
	return "", false
}

// affinityHolds: node selector and required node affinity.
func affinityHolds(p *PodClass, h *host) bool {
	return h.holdsAll(p.NodeSelector) && (len(p.NodeAffinity) == 0 || h.holdsAny(nonEmpty(p.NodeAffinity)))
}

func nonEmpty(terms [][]Requirement) [][]Requirement {
	return slices.DeleteFunc(slices.Clone(terms), func(t []Requirement) bool { return len(t) == 0 })
}

func taintsTolerated(p *PodClass, h *host) error {
	for _, t := range h.taints {
		if t.Effect != PreferNoSchedule && !tolerated(p.Tolerations, t) {
			return fmt.Errorf("taint %v", t)
		}
	}
	return nil
}

// static checks what does not depend on other pods.
func (w *world) static(p *PodClass, h *host) error {
	if err := taintsTolerated(p, h); err != nil {
		return err
	}
	if !affinityHolds(p, h) {
		return fmt.Errorf("node affinity")
	}
	for _, v := range p.VolumeTopology {
		if !h.holdsAny(v.Terms) {
			return fmt.Errorf("volume topology")
		}
	}
	return nil
}

// room checks resources, ports and volumes of a whole host, as far as the pods
// added by the plan and the extra ones use them: what was overcommitted before
// is not the plan's fault.
func (w *world) room(h *host, extra ...ClassID) error {
	used := map[string]bool{ResourcePods: true}
	drivers := map[string]bool{}
	ports0 := map[int32]bool{}
	note := func(id ClassID) {
		p := &w.s.Classes[id]
		for k, v := range p.Requests {
			used[k] = used[k] || v > 0
		}
		for d := range p.Volumes {
			drivers[d] = true
		}
		for _, v := range p.SharedVolumes {
			drivers[v.Driver] = true
		}
		for _, hp := range p.HostPorts {
			ports0[hp.Port] = true
		}
	}
	for id := range h.added {
		note(id)
	}
	for _, id := range extra {
		note(id)
	}
	if h.fresh {
		for _, id := range h.pods {
			note(id)
		}
	}
	sum := Resources{}
	vols := map[string]int{}
	shared := map[SharedVolume]bool{}
	type port struct {
		p HostPort
		i int
	}
	var ports []port
	all := append(append(append([]ClassID(nil), h.pods...), h.daemons...), extra...)
	for i, id := range all {
		p := &w.s.Classes[id]
		for k, v := range p.Requests {
			sum[k] += v
		}
		sum[ResourcePods]++
		for d, n := range p.Volumes {
			vols[d] += n
		}
		for _, v := range p.SharedVolumes {
			if !shared[v] {
				shared[v] = true
				vols[v.Driver]++
			}
		}
		for _, hp := range p.HostPorts {
			for _, o := range ports {
				if ports0[hp.Port] && o.i != i && o.p.Port == hp.Port && proto(o.p) == proto(hp) && (o.p.IP == hp.IP || o.p.IP == "" || hp.IP == "" || o.p.IP == "0.0.0.0" || hp.IP == "0.0.0.0") {
					return fmt.Errorf("host port %d", hp.Port)
				}
			}
			ports = append(ports, port{hp, i})
		}
	}
	for k, v := range sum {
		have, listed := h.alloc[k]
		if k == ResourcePods && !listed {
			continue
		}
		if v > have && v > 0 && used[k] {
			return fmt.Errorf("%s: %d of %d", k, v, have)
		}
	}
	before := map[string]int{}
	seen := map[SharedVolume]bool{}
	for _, id := range h.old {
		p := &w.s.Classes[id]
		for d, n := range p.Volumes {
			before[d] += n
		}
		for _, v := range p.SharedVolumes {
			if !seen[v] {
				seen[v] = true
				before[v.Driver]++
			}
		}
	}
	for d, n := range vols {
		if lim, ok := h.limits[d]; ok && n > lim && n > before[d] && drivers[d] {
			return fmt.Errorf("volumes of %s: %d of %d", d, n, lim)
		}
	}
	return nil
}

func proto(p HostPort) string {
	if p.Protocol == "" {
		return "TCP"
	}
	return p.Protocol
}

// count counts, per domain of a key, the pods that match.
func (w *world) count(key string, node func(*host) bool, pod func(*PodClass) bool) map[string]int {
	out := map[string]int{}
	for _, h := range w.hosts {
		d, ok := h.domain(key)
		if !ok || !node(h) {
			continue
		}
		for _, id := range h.pods {
			if pod(&w.s.Classes[id]) {
				out[d]++
			}
		}
	}
	return out
}

func anyHost(*host) bool { return true }

// topology checks whether one more pod of class p may go to h, as the
// kube-scheduler would.
func (w *world) topology(p *PodClass, h *host) error {
	var required []AffinityTerm
	for _, t := range p.PodAffinity {
		if t.Weight == 0 {
			required = append(required, t)
		}
	}
	selectsAll := func(o *PodClass) bool {
		for _, t := range required {
			if !termSelects(t, p, o) {
				return false
			}
		}
		return true
	}
	if len(required) > 0 {
		total, ok := 0, true
		for _, t := range required {
			c := w.count(t.Key, anyHost, selectsAll)
			for _, n := range c {
				total += n
			}
			d, has := h.domain(t.Key)
			if !has {
				return fmt.Errorf("no label %s", t.Key)
			}
			if c[d] == 0 {
				ok = false
			}
		}
		if !ok && !(total == 0 && selectsAll(p)) {
			return fmt.Errorf("pod affinity")
		}
	}
	for _, t := range p.PodAntiAffinity {
		if t.Weight > 0 {
			continue
		}
		if d, has := h.domain(t.Key); has {
			if w.count(t.Key, anyHost, func(o *PodClass) bool { return termSelects(t, p, o) })[d] > 0 {
				return fmt.Errorf("pod anti-affinity over %s", t.Key)
			}
		}
	}
	for _, other := range w.hosts {
		for _, id := range other.pods {
			o := &w.s.Classes[id]
			for _, t := range o.PodAntiAffinity {
				if t.Weight == 0 && termSelects(t, o, p) {
					a, ok1 := other.domain(t.Key)
					b, ok2 := h.domain(t.Key)
					if ok1 && ok2 && a == b {
						return fmt.Errorf("anti-affinity of %s", o.Name)
					}
				}
			}
		}
	}
	for _, s := range p.Spread {
		if s.Soft {
			continue
		}
		d, has := h.domain(s.Key)
		if !has {
			return fmt.Errorf("no label %s", s.Key)
		}
		eligible := eligibleFor(p, s)
		c := w.count(s.Key, eligible, func(o *PodClass) bool { return o.Namespace == p.Namespace && matches(s.Selector, o.Labels) })
		least, domains := w.least(c, s, eligible, h)
		if domains < int(s.MinDomains) || s.Key == LabelHostname || w.couldOpen(p, s.Key, c) {
			least = 0 // a new machine is always an empty domain
		}
		self := 0
		if matches(s.Selector, p.Labels) {
			self = 1
		}
		if c[d]+self-least > int(s.MaxSkew) {
			return fmt.Errorf("spread over %s: %v, adding to %s", s.Key, c, d)
		}
	}
	return nil
}

// couldOpen says whether a machine for the pod could open a domain that counts
// no pod yet. The engine spreads over such domains, too.
func (w *world) couldOpen(p *PodClass, key string, c map[string]int) bool {
	id := ClassID(slices.IndexFunc(w.s.Classes, func(o PodClass) bool { return o.Name == p.Name }))
	for pi := range w.s.Pools {
		pool := &w.s.Pools[pi]
		if pool.Blocked != "" {
			continue
		}
		for ti := range w.s.Catalogues[pool.Catalogue].InstanceTypes {
			it := &w.s.Catalogues[pool.Catalogue].InstanceTypes[ti]
			for oi := range it.Offerings {
				o := &it.Offerings[oi]
				h := w.freshHost("virtual", pool, it, o, nil)
				d, ok := h.domain(key)
				if ok && c[d] == 0 && o.Available && compatible(pool, it, o) && w.static(p, h) == nil && w.room(h, id) == nil {
					return true
				}
			}
		}
	}
	return false
}

func eligibleFor(p *PodClass, s SpreadConstraint) func(*host) bool {
	return func(h *host) bool {
		if s.NodeAffinityPolicy != Ignore && !affinityHolds(p, h) {
			return false
		}
		return s.NodeTaintsPolicy != Honor || taintsTolerated(p, h) == nil
	}
}

// least is the smallest count over the domains that exist, and their number.
func (w *world) least(c map[string]int, s SpreadConstraint, eligible func(*host) bool, extra *host) (int, int) {
	seen := map[string]bool{}
	least := 1 << 30
	hosts := w.hosts
	if extra.fresh && !slices.Contains(hosts, extra) {
		hosts = append(slices.Clone(hosts), extra)
	}
	for _, h := range hosts {
		if d, ok := h.domain(s.Key); ok && eligible(h) {
			seen[d] = true
			least = min(least, c[d])
		}
	}
	if least == 1<<30 {
		least = 0
	}
	return least, len(seen)
}

// freshHost is a machine of an offering as its Node will look.
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

// existing builds the world before the plan.
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
			if w.static(&s.Classes[d], h) == nil {
				h.daemons = append(h.daemons, d)
			}
		}
		w.hosts = append(w.hosts, h)
	}
	return w
}

// verify checks a plan against its snapshot. It returns the first violation.
func verify(s *Snapshot, p *Plan, opt Options) error {
	w := newWorld(s)
	want := map[string]ClassID{}
	for _, g := range s.Pending {
		for _, pod := range g.Pods {
			want[pod] = g.Class
		}
	}
	where := map[string]string{}
	for _, v := range p.Verdicts {
		for _, pod := range v.Pods {
			if _, dup := where[pod]; dup {
				return fmt.Errorf("pod %s is in two verdicts", pod)
			}
			if want[pod] != v.Class {
				return fmt.Errorf("pod %s has the wrong class", pod)
			}
			where[pod] = string(v.Outcome) + "/" + v.Node
			if v.Outcome == OnMachine {
				where[pod] = fmt.Sprintf("%s/%d", v.Outcome, v.Machine)
			}
			if (v.Outcome == Refused || v.Outcome == Deferred) && (v.Reason == "" || v.Code == "") {
				return fmt.Errorf("pod %s is refused without a reason", pod)
			}
		}
	}
	if len(where) != len(want) {
		return fmt.Errorf("%d pods pending, %d with a verdict", len(want), len(where))
	}
	onto := func(h *host, gs []PodGroup, at string) error {
		for _, g := range gs {
			for _, pod := range g.Pods {
				if where[pod] != at {
					return fmt.Errorf("pod %s is on %s, its verdict says %s", pod, at, where[pod])
				}
				delete(where, pod)
				h.pods = append(h.pods, g.Class)
				h.added[g.Class]++
			}
		}
		return nil
	}
	for _, pl := range p.Placements {
		i := slices.IndexFunc(w.hosts, func(h *host) bool { return h.name == pl.Node })
		if i < 0 {
			return fmt.Errorf("placement on the unknown node %s", pl.Node)
		}
		h := w.hosts[i]
		if h.closed {
			return fmt.Errorf("placement on the closed node %s", pl.Node)
		}
		if err := onto(h, pl.Pods, string(OnNode)+"/"+pl.Node); err != nil {
			return err
		}
	}
	usage := map[string]Resources{}
	quota := make([]int64, len(s.Quotas))
	reserved := map[string]int{}
	cost := 0.0
	for i := range p.Machines {
		m := &p.Machines[i]
		pi := slices.IndexFunc(s.Pools, func(n NodePool) bool { return n.Name == m.NodePool })
		if pi < 0 || s.Pools[pi].Blocked != "" {
			return fmt.Errorf("machine %d is of NodePool %q, which is not there or blocked", i, m.NodePool)
		}
		pool := &s.Pools[pi]
		if len(m.Offerings) == 0 || len(m.Pods) == 0 {
			return fmt.Errorf("machine %d has %d offerings and %d pods", i, len(m.Offerings), len(m.Pods))
		}
		cost += m.PriceUSDPerHour
		for oi, r := range m.Offerings {
			it, o := findOffering(s, pool, r)
			if it == nil {
				return fmt.Errorf("machine %d: offering %v does not exist", i, r)
			}
			if !o.Available {
				return fmt.Errorf("machine %d: offering %v is not available", i, r)
			}
			h := w.freshHost(fmt.Sprintf("machine-%d", i), pool, it, o, m.Requirements)
			for _, g := range m.Pods {
				if err := w.static(&s.Classes[g.Class], h); err != nil {
					return fmt.Errorf("machine %d, offering %v, pod %s: %w", i, r, g.Pods[0], err)
				}
				for range g.Pods {
					h.pods = append(h.pods, g.Class)
				}
			}
			if err := w.room(h); err != nil {
				return fmt.Errorf("machine %d, offering %v: %w", i, r, err)
			}
			if oi > 0 {
				continue
			}
			h.pods = nil
			if err := onto(h, m.Pods, fmt.Sprintf("%s/%d", OnMachine, i)); err != nil {
				return err
			}
			w.hosts = append(w.hosts, h)
			u := usage[pool.Name]
			if u == nil {
				u = Resources{}
				usage[pool.Name] = u
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
				quota[q.Quota] += q.Amount
			}
			if o.ReservationID != "" {
				reserved[o.ReservationID]++
				if reserved[o.ReservationID] > o.ReservationRemaining {
					return fmt.Errorf("reservation %s is overdrawn", o.ReservationID)
				}
			}
		}
		for _, r := range pool.Requirements {
			if r.MinValues > 0 && opt.MinValues != MinValuesBestEffort {
				vals := map[string]bool{}
				for _, ro := range m.Offerings {
					it, o := findOffering(s, pool, ro)
					h := w.freshHost("x", pool, it, o, m.Requirements)
					for _, v := range h.labels[r.Key] {
						vals[v] = true
					}
				}
				if len(vals) < r.MinValues {
					return fmt.Errorf("machine %d keeps %d values of %s, minValues is %d", i, len(vals), r.Key, r.MinValues)
				}
			}
		}
	}
	if d := cost - p.CostUSDPerHour; d > 1e-6 || d < -1e-6 {
		return fmt.Errorf("plan says $%f, its machines cost $%f", p.CostUSDPerHour, cost)
	}
	if p.Bound != nil && p.Bound.USDPerHour > cost+1e-6 {
		return fmt.Errorf("plan costs $%f, below its bound $%f", cost, p.Bound.USDPerHour)
	}
	if p.CostUSDPerHour > p.QuickCostUSDPerHour+1e-6 {
		return fmt.Errorf("plan costs $%f, the quick one $%f", p.CostUSDPerHour, p.QuickCostUSDPerHour)
	}
	for i := range s.Pools {
		for k, lim := range s.Pools[i].Limits {
			if u := usage[s.Pools[i].Name][k]; u > 0 && s.Pools[i].Usage[k]+u > lim {
				return fmt.Errorf("NodePool %s: %s %d of %d", s.Pools[i].Name, k, s.Pools[i].Usage[k]+u, lim)
			}
		}
	}
	for i, q := range quota {
		if q > 0 && q > s.Quotas[i].Remaining {
			return fmt.Errorf("quota %s: %d of %d", s.Quotas[i].Name, q, s.Quotas[i].Remaining)
		}
	}
	for pod, at := range where {
		if at != string(Refused)+"/" && at != string(Deferred)+"/" {
			return fmt.Errorf("pod %s has the verdict %s but is nowhere", pod, at)
		}
	}
	if err := w.verifyState(); err != nil {
		return err
	}
	return w.verifyRefusals(p, usage, quota, reserved, opt)
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

// verifyState checks every host as it is after the plan.
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
		if w.count(t.Key, anyHost, func(o *PodClass) bool { return termSelects(t, p, o) })[d] == 0 {
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

// ownersOnly says whether all pods that a constraint counts are of one class,
// which owns it.
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

// newDomain says whether a host would be the first one in a domain that some
// class's spread counts: with an empty domain, others may no longer be where
// they are.
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

// verifyRefusals: no refused pod has an obvious place in the world as it is
// after the plan, neither on a host nor on one more machine.
func (w *world) verifyRefusals(p *Plan, usage map[string]Resources, quota []int64, reserved map[string]int, opt Options) error {
	s := w.s
	for _, v := range p.Verdicts {
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
					if !o.Available || !w.affordable(pool, it, o, usage, quota, reserved) {
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

// decided: all topology keys of the class have one value on the host.
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

func (w *world) affordable(pool *NodePool, it *InstanceType, o *Offering, usage map[string]Resources, quota []int64, reserved map[string]int) bool {
	cp := it.Capacity
	if o.Capacity != nil {
		cp = o.Capacity
	}
	for k, lim := range pool.Limits {
		need := cp[k]
		if k == ResourceNodes {
			need = 1
		}
		if pool.Usage[k]+usage[pool.Name][k]+need > lim {
			return false
		}
	}
	for _, q := range o.Charges {
		if quota[q.Quota]+q.Amount > w.s.Quotas[q.Quota].Remaining {
			return false
		}
	}
	return o.ReservationID == "" || reserved[o.ReservationID] < o.ReservationRemaining
}
