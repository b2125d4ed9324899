// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// logLimit is how many changes of a resource are kept for watches that resume.
const logLimit = 20000

// Options configure a Server.
type Options struct {
	// Seed gives the generated names and UIDs.
	Seed uint64
	// Version is what /version answers; empty means v1.36.3.
	Version string
	// Scheme has the types of all resources; nil means client-go's scheme.
	Scheme *runtime.Scheme
	// CRDs are the custom resources served, each in its stored version.
	CRDs []*apiextensionsv1.CustomResourceDefinition
	// Intercept, if not nil, is asked before each request is handled. It may sleep.
	Intercept func(context.Context, *Call) Fault
	// WatchDelay, if not nil, returns how long a watch event is held back from a
	// client. Later events of the watch wait behind it.
	WatchDelay func(client string, resource schema.GroupVersionResource) time.Duration
}

// Call is a request as Options.Intercept sees it.
type Call struct {
	Client      string // the name given to Server.Config
	Verb        string // get, list, watch, create, update, patch, delete or deletecollection
	Resource    schema.GroupVersionResource
	Subresource string
	Namespace   string
	Name        string
}

// Fault is what happens to a request. The zero value is nothing.
type Fault struct {
	// Before passes before the request is handled, After before its answer arrives.
	Before, After time.Duration
	// Err is the answer of a request that is not handled.
	Err *apierrors.StatusError
	// Lose handles the request and breaks the connection instead of answering.
	Lose bool
	// Hang neither handles nor answers the request.
	Hang bool
}

// CallKey identifies a kind of request in Server.Calls.
type CallKey struct{ Client, Verb, Resource, Subresource string }

// Event is a committed change.
type Event struct {
	Type     watch.EventType // Added, Modified or Deleted
	Resource schema.GroupVersionResource
	Object   runtime.Object // after the change; the last state if Deleted
	Old      runtime.Object // before it; nil if Added
	Client   string         // who asked for it; "" for trusted writes
	Verb     string         // by which request, "evict" and "bind" included
}

// Server is an API server. Use New.
type Server struct {
	options Options
	scheme  *runtime.Scheme
	codecs  serializer.CodecFactory

	mu          sync.Mutex
	version     int64
	byGVR       map[schema.GroupVersionResource]*resource
	ordered     []*resource
	rng         *rand.Rand
	calls       map[CallKey]int
	refused     int // evictions answered with 429
	subscribers []func(Event)
	queue       []Event // committed changes that subscribers have not seen
	telling     bool
	epoch       chan struct{} // closed by Stop and Restart: ends all watches
	stopped     bool
}

// New returns a server with the namespaces that every cluster has. It returns an
// error for a definition that cannot be served.
func New(o Options) (*Server, error) {
	if o.Version == "" {
		o.Version = "v1.36.3"
	}
	if o.Scheme == nil {
		o.Scheme = scheme.Scheme
	}
	list, err := resources(o.Scheme, o.CRDs)
	if err != nil {
		return nil, err
	}
	s := &Server{
		options: o, scheme: o.Scheme, codecs: serializer.NewCodecFactory(o.Scheme),
		byGVR: map[schema.GroupVersionResource]*resource{}, ordered: list,
		rng: rand.New(rand.NewPCG(o.Seed, 0x617069)), calls: map[CallKey]int{}, epoch: make(chan struct{}), version: 1,
	}
	for _, r := range list {
		s.byGVR[r.gvr] = r
	}
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		if err := s.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Stop ends all watches. Requests still work.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.stopped = true
		close(s.epoch)
	}
}

// Restart ends all watches and forgets the past: watches cannot resume from earlier
// versions (410 Gone). Objects stay.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ordered {
		r.first += len(r.log)
		r.log, r.compacted = nil, s.version
	}
	close(s.epoch)
	s.epoch = make(chan struct{})
}

// Subscribe calls f after each committed change, in order, one at a time. f may call
// all methods of the server; changes that it makes are told afterwards.
func (s *Server) Subscribe(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers = append(s.subscribers, f)
}

// Calls returns how often each kind of request was made.
func (s *Server) Calls() map[CallKey]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[CallKey]int, len(s.calls))
	for k, n := range s.calls {
		out[k] = n
	}
	return out
}

// EvictionsRefused returns how many evictions a PodDisruptionBudget has refused.
func (s *Server) EvictionsRefused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// Each calls f with the objects of a resource, by namespace and name, until f returns
// false. The objects must not be changed.
func (s *Server) Each(gvr schema.GroupVersionResource, f func(runtime.Object) bool) {
	for _, o := range s.list(gvr) {
		if !f(o) {
			return
		}
	}
}

// Count returns the number of objects of a resource.
func (s *Server) Count(gvr schema.GroupVersionResource) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.byGVR[gvr]; r != nil {
		return len(r.objects)
	}
	return 0
}

func (s *Server) list(gvr schema.GroupVersionResource) []runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byGVR[gvr]
	if r == nil {
		return nil
	}
	return r.sorted()
}

func (r *resource) sorted() []runtime.Object {
	keys := make([]string, 0, len(r.objects))
	for k := range r.objects {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]runtime.Object, len(keys))
	for i, k := range keys {
		out[i] = r.objects[k]
	}
	return out
}

// Get returns an object, which must not be changed, and whether it exists.
func (s *Server) Get(gvr schema.GroupVersionResource, namespace, name string) (runtime.Object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.byGVR[gvr]
	if r == nil {
		return nil, false
	}
	o, ok := r.objects[key(namespace, name)]
	return o, ok
}

// Create creates an object as a request does, without faults. It takes a copy.
func (s *Server) Create(o runtime.Object) error {
	r, err := s.resourceOf(o)
	if err != nil {
		return err
	}
	_, err = s.create(r, o.DeepCopyObject(), "", false)
	return err
}

// Update updates an object but its status. Without a resource version it overwrites
// whatever is there. It takes a copy.
func (s *Server) Update(o runtime.Object) error { return s.trustedUpdate(o, "") }

// UpdateStatus updates the status of an object. Without a resource version it
// overwrites whatever is there. It takes a copy.
func (s *Server) UpdateStatus(o runtime.Object) error { return s.trustedUpdate(o, "status") }

func (s *Server) trustedUpdate(o runtime.Object, subresource string) error {
	r, err := s.resourceOf(o)
	if err != nil {
		return err
	}
	_, err = s.update(r, o.DeepCopyObject(), subresource, "", "update")
	return err
}

// Delete deletes an object as a request without options does.
func (s *Server) Delete(gvr schema.GroupVersionResource, namespace, name string) error {
	return s.DeleteWith(gvr, namespace, name, metav1.DeleteOptions{})
}

// DeleteWith deletes an object as a request with options does: a grace period of zero
// removes a pod at once.
func (s *Server) DeleteWith(gvr schema.GroupVersionResource, namespace, name string, o metav1.DeleteOptions) error {
	s.mu.Lock()
	r := s.byGVR[gvr]
	s.mu.Unlock()
	if r == nil {
		return apierrors.NewNotFound(gvr.GroupResource(), name)
	}
	_, err := s.remove(r, namespace, name, &o, "", "delete")
	return err
}

func (s *Server) resourceOf(o runtime.Object) (*resource, error) {
	kinds, _, err := s.scheme.ObjectKinds(o)
	if err != nil {
		return nil, err
	}
	for _, r := range s.ordered {
		for _, k := range kinds {
			if r.kind == k.Kind && r.gvr.GroupVersion() == k.GroupVersion() {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("%v is not served", kinds)
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
