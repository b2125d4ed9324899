// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// patch answers a PATCH. Without a resource version in it, a patch is applied to
// whatever is there. Server-side apply is a merge (strategic for built-in types) that
// creates what is missing; it removes nothing and knows no owners of fields.
func (s *Server) patch(q *request) (*answer, error) {
	kind := types.PatchType(q.mediaType)
	body := q.body
	if kind == types.ApplyYAMLPatchType {
		var err error
		if body, err = toJSON(body, "yaml"); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("reading the YAML: %v", err))
		}
		if s.find(q.resource, q.Namespace, q.Name) == nil && q.Subresource == "" {
			return s.createByApply(q, body)
		}
		kind = types.StrategicMergePatchType
		if q.resource.custom != nil {
			kind = types.MergePatchType
		}
	}
	o, err := s.modify(q.resource, q.Namespace, q.Name, q.actor(), q.dryRun(), func(old *object) (runtime.Object, error) {
		if q.Subresource == "scale" {
			return s.patchedScale(q, kind, body, old)
		}
		before, err := old.jsonBytes()
		if err != nil {
			return nil, err
		}
		var like any
		if q.resource.typ != nil {
			like = reflect.New(q.resource.typ).Interface()
		}
		after, err := q.patched(kind, before, body, like)
		if err != nil {
			return nil, err
		}
		next := q.resource.newObject()
		if err := q.resource.unmarshal(after, next); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the patched %s cannot be read: %v", q.resource.gvk.Kind, err))
		}
		if have := next.GetObjectKind().GroupVersionKind(); have != q.resource.gvk {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the patched object is a %s, it was a %s", have, q.resource.gvk))
		}
		return s.prepare(q.resource, next, old, q.Subresource, false)
	})
	if err != nil {
		return nil, err
	}
	return q.answer(http.StatusOK, o)
}

func (s *Server) createByApply(q *request, body []byte) (*answer, error) {
	create := *q
	create.body, create.mediaType = body, runtime.ContentTypeJSON
	work, err := create.bodyObject()
	if err != nil {
		return nil, err
	}
	if m := accessor(work); m.GetName() == "" {
		m.SetName(q.Name)
	} else if m.GetName() != q.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", m.GetName(), q.Name))
	}
	if v := accessor(work).GetResourceVersion(); v != "" {
		return nil, apierrors.NewConflict(q.Resource.GroupResource(), q.Name, fmt.Errorf("resource version %s was given for an object that does not exist", v))
	}
	o, err := s.create(q.resource, work, q.actor(), q.dryRun())
	if apierrors.IsAlreadyExists(err) {
		return s.patch(q) // somebody was faster
	}
	if err != nil {
		return nil, err
	}
	return q.answer(http.StatusCreated, o)
}

// patched applies a patch to JSON. like is an object of the Go type that says how
// strategic patches merge lists.
func (q *request) patched(kind types.PatchType, before, body []byte, like any) ([]byte, error) {
	var after []byte
	var err error
	switch {
	case kind == types.JSONPatchType:
		var p jsonpatch.Patch
		if p, err = jsonpatch.DecodePatch(body); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("reading the JSON patch: %v", err))
		}
		if after, err = p.Apply(before); err != nil {
			return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", q.Resource.GroupResource(), q.Name, fmt.Sprintf("applying the JSON patch: %v", err), 0, false)
		}
		return after, nil
	case kind == types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, body)
	case kind == types.StrategicMergePatchType && q.resource.custom == nil && like != nil:
		after, err = strategicpatch.StrategicMergePatch(before, body, like)
	default:
		return nil, unsupported(q)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("applying the patch: %v", err))
	}
	return after, nil
}

// scaleOf returns the scale of a workload.
func scaleOf(o *object) *autoscalingv1.Scale {
	m := o.meta()
	out := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{
		Namespace: m.GetNamespace(), Name: m.GetName(), UID: m.GetUID(), ResourceVersion: m.GetResourceVersion(), CreationTimestamp: m.GetCreationTimestamp(),
	}}
	out.SetGroupVersionKind(scaleKind)
	spec, status := part(o.obj, "Spec"), part(o.obj, "Status")
	if replicas, ok := spec.FieldByName("Replicas").Interface().(*int32); ok && replicas != nil {
		out.Spec.Replicas = *replicas
	}
	if f := status.FieldByName("Replicas"); f.IsValid() {
		out.Status.Replicas = int32(f.Int())
	}
	switch sel := spec.FieldByName("Selector").Interface().(type) {
	case *metav1.LabelSelector:
		out.Status.Selector = metav1.FormatLabelSelector(sel)
	case map[string]string:
		out.Status.Selector = metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: sel})
	}
	return out
}

func (s *Server) updateScale(q *request) (*answer, error) {
	scale := &autoscalingv1.Scale{}
	scale.SetGroupVersionKind(scaleKind)
	if err := q.decode(scale); err != nil {
		return nil, err
	}
	o, err := s.modify(q.resource, q.Namespace, q.Name, q.actor(), q.dryRun(), func(old *object) (runtime.Object, error) {
		return s.rescaled(q, old, scale)
	})
	if err != nil {
		return nil, err
	}
	return q.answer(http.StatusOK, o)
}

func (s *Server) patchedScale(q *request, kind types.PatchType, body []byte, old *object) (runtime.Object, error) {
	before, err := json.Marshal(scaleOf(old))
	if err != nil {
		return nil, err
	}
	after, err := q.patched(kind, before, body, &autoscalingv1.Scale{})
	if err != nil {
		return nil, err
	}
	scale := &autoscalingv1.Scale{}
	if err := json.Unmarshal(after, scale); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the patched Scale cannot be read: %v", err))
	}
	return s.rescaled(q, old, scale)
}

// rescaled returns a workload with the replicas of a scale.
func (s *Server) rescaled(q *request, old *object, scale *autoscalingv1.Scale) (runtime.Object, error) {
	if scale.Spec.Replicas < 0 {
		return nil, apierrors.NewInvalid(scaleKind.GroupKind(), q.Name, field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0")})
	}
	next := copyOf(old.work)
	m := accessor(next)
	m.SetResourceVersion(scale.ResourceVersion)
	if scale.UID != "" {
		m.SetUID(scale.UID)
	}
	replicas := scale.Spec.Replicas
	part(next, "Spec").FieldByName("Replicas").Set(reflect.ValueOf(&replicas))
	return s.prepare(q.resource, next, old, "", false)
}
