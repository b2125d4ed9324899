// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"testing"
)

func spreading(skew, minDomains int32) func(*PodClass) {
	return func(p *PodClass) {
		p.Spread = []SpreadConstraint{{Key: LabelZone, MaxSkew: skew, MinDomains: minDomains, Selector: selectApp(p.Name)}}
	}
}

// zoneNames returns the names of values of the zone label.
func (ps *pass) zoneNames(vals []int32) []string {
	var out []string
	for _, v := range vals {
		out = append(out, ps.c.sym.valueName(ps.c.sym.key(LabelZone), v))
	}
	return out
}

func TestCountersCountNodesAndMachines(t *testing.T) {
	s := smallCluster()
	web := addClass(s, "web", 3, spreading(1, 0))
	s.Nodes[0].Pods = []PodGroup{{Class: web, Pods: []string{"old-1", "old-2"}}}
	ps := beginPass(t, s, Options{})
	pc := ps.classes[0]
	ctr := pc.v.domain[0].ctr
	zone := ps.c.sym.key(LabelZone)
	z1, z2 := ps.c.sym.value(zone, "z1"), ps.c.sym.value(zone, "z2")
	if ctr.at(z1) != 2 || ctr.at(z2) != 0 || ctr.total != 2 {
		t.Fatalf("z1 %d, z2 %d, total %d", ctr.at(z1), ctr.at(z2), ctr.total)
	}
	if n := ps.existing.add(pc.v, 0, 1); n != 1 || ctr.at(z1) != 3 {
		t.Errorf("%d pod added to the node, z1 counts %d", n, ctr.at(z1))
	}
	m := ps.newMachine(ps.columnOf(t, "small", "z2"))
	m.commit(pc.v, 1, 2)
	if ctr.at(z2) != 2 || ctr.total != 5 {
		t.Errorf("z2 %d, total %d", ctr.at(z2), ctr.total)
	}
	m.countAll(-1)
	if ctr.at(z2) != 0 || ctr.total != 3 {
		t.Errorf("after taking the machine out: z2 %d, total %d", ctr.at(z2), ctr.total)
	}
}

func TestUniverseHoldsNodesAndPossibleMachines(t *testing.T) {
	s := smallCluster()
	s.Nodes[0].Labels[LabelZone] = "z9"
	addClass(s, "web", 1, spreading(1, 0))
	addClass(s, "pinned", 1, func(p *PodClass) {
		spreading(1, 0)(p)
		p.NodeSelector = []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z2"}}}
	})
	ps := beginPass(t, s, Options{})
	for i, want := range [][]string{{"z1", "z2", "z9"}, {"z2"}} {
		if got := ps.zoneNames(ps.classes[i].v.domain[0].universe); !slices.Equal(got, want) {
			t.Errorf("class %d spreads over %v, want %v", i, got, want)
		}
	}
}

func TestMinDomainsKeepTheLeastCountAtZero(t *testing.T) {
	for _, test := range []struct {
		minDomains int32
		want       int64
	}{{0, 1}, {2, 1}, {3, 0}} {
		s := smallCluster()
		web := addClass(s, "web", 1, spreading(1, test.minDomains))
		for i, zone := range []string{"z1", "z2"} {
			n := s.Nodes[0]
			n.Name, n.Labels = "node-"+zone, map[string]string{LabelZone: zone}
			for range i + 1 {
				n.Pods = append(n.Pods, PodGroup{Class: web, Pods: []string{"old-" + zone}})
			}
			s.Nodes = append(s.Nodes, n)
		}
		k := &beginPass(t, s, Options{}).classes[0].v.domain[0]
		if got := k.min(); got != test.want {
			t.Errorf("minDomains %d: least count %d, want %d", test.minDomains, got, test.want)
		}
	}
}

func TestTheNextDomainIsTheLeastCrowded(t *testing.T) {
	s := smallCluster()
	web := addClass(s, "web", 2, spreading(2, 0))
	s.Nodes[0].Pods = []PodGroup{{Class: web, Pods: []string{"old-1", "old-2"}}}
	s.Nodes[0].Closed = "cordoned"
	ps := beginPass(t, s, Options{})
	v := ps.classes[0].v
	ts := newTuples(ps.c, ps.cat, v, nil)
	next, n := ts.next(ps.c, &strategy{})
	if got := ps.zoneNames(next.vals); got[0] != "z2" || n != 1 {
		t.Errorf("next are %d pods in %v, want one in z2", n, got)
	}
	next.dead = true
	if next, _ = ts.next(ps.c, &strategy{}); next != nil {
		t.Errorf("z1 is taken although its skew would be 3")
	}
	ts.dropEmptyDomain(ts.list[1], &ps.domains, nil)
	if got := ps.zoneNames(v.domain[0].universe); !slices.Equal(got, []string{"z1"}) {
		t.Errorf("after z2 turned out impossible the pods spread over %v", got)
	}
}

func TestOpenedDomainsAreFound(t *testing.T) {
	s := smallCluster()
	addClass(s, "web", 4, func(p *PodClass) {
		spreading(1, 0)(p)
		p.Spread[0].NodeAffinityPolicy = Ignore
		p.NodeSelector = []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}
	})
	addClass(s, "db", 1, nil)
	ps := beginPass(t, s, Options{})
	web, db := ps.classes[0], ps.classes[1]
	if got := ps.zoneNames(web.v.domain[0].universe); !slices.Equal(got, []string{"z1"}) {
		t.Fatalf("web spreads over %v before anything is placed", got)
	}
	ps.existing.add(web.v, 0, 2)
	if ps.domains.findOpened(ps.classes, ps.machines) {
		t.Error("a domain is found before one is opened")
	}
	m := ps.newMachine(ps.columnOf(t, "small", "z2"))
	m.commit(db.v, 0, 1)
	if !ps.domains.findOpened(ps.classes, ps.machines) || ps.domains.findOpened(ps.classes, ps.machines) {
		t.Error("the machine in z2 is not found, or found twice")
	}
	ps.restart()
	if got := ps.zoneNames(web.v.domain[0].universe); !slices.Equal(got, []string{"z1", "z2"}) {
		t.Errorf("after the restart web spreads over %v", got)
	}
	if !ps.domains.forgetUnused(ps.machines) || ps.domains.forgetUnused(ps.machines) {
		t.Error("z2, in which nothing is now, is not forgotten once")
	}
}
