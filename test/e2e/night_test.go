package e2e

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// nightPool sells machines of four cores, spot first, and takes half of them
// away at once when they are not needed.
const nightPool = `apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: night}
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

// TestNight is what wakes people up: no capacity for what is cheap, spot
// machines taken away all at once, and in the middle of a consolidation the
// controller dead, the API server dead and ARM deaf. Each time the pods come
// up again, and no machine is left over or there twice.
func TestNight(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	pool := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(nightPool), &pool.Object); err != nil {
		t.Fatal(err)
	}
	c.apply(t, pool)
	const pods = 24
	nap := func(args ...string) {
		t.Helper()
		if out, err := in.run(args...); err != nil {
			t.Fatalf("nap %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	if !t.Run("nothing cheap can be had", func(t *testing.T) {
		nap("fault", "stockout", "--name", "cheap", "--size", "Standard_D*")
		c.apply(t, deployment("inflate", pods, "1", "1Gi"))
		eventually(t, "all pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", pods) })
		eventually(t, "machines, NodeClaims and Nodes match", time.Minute, func() error { return c.matched(1) })
		nodes, err := c.nodes(true)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			if size := n.Labels["node.kubernetes.io/instance-type"]; strings.HasPrefix(size, "Standard_D") {
				t.Errorf("node %s is a %s, of which there is none", n.Name, size)
			}
		}
		nap("fault", "clear")
	}) {
		return
	}

	t.Run("every spot machine is taken away at once", func(t *testing.T) {
		nodes, err := c.nodes(true)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		evicted := 0
		for _, n := range nodes {
			if n.Labels["karpenter.sh/capacity-type"] != "spot" {
				continue
			}
			evicted++
			wg.Go(func() {
				if out, err := in.run("fault", "evict", n.Name); err != nil {
					t.Errorf("evicting %s: %v\n%s", n.Name, err, out)
				}
			})
		}
		wg.Wait()
		if evicted < 4 {
			t.Fatalf("only %d of %d nodes are spot machines: no storm", evicted, len(nodes))
		}
		gone := map[string]bool{}
		for _, n := range nodes {
			gone[n.Name] = n.Labels["karpenter.sh/capacity-type"] == "spot"
		}
		eventually(t, "evicted nodes gone", time.Minute, func() error {
			now, err := c.nodes(true)
			if err != nil {
				return err
			}
			for _, n := range now {
				if gone[n.Name] {
					return fmt.Errorf("node %s is still there", n.Name)
				}
			}
			return nil
		})
		eventually(t, "all pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", pods) })
		eventually(t, "machines, NodeClaims and Nodes match", time.Minute, func() error { return c.matched(1) })
	})

	t.Run("a consolidation is interrupted", func(t *testing.T) {
		c.apply(t, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "inflate", Namespace: "default"},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MaxUnavailable: to.Ptr(intstr.FromInt32(3)),
				Selector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": "inflate"}},
			},
		})
		const left = 9
		c.scale(t, "inflate", left)
		eventually(t, "9 pods left", time.Minute, func() error { return c.running("default", "inflate", left) })
		stop := c.watchBudget(t, "inflate", 3)
		eventually(t, "a node is on its way out", time.Minute, func() error {
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
		arm := in.component(t, "arm")
		if err := syscall.Kill(arm.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		deaf := time.Now()
		for _, victim := range []string{"controller", "kube-apiserver"} {
			p := in.component(t, victim)
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
				t.Fatalf("killing %s (pid %d): %v", victim, p.PID, err)
			}
			time.Sleep(3 * time.Second)
		}
		time.Sleep(time.Until(deaf.Add(25 * time.Second)))
		if err := syscall.Kill(arm.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the machines that are needed are left", 3*time.Minute, func() error {
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
	})

	t.Run("nothing is left over", func(t *testing.T) {
		c.scale(t, "inflate", 0)
		eventually(t, "machines and nodes gone", 2*time.Minute, c.noMachines)
	})
}

// matched returns nil when each machine in ARM has one NodeClaim and one Node,
// and there are at least so many.
func (c *cluster) matched(atLeast int) error {
	machines, err := c.machineNames()
	if err != nil {
		return err
	}
	claims, err := c.nodeClaims()
	if err != nil {
		return err
	}
	nodes, err := c.nodes(true)
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, claim := range claims {
		if claim.GetLabels()["karpenter.sh/nodepool"] == "" {
			return fmt.Errorf("NodeClaim %s belongs to no NodePool", claim.GetName())
		}
		id, _, _ := unstructuredString(claim.Object, "status", "providerID")
		seen[id]++
		if id == "" || seen[id] > 1 {
			return fmt.Errorf("NodeClaim %s has provider ID %q, %d claims share it", claim.GetName(), id, seen[id])
		}
	}
	if len(machines) != len(claims) || len(nodes) != len(claims) || len(claims) < atLeast {
		return fmt.Errorf("%d machines in ARM, %d NodeClaims, %d Nodes", len(machines), len(claims), len(nodes))
	}
	for _, n := range nodes {
		if seen[n.Spec.ProviderID] != 1 {
			return fmt.Errorf("node %s (%s) has no NodeClaim", n.Name, n.Spec.ProviderID)
		}
	}
	return nil
}
