// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"math/rand"
	"testing"

	. "github.com/nap-aks/nap/engine"
)

// linearTypes returns n sizes of 1, 2, 3 … cores with 2 GiB per core, in three
// zones, with prices proportional to their resources.
func linearTypes(n int) Catalogue {
	var c Catalogue
	for i := 1; i <= n; i++ {
		cpu, mem := int64(i), int64(2*i)<<30
		it := InstanceType{
			Name:        fmt.Sprintf("linear-%d", i),
			Capacity:    Resources{"cpu": cpu * 1000, "memory": mem, "pods": 10 * cpu},
			Allocatable: Resources{"cpu": cpu*1000 - 100, "memory": mem - 10<<20, "pods": 10 * cpu},
			Requirements: []Requirement{
				{Key: LabelOS, Operator: In, Values: []string{"linux", "windows"}},
				{Key: LabelArch, Operator: In, Values: []string{"amd64"}},
			},
		}
		price := 0.1*float64(cpu) + 0.1*float64(mem)/1e9
		for _, o := range [][2]string{{CapacitySpot, "z1"}, {CapacitySpot, "z2"}, {CapacityOnDemand, "z1"}, {CapacityOnDemand, "z2"}, {CapacityOnDemand, "z3"}} {
			it.Offerings = append(it.Offerings, Offering{CapacityType: o[0], Zone: o[1], PriceUSDPerHour: price, Available: true})
		}
		c.InstanceTypes = append(c.InstanceTypes, it)
	}
	return c
}

// cloudTypes imitates a cloud's catalogue: families with different ratios of
// memory to cores, generations with slightly different prices, sizes in powers
// of two and between, three zones, spot and on-demand.
func cloudTypes() Catalogue {
	var c Catalogue
	for f, ratio := range []int64{2, 4, 8, 16} {
		for gen := 1; gen <= 30; gen++ {
			for _, cpu := range []int64{2, 4, 8, 16, 20, 32, 48, 64, 96, 128} {
				mem := cpu * ratio << 30
				it := InstanceType{
					Name:         fmt.Sprintf("f%dg%d-%d", f, gen, cpu),
					Capacity:     Resources{"cpu": cpu * 1000, "memory": mem, "pods": 250},
					Allocatable:  Resources{"cpu": cpu*1000 - 100 - 10*cpu, "memory": mem - mem/20 - 1<<29, "pods": 250},
					Requirements: []Requirement{{Key: LabelArch, Operator: In, Values: []string{"amd64"}}, {Key: "family", Operator: In, Values: []string{fmt.Sprint(f)}}},
				}
				price := (0.03*float64(cpu) + 0.0045*float64(cpu*ratio)) * (1 + 0.01*float64(gen))
				for _, z := range []string{"z1", "z2", "z3"} {
					it.Offerings = append(it.Offerings, Offering{Zone: z, CapacityType: CapacityOnDemand, PriceUSDPerHour: price, Available: true},
						Offering{Zone: z, CapacityType: CapacitySpot, PriceUSDPerHour: price * 0.3, Available: true})
				}
				c.InstanceTypes = append(c.InstanceTypes, it)
			}
		}
	}
	return c
}

func appSelector(key, v string) *Selector {
	return &Selector{Requirements: []Requirement{{Key: key, Operator: In, Values: []string{v}}}}
}

// mixedPods returns n pods of five kinds in equal parts: plain, spread over zones,
// spread over hosts, together in a zone, apart from each other on hosts, all
// of random sizes and labels.
func mixedPods(n int) *Snapshot {
	r := rand.New(rand.NewSource(42))
	s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{linearTypes(400)}, Pools: []NodePool{{Name: "default", Limits: Resources{"cpu": 1e10, "memory": 1e7 << 30}}}}
	index := map[string]int{}
	label := func() string { return string(rune('a' + r.Intn(7))) }
	for i := 0; i < n; i++ {
		p := PodClass{Namespace: "default", Labels: map[string]string{"my-label": label()}}
		switch i * 5 / n {
		case 1, 2:
			key := []string{LabelZone, LabelHostname}[i*5/n-1]
			p.Spread = []SpreadConstraint{{Key: key, MaxSkew: 1, Selector: appSelector("my-label", label())}}
		case 3:
			l := label()
			p.Labels = map[string]string{"my-affinity": l}
			p.PodAffinity = []AffinityTerm{{Key: LabelZone, Selector: appSelector("my-affinity", l)}}
		case 4:
			p.Labels = map[string]string{"app": "apart"}
			p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Selector: appSelector("app", "apart")}}
		}
		p.Requests = Resources{"cpu": []int64{100, 250, 500, 1000, 1500}[r.Intn(5)], "memory": []int64{100, 256, 512, 1024, 2048, 4096}[r.Intn(6)] << 20}
		k := mustJSON(p)
		c, ok := index[k]
		if !ok {
			c = len(s.Classes)
			index[k] = c
			s.Classes = append(s.Classes, p)
			s.Pending = append(s.Pending, PodGroup{Class: ClassID(c)})
		}
		s.Pending[c].Pods = append(s.Pending[c].Pods, fmt.Sprintf("p-%d", i))
	}
	return s
}

