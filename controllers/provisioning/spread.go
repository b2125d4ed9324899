// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// spreading identifies pods that count for each other's topology spread constraint: for
// every pod nominated to a node, the scheduler counts the others nominated to it as if
// they ran there, and not those nominated elsewhere. So more of them than the skew
// allows, nominated to one node, refuse each other.
type spreading struct {
	owner types.UID
	skew  int
}

// spreadingOf returns the group of a pod that a required spread constraint over more
// than single nodes counts itself; false if it has none.
func spreadingOf(pod *corev1.Pod) (spreading, bool) {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return spreading{}, false
	}
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != corev1.DoNotSchedule || c.TopologyKey == corev1.LabelHostname {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
		if err == nil && selector.Matches(labels.Set(pod.Labels)) {
			return spreading{owner: owner.UID, skew: int(c.MaxSkew)}, true
		}
	}
	return spreading{}, false
}

// turn is a group of spread pods on a node.
type turn struct {
	group spreading
	node  string
}

// outstanding counts the pods of each group that are nominated to each node.
func (n *nominations) outstanding() map[turn]int {
	out := map[turn]int{}
	for pod, node := range n.nominated {
		if g, ok := n.spread[pod]; ok {
			out[turn{g, node}]++
		}
	}
	return out
}

const (
	// refusedFirst is how long a spread pod that was refused waits before it is nominated
	// again; the time doubles up to refusedMost. The others that it has to wait for may
	// be in the scheduler's backoff.
	refusedFirst = 100 * time.Millisecond
	refusedMost  = 2 * time.Second
)

// pause is how long a spread pod that the scheduler has refused is not nominated.
type pause struct {
	until time.Time
	next  time.Duration
}

// postpone postpones the next nomination of a spread pod.
func (n *nominations) postpone(key string, now time.Time) {
	wait := max(n.paused[key].next, refusedFirst)
	n.paused[key] = pause{until: now.Add(wait), next: min(2*wait, refusedMost)}
	time.AfterFunc(wait, n.signal)
}
