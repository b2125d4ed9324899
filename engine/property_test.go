package engine_test

import (
	"encoding/json"
	"fmt"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// genSnapshot draws small clusters that use every constraint.
func genSnapshot(t *rapid.T) *Snapshot {
	s := &Snapshot{Version: SnapshotVersion}
	pick := func(label string, xs ...string) string { return rapid.SampledFrom(xs).Draw(t, label) }
	chance := func(label string, percent int) bool { return rapid.IntRange(0, 99).Draw(t, label) < percent }
	num := func(label string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, label) }
	zones := []string{"z1", "z2", "z3"}[:num("zones", 1, 3)]
	nQuota := num("quotas", 0, 2)
	for i := 0; i < nQuota; i++ {
		s.Quotas = append(s.Quotas, Quota{Name: fmt.Sprintf("q%d", i), Remaining: int64(num("quota", 0, 24))})
	}
	var cat Catalogue
	for i, n := 0, num("types", 1, 6); i < n; i++ {
		cpu := int64(1) << num("cpu", 0, 4)
		mem := cpu * int64(num("ratio", 1, 8))
		it := InstanceType{Name: fmt.Sprintf("t%d", i)}
		it.Capacity = Resources{"cpu": cpu * 1000, "memory": mem << 30, "pods": int64(num("pods", 4, 30))}
		if chance("gpu", 20) {
			it.Capacity["gpu"] = int64(num("gpus", 1, 4))
		}
		it.Allocatable = Resources{}
		for k, v := range it.Capacity {
			it.Allocatable[k] = v
		}
		it.Allocatable["cpu"] -= 100
		it.Requirements = []Requirement{
			{Key: LabelArch, Operator: In, Values: []string{pick("arch", "amd64", "arm64")}},
			{Key: LabelOS, Operator: In, Values: [][]string{{"linux"}, {"linux", "windows"}}[num("os", 0, 1)]},
			{Key: "size", Operator: In, Values: []string{fmt.Sprint(cpu)}},
		}
		if chance("vollimit", 30) {
			it.VolumeLimits = map[string]int{"disk": num("limit", 1, 4)}
		}
		for _, z := range zones {
			for _, ct := range []string{CapacityOnDemand, CapacitySpot} {
				if chance("offered", 75) {
					o := Offering{Zone: z, CapacityType: ct, Available: chance("avail", 85), PriceUSDPerHour: float64(cpu)*0.05 + float64(mem)*0.01 + float64(num("cents", 0, 9))/100}
					if ct == CapacitySpot {
						o.PriceUSDPerHour *= 0.4
					}
					if nQuota > 0 && chance("charged", 40) {
						o.Charges = []QuotaCharge{{Quota: num("q", 0, nQuota-1), Amount: cpu}}
					}
					it.Offerings = append(it.Offerings, o)
				}
			}
			if chance("reserved", 10) {
				it.Offerings = append(it.Offerings, Offering{Zone: z, CapacityType: CapacityReserved, Available: true, PriceUSDPerHour: 0.001, ReservationID: "r" + fmt.Sprint(i) + z, ReservationRemaining: num("remaining", 0, 2)})
			}
		}
		cat.InstanceTypes = append(cat.InstanceTypes, it)
	}
	s.Catalogues = []Catalogue{cat}
	taints := func() []Taint {
		if !chance("tainted", 25) {
			return nil
		}
		return []Taint{{Key: "team", Value: pick("taint", "a", "b"), Effect: Effect(pick("effect", "NoSchedule", "NoExecute", "PreferNoSchedule"))}}
	}
	for i, n := 0, num("pools", 1, 3); i < n; i++ {
		p := NodePool{Name: fmt.Sprintf("p%d", i), Weight: int32(num("weight", 0, 2)), Taints: taints()}
		if chance("limited", 30) {
			p.Limits = Resources{"cpu": int64(num("cpulimit", 0, 40)) * 1000}
			p.Usage = Resources{"cpu": int64(num("cpuused", 0, 8)) * 1000}
		}
		if chance("nodelimit", 15) {
			if p.Limits == nil {
				p.Limits = Resources{}
			}
			p.Limits[ResourceNodes] = int64(num("nodes", 0, 3))
		}
		if chance("poolzone", 20) {
			p.Requirements = append(p.Requirements, Requirement{Key: LabelZone, Operator: In, Values: []string{"z1", "z2"}})
		}
		if chance("poolsize", 15) {
			p.Requirements = append(p.Requirements, Requirement{Key: "size", Operator: Gt, Values: []string{"1"}})
		}
		if chance("tier", 25) {
			p.Requirements = append(p.Requirements, Requirement{Key: "tier", Operator: In, Values: []string{"gold", "silver"}})
		} else if chance("tierlabel", 25) {
			p.Labels = map[string]string{"tier": "gold"}
		} else if chance("tieropen", 15) {
			p.Requirements = append(p.Requirements, Requirement{Key: "tier", Operator: Exists})
		}
		if chance("minvalues", 10) {
			p.Requirements = append(p.Requirements, Requirement{Key: LabelInstanceType, Operator: Exists, MinValues: num("min", 1, 3)})
		}
		if chance("blocked", 5) {
			p.Blocked = "not ready"
		}
		s.Pools = append(s.Pools, p)
	}
	sel := func(v string) *Selector {
		return &Selector{Requirements: []Requirement{{Key: "app", Operator: In, Values: []string{v}}}}
	}
	req := func() Requirement {
		switch num("req", 0, 5) {
		case 0:
			return Requirement{Key: LabelZone, Operator: In, Values: []string{pick("z", zones...)}}
		case 1:
			return Requirement{Key: LabelCapacityType, Operator: In, Values: []string{pick("ct", CapacityOnDemand, CapacitySpot)}}
		case 2:
			return Requirement{Key: "tier", Operator: Operator(pick("op", "In", "NotIn")), Values: []string{pick("tier", "gold", "silver", "iron")}}
		case 3:
			return Requirement{Key: "size", Operator: Operator(pick("cmp", "Gt", "Lt", "Gte", "Lte")), Values: []string{pick("size", "1", "2", "4")}}
		case 4:
			return Requirement{Key: "tier", Operator: Operator(pick("ex", "Exists", "DoesNotExist"))}
		}
		return Requirement{Key: LabelOS, Operator: In, Values: []string{pick("osv", "linux", "windows")}}
	}
	keys := []string{LabelZone, LabelHostname, LabelCapacityType}
	apps := []string{"a", "b", "c"}
	class := func(i int) PodClass {
		app := pick("app", apps...)
		p := PodClass{Name: fmt.Sprintf("c%d", i), Namespace: pick("ns", "n1", "n1", "n2"), Labels: map[string]string{"app": app}}
		p.Requests = Resources{"cpu": int64(num("reqcpu", 0, 30)) * 100, "memory": int64(num("reqmem", 0, 40)) << 28}
		if chance("reqgpu", 10) {
			p.Requests["gpu"] = 1
		}
		if chance("sel", 25) {
			p.NodeSelector = []Requirement{req()}
		}
		if chance("aff", 15) {
			for j, n := 0, num("terms", 1, 2); j < n; j++ {
				p.NodeAffinity = append(p.NodeAffinity, []Requirement{req()})
			}
		}
		if chance("pref", 15) {
			p.PreferredNodeAffinity = []PreferredTerm{{Weight: int32(num("w", 1, 100)), Requirements: []Requirement{req()}}}
		}
		if chance("tol", 40) {
			p.Tolerations = []Toleration{{Key: "team", Operator: "Exists"}}
		}
		if chance("spread", 30) {
			p.Spread = []SpreadConstraint{{Key: keys[num("skey", 0, 2)], MaxSkew: int32(num("skew", 1, 2)), Selector: sel(app), Soft: chance("soft", 30), MinDomains: int32(num("md", 0, 3)), NodeTaintsPolicy: NodePolicy(pick("tp", "", "Honor")), NodeAffinityPolicy: NodePolicy(pick("ap", "", "Ignore"))}}
		}
		if chance("affinity", 12) {
			p.PodAffinity = []AffinityTerm{{Key: keys[num("akey", 0, 1)], Selector: sel(pick("aapp", app, app, apps[0])), AllNamespaces: chance("alln", 20), Weight: int32(num("aw", 0, 1) * 5)}}
		}
		if chance("anti", 20) {
			p.PodAntiAffinity = []AffinityTerm{{Key: keys[num("xkey", 0, 1)], Selector: sel(pick("xapp", app, app, apps[1])), Weight: int32(num("xw", 0, 1) * 5)}}
		}
		if chance("port", 8) {
			p.HostPorts = []HostPort{{Port: 80}}
		}
		if chance("vol", 10) {
			p.Volumes = map[string]int{"disk": num("vols", 1, 2)}
		}
		if chance("shared", 6) {
			p.SharedVolumes = []SharedVolume{{Driver: "disk", ID: "data"}}
		}
		if chance("volzone", 8) {
			p.VolumeTopology = []VolumeTopology{{Terms: [][]Requirement{{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}, {{Key: LabelZone, Operator: In, Values: []string{"z2"}}}}}}
		}
		if chance("prio", 20) {
			p.Priority = 1000
		}
		return p
	}
	nClass := num("classes", 1, 6)
	for i := 0; i < nClass; i++ {
		s.Classes = append(s.Classes, class(i))
	}
	if chance("daemon", 40) {
		s.Daemons = append(s.Daemons, ClassID(len(s.Classes)))
		d := PodClass{Name: "daemon", Namespace: "kube-system", Requests: Resources{"cpu": 100, "memory": 1 << 27}}
		if chance("dtol", 60) {
			d.Tolerations = []Toleration{{Operator: "Exists"}}
		}
		if chance("dport", 20) {
			d.HostPorts = []HostPort{{Port: 80}}
		}
		if chance("dsel", 30) {
			d.NodeSelector = []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}
		}
		s.Classes = append(s.Classes, d)
	}
	for i, n := 0, num("nodes", 0, 4); i < n; i++ {
		nd := Node{Name: fmt.Sprintf("n%d", i), NodePool: "p0", Initialized: chance("init", 80), Taints: taints()}
		nd.Labels = map[string]string{LabelZone: pick("nz", zones...), LabelCapacityType: CapacityOnDemand, LabelHostname: nd.Name, LabelOS: "linux", LabelArch: "amd64", "size": "4"}
		if chance("ntier", 40) {
			nd.Labels["tier"] = pick("nt", "gold", "silver")
		}
		nd.Allocatable = Resources{"cpu": int64(num("ncpu", 1, 6)) * 1000, "memory": int64(num("nmem", 1, 16)) << 30, "pods": 20}
		if chance("nvol", 30) {
			nd.VolumeLimits = map[string]int{"disk": 2}
		}
		if chance("closed", 10) {
			nd.Closed = "deleting"
		}
		if len(s.Daemons) > 0 {
			nd.MissingDaemons = s.Daemons
		}
		for j, m := 0, num("npods", 0, 2); j < m; j++ {
			nd.Pods = append(nd.Pods, PodGroup{Class: ClassID(num("nclass", 0, nClass-1)), Pods: []string{fmt.Sprintf("old-%d-%d", i, j)}})
		}
		s.Nodes = append(s.Nodes, nd)
	}
	for i := 0; i < nClass; i++ {
		g := PodGroup{Class: ClassID(i)}
		for j, n := 0, num("replicas", 0, 7); j < n; j++ {
			g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", s.Classes[i].Name, j))
		}
		if len(g.Pods) > 0 {
			s.Pending = append(s.Pending, g)
		}
	}
	return s
}

func mustJSON(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Every plan obeys every constraint, names every pod once, keeps limits, costs
// at least its bound, and leaves out nobody who obviously fits.
func TestPlansHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSnapshot(t)
		o := Options{Trace: TraceAll}
		if rapid.IntRange(0, 4).Draw(t, "policy") == 0 {
			o.Preferences = PreferencesIgnore
		}
		if rapid.Bool().Draw(t, "improve") {
			o.Work = 20_000 // also for passes that are too small for it by default
		}
		before := mustJSON(s)
		p, err := Place(s, o)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if mustJSON(s) != before {
			t.Fatalf("the snapshot was changed")
		}
		if err := verify(s, p, o); err != nil {
			t.Fatalf("%v\nsnapshot %s\nplan %s", err, before, mustJSON(p))
		}
		q, err := Place(s, o)
		if err != nil || mustJSON(p) != mustJSON(q) {
			t.Fatalf("two calls differ")
		}
	})
}
