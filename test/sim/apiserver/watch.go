// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"sort"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/watch"
)

// selection returns whether an object is one of those that a list or watch asks for.
func selection(q *request) (func(runtime.Object) bool, error) {
	values := q.http.URL.Query()
	byLabel, byField := labels.Everything(), fields.Everything()
	var err error
	if text := values.Get("labelSelector"); text != "" {
		if byLabel, err = labels.Parse(text); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if text := values.Get("fieldSelector"); text != "" {
		if byField, err = fields.ParseSelector(text); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if q.Name != "" {
		byField = fields.AndSelectors(byField, fields.OneTermEqualSelector("metadata.name", q.Name))
	}
	for _, req := range byField.Requirements() {
		if _, ok := fieldsOf(newLike(q.resource.example))[req.Field]; !ok {
			return nil, apierrors.NewBadRequest("field label not supported: " + req.Field)
		}
	}
	everything := byLabel.Empty() && byField.Empty()
	return func(o runtime.Object) bool {
		if q.Namespace != "" && accessor(o).GetNamespace() != q.Namespace {
			return false
		}
		return everything || byLabel.Matches(labels.Set(accessor(o).GetLabels())) && byField.Matches(fieldsOf(o))
	}, nil
}

// fieldsOf returns the fields of an object that selectors may name.
func fieldsOf(o runtime.Object) fields.Set {
	m := accessor(o)
	set := fields.Set{"metadata.name": m.GetName(), "metadata.namespace": m.GetNamespace()}
	switch t := o.(type) {
	case *corev1.Pod:
		set["spec.nodeName"], set["status.phase"], set["spec.schedulerName"] = t.Spec.NodeName, string(t.Status.Phase), t.Spec.SchedulerName
		set["spec.restartPolicy"], set["status.podIP"], set["status.nominatedNodeName"] = string(t.Spec.RestartPolicy), t.Status.PodIP, t.Status.NominatedNodeName
	case *corev1.Node:
		set["spec.unschedulable"] = strconv.FormatBool(t.Spec.Unschedulable)
	case *corev1.Namespace:
		set["status.phase"] = string(t.Status.Phase)
	case *corev1.Secret:
		set["type"] = string(t.Type)
	case *corev1.Event:
		set["involvedObject.kind"], set["involvedObject.namespace"], set["involvedObject.name"] = t.InvolvedObject.Kind, t.InvolvedObject.Namespace, t.InvolvedObject.Name
		set["involvedObject.uid"], set["reason"], set["type"], set["source"] = string(t.InvolvedObject.UID), t.Reason, t.Type, t.Source.Component
	}
	return set
}

// newLike returns a new object of the type of another.
func newLike(o runtime.Object) runtime.Object {
	return reflect.New(reflect.TypeOf(o).Elem()).Interface().(runtime.Object)
}

func reflectValue(v any) reflect.Value { return reflect.ValueOf(v) }

// handleList answers a list at the present version.
func (s *Server) handleList(q *request) (answer, error) {
	keep, err := selection(q)
	if err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	all, version := q.resource.sorted(), s.version
	s.mu.Unlock()
	gvk := q.resource.gvk()
	gvk.Kind += "List"
	list, err := s.scheme.New(gvk)
	if err != nil {
		return answer{}, apierrors.NewInternalError(err)
	}
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	kept := reflect.MakeSlice(items.Type(), 0, len(all))
	for _, o := range all {
		if keep(o) {
			kept = reflect.Append(kept, reflect.ValueOf(o).Elem())
		}
	}
	items.Set(kept)
	list.(metav1.ListInterface).SetResourceVersion(strconv.FormatInt(version, 10))
	list.GetObjectKind().SetGroupVersionKind(gvk)
	return answer{status: http.StatusOK, object: list}, nil
}

// watcher is an open watch. The client reads it as the body of the answer, and its
// reads do all the work: there is no goroutine of its own.
type watcher struct {
	server   *Server
	resource *resource
	client   string
	ctx      context.Context
	keep     func(runtime.Object) bool
	proto    bool
	next     int           // number of the next change
	initial  []watch.Event // sent first
	woken    chan struct{}
	epoch    <-chan struct{}
	until    time.Time
	bookmark bool
	buffer   bytes.Buffer
	err      error // what reads return once the buffer is empty
}

// handleWatch opens a watch after a version, or with the objects that there are
// (sendInitialEvents, or no version).
func (s *Server) handleWatch(q *request) (answer, error) {
	keep, err := selection(q)
	if err != nil {
		return answer{}, err
	}
	values := q.http.URL.Query()
	timeout := 30 * time.Minute
	if n, err := strconv.ParseInt(values.Get("timeoutSeconds"), 10, 64); err == nil && n > 0 {
		timeout = time.Duration(n) * time.Second
	}
	w := &watcher{
		server: s, resource: q.resource, client: q.Client, ctx: q.http.Context(), keep: keep,
		woken: make(chan struct{}, 1), until: time.Now().Add(timeout), bookmark: values.Get("allowWatchBookmarks") == "true",
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := q.resource
	w.proto = wantsProto(q.http) && r.custom == nil
	w.epoch = s.epoch
	w.next = r.first + len(r.log)
	text := values.Get("resourceVersion")
	switch {
	case values.Get("sendInitialEvents") == "true", text == "", text == "0":
		for _, o := range r.sorted() {
			if keep(o) {
				w.initial = append(w.initial, watch.Event{Type: watch.Added, Object: o})
			}
		}
		if values.Get("sendInitialEvents") == "true" {
			w.initial = append(w.initial, watch.Event{Type: watch.Bookmark, Object: bookmarkOf(r, s.version, true)})
		}
	default:
		version, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return answer{}, apierrors.NewBadRequest("resourceVersion " + text + " is not a number")
		}
		if version < r.compacted {
			return answer{}, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", version, r.compacted))
		}
		w.next = r.first + sort.Search(len(r.log), func(i int) bool { return r.log[i].version > version })
	}
	r.watchers[w] = true
	return answer{status: http.StatusOK, stream: w, proto: w.proto}, nil
}

// bookmarkOf returns the object of a bookmark.
func bookmarkOf(r *resource, version int64, initial bool) runtime.Object {
	o := newLike(r.example)
	m := accessor(o)
	m.SetResourceVersion(strconv.FormatInt(version, 10))
	if initial {
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	o.GetObjectKind().SetGroupVersionKind(r.gvk())
	return o
}

// wake tells the watch that its resource has changed.
func (w *watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Close ends the watch.
func (w *watcher) Close() error {
	w.server.mu.Lock()
	delete(w.resource.watchers, w)
	w.server.mu.Unlock()
	w.err = io.ErrClosedPipe
	w.wake()
	return nil
}

// Read returns the next events, and waits until there are some.
func (w *watcher) Read(p []byte) (int, error) {
	for w.buffer.Len() == 0 {
		if w.err != nil {
			return 0, w.err
		}
		if err := w.fill(); err != nil {
			w.err = err
		}
	}
	return w.buffer.Read(p)
}

// fill appends the events that are due, or waits for some.
func (w *watcher) fill() error {
	w.buffer.Reset()
	if len(w.initial) > 0 {
		for _, e := range w.initial {
			if err := w.write(e.Type, e.Object, nil); err != nil {
				return err
			}
		}
		w.initial = nil
		return nil
	}
	w.server.mu.Lock()
	behind := w.next < w.resource.first
	var due []*change
	if !behind {
		due = w.resource.log[w.next-w.resource.first:]
	}
	version := w.server.version
	w.server.mu.Unlock()
	if behind {
		st := apierrors.NewResourceExpired("the watch was too slow").Status()
		st.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		if err := w.write(watch.Error, &st, nil); err != nil {
			return err
		}
		return io.EOF
	}
	for i, c := range due {
		if d := w.server.options.WatchDelay; d != nil {
			if wait := time.Until(c.at.Add(d(w.client, w.resource.gvr))); wait > 0 {
				if i > 0 {
					return nil // deliver what is due
				}
				if err := w.sleep(wait); err != nil {
					return err
				}
			}
		}
		w.next++
		if err := w.event(c); err != nil {
			return err
		}
	}
	if w.buffer.Len() > 0 || len(due) > 0 {
		return nil
	}
	if wait := time.Until(w.until); wait > 0 {
		return w.sleep(wait)
	}
	if w.bookmark {
		if err := w.write(watch.Bookmark, bookmarkOf(w.resource, version, false), nil); err != nil {
			return err
		}
	}
	_ = w.Close()
	return io.EOF
}

// sleep waits for at most d, less if the resource changes. It returns an error if the
// watch ends.
func (w *watcher) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-w.woken:
		return w.err
	case <-w.epoch:
		_ = w.Close()
		return io.ErrUnexpectedEOF
	case <-w.ctx.Done():
		_ = w.Close()
		return w.ctx.Err()
	}
}

// event writes a change as the watch sees it: an object may come into its selection,
// or leave it.
func (w *watcher) event(c *change) error {
	e := c.event
	is := e.Type != watch.Deleted && w.keep(e.Object)
	was := e.Old != nil && w.keep(e.Old)
	switch {
	case is && was:
		return w.write(watch.Modified, e.Object, c)
	case is:
		return w.write(watch.Added, e.Object, c)
	case was:
		return w.write(watch.Deleted, e.Object, c)
	}
	return nil
}

// write appends an event. The encoding of a change is shared by all watches.
func (w *watcher) write(t watch.EventType, o runtime.Object, c *change) error {
	if w.proto {
		var raw []byte
		if c != nil && c.proto != nil {
			raw = c.proto
		} else {
			var err error
			if raw, err = w.server.encodeProto(o); err != nil {
				return err
			}
			if c != nil {
				c.proto = raw
			}
		}
		frame, err := (&metav1.WatchEvent{Type: string(t), Object: runtime.RawExtension{Raw: raw}}).Marshal()
		if err != nil {
			return err
		}
		_, err = protobuf.LengthDelimitedFramer.NewFrameWriter(&w.buffer).Write(frame)
		return err
	}
	var text []byte
	if c != nil && c.json != nil {
		text = c.json
	} else {
		var err error
		if text, err = json.Marshal(o); err != nil {
			return err
		}
		if c != nil {
			c.json = text
		}
	}
	w.buffer.WriteString(`{"type":"` + string(t) + `","object":`)
	w.buffer.Write(text)
	w.buffer.WriteString("}\n")
	return nil
}
