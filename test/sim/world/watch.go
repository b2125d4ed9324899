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
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/plan"
	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/sim/apiserver"
	"github.com/nap-aks/nap/test/sim/cloud"
	"github.com/nap-aks/nap/test/sim/report"

	"github.com/nap-aks/nap/apis/v1beta1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watch follows all changes and tells the recorder and the invariants.
type watch struct {
	w                *world
	pending, running int
	machines         int
	evictions, moves int
	// evictedOf counts evictions by the controller of the pods whose replacement has
	// not run yet.
	evictedOf map[string]int
	reported  int
}

func newWatch(w *world) *watch { return &watch{w: w, evictedOf: map[string]int{}} }

// state of a pod that counts.
type podState int

const (
	notCounted podState = iota
	podPending
	podRuns
)

// stateOf returns how a pod counts: pods of DaemonSets, and those that have ended, do
// not.
func stateOf(p *corev1.Pod) podState {
	switch {
	case p == nil || ofNode(p) || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return notCounted
	case p.Spec.NodeName != "" && ready(p):
		return podRuns
	}
	return podPending
}

// changed is called for each committed change.
func (o *watch) changed(e apiserver.Event) {
	t := o.w.since()
	m, err := meta.Accessor(e.Object)
	if err != nil {
		return
	}
	kind := strings.TrimSuffix(e.Resource.Resource, "s")
	name := m.GetName()
	if m.GetNamespace() != "" {
		name = m.GetNamespace() + "/" + name
	}
	write := report.Write{T: t, Client: e.Client, Verb: strings.ToLower(string(e.Type)), Object: kind + " " + name}
	if e.Verb == "evict" || e.Verb == "bind" {
		write.Verb = e.Verb
	}
	switch obj := e.Object.(type) {
	case *corev1.Pod:
		old, _ := e.Old.(*corev1.Pod)
		write.Change = podChange(old, obj)
		o.pod(t, e, old, obj)
	case *corev1.Node:
		old, _ := e.Old.(*corev1.Node)
		write.Change = nodeChange(old, obj)
		if old != nil && !voluntary(old) && voluntary(obj) && e.Type != apiwatch.Deleted {
			o.w.check.disrupted(obj)
		}
		o.sample()
	case *karpv1.NodeClaim:
		write.Change = claimChange(obj)
		o.sample()
	case *corev1.Event:
		o.w.recorder.Event(obj.Reason)
		write.Change = obj.Reason + ": " + obj.Message
	}
	o.w.recorder.Wrote(write)
}

func podChange(old, p *corev1.Pod) string {
	var out []string
	if old == nil || old.Spec.NodeName != p.Spec.NodeName {
		out = append(out, "node="+p.Spec.NodeName)
	}
	if old == nil || old.Status.Phase != p.Status.Phase {
		out = append(out, "phase="+string(p.Status.Phase))
	}
	if old != nil && old.Status.NominatedNodeName != p.Status.NominatedNodeName {
		out = append(out, "nominated="+p.Status.NominatedNodeName)
	}
	if p.DeletionTimestamp != nil && (old == nil || old.DeletionTimestamp == nil) {
		out = append(out, "deleting")
	}
	if old != nil && ready(old) != ready(p) {
		out = append(out, fmt.Sprintf("ready=%t", ready(p)))
	}
	return strings.Join(out, " ")
}

func nodeChange(old, n *corev1.Node) string {
	var out []string
	if old == nil || !slices.EqualFunc(old.Spec.Taints, n.Spec.Taints, func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect }) {
		for _, t := range n.Spec.Taints {
			out = append(out, "taint="+t.Key+":"+string(t.Effect))
		}
	}
	if old == nil || len(old.Labels) != len(n.Labels) {
		out = append(out, "size="+n.Labels[corev1.LabelInstanceTypeStable], fmt.Sprintf("labels=%d", len(n.Labels)))
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out = append(out, "ready="+string(c.Status))
		}
	}
	return strings.Join(out, " ")
}

func claimChange(c *karpv1.NodeClaim) string {
	var out []string
	for _, cond := range c.Status.Conditions {
		if cond.Status == metav1.ConditionTrue {
			out = append(out, cond.Type)
		}
	}
	if c.DeletionTimestamp != nil {
		out = append(out, "deleting")
	}
	return strings.Join(out, " ")
}

