// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"container/heap"
	"sync"
	"time"
)

// schedule runs functions at their times, one after the other; those that are due
// together in the order in which they were added. It keeps one timer, whatever the
// number of functions, and no goroutine while nothing is due. A function must not
// block.
type schedule struct {
	mu      sync.Mutex
	items   dueItems
	next    int
	timer   *time.Timer
	wakes   time.Time // when timer fires
	running bool
}

// dueItem is a function and when it is due.
type dueItem struct {
	at  time.Time
	seq int
	run func()
}

// dueItems is a heap of functions by time.
type dueItems []dueItem

func (h dueItems) Len() int { return len(h) }

func (h dueItems) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}

func (h dueItems) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *dueItems) Push(x any) { *h = append(*h, x.(dueItem)) }

// Pop implements heap.Interface.
func (h *dueItems) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = dueItem{}
	*h = old[:len(old)-1]
	return last
}

// after runs f once d has passed.
func (s *schedule) after(d time.Duration, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	heap.Push(&s.items, dueItem{at: time.Now().Add(max(d, 0)), seq: s.next, run: f})
	s.arm()
}

// arm sets the timer to the first item. The caller holds the lock.
func (s *schedule) arm() {
	if s.running || len(s.items) == 0 {
		return // who runs arms it again
	}
	first := s.items[0].at
	switch {
	case s.timer == nil:
		s.timer = time.AfterFunc(time.Until(first), s.run)
	case s.wakes.Equal(first):
		return
	default:
		s.timer.Reset(time.Until(first))
	}
	s.wakes = first
}

// run runs everything that is due.
func (s *schedule) run() {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return
	}
	s.running = true
	for len(s.items) > 0 && !s.items[0].at.After(time.Now()) {
		item := heap.Pop(&s.items).(dueItem)
		s.mu.Unlock()
		item.run()
		s.mu.Lock()
	}
	s.running, s.wakes = false, time.Time{}
	s.arm()
	s.mu.Unlock()
}
