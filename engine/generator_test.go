// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// generator draws small clusters that use every constraint.
type generator struct {
	t     *rapid.T
	s     *Snapshot
	zones []string
}

func (g *generator) pick(label string, xs ...string) string {
	return rapid.SampledFrom(xs).Draw(g.t, label)
}

func (g *generator) chance(label string, percent int) bool {
	return rapid.IntRange(0, 99).Draw(g.t, label) < percent
}

func (g *generator) num(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(g.t, label) }

// genSnapshot draws a cluster.
func genSnapshot(t *rapid.T) *Snapshot {
	g := &generator{t: t, s: &Snapshot{Version: SnapshotVersion}}
	g.zones = []string{"z1", "z2", "z3"}[:g.num("zones", 1, 3)]
	for i, n := 0, g.num("quotas", 0, 2); i < n; i++ {
		g.s.Quotas = append(g.s.Quotas, Quota{Name: fmt.Sprintf("q%d", i), Remaining: int64(g.num("quota", 0, 24))})
	}
	g.types()
	g.pools()
	classes := g.num("classes", 1, 6)
	for i := range classes {
		g.s.Classes = append(g.s.Classes, g.class(i))
	}
	g.daemon()
	g.nodes(classes)
	for i := range classes {
		group := PodGroup{Class: ClassID(i)}
		for j, n := 0, g.num("replicas", 0, 7); j < n; j++ {
			group.Pods = append(group.Pods, fmt.Sprintf("%s-%d", g.s.Classes[i].Name, j))
		}
		if len(group.Pods) > 0 {
			g.s.Pending = append(g.s.Pending, group)
		}
	}
	return g.s
}

// types draws the instance types.
func (g *generator) types() {
	var cat Catalogue
	for i, n := 0, g.num("types", 1, 6); i < n; i++ {
		cpu := int64(1) << g.num("cpu", 0, 4)
		mem := cpu * int64(g.num("ratio", 1, 8))
		it := InstanceType{Name: fmt.Sprintf("t%d", i)}
		it.Capacity = Resources{"cpu": cpu * 1000, "memory": mem << 30, "pods": int64(g.num("pods", 4, 30))}
		if g.chance("gpu", 20) {
			it.Capacity["gpu"] = int64(g.num("gpus", 1, 4))
		}
		it.Allocatable = Resources{}
		for k, v := range it.Capacity {
			it.Allocatable[k] = v
		}
		it.Allocatable["cpu"] -= 100
		it.Requirements = []Requirement{
			{Key: LabelArch, Operator: In, Values: []string{g.pick("arch", "amd64", "arm64")}},
			{Key: LabelOS, Operator: In, Values: [][]string{{"linux"}, {"linux", "windows"}}[g.num("os", 0, 1)]},
			{Key: "size", Operator: In, Values: []string{fmt.Sprint(cpu)}},
		}
		if g.chance("vollimit", 30) {
			it.VolumeLimits = map[string]int{"disk": g.num("limit", 1, 4)}
		}
		for _, z := range g.zones {
			for _, ct := range []string{CapacityOnDemand, CapacitySpot} {
				if g.chance("offered", 75) {
					o := Offering{Zone: z, CapacityType: ct, Available: g.chance("avail", 85), PriceUSDPerHour: float64(cpu)*0.05 + float64(mem)*0.01 + float64(g.num("cents", 0, 9))/100}
					if ct == CapacitySpot {
						o.PriceUSDPerHour *= 0.4
					}
					if len(g.s.Quotas) > 0 && g.chance("charged", 40) {
						o.Charges = []QuotaCharge{{Quota: g.num("q", 0, len(g.s.Quotas)-1), Amount: cpu}}
					}
					it.Offerings = append(it.Offerings, o)
				}
			}
			if g.chance("reserved", 10) {
				it.Offerings = append(it.Offerings, Offering{Zone: z, CapacityType: CapacityReserved, Available: true, PriceUSDPerHour: 0.001, ReservationID: "r" + fmt.Sprint(i) + z, ReservationRemaining: g.num("remaining", 0, 2)})
			}
		}
		cat.InstanceTypes = append(cat.InstanceTypes, it)
	}
	g.s.Catalogues = []Catalogue{cat}
}

func (g *generator) taints() []Taint {
	if !g.chance("tainted", 25) {
		return nil
	}
	return []Taint{{Key: "team", Value: g.pick("taint", "a", "b"), Effect: Effect(g.pick("effect", "NoSchedule", "NoExecute", "PreferNoSchedule"))}}
}

