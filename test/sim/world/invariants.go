// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/utils/resources"
)

// Limits are the bounds that the invariants have. A zero duration or number means
// the default in the comment.
type Limits struct {
	// Leak is how long a machine may be without its NodeClaim, a NodeClaim or a node
	// without its machine, and a booted machine without its node: 16 minutes, one more
	// than Karpenter's registration deadline.
	Leak time.Duration
	// Stranded is how long a pod may wait although it is nominated to a node: 5
	// minutes.
	Stranded time.Duration
	// Wasted is how many machines may be bought and given back without ever having
	// run a pod of a workload, beyond a tenth of all: 5.
	Wasted int
	// Objects is how many objects of one kind may exist, events included, beyond five
	// for each pod ever created: 5,000.
	Objects int
	// Converge is how long after the last event and fault machines may still be
	// bought and pods evicted; zero: for ever.
	Converge time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Leak == 0 {
		l.Leak = 16 * time.Minute
	}
	if l.Stranded == 0 {
		l.Stranded = 5 * time.Minute
	}
	if l.Wasted == 0 {
		l.Wasted = 5
	}
	if l.Objects == 0 {
		l.Objects = 5000
	}
	return l
}

// Violation is an invariant that did not hold.
type Violation struct {
	At        time.Time
	Invariant string // short name: "leak", "budgets", …
	Detail    string // which object, and what was expected of it
}

// store is what the invariants read of the API server.
type store interface {
	Each(schema.GroupVersionResource, func(runtime.Object) bool)
}

// VM is a machine as the cloud sees it.
type VM struct {
	Name       string
	ProviderID string
	NodePool   string
	NodeName   string
	// Claim is the NodeClaim that it was bought for.
	Claim string
	// Booted is when its kubelet started; zero while it boots.
	Booted time.Time
	// Alive is false when it is deleted or being deleted.
	Alive bool
	// Broken is whether a fault made it: it may not register or vanish.
	Broken bool
}

var (
	podsResource  = corev1.SchemeGroupVersion.WithResource("pods")
	nodesResource = corev1.SchemeGroupVersion.WithResource("nodes")
	pdbsResource  = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	claimResource = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodeclaims"}
	poolResource  = schema.GroupVersionResource{Group: "karpenter.sh", Version: "v1", Resource: "nodepools"}
)

// invariants watches over a run. check is called about once a second of simulated
// time while nothing runs; the other methods at the moment of what they are named
// after.
type invariants struct {
	limits Limits
	store  store
	vms    func() []VM
	clock  clock.Clock

	since map[string]time.Time // when a condition that may not last began
	found []Violation
	seen  map[string]bool // violations that were reported

	bought int
	useful map[string]bool // machines by node name that ran a pod of a workload
	wasted int
	// quietSince is when the last event or fault of the scenario was over; zero before.
	quietSince time.Time
}

func newInvariants(l Limits, s store, vms func() []VM, c clock.Clock) *invariants {
	return &invariants{limits: l.withDefaults(), store: s, vms: vms, clock: c, since: map[string]time.Time{}, seen: map[string]bool{}, useful: map[string]bool{}}
}

// violate records a violation once for each object.
func (v *invariants) violate(invariant, object, format string, args ...any) {
	key := invariant + " " + object
	if v.seen[key] {
		return
	}
	v.seen[key] = true
	v.found = append(v.found, Violation{At: v.clock.Now(), Invariant: invariant, Detail: object + ": " + fmt.Sprintf(format, args...)})
}

// lasting is a condition that may not last.
type lasting struct {
	invariant, object, text string
	limit                   time.Duration
}

// check looks at the whole state.
func (v *invariants) check() {
	now := v.clock.Now()
	holds := map[string]bool{}
	for _, c := range v.conditions() {
		key := c.invariant + " " + c.object + " " + c.text
		holds[key] = true
		begin, ok := v.since[key]
		if !ok {
			v.since[key], begin = now, now
		}
		if now.Sub(begin) >= c.limit {
			v.violate(c.invariant, c.object, "%s for %s", c.text, now.Sub(begin))
		}
	}
	for key := range v.since {
		if !holds[key] {
			delete(v.since, key)
		}
	}
}