// pod follows the life of a pod.
func (o *watch) pod(t time.Duration, e apiserver.Event, old, p *corev1.Pod) {
	before, after := stateOf(old), stateOf(p)
	if e.Type == apiwatch.Deleted {
		after = notCounted
	}
	if ofNode(p) {
		return
	}
	uid := string(p.UID)
	switch e.Type {
	case apiwatch.Added:
		o.w.recorder.PodCreated(uid, t)
	case apiwatch.Deleted:
		o.w.recorder.PodDeleted(uid, t)
	}
	if p.Spec.NodeName != "" && (old == nil || old.Spec.NodeName == "") {
		o.w.recorder.PodScheduled(uid, t)
		if m := o.w.cloud.MachineOf(p.Spec.NodeName); m != nil {
			o.w.recorder.MachineUseful(m.Name)
		}
	}
	if after == podRuns && before != podRuns {
		o.w.recorder.PodRunning(uid, t)
		if owner := ownerOf(p); o.evictedOf[owner] > 0 {
			o.evictedOf[owner]--
			o.moves++
		}
	}
	if old != nil && old.DeletionTimestamp == nil && p.DeletionTimestamp != nil || e.Type == apiwatch.Deleted && old != nil && old.DeletionTimestamp == nil {
		o.ended(t, e, old)
	}
	if before != after {
		o.count(before, -1)
		o.count(after, 1)
		o.sample()
	}
}

func ownerOf(p *corev1.Pod) string {
	if c := metav1.GetControllerOf(p); c != nil {
		return string(c.UID)
	}
	return string(p.UID)
}

// ended is called when a pod begins to be deleted.
func (o *watch) ended(t time.Duration, e apiserver.Event, old *corev1.Pod) {
	if e.Client != napClient || old.Spec.NodeName == "" {
		return
	}
	if e.Verb == "evict" {
		o.evictions++
		o.evictedOf[ownerOf(old)]++
		o.w.recorder.Evicted(t)
	}
	var node *corev1.Node
	if n, ok := o.w.api.Get(nodesResource, "", old.Spec.NodeName); ok {
		node = n.(*corev1.Node)
	}
	var claim *karpv1.NodeClaim
	alive := false
	if m := o.w.cloud.MachineOf(old.Spec.NodeName); m != nil {
		alive = m.Alive() && !m.Broken
		if c, ok := o.w.api.Get(claimResource, "", m.Claim); ok {
			claim = c.(*karpv1.NodeClaim)
		}
	}
	o.w.check.evicted(old, node, claim, alive)
}

func (o *watch) count(s podState, by int) {
	switch s {
	case podPending:
		o.pending += by
	case podRuns:
		o.running += by
	}
}

// machine follows the machines of the cloud.
func (o *watch) machine(e cloud.EventType, m *cloud.Machine) {
	t := o.w.since()
	what := fmt.Sprintf("%s zone=%q %s claim=%s", m.Size, m.Zone, m.CapacityType, m.Claim)
	switch e {
	case cloud.Bought:
		o.machines++
		o.w.recorder.MachineBought(m.Name, m.Size, t)
		o.w.check.machineBought(m.Name)
	case cloud.Gone:
		if !m.Running.IsZero() {
			o.machines--
			o.w.recorder.MachineDeleted(m.Name, t)
			o.w.check.machineGone(vm(m))
		}
	}
	o.w.recorder.Wrote(report.Write{T: t, Client: azureClient, Verb: string(e), Object: "machine " + m.Name, Change: what})
	o.sample()
}

// sample records the present state.
func (o *watch) sample() {
	w := o.w
	if w.cloud == nil || w.recorder == nil {
		return
	}
	_, rate := w.cloud.Cost()
	calls := 0
	for _, n := range w.api.Calls() {
		calls += n
	}
	w.recorder.Sample(report.Sample{
		T: w.since(), USDPerHour: rate, PlanUSDPerHour: w.ideal.PlanUSDPerHour, BoundUSDPerHour: w.ideal.BoundUSDPerHour,
		PodsPending: o.pending, PodsRunning: o.running, PodsRefused: w.ideal.Refused, PodsTotal: o.pending + o.running,
		Machines: o.machines, Nodes: w.api.Count(nodesResource), Claims: w.api.Count(claimResource),
		Evictions: o.evictions, Moves: o.moves, APICalls: calls + w.faults.azureCalls(),
	})
}

// violations hands new violations to the recorder.
func (o *watch) violations() {
	for _, v := range o.w.check.found[o.reported:] {
		if !slices.Contains(o.w.plan.Invariants.Off, v.Invariant) {
			o.w.recorder.Violated(v.Invariant, v.Detail, v.At.Sub(o.w.start))
		}
	}
	o.reported = len(o.w.check.found)
}

// snapshot returns the objects of the cluster that a plan reads.
func (w *world) snapshot() (*plan.Source, error) {
	src := &plan.Source{Objects: &snapshot.Objects{Now: time.Now()}}
	for _, gvr := range snapshotResources {
		w.api.Each(gvr, func(o runtimeObject) bool {
			if nc, ok := o.(*v1beta1.AKSNodeClass); ok {
				src.NodeClasses = append(src.NodeClasses, nc.DeepCopy())
				return true
			}
			obj := o.(client.Object)
			if _, ok := obj.(*corev1.Pod); !ok { // pods are copied where they are changed
				obj = obj.DeepCopyObject().(client.Object)
			}
			src.Objects.Add(obj)
			return true
		})
	}
	return src, nil
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
