// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"

	"github.com/nap-aks/nap/azure/instancetype"
)

// skus holds the VM sizes of the region, read from ARM.
type skus struct {
	region string
	fetch  func(context.Context) ([]*armcompute.ResourceSKU, error)

	mu      sync.RWMutex
	current *instancetype.Table
	seq     uint64
}

// refresh reads the sizes. After an error, or if none is usable, the old ones are
// kept.
func (s *skus) refresh(ctx context.Context) error {
	list, err := s.fetch(ctx)
	if err != nil {
		return fmt.Errorf("reading the VM sizes of region %s: %w", s.region, err)
	}
	t, err := instancetype.NewTable(s.region, list)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = t
	s.seq++
	return nil
}

func (s *skus) table() *instancetype.Table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

func (s *skus) version() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seq
}

func listSKUs(client *armcompute.ResourceSKUsClient, region string) func(context.Context) ([]*armcompute.ResourceSKU, error) {
	return func(ctx context.Context) ([]*armcompute.ResourceSKU, error) {
		var out []*armcompute.ResourceSKU
		pager := client.NewListPager(&armcompute.ResourceSKUsClientListOptions{Filter: to.Ptr(fmt.Sprintf("location eq '%s'", region))})
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			out = append(out, page.Value...)
		}
		return out, nil
	}
}
