package provisioning

import (
	"context"
	"time"

	"k8s.io/utils/clock"
)

// batch gathers triggers that come shortly after each other into one pass.
type batch struct {
	clock     clock.Clock
	idle, max time.Duration
	triggers  chan struct{} // a pass is asked for
	more      chan struct{} // a pass that is asked for will have more to do
}

func newBatch(c clock.Clock, idle, longest time.Duration) *batch {
	return &batch{clock: c, idle: idle, max: longest, triggers: make(chan struct{}, 1), more: make(chan struct{}, 1)}
}

// trigger asks for a pass. It never blocks.
func (b *batch) trigger() { put(b.triggers) }

// extend says that a pass, if one is asked for, had better wait for what else
// comes. It never blocks.
func (b *batch) extend() { put(b.more) }

func put(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns true when a pass is due: after the first trigger, once nothing more
// came for the idle time, at the latest after the longest time; or when nothing was
// triggered for so long (a pass that looks after what no event tells). It
// returns false when the context ends.
func (b *batch) wait(ctx context.Context, nothing time.Duration) bool {
	quiet := b.clock.NewTimer(nothing)
	defer quiet.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-quiet.C():
		return true
	case <-b.triggers:
	}
	select {
	case <-b.more: // of before
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
		case <-b.triggers: // the pass to come sees to it
		case <-b.more:
			idle.Stop()
			idle = b.clock.NewTimer(b.idle)
		}
	}
}
