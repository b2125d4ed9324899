// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// maxPodsListed is how many pods a group of waiting pods names.
const maxPodsListed = 200

// Unseen is the outcome of pods that have not been in a pass yet.
const Unseen = "Unseen"

// Known is what objects do not say: what was decided about them.
type Known struct {
	// Verdicts are the latest ones of pending pods, by pod key.
	Verdicts map[string]*Verdict
	// Bought are purchases by the name of the NodeClaim.
	Bought map[string]Purchase
	Bound  *Bound
}

// Verdict is what a pass decided for pods of one class. It is shared by its pods.
type Verdict struct {
	Outcome, Code, Reason, Node string
	Stages                      []engine.Stage
	Nearest                     []engine.Miss
}

// Purchase is why a machine was bought.
type Purchase struct {
	Text     string
	Decision uint64
}

// Builder makes States. It keeps what is costly to compute and rarely changes, so use
// one for a cluster. The zero value is ready. It is not safe for concurrent use.
type Builder struct {
	requests map[types.UID]requests
	sizes    map[string]sizes
	windows  map[string]windows
}

type requests struct {
	version     string
	cpu, memory int64
}

// sizes are the instance types of a NodePool by name.
type sizes struct {
	list   []*cloudprovider.InstanceType
	byName map[string]*cloudprovider.InstanceType
}

// Build returns the State of the cluster. It keeps no reference to the objects and does
// not change them.
func (b *Builder) Build(o *snapshot.Objects, k Known) *State {
	s := &State{
		Version: StateVersion, Time: o.Now, Bound: k.Bound,
		Groups: []Group{}, Nodes: []Node{}, Waiting: []Waiting{}, Quotas: []Quota{}, Pools: []Pool{},
	}
	b.index(o)
	on := b.countPods(o, s)
	claims := map[string]*karpv1.NodeClaim{} // by provider ID
	for _, c := range o.NodeClaims {
		if c.Status.ProviderID != "" {
			claims[c.Status.ProviderID] = c
		}
	}
	stays := newStays(o)
	seen := map[string]bool{}
	for _, n := range o.Nodes {
		c := claims[n.Spec.ProviderID]
		if c != nil {
			seen[c.Name] = true
		}
		s.Nodes = append(s.Nodes, b.node(o, k, n, c, on[n.Name], stays))
	}
	for _, c := range o.NodeClaims {
		if !seen[c.Name] {
			s.Nodes = append(s.Nodes, b.node(o, k, nil, c, nil, stays))
		}
	}
	slices.SortFunc(s.Nodes, func(x, y Node) int { return cmp.Compare(x.Name, y.Name) })
	b.sum(s)
	b.waiting(o, k, s)
	for _, q := range o.Quotas {
		s.Quotas = append(s.Quotas, Quota{Name: q.Name, Title: q.Title, Used: q.Used, Limit: q.Limit})
	}
	slices.SortFunc(s.Quotas, func(x, y Quota) int { return cmp.Compare(y.Used*max(x.Limit, 1), x.Used*max(y.Limit, 1)) })
	b.pools(o, s)
	return s
}

// index brings the tables of instance types up to date.
func (b *Builder) index(o *snapshot.Objects) {
	if b.sizes == nil {
		b.sizes = map[string]sizes{}
	}
	for pool := range b.sizes {
		if _, ok := o.InstanceTypes[pool]; !ok {
			delete(b.sizes, pool)
		}
	}
	for pool, list := range o.InstanceTypes {
		if slices.Equal(b.sizes[pool].list, list) {
			continue
		}
		t := sizes{list: list, byName: make(map[string]*cloudprovider.InstanceType, len(list))}
		for _, it := range list {
			t.byName[it.Name] = it
		}
		b.sizes[pool] = t
	}
}

// load is what the pods of a node request.
type load struct {
	cpu, memory int64
	pods        []*corev1.Pod // no DaemonSet pods
	count       int           // all pods
}

// countPods counts the pods of the cluster and sums their requests by node.
func (b *Builder) countPods(o *snapshot.Objects, s *State) map[string]*load {
	on := make(map[string]*load, len(o.Nodes))
	fresh := make(map[types.UID]requests, len(o.Pods))
	for _, p := range o.Pods {
		if finished(p) {
			continue
		}
		if p.Spec.NodeName == "" {
			if p.DeletionTimestamp == nil {
				s.Pods.Pending++
			}
			continue
		}
		s.Pods.Running++
		r, ok := b.requests[p.UID]
		if !ok || r.version != p.ResourceVersion || p.UID == "" {
			r = requestsOf(p)
		}
		fresh[p.UID] = r
		l := on[p.Spec.NodeName]
		if l == nil {
			l = &load{}
			on[p.Spec.NodeName] = l
		}
		l.cpu += r.cpu
		l.memory += r.memory
		l.count++
		if owner := metav1.GetControllerOfNoCopy(p); owner == nil || owner.Kind != "DaemonSet" {
			l.pods = append(l.pods, p)
		}
	}
	b.requests = fresh
	return on
}

