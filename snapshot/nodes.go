// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/scheduling"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"

	"github.com/nap-aks/nap/engine"
)

// machine is a node and its NodeClaim, joined by provider ID.
type machine struct {
	key   string
	node  *corev1.Node
	claim *karpv1.NodeClaim

	stale bool        // out has to be built again
	stamp int         // incremented when out is built again
	out   engine.Node // the translation
	usage engine.Resources
	// terminating is whether the machine is being deleted.
	terminating bool
	withdrawn   bool   // see Withdraw
	notReady    string // why no pod is planned here, see unready
}

// machineKey returns the provider ID, or a key made from kind and name for an object
// without one.
func machineKey(providerID, kind, name string) string {
	if providerID != "" {
		return providerID
	}
	return kind + "/" + name
}

// machine returns the machine of a key, created if it does not exist, and marks it as
// stale.
func (c *Cache) machine(key string) *machine {
	m, ok := c.machines[key]
	if !ok {
		m = &machine{key: key}
		c.machines[key] = m
		c.sorted = nil
	}
	m.stale, c.refsStale = true, true
	return m
}

func (c *Cache) upsertNode(n *corev1.Node) {
	key := machineKey(n.Spec.ProviderID, "node", n.Name)
	if m, ok := c.byNode[n.Name]; ok && m.key != key {
		c.removeNode(n.Name)
	}
	m := c.machine(key)
	if m.node == nil || m.node.Name != n.Name {
		c.sorted = nil // the name changes
	}
	m.node = n
	c.byNode[n.Name] = m
}

func (c *Cache) upsertClaim(nc *karpv1.NodeClaim) {
	key := machineKey(nc.Status.ProviderID, "claim", nc.Name)
	if m, ok := c.byClaim[nc.Name]; ok && m.key != key {
		c.removeClaim(nc.Name)
	}
	m := c.machine(key)
	if m.claim == nil || m.claim.Name != nc.Name {
		c.sorted = nil
	}
	m.claim = nc
	c.byClaim[nc.Name] = m
}

func (c *Cache) removeNode(name string) {
	m, ok := c.byNode[name]
	if !ok {
		return
	}
	delete(c.byNode, name)
	c.sorted = nil
	m.node, m.stale = nil, true
	if m.claim == nil {
		delete(c.machines, m.key)
	}
}

func (c *Cache) removeClaim(name string) {
	m, ok := c.byClaim[name]
	if !ok {
		return
	}
	delete(c.byClaim, name)
	c.sorted = nil
	m.claim, m.stale = nil, true
	if m.node == nil {
		delete(c.machines, m.key)
	}
}

// state returns Karpenter's view of the machine, with a copy of the NodeClaim:
// Karpenter adds missing conditions to a claim when it reads them.
func (m *machine) state() *state.StateNode {
	s := &state.StateNode{Node: m.node}
	if m.claim != nil {
		claim := *m.claim
		s.NodeClaim = &claim
	}
	return s
}

// deleting reports whether the machine is being deleted, by Karpenter's definition.
func (m *machine) deleting(marked map[string]bool) bool {
	if marked[m.key] {
		return true
	}
	if m.claim == nil {
		return !m.node.DeletionTimestamp.IsZero()
	}
	return !m.claim.DeletionTimestamp.IsZero() || m.claim.StatusConditions(status.WithObservedOnly()).IsTrue(karpv1.ConditionTypeInstanceTerminating)
}

func (m *machine) name() string {
	if m.node != nil {
		return m.node.Name
	}
	return m.claim.Name
}

// addNodes adds the nodes to the snapshot and translates those that changed.
func (c *Cache) addNodes(ctx context.Context, in *Input, moving map[string]*podRecord) {
	if c.sorted == nil {
		c.sorted = make([]*machine, 0, len(c.machines))
		for _, m := range c.machines {
			c.sorted = append(c.sorted, m)
		}
		slices.SortFunc(c.sorted, func(a, b *machine) int { return strings.Compare(a.name(), b.name()) })
		c.refsStale = true
		c.usage = nil
	}
	if c.refsStale {
		c.refsStale = false
		c.refs = make(map[string]NodeRef, len(c.sorted)) // inputs have the one before
		for _, m := range c.sorted {
			c.refs[m.name()] = NodeRef{Node: m.node, Claim: m.claim}
		}
	}
	in.Nodes = c.refs
	assumed := c.assumedByMachine()
	in.Snapshot.Nodes = make([]engine.Node, len(c.sorted))
	in.stamps = make([]int, len(c.sorted))
	for i, m := range c.sorted {
		if why := m.unready(in.Snapshot.Time); why != m.notReady {
			m.notReady, m.stale = why, true
		}
		if m.stale || c.nodesStale || m.terminating {
			c.translateNode(ctx, m, assumed[m], moving)
			m.stale = false
			m.stamp++
			c.usage = nil
		}
		in.Snapshot.Nodes[i] = m.out
		in.stamps[i] = m.stamp
	}
	c.nodesStale = false
	if c.usage == nil {
		c.usage = map[string]engine.Resources{}
		for _, m := range c.sorted {
			if m.out.NodePool == "" || m.terminating || m.withdrawn {
				continue
			}
			u, ok := c.usage[m.out.NodePool]
			if !ok {
				u = engine.Resources{}
				c.usage[m.out.NodePool] = u
			}
			for k, v := range m.usage {
				u[k] += v
			}
		}
	}
	for i := range in.Snapshot.Pools {
		p := &in.Snapshot.Pools[i]
		p.Usage = c.usage[p.Name]
	}
}

