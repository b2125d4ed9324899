// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/node/topology"
	"k8s.io/kubernetes/pkg/controller"
	nodeutil "k8s.io/kubernetes/pkg/controller/util/node"
)

// NodeOptions are the options of tainting nodes by their conditions.
type NodeOptions struct {
	// Monitor is the period in which the conditions of all nodes are looked at.
	// Taints that evict pods are set and removed at its ends.
	Monitor time.Duration
	// Rate is how many unhealthy nodes a second and zone get the taint that evicts
	// their pods.
	Rate float64
	// ReducedRate is the rate in a zone in which Unhealthy of the nodes or more are
	// not ready. In zones of LargeZone nodes or fewer it is 0.
	ReducedRate float64
	Unhealthy   float64
	LargeZone   int
}

// DefaultNodeOptions returns the defaults of kube-controller-manager.
func DefaultNodeOptions() NodeOptions {
	return NodeOptions{Monitor: 5 * time.Second, Rate: 0.1, ReducedRate: 0.01, Unhealthy: 0.55, LargeZone: 50}
}

// nodeTaints turns the conditions of nodes into taints, as the node lifecycle
// controller does. The real one expects a heartbeat of each node every few seconds,
// which would be most of a simulation's work; here whoever simulates kubelets also
// sets Ready to Unknown when one falls silent.
type nodeTaints struct {
	client kubernetes.Interface
	o      NodeOptions
	nodes  cache.SharedIndexInformer
	pods   cache.SharedIndexInformer
	queue  *keyQueue
	start  time.Time

	mu    sync.Mutex
	last  map[string]time.Time // by zone: when a node was last tainted to evict its pods
	judge map[string]judgement // by node
}

// judgement is what was seen of a node's Ready condition, and when it is acted on.
type judgement struct {
	status corev1.ConditionStatus
	due    time.Time
	marked bool // its pods were marked as not ready
}

// conditionTaints are the taints that keep pods away from nodes in a condition.
var conditionTaints = []struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	key       string
}{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
}

// nodeTaints returns the loop of the controller of nodes' taints.
func (c *controllers) nodeTaints(client kubernetes.Interface) (func(context.Context), error) {
	if c.o.Nodes.Monitor <= 0 {
		return nil, errors.New("the period of looking at nodes must be positive")
	}
	n := &nodeTaints{
		client: client, o: c.o.Nodes, nodes: c.factory.Core().V1().Nodes().Informer(), pods: c.factory.Core().V1().Pods().Informer(),
		start: time.Now(), last: map[string]time.Time{}, judge: map[string]judgement{},
	}
	n.queue = newKeyQueue(n.syncNode)
	if _, err := n.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { n.queue.add(objectKey(obj)) },
		UpdateFunc: func(old, obj any) {
			if tainting(old.(*corev1.Node)) != tainting(obj.(*corev1.Node)) || !slices.EqualFunc(old.(*corev1.Node).Spec.Taints, obj.(*corev1.Node).Spec.Taints, sameTaint) {
				n.queue.add(objectKey(obj))
			}
		},
		DeleteFunc: func(obj any) { n.queue.add(objectKey(obj)) },
	}); err != nil {
		return nil, err
	}
	return func(ctx context.Context) { n.queue.run(ctx, 8, n.nodes.HasSynced, n.pods.HasSynced) }, nil
}

func sameTaint(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect }

// tainting returns what of a node decides about its taints, as a bit set.
func tainting(node *corev1.Node) (bits int) {
	if node.Spec.Unschedulable {
		bits = 1
	}
	for i, t := range conditionTaints {
		if conditionOf(node, t.condition) == t.status {
			bits |= 2 << i
		}
	}
	return bits
}

// conditionOf returns the status of a node's condition, "" without it.
func conditionOf(node *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return node.Status.Conditions[i].Status
		}
	}
	return ""
}

func (n *nodeTaints) syncNode(ctx context.Context, name string) error {
	obj, there, err := n.nodes.GetStore().GetByKey(name)
	if err != nil {
		return err
	}
	if !there {
		n.mu.Lock()
		delete(n.judge, name)
		n.mu.Unlock()
		return nil
	}
	node := obj.(*corev1.Node)
	if err := n.keepAway(ctx, node); err != nil {
		return err
	}
	return n.evict(ctx, node)
}

