// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package peer_test

import (
	"context"
	"testing"

	"github.com/nap-aks/nap/internal/peer"
	"github.com/nap-aks/nap/test/clustergen"
)

// TestScheduleOnGeneratedClusters runs Karpenter's scheduler on generated clusters, and
// checks that in these clusters many pods can be placed, but not all.
func TestScheduleOnGeneratedClusters(t *testing.T) {
	var placed, refused, machines, existing int
	for seed := range uint64(80) {
		o := clustergen.Generate(seed, clustergen.Options{})
		r, err := peer.Schedule(context.Background(), o, peer.Options{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		onNodes := 0
		for _, n := range r.ExistingNodes {
			onNodes += len(n.Pods)
		}
		onMachines := 0
		for _, m := range r.Machines() {
			onMachines += len(m.Claim.Pods)
			if m.InstanceType == "" || m.USDPerHour <= 0 {
				t.Errorf("seed %d: a machine without an offering: %+v", seed, m)
			}
		}
		if onNodes+onMachines+len(r.Errors) != r.Pods {
			t.Errorf("seed %d: %d pods on nodes, %d on machines, %d refused, of %d", seed, onNodes, onMachines, len(r.Errors), r.Pods)
		}
		placed, refused, machines, existing = placed+onNodes+onMachines, refused+len(r.Errors), machines+len(r.Machines()), existing+onNodes
	}
	t.Logf("%d pods placed, %d of them on existing nodes, %d refused, %d machines", placed, existing, refused, machines)
	if placed < 500 || refused < 50 || existing < 50 {
		t.Errorf("the generated clusters lack variety: %d placed, %d on existing nodes, %d refused", placed, existing, refused)
	}
}
