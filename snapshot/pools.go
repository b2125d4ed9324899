// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"slices"
	"sort"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	nodepoolutils "sigs.k8s.io/karpenter/pkg/utils/nodepool"

	"github.com/nap-aks/nap/engine"
)

// catalogues caches the translations of lists of instance types.
type catalogues struct {
	lists []translatedList
	types map[*cloudprovider.InstanceType]engine.InstanceType
}

type translatedList struct {
	from []*cloudprovider.InstanceType
	to   engine.Catalogue
}

// of returns the translation of a list. It translates only lists with elements that it
// has not seen before.
func (c *catalogues) of(list []*cloudprovider.InstanceType, quotas []Quota) engine.Catalogue {
	for _, t := range c.lists {
		if slices.Equal(t.from, list) {
			return t.to
		}
	}
	t := translatedList{from: slices.Clone(list)}
	if c.types == nil {
		c.types = map[*cloudprovider.InstanceType]engine.InstanceType{}
	}
	of := quotasOfType(quotas)
	for _, it := range list {
		to, ok := c.types[it]
		if !ok {
			to = instanceType(it, quotas, of[it.Name])
			c.types[it] = to
		}
		t.to.InstanceTypes = append(t.to.InstanceTypes, to)
	}
	c.lists = append(c.lists, t)
	return t.to
}

// keep drops the lists that are not in use by any NodePool.
func (c *catalogues) keep(used map[string][]*cloudprovider.InstanceType) {
	c.lists = slices.DeleteFunc(c.lists, func(t translatedList) bool {
		for _, list := range used {
			if slices.Equal(t.from, list) {
				return false
			}
		}
		return true
	})
	in := map[*cloudprovider.InstanceType]bool{}
	for _, list := range used {
		for _, it := range list {
			in[it] = true
		}
	}
	maps.DeleteFunc(c.types, func(it *cloudprovider.InstanceType, _ engine.InstanceType) bool { return !in[it] })
}

// addPools adds the NodePools and their catalogues to the snapshot.
func (c *Cache) addPools(s *engine.Snapshot) {
	if c.poolsStale || c.poolsOut == nil {
		c.poolsStale = false
		c.poolsAt++
		c.translatePools()
	}
	s.Pools = slices.Clone(c.poolsOut)
	s.Catalogues = c.cataloguesOut
}

func (c *Cache) translatePools() {
	pools := make([]*karpv1.NodePool, 0, len(c.pools))
	for _, name := range slices.Sorted(maps.Keys(c.pools)) {
		pools = append(pools, c.pools[name])
	}
	nodepoolutils.OrderByWeight(pools)
	c.catalogues.keep(c.types)
	c.poolsOut, c.cataloguesOut = make([]engine.NodePool, 0, len(pools)), nil
	var lists [][]*cloudprovider.InstanceType
	for _, np := range pools {
		p := nodePool(np)
		list := c.types[np.Name]
		if len(list) == 0 && p.Blocked == "" {
			p.Blocked = "it has no instance types"
		}
		p.Catalogue = slices.IndexFunc(lists, func(have []*cloudprovider.InstanceType) bool { return slices.Equal(have, list) })
		if p.Catalogue < 0 {
			p.Catalogue = len(lists)
			lists = append(lists, list)
			c.cataloguesOut = append(c.cataloguesOut, c.catalogues.of(list, c.quotas))
		}
		c.poolsOut = append(c.poolsOut, p)
	}
}

func nodePool(np *karpv1.NodePool) engine.NodePool {
	t := &np.Spec.Template
	p := engine.NodePool{Name: np.Name, Labels: map[string]string{}}
	if np.Spec.Weight != nil {
		p.Weight = *np.Spec.Weight
	}
	for k, v := range t.Labels {
		key, values := normalize(k, []string{v})
		p.Labels[key] = values[0]
	}
	p.Labels[karpv1.NodePoolLabelKey] = np.Name
	if t.Spec.NodeClassRef != nil {
		p.Labels[karpv1.NodeClassLabelKey(t.Spec.NodeClassRef.GroupKind())] = t.Spec.NodeClassRef.Name
	}
	// Karpenter adds these labels to every initialized node, so daemons that select
	// them will run there.
	p.Labels[karpv1.NodeRegisteredLabelKey] = "true"
	p.Labels[karpv1.NodeInitializedLabelKey] = "true"
	for _, r := range t.Spec.Requirements {
		e := requirement(r.Key, r.Operator, r.Values)
		if r.MinValues != nil {
			e.MinValues = *r.MinValues
		}
		p.Requirements = append(p.Requirements, e)
	}
	p.Taints, p.StartupTaints = taints(t.Spec.Taints), taints(t.Spec.StartupTaints)
	if len(np.Spec.Limits) > 0 {
		p.Limits = engine.Resources{}
		for k, q := range np.Spec.Limits {
			p.Limits[string(k)] = amount(k, q, false)
		}
	}
	switch {
	case nodepoolutils.IsStatic(np):
		p.Blocked = "it is static: its machines are kept at a fixed number"
	case !np.DeletionTimestamp.IsZero():
		p.Blocked = "it is being deleted"
	case !np.StatusConditions(status.WithObservedOnly()).IsTrue(status.ConditionReady):
		p.Blocked = "it is not ready"
	}
	return p
}

