// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// InPlaceHash returns the hash of the settings of a class that are updated without
// replacing machines. A NodeClaim with another hash needs UpdateInPlace.
func (p *Provider) InPlaceHash(nc *v1beta1.AKSNodeClass) string { return p.inPlaceHash(nc) }

// UpdateInPlace replaces the tags of a NodeClaim's machine with those of its class, if
// they differ. It returns an error if the machine was changed concurrently; the caller
// retries.
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
		return fmt.Errorf("updating the tags of machine %s: it has no properties", name)
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
