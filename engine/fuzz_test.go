// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"encoding/json"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// FuzzPlans lets the fuzzer choose the draws of the property test.
func FuzzPlans(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		s := genSnapshot(t)
		p, err := Place(s, Options{Trace: TraceAll, Work: 5000})
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(s, p, Options{}); err != nil {
			t.Fatal(err)
		}
	}))
}

// FuzzSnapshot places the pods of any snapshot file: the result is a plan or an
// error, never a panic.
func FuzzSnapshot(f *testing.F) {
	for _, s := range []*Snapshot{
		{},
		{Version: SnapshotVersion, Classes: []PodClass{{Requests: Resources{"cpu": 1}}}, Pending: []PodGroup{{Pods: []string{"a"}}},
			Pools: []NodePool{{Name: "p", Limits: Resources{"cpu": 10}}}, Catalogues: []Catalogue{{InstanceTypes: []InstanceType{{Name: "t",
				Allocatable: Resources{"cpu": 2000}, Offerings: []Offering{{Zone: "z", Available: true, PriceUSDPerHour: 1, Charges: []QuotaCharge{{}}}}}}}}, Quotas: []Quota{{Name: "q", Remaining: 3}},
			Nodes: []Node{{Name: "n", Allocatable: Resources{"cpu": 1}, Pods: []PodGroup{{Pods: []string{"b"}}}}}},
		{Version: SnapshotVersion, Classes: []PodClass{{Spread: []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Selector: &Selector{}}}, PodAffinity: []AffinityTerm{{Key: LabelZone}}, NodeSelector: []Requirement{{Key: "a", Operator: Gt, Values: []string{"1"}}}}}, Pending: []PodGroup{{Pods: []string{"a"}}}},
	} {
		b, err := json.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Snapshot
		if len(b) > 4096 || json.Unmarshal(b, &s) != nil {
			return
		}
		p, err := Place(&s, Options{Trace: TraceAll})
		if err != nil {
			return
		}
		n := 0
		for _, v := range p.Verdicts {
			n += len(v.Pods)
		}
		for _, g := range s.Pending {
			n -= len(g.Pods)
		}
		if n != 0 {
			t.Fatalf("%d verdicts too many", n)
		}
	})
}
