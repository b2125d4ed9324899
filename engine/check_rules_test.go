// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	. "github.com/nap-aks/nap/engine"
)

// host is a node or a planned machine.
type host struct {
	name    string
	labels  map[string][]string // the values each label can have
	taints  []Taint
	alloc   Resources
	limits  map[string]int // volumes per driver
	pods    []ClassID
	daemons []ClassID // their room is kept
	perhaps []ClassID // daemons that come if an undecided label lets them: their room is kept
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

// holds reports whether a requirement holds for every value that the label can
// have.
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

// holdsAny reports whether one of the terms holds, whatever values the labels
// take.
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

// affinityHolds checks node selector and required node affinity.
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

// room checks resources, ports and volumes of a host, as far as the pods that the
// plan added and the extra ones use them: what was overcommitted before is not the
// plan's fault.
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
	all := slices.Concat(h.pods, h.daemons, h.perhaps, extra)
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

// most counts, per domain of a key, the pods that match and may be there: those on hosts
// whose domain is not decided count in each that it can be.
func (w *world) most(key string, node func(*host) bool, pod func(*PodClass) bool) map[string]int {
	out := w.count(key, node, pod)
	for _, h := range w.hosts {
		if vs := h.labels[key]; key != LabelHostname && len(vs) > 1 && node(h) {
			for _, id := range h.pods {
				if pod(&w.s.Classes[id]) {
					for _, v := range vs {
						out[v]++
					}
				}
			}
		}
	}
	return out
}

// outcomes returns the host once for each combination of values of its labels.
func (h *host) outcomes() []*host {
	for key, vs := range h.labels {
		if len(vs) > 1 {
			var out []*host
			for _, v := range vs {
				one := *h
				one.labels = maps.Clone(h.labels)
				one.labels[key] = []string{v}
				out = append(out, one.outcomes()...)
			}
			return out
		}
	}
	return []*host{h}
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
			for _, n := range w.most(t.Key, anyHost, selectsAll) {
				total += n
			}
			d, has := h.domain(t.Key)
			if !has {
				return fmt.Errorf("no label %s", t.Key)
			}
			for _, id := range h.daemons {
				if selectsAll(&w.s.Classes[id]) {
					c[d]++
					total++
				}
			}
			for _, other := range w.hosts {
				if other.fresh {
					continue // the engine does not count on the daemons of another machine of the plan
				}
				for _, id := range other.daemons {
					if a, ok := other.domain(t.Key); ok && other != h && selectsAll(&w.s.Classes[id]) {
						c[a]++
						total++
					}
				}
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
			if w.most(t.Key, anyHost, func(o *PodClass) bool { return termSelects(t, p, o) })[d] > 0 {
				return fmt.Errorf("pod anti-affinity over %s", t.Key)
			}
		}
	}
	// A daemon pod that is still to come counts in the whole domain of its node.
	for _, other := range append([]*host{h}, w.hosts...) {
		for _, id := range other.daemons {
			if o := &w.s.Classes[id]; setApart(p, o, h, other) || setApart(o, p, h, other) {
				return fmt.Errorf("anti-affinity with the daemon %s of %s", o.Name, other.name)
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
					if ok2 && (ok1 && a == b || !ok1 && slices.Contains(other.labels[t.Key], b)) {
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
		selected := func(o *PodClass) bool { return o.Namespace == p.Namespace && matches(s.Selector, o.Labels) }
		c := w.count(s.Key, eligible, selected)
		least, domains := w.least(c, s, eligible, h)
		if domains < int(s.MinDomains) || s.Key == LabelHostname || w.couldOpen(p, s.Key, c) {
			least = 0 // a new machine is always an empty domain
		}
		self := 0
		if matches(s.Selector, p.Labels) {
			self = 1
		}
		if w.most(s.Key, eligible, selected)[d]+self-least > int(s.MaxSkew) {
			return fmt.Errorf("spread over %s: %v, adding to %s", s.Key, c, d)
		}
	}
	return nil
}

// setApart reports whether required anti-affinity of p keeps a pod of it and one of
// o, of which one is on h and one on other, apart.
func setApart(p, o *PodClass, h, other *host) bool {
	return slices.ContainsFunc(p.PodAntiAffinity, func(t AffinityTerm) bool {
		a, has := h.domain(t.Key)
		b, hasToo := other.domain(t.Key)
		return t.Weight == 0 && has && hasToo && a == b && termSelects(t, p, o)
	})
}

// couldOpen reports whether a machine for the pod could open a domain without
// counted pods. The engine spreads over such domains, too.
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

// least returns the smallest count over the domains that exist, and their number.
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
