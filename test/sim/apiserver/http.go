// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/rest"
)

// maxBody bounds the size of a request.
const maxBody = 3 << 20

// errLost is what a client sees of a broken connection.
var errLost = errors.New("connection reset by peer")

// Config returns the configuration of a client. Its name is what faults and counts
// know it by. It has no rate limit.
func (s *Server) Config(client string) *rest.Config {
	return &rest.Config{Host: "http://" + client + ".sim", Transport: &transport{server: s, client: client}, QPS: -1, UserAgent: client}
}

// transport sends the requests of one client to the server.
type transport struct {
	server *Server
	client string
}

// request is a parsed request.
type request struct {
	Call
	resource *resource
	http     *http.Request
	body     []byte
	options  metav1.DeleteOptions // of deletes
}

// answer is what a request is answered with: an object, a document or a stream.
type answer struct {
	status int
	object runtime.Object
	body   any           // written as JSON
	stream io.ReadCloser // a watch
	proto  bool          // the stream's encoding
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	s := t.server
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
	}
	if doc := s.discover(strings.TrimSuffix(r.URL.Path, "/")); doc != nil && r.Method == http.MethodGet {
		return s.respond(r, answer{status: http.StatusOK, body: doc})
	}
	q, err := s.parse(r, t.client)
	if err != nil {
		return s.respond(r, failure(err))
	}
	s.mu.Lock()
	s.calls[CallKey{q.Client, q.Verb, q.Resource.Resource, q.Subresource}]++
	s.mu.Unlock()
	var f Fault
	if s.options.Intercept != nil {
		f = s.options.Intercept(ctx, &q.Call)
	}
	if f.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := pause(ctx, f.Before); err != nil {
		return nil, err
	}
	if f.Err != nil {
		return s.respond(r, failure(f.Err))
	}
	a, err := s.handle(q)
	if err != nil {
		a = failure(err)
	}
	if err := pause(ctx, f.After); err != nil {
		return nil, err
	}
	if f.Lose {
		if a.stream != nil {
			_ = a.stream.Close()
		}
		return nil, errLost
	}
	return s.respond(r, a)
}

// pause waits for d, or until the context ends, which is an error.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure returns the answer for an error.
func failure(err error) answer {
	st, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		st = apierrors.NewInternalError(err)
	}
	status := st.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return answer{status: int(status.Code), body: &status}
}

// respond writes an answer in the format that the client asked for.
func (s *Server) respond(r *http.Request, a answer) (*http.Response, error) {
	resp := &http.Response{
		StatusCode: a.status, Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Request: r, ContentLength: -1,
	}
	if a.stream != nil {
		resp.Header.Set("Content-Type", "application/json")
		if a.proto {
			resp.Header.Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
		}
		resp.Body = a.stream
		return resp, nil
	}
	var body []byte
	var err error
	switch {
	case a.object != nil && wantsProto(r) && s.hasProto(a.object):
		resp.Header.Set("Content-Type", runtime.ContentTypeProtobuf)
		body, err = s.encodeProto(a.object)
	case a.object != nil:
		resp.Header.Set("Content-Type", runtime.ContentTypeJSON)
		body, err = json.Marshal(a.object)
	default:
		resp.Header.Set("Content-Type", runtime.ContentTypeJSON)
		body, err = json.Marshal(a.body)
	}
	if err != nil {
		return nil, err
	}
	resp.ContentLength = int64(len(body))
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

func wantsProto(r *http.Request) bool {
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	return strings.HasPrefix(strings.TrimSpace(first), runtime.ContentTypeProtobuf)
}

// parse reads the path and the body of a request.
func (s *Server) parse(r *http.Request, client string) (*request, error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	q := &request{Call: Call{Client: client}, http: r}
	switch {
	case len(parts) > 2 && parts[0] == "api":
		q.Resource, parts = schema.GroupVersionResource{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		q.Resource, parts = schema.GroupVersionResource{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "there is nothing at "+r.URL.Path, 0, false)
	}
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
		q.Namespace, parts = parts[1], parts[2:]
	}
	q.Resource.Resource = parts[0]
	if len(parts) > 1 {
		q.Name = parts[1]
	}
	if len(parts) > 2 {
		q.Subresource = parts[2]
	}
	if q.resource = s.byGVR[q.Resource]; q.resource == nil || len(parts) > 3 {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, q.Resource.GroupResource(), q.Name, "there is nothing at "+r.URL.Path, 0, false)
	}
	switch r.Method {
	case http.MethodGet:
		q.Verb = "get"
		if w := r.URL.Query().Get("watch"); w == "true" || w == "1" {
			q.Verb = "watch"
		} else if q.Name == "" {
			q.Verb = "list"
		}
	case http.MethodPost:
		q.Verb = "create"
	case http.MethodPut:
		q.Verb = "update"
	case http.MethodPatch:
		q.Verb = "patch"
	case http.MethodDelete:
		q.Verb = "delete"
		if q.Name == "" {
			q.Verb = "deletecollection"
		}
	default:
		return nil, apierrors.NewMethodNotSupported(q.Resource.GroupResource(), r.Method)
	}
	if r.Body == nil {
		return q, nil
	}
	var err error
	if q.body, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1)); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(q.body) > maxBody {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if r.Method == http.MethodDelete && len(q.body) > 0 {
		if _, _, err := s.codecs.UniversalDeserializer().Decode(q.body, &schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}, &q.options); err != nil {
			if err := json.Unmarshal(q.body, &q.options); err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
		}
	}
	return q, nil
}

