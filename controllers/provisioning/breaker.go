// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nap-aks/nap/snapshot"
)

const (
	// holdFirst is how long pods of a shape are not planned for after a place of one
	// kind did not take them twice in a row. The time doubles with every further failure,
	// up to holdMost.
	holdFirst = 30 * time.Second
	holdMost  = 30 * time.Minute
	// freeFailures is how many places of different kinds may fail before pods wait
	// although no kind has failed twice.
	freeFailures = 3
	// emptyMost is how many machines that did not take a pod of a shape, and took no
	// other, may be alive while more are bought for the shape.
	emptyMost = 3
	// failureMemory is how long after the end of a wait a failure is remembered.
	failureMemory = time.Hour
)

// breaker limits what is spent on pods that do not run where they were planned to. The
// cause does not matter to it: whatever the engine did not foresee ends here.
//
// Invariants:
//   - The time between attempts for pods of one shape on places of one kind, an offering
//     or a node, doubles until one of them runs there.
//   - Nothing is planned for a shape while emptyMost machines are alive that were
//     promised to it, did not take it and are empty.
//   - A shape whose pods run is never held: a pod that starts where it, or another of its
//     shape, was planned ends all that is known against that place's kind.
//
// The methods are safe for concurrent use.
type breaker struct {
	mu       sync.Mutex
	promised map[string]promise             // by pod key
	places   map[string]map[attempt]bool    // attempts by place
	launched map[string]bool                // places that have been seen running
	shapes   map[string]map[string]*failure // by shape and kind
	failed   map[string]map[string]bool     // places that failed, by shape
}

// attempt is pods of one shape on a place of one kind.
type attempt struct{ shape, kind string }

// promise is the place that a plan has given to a pod.
type promise struct {
	attempt
	place string // node or NodeClaim
	at    time.Time
}

// failure is what is known about an attempt that has failed.
type failure struct {
	times int // in a row
	place string
	last  time.Time
	until time.Time
	why   string
}

func newBreaker() *breaker {
	return &breaker{
		promised: map[string]promise{}, places: map[string]map[attempt]bool{}, launched: map[string]bool{},
		shapes: map[string]map[string]*failure{}, failed: map[string]map[string]bool{},
	}
}

// promise records where a pod is planned to run.
func (b *breaker) promise(podKey, shape, kind, place string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := attempt{shape, kind}
	b.promised[podKey] = promise{a, place, now}
	if b.places[place] == nil {
		b.places[place] = map[attempt]bool{}
	}
	b.places[place][a] = true
}

// served records that a pod runs at a place, which may have two names. If that is one
// promised to its shape, the failures of that attempt are forgotten.
func (b *breaker) served(podKey string, names ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.promised[podKey]
	if !ok {
		return
	}
	delete(b.promised, podKey)
	for _, place := range names {
		for a := range b.places[place] {
			if a.shape != p.shape {
				continue
			}
			delete(b.shapes[a.shape], a.kind)
			if len(b.shapes[a.shape]) == 0 {
				delete(b.shapes, a.shape)
				delete(b.failed, a.shape)
			}
		}
	}
}

// broken records that a pod did not run at the place promised to it.
func (b *breaker) broken(podKey, why string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.promised[podKey]
	if !ok {
		return
	}
	delete(b.promised, podKey)
	kinds := b.shapes[p.shape]
	if kinds == nil {
		kinds = map[string]*failure{}
		b.shapes[p.shape] = kinds
	}
	f := kinds[p.kind]
	if f == nil {
		f = &failure{}
		kinds[p.kind] = f
	}
	if b.failed[p.shape] == nil {
		b.failed[p.shape] = map[string]bool{}
	}
	b.failed[p.shape][p.place] = true
	if f.times > 0 && p.at.Before(f.last) {
		return // planned before the last failure: not another attempt
	}
	f.times++
	f.place, f.last, f.why = p.place, now, why
	all := 0
	for _, k := range kinds {
		all += k.times
	}
	if n := max(f.times-1, all-freeFailures); n > 0 {
		f.until = now.Add(min(holdFirst<<min(n-1, 16), holdMost))
	}
}

// dropPlace forgets a place that was given up for reasons of its own.
func (b *breaker) dropPlace(place string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.places, place)
	delete(b.launched, place)
	for _, places := range b.failed {
		delete(places, place)
	}
}

// observe brings what is known about the places up to date. It returns the pods whose
// machine is gone before it took them.
func (b *breaker) observe(state func(place string) snapshot.PlaceState, now time.Time) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	promised := map[string]bool{}
	for _, p := range b.promised {
		promised[p.place] = true
	}
	wasLaunched := map[string]bool{} // places that are gone
	for place := range b.places {
		switch s := state(place); {
		case s.Gone:
			wasLaunched[place] = b.launched[place]
		case !promised[place]:
			delete(b.places, place)
			delete(b.launched, place)
		case s.Launched:
			b.launched[place] = true
		}
	}
	var out []string
	for key, p := range b.promised {
		if launched, gone := wasLaunched[p.place]; gone && launched {
			out = append(out, key)
		} else if gone {
			delete(b.promised, key)
		}
	}
	slices.Sort(out)
	for place := range wasLaunched {
		delete(b.places, place)
		delete(b.launched, place)
	}
	for shape, kinds := range b.shapes {
		maps.DeleteFunc(b.failed[shape], func(place string, _ bool) bool { return state(place).Gone })
		maps.DeleteFunc(kinds, func(_ string, f *failure) bool {
			return now.Sub(f.last) > failureMemory && now.Sub(f.until) > failureMemory
		})
		if len(kinds) == 0 {
			delete(b.shapes, shape)
			delete(b.failed, shape)
		}
	}
	return out
}

// forget drops a pod that does not wait any more.
func (b *breaker) forget(podKey string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.promised, podKey)
}

// any reports whether anything has failed.
func (b *breaker) any() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.shapes) > 0
}

// held returns why nothing may be planned for pods of a shape now, and "" if it may.
func (b *breaker) held(shape string, idle func(place string) bool, now time.Time) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var last *failure
	var kind string
	times := 0
	for k, f := range b.shapes[shape] {
		times += f.times
		if last == nil || f.until.After(last.until) || f.until.Equal(last.until) && f.last.After(last.last) {
			last, kind = f, k
		}
	}
	if last == nil {
		return ""
	}
	empty := 0
	for place := range b.failed[shape] {
		if idle(place) {
			empty++
		}
	}
	cause := fmt.Sprintf("%s (%s) did not take it: %s", last.place, kind, last.why)
	switch {
	case empty >= emptyMost:
		return fmt.Sprintf("waiting until one of %d empty machines that did not take pods like this is gone; the last, %s", empty, cause)
	case now.Before(last.until):
		return fmt.Sprintf("waiting until %s before planning again for pods like this, after %d failed attempts; the last, %s", last.until.UTC().Format(time.RFC3339), times, cause)
	}
	return ""
}
