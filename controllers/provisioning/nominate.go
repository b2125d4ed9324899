// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/snapshot"
)

// From Kubernetes 1.35 on, the scheduler honours a nominated node that another
// component writes into a pod's status: it tries that node first and keeps the
// capacity from other pods. The provisioner therefore nominates, for each assumed
// pod, the node that the pod is assumed on, as soon as the node exists. Without
// nominations the scheduler places pods as it likes, and some find the capacity
// planned for them taken.

// NominationVersion is the first minor version of Kubernetes 1 whose scheduler
// honours nominations by other components.
const NominationVersion = 35

const (
	// foreignTimeout is how long a nomination by another process may last. It is that
	// of an earlier provisioner process, or of a preemption that led to nothing.
	foreignTimeout = 2 * time.Minute
	// concurrentPatches is how many pods are patched at the same time.
	concurrentPatches = 64
	// openTimeout is how long after the creation of its node a registration waits until
	// the node is open. A node may need pods that do not tolerate the taint of
	// unregistered nodes to become ready.
	openTimeout = 30 * time.Second
	// hookInterval is how often a registration that waits for other nodes is tried again.
	// One that waits for its own node is tried when that changes.
	hookInterval = 250 * time.Millisecond
	// nominationDelay is how long nominations are collected before they are written.
	nominationDelay = 20 * time.Millisecond
)

// nominations tracks which pods have to be nominated, and which nominations are in
// the API. Where a pod is to go is not stored here; see snapshot.Cache.AssumedOn.
type nominations struct {
	mu        sync.Mutex
	written   *sync.Cond           // signalled when writing shrinks
	writing   map[string]int       // node to the number of its nominations in flight
	wanted    map[string]bool      // pods to nominate, by key
	nominated map[string]string    // pod key to the node that this process nominated
	observed  map[string]bool      // pods whose nomination by this process the watch has reported
	retried   map[string]bool      // pods nominated a second time for the same node
	foreign   map[string]time.Time // pod key to when a nomination by another process was first seen
	spread    map[string]spreading // wanted and nominated pods that are nominated a few at a time
	paused    map[string]pause     // pods among them that the scheduler has refused
	wake      chan struct{}
}

func newNominations() *nominations {
	n := &nominations{
		writing: map[string]int{}, wanted: map[string]bool{}, nominated: map[string]string{}, observed: map[string]bool{},
		retried: map[string]bool{}, foreign: map[string]time.Time{}, spread: map[string]spreading{}, paused: map[string]pause{}, wake: make(chan struct{}, 1),
	}
	n.written = sync.NewCond(&n.mu)
	return n
}

// take returns the node of each wanted pod whose place is a node that exists. nodeOf
// maps places (names of nodes and NodeClaims) to nodes; assumedOn returns the place
// of a pod. Pods that refuse each other wait until those before them are bound. The
// nominations count as in flight until done is called for each.
func (n *nominations) take(nodeOf map[string]string, assumedOn func(podKey string) (string, bool), now time.Time) map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := map[string]string{}
	var outstanding map[turn]int
	for _, key := range slices.Sorted(maps.Keys(n.wanted)) {
		on, _ := assumedOn(key)
		if node := nodeOf[on]; node != "" {
			if g, ok := n.spread[key]; ok {
				if outstanding == nil {
					outstanding = n.outstanding()
				}
				// The first time all are nominated, to keep their room as long as the
				// scheduler has not come to them.
				t := turn{g, node}
				if was, refused := n.paused[key]; refused && (outstanding[t] >= g.skew || now.Before(was.until)) {
					continue
				}
				outstanding[t]++
			}
			due[key] = node
			n.nominated[key] = node // before the watch can report it
			n.writing[node]++
			delete(n.wanted, key)
		}
	}
	return due
}

// done ends a nomination in flight.
func (n *nominations) done(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writing[node]--; n.writing[node] <= 0 {
		delete(n.writing, node)
	}
	n.written.Broadcast()
}

// wait returns when no nomination for the node is in flight.
func (n *nominations) wait(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.writing[node] > 0 {
		n.written.Wait()
	}
}

// signal wakes the nominator. It never blocks.
func (n *nominations) signal() { notify(n.wake) }