// handle carries out a request.
func (s *Server) handle(q *request) (answer, error) {
	switch q.Verb {
	case "get":
		o, ok := s.Get(q.Resource, q.Namespace, q.Name)
		if !ok {
			return answer{}, apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
		}
		if q.Subresource == "scale" {
			o = scaleOf(o)
		}
		return answer{status: http.StatusOK, object: o}, nil
	case "list":
		return s.handleList(q)
	case "watch":
		return s.handleWatch(q)
	case "create":
		return s.handleCreate(q)
	case "update":
		o, err := s.decode(q)
		if err != nil {
			return answer{}, err
		}
		if scale, ok := o.(*autoscalingv1.Scale); ok {
			o, err = s.rescale(q, scale)
			return answer{status: http.StatusOK, object: o}, err
		}
		o, err = s.update(q.resource, o, q.Subresource, q.Client, "update")
		return answer{status: http.StatusOK, object: o}, err
	case "patch":
		return s.handlePatch(q)
	case "delete":
		o, err := s.remove(q.resource, q.Namespace, q.Name, &q.options, q.Client, "delete")
		return answer{status: http.StatusOK, object: o}, err
	default: // deletecollection
		keep, err := selection(q)
		if err != nil {
			return answer{}, err
		}
		for _, o := range s.list(q.Resource) {
			if m := accessor(o); keep(o) && (q.Namespace == "" || m.GetNamespace() == q.Namespace) {
				if _, err := s.remove(q.resource, m.GetNamespace(), m.GetName(), &q.options, q.Client, "delete"); err != nil && !apierrors.IsNotFound(err) {
					return answer{}, err
				}
			}
		}
		return success(http.StatusOK), nil
	}
}

func success(status int) answer {
	return answer{status: status, body: &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}}
}

// decode reads the object of a request and gives it the namespace and name of the
// path.
func (s *Server) decode(q *request) (runtime.Object, error) {
	kind := q.resource.gvk()
	o, _, err := s.codecs.UniversalDeserializer().Decode(q.body, &kind, nil)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if q.resource.namespaced {
		m.SetNamespace(q.Namespace)
	}
	if q.Name != "" {
		m.SetName(q.Name)
	}
	return o, nil
}

func (s *Server) handleCreate(q *request) (answer, error) {
	o, err := s.decode(q)
	if err != nil {
		return answer{}, err
	}
	switch t := o.(type) {
	case *corev1.Binding:
		return success(http.StatusCreated), s.bind(q, t)
	case *policyv1.Eviction:
		if err := s.evict(q, t); err != nil {
			return answer{}, err
		}
		return success(http.StatusCreated), nil
	}
	if q.Subresource != "" {
		return answer{}, apierrors.NewMethodNotSupported(q.Resource.GroupResource(), "create "+q.Subresource)
	}
	if want := q.resource.gvk(); o.GetObjectKind().GroupVersionKind() != want {
		return answer{}, apierrors.NewBadRequest(fmt.Sprintf("the object is a %s, the path is of %s", o.GetObjectKind().GroupVersionKind(), want))
	}
	o, err = s.create(q.resource, o, q.Client, dryRun(q))
	return answer{status: http.StatusCreated, object: o}, err
}

func dryRun(q *request) bool { return q.http.URL.Query().Get("dryRun") != "" }