// pools draws the NodePools.
func (g *generator) pools() {
	for i, n := 0, g.num("pools", 1, 3); i < n; i++ {
		p := NodePool{Name: fmt.Sprintf("p%d", i), Weight: int32(g.num("weight", 0, 2)), Taints: g.taints()}
		if g.chance("limited", 30) {
			p.Limits = Resources{"cpu": int64(g.num("cpulimit", 0, 40)) * 1000}
			p.Usage = Resources{"cpu": int64(g.num("cpuused", 0, 8)) * 1000}
		}
		if g.chance("nodelimit", 15) {
			if p.Limits == nil {
				p.Limits = Resources{}
			}
			p.Limits[ResourceNodes] = int64(g.num("nodes", 0, 3))
		}
		if g.chance("poolzone", 20) {
			p.Requirements = append(p.Requirements, Requirement{Key: LabelZone, Operator: In, Values: []string{"z1", "z2"}})
		}
		if g.chance("poolsize", 15) {
			p.Requirements = append(p.Requirements, Requirement{Key: "size", Operator: Gt, Values: []string{"1"}})
		}
		if g.chance("tier", 25) {
			p.Requirements = append(p.Requirements, Requirement{Key: "tier", Operator: In, Values: []string{"gold", "silver"}})
		} else if g.chance("tierlabel", 25) {
			p.Labels = map[string]string{"tier": "gold"}
		} else if g.chance("tieropen", 15) {
			p.Requirements = append(p.Requirements, Requirement{Key: "tier", Operator: Exists})
		}
		if g.chance("minvalues", 10) {
			p.Requirements = append(p.Requirements, Requirement{Key: LabelInstanceType, Operator: Exists, MinValues: g.num("min", 1, 3)})
		}
		if g.chance("blocked", 5) {
			p.Blocked = "not ready"
		}
		g.s.Pools = append(g.s.Pools, p)
	}
}

// req draws a requirement of a pod.
func (g *generator) req() Requirement {
	switch g.num("req", 0, 5) {
	case 0:
		return Requirement{Key: LabelZone, Operator: In, Values: []string{g.pick("z", g.zones...)}}
	case 1:
		return Requirement{Key: LabelCapacityType, Operator: In, Values: []string{g.pick("ct", CapacityOnDemand, CapacitySpot)}}
	case 2:
		return Requirement{Key: "tier", Operator: Operator(g.pick("op", "In", "NotIn")), Values: []string{g.pick("tier", "gold", "silver", "iron")}}
	case 3:
		return Requirement{Key: "size", Operator: Operator(g.pick("cmp", "Gt", "Lt", "Gte", "Lte")), Values: []string{g.pick("size", "1", "2", "4")}}
	case 4:
		return Requirement{Key: "tier", Operator: Operator(g.pick("ex", "Exists", "DoesNotExist"))}
	}
	return Requirement{Key: LabelOS, Operator: In, Values: []string{g.pick("osv", "linux", "windows")}}
}