// conditions returns all conditions that hold now and may not last.
func (v *invariants) conditions() []lasting {
	var out []lasting
	claims, claimOf := map[string]*karpv1.NodeClaim{}, map[string]*karpv1.NodeClaim{}
	v.store.Each(claimResource, func(o runtime.Object) bool {
		c := o.(*karpv1.NodeClaim)
		claims[c.Name] = c
		if id := c.Status.ProviderID; id != "" {
			if other := claimOf[id]; other != nil {
				v.violate("double", id, "NodeClaims %s and %s have one machine", other.Name, c.Name)
			}
			claimOf[id] = c
		}
		return true
	})
	nodeOf, nodes := map[string]*corev1.Node{}, 0
	v.store.Each(nodesResource, func(o runtime.Object) bool {
		n := o.(*corev1.Node)
		nodes++
		if id := n.Spec.ProviderID; id != "" {
			if other := nodeOf[id]; other != nil {
				v.violate("double", id, "nodes %s and %s have one machine", other.Name, n.Name)
			}
			nodeOf[id] = n
		}
		return true
	})
	machines, byClaim := map[string]VM{}, map[string]string{}
	for _, m := range v.vms() {
		if !m.Alive {
			continue
		}
		machines[m.ProviderID] = m
		if m.Claim == "" {
			continue
		}
		if other := byClaim[m.Claim]; other != "" {
			v.violate("double", m.Claim, "machines %s and %s were bought for one NodeClaim", other, m.Name)
		}
		byClaim[m.Claim] = m.Name
		if claims[m.Claim] == nil {
			out = append(out, lasting{"leak", "machine " + m.Name, "has no NodeClaim", v.limits.Leak})
		}
		if !m.Booted.IsZero() && nodeOf[m.ProviderID] == nil {
			out = append(out, lasting{"leak", "machine " + m.Name, "has no node", v.limits.Leak})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(claimOf)) {
		if _, ok := machines[id]; !ok {
			out = append(out, lasting{"leak", "NodeClaim " + claimOf[id].Name, "has no machine", v.limits.Leak})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(nodeOf)) {
		n := nodeOf[id]
		if n.Labels[karpv1.NodePoolLabelKey] == "" {
			continue
		}
		if _, ok := machines[id]; !ok {
			out = append(out, lasting{"leak", "node " + n.Name, "has no machine", v.limits.Leak})
		}
		if n.Labels[karpv1.NodeInitializedLabelKey] != "true" {
			out = append(out, lasting{"fleet", "node " + n.Name, "is registered and not initialized", v.limits.Leak})
		}
	}
	v.checkLimits(nodeOf)
	out = append(out, v.pods()...)
	if len(claims) > v.limits.Objects {
		v.violate("bounded", "NodeClaims", "%d exist", len(claims))
	}
	return out
}

// pods returns the conditions of pods.
func (v *invariants) pods() []lasting {
	var out []lasting
	v.store.Each(podsResource, func(o runtime.Object) bool {
		p := o.(*corev1.Pod)
		switch {
		case p.Spec.NodeName != "" && p.Status.Phase == corev1.PodRunning && !ofNode(p):
			v.useful[p.Spec.NodeName] = true
		case p.Spec.NodeName == "" && p.Status.NominatedNodeName != "" && p.DeletionTimestamp == nil:
			out = append(out, lasting{"assumed", "pod " + p.Namespace + "/" + p.Name, "waits for node " + p.Status.NominatedNodeName, v.limits.Stranded})
		}
		return true
	})
	return out
}

// checkLimits compares the nodes of each NodePool with its limits.
func (v *invariants) checkLimits(nodeOf map[string]*corev1.Node) {
	v.store.Each(poolResource, func(o runtime.Object) bool {
		np := o.(*karpv1.NodePool)
		if len(np.Spec.Limits) == 0 {
			return true
		}
		total := corev1.ResourceList{}
		for _, id := range slices.Sorted(maps.Keys(nodeOf)) {
			if n := nodeOf[id]; n.Labels[karpv1.NodePoolLabelKey] == np.Name && n.DeletionTimestamp == nil {
				total = resources.Merge(total, n.Status.Capacity)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(np.Spec.Limits)) {
			limit := np.Spec.Limits[name]
			if have := total[name]; have.Cmp(limit) > 0 {
				v.violate("limits", "NodePool "+np.Name, "its nodes have %s of %s, its limit is %s", have.String(), name, limit.String())
			}
		}
		return true
	})
}

// machineBought is called for each machine that the cloud starts.
func (v *invariants) machineBought(name string) {
	v.bought++
	v.changed("machine " + name + " bought")
}

// machineGone is called when a machine is deleted.
func (v *invariants) machineGone(m VM) {
	if m.Broken || v.useful[m.NodeName] {
		return
	}
	v.wasted++
	if v.wasted > v.limits.Wasted+v.bought/10 {
		v.violate("bounded", "machines", "%d of %d bought were given back without having run a pod", v.wasted, v.bought)
	}
}

// changed is called for each voluntary change of the fleet.
func (v *invariants) changed(what string) {
	if v.limits.Converge == 0 || v.quietSince.IsZero() {
		return
	}
	if after := v.clock.Now().Sub(v.quietSince); after > v.limits.Converge {
		v.violate("convergence", "fleet", "%s %s after the last event", what, after.Round(time.Second))
	}
}

// evicted is called when the controller under test has evicted or deleted a running
// pod; pod is its state before.
func (v *invariants) evicted(pod *corev1.Pod, node *corev1.Node, claim *karpv1.NodeClaim, alive bool) {
	v.changed("pod " + pod.Namespace + "/" + pod.Name + " evicted")
	forced := claim != nil && claim.Spec.TerminationGracePeriod != nil || !alive
	if pod.Annotations[karpv1.DoNotDisruptAnnotationKey] == "true" && !forced && voluntary(node) {
		v.violate("doNotDisrupt", "pod "+pod.Namespace+"/"+pod.Name, "it was evicted from node %s", pod.Spec.NodeName)
	}
	v.checkPDBs(pod, forced)
}

// voluntary reports whether a node is being disrupted by a decision, and not because
// somebody deleted it.
func voluntary(n *corev1.Node) bool {
	return n != nil && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == karpv1.DisruptedTaintKey })
}

// checkPDBs compares the pods that are healthy without the evicted one with what
// each of its PodDisruptionBudgets demands.
func (v *invariants) checkPDBs(pod *corev1.Pod, forced bool) {
	if forced || !ready(pod) {
		return
	}
	v.store.Each(pdbsResource, func(o runtime.Object) bool {
		b := o.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || b.Namespace != pod.Namespace || selector.Empty() || !selector.Matches(labels.Set(pod.Labels)) {
			return true
		}
		healthy := 0
		v.store.Each(podsResource, func(o runtime.Object) bool {
			p := o.(*corev1.Pod)
			if p.Namespace == b.Namespace && p.UID != pod.UID && p.DeletionTimestamp == nil && ready(p) && selector.Matches(labels.Set(p.Labels)) {
				healthy++
			}
			return true
		})
		if healthy < int(b.Status.DesiredHealthy) {
			v.violate("pdbs", "PodDisruptionBudget "+b.Namespace+"/"+b.Name, "%d healthy pods are left after the eviction of %s, it demands %d", healthy, pod.Name, b.Status.DesiredHealthy)
		}
		return true
	})
}

func ready(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodRunning && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// disrupted is called when a node gets the taint of a voluntary disruption.
func (v *invariants) disrupted(node *corev1.Node) {
	pool := node.Labels[karpv1.NodePoolLabelKey]
	var np *karpv1.NodePool
	v.store.Each(poolResource, func(o runtime.Object) bool {
		if o.(*karpv1.NodePool).Name == pool {
			np = o.(*karpv1.NodePool)
		}
		return np == nil
	})
	if np == nil {
		return
	}
	total, going := 0, 0
	v.store.Each(nodesResource, func(o runtime.Object) bool {
		n := o.(*corev1.Node)
		if n.Labels[karpv1.NodePoolLabelKey] != pool || n.Labels[karpv1.NodeInitializedLabelKey] != "true" {
			return true
		}
		total++
		if voluntary(n) || n.DeletionTimestamp != nil {
			going++
		}
		return true
	})
	allowed, widest := 0, ""
	for _, reason := range []karpv1.DisruptionReason{karpv1.DisruptionReasonUnderutilized, karpv1.DisruptionReasonEmpty, karpv1.DisruptionReasonDrifted} {
		if n := np.MustGetAllowedDisruptions(v.clock, total, reason); n > allowed || widest == "" {
			allowed, widest = n, strings.ToLower(string(reason))
		}
	}
	if going > allowed {
		v.violate("budgets", "NodePool "+pool, "%d of its %d nodes are being disrupted, its budgets allow %d (%s)", going, total, allowed, widest)
	}
}
