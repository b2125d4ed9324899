// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"fmt"
	"slices"
	"sort"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// candidate is a node that could be removed.
type candidate struct {
	node  *corev1.Node
	group *Group
	use   float64       // utilization, 0 to 1
	pods  []*corev1.Pod // that must be moved
	ready bool
}

// scaleDown finds the unneeded nodes, and removes those that have been unneeded long
// enough.
func (s *scaler) scaleDown(l *observation, grown bool) error {
	candidates, err := s.candidates(l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	going := map[string]int{} // by group: nodes that are being drained
	busy := len(s.draining)
	for n := range s.draining {
		if g := l.groupOf[n]; g != nil {
			going[g.Name]++
		}
	}
	s.mu.Unlock()
	free := map[string]int{}
	for _, g := range l.groups {
		free[g.Name] = len(g.Instances) - going[g.Name] - g.Min
	}
	// Each unneeded node is removed from the world before the next is checked, so that
	// no two nodes count on each other for their pods.
	unneeded := map[string]bool{}
	var due []candidate
	w := l.world
	for _, c := range candidates {
		name := c.node.Name
		if free[c.group.Name] <= 0 {
			continue
		}
		without := w.clone()
		without.remove(name)
		fits := true
		for _, p := range c.pods {
			q := p.DeepCopy()
			q.Spec.NodeName = ""
			if n, _ := s.sim.place(without, q, without.names); n == "" {
				fits = false
				break
			}
		}
		if !fits {
			continue
		}
		w = without
		free[c.group.Name]--
		unneeded[name] = true
		since, ok := s.unneeded[name]
		if !ok {
			since = l.now
			s.unneeded[name] = since
		}
		need := l.profile.UnneededTime
		if !c.ready {
			need = l.profile.UnreadyTime
		}
		if l.now.Sub(since) >= need {
			due = append(due, c)
		}
	}
	for name := range s.unneeded {
		if !unneeded[name] {
			delete(s.unneeded, name)
		}
	}
	s.scaleDownStatus = "NoCandidates"
	if len(unneeded) > 0 {
		s.scaleDownStatus = "CandidatesPresent"
	}
	if grown || busy > 0 || l.now.Sub(s.lastUp) < l.profile.DelayAfterAdd || l.now.Sub(s.lastDelete) < l.profile.DelayAfterDelete || l.now.Sub(s.lastFail) < l.profile.DelayAfterFailure {
		return nil
	}
	return s.delete(l, due)
}

// delete removes empty nodes, several at once, or else starts to drain one node.
func (s *scaler) delete(l *observation, due []candidate) error {
	var empty []candidate
	for _, c := range due {
		if len(c.pods) == 0 && len(empty) < l.profile.MaxEmpty {
			empty = append(empty, c)
		}
	}
	if len(empty) > 0 {
		for _, c := range empty {
			if err := s.remove(l, c, "removing empty node"); err != nil {
				return err
			}
		}
		s.lastDelete = l.now
		return nil
	}
	if len(due) == 0 {
		return nil
	}
	c := due[0]
	if err := s.taint(c.node.Name, true); err != nil {
		return err
	}
	for _, p := range c.pods {
		s.podEvent(p, "ScaleDown", "deleting pod for node scale down")
	}
	s.mu.Lock()
	s.draining[c.node.Name] = true
	s.mu.Unlock()
	s.lastDelete = l.now
	// The drain may take minutes, in which pools can still be scaled up.
	go func() {
		defer func() {
			s.mu.Lock()
			delete(s.draining, c.node.Name)
			s.mu.Unlock()
		}()
		err := s.drain(c.node.Name, l.profile.TerminationTime)
		if err == nil {
			err = s.remove(l, c, "node removed by cluster autoscaler")
		}
		if err == nil || s.ctx.Err() != nil {
			return
		}
		s.log.Warn("removing node failed", "node", c.node.Name, "error", err)
		s.event(corev1.ObjectReference{Kind: "Node", Name: c.node.Name, UID: c.node.UID, APIVersion: "v1"}, corev1.EventTypeWarning, "ScaleDownFailed", "failed to drain the node, aborting ScaleDown: "+err.Error())
		if err := s.taint(c.node.Name, false); err != nil {
			s.log.Warn("removing taint failed, node stays tainted until the next start", "node", c.node.Name, "error", err)
		}
		s.mu.Lock()
		s.failed = true
		s.mu.Unlock()
	}()
	return nil
}

// remove taints a node and removes its machine.
func (s *scaler) remove(l *observation, c candidate, text string) error {
	if err := s.taint(c.node.Name, true); err != nil {
		return err
	}
	if err := s.cloud.Shrink(s.ctx, c.group.Name, []string{l.instance[c.node.Name].Name}, false); err != nil {
		// For example, an operation on the pool is running: the next scan decides again.
		if uerr := s.taint(c.node.Name, false); uerr != nil {
			s.log.Warn("removing taint failed, node stays tainted until the next start", "node", c.node.Name, "error", uerr)
		}
		return fmt.Errorf("removing node %s: %w", c.node.Name, err)
	}
	s.log.Info("removing node", "pool", c.group.Name, "node", c.node.Name, "utilization", c.use)
	s.event(corev1.ObjectReference{Kind: "Node", Name: c.node.Name, UID: c.node.UID, APIVersion: "v1"}, corev1.EventTypeNormal, "ScaleDown", text)
	return nil
}

// candidates returns the nodes that may be removed if their pods fit elsewhere, empty
// and least utilized ones first.
func (s *scaler) candidates(l *observation) ([]candidate, error) {
	s.mu.Lock()
	if s.failed {
		s.failed, s.lastFail = false, l.now
	}
	draining := map[string]bool{}
	for n := range s.draining {
		draining[n] = true
	}
	s.mu.Unlock()
	budgets, err := s.factory.Policy().V1().PodDisruptionBudgets().Lister().List(labels.Everything())
	if err != nil {
		return nil, err
	}
	var out []candidate
	for name, n := range l.nodes {
		g := l.groupOf[name]
		if g == nil || g.Busy || n.DeletionTimestamp != nil || n.Spec.Unschedulable || draining[name] || hasTaint(n, toBeDeletedTaint) || n.Annotations[noScaleDown] == "true" {
			continue
		}
		c := candidate{node: n, group: g, ready: ready(n)}
		if !c.ready && l.now.Sub(l.instance[name].Since) < l.profile.ProvisionTime {
			continue // it is still starting
		}
		ok := true
		var cpuUsed, memUsed int64
		for _, p := range l.pods[name] {
			ds := ownedBy(p, "DaemonSet")
			if !ds || !l.profile.IgnoreDaemonSets {
				for _, k := range p.Spec.Containers {
					cpuUsed += k.Resources.Requests.Cpu().MilliValue()
					memUsed += k.Resources.Requests.Memory().Value()
				}
			}
			if ds || ownedBy(p, "Node") || p.DeletionTimestamp != nil {
				continue
			}
			ok = ok && l.profile.movable(p, budgets)
			c.pods = append(c.pods, p)
		}
		c.use = max(fraction(cpuUsed, n.Status.Allocatable.Cpu().MilliValue()), fraction(memUsed, n.Status.Allocatable.Memory().Value()))
		if !ok || c.ready && c.use >= l.profile.Threshold {
			continue
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if (len(a.pods) == 0) != (len(b.pods) == 0) {
			return len(a.pods) == 0
		}
		if a.use != b.use {
			return a.use < b.use
		}
		return a.node.Name < b.node.Name
	})
	return out, nil
}

func ownedBy(p *corev1.Pod, kind string) bool {
	o := metav1.GetControllerOf(p)
	return o != nil && o.Kind == kind
}

// movable reports whether a pod may be evicted for the removal of its node.
func (f Profile) movable(p *corev1.Pod, budgets []*policyv1.PodDisruptionBudget) bool {
	switch p.Annotations[safeToEvict] {
	case "true":
		return true
	case "false":
		return false
	}
	if metav1.GetControllerOf(p) == nil {
		return false // no controller would replace it
	}
	covered := false
	for _, b := range budgets {
		if b.Namespace != p.Namespace {
			continue
		}
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !sel.Matches(labels.Set(p.Labels)) {
			continue
		}
		covered = true
		if b.Status.DisruptionsAllowed < 1 {
			return false
		}
	}
	if f.SkipSystemPods && p.Namespace == metav1.NamespaceSystem && !covered {
		return false
	}
	local := func(v corev1.Volume) bool {
		return v.HostPath != nil || v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory
	}
	return !f.SkipLocalStorage || !slices.ContainsFunc(p.Spec.Volumes, local)
}
