// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	// hydrationPatience is how long the first pass waits for Karpenter's cluster state.
	hydrationPatience = 15 * time.Second
	hydrationPoll     = 100 * time.Millisecond
)

// hydrated waits, before the first pass, until Karpenter's cluster state has the objects
// that the API server had at the start. It returns false if the context ends first.
//
// No pass waits for it later: it counts as not synced while any NodeClaim has no machine
// yet, or is stuck, and plans are made from the snapshot cache, which knows claims in
// all their states. So it does not wait for ever at the start either: what the state
// lacks is only who is being disrupted and which nodes are ready, and it learns that.
func (p *Provisioner) hydrated(ctx context.Context) bool {
	for start := p.Clock.Now(); !p.cluster.Synced(ctx); {
		if p.Clock.Since(start) >= hydrationPatience {
			log.FromContext(ctx).Info("planning although Karpenter's cluster state is not complete: a NodeClaim or Node is stuck", "waited", hydrationPatience)
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.Clock.After(hydrationPoll):
		}
	}
	return ctx.Err() == nil
}
