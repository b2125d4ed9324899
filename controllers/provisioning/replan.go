package provisioning

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// decide makes the plan of a pass. When a machine would be bought for a pod that
// has lost its promised place to another pod, the room that the other left behind
// is somewhere on the machines of the same scale-up, maybe in pieces. So all pods
// that still wait for a promised place are planned for once more together with it,
// as if nothing had been promised, and if less has to be bought for all of them
// that way, their promises are changed.
func (p *Provisioner) decide(ctx context.Context, in *snapshot.Input, o engine.Options) (*snapshot.Input, *engine.Plan, error) {
	plan, err := p.plan(in, o)
	if err != nil {
		return nil, nil, err
	}
	for key := range p.displaced {
		if in.Pods[key] == nil {
			delete(p.displaced, key) // bound or gone
		}
	}
	if !p.buysForDisplaced(plan) {
		return in, plan, nil
	}
	released := map[string]string{}
	for key, to := range p.mirror.Promises() {
		if pr, ok := p.since[key]; ok && pr.to == to && !pr.others {
			released[key] = to
			p.mirror.Release(key)
		}
	}
	if len(released) == 0 {
		return in, plan, nil
	}
	all, err := p.mirror.Snapshot(in.Snapshot.Time)
	if err == nil {
		var whole *engine.Plan
		if whole, err = p.plan(all, o); err == nil && lessToBuy(whole, plan) {
			log.FromContext(ctx).Info("changed promises instead of buying", "pods", len(all.Pods), "promised", len(released),
				"machines", len(whole.Machines), "instead", len(plan.Machines))
			promisesBroken.WithLabelValues("Replanned").Add(float64(len(released)))
			return all, whole, nil
		}
	}
	if err != nil {
		log.FromContext(ctx).Error(err, "planning once more for all pods that wait for a promised place")
	}
	for key, to := range released {
		p.mirror.Promise(key, to)
	}
	return in, plan, nil
}

// buysForDisplaced tells whether a plan buys for a pod whose place was taken.
func (p *Provisioner) buysForDisplaced(plan *engine.Plan) bool {
	if len(p.displaced) == 0 {
		return false
	}
	for i := range plan.Machines {
		for _, g := range plan.Machines[i].Pods {
			for _, key := range g.Pods {
				if p.displaced[key] {
					return true
				}
			}
		}
	}
	return false
}

// lessToBuy tells whether a plan leaves no more pods without a place than
// another and pays less.
func lessToBuy(a, b *engine.Plan) bool {
	return refused(a) <= refused(b) && a.CostUSDPerHour < b.CostUSDPerHour-1e-9
}

func refused(plan *engine.Plan) int {
	n := 0
	for i := range plan.Verdicts {
		if plan.Verdicts[i].Outcome == engine.Refused {
			n += len(plan.Verdicts[i].Pods)
		}
	}
	return n
}