func taints(list []corev1.Taint) []engine.Taint {
	var out []engine.Taint
	for _, t := range list {
		out = append(out, engine.Taint{Key: t.Key, Value: t.Value, Effect: engine.Effect(t.Effect)})
	}
	return out
}

func instanceType(it *cloudprovider.InstanceType, quotas []Quota, of []int) engine.InstanceType {
	out := engine.InstanceType{
		Name: it.Name, Capacity: amounts(it.Capacity, false), Allocatable: amounts(it.Allocatable(), false),
		VolumeLimits: it.VolumeAttachmentLimits,
	}
	overridden := map[*cloudprovider.Offering]corev1.ResourceList{}
	for i, g := range it.AllocatableOfferingsList() {
		if i == 0 { // no overrides
			continue
		}
		for _, o := range g.Offerings {
			overridden[o] = g.Allocatable
		}
	}
	// A label with a value in each offering belongs to the offerings, not to the type.
	perOffering := map[string]int{}
	for _, o := range it.Offerings {
		e := engine.Offering{Zone: o.Zone(), CapacityType: o.CapacityType(), PriceUSDPerHour: o.Price, Available: o.Available}
		if o.CapacityType() == karpv1.CapacityTypeReserved {
			e.ReservationID, e.ReservationRemaining = o.ReservationID(), o.ReservationCapacity
		}
		e.Charges = quotaCharges(quotas, of, it.Name, e.CapacityType)
		for key, r := range o.Requirements {
			if key == corev1.LabelTopologyZone || key == karpv1.CapacityTypeLabelKey || r.Operator() != corev1.NodeSelectorOpIn || r.Len() != 1 {
				continue
			}
			if e.Labels == nil {
				e.Labels = map[string]string{}
			}
			e.Labels[key] = r.Values()[0]
			perOffering[key]++
		}
		if alloc, ok := overridden[o]; ok {
			e.Allocatable = amounts(alloc, false)
			capacity := it.Capacity.DeepCopy()
			maps.Copy(capacity, o.CapacityOverride)
			e.Capacity = amounts(capacity, false)
		}
		out.Offerings = append(out.Offerings, e)
	}
	sort.SliceStable(out.Offerings, func(i, j int) bool {
		a, b := &out.Offerings[i], &out.Offerings[j]
		if a.Zone != b.Zone {
			return a.Zone < b.Zone
		}
		if a.CapacityType != b.CapacityType {
			return a.CapacityType < b.CapacityType
		}
		return a.ReservationID < b.ReservationID
	})
	reqs := scheduling.NewRequirements()
	for key, r := range it.Requirements {
		if key == corev1.LabelTopologyZone || key == karpv1.CapacityTypeLabelKey || perOffering[key] == len(it.Offerings) && len(it.Offerings) > 0 {
			continue
		}
		reqs[key] = r
	}
	out.Requirements = fromKarpenter(reqs)
	// Karpenter lets a pod ask for any value of a well-known label that neither the type
	// nor the NodePool defines.
	for _, key := range slices.Sorted(maps.Keys(karpv1.WellKnownLabels)) {
		if _, ok := it.Requirements[key]; !ok && perOffering[key] == 0 && key != cloudprovider.ReservationIDLabel && key != corev1.LabelTopologyZone && key != karpv1.CapacityTypeLabelKey {
			out.Requirements = append(out.Requirements, engine.Requirement{Key: key, Operator: engine.Exists})
		}
	}
	sort.SliceStable(out.Requirements, func(i, j int) bool { return out.Requirements[i].Key < out.Requirements[j].Key })
	return out
}
