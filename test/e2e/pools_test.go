// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// TestScaleInRespectsBudgets scales in a fixed pool while a PodDisruptionBudget
// allows no eviction: the nodes stay although fleet and ARM are killed, and the
// operation fails with AKS's error. Once the budget allows it, the pods are
// evicted one by one.
func TestScaleInRespectsBudgets(t *testing.T) {
	in := start(t)
	in.createManual(t, "fixed")
	c := in.open(t, "fixed")
	in.addPool(t, c.name, "work", 2, "Standard_D4s_v5")
	if err := in.putPool(c.name, "work", func(p *armcontainerservice.ManagedClusterAgentPoolProfileProperties) {
		p.UpgradeSettings.DrainTimeoutInMinutes = to.Ptr[int32](1)
	}); err != nil {
		t.Fatal(err)
	}
	app := deployment("web", 8, "500m", "256Mi")
	app.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.azure.com/agentpool": "work"}
	app.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname,
		WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	c.apply(t, budget("web", 0))
	c.apply(t, app)
	eventually(t, "8 pods Running", time.Minute, func() error { return c.running("default", "web", 8) })
	stop := c.watchBudget(t, "web", 0)

	scale := func(n int32) error {
		return in.putPool(c.name, "work", func(p *armcontainerservice.ManagedClusterAgentPoolProfileProperties) { p.Count = to.Ptr(n) })
	}
	failed := make(chan error, 1)
	go func() { failed <- scale(1) }()
	eventually(t, "one node cordoned", 30*time.Second, func() error {
		_, cordoned, err := c.poolNodes("work")
		if err != nil || len(cordoned) != 1 {
			return fmt.Errorf("cordoned nodes %v (%w)", cordoned, err)
		}
		got, err := in.pools.Get(in.ctx, resourceGroup, c.name, "work", nil)
		if err != nil || *got.Properties.ProvisioningState != "Scaling" {
			return fmt.Errorf("the pool is not Scaling (%w)", err)
		}
		return nil
	})
	for _, victim := range []string{"fleet", "arm"} {
		in.kill(t, victim)
	}
	err := <-failed
	var re *azcore.ResponseError
	if !errors.As(err, &re) || !strings.Contains(err.Error(), "PodDrainFailure") || !strings.Contains(err.Error(), "default/web-") || !strings.Contains(err.Error(), "disruption budget web") {
		t.Fatalf("scaling in against the budget: got %v, want a PodDrainFailure that names pod and budget", err)
	}
	stop()
	eventually(t, "both nodes uncordoned", 20*time.Second, func() error {
		all, cordoned, err := c.poolNodes("work")
		if err != nil || len(all) != 2 || len(cordoned) != 0 {
			return fmt.Errorf("nodes %v, cordoned %v (%w)", all, cordoned, err)
		}
		return nil
	})
	out, err := in.run("kubectl", "--cluster-name", c.name, "get", "events", "-A", "--field-selector", "source=upgrader")
	if err != nil || !strings.Contains(out, "Draining node") || !strings.Contains(out, "Failed to drain") {
		t.Errorf("the upgrader's events (%v):\n%s", err, out)
	}

	var pdb policyv1.PodDisruptionBudget
	if err := c.kube.Get(c.ctx, types.NamespacedName{Namespace: "default", Name: "web"}, &pdb); err != nil {
		t.Fatal(err)
	}
	if err := c.kube.Patch(c.ctx, &pdb, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"maxUnavailable":1}}`))); err != nil {
		t.Fatal(err)
	}
	// One node holds only 6 of the 8 pods; with all 8 the drain would not end.
	c.scale(t, "web", 6)
	eventually(t, "6 pods Running", 30*time.Second, func() error { return c.running("default", "web", 6) })
	stop = c.watchBudget(t, "web", 1)
	if err := scale(1); err != nil {
		t.Fatalf("scaling in within the budget: %v", err)
	}
	stop()
	eventually(t, "6 pods Running on one node", 30*time.Second, func() error {
		if all, _, err := c.poolNodes("work"); err != nil || len(all) != 1 {
			return fmt.Errorf("nodes %v (%w)", all, err)
		}
		return c.running("default", "web", 6)
	})

	poller, err := in.pools.BeginDelete(in.ctx, resourceGroup, c.name, "work", &armcontainerservice.AgentPoolsClientBeginDeleteOptions{IgnorePodDisruptionBudget: to.Ptr(true)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("deleting the pool with IgnorePodDisruptionBudget: %v", err)
	}
}

// TestStopAndStart stops a cluster with running pods, which deletes its machines,
// and starts it again: the pods run on new nodes.
func TestStopAndStart(t *testing.T) {
	in := start(t)
	in.createManual(t, "stopped")
	c := in.open(t, "stopped")
	c.apply(t, deployment("web", 2, "100m", "64Mi"))
	eventually(t, "2 pods Running", time.Minute, func() error { return c.running("default", "web", 2) })
	stop, err := in.clusters.BeginStop(in.ctx, resourceGroup, c.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stop.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("stopping: %v", err)
	}
	got, err := in.clusters.Get(in.ctx, resourceGroup, c.name, nil)
	if err != nil || *got.Properties.PowerState.Code != armcontainerservice.CodeStopped {
		t.Errorf("the cluster is not Stopped (%v)", err)
	}
	if err := in.putPool(c.name, "nodepool1", func(*armcontainerservice.ManagedClusterAgentPoolProfileProperties) {}); err == nil {
		t.Error("a pool of a stopped cluster can be changed")
	}
	begin, err := in.clusters.BeginStart(in.ctx, resourceGroup, c.name, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begin.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("starting: %v", err)
	}
	c = in.open(t, c.name)
	eventually(t, "2 pods Running again", time.Minute, func() error { return c.running("default", "web", 2) })
	eventually(t, "two new nodes", time.Minute, func() error {
		all, _, err := c.poolNodes("nodepool1")
		if err != nil || len(all) != 2 {
			return fmt.Errorf("nodes %v (%w)", all, err)
		}
		return c.readyNodes(2)
	})
}
