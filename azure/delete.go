// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
)

// deleteWait is how long Delete waits until the machine no longer exists. After that
// Karpenter calls Delete again.
const deleteWait = 4 * time.Second

// remove deletes a machine and waits until it no longer exists. It is no error if
// the machine does not exist.
func (p *Provider) remove(ctx context.Context, name string) error {
	if err := p.beginDelete(ctx, name); err != nil {
		if isNotFound(err) {
			return nil
		}
		return fmt.Errorf("deleting machine %s: %w", name, err)
	}
	if _, err := p.tracker.wait(ctx, name, func(*armcontainerservice.Machine) bool { return false }); err != nil {
		return fmt.Errorf("waiting for the deletion of machine %s: %w", name, err)
	}
	return nil
}

// beginDelete starts the deletion of a machine.
func (p *Provider) beginDelete(ctx context.Context, name string) error {
	var resp *http.Response
	_, err := p.clients.AgentPools.BeginDeleteMachines(policy.WithCaptureResponse(ctx, &resp), p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool,
		armcontainerservice.AgentPoolDeleteMachinesParameter{MachineNames: []*string{to.Ptr(name)}}, nil)
	if err == nil && resp != nil {
		p.tracker.observe(resp.Header)
	}
	return err
}

// Delete deletes the machine of a NodeClaim. It returns nil while the deletion is in
// progress and a NodeClaimNotFoundError once the machine no longer exists.
func (p *Provider) Delete(ctx context.Context, claim *karpv1.NodeClaim) error {
	name, err := p.machineOf(claim)
	if err != nil {
		return err
	}
	if _, busy := p.deleting.LoadOrStore(name, struct{}{}); busy {
		return nil
	}
	defer p.deleting.Delete(name)
	m, err := p.getMachine(ctx, name)
	if isNotFound(err) {
		return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s no longer exists", name))
	}
	if err != nil {
		return fmt.Errorf("reading machine %s before deleting it: %w", name, err)
	}
	if state(m) != stateDeleting {
		if err := p.beginDelete(ctx, name); err != nil {
			if isNotFound(err) {
				return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s no longer exists", name))
			}
			return fmt.Errorf("deleting machine %s: %w", name, err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, deleteWait)
	defer cancel()
	if _, err := p.tracker.wait(wait, name, func(*armcontainerservice.Machine) bool { return false }); err == nil {
		return cloudprovider.NewNodeClaimNotFoundError(fmt.Errorf("machine %s no longer exists", name))
	}
	return nil
}
