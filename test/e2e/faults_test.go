// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// fourCorePool is a NodePool of machines with four cores, spot preferred, of
// which half may be disrupted at once.
const fourCorePool = `apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: four-cores}
spec:
  weight: 50
  disruption: {consolidationPolicy: WhenEmptyOrUnderutilized, consolidateAfter: 0s, budgets: [{nodes: 50%}]}
  template:
    spec:
      expireAfter: Never
      requirements:
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [spot, on-demand]}
      - {key: karpenter.azure.com/sku-family, operator: In, values: [D, E, F]}
      - {key: karpenter.azure.com/sku-cpu, operator: In, values: ["4"]}
      nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}
`

// TestScaleUpSurvivesKills kills the controller, ARM and the API server with
// SIGKILL during a scale-up. All pods run in the end, and every machine has
// exactly one NodeClaim and one Node.
func TestScaleUpSurvivesKills(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	const pods = 60
	c.apply(t, deployment("inflate", pods, "2", "2Gi"))
	for _, victim := range []string{"controller", "arm", "kube-apiserver"} {
		time.Sleep(1500 * time.Millisecond)
		in.kill(t, victim)
	}
	eventually(t, "all pods Running", 4*time.Minute, func() error { return c.running("default", "inflate", pods) })
	eventually(t, "each machine has one NodeClaim and one Node", 3*time.Minute, func() error { return c.matched(1) })
}

// TestPodsSurviveStockoutEvictionAndOutage combines the faults that cause most
// incidents: a stockout of the cheap sizes, the eviction of all spot machines at
// once, and, during a consolidation, the death of the controller and the API
// server while ARM does not respond. After each, the pods run again, and no
// machine is left over or exists twice.
func TestPodsSurviveStockoutEvictionAndOutage(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	pool := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(fourCorePool), &pool.Object); err != nil {
		t.Fatal(err)
	}
	c.apply(t, pool)
	if !t.Run("cheap sizes are out of stock", c.testStockout) {
		return
	}
	t.Run("all spot machines are evicted at once", c.testSpotEviction)
	t.Run("the control plane fails during a consolidation", c.testOutageDuringConsolidation)
	t.Run("no machine is left over", func(t *testing.T) {
		c.scale(t, "inflate", 0)
		eventually(t, "machines and nodes gone", 2*time.Minute, c.noMachines)
	})
}

// inflated is the number of pods that run before and after the faults.
const inflated = 24

// recovers waits until all pods run and machines, NodeClaims and Nodes match.
func (c *cluster) recovers(t *testing.T) {
	t.Helper()
	eventually(t, "all pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", inflated) })
	eventually(t, "machines, NodeClaims and Nodes match", time.Minute, func() error { return c.matched(1) })
}

func (c *cluster) testStockout(t *testing.T) {
	nap := func(args ...string) {
		t.Helper()
		if out, err := c.run(args...); err != nil {
			t.Fatalf("nap %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	nap("fault", "stockout", "--name", "cheap", "--size", "Standard_D*")
	c.apply(t, deployment("inflate", inflated, "1", "1Gi"))
	c.recovers(t)
	nodes, err := c.nodes(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if size := n.Labels["node.kubernetes.io/instance-type"]; strings.HasPrefix(size, "Standard_D") {
			t.Errorf("node %s is a %s, which is out of stock", n.Name, size)
		}
	}
	nap("fault", "clear")
}

func (c *cluster) testSpotEviction(t *testing.T) {
	nodes, err := c.nodes(true)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	evicted := map[string]bool{}
	for _, n := range nodes {
		if n.Labels["karpenter.sh/capacity-type"] != "spot" {
			continue
		}
		evicted[n.Name] = true
		wg.Go(func() {
			if out, err := c.run("fault", "evict", n.Name); err != nil {
				t.Errorf("evicting %s: %v\n%s", n.Name, err, out)
			}
		})
	}
	wg.Wait()
	if len(evicted) < 4 {
		t.Fatalf("only %d of %d nodes are spot machines, want at least 4", len(evicted), len(nodes))
	}
	eventually(t, "evicted nodes gone", time.Minute, func() error {
		now, err := c.nodes(true)
		if err != nil {
			return err
		}
		for _, n := range now {
			if evicted[n.Name] {
				return fmt.Errorf("node %s still exists", n.Name)
			}
		}
		return nil
	})
	c.recovers(t)
}

func (c *cluster) testOutageDuringConsolidation(t *testing.T) {
	c.apply(t, budget("inflate", 3))
	const left = 9
	c.scale(t, "inflate", left)
	eventually(t, "9 pods left", time.Minute, func() error { return c.running("default", "inflate", left) })
	stop := c.watchBudget(t, "inflate", 3)
	eventually(t, "a node is being disrupted", time.Minute, func() error {
		nodes, err := c.nodes(true)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			for _, taint := range n.Spec.Taints {
				if taint.Key == "karpenter.sh/disrupted" {
					return nil
				}
			}
		}
		return fmt.Errorf("none of %d nodes is tainted", len(nodes))
	})
	arm := c.component(t, "arm")
	if err := syscall.Kill(arm.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	for _, victim := range []string{"controller", "kube-apiserver"} {
		c.kill(t, victim)
		time.Sleep(3 * time.Second)
	}
	time.Sleep(time.Until(stopped.Add(25 * time.Second)))
	if err := syscall.Kill(arm.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the needed machines are left", 3*time.Minute, func() error {
		if err := c.running("default", "inflate", left); err != nil {
			return err
		}
		if err := c.matched(1); err != nil {
			return err
		}
		nodes, err := c.nodes(true)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Spec.Unschedulable || len(n.Spec.Taints) > 0 {
				return fmt.Errorf("node %s still has the taints %v", n.Name, n.Spec.Taints)
			}
		}
		if len(nodes) > 4 {
			return fmt.Errorf("%d nodes for %d pods of one core, want at most 4 of four cores", len(nodes), left)
		}
		return nil
	})
	stop()
}
