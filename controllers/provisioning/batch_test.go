// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
	testingclock "k8s.io/utils/clock/testing"
)

// batchDuration returns how long a batch stays open when event is called every quarter
// of a second.
func batchDuration(t *testing.T, event func(*batch)) time.Duration {
	t.Helper()
	var took time.Duration
	synctest.Test(t, func(t *testing.T) {
		b := newBatch(clock.RealClock{}, time.Second, 10*time.Second)
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for {
				event(b)
				select {
				case <-ctx.Done():
					return
				case <-time.After(250 * time.Millisecond):
				}
			}
		}()
		if !b.wait(ctx, time.Minute) {
			t.Error("the wait ended without a pass")
		}
		took = time.Since(start)
	})
	return took
}

func TestBatchIsExtendedByNewWorkOnly(t *testing.T) {
	if took := batchDuration(t, (*batch).trigger); took > 1500*time.Millisecond {
		t.Errorf("the batch was open for %s although nothing extended it, want about 1s", took)
	}
	if took := batchDuration(t, func(b *batch) { b.trigger(); b.extend() }); took < 9*time.Second || took > 11*time.Second {
		t.Errorf("the batch was open for %s although it was extended steadily, want about 10s", took)
	}
	if took := batchDuration(t, (*batch).extend); took != time.Minute {
		t.Errorf("a pass came after %s without a trigger, want the interval of a minute", took)
	}
}

func TestBatchWaitEndsWithContext(t *testing.T) {
	b := newBatch(testingclock.NewFakeClock(time.Now()), time.Second, 10*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if b.wait(ctx, time.Minute) {
		t.Error("the wait did not end with its context")
	}
}
