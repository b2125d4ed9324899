package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// InPlaceHash is the hash of what is updated on the machines of a class without
// replacing them; a claim that carries another one is due for UpdateInPlace.
func (p *Provider) InPlaceHash(nc *v1beta1.AKSNodeClass) string { return p.inPlaceHash(nc) }

// UpdateInPlace gives a claim's machine the tags of its class, as a whole, if
// they differ. It is an error when somebody else changed the machine meanwhile:
// try again.
func (p *Provider) UpdateInPlace(ctx context.Context, nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) error {
	name, err := p.machineOf(claim)
	if err != nil {
		return err
	}
	m, err := p.getMachine(ctx, name)
	if err != nil {
		return fmt.Errorf("reading machine %s to update its tags: %w", name, err)
	}
	if m.Properties == nil {
		return fmt.Errorf("machine %s has no properties to update", name)
	}
	want := p.commonTags(nc, claim)
	if sameTags(want, m.Properties.Tags) {
		return nil
	}
	m.Properties.Tags = want
	poller, err := p.clients.Machines.BeginCreateOrUpdate(ctx, p.cluster.ResourceGroup, p.cluster.Name, p.cluster.MachinesPool, name, *m,
		&armcontainerservice.MachinesClientBeginCreateOrUpdateOptions{IfMatch: m.Properties.ETag})
	if err != nil {
		return fmt.Errorf("updating the tags of machine %s: %w", name, err)
	}
	if _, err := poller.PollUntilDone(ctx, nil); err != nil {
		return fmt.Errorf("updating the tags of machine %s: %w", name, err)
	}
	return nil
}

func sameTags(a, b map[string]*string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || deref(v) != deref(w) {
			return false
		}
	}
	return true
}

// Errors of CheckSubnet.
var (
	ErrSubnetInvalid  = errors.New("the subnet cannot be used")
	ErrSubnetNotFound = errors.New("the subnet does not exist")
)

// CheckSubnet tells whether machines can be put into a subnet: the cluster's
// own ("" means that one), or another of the same virtual network. It wraps
// ErrSubnetInvalid or ErrSubnetNotFound when the answer is no, and is another
// error when it is not known.
func (p *Provider) CheckSubnet(ctx context.Context, id string) error {
	if id == "" || strings.EqualFold(id, p.cluster.VnetSubnetID) {
		return nil
	}
	subnet, err := arm.ParseResourceID(id)
	if err != nil || !strings.EqualFold(subnet.ResourceType.String(), "Microsoft.Network/virtualNetworks/subnets") {
		return fmt.Errorf("%w: %q is not the ARM ID of a subnet", ErrSubnetInvalid, id)
	}
	if p.cluster.VnetSubnetID == "" {
		// AKS made the virtual network and manages it alone.
		if strings.EqualFold(subnet.ResourceGroupName, p.cluster.NodeResourceGroup) {
			return fmt.Errorf("%w: %s is in the virtual network that AKS manages", ErrSubnetInvalid, id)
		}
		return fmt.Errorf("%w: %s is not in the cluster's virtual network, which AKS manages", ErrSubnetInvalid, id)
	}
	own, err := arm.ParseResourceID(p.cluster.VnetSubnetID)
	if err != nil {
		return fmt.Errorf("the cluster's subnet %q: %w", p.cluster.VnetSubnetID, err)
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
