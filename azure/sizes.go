package azure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/azure/instancetype"
)

// skus holds the sizes of the region, read from ARM.
type skus struct {
	region string
	fetch  func(context.Context) ([]*armcompute.ResourceSKU, error)

	mu      sync.RWMutex
	current *instancetype.Table
	seq     uint64
}

// refresh reads the sizes anew; on an error, or when none is usable, those
// known stay.
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

func listUsages(client *armcompute.UsageClient, region string) func(context.Context) (map[string]usage, error) {
	return func(ctx context.Context) (map[string]usage, error) {
		out := map[string]usage{}
		pager := client.NewListPager(region, nil)
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, u := range page.Value {
				if u == nil || u.Name == nil || u.Name.Value == nil || u.CurrentValue == nil || u.Limit == nil {
					continue
				}
				title := ""
				if u.Name.LocalizedValue != nil {
					title = *u.Name.LocalizedValue
				}
				out[strings.ToLower(*u.Name.Value)] = usage{current: int64(*u.CurrentValue), limit: *u.Limit, name: *u.Name.Value, title: title}
			}
		}
		return out, nil
	}
}

// typeCache keeps the instance types per settings until something they are made
// of changes.
type typeCache struct {
	mu      sync.Mutex
	version [4]uint64
	lists   map[instancetype.Settings][]*cloudprovider.InstanceType
}

// instanceTypes returns the instance types for settings. The slice is the
// caller's, the types are shared.
func (p *Provider) instanceTypes(s instancetype.Settings) ([]*cloudprovider.InstanceType, error) {
	table := p.skus.table()
	if table == nil {
		return nil, errors.New("the VM sizes of the region were not read yet")
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

// available is an instancetype.AvailableFunc: neither ruled out by an earlier
// failure nor beyond a quota.
func (p *Provider) available(sku *instancetype.SKU, zone string, spot bool) bool {
	return !p.unavailable.is(sku, zone, spot) && p.quota.allows(sku, spot)
}
