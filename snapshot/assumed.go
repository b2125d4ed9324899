// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import "time"

// assumedPods records the pending pods that a plan has placed and the scheduler
// has not bound yet. It is the only record of them: the translation of nodes, the
// list of pods to place, nominations and the time-outs of the provisioner all read
// it. The Cache guards it with its lock.
//
// Invariants:
//   - An assumed pod is pending. It leaves the record when it is bound, ends, is
//     deleted or is forgotten.
//   - An assumed pod has one place, which counts it, and no plan places it again.
//     While it is suspended it keeps the place, but is neither counted there nor
//     left out of plans.
//   - A pod is not assumed and expired at the same time.
type assumedPods struct {
	// changed is called with the name of a place whose pods have changed.
	changed func(nodeOrClaim string)

	pods      map[string]assumption // by pod key
	suspended map[string]assumption // by pod key
	expired   map[string]bool       // pods that lost their place and have no other yet
	lastBound time.Time             // when the scheduler last bound an assumed pod
}

// assumption is the place of an assumed pod.
type assumption struct {
	on    string // name of a node or NodeClaim
	fixed bool   // the engine did not choose the place and must not change it
	// readySince is when the node was first seen ready for pods; zero before.
	readySince time.Time
}

func newAssumedPods(changed func(nodeOrClaim string)) *assumedPods {
	return &assumedPods{changed: changed, pods: map[string]assumption{}, suspended: map[string]assumption{}, expired: map[string]bool{}}
}

// assume gives a pending pod a place, in exchange for the one it had.
func (a *assumedPods) assume(podKey, on string, fixed bool) {
	a.forget(podKey)
	a.pods[podKey] = assumption{on: on, fixed: fixed}
	a.changed(on)
}

// forget removes a pod from the record.
func (a *assumedPods) forget(podKey string) {
	if was, ok := a.pods[podKey]; ok {
		delete(a.pods, podKey)
		a.changed(was.on)
	}
	delete(a.suspended, podKey)
	delete(a.expired, podKey)
}

// expire takes the place of an assumed pod away and remembers that it had one. It
// reports whether the pod was assumed.
func (a *assumedPods) expire(podKey string) bool {
	_, ok := a.on(podKey)
	if ok {
		a.forget(podKey)
		a.expired[podKey] = true
	}
	return ok
}

// on returns the place of an assumed pod, suspended or not.
func (a *assumedPods) on(podKey string) (nodeOrClaim string, ok bool) {
	if as, ok := a.pods[podKey]; ok {
		return as.on, true
	}
	as, ok := a.suspended[podKey]
	return as.on, ok
}

// suspend suspends the pods whose place the engine chose and which are on a place for
// which the function reports true. It returns the number of suspended pods.
func (a *assumedPods) suspend(which func(nodeOrClaim string) bool) int {
	for key, as := range a.pods {
		if as.fixed || !which(as.on) {
			continue
		}
		a.suspended[key] = as
		delete(a.pods, key)
		a.changed(as.on)
	}
	return len(a.suspended)
}

// resume ends the suspension: each pod is assumed again where and since when it was.
func (a *assumedPods) resume() {
	for key, as := range a.suspended {
		a.pods[key] = as
		a.changed(as.on)
	}
	clear(a.suspended)
}

// forgetSuspended forgets the pods that are suspended.
func (a *assumedPods) forgetSuspended() { clear(a.suspended) }

// bound notes that the scheduler binds a pod, if it is an assumed one.
func (a *assumedPods) bound(podKey string, now time.Time) {
	if _, ok := a.on(podKey); ok {
		a.lastBound = now
	}
}

// keepExpired drops the expired pods for which keep returns false.
func (a *assumedPods) keepExpired(keep func(podKey string) bool) {
	for key := range a.expired {
		if !keep(key) {
			delete(a.expired, key)
		}
	}
}

// markReady starts the clock of pods whose place is ready for the first time.
func (a *assumedPods) markReady(ready func(nodeOrClaim string) bool, now time.Time) {
	for key, as := range a.pods {
		if as.readySince.IsZero() && ready(as.on) {
			as.readySince = now
			a.pods[key] = as
		}
	}
}

// waiting returns the places, by pod key, of pods whose place is ready and has been
// known to be for at least that long.
func (a *assumedPods) waiting(ready func(nodeOrClaim string) bool, now time.Time, atLeast time.Duration) map[string]string {
	out := map[string]string{}
	for key, as := range a.pods {
		if !as.readySince.IsZero() && now.Sub(as.readySince) >= atLeast && ready(as.on) {
			out[key] = as.on
		}
	}
	return out
}

