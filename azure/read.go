// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// machineOf returns the name of the machine of a NodeClaim.
func (p *Provider) machineOf(claim *karpv1.NodeClaim) (string, error) {
	if id := claim.Annotations[v1beta1.AnnotationMachineResourceID]; id != "" {
		return machineName(&armcontainerservice.Machine{ID: &id}), nil
	}
	if claim.Status.ProviderID != "" {
		if name, err := p.machineNameOf(claim.Status.ProviderID); err == nil {
			return name, nil
		}
	}
	if claim.Name == "" {
		return "", providerIDError(claim.Status.ProviderID)
	}
	return MachineName(claim.Name), nil
}

// Get returns the NodeClaim of the machine with a provider ID.
func (p *Provider) Get(ctx context.Context, providerID string) (*karpv1.NodeClaim, error) {
	name, err := p.machineNameOf(providerID)
	if err != nil {
		return nil, cloudprovider.NewNodeClaimNotFoundError(err)
	}
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return nil, cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s: %w", name, err))
	}
	if err != nil {
		return nil, fmt.Errorf("reading machine %s: %w", name, err)
	}
	claim := p.claimOf(m)
	if claim.Status.ProviderID != "" && claim.Status.ProviderID != providerID {
		return nil, cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s has provider ID %s, want %s", name, claim.Status.ProviderID, providerID))
	}
	return claim, nil
}

// List returns all machines that were created for NodeClaims.
func (p *Provider) List(ctx context.Context) ([]*karpv1.NodeClaim, error) {
	machines, err := p.listMachines(ctx)
	if err != nil {
		return nil, err
	}
	var out []*karpv1.NodeClaim
	for _, name := range slices.Sorted(maps.Keys(machines)) {
		if m := machines[name]; tag(m, tagNodeClaim) != "" {
			out = append(out, p.claimOf(m))
		}
	}
	return out, nil
}

// listMachines returns the machines of the pool by name. If the pool does not exist,
// it returns none.
func (p *Provider) listMachines(ctx context.Context) (map[string]*armcontainerservice.Machine, error) {
	out := map[string]*armcontainerservice.Machine{}
	var resp *http.Response
	pager := p.clients.Machines.NewListPager(p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool, nil)
	for pager.More() {
		page, err := pager.NextPage(policy.WithCaptureResponse(ctx, &resp))
		if isNotFound(err) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("listing the machines of pool %s: %w", p.cluster.MachinesPool, err)
		}
		for _, m := range page.Value {
			if m != nil {
				out[machineName(m)] = m
			}
		}
	}
	return out, nil
}

// machineName returns the name of a machine without the names of its parents, which
// ARM may include.
func machineName(m *armcontainerservice.Machine) string {
	if id, err := arm.ParseResourceID(deref(m.ID)); err == nil {
		return id.Name
	}
	name := deref(m.Name)
	return name[strings.LastIndex(name, "/")+1:]
}

func (p *Provider) getMachine(ctx context.Context, name string) (*armcontainerservice.Machine, error) {
	resp, err := p.clients.Machines.Get(ctx, p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool, name, nil)
	if err != nil {
		return nil, err
	}
	return &resp.Machine, nil
}
