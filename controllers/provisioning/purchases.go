// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

const (
	// firstBoot is the time from a NodeClaim to its registered node that is assumed
	// before a machine has shown how long it takes.
	firstBoot = 60 * time.Second
	// bootWeight is the weight of the newest machine in the average.
	bootWeight = 0.2
	// togetherShare is the part of a boot that an open node waits for the others of its
	// plan, and togetherLeast the least time.
	togetherShare = 0.15
	togetherLeast = 2 * time.Second
	// settleTimeout is how long a node whose pods are nominated waits for the nominations
	// to other nodes of its plan.
	settleTimeout = time.Second
)

// purchases are the NodeClaims that this process has created and whose nodes have not
// registered yet. A claim is among them only between its creation and the registration
// of its node, its deletion, or the end of the process: what another process or
// controller has created is never here, and so never revised or given back. The methods
// are safe for concurrent use.
type purchases struct {
	mu      sync.Mutex
	byClaim map[string]purchase
	// average is the average time from creation to registration.
	average time.Duration
	plans   int
}

// purchase is a machine on its way.
type purchase struct {
	at      time.Time
	plan    int            // number of the plan that bought it
	machine engine.Machine // as planned
	// others is whether it was bought for pods that are never assumed: those of a node
	// being drained, whose owners replace them by pods of other names, and placeholders
	// of buffers. Such a machine is neither revised nor given back.
	others bool
	// idle is since when no pod is meant for it; zero while there is one.
	idle time.Time
	// open is since when its node is open, and nominated since when its pods are
	// nominated to it; zero before.
	open, nominated time.Time
}

func newPurchases() *purchases {
	return &purchases{byClaim: map[string]purchase{}, average: firstBoot}
}

// newPlan returns a number for the purchases of the next plan.
func (b *purchases) newPlan() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plans++
	return b.plans
}

// add records that a claim was created for a machine of a plan.
func (b *purchases) add(claim string, plan int, m *engine.Machine, pods map[string]*corev1.Pod, now time.Time) {
	p := purchase{at: now, plan: plan, machine: *m}
	for _, g := range m.Pods {
		for _, key := range g.Pods {
			pod := pods[key]
			p.others = p.others || pod == nil || pod.Spec.NodeName != "" || karpprovisioning.IsVirtualPod(pod)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.byClaim[claim] = p
}

// keep makes a claim part of a later plan.
func (b *purchases) keep(claim string, plan int, m *engine.Machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.byClaim[claim]; ok {
		p.plan, p.machine = plan, *m
		b.byClaim[claim] = p
	}
}

// drop forgets a claim.
func (b *purchases) drop(claim string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.byClaim, claim)
}

// all returns a copy of the purchases by claim.
func (b *purchases) all() map[string]purchase {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.byClaim)
}

// boot returns the average time from the creation of a claim to its registered node.
func (b *purchases) boot() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.average
}

// prune drops the claims that are gone or being deleted or whose node has registered,
// and learns from the latter how long a machine takes.
func (b *purchases) prune(machine func(claim string) snapshot.NodeRef, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, p := range b.byClaim {
		m := machine(name)
		switch {
		case m.Claim == nil || !m.Claim.DeletionTimestamp.IsZero():
			delete(b.byClaim, name)
		case registered(m):
			up := now
			if !p.open.IsZero() {
				up = p.open
			}
			b.average += time.Duration(bootWeight * float64(up.Sub(p.at)-b.average))
			delete(b.byClaim, name)
		}
	}
}

// unneeded returns the claims for which no pod has been meant for the given time.
func (b *purchases) unneeded(needed func(claim string) bool, now time.Time, since time.Duration) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for name, p := range b.byClaim {
		switch {
		case p.others || needed(name):
			p.idle = time.Time{}
		case p.idle.IsZero():
			p.idle = now
		case now.Sub(p.idle) >= since:
			out = append(out, name)
		}
		b.byClaim[name] = p
	}
	slices.Sort(out)
	return out
}

// opened notes that the node of a claim is open, and reports whether it should wait for
// other nodes of its plan: nodes that open together give no pod a reason to go where
// others are to go.
func (b *purchases) opened(claim string, now time.Time) (wait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.byClaim[claim]
	if !ok {
		return false
	}
	if p.open.IsZero() {
		p.open = now
		b.byClaim[claim] = p
	}
	if now.Sub(p.open) >= max(togetherLeast, time.Duration(togetherShare*float64(b.average))) {
		return false
	}
	return b.any(p.plan, func(other *purchase) bool { return other.open.IsZero() })
}

// settled notes that the pods of a claim are nominated, and reports whether it should
// wait for other open nodes of its plan whose pods are not.
func (b *purchases) settled(claim string, now time.Time) (wait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.byClaim[claim]
	if !ok {
		return false
	}
	if p.nominated.IsZero() {
		p.nominated = now
		b.byClaim[claim] = p
	}
	return now.Sub(p.nominated) < settleTimeout &&
		b.any(p.plan, func(other *purchase) bool { return !other.open.IsZero() && other.nominated.IsZero() })
}

// any reports whether the function reports true for a purchase of the plan.
func (b *purchases) any(plan int, f func(*purchase) bool) bool {
	for _, p := range b.byClaim {
		if p.plan == plan && f(&p) {
			return true
		}
	}
	return false
}

// registered reports whether the node of a machine is there to take pods.
func registered(m snapshot.NodeRef) bool {
	return m.Node != nil && m.Node.Labels[karpv1.NodeRegisteredLabelKey] == "true"
}

// offering returns the offering that a purchase has become or, before its launch, is
// expected to become.
func (p *purchase) offering(claim *karpv1.NodeClaim) engine.RankedOffering {
	o := p.machine.Offerings[0]
	if claim == nil || claim.Status.ProviderID == "" {
		return o
	}
	it, zone, ct := claim.Labels[corev1.LabelInstanceTypeStable], claim.Labels[corev1.LabelTopologyZone], claim.Labels[karpv1.CapacityTypeLabelKey]
	for _, other := range p.machine.Offerings {
		if other.InstanceType == it && other.Zone == zone && other.CapacityType == ct {
			return other
		}
	}
	return engine.RankedOffering{InstanceType: it, Zone: zone, CapacityType: ct, PriceUSDPerHour: o.PriceUSDPerHour}
}
