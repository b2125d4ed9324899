// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"
	"context"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/karpenter/pkg/utils/daemonset"

	"github.com/nap-aks/nap/engine"
)

// daemon is a DaemonSet with the class of its pods.
type daemon struct {
	uid   types.UID
	shape *shape
	class engine.ClassID
	pod   *corev1.Pod
}

// refreshDaemons builds the pods of the DaemonSets again if a DaemonSet or a pod of one
// has changed.
func (c *Cache) refreshDaemons(ctx context.Context) {
	if !c.daemonsStale {
		return
	}
	c.daemonsStale = false
	before := c.daemonSets
	keys := make([]types.NamespacedName, 0, len(c.daemons))
	for k := range c.daemons {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	c.daemonSets = make([]daemon, 0, len(keys))
	for _, k := range keys {
		d := c.daemons[k]
		p := daemonPod(d, c.newestPod(d.UID))
		c.daemonSets = append(c.daemonSets, daemon{uid: d.UID, pod: p, shape: c.shapes.of(ctx, p)})
	}
	// Other classes are noticed by refreshDaemonClasses.
	if !slices.EqualFunc(before, c.daemonSets, func(a, b daemon) bool { return a.uid == b.uid }) {
		c.nodesStale = true
	}
}

// newestPod returns the pod of a DaemonSet that was created last, nil if it has none.
func (c *Cache) newestPod(set types.UID) *corev1.Pod {
	var out *corev1.Pod
	for _, r := range c.index.byDaemonSet[set] {
		if out == nil || newer(r.pod, out) {
			out = r.pod
		}
	}
	return out
}

// newer reports whether pod a was created after pod b; of the same age, the first by
// name counts as newer.
func newer(a, b *corev1.Pod) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return b.CreationTimestamp.Before(&a.CreationTimestamp)
	}
	return a.Name < b.Name
}

// refreshDaemonClasses numbers the classes of daemons. Call it when all label keys are
// known.
func (c *Cache) refreshDaemonClasses() {
	ids := make([]engine.ClassID, 0, len(c.daemonSets))
	for i := range c.daemonSets {
		d := &c.daemonSets[i]
		d.class = c.shapes.class(d.shape, d.pod.Labels, d.pod.Name, false)
		ids = append(ids, d.class)
	}
	if !slices.Equal(ids, c.daemonClasses) {
		c.daemonClasses = ids
		c.nodesStale = true
		c.poolsAt++
	}
}

// daemonPod returns the pod that a DaemonSet would create on a new node. It is a copy of
// the newest pod of the set, which shows the effect of admission, or else it follows
// the template. Only fields that decide where it runs and what it uses are kept.
func daemonPod(d *appsv1.DaemonSet, live *corev1.Pod) *corev1.Pod {
	p := live.DeepCopy()
	if p == nil {
		p = daemonset.PodForDaemonSet(d.DeepCopy())
	}
	p.Name, p.Namespace, p.Labels = d.Name, d.Namespace, d.Spec.Template.Labels
	p.Spec.NodeName = ""
	p.Status = corev1.PodStatus{}
	// The DaemonSet controller pins a pod to its node by node affinity: use that of the
	// template.
	var required *corev1.NodeSelector
	if a := d.Spec.Template.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		required = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	p.Spec.Affinity = nil
	if required != nil {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
	}
	p.Spec.TopologySpreadConstraints = nil
	p.Spec.Volumes = nil
	// PreferNoSchedule does not keep a daemon pod off a node.
	p.Spec.Tolerations = append(slices.Clone(p.Spec.Tolerations), corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectPreferNoSchedule})
	return p
}
