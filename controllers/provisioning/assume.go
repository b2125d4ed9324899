// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/utils/resources"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

const (
	// bindTimeout is how long an assumed pod may stay pending although its node is
	// ready; then it is placed again. A scheduler without nominations places pods as
	// it likes, so the free capacity may soon go to other pods.
	bindTimeout = 5 * time.Second
	// bindTimeoutNominated is the same with nominations. They keep the capacity for
	// the pod, but the scheduler may have to wait for nodes of other zones before a
	// spread constraint lets it bind.
	bindTimeoutNominated = 20 * time.Second
	// bindTimeoutMax is the same while other assumed pods are being bound: the
	// scheduler is at work and has not come to this pod yet.
	bindTimeoutMax = 2 * time.Minute
	// crowdedTimeout is how long an assumed pod may stay pending on a ready node that
	// cannot take it any more, because other pods are there.
	crowdedTimeout = 300 * time.Millisecond
)

// assume assumes the pods of a plan's groups on a node or NodeClaim. Pods that
// still run on a node being drained are left out: their owners replace them by pods
// of other names.
func (p *Provisioner) assume(groups []engine.PodGroup, on string, in *snapshot.Input) {
	kind := p.kindOf(on)
	for _, g := range groups {
		for _, key := range g.Pods {
			p.assumePod(in.Pods[key], on, kind, p.cache.Assume)
		}
	}
	p.nominations.signal()
}

// assumeFixed assumes pods where Karpenter's scheduler has placed them.
func (p *Provisioner) assumeFixed(pods []*corev1.Pod, on string) {
	kind := p.kindOf(on)
	for _, pod := range pods {
		p.assumePod(pod, on, kind, p.cache.AssumeFixed)
	}
}

func (p *Provisioner) assumePod(pod *corev1.Pod, on, kind string, assume func(podKey, on string) bool) {
	if pod == nil || pod.Spec.NodeName != "" || karpprovisioning.IsVirtualPod(pod) {
		return
	}
	key := snapshot.PodKey(pod)
	if !assume(key, on) {
		return
	}
	p.breaker.promise(key, snapshot.ShapeKey(pod), kind, on, p.Clock.Now())
	if p.Nominate {
		p.nominations.want(pod)
	}
}

// expireAssumed takes back the places of assumed pods that the scheduler does not
// bind although their node is ready. It also clears nominations: those of expired
// pods, and those that another component wrote and that lead to nothing.
func (p *Provisioner) expireAssumed(ctx context.Context) {
	now, timeout := p.Clock.Now(), bindTimeout
	clearing := map[string]string{}
	if p.Nominate {
		timeout = bindTimeoutNominated
		for _, key := range p.nominations.stale(now) {
			clearing[key] = ""
		}
		defer func() { p.patchAll(ctx, clearing) }()
	}
	if !p.cache.AnyAssumed() {
		return
	}
	nodes := p.readyNodes(ctx)
	ready := func(nodeOrClaim string) bool { return nodes[nodeOrClaim] != nil }
	p.cache.MarkReady(ready, now)
	expire := func(keys []string, reason, why string) {
		lost, first, from := 0, "", ""
		for _, key := range keys {
			on, _ := p.cache.AssumedOn(key)
			if !p.cache.Expire(key) {
				continue // expired for another reason, or bound meanwhile
			}
			if reason == "RoomTaken" && p.cache.Busy(on) {
				p.breaker.forget(key) // others run there: the machine is not bought in vain
			} else {
				p.noteBroken(ctx, key, why)
			}
			if lost++; lost == 1 {
				first, from = key, on
			}
			if p.nominations.withdraw(key) {
				clearing[key] = ""
			}
			expiredTotal.WithLabelValues(reason).Inc()
		}
		if lost > 0 {
			log.FromContext(ctx).Info("pods lost their promised place", "reason", reason, "pods", lost, "example", first, "place", from)
		}
	}
	expire(p.cache.LostPods(now), "NodeNotReady", "its node is not ready")
	expire(p.crowdedOut(ctx, nodes, p.cache.WaitingPods(ready, now, crowdedTimeout)), "RoomTaken", "its node cannot take it beside the pods there")
	expire(p.cache.OverduePods(ready, now, timeout, bindTimeoutMax), "NotBound", "the scheduler did not bind it to the ready node")
}

// withAssumedPods returns a function that reports whether pods are assumed on a
// node or on its NodeClaim at the time of this call.
func (p *Provisioner) withAssumedPods() func(*state.StateNode) bool {
	assumedOn := sets.New(slices.Collect(maps.Values(p.cache.AssumedPods()))...)
	return func(n *state.StateNode) bool {
		return n.Node != nil && assumedOn.Has(n.Node.Name) || n.NodeClaim != nil && assumedOn.Has(n.NodeClaim.Name)
	}
}

// readyNodes returns the nodes that take pods by the names of node and NodeClaim. It
// nominates, for Karpenter's disruption, the nodes with assumed pods: a node is not
// empty while pods are to be bound to it.
func (p *Provisioner) readyNodes(ctx context.Context) map[string]*state.StateNode {
	hasAssumed := p.withAssumedPods()
	ready, expecting := map[string]*state.StateNode{}, []string{}
	for n := range p.cluster.Nodes() {
		if hasAssumed(n) {
			expecting = append(expecting, n.ProviderID())
		}
		if !n.Initialized() && (n.Node == nil || unregistered(n.Node) || !open(n.Node, n.NodeClaim)) {
			continue
		}
		if n.Node != nil {
			ready[n.Node.Name] = n
		}
		if n.NodeClaim != nil {
			ready[n.NodeClaim.Name] = n
		}
	}
	for _, id := range expecting {
		p.cluster.NominateNodeForPod(ctx, id)
	}
	return ready
}

// crowdedOut returns the pods among the waiting (node or NodeClaim by pod key) that
// their node cannot take any more: a bound pod excludes them, or the free resources
// do not hold them together with the waiting pods of lower keys.
func (p *Provisioner) crowdedOut(ctx context.Context, nodes map[string]*state.StateNode, waiting map[string]string) []string {
	byNode := map[*state.StateNode][]string{}
	for key, on := range waiting {
		byNode[nodes[on]] = append(byNode[nodes[on]], key)
	}
	var out []string
	for node, keys := range byNode {
		slices.Sort(keys)
		free, bound := node.Available(), p.boundTo(ctx, node)
		for _, key := range keys {
			pod := p.podByKey(ctx, key)
			if pod == nil || pod.Spec.NodeName != "" {
				continue
			}
			if requests := resources.RequestsForPods(pod); !excluded(pod, node, bound) && resources.Fits(requests, free) {
				free = resources.Subtract(free, requests)
			} else {
				out = append(out, key)
			}
		}
	}
	return out
}