// want asks for the nomination of a pod that has just been assumed.
func (n *nominations) want(pod *corev1.Pod) {
	key := snapshot.PodKey(pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted[key] = true
	if g, ok := spreadingOf(pod); ok {
		n.spread[key] = g
	}
	delete(n.retried, key)
	delete(n.observed, key)
}

// observe handles a watch event of a pod. It returns the pod for the snapshot cache,
// without a nomination that this process wrote: such a pod still has to be planned
// for. It also reports whether the event is about such a nomination only, so that no
// pass is needed.
func (n *nominations) observe(pod *corev1.Pod, now time.Time) (*corev1.Pod, bool) {
	key := snapshot.PodKey(pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	if pod.Spec.NodeName != "" {
		if _, ok := n.spread[key]; ok {
			n.signal() // it is another's turn
		}
		n.forgetLocked(key)
		return pod, false
	}
	switch node := pod.Status.NominatedNodeName; {
	case node == "" && n.nominated[key] != "":
		// The scheduler cleared the nomination. It may have tried the node too early,
		// while that still had a taint, so nominate once more. If the scheduler clears
		// it again, other pods have the capacity, and every pod nominated for a full
		// node keeps out all others: leave this one without a nomination.
		// Pods that spread are refused until their turn has come.
		_, spreads := n.spread[key]
		if spreads {
			delete(n.nominated, key) // the turn of another
			n.postpone(key, now)
		}
		if !n.observed[key] || !n.retried[key] || spreads {
			n.retried[key] = n.retried[key] || n.observed[key]
			n.wanted[key] = true
			delete(n.observed, key)
			n.signal()
			return pod, true
		}
		delete(n.nominated, key)
		delete(n.observed, key)
	case node == "":
		delete(n.foreign, key)
	case n.nominated[key] == node:
		n.observed[key] = true
		copied := *pod
		copied.Status.NominatedNodeName = ""
		return &copied, true
	case n.foreign[key].IsZero():
		n.foreign[key] = now
	}
	return pod, false
}

// forget drops everything about a pod.
func (n *nominations) forget(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetLocked(key)
}

func (n *nominations) forgetLocked(key string) {
	delete(n.wanted, key)
	delete(n.nominated, key)
	delete(n.retried, key)
	delete(n.observed, key)
	delete(n.foreign, key)
	delete(n.spread, key)
	delete(n.paused, key)
}

// withdraw forgets a pod and reports whether its nomination has to be cleared in the
// API.
func (n *nominations) withdraw(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, nominated := n.nominated[key]
	n.forgetLocked(key)
	return nominated
}

// stale returns the pods whose nomination by another process has lasted too long. It
// returns a pod once per timeout.
func (n *nominations) stale(now time.Time) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for key, since := range n.foreign {
		if now.Sub(since) > foreignTimeout {
			out = append(out, key)
			n.foreign[key] = now
		}
	}
	return out
}

// nominator writes nominations until the context ends.
func (p *Provisioner) nominator(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.nominations.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(nominationDelay):
		}
		if err := p.nominate(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "nominating nodes failed")
		}
	}
}

// Hook returns the hook that delays the registration of a node until it is open and
// the pods assumed on it are nominated. Until then the node has a taint that keeps all
// pods away, so no other pod takes their capacity.
func (p *Provisioner) Hook() cloudprovider.NodeLifecycleHook { return hook{p} }

type hook struct{ p *Provisioner }

// Name returns the name of the hook for logs.
func (hook) Name() string { return "nomination" }

// Registered writes the nominations for the node of the claim, and only those: one
// node does not wait for the pods of another. An error does not stop the
// registration.
func (h hook) Registered(ctx context.Context, claim *karpv1.NodeClaim) (cloudprovider.NodeLifecycleHookResult, error) {
	if !h.p.Nominate {
		return cloudprovider.NodeLifecycleHookResult{}, nil
	}
	wait, err := h.p.nominateFor(ctx, claim)
	if err != nil {
		log.FromContext(ctx).Error(err, "nominating new node failed", "nodeClaim", claim.Name)
	}
	if wait {
		// Or at the next change of the node.
		return cloudprovider.NodeLifecycleHookResult{RequeueAfter: hookInterval}, nil
	}
	return cloudprovider.NodeLifecycleHookResult{}, nil
}

// nominateFor writes the nominations for the node of a claim, and waits for those
// that the nominator is writing. It reports whether it is too early for that, because
// the node is not open. Pass the claim that the lifecycle controller works on: a claim
// just launched has its provider ID there before the API server has it.
func (p *Provisioner) nominateFor(ctx context.Context, claim *karpv1.NodeClaim) (wait bool, err error) {
	if claim.Status.ProviderID == "" {
		return false, nil
	}
	nodes := &corev1.NodeList{}
	if err := p.Kube.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("listing nodes: %w", err)
	}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.Spec.ProviderID != claim.Status.ProviderID || !node.DeletionTimestamp.IsZero() {
			continue
		}
		if !open(node, claim) {
			// With startup taints, what removes them may need the registration.
			patient := p.Clock.Since(node.CreationTimestamp.Time) < openTimeout && len(claim.Spec.StartupTaints) == 0
			return patient && len(p.cache.AssumedByPlace()[claim.Name].Pods) > 0, nil
		}
		if p.purchases.opened(claim.Name, p.Clock.Now()) {
			return true, nil
		}
		p.writeNominations(ctx, p.nominations.take(map[string]string{claim.Name: node.Name, node.Name: node.Name}, p.cache.AssumedOn, p.Clock.Now()))
		p.nominations.wait(node.Name)
		return p.purchases.settled(claim.Name, p.Clock.Now()), nil
	}
	return false, nil
}

