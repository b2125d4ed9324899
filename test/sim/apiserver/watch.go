// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watchTimeout is how long watches live that do not say so themselves.
const watchTimeout = 45 * time.Minute

// maxBuffer is how many bytes a watch encodes before its client has read them.
const maxBuffer = 1 << 20

// watcher is an open watch. The client reads it as the body of the answer, and its
// reads do all the work: they look into the log of the resource's changes, and wait if
// there is nothing new. So a slow client costs nothing, until the log has forgotten
// what it has not read; then its watch ends.
type watcher struct {
	server   *Server
	resource *resource
	client   string
	ctx      context.Context
	epoch    <-chan struct{} // closed when the server breaks all watches
	selector *selector
	format   format
	bookmark bool
	until    time.Time
	woken    chan struct{} // has an element after a change
	ended    chan struct{} // closed by Close
	endOnce  sync.Once
	last     atomic.Bool // there will be no more changes

	// What follows belongs to the goroutine that reads.

	next    int       // number of the next change to look at
	initial []*object // sent first
	mark    int64     // version of a bookmark after initial; 0: none
	due     time.Time // when the next change may be delivered; zero: not known yet
	buffer  []byte
	err     error // what reads return once the buffer is empty
}

// watch opens a watch: after a version, or with the objects that there are.
func (s *Server) watch(q *request) (*answer, error) {
	sel, err := newSelector(q.resource, q.Namespace, q.Name, q.values)
	if err != nil {
		return nil, err
	}
	timeout, err := number(q, "timeoutSeconds")
	if err != nil {
		return nil, err
	}
	w := &watcher{
		server: s, resource: q.resource, client: q.Client, ctx: q.ctx, selector: sel, format: q.format,
		bookmark: q.values.Get("allowWatchBookmarks") == "true", until: time.Now().Add(watchTimeout),
		woken: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	if timeout > 0 && timeout < math.MaxInt32 {
		w.until = time.Now().Add(time.Duration(timeout) * time.Second)
	}
	if err := s.start(q, w); err != nil {
		return nil, err
	}
	return &answer{code: http.StatusOK, contentType: w.format.contentType(true), stream: w}, nil
}

// start finds where a watch begins, and registers it.
func (s *Server) start(q *request, w *watcher) error {
	initial := q.values.Get("sendInitialEvents") == "true"
	if initial && (!w.bookmark || q.values.Get("resourceVersionMatch") != string(metav1.ResourceVersionMatchNotOlderThan)) {
		return apierrors.NewBadRequest("sendInitialEvents needs allowWatchBookmarks, and resourceVersionMatch NotOlderThan")
	}
	version, err := number(q, "resourceVersion")
	if err != nil {
		return err
	}
	after := int64(version)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := w.resource
	switch {
	case s.stopped || s.resources[r.gvr] != r:
		return apierrors.NewServiceUnavailable("the server is stopping")
	case after > s.version:
		return tooLarge(after, s.version)
	case initial || after == 0:
		w.initial = slices.Clone(r.sorted)
		w.next = r.first + len(r.log)
		if initial {
			w.mark = s.version
		}
	case after < r.compacted:
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", after, r.compacted))
	default:
		w.next = r.first + sort.Search(len(r.log), func(i int) bool { return r.log[i].version > after })
	}
	w.epoch = s.epoch
	r.watchers = append(r.watchers, w)
	return nil
}

// wake tells the watch that there may be something new. It never blocks.
func (w *watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Close ends the watch.
func (w *watcher) Close() error {
	w.endOnce.Do(func() { close(w.ended) })
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if i := slices.Index(w.resource.watchers, w); i >= 0 {
		w.resource.watchers = slices.Delete(w.resource.watchers, i, i+1)
	}
	return nil
}

// Read returns the next events, and waits until there are some.
func (w *watcher) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(w.buffer) == 0 {
		if w.err != nil {
			return 0, w.err
		}
		if w.err = w.broken(); w.err == nil {
			w.err = w.fill()
		}
	}
	n := copy(p, w.buffer)
	if w.buffer = w.buffer[n:]; len(w.buffer) == 0 {
		w.buffer = nil
	}
	return n, nil
}

// broken returns an error if nobody may read the watch any more.
func (w *watcher) broken() error {
	select {
	case <-w.ended:
		return io.EOF
	case <-w.epoch:
		return errBroken
	case <-w.ctx.Done():
		return w.ctx.Err()
	default:
		return nil
	}
}

// fill appends events that are due to the buffer, or waits for something to happen.
// The error, if any, is what the client sees after the buffer.
func (w *watcher) fill() error {
	if len(w.initial) > 0 || w.mark > 0 {
		return w.fillInitial()
	}
	last := w.last.Load() // before the look at the changes: those before it count
	changes, version, behind := w.unread()
	if behind {
		st := apierrors.NewResourceExpired("the watch was too slow and has missed changes").Status()
		st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		if err := w.writeAny(watch.Error, &st); err != nil {
			return err
		}
		return io.EOF
	}
	for _, c := range changes {
		if wait := w.held(c); wait > 0 {
			if len(w.buffer) > 0 {
				return nil // deliver what is due
			}
			return w.pause(wait, false)
		}
		w.next++
		w.due = time.Time{}
		if err := w.change(c); err != nil {
			return err
		}
		if len(w.buffer) > maxBuffer {
			return nil
		}
	}
	if len(w.buffer) > 0 {
		return nil
	}
	if last {
		return io.EOF
	}
	if wait := time.Until(w.until); wait > 0 {
		return w.pause(wait, true)
	}
	if w.bookmark {
		if err := w.writeBookmark(version, false); err != nil {
			return err
		}
	}
	return io.EOF
}

// fillInitial appends the objects that there were when the watch began.
func (w *watcher) fillInitial() error {
	for i, o := range w.initial {
		if !w.selector.matches(o) {
			continue
		}
		if err := w.write(watch.Added, o); err != nil {
			return err
		}
		if len(w.buffer) > maxBuffer {
			w.initial = w.initial[i+1:]
			return nil
		}
	}
	version := w.mark
	w.initial, w.mark = nil, 0
	if version == 0 {
		return nil
	}
	return w.writeBookmark(version, true)
}

// unread returns the changes that the watch has not looked at, and the present
// version. behind says that some of them are forgotten.
func (w *watcher) unread() (changes []*change, version int64, behind bool) {
	s, r := w.server, w.resource
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next < r.first {
		return nil, s.version, true
	}
	// The elements never change, and the log only grows or is replaced.
	return r.log[w.next-r.first : len(r.log) : len(r.log)], s.version, false
}

// held returns for how long a change, the next one, is held back.
func (w *watcher) held(c *change) time.Duration {
	delay := w.server.options.WatchDelay
	if delay == nil {
		return 0
	}
	if w.due.IsZero() {
		w.due = c.at.Add(delay(w.client, w.resource.gvr))
	}
	return time.Until(w.due)
}

// pause waits for at most d, less if the watch ends or, if wakes is true, after a
// change.
func (w *watcher) pause(d time.Duration, wakes bool) error {
	woken := w.woken
	if !wakes {
		woken = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-w.ended:
	case <-w.epoch:
	case <-w.ctx.Done():
	}
	return nil // Read looks at the reason
}

// change writes a change as the watch sees it: an object may come into its selection,
// or leave it.
func (w *watcher) change(c *change) error {
	is := !c.deleted && w.selector.matches(c.now)
	was := c.old != nil && w.selector.matches(c.old)
	switch {
	case is && was:
		return w.write(watch.Modified, c.now)
	case is:
		return w.write(watch.Added, c.now)
	case was:
		o, err := c.leaving(w.resource)
		if err != nil {
			return err
		}
		return w.write(watch.Deleted, o)
	}
	return nil
}

// writeBookmark writes a bookmark. initial says that all initial objects have been sent.
func (w *watcher) writeBookmark(version int64, initial bool) error {
	o := w.resource.newObject()
	if w.format.partial {
		p := &metav1.PartialObjectMetadata{}
		p.SetGroupVersionKind(partialKind)
		o = p
	}
	m := accessor(o)
	m.SetResourceVersion(strconv.FormatInt(version, 10))
	if initial {
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return w.writeAny(watch.Bookmark, o)
}

// write appends an event about a stored object.
func (w *watcher) write(t watch.EventType, o *object) error {
	b, err := w.resource.bytesOf(o, w.format)
	if err != nil {
		return err
	}
	w.frame(t, b)
	return nil
}

// writeAny appends an event about another object.
func (w *watcher) writeAny(t watch.EventType, o runtime.Object) error {
	b, err := encodeAny(o, w.format)
	if err != nil {
		return err
	}
	w.frame(t, b)
	return nil
}

// frame appends an event: in protobuf, a metav1.WatchEvent after its length in four
// bytes.
func (w *watcher) frame(t watch.EventType, b []byte) {
	if !w.format.proto {
		w.buffer = append(w.buffer, `{"type":"`+string(t)+`","object":`...)
		w.buffer = append(append(w.buffer, b...), "}\n"...)
		return
	}
	start := len(w.buffer)
	w.buffer = append(w.buffer, 0, 0, 0, 0)
	w.buffer = appendBytes(w.buffer, 1, []byte(t))
	w.buffer = appendBytes(w.buffer, 2, appendBytes(make([]byte, 0, len(b)+6), 1, b)) // a RawExtension
	binary.BigEndian.PutUint32(w.buffer[start:], uint32(len(w.buffer)-start-4))
}