// overdue returns the pods that the scheduler should have bound by now. A pod is
// overdue when its place has been ready for the timeout and no assumed pod was
// bound for as long. As long as others are bound, the scheduler is at work and may
// not have come to this pod yet, so it is overdue only after the longest time.
func (a *assumedPods) overdue(ready func(nodeOrClaim string) bool, now time.Time, timeout, longest time.Duration) []string {
	var out []string
	idle := now.Sub(a.lastBound) >= timeout
	for key, as := range a.pods {
		if as.readySince.IsZero() || !ready(as.on) {
			continue
		}
		if took := now.Sub(as.readySince); took >= timeout && (idle || took >= longest) {
			out = append(out, key)
		}
	}
	return out
}

// Assume records that a pending pod is going to run on a node, or on the machine
// of a NodeClaim: until it is bound or expires, the pod is counted there and not
// placed again. It reports whether the pod is still pending; if not, nothing is
// assumed.
func (c *Cache) Assume(podKey, nodeOrClaim string) bool { return c.assume(podKey, nodeOrClaim, false) }

// AssumeFixed does the same for a place that the engine did not choose: it is kept
// when assumed pods are suspended to be planned for again.
func (c *Cache) AssumeFixed(podKey, nodeOrClaim string) bool {
	return c.assume(podKey, nodeOrClaim, true)
}

func (c *Cache) assume(podKey, on string, fixed bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[podKey] == nil {
		return false
	}
	c.assumed.assume(podKey, on, fixed)
	return true
}

// Expire takes back that a pod is assumed, because the scheduler did not bind it.
// Until the pod has another place, it is one of ExpiredPods. Expire reports whether
// the pod was assumed.
func (c *Cache) Expire(podKey string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed.expire(podKey)
}

// AssumedOn returns the node or NodeClaim on which a pod is assumed to run. A
// suspended pod still has its place.
func (c *Cache) AssumedOn(podKey string) (nodeOrClaim string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed.on(podKey)
}

// AssumedPods returns where each assumed pod is to run: node or NodeClaim name by
// pod key. Suspended pods are left out.
func (c *Cache) AssumedPods() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]string, len(c.assumed.pods))
	for key, as := range c.assumed.pods {
		out[key] = as.on
	}
	return out
}

// AnyAssumed reports whether there are assumed pods.
func (c *Cache) AnyAssumed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.assumed.pods)+len(c.assumed.suspended) > 0
}

// ExpiredPods returns the keys of pending pods that were assumed until Expire and
// have no other place yet.
func (c *Cache) ExpiredPods() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]bool, len(c.assumed.expired))
	for key := range c.assumed.expired {
		out[key] = true
	}
	return out
}

// SuspendAssumed makes the next snapshot one in which no pod has a place that the
// engine chose, so that all pods that wait are planned for together. It returns
// the number of these pods. ResumeAssumed undoes it; ForgetSuspended makes it
// final for the pods that have not been assumed again.
func (c *Cache) SuspendAssumed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed.suspend(func(string) bool { return true })
}

// ResumeAssumed undoes SuspendAssumed for pods that are still pending.
func (c *Cache) ResumeAssumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assumed.resume()
}

// ForgetSuspended forgets the pods that SuspendAssumed has suspended.
func (c *Cache) ForgetSuspended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assumed.forgetSuspended()
}

// NoteBound notes that the scheduler has bound a pod. Call it before Upsert, which
// ends the assumption.
func (c *Cache) NoteBound(podKey string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assumed.bound(podKey, now)
}

// MarkReady notes which nodes and NodeClaims are ready for pods; the time-outs of
// pods assumed on them run from the first time.
func (c *Cache) MarkReady(ready func(nodeOrClaim string) bool, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assumed.markReady(ready, now)
}

// WaitingPods returns the places, by pod key, of assumed pods whose place is ready and
// has been known to be for at least that long.
func (c *Cache) WaitingPods(ready func(nodeOrClaim string) bool, now time.Time, atLeast time.Duration) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed.waiting(ready, now, atLeast)
}

// OverduePods returns the assumed pods that the scheduler should have bound by now:
// their place has been ready for the timeout, and no assumed pod was bound for as
// long, or their place has been ready for the longest time.
func (c *Cache) OverduePods(ready func(nodeOrClaim string) bool, now time.Time, timeout, longest time.Duration) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.assumed.overdue(ready, now, timeout, longest)
}
