// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// maxBody bounds the size of a request, as in the API server.
const maxBody = 3 << 20

// request is a parsed request.
type request struct {
	Call
	ctx       context.Context
	resource  *resource
	values    url.Values
	format    format
	mediaType string // of the body
	body      []byte
}

func (q *request) actor() actor { return actor{client: q.Client, verb: q.Verb} }

func (q *request) dryRun() bool { return q.values.Get("dryRun") == metav1.DryRunAll }

func (q *request) watches() bool {
	w := q.values.Get("watch")
	return w == "true" || w == "1"
}

// parse reads a request.
func (s *Server) parse(r *http.Request, client string) (*request, error) {
	q := &request{Call: Call{Client: client}, ctx: r.Context()}
	if err := q.parsePath(r.URL.Path); err != nil {
		return nil, err
	}
	if q.resource = s.lookup(q.Resource); q.resource == nil || q.Namespace != "" && !q.resource.namespaced {
		return nil, notServed(q.Resource)
	}
	var err error
	if q.values, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("reading the query: %v", err))
	}
	switch r.Method {
	case http.MethodGet:
		switch q.Verb = "get"; {
		case q.watches():
			q.Verb = "watch"
		case q.Name == "":
			q.Verb = "list"
		}
	case http.MethodPost:
		q.Verb = "create"
	case http.MethodPut:
		q.Verb = "update"
	case http.MethodPatch:
		q.Verb = "patch"
	case http.MethodDelete:
		if q.Verb = "delete"; q.Name == "" {
			q.Verb = "deletecollection"
		}
	default:
		return nil, apierrors.NewMethodNotSupported(q.Resource.GroupResource(), r.Method)
	}
	if q.format, err = negotiate(r.Header.Get("Accept"), q.resource.proto); err != nil {
		return nil, err
	}
	if !q.known() {
		return nil, notServed(q.Resource)
	}
	return q, q.readBody(r)
}

// parsePath finds the resource, and which object and subresource are meant.
func (q *request) parsePath(path string) error {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		q.Resource, parts = schema.GroupVersionResource{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		q.Resource, parts = schema.GroupVersionResource{Group: parts[1], Version: parts[2]}, parts[3:]
	default:
		return notServed(q.Resource)
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
	if len(parts) > 3 || slices.Contains(parts, "") {
		return notServed(q.Resource)
	}
	return nil
}

// known reports whether the verb and the subresource go together.
func (q *request) known() bool {
	r, pod := q.resource, q.resource.gvk.Kind == "Pod" && q.Resource.Group == ""
	named := q.Name != ""
	if q.resource.namespaced && named && q.Namespace == "" {
		return false
	}
	switch q.Subresource {
	case "":
		switch q.Verb {
		case "create":
			return !named && (q.Namespace != "" || !r.namespaced)
		case "update", "patch":
			return named
		}
		return true
	case "status":
		return r.status && (q.Verb == "get" || q.Verb == "update" || q.Verb == "patch")
	case "scale":
		return r.scale && (q.Verb == "get" || q.Verb == "update" || q.Verb == "patch")
	case "binding", "eviction":
		return pod && q.Verb == "create"
	case "resize":
		return pod && (q.Verb == "get" || q.Verb == "update" || q.Verb == "patch")
	case "finalize":
		return q.Resource == namespaces && q.Verb == "update"
	}
	return false
}

func (q *request) readBody(r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	var err error
	if q.body, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1)); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("reading the body: %v", err))
	}
	if len(q.body) > maxBody {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
	}
	if text := r.Header.Get("Content-Type"); text != "" {
		if q.mediaType, _, err = mime.ParseMediaType(text); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("reading the content type %q: %v", text, err))
		}
	}
	return nil
}

var (
	scaleKind    = autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	bindingKind  = corev1.SchemeGroupVersion.WithKind("Binding")
	evictionKind = policyv1.SchemeGroupVersion.WithKind("Eviction")
)

// decode reads the body into an empty object, which must be of the kind that it says
// it is, if it does.
func (q *request) decode(into runtime.Object) error {
	want := into.GetObjectKind().GroupVersionKind()
	if len(q.body) == 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("the body is empty, a %s is expected", want.Kind))
	}
	switch q.mediaType {
	case runtime.ContentTypeProtobuf:
		m, ok := into.(protoMessage)
		if !ok {
			return unsupported(q)
		}
		u, err := open(q.body)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		if err := m.Unmarshal(u.Raw); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("reading the %s: %v", want.Kind, err))
		}
		into.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(u.APIVersion, u.Kind))
	case runtime.ContentTypeJSON, "application/yaml", "":
		text, err := toJSON(q.body, q.mediaType)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("reading the YAML: %v", err))
		}
		if err := q.resource.unmarshal(text, into); err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("reading the %s: %v", want.Kind, err))
		}
	default:
		return unsupported(q)
	}
	have := into.GetObjectKind().GroupVersionKind()
	if have.Empty() {
		into.GetObjectKind().SetGroupVersionKind(want)
	} else if have != want {
		return apierrors.NewBadRequest(fmt.Sprintf("the object is a %s in %s, the path is of %s in %s", have.Kind, have.GroupVersion(), want.Kind, want.GroupVersion()))
	}
	return nil
}

func unsupported(q *request) error {
	return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, q.Verb, q.Resource.GroupResource(), q.Name,
		fmt.Sprintf("the body of the request was in an unsupported format (%s)", q.mediaType), 0, false)
}

// deleteOptions reads the options of a deletion, from the body and the query.
func (q *request) deleteOptions() (metav1.DeleteOptions, error) {
	var o metav1.DeleteOptions
	var err error
	switch {
	case len(q.body) == 0:
	case q.mediaType == runtime.ContentTypeProtobuf:
		var u *runtime.Unknown
		if u, err = open(q.body); err == nil {
			err = o.Unmarshal(u.Raw)
		}
	default:
		err = utiljson.Unmarshal(q.body, &o)
	}
	if v := q.values.Get("gracePeriodSeconds"); v != "" && err == nil && o.GracePeriodSeconds == nil {
		err = json.Unmarshal([]byte(v), &o.GracePeriodSeconds)
	}
	if v := q.values.Get("propagationPolicy"); v != "" && o.PropagationPolicy == nil {
		p := metav1.DeletionPropagation(v)
		o.PropagationPolicy = &p
	}
	if err != nil {
		return o, apierrors.NewBadRequest(fmt.Sprintf("reading the DeleteOptions: %v", err))
	}
	if slices.Contains(o.DryRun, metav1.DryRunAll) {
		q.values.Set("dryRun", metav1.DryRunAll)
	}
	return o, nil
}

// bodyObject reads the body as an object of the resource, at the path's name.
func (q *request) bodyObject() (runtime.Object, error) {
	o := q.resource.newObject()
	if err := q.decode(o); err != nil {
		return nil, err
	}
	m := accessor(o)
	switch ns := m.GetNamespace(); {
	case !q.resource.namespaced || ns == q.Namespace:
	case ns == "":
		m.SetNamespace(q.Namespace)
	default:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the namespace of the provided object does not match the namespace sent on the request (%s, %s)", ns, q.Namespace))
	}
	return o, nil
}
