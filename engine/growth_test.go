// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/engine"
)

// growthSnapshot has a catalogue of about the size of a family of Azure, one pool
// with two open labels, and n classes of pods that differ as told.
func growthSnapshot(n int, differ func(i int, p *engine.PodClass)) *engine.Snapshot {
	s := &engine.Snapshot{Version: engine.SnapshotVersion, Catalogues: make([]engine.Catalogue, 1)}
	for t := range 250 {
		cpu := int64(2 << (t % 6))
		amounts := engine.Resources{engine.ResourceCPU: cpu * 1000, engine.ResourceMemory: cpu * int64(2+t%7) << 30, engine.ResourcePods: 110}
		it := engine.InstanceType{Name: fmt.Sprintf("size-%03d", t), Capacity: amounts, Allocatable: amounts}
		for z := range 4 {
			it.Offerings = append(it.Offerings, engine.Offering{
				Zone: fmt.Sprintf("zone-%d", z), CapacityType: "on-demand", Available: true,
				PriceUSDPerHour: float64(cpu) * (0.04 + 0.0001*float64(t)),
			})
		}
		s.Catalogues[0].InstanceTypes = append(s.Catalogues[0].InstanceTypes, it)
	}
	s.Pools = []engine.NodePool{{Name: "default", Requirements: []engine.Requirement{
		{Key: "example.com/tenant", Operator: engine.Exists}, {Key: "example.com/center", Operator: engine.Exists},
	}}}
	for i := range n {
		p := engine.PodClass{
			Namespace: "shop", Name: fmt.Sprint("app-", i), Labels: map[string]string{"app": fmt.Sprint("app-", i)},
			Requests: engine.Resources{engine.ResourceCPU: 500, engine.ResourceMemory: 512 << 20},
		}
		differ(i, &p)
		s.Classes = append(s.Classes, p)
		s.Pending = append(s.Pending, engine.PodGroup{Class: engine.ClassID(i), Pods: []string{p.Name + "-a", p.Name + "-b"}})
	}
	return s
}

func tenant(i int) engine.Requirement {
	return engine.Requirement{Key: "example.com/tenant", Operator: engine.In, Values: []string{fmt.Sprint("t-", i)}}
}

func center(i int) engine.Requirement {
	return engine.Requirement{Key: "example.com/center", Operator: engine.In, Values: []string{fmt.Sprint("c-", i)}}
}

// own selects the pods of a class.
func own(i int) *engine.Selector {
	return &engine.Selector{Requirements: []engine.Requirement{{Key: "app", Operator: engine.In, Values: []string{fmt.Sprint("app-", i)}}}}
}

// TestGrowth places classes of pods with as many different values of something.
// Twice as many must not take much more than twice the memory.
func TestGrowth(t *testing.T) {
	for _, test := range []struct {
		what   string
		differ func(i int, p *engine.PodClass)
	}{
		{"one open label", func(i int, p *engine.PodClass) { p.NodeSelector = []engine.Requirement{tenant(i)} }},
		{"two open labels", func(i int, p *engine.PodClass) { p.NodeSelector = []engine.Requirement{tenant(i), center(i)} }},
		{"either of two open labels", func(i int, p *engine.PodClass) {
			p.NodeSelector = []engine.Requirement{tenant(i)}
			if i%2 == 0 {
				p.NodeSelector[0] = center(i)
			}
		}},
		{"node affinity", func(i int, p *engine.PodClass) {
			p.NodeAffinity = [][]engine.Requirement{{tenant(i)}, {center(i)}}
		}},
		{"preferred node affinity", func(i int, p *engine.PodClass) {
			p.PreferredNodeAffinity = []engine.PreferredTerm{{Weight: 1, Requirements: []engine.Requirement{tenant(i), center(i)}}}
		}},
		{"tolerations", func(i int, p *engine.PodClass) {
			p.Tolerations = []engine.Toleration{{Key: fmt.Sprint("taint-", i), Operator: "Exists"}}
		}},
		{"host ports", func(i int, p *engine.PodClass) {
			p.HostPorts = []engine.HostPort{{Port: int32(1000 + i), Protocol: "TCP"}}
		}},
		{"priorities", func(i int, p *engine.PodClass) { p.Priority = int32(i) }},
		{"namespaces", func(i int, p *engine.PodClass) { p.Namespace = fmt.Sprint("ns-", i) }},
		{"requests", func(i int, p *engine.PodClass) { p.Requests[engine.ResourceCPU] += int64(i) }},
		{"anti-affinity", func(i int, p *engine.PodClass) {
			p.PodAntiAffinity = []engine.AffinityTerm{{Key: engine.LabelHostname, Selector: own(i)}}
		}},
		{"zone spread", func(i int, p *engine.PodClass) {
			p.Spread = []engine.SpreadConstraint{{Key: engine.LabelZone, MaxSkew: 1, Selector: own(i)}}
		}},
		{"unknown resources", func(i int, p *engine.PodClass) { p.Requests[fmt.Sprint("example.com/device-", i)] = 1 }},
		{"unknown topology keys", func(i int, p *engine.PodClass) {
			p.Spread = []engine.SpreadConstraint{{Key: fmt.Sprint("example.com/rack-", i), MaxSkew: 1, Selector: own(i)}}
		}},
		{"unknown labels", func(i int, p *engine.PodClass) {
			p.NodeSelector = []engine.Requirement{{Key: fmt.Sprint("example.com/label-", i), Operator: engine.Exists}}
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			measure := func(n int) (mb float64, took time.Duration) {
				s := growthSnapshot(n, test.differ)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				plan, err := engine.Place(s, engine.Options{})
				if err != nil {
					t.Fatal(err)
				}
				took = time.Since(start)
				runtime.ReadMemStats(&after)
				for _, v := range plan.Verdicts {
					if v.Outcome == engine.Refused && !strings.HasPrefix(test.what, "unknown") {
						t.Errorf("%v are refused: %s", v.Pods, v.Reason)
					}
				}
				return float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20), took
			}
			half, tHalf := measure(50)
			whole, tWhole := measure(100)
			t.Logf("50: %.1f MB, %v; 100: %.1f MB, %v", half, tHalf, whole, tWhole)
			if whole > 2.6*half+4 {
				t.Errorf("100 different values take %.1f MB, 50 take %.1f MB: more than linear", whole, half)
			}
			if whole > 120 {
				t.Errorf("100 different values take %.1f MB, want at most 120 MB", whole)
			}
		})
	}
}

// TestLaterCombination asks for a combination of open labels that no class named
// when the catalogue was compiled.
func TestLaterCombination(t *testing.T) {
	s := growthSnapshot(20, func(i int, p *engine.PodClass) { p.NodeSelector = []engine.Requirement{tenant(i), center(i)} })
	c, err := engine.Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Place(s.Pending, engine.Options{}); err != nil {
		t.Fatal(err)
	}
	late := s.Classes[3]
	late.Name, late.NodeSelector = "late", []engine.Requirement{tenant(3), center(7)}
	id, err := c.Class(late)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.Place([]engine.PodGroup{{Class: id, Pods: []string{"late-a"}}}, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Machines) != 1 || plan.Verdicts[0].Outcome != engine.OnMachine {
		t.Fatalf("the pod is %+v", plan.Verdicts[0])
	}
	got := map[string]string{}
	for _, r := range plan.Machines[0].Requirements {
		got[r.Key] = strings.Join(r.Values, ",")
	}
	if got["example.com/tenant"] != "t-3" || got["example.com/center"] != "c-7" {
		t.Errorf("the machine requires %v", got)
	}
}
