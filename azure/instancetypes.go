// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"errors"
	"slices"
	"sync"

	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/azure/instancetype"
)

// typeCache caches the instance types per settings until sizes, prices, availability
// or quotas change.
type typeCache struct {
	mu      sync.Mutex
	version [4]uint64
	lists   map[instancetype.Settings][]*cloudprovider.InstanceType
}

// instanceTypes returns the instance types for settings. The caller owns the slice;
// the types are shared.
func (p *Provider) instanceTypes(s instancetype.Settings) ([]*cloudprovider.InstanceType, error) {
	table := p.skus.table()
	if table == nil {
		return nil, errors.New("the VM sizes of the region have not been read yet")
	}
	c := &p.types
	c.mu.Lock()
	defer c.mu.Unlock()
	version := [4]uint64{p.skus.version(), p.prices.version(), p.unavailable.version(), p.quota.version()}
	if c.lists == nil || c.version != version {
		c.lists, c.version = map[instancetype.Settings][]*cloudprovider.InstanceType{}, version
	}
	list, ok := c.lists[s]
	if !ok {
		list = table.Build(s, p.prices.price, p.available)
		c.lists[s] = list
	}
	return slices.Clone(list), nil
}

// available is an instancetype.AvailableFunc. It reports whether the offering is not
// marked unavailable and fits within the quotas.
func (p *Provider) available(sku *instancetype.SKU, zone string, spot bool) bool {
	return !p.unavailable.has(sku, zone, spot) && p.quota.allows(sku, spot)
}
