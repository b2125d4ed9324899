// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
)

// TestDocumentation follows the how-to pages of node auto-provisioning, from the
// template that creates the cluster to the last step of disabling.
func TestDocumentation(t *testing.T) {
	in := start(t)
	if !t.Run("a template with mode Auto creates a cluster that provisions its nodes", in.testTemplate) {
		return
	}
	c := in.open(t, "napcluster")
	t.Run("pods that do not fit get machines, which are deleted with the pods", c.testScaleUpAndDown)
	t.Run("events, logs and metrics of the controller", c.testObservability)
	t.Run("disabling with provisioned nodes is refused and changes nothing", c.testDisableRefused)
	t.Run("with too little fixed capacity some nodes stay and disabling is still refused", c.testDisableWithoutCapacity)
	t.Run("disabling as documented moves the pods and succeeds", c.testDisable)
}

func (in *instance) testTemplate(t *testing.T) {
	in.deployTemplate(t, "napcluster")
	got, err := in.clusters.Get(in.ctx, resourceGroup, "napcluster", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Properties.NodeProvisioningProfile; p == nil || p.Mode == nil || *p.Mode != armcontainerservice.NodeProvisioningModeAuto {
		t.Fatalf("nodeProvisioningProfile reads back as %+v, want mode Auto", p)
	}
	c := in.open(t, "napcluster")
	eventually(t, "system pool nodes Ready", time.Minute, func() error { return c.readyNodes(3) })
	eventually(t, "default NodePools exist", time.Minute, func() error {
		for _, name := range []string{"default", "system-surge"} {
			if _, err := c.nodePool(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *cluster) testScaleUpAndDown(t *testing.T) {
	c.apply(t, deployment("inflate", 30, "1", "1Gi"))
	eventually(t, "30 pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
	nodes, err := c.nodes(true)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("no node has the label karpenter.sh/nodepool (%v)", err)
	}
	pods, err := c.pods("default", "inflate")
	if err != nil {
		t.Fatal(err)
	}
	onNAP := 0
	for _, p := range pods {
		for _, n := range nodes {
			if p.Spec.NodeName == n.Name {
				onNAP++
			}
		}
	}
	if onNAP < 20 {
		t.Errorf("only %d of 30 pods run on provisioned nodes", onNAP)
	}
	if got, err := c.machineNames(); err != nil || len(got) != len(nodes) {
		t.Errorf("%d nodes of NodePools but ARM lists the machines %v (%v)", len(nodes), got, err)
	}
	c.scale(t, "inflate", 0)
	eventually(t, "machines and nodes gone", 3*time.Minute, func() error { return c.noMachines() })
}

func (c *cluster) testObservability(t *testing.T) {
	eventually(t, "events of source node-auto-provisioning", time.Minute, func() error {
		out, err := c.run("kubectl", "--cluster-name", c.name, "get", "events", "-A", "--field-selector", "source=node-auto-provisioning")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if !strings.Contains(out, "Launched") && !strings.Contains(out, "Disruption") && !strings.Contains(out, "NodeClaim") && !strings.Contains(out, "Nominated") {
			return fmt.Errorf("no event of the controller in:\n%s", out)
		}
		return nil
	})
	out, err := c.run("logs", "controller")
	if err != nil {
		t.Fatalf("nap logs controller: %v\n%s", err, out)
	}
	parsed := 0
	for line := range strings.Lines(out) {
		if i := strings.IndexByte(line, '{'); i >= 0 && json.Valid([]byte(strings.TrimSpace(line[i:]))) {
			parsed++
		}
	}
	if parsed == 0 {
		t.Errorf("the controller's log has no JSON line:\n%.500s", out)
	}
	metrics := c.controllerMetrics(t)
	for _, name := range []string{"karpenter_nodeclaims_created_total", "karpenter_nodes_allocatable", "karpenter_scheduler_scheduling_duration_seconds", "karpenter_nodepools_usage", "karpenter_cluster_state_synced"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
}

func (c *cluster) testDisableRefused(t *testing.T) {
	c.scale(t, "inflate", 30)
	eventually(t, "30 pods Running again", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
	before, err := c.nodes(true)
	if err != nil || len(before) == 0 {
		t.Fatalf("no provisioned node (%v)", err)
	}
	err = c.setMode(c.name, armcontainerservice.NodeProvisioningModeManual)
	var re *azcore.ResponseError
	if !errors.As(err, &re) {
		t.Fatalf("disabling with provisioned nodes: got %v, want a refusal", err)
	}
	if re.StatusCode < 400 || re.StatusCode > 499 {
		t.Errorf("refused with status %d, want 400..499", re.StatusCode)
	}
	for _, want := range []string{before[0].Name, "default", "system-surge", "limits"} {
		if !strings.Contains(re.Error(), want) {
			t.Errorf("the refusal does not name %q:\n%v", want, re)
		}
	}
	got, err := c.clusters.Get(c.ctx, resourceGroup, c.name, nil)
	if err != nil || *got.Properties.NodeProvisioningProfile.Mode != armcontainerservice.NodeProvisioningModeAuto {
		t.Errorf("after the refusal the mode is %v (%v), want Auto", got.Properties.NodeProvisioningProfile, err)
	}
	after, err := c.nodes(true)
	if err != nil || len(after) < len(before) {
		t.Errorf("after the refusal %d nodes are left of %d (%v)", len(after), len(before), err)
	}
}

func (c *cluster) testDisableWithoutCapacity(t *testing.T) {
	c.apply(t, budget("inflate", 3))
	c.freezeNodePools(t)
	// One small node holds only a few of the pods.
	c.addPool(t, c.name, "fixed", 1, "Standard_D4s_v5")
	time.Sleep(15 * time.Second)
	if nodes, err := c.nodes(true); err != nil || len(nodes) == 0 {
		t.Fatalf("all provisioned nodes are gone although their pods fit nowhere else (%v)", err)
	}
	if err := c.setMode(c.name, armcontainerservice.NodeProvisioningModeManual); err == nil {
		t.Fatal("disabling was accepted while pods run on provisioned nodes")
	}
}

func (c *cluster) testDisable(t *testing.T) {
	stop := c.watchBudget(t, "inflate", 3)
	c.addPool(t, c.name, "big", 3, "Standard_D16s_v5")
	eventually(t, "provisioned machines gone", 5*time.Minute, func() error { return c.noMachines() })
	eventually(t, "pods run on fixed nodes", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
	stop()
	if err := c.setMode(c.name, armcontainerservice.NodeProvisioningModeManual); err != nil {
		t.Fatalf("disabling after the documented steps: %v", err)
	}
	got, err := c.clusters.Get(c.ctx, resourceGroup, c.name, nil)
	if err != nil || *got.Properties.NodeProvisioningProfile.Mode != armcontainerservice.NodeProvisioningModeManual {
		t.Fatalf("mode reads back as %v (%v), want Manual", got.Properties.NodeProvisioningProfile, err)
	}
}

// TestEnableExisting sets a Manual cluster to Auto and deletes it.
func TestEnableExisting(t *testing.T) {
	in := start(t)
	in.createManual(t, "plain")
	c := in.open(t, "plain")
	if _, err := c.nodePool("default"); err == nil {
		t.Fatal("a Manual cluster has a NodePool")
	}
	if err := in.setMode("plain", armcontainerservice.NodeProvisioningModeAuto); err != nil {
		t.Fatalf("enabling: %v", err)
	}
	c.apply(t, deployment("inflate", 12, "1", "1Gi"))
	eventually(t, "12 pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", 12) })
	if nodes, err := c.nodes(true); err != nil || len(nodes) == 0 {
		t.Fatalf("no provisioned node (%v)", err)
	}
	poller, err := in.clusters.BeginDelete(in.ctx, resourceGroup, "plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("deleting the cluster: %v", err)
	}
	if _, err := in.clusters.Get(in.ctx, resourceGroup, "plain", nil); err == nil {
		t.Fatal("the deleted cluster can still be read")
	}
}