// open reports whether the scheduler may bind pods to a node, or might once the node is
// registered: it is ready and has no taint that will go away. The scheduler clears the
// nomination of a pod that it tries before that, and then gives the room to others.
func open(node *corev1.Node, claim *karpv1.NodeClaim) bool {
	ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return ready && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		if t.Effect == corev1.TaintEffectPreferNoSchedule {
			return false
		}
		return strings.HasPrefix(t.Key, "node.kubernetes.io/") || strings.HasPrefix(t.Key, "node.cloudprovider.kubernetes.io/") ||
			claim != nil && slices.ContainsFunc(claim.Spec.StartupTaints, func(s corev1.Taint) bool { return t.MatchTaint(&s) })
	})
}

// nominate writes the nominations whose nodes exist.
func (p *Provisioner) nominate(ctx context.Context) error {
	n := p.nominations
	n.mu.Lock()
	empty := len(n.wanted) == 0
	n.mu.Unlock()
	if empty {
		return nil
	}
	nodeOf, err := p.nodesByName(ctx)
	if err != nil {
		return err
	}
	p.writeNominations(ctx, n.take(nodeOf, p.cache.AssumedOn, p.Clock.Now()))
	return nil
}

// nodesByName maps the names of open nodes, and of the NodeClaims that have one, to
// node names. Unregistered nodes are left out: the hook nominates for them when they
// register, and the scheduler would clear earlier nominations.
func (p *Provisioner) nodesByName(ctx context.Context) (map[string]string, error) {
	nodes, claims := &corev1.NodeList{}, &karpv1.NodeClaimList{}
	if err := p.Kube.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	if err := p.Kube.List(ctx, claims, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing NodeClaims: %w", err)
	}
	out := make(map[string]string, len(nodes.Items)+len(claims.Items))
	byID := make(map[string]string, len(nodes.Items))
	claimOf := make(map[string]*karpv1.NodeClaim, len(claims.Items))
	for i := range claims.Items {
		if id := claims.Items[i].Status.ProviderID; id != "" {
			claimOf[id] = &claims.Items[i]
		}
	}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.DeletionTimestamp.IsZero() && !unregistered(node) && open(node, claimOf[node.Spec.ProviderID]) {
			out[node.Name] = node.Name
			byID[node.Spec.ProviderID] = node.Name
		}
	}
	for i := range claims.Items {
		if id := claims.Items[i].Status.ProviderID; id != "" && byID[id] != "" {
			out[claims.Items[i].Name] = byID[id]
		}
	}
	return out, nil
}

// writeNominations writes the nominations that take returned.
func (p *Provisioner) writeNominations(ctx context.Context, due map[string]string) {
	p.patchEach(ctx, due, p.nominations.done)
}

func unregistered(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&karpv1.UnregisteredNoExecuteTaint) })
}

// patchAll writes the nominated node of each pod, "" to clear it. A pod that cannot
// be patched is left to the scheduler.
func (p *Provisioner) patchAll(ctx context.Context, nodes map[string]string) {
	p.patchEach(ctx, nodes, func(string) {})
}

// patchEach patches concurrently and calls done after each patch.
func (p *Provisioner) patchEach(ctx context.Context, nodes map[string]string, done func(node string)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, concurrentPatches)
	for key, node := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer done(node)
			if err := p.patchNomination(ctx, key, node); err != nil {
				p.nominations.forget(key)
				log.FromContext(ctx).V(1).Info("nominating node failed", "pod", key, "node", node, "error", err.Error())
			}
		})
	}
	wg.Wait()
}

func (p *Provisioner) patchNomination(ctx context.Context, key, node string) error {
	value := "null"
	if node != "" {
		value = fmt.Sprintf("%q", node)
	}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = splitKey(key)
	err := p.Kube.Status().Patch(ctx, pod, client.RawPatch(types.MergePatchType, []byte(`{"status":{"nominatedNodeName":`+value+`}}`)))
	return client.IgnoreNotFound(err)
}
