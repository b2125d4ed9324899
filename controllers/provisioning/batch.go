// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"time"

	"k8s.io/utils/clock"
)

// batch merges triggers that follow each other closely into one pass.
type batch struct {
	clock     clock.Clock
	idle, max time.Duration
	triggers  chan struct{} // a pass is needed
	more      chan struct{} // more work for that pass is coming
}

func newBatch(c clock.Clock, idle, longest time.Duration) *batch {
	return &batch{clock: c, idle: idle, max: longest, triggers: make(chan struct{}, 1), more: make(chan struct{}, 1)}
}

// trigger asks for a pass. It never blocks.
func (b *batch) trigger() { notify(b.triggers) }

// extend makes a triggered pass wait for further events. It never blocks.
func (b *batch) extend() { notify(b.more) }

// notify fills a channel of capacity one. It never blocks.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns true when a pass is due: after a trigger, once nothing extended the
// batch for the idle time, at the latest after the maximum time; or without a
// trigger after the interval. It returns false when the context ends.
func (b *batch) wait(ctx context.Context, interval time.Duration) bool {
	quiet := b.clock.NewTimer(interval)
	defer quiet.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-quiet.C():
		return true
	case <-b.triggers:
	}
	select {
	case <-b.more: // from before the trigger
	default:
	}
	longest := b.clock.NewTimer(b.max)
	defer longest.Stop()
	idle := b.clock.NewTimer(b.idle)
	defer func() { idle.Stop() }()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-longest.C():
			return true
		case <-idle.C():
			return true
		case <-b.triggers: // included in this pass
		case <-b.more:
			idle.Stop()
			idle = b.clock.NewTimer(b.idle)
		}
	}
}
