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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	c.nodesStale = true
	newest := map[types.UID]*corev1.Pod{}
	for _, r := range c.pods {
		o := metav1.GetControllerOfNoCopy(r.pod)
		if o == nil || o.Kind != "DaemonSet" {
			continue
		}
		if have := newest[o.UID]; have == nil || newer(r.pod, have) {
			newest[o.UID] = r.pod
		}
	}
	keys := make([]types.NamespacedName, 0, len(c.daemons))
	for k := range c.daemons {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	c.daemonSets = c.daemonSets[:0]
	for _, k := range keys {
		d := c.daemons[k]
		p := daemonPod(d, newest[d.UID])
		c.daemonSets = append(c.daemonSets, daemon{uid: d.UID, pod: p, shape: c.shapes.of(ctx, p)})
	}
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
