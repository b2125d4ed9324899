// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// Options configure a Server.
type Options struct {
	// Seed gives the generated names and UIDs.
	Seed uint64
	// Version is what /version answers; empty means v1.36.3.
	Version string
	// Scheme has Go types of custom resources in addition to Karpenter's and nap's;
	// nil means none. Custom resources without a type are Unstructured.
	Scheme *runtime.Scheme
	// CRDs are the custom resources served from the start, each in its stored
	// version. More can be created as objects.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Intercept, if not nil, is asked before each request is handled, discovery
	// excepted. It may sleep, and is called concurrently.
	Intercept func(context.Context, *Call) Fault
	// WatchDelay, if not nil, returns how long a change is held back from a client
	// that watches. Later changes of the watch wait behind it; several that are due
	// are delivered together. It is called concurrently, once for each change and
	// watch.
	WatchDelay func(client string, resource schema.GroupVersionResource) time.Duration
}

// Call is a request as Options.Intercept sees it.
type Call struct {
	Client      string // the name given to Server.Config
	Verb        string // get, list, watch, create, update, patch, delete or deletecollection
	Subresource string
	Namespace   string
	Name        string
	Resource    schema.GroupVersionResource
}

// Fault is what happens to a request. The zero value is nothing.
type Fault struct {
	// Before passes before the request is handled, After before its answer arrives.
	Before, After time.Duration
	// Err is the answer of a request that is not handled.
	Err *apierrors.StatusError
	// Lose handles the request and breaks the connection instead of answering.
	Lose bool
	// Hang neither handles nor answers the request; it ends with its context, or
	// with Restart or Stop.
	Hang bool
}

// CallKey identifies a kind of request in Server.Calls. Resource is the plural
// without its group.
type CallKey struct{ Client, Verb, Resource, Subresource string }

// Event is a committed change. Its objects must not be changed.
type Event struct {
	Type     watch.EventType // Added, Modified or Deleted
	Resource schema.GroupVersionResource
	Object   runtime.Object // after the change; the last state if Deleted
	Old      runtime.Object // before it; nil if Added
	Client   string         // who asked for it; "" for trusted writes and the server itself
	Verb     string         // create, update, patch, delete, bind, or evict: the deletion after an eviction
}

// Server is an API server. Use New. Its methods are safe for concurrent use.
type Server struct {
	options Options
	schemes []*runtime.Scheme // where Go types are looked up

	mu          sync.Mutex // never held while anything is encoded or slept
	version     int64      // of the last change
	resources   map[schema.GroupVersionResource]*resource
	ordered     []*resource // as discovery lists them
	rng         *rand.Rand
	calls       map[CallKey]int
	evicted     int // evictions accepted
	refused     int // evictions answered with 429
	subscribers []func(Event)
	queue       []Event // committed changes that subscribers have not seen
	telling     bool
	epoch       chan struct{} // closed by Stop and Restart: ends watches and hung requests
	stopped     bool
	pages       []*page // of paged lists, oldest first
	pageCount   int
}

// New returns a server with the namespaces and priority classes that every cluster
// has. It returns an error for a definition that cannot be served. In a synctest
// bubble it must be called inside of it.
func New(o Options) (*Server, error) {
	if o.Version == "" {
		o.Version = "v1.36.3"
	}
	s := &Server{
		options: o, schemes: []*runtime.Scheme{defaultScheme()}, version: 1,
		resources: map[schema.GroupVersionResource]*resource{},
		rng:       rand.New(rand.NewPCG(o.Seed, 0x617069)), // its own stream: "api"
		calls:     map[CallKey]int{}, epoch: make(chan struct{}),
	}
	if o.Scheme != nil {
		s.schemes = append(s.schemes, o.Scheme)
	}
	if err := s.addBuiltins(); err != nil {
		return nil, err
	}
	var objects []runtime.Object
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, c := range systemPriorities {
		objects = append(objects, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Value: c.value})
	}
	for _, crd := range o.CRDs {
		objects = append(objects, crd)
	}
	for _, obj := range objects {
		if err := s.Create(obj); err != nil {
			return nil, fmt.Errorf("creating the objects of a new cluster: %w", err)
		}
	}
	return s, nil
}

// Stop breaks all watches and hung requests, and refuses new watches. Other requests
// and direct access still work.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.epoch)
	}
}

// Restart breaks all watches and hung requests, and forgets the past: watches cannot
// resume from versions seen before (410 Gone), and paged lists cannot be continued.
// Objects stay. After Stop it does nothing.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.version++
	for _, r := range s.ordered {
		r.first += len(r.log)
		r.log, r.compacted = nil, s.version
	}
	s.pages = nil
	close(s.epoch)
	s.epoch = make(chan struct{})
}

// Subscribe calls f after each committed change, in order, one at a time, usually
// before the writer goes on. f may call all methods of the server; changes that it
// makes are told afterwards. It must not sleep.
func (s *Server) Subscribe(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers = append(s.subscribers, f)
}

// Calls returns how often each kind of request was made, answered or not.
func (s *Server) Calls() map[CallKey]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// Evictions returns how many evictions were accepted, and how many were refused for a
// PodDisruptionBudget.
func (s *Server) Evictions() (accepted, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evicted, s.refused
}

// Version returns the resource version of the last change.
func (s *Server) Version() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}