// assumedByMachine returns the assumed pods of each machine, sorted by key. Pods count
// that no scheduler has tried yet; one that its scheduler has nominated to a node since
// goes there instead.
func (c *Cache) assumedByMachine() map[*machine][]*podRecord {
	out := map[*machine][]*podRecord{}
	for _, k := range slices.Sorted(maps.Keys(c.assumed.pods)) {
		r, ok := c.pending[k]
		m := c.find(c.assumed.pods[k].on)
		if ok && m != nil && (r.provisionable || r.untried) {
			out[m] = append(out[m], r)
		}
	}
	return out
}

func (c *Cache) translateNode(ctx context.Context, m *machine, assumed []*podRecord, moving map[string]*podRecord) {
	s := m.state()
	labels := s.Labels()
	n := engine.Node{Name: m.name(), NodePool: labels[karpv1.NodePoolLabelKey], InstanceType: labels[corev1.LabelInstanceTypeStable], Initialized: s.Initialized()}
	n.Labels = normalizedLabels(labels)
	if m.claim == nil { // not provisioned, even with the label of a NodePool
		n.NodePool = ""
	}
	for _, t := range s.Taints() {
		n.Taints = append(n.Taints, engine.Taint{Key: t.Key, Value: t.Value, Effect: engine.Effect(t.Effect)})
	}
	if m.node != nil && m.node.Spec.Unschedulable && !slices.ContainsFunc(n.Taints, func(t engine.Taint) bool { return t.Key == corev1.TaintNodeUnschedulable }) {
		n.Taints = append(n.Taints, engine.Taint{Key: corev1.TaintNodeUnschedulable, Effect: engine.NoSchedule})
	}
	n.Allocatable = amounts(s.Allocatable(), false)
	m.usage = amounts(s.Capacity(), false)
	m.usage[engine.ResourceNodes] = 1
	n.Closed = m.notReady
	if m.terminating {
		n.Closed = "it is being deleted"
	}
	n.Gone = m.withdrawn
	it := c.instanceType(n.NodePool, n.InstanceType)
	switch {
	case it != nil:
		// A launch writes the labels of a claim before its status, with the capacity.
		if m.node == nil && len(m.claim.Status.Capacity) == 0 {
			n.Allocatable, m.usage = amounts(it.Allocatable(), false), amounts(it.Capacity, false)
			m.usage[engine.ResourceNodes] = 1
		}
		if p, ok := it.OfferingPrice(labels[corev1.LabelTopologyZone], labels[karpv1.CapacityTypeLabelKey]); ok {
			n.PriceUSDPerHour = p
		}
	case m.node == nil && m.claim.Status.ProviderID == "":
		c.undecided(m, &n)
	}
	n.VolumeLimits = c.volumeLimits(ctx, m, it)
	c.podsOn(m, &n, assumed, moving)
	m.out = n
}

func normalizedLabels(labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels))
	maps.Copy(out, labels)
	for from, to := range karpv1.NormalizedLabels { // the older name counts if the newer is missing
		if v, ok := labels[from]; ok {
			if _, have := labels[to]; !have {
				_, values := normalize(to, []string{v})
				out[to] = values[0]
			}
		}
	}
	return out
}

func (c *Cache) instanceType(pool, name string) *cloudprovider.InstanceType {
	for _, it := range c.types[pool] {
		if it.Name == name {
			return it
		}
	}
	return nil
}

