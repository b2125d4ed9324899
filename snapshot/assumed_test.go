// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// newAssumed returns an empty record and the places that changed since the last
// call of changes, sorted.
func newAssumed() (a *assumedPods, changes func() []string) {
	seen := map[string]bool{}
	a = newAssumedPods(func(on string) { seen[on] = true })
	return a, func() []string {
		out := slices.Sorted(maps.Keys(seen))
		clear(seen)
		return out
	}
}

func always(string) bool { return true }

func expectPlaces(t *testing.T, a *assumedPods, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for key, as := range a.pods {
		got[key] = as.on
	}
	if !maps.Equal(got, want) {
		t.Errorf("assumed are %v, want %v", got, want)
	}
}

func TestAssumeReplacesThePlaceAndReportsBoth(t *testing.T) {
	a, changes := newAssumed()
	a.assume("p", "x", false)
	if got := changes(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("changed are %v, want x", got)
	}
	a.markReady(always, time.Unix(1, 0))
	a.assume("p", "y", false)
	if got := changes(); !slices.Equal(got, []string{"x", "y"}) {
		t.Errorf("changed are %v, want x and y", got)
	}
	expectPlaces(t, a, map[string]string{"p": "y"})
	if !a.pods["p"].readySince.IsZero() {
		t.Error("the clock of the old place runs on for the new one")
	}
	a.forget("p")
	if got := changes(); !slices.Equal(got, []string{"y"}) {
		t.Errorf("changed are %v, want y", got)
	}
	expectPlaces(t, a, map[string]string{})
	a.forget("p")
	if got := changes(); len(got) != 0 {
		t.Errorf("changed are %v after a pod that is not assumed was forgotten", got)
	}
}

func TestExpiredPodIsRememberedUntilPlacedAgain(t *testing.T) {
	a, _ := newAssumed()
	if a.expire("never assumed") {
		t.Error("a pod that was not assumed expired")
	}
	a.assume("p", "x", false)
	a.assume("q", "x", false)
	a.assume("r", "x", false)
	for _, key := range []string{"p", "q", "r"} {
		if !a.expire(key) {
			t.Errorf("pod %s was not assumed", key)
		}
	}
	expectPlaces(t, a, map[string]string{})
	a.assume("p", "y", false)                                     // placed
	a.forget("q")                                                 // bound or gone
	a.keepExpired(func(key string) bool { return key != "none" }) // all are still to be placed
	if !maps.Equal(a.expired, map[string]bool{"r": true}) {
		t.Errorf("expired are %v, want r", a.expired)
	}
	a.keepExpired(func(string) bool { return false })
	if len(a.expired) != 0 {
		t.Errorf("expired are %v, want none", a.expired)
	}
}

func TestResumeRestoresPodsThatAreStillPending(t *testing.T) {
	a, changes := newAssumed()
	start := time.Unix(100, 0)
	a.assume("waits", "x", false)
	a.assume("bound", "x", false)
	a.assume("moved", "x", false)
	a.assume("fixed", "y", true)
	a.markReady(always, start)
	changes()
	if n := a.suspend(func(string) bool { return true }); n != 3 {
		t.Errorf("%d pods are suspended, want 3", n)
	}
	if got := changes(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("changed are %v, want x", got)
	}
	expectPlaces(t, a, map[string]string{"fixed": "y"})
	if on, ok := a.on("waits"); !ok || on != "x" {
		t.Errorf("a suspended pod is assumed on %q, want x as before", on)
	}
	a.forget("bound")
	a.assume("moved", "z", false)
	changes()
	a.resume()
	if got := changes(); !slices.Equal(got, []string{"x"}) {
		t.Errorf("changed are %v, want x", got)
	}
	expectPlaces(t, a, map[string]string{"fixed": "y", "waits": "x", "moved": "z"})
	if since := a.pods["waits"].readySince; !since.Equal(start) {
		t.Errorf("ready since %v, want %v as before the suspension", since, start)
	}
	a.suspend(func(string) bool { return true })
	a.assume("waits", "z", false)
	a.forgetSuspended()
	a.resume()
	expectPlaces(t, a, map[string]string{"fixed": "y", "waits": "z"})
}

func TestPodIsOverdueAfterTimeoutOnReadyNode(t *testing.T) {
	const timeout, longest = 5 * time.Second, time.Minute
	a, _ := newAssumed()
	start := time.Unix(100, 0)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	ready := map[string]bool{}
	isReady := func(on string) bool { return ready[on] }
	overdue := func(at time.Duration) bool { return len(a.overdue(isReady, after(at), timeout, longest)) > 0 }
	a.assume("p", "x", false)
	a.markReady(isReady, start)
	if overdue(time.Hour) || len(a.waiting(isReady, after(time.Hour), 0)) != 0 {
		t.Error("overdue on a node that was never ready")
	}
	ready["x"] = true
	a.markReady(isReady, start)
	a.markReady(isReady, after(time.Second)) // the first time counts
	if overdue(timeout-1) || !overdue(timeout) {
		t.Errorf("overdue: before the timeout %t, after it %t", overdue(timeout-1), overdue(timeout))
	}
	if len(a.waiting(isReady, after(time.Second-1), time.Second)) != 0 || a.waiting(isReady, after(time.Second), time.Second)["p"] != "x" {
		t.Error("waiting does not begin after a second")
	}
	ready["x"] = false
	if overdue(timeout) || len(a.waiting(isReady, after(timeout), 0)) != 0 {
		t.Error("overdue although its node is not ready any more")
	}
	ready["x"] = true
	a.bound("unknown", after(timeout))
	if !overdue(timeout) {
		t.Error("a pod that was not assumed keeps an assumed one waiting")
	}
	a.assume("q", "y", false)
	a.bound("q", after(timeout))
	if overdue(2*timeout-1) || !overdue(2*timeout) {
		t.Error("another pod was bound: want the timeout to run from then")
	}
	a.bound("q", after(longest))
	if overdue(longest-1) || !overdue(longest) {
		t.Error("others are being bound: want overdue after the longest time")
	}
}
