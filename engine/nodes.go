// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

type node struct {
	n      Node
	slot   int32
	free   []int64
	podIdx map[ClassID]int   // into n.Pods
	shared map[string]int    // pods by shared volume
	open   map[int32][]int32 // values that undecided labels can take
	// anyOutcome makes requirements hold that hold for some values of open, see mayRun.
	anyOutcome bool
	taints     []Taint // see effectiveTaints
	ports      []HostPort
	// daemonPorts are the host ports of daemon pods that are still to come.
	daemonPorts []HostPort
	// coming are the classes of these pods.
	coming []ClassID
}

// SetNode adds a node, or replaces the one with its name, pods included.
func (c *Cluster) SetNode(n Node) error { return c.setNode(n, true) }

// setNode is SetNode; with order set it also keeps c.order sorted.
func (c *Cluster) setNode(n Node, order bool) error {
	for _, g := range n.Pods {
		if err := c.checkClass(g.Class); err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
	}
	for _, d := range n.MissingDaemons {
		if err := c.checkClass(d); err != nil {
			return fmt.Errorf("node %q, missing daemons: %w", n.Name, err)
		}
	}
	open := map[int32][]int32{}
	for _, r := range n.Undecided {
		q, err := c.sym.compileReq(r)
		if err != nil || q.op != In || len(q.values) == 0 {
			return fmt.Errorf("node %q: undecided label %s must be In with values", n.Name, r.Key)
		}
		open[q.key] = q.values
	}
	c.RemoveNode(n.Name)
	slot := int32(len(c.nodes))
	if k := len(c.freeSlots); k > 0 {
		slot = c.freeSlots[k-1]
		c.freeSlots = c.freeSlots[:k-1]
	} else {
		c.nodes = append(c.nodes, nil)
	}
	pods := n.Pods
	n.Pods = nil
	nd := &node{n: n, slot: slot, podIdx: map[ClassID]int{}, open: open}
	c.nodes[slot] = nd
	c.nodeIndex[n.Name] = slot
	for k := range n.Labels {
		c.sym.key(k)
	}
	for len(c.nodeVals) < len(c.sym.tab) {
		c.nodeVals = append(c.nodeVals, nil)
	}
	for k := range c.nodeVals {
		for int32(len(c.nodeVals[k])) <= slot {
			c.nodeVals[k] = append(c.nodeVals[k], valAbsent)
		}
		c.nodeVals[k][slot] = valAbsent
	}
	for k, v := range n.Labels {
		id := c.sym.keys[k]
		c.nodeVals[id][slot] = c.sym.value(id, v)
	}
	for k, vs := range open {
		if len(vs) == 1 {
			c.nodeVals[k][slot] = vs[0]
			delete(open, k)
		} else {
			c.nodeVals[k][slot] = valOther
		}
	}
	if c.nodeVals[c.hostKey][slot] == valAbsent {
		c.nodeVals[c.hostKey][slot] = c.sym.value(c.hostKey, n.Name)
	}
	nd.taints = effectiveTaints(&nd.n)
	nd.free = c.dims.capacityVec(n.Allocatable, n.VolumeLimits)
	sub(nd.free, c.dims.vec(n.Reserved))
	c.changed.add(slot, len(c.nodes))
	for _, d := range n.MissingDaemons {
		dc := c.classes[d]
		if !c.mayRun(dc, nd) {
			continue
		}
		// It gets its room in any case; that it will be there, for affinity, only counts
		// if no undecided label keeps it away.
		sub(nd.free, dc.vec)
		nd.daemonPorts = append(nd.daemonPorts, dc.pc.HostPorts...)
		if c.staticFit(dc, nd, false) == nil {
			nd.coming = append(nd.coming, d)
			if dc.coming == nil {
				dc.coming = map[int32]bool{}
			}
			dc.coming[slot] = true
		}
	}
	if len(nd.daemonPorts) > 0 {
		nd.ports = slices.Clone(nd.daemonPorts)
	}
	for _, g := range pods {
		if err := c.AddPods(n.Name, g.Class, g.Pods...); err != nil {
			return err
		}
	}
	if order {
		at := sort.Search(len(c.order), func(i int) bool { return !c.nodeLess(c.order[i], slot) })
		c.order = slices.Insert(c.order, at, slot)
	}
	return nil
}

// effectiveTaints returns the taints that repel new pods for good. Startup taints
// and those of a node that is not ready yet are not among them.
func effectiveTaints(n *Node) []Taint {
	if n.Initialized {
		return n.Taints
	}
	var out []Taint
	for _, t := range n.Taints {
		if strings.HasPrefix(t.Key, "node.kubernetes.io/") && t.Key != "node.kubernetes.io/unschedulable" ||
			t.Key == "node.cloudprovider.kubernetes.io/uninitialized" || t.Key == "karpenter.sh/unregistered" {
			continue
		}
		if slices.ContainsFunc(n.StartupTaints, func(s Taint) bool { return s.Key == t.Key && s.Effect == t.Effect && s.Value == t.Value }) {
			continue
		}
		out = append(out, t)
	}
	return out
}