// class draws the class with number i.
func (g *generator) class(i int) PodClass {
	keys := []string{LabelZone, LabelHostname, LabelCapacityType}
	apps := []string{"a", "b", "c"}
	sel := func(v string) *Selector { return appSelector("app", v) }
	app := g.pick("app", apps...)
	p := PodClass{Name: fmt.Sprintf("c%d", i), Namespace: g.pick("ns", "n1", "n1", "n2"), Labels: map[string]string{"app": app}}
	p.Requests = Resources{"cpu": int64(g.num("reqcpu", 0, 30)) * 100, "memory": int64(g.num("reqmem", 0, 40)) << 28}
	if g.chance("reqgpu", 10) {
		p.Requests["gpu"] = 1
	}
	if g.chance("sel", 25) {
		p.NodeSelector = []Requirement{g.req()}
	}
	if g.chance("aff", 15) {
		for j, n := 0, g.num("terms", 1, 2); j < n; j++ {
			p.NodeAffinity = append(p.NodeAffinity, []Requirement{g.req()})
		}
	}
	if g.chance("pref", 15) {
		p.PreferredNodeAffinity = []PreferredTerm{{Weight: int32(g.num("w", 1, 100)), Requirements: []Requirement{g.req()}}}
	}
	if g.chance("tol", 40) {
		p.Tolerations = []Toleration{{Key: "team", Operator: "Exists"}}
	}
	if g.chance("spread", 30) {
		p.Spread = []SpreadConstraint{{Key: keys[g.num("skey", 0, 2)], MaxSkew: int32(g.num("skew", 1, 2)), Selector: sel(app), Soft: g.chance("soft", 30), MinDomains: int32(g.num("md", 0, 3)), NodeTaintsPolicy: NodePolicy(g.pick("tp", "", "Honor")), NodeAffinityPolicy: NodePolicy(g.pick("ap", "", "Ignore"))}}
	}
	if g.chance("affinity", 12) {
		p.PodAffinity = []AffinityTerm{{Key: keys[g.num("akey", 0, 1)], Selector: sel(g.pick("aapp", app, app, apps[0], "d")), AllNamespaces: g.chance("alln", 20), Weight: int32(g.num("aw", 0, 1) * 5)}}
	}
	if g.chance("anti", 20) {
		p.PodAntiAffinity = []AffinityTerm{{Key: keys[g.num("xkey", 0, 1)], Selector: sel(g.pick("xapp", app, app, apps[1], "d")), Weight: int32(g.num("xw", 0, 1) * 5)}}
	}
	if g.chance("port", 8) {
		p.HostPorts = []HostPort{{Port: 80}}
	}
	if g.chance("vol", 10) {
		p.Volumes = map[string]int{"disk": g.num("vols", 1, 2)}
	}
	if g.chance("shared", 6) {
		p.SharedVolumes = []SharedVolume{{Driver: "disk", ID: "data"}}
	}
	if g.chance("volzone", 8) {
		p.VolumeTopology = []VolumeTopology{{Terms: [][]Requirement{{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}, {{Key: LabelZone, Operator: In, Values: []string{"z2"}}}}}}
	}
	if g.chance("prio", 20) {
		p.Priority = 1000
	}
	return p
}

// daemon draws a DaemonSet, or none.
func (g *generator) daemon() {
	if g.chance("daemon", 40) {
		g.s.Daemons = append(g.s.Daemons, ClassID(len(g.s.Classes)))
		d := PodClass{Name: "daemon", Namespace: "n1", Labels: map[string]string{"app": "d"}, Requests: Resources{"cpu": 100, "memory": 1 << 27}}
		if g.chance("dtol", 60) {
			d.Tolerations = []Toleration{{Operator: "Exists"}}
		}
		if g.chance("danti", 15) {
			d.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", g.pick("danti", "a", "c"))}}
		}
		if g.chance("dport", 20) {
			d.HostPorts = []HostPort{{Port: 80}}
		}
		if g.chance("dsel", 30) {
			d.NodeSelector = []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}
		}
		g.s.Classes = append(g.s.Classes, d)
	}
}

// nodes draws the nodes, with pods of the first classes.
func (g *generator) nodes(classes int) {
	for i, n := 0, g.num("nodes", 0, 4); i < n; i++ {
		nd := Node{Name: fmt.Sprintf("n%d", i), NodePool: "p0", Initialized: g.chance("init", 80), Taints: g.taints()}
		nd.Labels = map[string]string{LabelZone: g.pick("nz", g.zones...), LabelCapacityType: CapacityOnDemand, LabelHostname: nd.Name, LabelOS: "linux", LabelArch: "amd64", "size": "4"}
		if g.chance("ntier", 40) {
			nd.Labels["tier"] = g.pick("nt", "gold", "silver")
		}
		nd.Allocatable = Resources{"cpu": int64(g.num("ncpu", 1, 6)) * 1000, "memory": int64(g.num("nmem", 1, 16)) << 30, "pods": 20}
		if g.chance("nvol", 30) {
			nd.VolumeLimits = map[string]int{"disk": 2}
		}
		if g.chance("closed", 10) {
			nd.Closed = "deleting"
		}
		if len(g.s.Daemons) > 0 {
			nd.MissingDaemons = g.s.Daemons
		}
		for j, m := 0, g.num("npods", 0, 2); j < m; j++ {
			nd.Pods = append(nd.Pods, PodGroup{Class: ClassID(g.num("nclass", 0, classes-1)), Pods: []string{fmt.Sprintf("old-%d-%d", i, j)}})
		}
		g.s.Nodes = append(g.s.Nodes, nd)
	}
}
