// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Bounds of the log of a resource's changes: at least logShort are kept, more only as
// long as they are younger than logAge, and never more than logLong.
const (
	logShort = 1 << 10
	logLong  = 1 << 15
	logAge   = 3 * time.Minute
)

// change is a committed change in the log of a resource.
type change struct {
	version int64
	at      time.Time
	deleted bool
	now     *object // the last state if deleted
	old     *object // nil if created

	left atomic.Pointer[object] // see leaving
}

// leaving returns the object as a watch sees it leave its selection: the state before
// the change, with the version of the change.
func (c *change) leaving(r *resource) (*object, error) {
	if c.deleted {
		return c.now, nil
	}
	if o := c.left.Load(); o != nil {
		return o, nil
	}
	o, err := r.newState(copyOf(c.old.work))
	if err != nil {
		return nil, err
	}
	o.setVersion(c.version)
	c.left.Store(o)
	return o, nil
}

// actor is who makes a change, and by which verb.
type actor struct{ client, verb string }

// commit stores a change and wakes the watches of its resource. next is the state
// after it, nil only if nothing changes but that the object goes. The caller holds the
// lock, and calls tell once it has released it.
func (s *Server) commit(r *resource, t watch.EventType, next, old *object, by actor) {
	s.version++
	next.setVersion(s.version)
	i, found := slices.BinarySearchFunc(r.sorted, next.key, func(o *object, k string) int { return strings.Compare(o.key, k) })
	switch {
	case t == watch.Deleted:
		delete(r.objects, next.key)
		r.sorted = slices.Delete(r.sorted, i, i+1)
	case found:
		r.objects[next.key], r.sorted[i] = next, next
	default:
		r.objects[next.key] = next
		r.sorted = slices.Insert(r.sorted, i, next)
	}
	r.append(&change{version: s.version, at: time.Now(), deleted: t == watch.Deleted, now: next, old: old})
	for _, w := range r.watchers {
		w.wake()
	}
	if r.expires && t != watch.Deleted {
		r.expiring = append(r.expiring, expiry{object: next, at: time.Now().Add(eventTTL)})
	}
	if len(s.subscribers) > 0 {
		e := Event{Type: t, Resource: r.gvr, Object: next.obj, Client: by.client, Verb: by.verb}
		if old != nil {
			e.Old = old.obj
		}
		s.queue = append(s.queue, e)
	}
}

// eventTTL is how long events are kept, as in the API server.
const eventTTL = time.Hour

// expiry is when an object goes unless it has been written again.
type expiry struct {
	object *object
	at     time.Time
}

// expire deletes the objects whose time has come. It is done when others are created,
// so that no timer is needed. The caller holds the lock.
func (s *Server) expire(r *resource) {
	n := 0
	for ; n < len(r.expiring) && !r.expiring[n].at.After(time.Now()); n++ {
		o := r.expiring[n].object
		if r.objects[o.key] != o {
			continue
		}
		if last, err := r.newState(copyOf(o.work)); err == nil {
			s.commit(r, watch.Deleted, last, o, actor{verb: "delete"})
		}
	}
	r.expiring = slices.Delete(r.expiring, 0, n)
}

// append adds a change to the log, and forgets old ones.
func (r *resource) append(c *change) {
	r.log = append(r.log, c)
	if n := len(r.log); n < 2*logShort || n%(logShort/4) != 0 {
		return
	}
	young, _ := slices.BinarySearchFunc(r.log, c.at.Add(-logAge), func(c *change, t time.Time) int { return c.at.Compare(t) })
	drop := max(min(young, len(r.log)-logShort), len(r.log)-logLong)
	if drop <= 0 {
		return
	}
	r.compacted = r.log[drop-1].version
	r.first += drop
	r.log = slices.Clone(r.log[drop:]) // what was there may still be read
}

// tell hands committed changes to the subscribers. One goroutine at a time does; what
// others and the subscribers change in the meantime is told by it, too.
func (s *Server) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.telling {
		return
	}
	s.telling = true
	defer func() { s.telling = false }()
	for i := 0; i < len(s.queue); i++ {
		e, subscribers := s.queue[i], s.subscribers
		s.queue[i] = Event{}
		s.mu.Unlock()
		for _, f := range subscribers {
			f(e)
		}
		s.mu.Lock()
	}
	s.queue = s.queue[:0]
}

// find returns the state of an object, or nil.
func (s *Server) find(r *resource, namespace, name string) *object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.objects[key(namespace, name)]
}

// snapshot returns the objects of a resource by namespace and name, and the version
// that they are of.
func (s *Server) snapshot(r *resource) ([]*object, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(r.sorted), s.version
}

// letters are those of names that the API server generates: no vowels, no look-alikes.
const letters = "bcdfghjklmnpqrstvwxz2456789"

// nameFor returns a free name that begins with prefix. The caller holds the lock.
func (s *Server) nameFor(r *resource, namespace, prefix string) string {
	const longest = 63 - 5
	if len(prefix) > longest {
		prefix = prefix[:longest]
	}
	for {
		b := []byte(prefix)
		for range 5 {
			b = append(b, letters[s.rng.IntN(len(letters))])
		}
		if r.objects[key(namespace, string(b))] == nil {
			return string(b)
		}
	}
}

// uid returns a new UID in the form of a random UUID. The caller holds the lock.
func (s *Server) uid() types.UID {
	a, b := s.rng.Uint64(), s.rng.Uint64()
	a = a&^0xf000 | 0x4000
	b = b&^(3<<62) | 2<<62
	return types.UID(fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", a>>32, a>>16&0xffff, a&0xffff, b>>48, b&(1<<48-1)))
}

// now returns the time as objects have it, in whole seconds.
func now() metav1.Time { return metav1.Now().Rfc3339Copy() }