func (c *Cluster) nodeLess(a, b int32) bool {
	x, y := c.nodes[a], c.nodes[b]
	if x.n.Initialized != y.n.Initialized {
		return x.n.Initialized
	}
	return x.n.Name < y.n.Name
}

func (c *Cluster) sortNodes() {
	c.order = c.order[:0]
	for i, n := range c.nodes {
		if n != nil {
			c.order = append(c.order, int32(i))
		}
	}
	sort.Slice(c.order, func(i, j int) bool { return c.nodeLess(c.order[i], c.order[j]) })
}

// RemoveNode removes a node and its pods. It ignores an unknown name.
func (c *Cluster) RemoveNode(name string) {
	slot, ok := c.nodeIndex[name]
	if !ok {
		return
	}
	for _, g := range c.nodes[slot].n.Pods {
		cl := c.classes[g.Class]
		cl.total -= len(g.Pods)
		delete(cl.on, slot)
	}
	for _, d := range c.nodes[slot].coming {
		delete(c.classes[d].coming, slot)
	}
	delete(c.nodeIndex, name)
	if i := slices.Index(c.order, slot); i >= 0 {
		c.order = slices.Delete(c.order, i, i+1)
	}
	c.nodes[slot] = nil
	for k := range c.nodeVals {
		if int(slot) < len(c.nodeVals[k]) {
			c.nodeVals[k][slot] = valAbsent
		}
	}
	c.freeSlots = append(c.freeSlots, slot)
	c.changed.add(slot, len(c.nodes))
}

// AddPods records that pods of a class are on a node. It returns an error if the
// node or the class does not exist.
func (c *Cluster) AddPods(nodeName string, id ClassID, pods ...string) error {
	slot, ok := c.nodeIndex[nodeName]
	if !ok {
		return fmt.Errorf("pods %v: node %q does not exist", pods, nodeName)
	}
	if err := c.checkClass(id); err != nil {
		return fmt.Errorf("pods %v on node %q: %w", pods, nodeName, err)
	}
	if len(pods) == 0 {
		return nil
	}
	nd, cl := c.nodes[slot], c.classes[id]
	i, ok := nd.podIdx[id]
	if !ok {
		i = len(nd.n.Pods)
		nd.podIdx[id] = i
		nd.n.Pods = append(nd.n.Pods, PodGroup{Class: id})
	}
	// The slice may belong to the snapshot: never grow it in place.
	nd.n.Pods[i].Pods = append(slices.Clip(nd.n.Pods[i].Pods), pods...)
	n := int32(len(pods))
	if cl.on == nil {
		cl.on = map[int32]int32{}
	}
	cl.on[slot] += n
	cl.total += len(pods)
	c.occupy(nd, cl, int64(n))
	return nil
}

