package provisioning

import (
	"context"
	"fmt"
	"slices"
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

// From Kubernetes 1.35 on, the scheduler heeds a nominated node that others
// write into a pod's status: it tries that node first and keeps its room from
// other pods. So the plan is told to it, pod by pod, as soon as the node is
// there; without that it spreads pods as it likes, and some find their room
// taken.

// NominationVersion is the first minor version of Kubernetes 1 whose scheduler
// heeds nominations.
const NominationVersion = 35

const (
	// foreignWait is how long a nomination that is not of this process may
	// stand: one of before a restart, or a preemption that came to nothing.
	foreignWait = 2 * time.Minute
	// patchers is how many pods are written at once.
	patchers = 16
	// gather is how long nominations are gathered before they are written.
	gather = 20 * time.Millisecond
)

// nominations remembers which pods were nominated for which node.
type nominations struct {
	mu      sync.Mutex
	written *sync.Cond           // some of the nominations being written are
	writing map[string]int       // node to how many of its nominations are being written
	wanted  map[string]string    // pod key to node or claim, not written yet
	ours    map[string]string    // pod key to node, written by us
	shown   map[string]bool      // pods whose nomination by us the watch has told of
	again   map[string]bool      // pods nominated a second time for the same node
	foreign map[string]time.Time // pod key to when a nomination of others was first seen
	wake    chan struct{}
}

func newNominations() *nominations {
	n := &nominations{writing: map[string]int{}, wanted: map[string]string{}, ours: map[string]string{}, shown: map[string]bool{}, again: map[string]bool{}, foreign: map[string]time.Time{}, wake: make(chan struct{}, 1)}
	n.written = sync.NewCond(&n.mu)
	return n
}

// take returns the wanted nominations whose node is there, by pod. From now on
// they are being written; done has to be called for each.
func (n *nominations) take(nodeOf map[string]string) map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := map[string]string{}
	for key, to := range n.wanted {
		if node := nodeOf[to]; node != "" {
			due[key] = node
			n.ours[key] = node // before the watch can tell of it
			n.writing[node]++
			delete(n.wanted, key)
		}
	}
	return due
}

func (n *nominations) done(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.writing[node]--; n.writing[node] <= 0 {
		delete(n.writing, node)
	}
	n.written.Broadcast()
}

// wait returns when no nomination for a node is being written.
func (n *nominations) wait(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.writing[node] > 0 {
		n.written.Wait()
	}
}

func (n *nominations) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// want asks for a nomination, as soon as the node is there.
func (n *nominations) want(key, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted[key] = to
	delete(n.again, key)
	delete(n.shown, key)
}

// seen is told of every pod. It returns the pod as the mirror is to see it: one
// that we nominated ourselves is still ours to place. It also tells whether this
// is such a pod: nothing has to be decided for it.
func (n *nominations) seen(pod *corev1.Pod, now time.Time) (*corev1.Pod, bool) {
	key := snapshot.PodKey(pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	if pod.Spec.NodeName != "" {
		n.forget(key)
		return pod, false
	}
	switch node := pod.Status.NominatedNodeName; {
	case node == "" && n.ours[key] != "":
		// The scheduler gave the nomination up. It may have looked too early, the
		// node still having a taint: the pod's place is the same. But when it does so
		// twice, others are in the way, and each of the pods that are nominated for a
		// full node keeps out all the others: this one goes without.
		if !n.shown[key] || !n.again[key] {
			n.again[key] = n.again[key] || n.shown[key]
			n.wanted[key] = n.ours[key]
			delete(n.shown, key)
			n.signal()
			return pod, true
		}
		delete(n.ours, key)
		delete(n.shown, key)
	case node == "":
		delete(n.foreign, key)
	case n.ours[key] == node:
		n.shown[key] = true
		copied := *pod
		copied.Status.NominatedNodeName = ""
		return &copied, true
	case n.foreign[key].IsZero():
		n.foreign[key] = now
	}
	return pod, false
}

func (n *nominations) gone(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(key)
}

func (n *nominations) forget(key string) {
	delete(n.wanted, key)
	delete(n.ours, key)
	delete(n.again, key)
	delete(n.shown, key)
	delete(n.foreign, key)
}

// takeBack drops a nomination and tells whether it has to be cleared.
func (n *nominations) takeBack(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, written := n.ours[key]
	n.forget(key)
	return written
}

// stale are the pods whose nomination by others stands for too long.
func (n *nominations) stale(now time.Time) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for key, since := range n.foreign {
		if now.Sub(since) > foreignWait {
			out = append(out, key)
			n.foreign[key] = now // once is enough for now
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
		case <-time.After(gather):
		}
		if err := p.nominate(ctx); err != nil && ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "nominating nodes")
		}
	}
}

