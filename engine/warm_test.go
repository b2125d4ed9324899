// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"slices"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

// A Cluster that has followed changes makes the same plan as one compiled from its
// snapshot, and a pass leaves it as it was.
func TestWarmClusterPlansLikeACompiledOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSnapshot(t)
		c, err := Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "passBefore") {
			if _, err := c.Place(s.Pending, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		names := map[string]bool{}
		for i := range s.Nodes {
			names[s.Nodes[i].Name] = true
		}
		for i, n := 0, rapid.IntRange(0, 8).Draw(t, "changes"); i < n && len(s.Nodes) > 0; i++ {
			node := s.Nodes[rapid.IntRange(0, len(s.Nodes)-1).Draw(t, "node")]
			class := s.Pending
			switch rapid.IntRange(0, 3).Draw(t, "change") {
			case 0:
				c.RemoveNode(node.Name)
				names[node.Name] = false
			case 1:
				if err := c.SetNode(node); err != nil {
					t.Fatal(err)
				}
				names[node.Name] = true
			case 2:
				if names[node.Name] && len(class) > 0 {
					if err := c.AddPods(node.Name, class[0].Class, fmt.Sprintf("added-%d", i)); err != nil {
						t.Fatal(err)
					}
				}
			case 3:
				now := c.Snapshot(s.Time, nil).Nodes
				at := slices.IndexFunc(now, func(x Node) bool { return x.Name == node.Name && len(x.Pods) > 0 })
				if at >= 0 {
					g := now[at].Pods[0]
					if err := c.RemovePods(node.Name, g.Class, g.Pods[0]); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		file := mustJSON(c.Snapshot(s.Time, s.Pending))
		warm, err := c.Place(s.Pending, Options{Trace: TraceAll})
		if err != nil {
			t.Fatal(err)
		}
		if after := mustJSON(c.Snapshot(s.Time, s.Pending)); after != file {
			t.Fatalf("the pass changed the cluster:\n%s\n%s", file, after)
		}
		cold, err := Place(c.Snapshot(s.Time, s.Pending), Options{Trace: TraceAll})
		if err != nil {
			t.Fatal(err)
		}
		if a, b := mustJSON(warm), mustJSON(cold); a != b {
			t.Fatalf("warm and cold differ on %s\nwarm %s\ncold %s", file, a, b)
		}
	})
}

// The allocations of a pass over an unchanged cluster depend on the pending pods,
// not on the size of the cluster.
func TestAllocationsDependOnPendingPods(t *testing.T) {
	allocs := func(nodes int) float64 {
		c, err := Compile(fullCluster(nodes, 10))
		if err != nil {
			t.Fatal(err)
		}
		var pending []PodGroup
		for i := 0; i < 10; i++ {
			pending = append(pending, PodGroup{Class: ClassID(i * 3), Pods: []string{fmt.Sprintf("new-%d", i)}})
		}
		return testing.AllocsPerRun(5, func() {
			if _, err := c.Place(pending, Options{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	small, large := allocs(200), allocs(4000)
	if large > 1.5*small+50 {
		t.Errorf("%v allocations on 200 nodes, %v on 4,000", small, large)
	}
}
