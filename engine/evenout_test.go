// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// crowd returns, summed over machines, how many pods of the classes that spread over
// zones are there beyond the skew.
func crowd(s *Snapshot, p *Plan) int {
	n := 0
	for i := range p.Machines {
		for _, g := range p.Machines[i].Pods {
			for _, c := range s.Classes[g.Class].Spread {
				if c.Key == LabelZone && !c.Soft && matches(c.Selector, s.Classes[g.Class].Labels) {
					n += max(0, len(g.Pods)-int(c.MaxSkew))
				}
			}
		}
	}
	return n
}

// EvenOut breaks no rule, keeps the cost, and makes no machine more crowded.
func TestEvenedOutPlansAreValid(t *testing.T) {
	moved := 0
	rapid.Check(t, func(t *rapid.T) {
		s := genSnapshot(t)
		o := Options{Work: 20_000}
		p, err := Place(s, o)
		if err != nil {
			t.Fatal(err)
		}
		cost, before := p.CostUSDPerHour, crowd(s, p)
		moved += EvenOut(s, p)
		if err := verify(s, p, o); err != nil {
			t.Fatalf("%v\nsnapshot %s\nplan %s", err, mustJSON(s), mustJSON(p))
		}
		if after := crowd(s, p); p.CostUSDPerHour != cost || after > before {
			t.Fatalf("cost $%f and %d pods beyond the skew, before $%f and %d", p.CostUSDPerHour, after, cost, before)
		}
	})
}

// spreadBurst returns workloads of different sizes, a quarter of them spread over zones.
func spreadBurst(workloads, replicas int) *Snapshot {
	s := &Snapshot{Version: SnapshotVersion, Catalogues: []Catalogue{linearTypes(48)}, Pools: []NodePool{{Name: "default"}}}
	for i := range workloads {
		app := fmt.Sprint("w", i)
		c := PodClass{Name: app, Namespace: "n", Labels: map[string]string{"app": app}, Requests: Resources{"cpu": int64(100 + 370*(i%9)), "memory": int64(256+300*(i%7)) << 20}}
		if i%4 == 0 {
			c.Spread = []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Selector: appSelector("app", app)}}
		}
		s.Classes = append(s.Classes, c)
		g := PodGroup{Class: ClassID(i)}
		for j := range replicas {
			g.Pods = append(g.Pods, fmt.Sprintf("%s-%d", app, j))
		}
		s.Pending = append(s.Pending, g)
	}
	return s
}

func TestEvenOutLeavesFewCrowdedMachines(t *testing.T) {
	s := spreadBurst(40, 20)
	p, err := Place(s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := crowd(s, p)
	EvenOut(s, p)
	if err := verify(s, p, Options{}); err != nil {
		t.Fatal(err)
	}
	if after := crowd(s, p); before < 40 || after > before/2 {
		t.Errorf("%d of 200 pods share a machine with more of their kind than the skew allows, %d before; want at most half", after, before)
	}
	if n := EvenOut(s, p); n > 40 {
		t.Errorf("a second call moves %d pods", n)
	}
}

func BenchmarkEvenOut(b *testing.B) {
	s := spreadBurst(500, 20)
	p, err := Place(s, Options{SkipBound: true})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		q := *p
		q.Machines, q.Verdicts = append([]Machine(nil), p.Machines...), append([]Verdict(nil), p.Verdicts...)
		b.StartTimer()
		EvenOut(s, &q)
	}
}
