// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
)

// tracker polls machines that are being created or deleted. It lists the machines
// once per interval for all waiters, and not at all without waiters.
type tracker struct {
	list func(context.Context) (map[string]*armcontainerservice.Machine, error)

	mu       sync.Mutex
	interval time.Duration
	waiters  map[*waiter]struct{}
	running  bool
}

type waiter struct {
	machine string
	since   time.Time
	done    func(*armcontainerservice.Machine) bool
	result  chan *armcontainerservice.Machine
}

const (
	defaultPollInterval = 3 * time.Second
	minPollInterval     = 200 * time.Millisecond
)

func newTracker(interval time.Duration, list func(context.Context) (map[string]*armcontainerservice.Machine, error)) *tracker {
	if interval <= 0 {
		interval = defaultPollInterval
	}
	return &tracker{list: list, interval: interval, waiters: map[*waiter]struct{}{}}
}

// wait returns the machine as soon as done reports true for it, or nil as soon as
// it no longer exists. It returns the context's error if the context ends first.
func (t *tracker) wait(ctx context.Context, machine string, done func(*armcontainerservice.Machine) bool) (*armcontainerservice.Machine, error) {
	w := &waiter{machine: machine, since: time.Now(), done: done, result: make(chan *armcontainerservice.Machine, 1)}
	t.mu.Lock()
	t.waiters[w] = struct{}{}
	if !t.running {
		t.running = true
		go t.run()
	}
	t.mu.Unlock()
	select {
	case m := <-w.result:
		return m, nil
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.waiters, w)
		t.mu.Unlock()
		return nil, ctx.Err()
	}
}

func (t *tracker) run() {
	var took time.Duration
	for {
		t.mu.Lock()
		if len(t.waiters) == 0 {
			t.running = false
			t.mu.Unlock()
			return
		}
		interval := max(t.interval, 2*took) // spend at most half of the time in requests to a slow ARM
		t.mu.Unlock()
		time.Sleep(interval)

		started := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		machines, err := t.list(ctx)
		cancel()
		took = time.Since(started)
		if err != nil {
			continue // the waiters have their own deadlines
		}
		t.mu.Lock()
		for w := range t.waiters {
			if w.since.After(started) {
				continue // started to wait after the list was requested
			}
			m := machines[w.machine]
			if m == nil || w.done(m) {
				w.result <- m
				delete(t.waiters, w)
			}
		}
		t.mu.Unlock()
	}
}

// observe adopts the polling interval that ARM asks for.
func (t *tracker) observe(h http.Header) {
	if wait := retryAfter(h); wait > 0 {
		t.mu.Lock()
		t.interval = max(wait, minPollInterval)
		t.mu.Unlock()
	}
}

// retryAfter returns the delay that a response asks for, or 0.
func retryAfter(h http.Header) time.Duration {
	for _, key := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.Atoi(h.Get(key)); err == nil && ms > 0 {
			return time.Duration(ms) * time.Millisecond
		}
	}
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	return 0
}
