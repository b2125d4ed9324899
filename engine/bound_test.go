// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"math"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// genApart draws a few pods with rules within a machine, a few sizes, and nodes
// with some room: small enough to try every placement.
func genApart(t *rapid.T) *Snapshot {
	num := func(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, label) }
	s := &Snapshot{Version: SnapshotVersion, Pools: []NodePool{{Name: "p"}}}
	var cat Catalogue
	for i, n := 0, num("types", 1, 4); i < n; i++ {
		cpu := int64(num("cpu", 2, 12))
		it := InstanceType{Name: fmt.Sprint("t", i), Allocatable: Resources{"cpu": cpu * 1000, "memory": int64(num("mem", 2, 16)) << 30, "pods": int64(num("pods", 1, 6))}}
		it.Capacity = it.Allocatable
		it.Offerings = []Offering{{Zone: "z", CapacityType: CapacityOnDemand, Available: true, PriceUSDPerHour: float64(num("cents", 5, 90)) / 100}}
		cat.InstanceTypes = append(cat.InstanceTypes, it)
	}
	s.Catalogues = []Catalogue{cat}
	left := 6
	for i, n := 0, num("classes", 1, 4); i < n; i++ {
		app := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app")
		p := PodClass{Name: fmt.Sprint("c", i), Namespace: "n", Labels: map[string]string{"app": app}, Requests: Resources{"cpu": int64(num("reqcpu", 1, 16)) * 250, "memory": int64(num("reqmem", 1, 12)) << 29}}
		switch num("rule", 0, 4) {
		case 0:
			p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", app)}}
		case 1:
			p.Spread = []SpreadConstraint{{Key: LabelHostname, MaxSkew: int32(num("skew", 1, 2)), Selector: appSelector("app", app)}}
		case 2:
			p.HostPorts = []HostPort{{Port: 80}}
		}
		s.Classes = append(s.Classes, p)
		g := PodGroup{Class: ClassID(i)}
		for j, k := 0, num("replicas", 0, 3); j < k && left > 0; j++ {
			g.Pods = append(g.Pods, fmt.Sprintf("c%d-%d", i, j))
			left--
		}
		if len(g.Pods) > 0 {
			s.Pending = append(s.Pending, g)
		}
	}
	for i, n := 0, num("nodes", 0, 2); i < n; i++ {
		name := fmt.Sprint("n", i)
		nd := Node{Name: name, Initialized: true, Labels: map[string]string{LabelHostname: name, LabelZone: "z"}, Allocatable: Resources{"cpu": int64(num("ncpu", 1, 8)) * 1000, "memory": int64(num("nmem", 1, 8)) << 30, "pods": 5}}
		if num("taken", 0, 2) == 0 {
			nd.Pods = []PodGroup{{Class: ClassID(num("by", 0, len(s.Classes)-1)), Pods: []string{"old-" + name}}}
		}
		s.Nodes = append(s.Nodes, nd)
	}
	return s
}

// exhaustive tries every way to put the pods of genApart onto nodes and new
// machines. It knows the rules by what they amount to: pods with anti-affinity
// are alone among the pods with anti-affinity of their app, of the pods with a
// spread at most maxSkew share a host, and a port is used once.
type exhaustive struct {
	s     *Snapshot
	hosts []*loadedHost // the nodes, then new machines
	pods  []ClassID
	best  float64
}

// loadedHost is a node or machine with pods on it.
type loadedHost struct {
	cpu, mem, pods int64
	n              map[ClassID]int // pods put there
	old            map[ClassID]int // pods that were there before
}

// add adds (sign 1) or removes (sign -1) the requests of a pod.
func (h *loadedHost) add(c *PodClass, sign int64) {
	h.cpu += sign * c.Requests["cpu"]
	h.mem += sign * c.Requests["memory"]
	h.pods += sign
}

func (h *loadedHost) fits(r Resources) bool {
	return h.cpu <= r["cpu"] && h.mem <= r["memory"] && h.pods <= r["pods"]
}

// rulesHold reports whether the pods of a host may be together.
func (x *exhaustive) rulesHold(h *loadedHost) bool {
	ports, oldPorts := 0, 0
	there := map[string]int{}  // pods of an app that were there before
	alone := map[string]bool{} // one of them has anti-affinity
	anti, spread, skew := map[string]int{}, map[string]int{}, map[string]int{}
	for id, n := range h.old {
		c := &x.s.Classes[id]
		oldPorts += n * len(c.HostPorts)
		there[c.Labels["app"]] += n
		alone[c.Labels["app"]] = alone[c.Labels["app"]] || len(c.PodAntiAffinity) > 0
	}
	for id, n := range h.n {
		c := &x.s.Classes[id]
		app := c.Labels["app"]
		if n == 0 {
			continue
		}
		if alone[app] {
			return false
		}
		ports += n * len(c.HostPorts)
		if len(c.PodAntiAffinity) > 0 {
			anti[app] += n
		}
		if len(c.Spread) > 0 {
			most := int(c.Spread[0].MaxSkew)
			if n > most-there[app] {
				return false
			}
			spread[app] += n
			skew[app] = max(skew[app], most)
		}
	}
	for app, n := range anti {
		if n > 1-there[app] {
			return false
		}
	}
	for app, n := range spread {
		if n > skew[app]-there[app] {
			return false
		}
	}
	return ports == 0 || ports+oldPorts <= 1
}

// cheapest returns the price of the cheapest size that holds the pods of a
// machine, or infinity.
func (x *exhaustive) cheapest(h *loadedHost) float64 {
	least := math.Inf(1)
	for _, it := range x.s.Catalogues[0].InstanceTypes {
		if h.fits(it.Allocatable) {
			least = math.Min(least, it.Offerings[0].PriceUSDPerHour)
		}
	}
	return least
}

