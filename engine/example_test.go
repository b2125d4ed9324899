// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"

	"github.com/nap-aks/nap/engine"
)

// Of four pods of 1 CPU one goes to a node that has room for it, the others to a
// new machine: one of 4 CPUs for $0.19 costs less than two of 2 CPUs for $0.10
// each.
func ExamplePlace() {
	size := func(name string, cpus int64, price float64) engine.InstanceType {
		amounts := engine.Resources{engine.ResourceCPU: cpus * 1000, engine.ResourceMemory: cpus << 32, engine.ResourcePods: 30}
		return engine.InstanceType{
			Name: name, Capacity: amounts, Allocatable: amounts,
			Offerings: []engine.Offering{{Zone: "zone-1", CapacityType: engine.CapacityOnDemand, PriceUSDPerHour: price, Available: true}},
		}
	}
	plan, err := engine.Place(&engine.Snapshot{
		Version: engine.SnapshotVersion,
		Classes: []engine.PodClass{{Name: "web", Requests: engine.Resources{engine.ResourceCPU: 1000, engine.ResourceMemory: 1 << 30}}},
		Pending: []engine.PodGroup{{Class: 0, Pods: []string{"web-1", "web-2", "web-3", "web-4"}}},
		Nodes: []engine.Node{{
			Name: "node-1", Initialized: true,
			Allocatable: engine.Resources{engine.ResourceCPU: 1500, engine.ResourceMemory: 8 << 30, engine.ResourcePods: 30},
		}},
		Pools:      []engine.NodePool{{Name: "default"}},
		Catalogues: []engine.Catalogue{{InstanceTypes: []engine.InstanceType{size("small", 2, 0.10), size("large", 4, 0.19)}}},
	}, engine.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range plan.Placements {
		fmt.Println("node", p.Node, p.Pods[0].Pods)
	}
	for _, m := range plan.Machines {
		fmt.Println("new machine", m.Offerings[0].InstanceType, m.Pods[0].Pods)
	}
	fmt.Printf("$%.2f per hour, at least $%.2f\n", plan.CostUSDPerHour, plan.Bound.USDPerHour)
	// Output:
	// node node-1 [web-1]
	// new machine large [web-2 web-3 web-4]
	// $0.19 per hour, at least $0.14
}
