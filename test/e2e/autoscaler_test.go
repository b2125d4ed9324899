// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
)

// TestClusterAutoscaler checks that an autoscaled pool grows for pods that do not
// fit and shrinks when they are gone, within its limits.
func TestClusterAutoscaler(t *testing.T) {
	in := start(t)
	in.createManual(t, "ca")
	c := in.open(t, "ca")
	got, err := in.clusters.Get(in.ctx, resourceGroup, c.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Properties.AutoScalerProfile = &armcontainerservice.ManagedClusterPropertiesAutoScalerProfile{
		ScanInterval: to.Ptr("1s"), ScaleDownUnneededTime: to.Ptr("5s"), ScaleDownDelayAfterAdd: to.Ptr("5s"), ScaleDownDelayAfterDelete: to.Ptr("1s"),
		Expander: to.Ptr(armcontainerservice.ExpanderLeastWaste)}
	if _, err := in.putCluster(c.name, got.ManagedCluster); err != nil {
		t.Fatal(err)
	}
	in.addPool(t, c.name, "work", 1, "Standard_D4s_v5")
	if err := in.putPool(c.name, "work", func(p *armcontainerservice.ManagedClusterAgentPoolProfileProperties) {
		p.EnableAutoScaling, p.MinCount, p.MaxCount = to.Ptr(true), to.Ptr[int32](1), to.Ptr[int32](4)
	}); err != nil {
		t.Fatal(err)
	}
	pool := func(want int) func() error {
		return func() error {
			nodes, _, err := c.poolNodes("work")
			if err != nil {
				return err
			}
			pool, err := in.pools.Get(in.ctx, resourceGroup, c.name, "work", nil)
			if err != nil {
				return err
			}
			if len(nodes) != want || int(*pool.Properties.Count) != want {
				return fmt.Errorf("%d nodes, count %d in ARM, want %d", len(nodes), *pool.Properties.Count, want)
			}
			return nil
		}
	}
	app := deployment("web", 9, "1", "512Mi") // three fit on a node
	app.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.azure.com/agentpool": "work"}
	c.apply(t, app)
	eventually(t, "three nodes", time.Minute, pool(3))
	eventually(t, "9 pods Running", 30*time.Second, func() error { return c.running("default", "web", 9) })
	events := func(reason string) error {
		out, err := in.run("kubectl", "--cluster-name", c.name, "get", "events", "-A", "--field-selector", "source=cluster-autoscaler")
		if err != nil || !strings.Contains(out, reason) {
			return fmt.Errorf("no event with reason %s (%w)\n%s", reason, err, out)
		}
		return nil
	}
	if err := events("TriggeredScaleUp"); err != nil {
		t.Error(err)
	}
	c.apply(t, budget("web", 1))
	c.scale(t, "web", 30)
	eventually(t, "maximum number of nodes", time.Minute, pool(4))
	c.scale(t, "web", 2)
	eventually(t, "minimum number of nodes", 2*time.Minute, pool(1))
	eventually(t, "2 pods Running", 30*time.Second, func() error { return c.running("default", "web", 2) })
	if err := events("ScaleDown"); err != nil {
		t.Error(err)
	}
	out, err := in.run("kubectl", "--cluster-name", c.name, "-n", "kube-system", "get", "configmap", "cluster-autoscaler-status", "-o", "yaml")
	if err != nil || !strings.Contains(out, "autoscalerStatus: Running") || !strings.Contains(out, "maxSize: 4") {
		t.Errorf("the status (%v):\n%s", err, out)
	}
}