// put places the pods from number k on in every way.
func (x *exhaustive) put(k int) {
	nodes := len(x.s.Nodes)
	cost := 0.0
	for _, h := range x.hosts[nodes:] {
		cost += x.cheapest(h)
	}
	if cost >= x.best {
		return
	}
	if k == len(x.pods) {
		x.best = cost
		return
	}
	try := func(h *loadedHost, i int) {
		h.add(&x.s.Classes[x.pods[k]], 1)
		h.n[x.pods[k]]++
		if x.rulesHold(h) && (i >= nodes || h.fits(x.s.Nodes[i].Allocatable)) {
			x.put(k + 1)
		}
		h.n[x.pods[k]]--
		h.add(&x.s.Classes[x.pods[k]], -1)
	}
	for i, h := range x.hosts {
		try(h, i)
	}
	h := &loadedHost{n: map[ClassID]int{}}
	x.hosts = append(x.hosts, h)
	try(h, len(x.hosts))
	x.hosts = x.hosts[:len(x.hosts)-1]
}

// leastCost returns the least cost of machines for the pending pods, or infinity
// if they cannot all be placed. Classes that no size holds are left out.
func leastCost(s *Snapshot) float64 {
	x := &exhaustive{s: s, best: math.Inf(1)}
	for i := range s.Nodes {
		h := &loadedHost{n: map[ClassID]int{}, old: map[ClassID]int{}}
		for _, g := range s.Nodes[i].Pods {
			for range g.Pods {
				h.add(&s.Classes[g.Class], 1)
				h.old[g.Class]++
			}
		}
		x.hosts = append(x.hosts, h)
	}
	for _, g := range s.Pending {
		one := &loadedHost{}
		one.add(&s.Classes[g.Class], 1)
		if !math.IsInf(x.cheapest(one), 1) {
			for range g.Pods {
				x.pods = append(x.pods, g.Class)
			}
		}
	}
	x.put(0)
	return x.best
}

// No placement costs less than the bound, and a plan costs at least its bound.
func TestBoundIsBelowEveryPlacement(t *testing.T) {
	near, total := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := genApart(t)
		o := Options{Work: int64(rapid.SampledFrom([]int{0, -1, 20000}).Draw(t, "work"))}
		b, err := Bound(s, o)
		if err != nil {
			t.Fatal(err)
		}
		least := leastCost(s)
		if b.USDPerHour > least+1e-9 {
			t.Fatalf("bound %v, but %v suffices\n%s", b.USDPerHour, least, mustJSON(s))
		}
		if least > 0 && !math.IsInf(least, 1) {
			total++
			if b.USDPerHour > 0.6*least {
				near++
			}
		}
		p, err := Place(s, Options{Work: 20000})
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(s, p, Options{}); err != nil {
			t.Fatalf("%v\n%s", err, mustJSON(s))
		}
		refused := false
		for _, v := range p.Verdicts {
			refused = refused || v.Outcome == Refused
		}
		if !refused && b.USDPerHour > p.CostUSDPerHour+1e-9 {
			t.Fatalf("bound %v above a plan for %v\n%s", b.USDPerHour, p.CostUSDPerHour, mustJSON(s))
		}
	})
	t.Logf("%d with something to buy, the bound above 60%% of the least for %d", total, near)
	if total > 40 && near*2 < total {
		t.Errorf("the bound is far off: above 60%% in %d of %d", near, total)
	}
}

// With any constraints a plan that places all pods costs at least the bound.
func TestBoundIsBelowPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSnapshot(t)
		o := Options{Work: 20_000}
		p, err := Place(s, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range p.Verdicts {
			if v.Outcome == Refused {
				return
			}
		}
		before := mustJSON(s)
		b, err := Bound(s, o)
		if err != nil {
			t.Fatal(err)
		}
		if b.USDPerHour > p.CostUSDPerHour+1e-9 {
			t.Fatalf("bound %v above a plan for %v\n%s", b.USDPerHour, p.CostUSDPerHour, before)
		}
		if mustJSON(s) != before {
			t.Fatal("the snapshot was changed")
		}
		if again, err := Bound(s, o); err != nil || *again != *b {
			t.Fatalf("two answers: %v and %v (%v)", b, again, err)
		}
	})
}

// Pods that fit on nodes need no machines.
func TestBoundCountsRoomOnNodes(t *testing.T) {
	s := apartPods(20, 40)
	for i := range 10 {
		name := fmt.Sprint("node-", i)
		s.Nodes = append(s.Nodes, Node{Name: name, Initialized: true, Labels: map[string]string{LabelHostname: name}, Allocatable: Resources{"cpu": 500, "memory": 4 << 30, "pods": 10}})
	}
	b, err := Bound(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Each node takes one of the 40 exclusive pods.
	cheapest := s.Catalogues[0].InstanceTypes[0].Offerings[0].PriceUSDPerHour
	if want := 30 * cheapest; b.USDPerHour < want*(1-1e-6) || b.USDPerHour > want*(1+1e-6) || b.Pods != 80 {
		t.Errorf("bound %v for %d pods, want 30 machines: %v", b.USDPerHour, b.Pods, want)
	}
}

// Bound leaves the cluster as it was.
func TestBoundLeavesTheClusterUnchanged(t *testing.T) {
	s := deployments(20, 10)
	c, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.Place(s.Pending, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Bound(s.Pending, Options{}); err != nil {
		t.Fatal(err)
	}
	got, err := c.Place(s.Pending, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if mustJSON(got) != mustJSON(want) {
		t.Fatal("the plan after Bound is another one")
	}
}