func requestsOf(p *corev1.Pod) requests {
	list := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
	return requests{version: p.ResourceVersion, cpu: list.Cpu().MilliValue(), memory: list.Memory().Value()}
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// node describes a machine; one of n and c can be nil.
func (b *Builder) node(o *snapshot.Objects, k Known, n *corev1.Node, c *karpv1.NodeClaim, l *load, st *stays) Node {
	var out Node
	labels := map[string]string{}
	if c != nil {
		labels = c.Labels
		out.Name, out.Claim, out.Created = c.Name, c.Name, c.CreationTimestamp.Time
		out.CPU.Allocatable, out.Memory.Allocatable = c.Status.Allocatable.Cpu().MilliValue(), c.Status.Allocatable.Memory().Value()
		out.Image = c.Status.ImageID
		if d := c.StatusConditions().Get(karpv1.ConditionTypeDrifted); d != nil && d.IsTrue() {
			out.Drift = d.Reason
		}
	}
	if n != nil {
		labels = n.Labels
		out.Name = n.Name
		if c == nil {
			out.Created = n.CreationTimestamp.Time
		}
		out.CPU.Allocatable, out.Memory.Allocatable = n.Status.Allocatable.Cpu().MilliValue(), n.Status.Allocatable.Memory().Value()
	}
	out.Pool, out.Size = labels[karpv1.NodePoolLabelKey], labels[corev1.LabelInstanceTypeStable]
	out.Zone, out.CapacityType = labels[corev1.LabelTopologyZone], labels[karpv1.CapacityTypeLabelKey]
	if out.CapacityType == "" {
		out.CapacityType = karpv1.CapacityTypeOnDemand
		if labels["kubernetes.azure.com/scalesetpriority"] == "spot" {
			out.CapacityType = karpv1.CapacityTypeSpot
		}
	}
	out.USDPerHour, out.Priced = b.price(&out)
	if l != nil {
		out.CPU.Requested, out.Memory.Requested, out.Pods = l.cpu, l.memory, l.count
	}
	out.Phase, out.Since = phase(n, c, out.Created)
	if c != nil {
		bought := k.Bought[c.Name]
		out.Why, out.Decision = bought.Text, bought.Decision
	}
	out.Stays = st.of(o, n, c, l, &out)
	return out
}

// price returns the price of a machine: that of its offering, or of the cheapest with
// the same capacity type if its zone is not known.
func (b *Builder) price(n *Node) (float64, bool) {
	if t, ok := b.sizes[n.Pool]; ok {
		if p, ok := offered(t.byName[n.Size], n); ok {
			return p, true
		}
	}
	for _, t := range b.sizes {
		if p, ok := offered(t.byName[n.Size], n); ok {
			return p, true
		}
	}
	return 0, false
}

func offered(it *cloudprovider.InstanceType, n *Node) (float64, bool) {
	if it == nil {
		return 0, false
	}
	best, found, exact := 0.0, false, false
	for _, of := range it.Offerings {
		if of.CapacityType() != n.CapacityType {
			continue
		}
		same := of.Zone() == n.Zone
		if !found || same && !exact || same == exact && of.Price < best {
			best, found, exact = of.Price, true, same
		}
	}
	return best, found
}

func phase(n *corev1.Node, c *karpv1.NodeClaim, created time.Time) (string, time.Time) {
	switch {
	case c != nil && c.DeletionTimestamp != nil:
		return PhaseDraining, c.DeletionTimestamp.Time
	case n != nil && n.DeletionTimestamp != nil:
		return PhaseDraining, n.DeletionTimestamp.Time
	case c == nil:
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status != corev1.ConditionTrue {
				return PhaseInitializing, cond.LastTransitionTime.Time
			}
		}
		return PhaseReady, created
	}
	at := created
	for _, step := range []struct{ condition, before string }{
		{karpv1.ConditionTypeLaunched, PhaseBought},
		{karpv1.ConditionTypeRegistered, PhaseBooting},
		{karpv1.ConditionTypeInitialized, PhaseInitializing},
	} {
		cond := c.StatusConditions().Get(step.condition)
		if cond == nil || !cond.IsTrue() {
			return step.before, at
		}
		at = cond.LastTransitionTime.Time
	}
	return PhaseReady, at
}

// sum adds the nodes up.
func (b *Builder) sum(s *State) {
	at := map[Group]int{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		s.USDPerHour += n.USDPerHour
		if !n.Priced {
			s.Unpriced++
		}
		s.CPU.Requested += n.CPU.Requested
		s.CPU.Allocatable += n.CPU.Allocatable
		s.Memory.Requested += n.Memory.Requested
		s.Memory.Allocatable += n.Memory.Allocatable
		key := Group{Pool: n.Pool, Size: n.Size, Zone: n.Zone, CapacityType: n.CapacityType}
		j, ok := at[key]
		if !ok {
			j = len(s.Groups)
			at[key] = j
			s.Groups = append(s.Groups, key)
		}
		s.Groups[j].Count++
		s.Groups[j].USDPerHour += n.USDPerHour
	}
	slices.SortStableFunc(s.Groups, func(x, y Group) int {
		return cmp.Or(cmp.Compare(y.USDPerHour, x.USDPerHour), cmp.Compare(x.Size, y.Size), cmp.Compare(x.Zone, y.Zone))
	})
}

