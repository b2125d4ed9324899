// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"cmp"
	"hash/fnv"
	"slices"

	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	"sigs.k8s.io/karpenter/pkg/utils/resources"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
)

// launchOption is an offering to launch: a size in a zone at a capacity type.
type launchOption struct {
	instanceType *cloudprovider.InstanceType
	offering     *cloudprovider.Offering
	sku          *instancetype.SKU
	zone         string // zone number, or RegionalZone
	spot         bool
}

func (o launchOption) capacityType() string {
	if o.spot {
		return karpv1.CapacityTypeSpot
	}
	return karpv1.CapacityTypeOnDemand
}

// rank returns the options to launch a NodeClaim with, best first: by price, then
// spot before on-demand, zonal before regional, and size name. Remaining ties are
// broken by a hash of the NodeClaim's name, which spreads NodeClaims over zones and
// is the same at each retry.
func rank(table *instancetype.Table, claim *karpv1.NodeClaim, types []*cloudprovider.InstanceType) []launchOption {
	requirements := scheduling.NewNodeSelectorRequirementsWithMinValues(claim.Spec.Requirements...)
	type ranked struct {
		launchOption
		spread uint64
	}
	var list []ranked
	for _, it := range types {
		if it.Requirements.Intersects(requirements) != nil || !resources.Fits(claim.Spec.Resources.Requests, it.Allocatable()) {
			continue
		}
		sku := table.SKU(it.Name)
		if sku == nil {
			continue // the table was refreshed; the next reconcile uses the new types
		}
		for _, o := range it.Offerings {
			if !o.Launchable() || !requirements.IsCompatible(o.Requirements, scheduling.AllowUndefinedWellKnownLabels) {
				continue
			}
			zone := o.Zone()
			r := ranked{launchOption: launchOption{instanceType: it, offering: o, sku: sku, zone: v1beta1.RegionalZone, spot: o.CapacityType() == karpv1.CapacityTypeSpot}}
			if n := instancetype.ZoneNumber(zone); n != "" {
				r.zone = n
			}
			h := fnv.New64a()
			h.Write([]byte(claim.Name))
			h.Write([]byte(zone))
			r.spread = h.Sum64()
			list = append(list, r)
		}
	}
	first := func(a, b bool) int { // true sorts first
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b ranked) int {
		return cmp.Or(
			cmp.Compare(a.offering.Price, b.offering.Price),
			first(a.spot, b.spot),
			first(a.zone != v1beta1.RegionalZone, b.zone != v1beta1.RegionalZone),
			cmp.Compare(a.sku.Name.Full, b.sku.Name.Full),
			cmp.Compare(a.spread, b.spread),
		)
	})
	out := make([]launchOption, len(list))
	for i := range list {
		out[i] = list[i].launchOption
	}
	return out
}
