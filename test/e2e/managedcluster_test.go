// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
)

// pollEvery makes the SDK's pollers poll once per second.
var pollEvery = &runtime.PollUntilDoneOptions{Frequency: time.Second}

// deployTemplate deploys examples/nap.json and waits for the end of the deployment.
func (in *instance) deployTemplate(t *testing.T, wantCluster string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "examples", "nap.json"))
	if err != nil {
		t.Fatal(err)
	}
	var template map[string]any
	if err := json.Unmarshal(raw, &template); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), wantCluster) {
		t.Fatalf("examples/nap.json does not create %s", wantCluster)
	}
	poller, err := in.deploys.BeginCreateOrUpdate(in.ctx, resourceGroup, "nap", armdeployments.Deployment{
		Properties: &armdeployments.DeploymentProperties{Mode: to.Ptr(armdeployments.DeploymentModeIncremental), Template: template},
	}, nil)
	if err != nil {
		t.Fatalf("template deployment: %v", err)
	}
	began := time.Now()
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("template deployment: %v", err)
	}
	t.Logf("template deployment Succeeded after %s", time.Since(began).Round(time.Millisecond))
}

// smallCluster returns the body of a cluster with Azure CNI Overlay, the Cilium
// data plane and one system pool.
func (in *instance) smallCluster(name string, systemNodes int32, systemSize string) armcontainerservice.ManagedCluster {
	return armcontainerservice.ManagedCluster{
		Location: to.Ptr(in.location()),
		Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{
			DNSPrefix: to.Ptr(name),
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{{
				Name: to.Ptr("nodepool1"), Count: to.Ptr(systemNodes), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem),
				VMSize: to.Ptr(systemSize), OSType: to.Ptr(armcontainerservice.OSTypeLinux),
			}},
			NetworkProfile: &armcontainerservice.NetworkProfile{
				NetworkPlugin:     to.Ptr(armcontainerservice.NetworkPluginAzure),
				NetworkPluginMode: to.Ptr(armcontainerservice.NetworkPluginModeOverlay),
				NetworkDataplane:  to.Ptr(armcontainerservice.NetworkDataplaneCilium),
			},
		},
	}
}

// autoCluster returns the body of a cluster with node auto-provisioning, whose
// system pool runs add-ons only.
func (in *instance) autoCluster(name string, systemNodes int32) armcontainerservice.ManagedCluster {
	body := in.smallCluster(name, systemNodes, "Standard_D4s_v5")
	body.Properties.AgentPoolProfiles[0].NodeTaints = []*string{to.Ptr("CriticalAddonsOnly=true:NoSchedule")}
	body.Properties.NodeProvisioningProfile = &armcontainerservice.ManagedClusterNodeProvisioningProfile{Mode: to.Ptr(armcontainerservice.NodeProvisioningModeAuto)}
	return body
}

// putCluster creates or changes a cluster and waits for the end of the operation.
func (in *instance) putCluster(name string, body armcontainerservice.ManagedCluster) (armcontainerservice.ManagedCluster, error) {
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, body, nil)
	if err != nil {
		return armcontainerservice.ManagedCluster{}, err
	}
	done, err := poller.PollUntilDone(in.ctx, pollEvery)
	return done.ManagedCluster, err
}

// createManual creates a small cluster without node auto-provisioning.
func (in *instance) createManual(t *testing.T, name string) {
	t.Helper()
	if _, err := in.putCluster(name, in.smallCluster(name, 2, "Standard_D2s_v5")); err != nil {
		t.Fatalf("creating cluster %s: %v", name, err)
	}
}

// setMode sets the mode of node auto-provisioning as az aks update does: GET,
// PUT, poll.
func (in *instance) setMode(name string, mode armcontainerservice.NodeProvisioningMode) error {
	got, err := in.clusters.Get(in.ctx, resourceGroup, name, nil)
	if err != nil {
		return err
	}
	if got.Properties.NodeProvisioningProfile == nil {
		got.Properties.NodeProvisioningProfile = &armcontainerservice.ManagedClusterNodeProvisioningProfile{}
	}
	got.Properties.NodeProvisioningProfile.Mode = to.Ptr(mode)
	_, err = in.putCluster(name, got.ManagedCluster)
	return err
}

// addPool adds a fixed user pool and waits for the end of the operation.
func (in *instance) addPool(t *testing.T, cluster, name string, count int32, size string) {
	t.Helper()
	poller, err := in.pools.BeginCreateOrUpdate(in.ctx, resourceGroup, cluster, name, armcontainerservice.AgentPool{
		Properties: &armcontainerservice.ManagedClusterAgentPoolProfileProperties{
			Count: to.Ptr(count), VMSize: to.Ptr(size), Mode: to.Ptr(armcontainerservice.AgentPoolModeUser),
			OSType: to.Ptr(armcontainerservice.OSTypeLinux),
		},
	}, nil)
	if err != nil {
		t.Fatalf("adding pool %s: %v", name, err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("adding pool %s: %v", name, err)
	}
}

// putPool changes a fixed pool as az does, by GET and PUT, and waits for the end
// of the operation.
func (in *instance) putPool(cluster, name string, change func(*armcontainerservice.ManagedClusterAgentPoolProfileProperties)) error {
	got, err := in.pools.Get(in.ctx, resourceGroup, cluster, name, nil)
	if err != nil {
		return err
	}
	change(got.Properties)
	poller, err := in.pools.BeginCreateOrUpdate(in.ctx, resourceGroup, cluster, name, got.AgentPool, nil)
	if err != nil {
		return err
	}
	_, err = poller.PollUntilDone(in.ctx, pollEvery)
	return err
}

// pool describes an agent pool in a few words.
func (c *cluster) pool(name string) string {
	p, err := c.pools.Get(c.ctx, resourceGroup, c.name, name, nil)
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%d nodes, autoscaler %t", *p.Properties.Count, *p.Properties.EnableAutoScaling)
}

// mode returns the mode of node auto-provisioning as ARM reports it, or the error.
func (c *cluster) mode() string {
	m, err := c.clusters.Get(c.ctx, resourceGroup, c.name, nil)
	if err != nil {
		return err.Error()
	}
	return string(*m.Properties.NodeProvisioningProfile.Mode)
}