func deployments(n, replicas int) *Snapshot {
	r := rand.New(rand.NewSource(1))
	s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{cloudTypes()}, Pools: []NodePool{{Name: "default"}}}
	for i := 0; i < n; i++ {
		app := fmt.Sprintf("app-%d", i)
		p := PodClass{Name: app, Namespace: "d", Labels: map[string]string{"app": app}, Requests: Resources{
			"cpu":    []int64{100, 250, 500, 1000, 2000, 4000}[r.Intn(6)],
			"memory": []int64{128, 256, 512, 1024, 2048, 4096, 8192}[r.Intn(7)] << 20,
		}}
		switch i % 5 {
		case 0:
			p.Spread = []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Selector: appSelector("app", app)}}
		case 1:
			p.Spread = []SpreadConstraint{{Key: LabelHostname, MaxSkew: 3, Selector: appSelector("app", app)}}
		case 2:
			p.NodeSelector = []Requirement{{Key: LabelCapacityType, Operator: In, Values: []string{CapacityOnDemand}}}
		}
		s.Classes = append(s.Classes, p)
		g := PodGroup{Class: ClassID(i)}
		for j := 0; j < replicas; j++ {
			g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", app, j))
		}
		s.Pending = append(s.Pending, g)
	}
	return s
}

// fullCluster returns a cluster of nodes whose pods leave little room.
func fullCluster(nodes, podsPerNode int) *Snapshot {
	s := deployments(500, 0)
	s.Pending = nil
	for i := 0; i < nodes; i++ {
		n := Node{Name: fmt.Sprintf("node-%05d", i), NodePool: "default", InstanceType: "f1g1-32", Initialized: true, PriceUSDPerHour: 1.5,
			Labels:      map[string]string{LabelZone: fmt.Sprintf("z%d", i%3+1), LabelHostname: fmt.Sprintf("node-%05d", i), LabelCapacityType: CapacityOnDemand, LabelArch: "amd64", LabelNodePool: "default", "family": "1"},
			Allocatable: Resources{"cpu": 31_500, "memory": 120 << 30, "pods": 250}}
		left := n.Allocatable["cpu"]
		for j := 0; j < podsPerNode; j++ {
			c := (i*7 + j*31) % 500
			left -= s.Classes[c].Requests["cpu"]
			n.Pods = append(n.Pods, PodGroup{Class: ClassID(c), Pods: []string{fmt.Sprintf("old-%d-%d", i, j)}})
		}
		n.Reserved = Resources{"cpu": max(0, left-int64(i%20)*50)}
		s.Nodes = append(s.Nodes, n)
	}
	return s
}

// starved returns the cluster of a bug report: many pending pods, most of which
// nothing can satisfy, on a large cluster with many NodePools.
func starved() *Snapshot {
	s := fullCluster(1060, 15)
	base := s.Pools[0]
	s.Pools = nil
	for i := 0; i < 20; i++ {
		p := base
		p.Name = fmt.Sprintf("pool-%d", i)
		p.Taints = []Taint{{Key: "team", Value: fmt.Sprint(i), Effect: NoSchedule}}
		p.Requirements = []Requirement{{Key: LabelZone, Operator: In, Values: []string{fmt.Sprintf("z%d", i%3+1)}}}
		s.Pools = append(s.Pools, p)
	}
	for i := 0; i < 217; i++ {
		c := PodClass{Name: fmt.Sprintf("gpu-%d", i), Namespace: "ml", Labels: map[string]string{"job": fmt.Sprint(i)}, Requests: Resources{"cpu": int64(1000 + i*10), "nvidia.com/gpu": 8},
			Tolerations: []Toleration{{Key: "team", Operator: "Exists"}}}
		if i%6 == 0 {
			c.Requests = Resources{"cpu": 250, "memory": 1 << 28}
		}
		id := ClassID(len(s.Classes))
		s.Classes = append(s.Classes, c)
		g := PodGroup{Class: id}
		for j := 0; j < 10; j++ {
			g.Pods = append(g.Pods, fmt.Sprintf("gpu-%d-%d", i, j))
		}
		s.Pending = append(s.Pending, g)
	}
	return s
}

func report(b *testing.B, s *Snapshot, p *Plan) {
	n := 0
	refused := 0
	for _, v := range p.Verdicts {
		n += len(v.Pods)
		if v.Outcome == Refused {
			refused += len(v.Pods)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "pods/s")
	b.ReportMetric(float64(len(p.Machines)), "machines")
	b.ReportMetric(p.CostUSDPerHour, "$/h")
	b.ReportMetric(float64(refused), "refused")
}

func benchmark(b *testing.B, s *Snapshot, o Options) {
	b.ReportAllocs()
	var p *Plan
	for i := 0; i < b.N; i++ {
		var err error
		if p, err = Place(s, o); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s, p)
}

// These compile the snapshot and place.
func BenchmarkMixed1000(b *testing.B)         { benchmark(b, mixedPods(1000), Options{}) }
func BenchmarkMixed5000(b *testing.B)         { benchmark(b, mixedPods(5000), Options{}) }
func BenchmarkMixed10000(b *testing.B)        { benchmark(b, mixedPods(10000), Options{}) }
func BenchmarkDeployments100000(b *testing.B) { benchmark(b, deployments(500, 200), Options{}) }
func BenchmarkStarved(b *testing.B)           { benchmark(b, starved(), Options{}) }

// BenchmarkWarmTen places ten pods on 5,000 nodes with 100,000 pods, without
// compiling.
func BenchmarkWarmTen(b *testing.B) {
	s := fullCluster(5000, 20)
	c, err := Compile(s)
	if err != nil {
		b.Fatal(err)
	}
	var pending []PodGroup
	for i := 0; i < 10; i++ {
		pending = append(pending, PodGroup{Class: ClassID(i * 3), Pods: []string{fmt.Sprintf("new-%d", i)}})
	}
	if _, err := c.Place(pending, Options{}); err != nil { // warm up
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var p *Plan
	for i := 0; i < b.N; i++ {
		if p, err = c.Place(pending, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s, p)
}
