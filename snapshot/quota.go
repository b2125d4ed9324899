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

// Quota is what a cloud lets all machines of a subscription take together: the
// vCPUs of a family, say.
type Quota struct {
	// Name identifies it, Title is what people call it, Advice says what can be
	// done when it is used up.
	Name   string `json:"name"`
	Title  string `json:"title,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Used counts every machine that exists, in this cluster or elsewhere.
	// NodeClaims without a machine are counted by this package.
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"`
	// CapacityTypes are those whose machines count; none means all.
	CapacityTypes []string `json:"capacityTypes,omitempty"`
	// Charges is what one machine takes, by name of the instance type; a type
	// that is not listed takes nothing. The map must not be changed once given.
	Charges map[string]int64 `json:"charges"`
}

// charge is what a machine takes of the quota.
func (q *Quota) charge(instanceType, capacityType string) int64 {
	if len(q.CapacityTypes) > 0 && !slices.Contains(q.CapacityTypes, capacityType) {
		return 0
	}
	return q.Charges[instanceType]
}

// SetQuotas tells which quotas there are and how much of them is used. Where only
// amounts differ from the last time it costs next to nothing.
func (c *Cache) SetQuotas(list []Quota) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.EqualFunc(c.quotas, list, sameCharges) {
		c.catalogues.lists = nil
		c.poolsOld = true
	}
	c.quotas = slices.Clone(list)
}

func sameCharges(a, b Quota) bool {
	if a.Name != b.Name || !slices.Equal(a.CapacityTypes, b.CapacityTypes) {
		return false
	}
	return reflect.ValueOf(a.Charges).Pointer() == reflect.ValueOf(b.Charges).Pointer() || maps.Equal(a.Charges, b.Charges)
}

// quotasOfType are the quotas that each instance type counts against, by index.
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

// quotaCharges is what a machine of an instance type and capacity type takes of
// the quotas that the type counts against.
func quotaCharges(quotas []Quota, of []int, instanceType, capacityType string) []engine.QuotaCharge {
	var out []engine.QuotaCharge
	for _, i := range of {
		if n := quotas[i].charge(instanceType, capacityType); n > 0 {
			out = append(out, engine.QuotaCharge{Quota: i, Amount: n})
		}
	}
	return out
}

// addQuotas puts what is left of the quotas into the snapshot.
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
		if m.going || m.claim == nil || m.node != nil || m.claim.Status.ProviderID != "" {
			continue
		}
		instanceType, capacityType := c.likely(m.claim)
		for i := range c.quotas {
			s.Quotas[i].Remaining -= c.quotas[i].charge(instanceType, capacityType)
		}
	}
}

// likely is the instance type and capacity type that a claim without a machine
// will most probably become: what it says, else the cheapest it allows, which is
// tried first.
func (c *Cache) likely(claim *karpv1.NodeClaim) (instanceType, capacityType string) {
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