// undecided describes a NodeClaim whose instance type has not been chosen yet. All
// types that its requirements allow hold its pods. So the least of each resource is
// what the claim certainly offers, and the most is what it may use of the limits.
func (c *Cache) undecided(m *machine, n *engine.Node) {
	reqs := scheduling.NewNodeSelectorRequirementsWithMinValues(m.claim.Spec.Requirements...)
	reqs.Add(scheduling.NewLabelRequirements(m.claim.Labels).Values()...)
	var least, most engine.Resources
	values := map[string]map[string]bool{}
	offer := func(key, value string) {
		if values[key] == nil {
			values[key] = map[string]bool{}
		}
		values[key][value] = true
	}
	for _, it := range c.types[n.NodePool] {
		if it.Requirements.Intersects(reqs) != nil {
			continue
		}
		any := false
		// A type that is out of stock now may not be so when the claim is launched.
		for _, o := range it.Offerings {
			if reqs.IsCompatible(o.Requirements, scheduling.AllowUndefinedWellKnownLabels) {
				any = true
				offer(engine.LabelZone, o.Zone())
				offer(engine.LabelCapacityType, o.CapacityType())
				if n.PriceUSDPerHour == 0 || o.Price < n.PriceUSDPerHour {
					n.PriceUSDPerHour = o.Price
				}
			}
		}
		if !any {
			continue
		}
		for _, r := range it.Requirements {
			if r.Operator() == corev1.NodeSelectorOpIn {
				for _, v := range r.Values() {
					if reqs.Get(r.Key).Has(v) && r.Key != engine.LabelZone && r.Key != engine.LabelCapacityType {
						offer(r.Key, v)
					}
				}
			}
		}
		alloc, capacity := amounts(it.Allocatable(), false), amounts(it.Capacity, false)
		if least == nil {
			least, most = alloc, capacity
			continue
		}
		for k := range least {
			least[k] = min(least[k], alloc[k])
		}
		for k, v := range capacity {
			most[k] = max(most[k], v)
		}
	}
	if least == nil { // no type is compatible any more: assume what the claim requests
		least = amounts(m.claim.Spec.Resources.Requests, false)
		most = maps.Clone(least)
	}
	n.Allocatable, m.usage = least, most
	m.usage[engine.ResourceNodes] = 1
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if _, decided := n.Labels[k]; decided {
			continue
		}
		list := slices.Sorted(maps.Keys(values[k]))
		if len(list) == 1 {
			n.Labels[k] = list[0]
			continue
		}
		n.Undecided = append(n.Undecided, engine.Requirement{Key: k, Operator: engine.In, Values: list})
	}
}

// volumeLimits returns the limits that the drivers on the node report, and for drivers
// that have not reported yet those of the instance type.
func (c *Cache) volumeLimits(ctx context.Context, m *machine, it *cloudprovider.InstanceType) map[string]int {
	out := map[string]int{}
	if it != nil {
		maps.Copy(out, it.VolumeAttachmentLimits)
	}
	if m.node != nil {
		var cn storagev1.CSINode
		if err := c.client.Get(ctx, client.ObjectKey{Name: m.node.Name}, &cn); err == nil {
			for _, d := range cn.Spec.Drivers {
				delete(out, d.Name) // the driver overrides the instance type
				if d.Allocatable != nil && d.Allocatable.Count != nil {
					out[d.Name] = int(*d.Allocatable.Count)
				}
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// podsOn sets the pods that count on the node, and the DaemonSets that have no pod
// there yet.
func (c *Cache) podsOn(m *machine, n *engine.Node, assumed []*podRecord, moving map[string]*podRecord) {
	var here []*podRecord
	present := map[types.UID]bool{}
	var terminating []engine.PodGroup
	if m.node != nil {
		for _, k := range slices.Sorted(maps.Keys(c.onNode[m.node.Name])) {
			r := c.onNode[m.node.Name][k]
			if podutils.IsTerminal(r.pod) {
				continue
			}
			if o := metav1.GetControllerOfNoCopy(r.pod); o != nil && o.Kind == "DaemonSet" {
				present[o.UID] = true
			}
			switch {
			case moving[k] != nil: // to be placed elsewhere
			case podutils.IsTerminating(r.pod):
				// It still uses its resources and, as in the kube-scheduler, counts for
				// affinity and anti-affinity, but no longer for topology spread.
				terminating = append(terminating, engine.PodGroup{Class: c.terminatingClass(r), Pods: []string{k}})
			default:
				here = append(here, r)
			}
		}
	}
	n.Pods = append(c.groups(append(here, assumed...)), terminating...)
	n.MissingDaemons = nil
	for _, d := range c.daemonSets {
		if !present[d.uid] {
			n.MissingDaemons = append(n.MissingDaemons, d.class)
		}
	}
}

// terminatingClass returns the class of a pod that is terminating.
func (c *Cache) terminatingClass(r *podRecord) engine.ClassID {
	return c.shapes.class(r.shape, r.pod.Labels, fmt.Sprintf("%s (terminating)", ownerName(r.pod)), true)
}