// bind gives a pod its node.
func (s *Server) bind(q *request, b *corev1.Binding) error {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := q.resource.objects[key(q.Namespace, q.Name)].(*corev1.Pod)
	if !ok {
		return apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
	}
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(q.Resource.GroupResource(), q.Name, fmt.Errorf(format, args...))
	}
	switch {
	case old.DeletionTimestamp != nil:
		return conflict("pod %s is being deleted, cannot be assigned to a host", q.Name)
	case old.Spec.NodeName != "":
		return conflict("pod %s is already assigned to node %q", q.Name, old.Spec.NodeName)
	case len(old.Spec.SchedulingGates) > 0:
		return conflict("pod %s has non-empty .spec.schedulingGates", q.Name)
	}
	p := old.DeepCopy()
	p.Spec.NodeName = b.Target.Name
	p.Status.NominatedNodeName = ""
	conditions := p.Status.Conditions[:0]
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			conditions = append(conditions, c)
		}
	}
	p.Status.Conditions = append(conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now()})
	s.commit(q.resource, Event{Type: "MODIFIED", Object: p, Old: old, Client: q.Client, Verb: "bind"})
	return nil
}

// scaleOf returns the scale of a workload.
func scaleOf(o runtime.Object) *autoscalingv1.Scale {
	m := accessor(o)
	out := &autoscalingv1.Scale{
		TypeMeta:   metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
		ObjectMeta: metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion()},
	}
	if r, ok := structField(o, "Spec").FieldByName("Replicas").Interface().(*int32); ok && r != nil {
		out.Spec.Replicas = *r
	}
	if f := structField(o, "Status").FieldByName("Replicas"); f.IsValid() {
		out.Status.Replicas = int32(f.Int())
	}
	return out
}

// rescale sets the replicas of a workload.
func (s *Server) rescale(q *request, scale *autoscalingv1.Scale) (runtime.Object, error) {
	old, ok := s.Get(q.Resource, q.Namespace, q.Name)
	if !ok || !q.resource.scale {
		return nil, apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
	}
	next := old.DeepCopyObject()
	accessor(next).SetResourceVersion(scale.ResourceVersion)
	replicas := scale.Spec.Replicas
	structField(next, "Spec").FieldByName("Replicas").Set(reflectValue(&replicas))
	next, err := s.update(q.resource, next, "", q.Client, "update")
	if err != nil {
		return nil, err
	}
	return scaleOf(next), nil
}

// handlePatch applies a patch. Patches without a resource version are tried again when
// the object changes in the meantime, as in the API server.
func (s *Server) handlePatch(q *request) (answer, error) {
	defer s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := q.resource
	old, ok := r.objects[key(q.Namespace, q.Name)]
	apply := types.PatchType(q.http.Header.Get("Content-Type")) == types.ApplyPatchType
	if !ok && apply && q.Subresource == "" {
		return s.createByApply(q)
	}
	if !ok {
		return answer{}, apierrors.NewNotFound(q.Resource.GroupResource(), q.Name)
	}
	next, err := patched(q, old)
	if err != nil {
		return answer{}, err
	}
	if q.Subresource == "scale" {
		return answer{}, apierrors.NewMethodNotSupported(q.Resource.GroupResource(), "patch scale")
	}
	if dryRun(q) {
		return answer{status: http.StatusOK, object: next}, nil
	}
	next, err = s.updateLocked(r, next, q.Subresource, q.Client, "patch")
	return answer{status: http.StatusOK, object: next}, err
}

func (s *Server) createByApply(q *request) (answer, error) {
	s.mu.Unlock()
	defer s.mu.Lock()
	text, err := toJSON(q.body)
	if err != nil {
		return answer{}, err
	}
	q.body = text
	o, err := s.decode(q)
	if err != nil {
		return answer{}, err
	}
	o, err = s.create(q.resource, o, q.Client, dryRun(q))
	return answer{status: http.StatusCreated, object: o}, err
}

// patched returns an object with the patch of a request applied.
func patched(q *request, old runtime.Object) (runtime.Object, error) {
	before, err := json.Marshal(old)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	body, kind := q.body, types.PatchType(q.http.Header.Get("Content-Type"))
	if kind == types.ApplyPatchType {
		if body, err = toJSON(body); err != nil {
			return nil, err
		}
		kind = types.StrategicMergePatchType
	}
	if kind == types.StrategicMergePatchType && q.resource.custom != nil {
		kind = types.MergePatchType
	}
	var after []byte
	switch kind {
	case types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(body); err == nil {
			after, err = p.Apply(before)
		}
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, body)
	case types.StrategicMergePatchType:
		after, err = strategicpatch.StrategicMergePatch(before, body, old)
	default:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "patch", q.Resource.GroupResource(), q.Name, "unknown patch type "+string(kind), 0, false)
	}
	if err != nil {
		return nil, apierrors.NewInvalid(q.resource.gvk().GroupKind(), q.Name, nil)
	}
	next := newLike(old)
	if err := json.Unmarshal(after, next); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	m := accessor(next)
	m.SetNamespace(accessor(old).GetNamespace())
	m.SetName(q.Name)
	return next, nil
}
