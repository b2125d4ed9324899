// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

const (
	// reviseShare is the part of a boot within which a machine may be exchanged for
	// another: its pods then wait for one boot and that part of another.
	reviseShare = 0.4
	// reviseSaving is the least saving, as a part of the cost of what is bought and on
	// its way, for which machines on their way are exchanged.
	reviseSaving = 0.02
	// idlePurchase is how long no pod may be meant for a machine on its way before it is
	// given back.
	idlePurchase = 3 * time.Second
)

// revision is a plan that replaces machines on their way.
type revision struct {
	// kept are the claims that become machines of the plan, by index of the machine.
	kept map[int]string
	// cancelled are the claims that the plan has no use for.
	cancelled []string
}

// revise plans again as if the machines that are still far from ready had not been
// bought: workloads that arrive one after the other then get the machines that they
// would have got had they arrived together. It returns nil if that saves too little.
// The machines that the new plan has in common with the old ones are kept, whichever
// pods were to run there.
func (p *Provisioner) revise(ctx context.Context, in *snapshot.Input, plan *engine.Plan, o engine.Options) (*snapshot.Input, *engine.Plan, *revision) {
	if len(plan.Machines) == 0 {
		return nil, nil, nil
	}
	open, cost := p.revisable(in.Snapshot.Time)
	if len(open) == 0 {
		return nil, nil, nil
	}
	pods := p.cache.Withdraw(open)
	whole, err := p.cache.Snapshot(in.Snapshot.Time)
	var better *engine.Plan
	if err == nil {
		better, err = p.plan(whole, o)
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "planning again for machines on their way failed")
		p.cache.Reinstate()
		return nil, nil, nil
	}
	if before := plan.CostUSDPerHour + cost; refused(better) > refused(plan) || better.CostUSDPerHour > before*(1-reviseSaving) {
		p.cache.Reinstate()
		return nil, nil, nil
	}
	r := p.match(better, open)
	if !roomBeside(in.Snapshot, better, r.kept) {
		p.cache.Reinstate()
		return nil, nil, nil
	}
	p.cache.Revised()
	log.FromContext(ctx).Info("revised machines on their way", "pods", len(whole.Pods), "podsMoved", pods, "machines", len(better.Machines),
		"kept", len(r.kept), "cancelled", len(r.cancelled), "costUSDPerHour", better.CostUSDPerHour, "costUSDPerHourOtherwise", plan.CostUSDPerHour+cost)
	return whole, better, r
}

// roomBeside reports whether the limits of the NodePools and the quotas hold the machines
// that a revised plan buys beside those that it cancels: these are deleted afterwards,
// and take a while to be gone. The snapshot is one that counts them.
func roomBeside(s *engine.Snapshot, plan *engine.Plan, kept map[int]string) bool {
	left := make([]int64, len(s.Quotas))
	for i := range s.Quotas {
		left[i] = s.Quotas[i].Remaining
	}
	used := make([]engine.Resources, len(s.Pools))
	for i := range plan.Machines {
		if kept[i] != "" {
			continue
		}
		m := &plan.Machines[i]
		at := slices.IndexFunc(s.Pools, func(pool engine.NodePool) bool { return pool.Name == m.NodePool })
		if at < 0 {
			return false
		}
		pool := &s.Pools[at]
		types := s.Catalogues[pool.Catalogue].InstanceTypes
		it := slices.IndexFunc(types, func(it engine.InstanceType) bool { return it.Name == m.Offerings[0].InstanceType })
		if it < 0 {
			return false
		}
		if used[at] == nil {
			used[at] = maps.Clone(pool.Usage)
			if used[at] == nil {
				used[at] = engine.Resources{}
			}
		}
		used[at][engine.ResourceNodes]++
		for name, amount := range types[it].Capacity {
			used[at][name] += amount
		}
		for name, limit := range pool.Limits {
			if used[at][name] > limit {
				return false
			}
		}
		for _, o := range types[it].Offerings {
			if o.Zone != m.Offerings[0].Zone || o.CapacityType != m.Offerings[0].CapacityType {
				continue
			}
			for _, c := range o.Charges {
				if left[c.Quota] -= c.Amount; left[c.Quota] < 0 {
					return false
				}
			}
			break
		}
	}
	return true
}

// revisable returns the claims that are young enough to be revised, and what they cost.
func (p *Provisioner) revisable(now time.Time) (claims []string, usdPerHour float64) {
	within := time.Duration(reviseShare * float64(p.purchases.boot()))
	assumed := p.cache.AssumedByPlace()
	for name, b := range p.purchases.all() {
		if now.Sub(b.at) < within && !b.others && !assumed[name].Fixed {
			claims = append(claims, name)
			usdPerHour += b.machine.PriceUSDPerHour
		}
	}
	slices.Sort(claims)
	return claims, usdPerHour
}

// match gives machines of a plan claims that are on their way: one whose offering is
// among those of the machine, and no dearer than the one that the plan counts with.
func (p *Provisioner) match(plan *engine.Plan, claims []string) *revision {
	type candidate struct {
		name     string
		offering engine.RankedOffering
	}
	bought := p.purchases.all()
	free := make([]candidate, 0, len(claims))
	for _, name := range claims {
		b := bought[name]
		free = append(free, candidate{name, b.offering(p.cache.Machine(name).Claim)})
	}
	r := &revision{kept: map[int]string{}}
	for i := range plan.Machines {
		m := &plan.Machines[i]
		best := -1
		for j, c := range free {
			fits := bought[c.name].machine.NodePool == m.NodePool && c.offering.PriceUSDPerHour <= m.PriceUSDPerHour+1e-9 &&
				slices.ContainsFunc(m.Offerings, func(o engine.RankedOffering) bool {
					return o.InstanceType == c.offering.InstanceType && o.Zone == c.offering.Zone && o.CapacityType == c.offering.CapacityType
				})
			if fits && (best < 0 || cmp.Less(free[best].offering.PriceUSDPerHour, c.offering.PriceUSDPerHour)) {
				best = j
			}
		}
		if best >= 0 {
			r.kept[i] = free[best].name
			free = slices.Delete(free, best, best+1)
		}
	}
	for _, c := range free {
		r.cancelled = append(r.cancelled, c.name)
	}
	return r
}

// cancel deletes NodeClaims that are on their way.
func (p *Provisioner) cancel(ctx context.Context, claims []string, reason string) {
	for _, name := range claims {
		if registered(p.cache.Machine(name)) {
			continue // pods may be there by now: consolidation decides
		}
		claim := &karpv1.NodeClaim{}
		claim.Name = name
		if err := p.Kube.Delete(ctx, claim); client.IgnoreNotFound(err) != nil {
			log.FromContext(ctx).Error(err, "giving back a machine on its way failed", "nodeClaim", name)
			continue
		}
		p.purchases.drop(name)
		p.breaker.dropPlace(name)
		cancelledTotal.WithLabelValues(reason).Inc()
	}
}

// giveBack cancels the machines on their way for which no pod is meant any more, say
// because the workload was deleted or its pods found room elsewhere.
func (p *Provisioner) giveBack(ctx context.Context) {
	now := p.Clock.Now()
	p.purchases.prune(p.cache.Machine, now)
	assumed := p.cache.AssumedByPlace()
	idle := p.purchases.unneeded(func(claim string) bool { return len(assumed[claim].Pods) > 0 }, now, idlePurchase)
	if len(idle) > 0 {
		log.FromContext(ctx).Info("giving back machines on their way that no pod needs any more", "nodeClaims", idle)
		p.cancel(ctx, idle, "NotNeeded")
	}
}
