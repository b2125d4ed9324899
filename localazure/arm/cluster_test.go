// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// The SDK creates a cluster with node auto-provisioning, adds a machine as the
// controller does, and deletes both.
func TestClusterAndMachineLifecycleWithTheSDK(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	ctx := context.Background()
	groups, err := armresources.NewResourceGroupsClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups.CreateOrUpdate(ctx, "rg", armresources.ResourceGroup{Location: to.Ptr("East US")}, nil); err != nil {
		t.Fatal(err)
	}
	clusters, err := armcontainerservice.NewManagedClustersClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	poll, err := clusters.BeginCreateOrUpdate(ctx, "rg", "c", armcontainerservice.ManagedCluster{
		Location: to.Ptr("eastus"), Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{DNSPrefix: to.Ptr("nap"),
			AgentPoolProfiles:       []*armcontainerservice.ManagedClusterAgentPoolProfile{{Name: to.Ptr("system"), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem), Count: to.Ptr[int32](3), VMSize: to.Ptr("Standard_D2s_v3")}},
			NodeProvisioningProfile: &armcontainerservice.ManagedClusterNodeProvisioningProfile{Mode: to.Ptr(armcontainerservice.NodeProvisioningModeAuto)}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := poll.PollUntilDone(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *c.Properties.ProvisioningState != "Succeeded" || *c.Properties.NodeProvisioningProfile.Mode != armcontainerservice.NodeProvisioningModeAuto {
		t.Fatalf("the cluster is %s with mode %s", *c.Properties.ProvisioningState, *c.Properties.NodeProvisioningProfile.Mode)
	}
	if len(c.Properties.AgentPoolProfiles) != 1 {
		t.Fatalf("%d pools, want only those without provisioned machines", len(c.Properties.AgentPoolProfiles))
	}
	machines, err := armcontainerservice.NewMachinesClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	mp, err := machines.BeginCreateOrUpdate(ctx, "rg", "c", "aksmanagedap", "default-abc12", armcontainerservice.Machine{Zones: []*string{to.Ptr("1")}, Properties: &armcontainerservice.MachineProperties{
		Hardware: &armcontainerservice.MachineHardwareProfile{VMSize: to.Ptr("Standard_D4s_v5")}, Tags: map[string]*string{"karpenter.sh_nodepool": to.Ptr("default")},
		Kubernetes: &armcontainerservice.MachineKubernetesProfile{NodeInitializationTaints: []*string{to.Ptr("karpenter.sh/unregistered:NoExecute")}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mp.PollUntilDone(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if vm := *m.Properties.ResourceID; !strings.Contains(vm, "/virtualMachines/aks-aksmanagedap-default-abc12-") || !strings.HasSuffix(vm, "-vm") {
		t.Errorf("VM %s", vm)
	}
	if m.Properties.Status.CreationTimestamp == nil || *m.Properties.ProvisioningState != "Succeeded" {
		t.Errorf("machine without creation time or not Succeeded: %s", *m.Properties.ProvisioningState)
	}
	pools, err := armcontainerservice.NewAgentPoolsClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	dp, err := pools.BeginDeleteMachines(ctx, "rg", "c", "aksmanagedap", armcontainerservice.AgentPoolDeleteMachinesParameter{MachineNames: []*string{to.Ptr("default-abc12")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dp.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if r := a.Do(http.MethodGet, clusterID+"/agentPools/aksmanagedap/machines/default-abc12", nil); r.Status != 404 {
		t.Errorf("GET of the deleted machine: %d", r.Status)
	}
	del, err := clusters.BeginDelete(ctx, "rg", "c", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := del.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	resp, err := a.Etcd.Get(ctx, "/nap/intent/", withPrefix)
	if err != nil || len(resp.Kvs) != 0 {
		t.Errorf("%d intents are left (%v)", len(resp.Kvs), err)
	}
	if r := a.Do(http.MethodGet, "/subscriptions/"+armtest.Subscription+"/resourcegroups/MC_rg_c_eastus", nil); r.Status != 404 {
		t.Errorf("GET of the node resource group: %d", r.Status)
	}
}
