// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/engine"
)

// Quota is a limit of the cloud on all machines of a subscription together, such as
// the vCPUs of a family.
type Quota struct {
	// Name identifies the quota, Title is its name for people, Advice says what to do
	// when it is used up.
	Name   string `json:"name"`
	Title  string `json:"title,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Used counts all machines that exist, in this cluster or elsewhere. This package
	// adds the NodeClaims without a machine.
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"`
	// CapacityTypes are the capacity types whose machines count; none means all.
	CapacityTypes []string `json:"capacityTypes,omitempty"`
	// Charges is what one machine uses, by instance type; a type not listed uses
	// nothing. The map must not be changed after it is given to a Cache.
	Charges map[string]int64 `json:"charges"`
}

// charge returns what a machine uses of the quota.
func (q *Quota) charge(instanceType, capacityType string) int64 {
	if len(q.CapacityTypes) > 0 && !slices.Contains(q.CapacityTypes, capacityType) {
		return 0
	}
	return q.Charges[instanceType]
}

// SetQuotas replaces the quotas and their use. It is cheap if only amounts differ from
// the last call.
func (c *Cache) SetQuotas(list []Quota) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.EqualFunc(c.quotas, list, sameCharges) {
		c.catalogues = catalogues{}
		c.poolsStale = true
	}
	c.quotas = slices.Clone(list)
}

// sameCharges reports whether two quotas differ in amounts only.
func sameCharges(a, b Quota) bool {
	if a.Name != b.Name || !slices.Equal(a.CapacityTypes, b.CapacityTypes) {
		return false
	}
	return reflect.ValueOf(a.Charges).Pointer() == reflect.ValueOf(b.Charges).Pointer() || maps.Equal(a.Charges, b.Charges)
}

// quotasOfType returns the indexes of the quotas that each instance type counts
// against.
func quotasOfType(quotas []Quota) map[string][]int {
	out := map[string][]int{}
	for i := range quotas {
		for instanceType, n := range quotas[i].Charges {
			if n > 0 {
				out[instanceType] = append(out[instanceType], i)
			}
		}
	}
	return out
}

// quotaCharges returns what a machine of an instance type and capacity type uses of
// the quotas with the given indexes.
func quotaCharges(quotas []Quota, of []int, instanceType, capacityType string) []engine.QuotaCharge {
	var out []engine.QuotaCharge
	for _, i := range of {
		if n := quotas[i].charge(instanceType, capacityType); n > 0 {
			out = append(out, engine.QuotaCharge{Quota: i, Amount: n})
		}
	}
	return out
}

// addQuotas adds the quotas to the snapshot, with what remains of them.
func (c *Cache) addQuotas(s *engine.Snapshot) {
	if len(c.quotas) == 0 {
		return
	}
	s.Quotas = make([]engine.Quota, len(c.quotas))
	for i := range c.quotas {
		q := &c.quotas[i]
		s.Quotas[i] = engine.Quota{Name: q.Name, Title: q.Title, Advice: q.Advice, Limit: q.Limit, Remaining: q.Limit - q.Used}
	}
	for _, m := range c.sorted {
		if m.terminating || m.claim == nil || m.node != nil || m.claim.Status.ProviderID != "" {
			continue
		}
		instanceType, capacityType := c.likelyType(m.claim)
		for i := range c.quotas {
			s.Quotas[i].Remaining -= c.quotas[i].charge(instanceType, capacityType)
		}
	}
}

// likelyType returns the instance type and capacity type that a NodeClaim without a
// machine will probably get: those of its labels, or else the cheapest it allows, which
// is tried first.
func (c *Cache) likelyType(claim *karpv1.NodeClaim) (instanceType, capacityType string) {
	instanceType, capacityType = claim.Labels[corev1.LabelInstanceTypeStable], claim.Labels[karpv1.CapacityTypeLabelKey]
	if instanceType != "" && capacityType != "" {
		return instanceType, capacityType
	}
	reqs := scheduling.NewNodeSelectorRequirementsWithMinValues(claim.Spec.Requirements...)
	reqs.Add(scheduling.NewLabelRequirements(claim.Labels).Values()...)
	best := -1.0
	for _, it := range c.types[claim.Labels[karpv1.NodePoolLabelKey]] {
		if it.Requirements.Intersects(reqs) != nil {
			continue
		}
		for _, o := range it.Offerings.Launchable() {
			if (best < 0 || o.Price < best) && compatible(reqs, o) {
				best, instanceType, capacityType = o.Price, it.Name, o.CapacityType()
			}
		}
	}
	return instanceType, capacityType
}

func compatible(reqs scheduling.Requirements, o *cloudprovider.Offering) bool {
	return reqs.IsCompatible(o.Requirements, scheduling.AllowUndefinedWellKnownLabels)
}