// keepAway brings the taints that keep new pods away up to the node's conditions.
func (n *nodeTaints) keepAway(ctx context.Context, node *corev1.Node) error {
	want := sets.New[string]()
	managed := sets.New(corev1.TaintNodeUnschedulable)
	if node.Spec.Unschedulable {
		want.Insert(corev1.TaintNodeUnschedulable)
	}
	for _, t := range conditionTaints {
		managed.Insert(t.key)
		if conditionOf(node, t.condition) == t.status {
			want.Insert(t.key)
		}
	}
	var remove []*corev1.Taint
	for _, t := range node.Spec.Taints {
		if t.Effect != corev1.TaintEffectNoSchedule || !managed.Has(t.Key) {
			continue
		}
		if !want.Has(t.Key) {
			remove = append(remove, &corev1.Taint{Key: t.Key, Effect: t.Effect})
		}
		want.Delete(t.Key)
	}
	var add []*corev1.Taint
	for _, key := range sets.List(want) {
		add = append(add, &corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	return n.swap(ctx, node, add, remove)
}

// swap adds and removes taints of a node.
func (n *nodeTaints) swap(ctx context.Context, node *corev1.Node, add, remove []*corev1.Taint) error {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	if !nodeutil.SwapNodeControllerTaint(ctx, n.client, add, remove, node) {
		return fmt.Errorf("changing the taints of node %s failed", node.Name)
	}
	return nil
}

// evict sets and removes the taints that evict the pods of a node whose kubelet is
// not ready or unreachable.
func (n *nodeTaints) evict(ctx context.Context, node *corev1.Node) error {
	status := conditionOf(node, corev1.NodeReady)
	if status == "" {
		return nil // its kubelet has not reported yet
	}
	n.mu.Lock()
	j, seen := n.judge[node.Name]
	if !seen || j.status != status {
		j = judgement{status: status, due: n.nextLook(), marked: j.marked}
		n.judge[node.Name] = j
	}
	n.mu.Unlock()

	key := ""
	switch status {
	case corev1.ConditionFalse:
		key = corev1.TaintNodeNotReady
	case corev1.ConditionUnknown:
		key = corev1.TaintNodeUnreachable
	}
	var has bool
	var remove []*corev1.Taint
	for _, t := range node.Spec.Taints {
		switch {
		case t.Effect != corev1.TaintEffectNoExecute || t.Key != corev1.TaintNodeNotReady && t.Key != corev1.TaintNodeUnreachable:
		case t.Key == key:
			has = true
		default:
			remove = append(remove, &corev1.Taint{Key: t.Key, Effect: t.Effect})
		}
	}
	if (has || key == "") && len(remove) == 0 && (j.marked == (key != "")) {
		return nil
	}
	if wait := time.Until(j.due); wait > 0 {
		n.queue.addAfter(node.Name, wait)
		return nil
	}
	if err := n.markPods(ctx, node, j, key != ""); err != nil {
		return err
	}
	if key == "" || has {
		return n.swap(ctx, node, nil, remove)
	}
	// A node that has one of the two taints gets the other at once.
	if len(remove) == 0 {
		if wait := n.turn(topology.GetZoneKey(node)); wait > 0 {
			n.queue.addAfter(node.Name, wait)
			return nil
		}
	}
	return n.swap(ctx, node, []*corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoExecute}}, remove)
}

// nextLook returns the end of the current period.
func (n *nodeTaints) nextLook() time.Time {
	now := time.Now()
	return now.Add(n.o.Monitor - now.Sub(n.start)%n.o.Monitor)
}

// markPods marks the pods of a node that is no longer ready as not ready, once.
// Their kubelet marks them as ready again.
func (n *nodeTaints) markPods(ctx context.Context, node *corev1.Node, j judgement, unready bool) error {
	if unready && !j.marked {
		objs, err := n.pods.GetIndexer().ByIndex(controller.PodNodeNameKeyIndex, node.Name)
		if err != nil {
			return fmt.Errorf("pods of node %s: %w", node.Name, err)
		}
		pods := make([]*corev1.Pod, 0, len(objs))
		for _, obj := range objs {
			pods = append(pods, obj.(*corev1.Pod))
		}
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(objectKey(a), objectKey(b)) })
		if err := nodeutil.MarkPodsNotReady(ctx, n.client, &record.FakeRecorder{}, pods, node.Name); err != nil {
			return fmt.Errorf("marking the pods of node %s as not ready: %w", node.Name, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now, ok := n.judge[node.Name]; ok && now.status == j.status {
		now.marked = unready
		n.judge[node.Name] = now
	}
	return nil
}

// turn takes the zone's next turn to evict the pods of a node and returns 0, or
// returns how long to wait for it.
func (n *nodeTaints) turn(zone string) time.Duration {
	rate := n.rate(zone)
	if rate <= 0 {
		return n.o.Monitor
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if last, ok := n.last[zone]; ok {
		if next := last.Add(time.Duration(float64(time.Second) / rate)); next.After(now) {
			return next.Sub(now)
		}
	}
	n.last[zone] = now
	return 0
}

// rate returns how many nodes of the zone a second may have their pods evicted. A
// zone in which most nodes are not ready is more likely cut off than broken.
func (n *nodeTaints) rate(zone string) float64 {
	type count struct{ ready, unready int }
	zones := map[string]*count{}
	for _, obj := range n.nodes.GetStore().List() {
		node := obj.(*corev1.Node)
		key := topology.GetZoneKey(node)
		if zones[key] == nil {
			zones[key] = &count{}
		}
		if conditionOf(node, corev1.NodeReady) == corev1.ConditionTrue {
			zones[key].ready++
		} else {
			zones[key].unready++
		}
	}
	anyReady := false
	for _, c := range zones {
		anyReady = anyReady || c.ready > 0
	}
	c := zones[zone]
	switch {
	case !anyReady:
		return 0
	case c == nil || c.ready == 0:
		return n.o.Rate // a whole zone is down, others are not
	case c.unready > 2 && float64(c.unready) >= n.o.Unhealthy*float64(c.ready+c.unready):
		if c.ready+c.unready > n.o.LargeZone {
			return n.o.ReducedRate
		}
		return 0
	}
	return n.o.Rate
}
