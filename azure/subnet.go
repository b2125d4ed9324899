// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// Errors that CheckSubnet wraps.
var (
	ErrSubnetInvalid  = errors.New("the subnet cannot be used")
	ErrSubnetNotFound = errors.New("the subnet does not exist")
)

// CheckSubnet returns nil if machines can use a subnet: the cluster's subnet (which ""
// means), or another one of the same virtual network. Otherwise the error wraps
// ErrSubnetInvalid or ErrSubnetNotFound. Other errors mean that the subnet could not be
// checked.
func (p *Provider) CheckSubnet(ctx context.Context, id string) error {
	if id == "" || strings.EqualFold(id, p.cluster.VnetSubnetID) {
		return nil
	}
	subnet, err := arm.ParseResourceID(id)
	if err != nil || !strings.EqualFold(subnet.ResourceType.String(), "Microsoft.Network/virtualNetworks/subnets") {
		return fmt.Errorf("%w: %q is not the ARM ID of a subnet", ErrSubnetInvalid, id)
	}
	if p.cluster.VnetSubnetID == "" {
		// AKS created the virtual network and manages it.
		if strings.EqualFold(subnet.ResourceGroupName, p.cluster.NodeResourceGroup) {
			return fmt.Errorf("%w: %s is in the virtual network that AKS manages", ErrSubnetInvalid, id)
		}
		return fmt.Errorf("%w: %s is not in the cluster's virtual network, which AKS manages", ErrSubnetInvalid, id)
	}
	own, err := arm.ParseResourceID(p.cluster.VnetSubnetID)
	if err != nil {
		return fmt.Errorf("parsing the cluster's subnet %q: %w", p.cluster.VnetSubnetID, err)
	}
	if !strings.EqualFold(subnet.Parent.String(), own.Parent.String()) {
		return fmt.Errorf("%w: %s is not in the cluster's virtual network %s", ErrSubnetInvalid, id, own.Parent)
	}
	_, err = p.clients.Subnets.Get(policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: 1}), subnet.ResourceGroupName, subnet.Parent.Name, subnet.Name, nil)
	if isNotFound(err) {
		return fmt.Errorf("%w: %s", ErrSubnetNotFound, id)
	}
	if err != nil {
		return fmt.Errorf("reading subnet %s: %w", id, err)
	}
	return nil
}