// Hook holds back the registration of a node until the pods that it was bought
// for are nominated for it: until then a taint keeps all pods away, so nobody
// takes their room.
func (p *Provisioner) Hook() cloudprovider.NodeLifecycleHook { return hook{p} }

type hook struct{ p *Provisioner }

// Name is the hook's name in logs.
func (hook) Name() string { return "nomination" }

// Registered writes what is due for the claim's node, and for no other: one
// machine does not wait for the pods of another. A node whose pods cannot be
// nominated goes on without.
func (h hook) Registered(ctx context.Context, claim *karpv1.NodeClaim) (cloudprovider.NodeLifecycleHookResult, error) {
	if !h.p.Nominate {
		return cloudprovider.NodeLifecycleHookResult{}, nil
	}
	if err := h.p.nominateFor(ctx, claim); err != nil {
		log.FromContext(ctx).Error(err, "nominating a new node", "NodeClaim", claim.Name)
	}
	return cloudprovider.NodeLifecycleHookResult{}, nil
}

// nominateFor writes the nominations for the node of a claim. It returns when
// all of them are written, whoever writes them. A claim that was launched a moment
// ago has its provider ID only here: it is written to the API server later.
func (p *Provisioner) nominateFor(ctx context.Context, claim *karpv1.NodeClaim) error {
	if claim.Status.ProviderID == "" {
		return nil
	}
	nodes := &corev1.NodeList{}
	if err := p.Kube.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.Spec.ProviderID == claim.Status.ProviderID && node.DeletionTimestamp.IsZero() {
			p.writeNominations(ctx, p.nominations.take(map[string]string{claim.Name: node.Name, node.Name: node.Name}))
			p.nominations.wait(node.Name)
			return nil
		}
	}
	return nil
}

// nominate writes the nominations whose nodes are there.
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
	p.writeNominations(ctx, n.take(nodeOf))
	return nil
}

// nodesByName maps names of nodes, and of claims that have one, to nodes. Nodes
// that are not registered are left out: their hook nominates for them at the
// moment they open, and before, the scheduler would only give nominations up.
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
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.DeletionTimestamp.IsZero() && !unregistered(node) {
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

// writeNominations writes what was taken.
func (p *Provisioner) writeNominations(ctx context.Context, due map[string]string) {
	p.patchEach(ctx, due, p.nominations.done)
}

func unregistered(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&karpv1.UnregisteredNoExecuteTaint) })
}

// patchAll writes nominated nodes, "" to clear, several at once. A pod that is
// gone or bound meanwhile needs none; other failures leave the pod to the
// scheduler's own choice.
func (p *Provisioner) patchAll(ctx context.Context, nodes map[string]string) {
	p.patchEach(ctx, nodes, func(string) {})
}

func (p *Provisioner) patchEach(ctx context.Context, nodes map[string]string, done func(node string)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, patchers)
	for key, node := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			defer done(node)
			if err := p.patchNomination(ctx, key, node); err != nil {
				p.nominations.gone(key)
				log.FromContext(ctx).V(1).Info("could not nominate a node", "pod", key, "node", node, "error", err.Error())
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