// waiting groups the pending pods by verdict.
func (b *Builder) waiting(o *snapshot.Objects, k Known, s *State) {
	type key struct{ outcome, code, reason, node string }
	at := map[key]int{}
	for _, p := range o.Pods {
		if p.Spec.NodeName != "" || p.DeletionTimestamp != nil || finished(p) {
			continue
		}
		name := snapshot.PodKey(p)
		v := k.Verdicts[name]
		if v == nil {
			v = unseen(p, o.Assumed[name])
		}
		switch v.Outcome {
		case string(engine.Refused), "Invalid":
			s.Pods.Refused++
		case string(engine.OnNode), string(engine.OnMachine):
			s.Pods.Assigned++
		}
		id := key{v.Outcome, v.Code, v.Reason, v.Node}
		if v.Outcome == string(engine.OnNode) || v.Outcome == string(engine.OnMachine) {
			id = key{outcome: v.Outcome} // where each goes is in the map
		}
		i, ok := at[id]
		if !ok {
			i = len(s.Waiting)
			at[id] = i
			s.Waiting = append(s.Waiting, Waiting{
				Outcome: v.Outcome, Code: v.Code, Reason: v.Reason, Node: v.Node, Stages: v.Stages, Nearest: v.Nearest, Since: p.CreationTimestamp.Time,
			})
		}
		w := &s.Waiting[i]
		w.Count++
		if len(w.Pods) < maxPodsListed {
			w.Pods = append(w.Pods, name)
		}
		if p.CreationTimestamp.Time.Before(w.Since) {
			w.Since = p.CreationTimestamp.Time
		}
		if w.Node != v.Node {
			w.Node = ""
		}
	}
	for i := range s.Waiting {
		slices.Sort(s.Waiting[i].Pods)
	}
	slices.SortStableFunc(s.Waiting, func(x, y Waiting) int {
		return cmp.Or(cmp.Compare(rank(x.Outcome), rank(y.Outcome)), cmp.Compare(y.Count, x.Count), strings.Compare(x.Reason, y.Reason))
	})
}

// rank orders outcomes: what needs somebody first.
func rank(outcome string) int {
	return slices.Index([]string{string(engine.Refused), "Invalid", string(engine.Deferred), Unseen, string(engine.OnMachine), string(engine.OnNode)}, outcome)
}

// unseen is the verdict on a pod that no known pass has decided on: where it is assumed
// to go, or what the scheduler says.
func unseen(p *corev1.Pod, assumed string) *Verdict {
	if assumed != "" {
		return &Verdict{Outcome: string(engine.OnNode), Node: assumed, Reason: "an earlier pass assigned it to this node"}
	}
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodScheduled || c.Status == corev1.ConditionTrue || c.Message == "" {
			continue
		}
		return &Verdict{Outcome: Unseen, Code: c.Reason, Reason: "the scheduler says: " + c.Message}
	}
	if p.Status.NominatedNodeName != "" {
		return &Verdict{Outcome: string(engine.OnNode), Node: p.Status.NominatedNodeName, Reason: "nominated for this node"}
	}
	return &Verdict{Outcome: Unseen, Reason: "the kube-scheduler has not tried to place it yet"}
}

// PodsOn returns the pods on a node, by what they request, at most limit.
func PodsOn(o *snapshot.Objects, node string, limit int) []Pod {
	out := []Pod{}
	for _, p := range o.Pods {
		if p.Spec.NodeName != node || finished(p) {
			continue
		}
		r := requestsOf(p)
		out = append(out, Pod{Name: snapshot.PodKey(p), Owner: ownerOf(p), CPU: r.cpu, Memory: r.memory, Since: p.CreationTimestamp.Time})
	}
	slices.SortFunc(out, func(x, y Pod) int {
		return cmp.Or(cmp.Compare(y.CPU, x.CPU), cmp.Compare(y.Memory, x.Memory), strings.Compare(x.Name, y.Name))
	})
	return out[:min(limit, len(out))]
}

// ownerOf returns the workload of a pod: "Deployment shop/web".
func ownerOf(p *corev1.Pod) string {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return ""
	}
	kind, name := ref.Kind, ref.Name
	if h := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; h != "" && kind == "ReplicaSet" {
		kind, name = "Deployment", strings.TrimSuffix(name, "-"+h)
	}
	return fmt.Sprintf("%s %s/%s", kind, p.Namespace, name)
}
