// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"

	"github.com/nap-aks/nap/catalog"
)

// Names of the quotas that apply to all families, as Azure's usages have them.
const (
	regionalCores = "cores"            // regular machines
	spotCores     = "lowprioritycores" // spot machines
)

// quotaName returns the key of a quota: its name in lower case.
func quotaName(name string) string {
	name = strings.ToLower(name)
	if name == "" || name == "regional" {
		return regionalCores
	}
	return name
}

// SetQuota changes the quota of a family of sizes ("standardDSv5Family"), of all
// regular machines of the region ("", "regional" or "cores") or of spot machines
// ("lowPriorityCores"), in vCPUs. A negative limit sets it to what the options say,
// which may be none.
func (c *Cloud) SetQuota(name string, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := quotaName(name)
	delete(c.quotas, key)
	if limit >= 0 {
		c.quotas[key] = limit
		return
	}
	for k, v := range c.options.Quotas {
		if quotaName(k) == key {
			c.quotas[key] = v
		}
	}
}

// quotasOf returns the quotas that a machine counts against, with their names in
// messages.
func quotasOf(s *catalog.Size, spot bool) (keys, titles []string) {
	if spot {
		return []string{spotCores}, []string{"LowPriorityCores"}
	}
	return []string{strings.ToLower(s.QuotaFamily), regionalCores}, []string{s.QuotaFamily + " Family Cores", "Total Regional Cores"}
}

// charge adds vCPUs of a machine to its quotas. The caller holds the lock.
func (c *Cloud) charge(m *Machine, sign int) {
	keys, _ := quotasOf(c.sizes[strings.ToLower(m.Size)], m.CapacityType == spotType)
	for _, k := range keys {
		c.used[k] += sign * m.vcpus
	}
}

// exceeded returns Azure's code and message if a machine is more than its quotas
// allow, or "". The caller holds the lock.
func (c *Cloud) exceeded(m *Machine) (code, message string) {
	keys, titles := quotasOf(c.sizes[strings.ToLower(m.Size)], m.CapacityType == spotType)
	for i, k := range keys {
		limit, ok := c.quotas[k]
		if used := c.used[k]; ok && used+m.vcpus > limit {
			return "OperationNotAllowed", fmt.Sprintf("Operation could not be completed as it results in exceeding approved %s quota. Additional details - Deployment Model: Resource Manager, Location: %s, Current Limit: %d, Current Usage: %d, Additional Required: %d, (Minimum) New Limit Required: %d.",
				titles[i], c.options.Location, limit, used, m.vcpus, used+m.vcpus)
		}
	}
	return "", ""
}

// unlimited is the limit that usages show where no quota is set.
const unlimited = 1 << 20

// usages answers the compute usages of the location: what is used and allowed of each
// quota.
func (c *Cloud) usages() reply {
	names := map[string]string{regionalCores: "cores", spotCores: "lowPriorityCores"}
	for _, s := range c.sizes {
		if s.QuotaFamily != "" {
			names[strings.ToLower(s.QuotaFamily)] = s.QuotaFamily
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var list armcompute.ListUsagesResult
	for _, k := range slices.Sorted(maps.Keys(names)) {
		limit, ok := c.quotas[k]
		if !ok {
			limit = unlimited
		}
		list.Value = append(list.Value, &armcompute.Usage{
			Name:         &armcompute.UsageName{Value: to.Ptr(names[k]), LocalizedValue: to.Ptr(names[k] + " vCPUs")},
			CurrentValue: to.Ptr(int32(c.used[k])), Limit: to.Ptr(int64(limit)), Unit: to.Ptr("Count"),
		})
	}
	return reply{status: 200, body: list}
}
