// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
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
)

// purchases are the NodeClaims that this process has created and whose nodes have not
// registered yet. A claim is among them only between its creation and the registration
// of its node, its deletion, or the end of the process: what another process or
// controller has created is never here, and so never revised or given back.
type purchases struct {
	byClaim map[string]purchase
	// boot is the average time from creation to registration.
	boot time.Duration
}

// purchase is a machine on its way.
type purchase struct {
	at      time.Time
	machine engine.Machine // as planned
	// others is whether it was bought for pods that are never assumed: those of a node
	// being drained, whose owners replace them by pods of other names, and placeholders
	// of buffers. Such a machine is neither revised nor given back.
	others bool
	// since is since when no pod is meant for it; zero while there is one.
	since time.Time
}

func newPurchases() *purchases {
	return &purchases{byClaim: map[string]purchase{}, boot: firstBoot}
}

// add records that a claim was created for a machine of a plan.
func (b *purchases) add(claim string, m *engine.Machine, pods map[string]*corev1.Pod, now time.Time) {
	p := purchase{at: now, machine: *m}
	for _, g := range m.Pods {
		for _, key := range g.Pods {
			pod := pods[key]
			p.others = p.others || pod == nil || pod.Spec.NodeName != "" || karpprovisioning.IsVirtualPod(pod)
		}
	}
	b.byClaim[claim] = p
}

// prune drops the claims that are gone or being deleted or whose node has registered,
// and learns from the latter how long a machine takes.
func (b *purchases) prune(machine func(claim string) snapshot.NodeRef, now time.Time) {
	for name, p := range b.byClaim {
		m := machine(name)
		switch {
		case m.Claim == nil || !m.Claim.DeletionTimestamp.IsZero():
			delete(b.byClaim, name)
		case registered(m):
			b.boot += time.Duration(bootWeight * float64(now.Sub(p.at)-b.boot))
			delete(b.byClaim, name)
		}
	}
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
