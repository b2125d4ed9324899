// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype

import (
	"fmt"
	"slices"
	"strings"
)

// Names of the quotas that are not per family: the vCPUs of all on-demand machines of a
// region, and those of its spot machines.
const (
	QuotaRegional = "cores"
	QuotaSpot     = "lowPriorityCores"
)

// Usage is the usage of a compute quota in a region, as Azure reports it.
type Usage struct {
	// Name is Azure's name (case-insensitive), Title the display name.
	Name  string
	Title string
	// Used and Limit are in vCPUs.
	Used, Limit int64
}

// Quota is a limit on vCPUs with the sizes that count against it.
type Quota struct {
	Usage
	// Spot means that only spot machines count; otherwise only on-demand machines do.
	Spot bool
	// Advice says what to do when the quota is exhausted.
	Advice string
	// VCPUs is the number of vCPUs that one machine counts, by size. The map is
	// shared: treat it as read-only.
	VCPUs map[string]int64
}

// QuotaNames returns the quotas that a machine counts against, in lower case: its
// family's and the region's, or for a spot machine only the spot quota.
func QuotaNames(family string, spot bool) []string {
	if spot {
		return []string{strings.ToLower(QuotaSpot)}
	}
	return []string{strings.ToLower(family), QuotaRegional}
}

// Quotas joins usages with the sizes of the table, sorted by name. It leaves out quotas
// that no size counts against (public IP addresses, families not in the region).
func (t *Table) Quotas(usages []Usage) []Quota {
	charges := t.quotaCharges()
	var out []Quota
	for _, u := range usages {
		name := strings.ToLower(u.Name)
		vcpus := charges[name]
		if len(vcpus) == 0 {
			continue
		}
		q := Quota{Usage: u, Spot: strings.EqualFold(u.Name, QuotaSpot), VCPUs: vcpus}
		instead := "allow other families in the NodePool"
		switch {
		case q.Spot:
			instead = "allow on-demand machines in the NodePool"
		case name == QuotaRegional:
			instead = "remove machines that are not needed in the region, or allow spot"
		}
		q.Advice = fmt.Sprintf("ask Azure for more (az quota update --resource-name %s, location %s), or %s", u.Name, t.Region, instead)
		out = append(out, q)
	}
	slices.SortFunc(out, func(a, b Quota) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return out
}

// quotaCharges returns the vCPUs of the sizes, by quota and size.
func (t *Table) quotaCharges() map[string]map[string]int64 {
	t.chargesOnce.Do(func() {
		t.charges = map[string]map[string]int64{}
		for _, s := range t.SKUs {
			for _, name := range append(QuotaNames(s.QuotaFamily, false), QuotaNames("", true)...) {
				if name == "" || strings.EqualFold(name, QuotaSpot) && !s.SpotCapable {
					continue
				}
				if t.charges[name] == nil {
					t.charges[name] = map[string]int64{}
				}
				t.charges[name][s.Name.Full] = s.VCPUs
			}
		}
	})
	return t.charges
}
