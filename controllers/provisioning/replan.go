// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// decide makes the plan of a pass. A pod whose place expired lost it to another pod,
// which in turn left capacity on another machine of the same scale-up, maybe in
// pieces. So when the plan buys for such a pod, decide plans a second time for all
// assumed pods together with it. It returns the second plan if that costs less. A plan
// that buys for other pods may also revise what is on its way; see revise.
func (p *Provisioner) decide(ctx context.Context, in *snapshot.Input, o engine.Options) (*snapshot.Input, *engine.Plan, *revision, error) {
	plan, err := p.plan(in, o)
	if err != nil {
		return nil, nil, nil, err
	}
	if whole, better, revised := p.revise(ctx, in, plan, o); revised != nil {
		return whole, better, revised, nil
	}
	if !buysFor(plan, p.cache.ExpiredPods()) {
		return in, plan, nil, nil
	}
	suspended := p.cache.SuspendAssumed()
	if suspended == 0 {
		return in, plan, nil, nil
	}
	all, err := p.cache.Snapshot(in.Snapshot.Time)
	if err == nil {
		var whole *engine.Plan
		if whole, err = p.plan(all, o); err == nil && lessToBuy(whole, plan) {
			p.cache.ForgetSuspended()
			log.FromContext(ctx).Info("moved assumed pods to save machines", "pods", len(all.Pods), "assumedPods", suspended,
				"machines", len(whole.Machines), "machinesOtherwise", len(plan.Machines))
			expiredTotal.WithLabelValues("Replanned").Add(float64(suspended))
			return all, whole, nil, nil
		}
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "planning again for assumed pods failed")
	}
	p.cache.ResumeAssumed()
	return in, plan, nil, nil
}

// buysFor reports whether a plan buys a machine for any of the pods.
func buysFor(plan *engine.Plan, pods map[string]bool) bool {
	if len(pods) == 0 {
		return false
	}
	for i := range plan.Machines {
		for _, g := range plan.Machines[i].Pods {
			for _, key := range g.Pods {
				if pods[key] {
					return true
				}
			}
		}
	}
	return false
}

// lessToBuy reports whether plan a refuses no more pods than plan b and costs less.
func lessToBuy(a, b *engine.Plan) bool {
	return refused(a) <= refused(b) && a.CostUSDPerHour < b.CostUSDPerHour-1e-9
}

// refused returns the number of refused pods.
func refused(plan *engine.Plan) int {
	n := 0
	for i := range plan.Verdicts {
		if plan.Verdicts[i].Outcome == engine.Refused {
			n += len(plan.Verdicts[i].Pods)
		}
	}
	return n
}
