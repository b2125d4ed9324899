// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	podutils "sigs.k8s.io/karpenter/pkg/utils/pod"
)

// ownLabels are the labels that controllers give to single pods or generations of pods.
var ownLabels = map[string]bool{
	"controller-uid": true, "batch.kubernetes.io/controller-uid": true, "job-name": true, "batch.kubernetes.io/job-name": true,
	"batch.kubernetes.io/job-completion-index": true, "pod-template-hash": true, "controller-revision-hash": true,
	"statefulset.kubernetes.io/pod-name": true, "apps.kubernetes.io/pod-index": true,
}

// ShapeKey returns a key that pods share which are alike for the scheduler, except for
// the names of their volume claims and the labels that controllers give to single pods:
// the pods of one workload have the same key, also after they are replaced.
func ShapeKey(p *corev1.Pod) string {
	alike := *p
	alike.Labels = maps.Clone(p.Labels)
	maps.DeleteFunc(alike.Labels, func(k, _ string) bool { return ownLabels[k] })
	alike.Spec.Volumes = nil
	sum := sha256.Sum256(appendMap(appendShape(nil, &alike), alike.Labels))
	return hex.EncodeToString(sum[:12])
}

// Hold leaves pods out of the next snapshots, by key. It replaces those held before.
func (c *Cache) Hold(podKeys map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = podKeys
}

// Unplaced returns the pending pods that a snapshot would have to place, held or not.
func (c *Cache) Unplaced() []*corev1.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	besides := c.besidesRefused()
	var out []*corev1.Pod
	for _, key := range slices.Sorted(maps.Keys(c.pending)) {
		r := c.pending[key]
		if _, assumed := c.assumed.on(key); !assumed && (r.provisionable || besides[key]) {
			out = append(out, r.pod)
		}
	}
	return out
}

// PlaceState is what the cache knows about a node or the machine of a NodeClaim.
type PlaceState struct {
	Gone     bool // it does not exist or is being deleted
	Launched bool // its machine has been created
}

// PlaceState returns the state of a node or of the machine of a NodeClaim.
func (c *Cache) PlaceState(nodeOrClaim string) PlaceState {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.find(nodeOrClaim)
	if m == nil || m.deleting(nil) {
		return PlaceState{Gone: true}
	}
	return PlaceState{Launched: m.node != nil || m.claim.Status.ProviderID != ""}
}

// Idle reports whether a node or the machine of a NodeClaim exists, runs no pods but
// those of DaemonSets and static ones, and no pod is assumed there.
func (c *Cache) Idle(nodeOrClaim string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.find(nodeOrClaim)
	if m == nil || m.deleting(nil) || c.busy(m) {
		return false
	}
	for _, as := range c.assumed.pods {
		if c.find(as.on) == m {
			return false
		}
	}
	return true
}

// Busy reports whether pods run on a node or the machine of a NodeClaim, other than
// those of DaemonSets and static ones.
func (c *Cache) Busy(nodeOrClaim string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.find(nodeOrClaim)
	return m != nil && c.busy(m)
}

func (c *Cache) busy(m *machine) bool {
	if m.node == nil {
		return false
	}
	for _, r := range c.onNode[m.node.Name] {
		if !podutils.IsOwnedByDaemonSet(r.pod) && !podutils.IsOwnedByNode(r.pod) {
			return true
		}
	}
	return false
}

// ClaimOf returns the name of a node's NodeClaim, "" if it has none.
func (c *Cache) ClaimOf(node string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.byNode[node]; m != nil && m.claim != nil {
		return m.claim.Name
	}
	return ""
}
