// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// replica identifies pods that can take each other's places: a workload's pods of one
// shape.
type replica struct {
	owner     types.UID
	shape     *shape
	scheduler string
	priority  int32
}

// replicaOf returns the replica key of a pod, false for a pod without a controller or
// one that no snapshot has seen.
func replicaOf(r *podRecord) (replica, bool) {
	o := metav1.GetControllerOfNoCopy(r.pod)
	if o == nil || r.shape == nil {
		return replica{}, false
	}
	return replica{owner: o.UID, shape: r.shape, scheduler: r.pod.Spec.SchedulerName, priority: priorityOf(r.pod)}, true
}

// Exchange takes account of an assumed pod that the scheduler has bound to another node
// than planned. If a replica of it is assumed there, that one gets the place of the bound
// pod: nothing but names has changed. Otherwise a replica gets it that is assumed in the
// zone where the pod is now, if that is not the planned one: a spread constraint would
// send it there. Exchange returns the replica, nil if there is none, and reports whether
// the pod was bound as planned or exchanged with one on the same node, so that no other
// pod has lost room. Call it before Upsert of the bound pod, which ends its assumption.
func (c *Cache) Exchange(bound *corev1.Pod) (peer *corev1.Pod, even bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := PodKey(bound)
	as, ok := c.assumed.pods[key]
	r := c.pending[key]
	if !ok || as.fixed || r == nil {
		return nil, true
	}
	planned, got := c.find(as.on), c.byNode[bound.Spec.NodeName]
	if planned == nil || got == nil || planned == got {
		return nil, true
	}
	kind, ok := replicaOf(r)
	if !ok {
		return nil, false
	}
	var there, inZone string // the first of each by name
	moved := planned.zone() != got.zone()
	for other, at := range c.assumed.pods {
		o := c.pending[other]
		if other == key || at.fixed || o == nil {
			continue
		}
		m := c.find(at.on)
		if m == nil || m != got && (!moved || m.zone() != got.zone()) {
			continue
		}
		if k, ok := replicaOf(o); !ok || k != kind {
			continue
		}
		if m == got && (there == "" || other < there) {
			there = other
		}
		if inZone == "" || other < inZone {
			inZone = other
		}
	}
	with := cmp.Or(there, inZone)
	if with == "" {
		return nil, false
	}
	c.assumed.assume(with, as.on, false)
	return c.pending[with].pod, there != ""
}

// zone returns the zone of the machine, "" if it is not known yet.
func (m *machine) zone() string {
	if m.node != nil {
		return m.node.Labels[corev1.LabelTopologyZone]
	}
	return m.claim.Labels[corev1.LabelTopologyZone]
}