// RemovePods records that pods have left a node. It returns an error if one of
// them was not there; it removes the others nevertheless.
func (c *Cluster) RemovePods(nodeName string, id ClassID, pods ...string) error {
	slot, ok := c.nodeIndex[nodeName]
	if !ok {
		return fmt.Errorf("pods %v: node %q does not exist", pods, nodeName)
	}
	nd := c.nodes[slot]
	i, ok := nd.podIdx[id]
	if !ok {
		return fmt.Errorf("node %q has no pods of class %d", nodeName, id)
	}
	cl := c.classes[id]
	var err error
	left := slices.Clone(nd.n.Pods[i].Pods)
	for _, p := range pods {
		at := slices.Index(left, p)
		if at < 0 {
			err = fmt.Errorf("node %q has no pod %q of class %d", nodeName, p, id)
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	gone := int64(len(nd.n.Pods[i].Pods) - len(left))
	nd.n.Pods[i].Pods = left
	cl.on[slot] -= int32(gone)
	cl.total -= int(gone)
	if len(left) == 0 {
		delete(cl.on, slot)
		delete(nd.podIdx, id)
		last := len(nd.n.Pods) - 1
		if i != last {
			nd.n.Pods[i] = nd.n.Pods[last]
			nd.podIdx[nd.n.Pods[i].Class] = i
		}
		nd.n.Pods = nd.n.Pods[:last]
	}
	c.occupy(nd, cl, -gone)
	return err
}

// occupy subtracts the requests of n pods from what is free on a node, or adds
// them if n is negative.
func (c *Cluster) occupy(nd *node, cl *class, n int64) {
	nd.free = c.dims.pad(nd.free)
	for d, r := range cl.vec {
		nd.free[d] -= r * n
	}
	for _, v := range cl.pc.SharedVolumes {
		if nd.shared == nil {
			nd.shared = map[string]int{}
		}
		k := v.Driver + "\x00" + v.ID
		before := nd.shared[k]
		nd.shared[k] = before + int(n)
		d := c.dims.id(attachPrefix + v.Driver)
		nd.free = c.dims.pad(nd.free)
		if before == 0 && n > 0 {
			nd.free[d]--
		} else if before > 0 && nd.shared[k] <= 0 {
			delete(nd.shared, k)
			nd.free[d]++
		}
	}
	if len(cl.pc.HostPorts) > 0 {
		nd.ports = append(nd.ports[:0:0], nd.daemonPorts...)
		for _, g := range nd.n.Pods {
			nd.ports = append(nd.ports, c.classes[g.Class].pc.HostPorts...)
		}
	}
}

// nodeVal returns the value of a label on a node.
func (c *Cluster) nodeVal(key, slot int32) int32 {
	if int(key) >= len(c.nodeVals) || int(slot) >= len(c.nodeVals[key]) {
		return valAbsent
	}
	return c.nodeVals[key][slot]
}

// nodeHolds reports whether a requirement holds on a node, whatever value an
// undecided label takes.
func (c *Cluster) nodeHolds(r *creq, nd *node) bool {
	if vs, ok := nd.open[r.key]; ok {
		if nd.anyOutcome {
			return slices.ContainsFunc(vs, func(v int32) bool { return c.sym.holds(r, v) })
		}
		for _, v := range vs {
			if !c.sym.holds(r, v) {
				return false
			}
		}
		return true
	}
	return c.sym.holds(r, c.nodeVal(r.key, nd.slot))
}

// firstMissed returns the first requirement that does not hold on a node, or nil.
func (c *Cluster) firstMissed(rs []creq, nd *node) *creq {
	for i := range rs {
		if !c.nodeHolds(&rs[i], nd) {
			return &rs[i]
		}
	}
	return nil
}

// mayRun reports whether a DaemonSet may have a pod on a node, for some values of its
// undecided labels.
func (c *Cluster) mayRun(cl *class, nd *node) bool {
	probe := *nd
	probe.anyOutcome = true
	return c.staticFit(cl, &probe, false) == nil
}

// nodeMiss is the reason why a class cannot be on a node as it is.
type nodeMiss struct {
	reason Reason
	detail string
}

// labelsFit checks node selector and required node affinity. nil means they hold.
func (c *Cluster) labelsFit(cl *class, nd *node) *nodeMiss {
	if r := c.firstMissed(cl.sel, nd); r != nil {
		return &nodeMiss{ReasonRequirement, "nodeSelector " + c.reqText(r)}
	}
	if len(cl.aff) > 0 {
		ok := false
		for _, t := range cl.aff {
			if len(t) > 0 && c.firstMissed(t, nd) == nil {
				ok = true
				break
			}
		}
		if !ok {
			return &nodeMiss{ReasonRequirement, "node affinity"}
		}
	}
	return nil
}

// staticFit checks what does not change while pods are placed: taints, labels and
// volume topology. nil means that the class fits.
func (c *Cluster) staticFit(cl *class, nd *node, strict bool) *nodeMiss {
	if t, bad := firstUntolerated(cl.pc.Tolerations, nd.taints, strict); bad {
		return &nodeMiss{ReasonTaints, "taint " + taintText(t)}
	}
	if m := c.labelsFit(cl, nd); m != nil {
		return m
	}
	for _, terms := range cl.vols {
		ok := false
		for _, t := range terms {
			if c.firstMissed(t, nd) == nil {
				ok = true
				break
			}
		}
		if !ok {
			return &nodeMiss{ReasonVolume, "a volume of the pod cannot be here"}
		}
	}
	return nil
}

// changeLog is the slots whose node changed, in order. It forgets the older half when
// it has become longer than the cluster by far: who is that far behind looks at all
// nodes again.
type changeLog struct {
	slots []int32
	first int // position of slots[0]
}

// changeLogMin is the least length at which the log forgets.
const changeLogMin = 1024

func (l *changeLog) add(slot int32, nodes int) {
	if len(l.slots) >= max(2*nodes, changeLogMin) {
		n := len(l.slots) / 2
		l.slots = append(l.slots[:0], l.slots[n:]...)
		l.first += n
	}
	l.slots = append(l.slots, slot)
}

// end returns the position after the last change.
func (l *changeLog) end() int { return l.first + len(l.slots) }

// since returns the changes from a position on, false if it has forgotten some.
func (l *changeLog) since(pos int) ([]int32, bool) {
	if pos < l.first {
		return nil, false
	}
	return l.slots[pos-l.first:], true
}

// nodeRow caches the nodes that a class can be on by labels, taints and volume
// topology. Cluster.changed says what to update.
type nodeRow struct {
	row   bitset
	valid bool
	pos   int
}

// staticNodes returns the nodes that pass staticFit and take pods.
func (c *Cluster) staticNodes(cl *class, strict bool) bitset {
	i := 0
	if strict {
		i = 1
	}
	r := &cl.nodeRows[i]
	eval := func(slot int32) {
		nd := c.nodes[slot]
		if nd != nil && nd.n.Closed == "" && !nd.n.Gone && c.staticFit(cl, nd, strict) == nil {
			r.row.set(slot)
		} else {
			r.row.clear(slot)
		}
	}
	r.row = r.row.grow(len(c.nodes))
	if since, ok := c.changed.since(r.pos); !r.valid || !ok || len(since) > len(c.nodes) {
		for s := range c.nodes {
			eval(int32(s))
		}
		r.valid = true
	} else {
		for _, s := range since {
			eval(s)
		}
	}
	r.pos = c.changed.end()
	return r.row
}
