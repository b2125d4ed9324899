// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodeutils "sigs.k8s.io/karpenter/pkg/utils/node"
)

// How long after its appearance a provisioned node is counted on: until it is ready,
// and until it is initialized, which may need drivers to be installed.
const (
	ReadyGrace          = 5 * time.Minute
	InitializationGrace = 15 * time.Minute
)

// unready returns why no pod should be planned onto the machine: its kubelet is lost,
// or it takes too long to become ready. It returns "" for a machine that is ready or is
// booting, and for a node whose kubelet has never set the condition.
//
// Invariant: a machine is open while it boots, so that its pods are not bought for
// twice, and boots for a limited time, so that no pod waits for it for ever.
func (m *machine) unready(now time.Time) string {
	if m.node == nil {
		return ""
	}
	ready := nodeutils.GetCondition(m.node, corev1.NodeReady)
	booting := m.claim != nil && !m.state().Initialized()
	late := func(grace time.Duration) bool {
		created := m.node.CreationTimestamp.Time
		return booting && !created.IsZero() && now.Sub(created) >= grace
	}
	switch {
	case late(InitializationGrace):
		return fmt.Sprintf("it has not been initialized within %s", InitializationGrace)
	case ready.Status == corev1.ConditionTrue:
		return ""
	case late(ReadyGrace):
		return fmt.Sprintf("it has not become ready within %s", ReadyGrace)
	case ready.Type == "":
		return ""
	case ready.Status == corev1.ConditionUnknown:
		return "its kubelet does not report"
	case booting:
		return ""
	}
	return "it is not ready"
}

// LostPods returns the assumed pods whose machine is not to be waited for: its node is
// not ready, and not because it is just booting.
func (c *Cache) LostPods(now time.Time) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for key, as := range c.assumed.pods {
		if m := c.find(as.on); m != nil && m.unready(now) != "" {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}
