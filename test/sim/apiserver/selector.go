// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
)

// selector says which objects of a resource a list or watch asks for.
type selector struct {
	namespace string
	labels    labels.Selector // nil: all
	fields    []fields.Requirement
}

// newSelector reads the selectors of a request.
func newSelector(r *resource, namespace, name string, values url.Values) (*selector, error) {
	sel := &selector{namespace: namespace}
	if text := values.Get("labelSelector"); text != "" {
		l, err := labels.Parse(text)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to parse the label selector %q: %v", text, err))
		}
		if !l.Empty() {
			sel.labels = l
		}
	}
	if text := values.Get("fieldSelector"); text != "" {
		f, err := fields.ParseSelector(text)
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to parse the field selector %q: %v", text, err))
		}
		sel.fields = f.Requirements()
	}
	if name != "" {
		sel.fields = append(sel.fields, fields.Requirement{Operator: selection.Equals, Field: "metadata.name", Value: name})
	}
	for _, f := range sel.fields {
		if r.typ == nil {
			break // any path may exist
		}
		if _, ok := valueAt(reflect.New(r.typ), strings.Split(fieldPath(f.Field), ".")); !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %s", f.Field))
		}
	}
	return sel, nil
}

// matches reports whether an object is selected.
func (s *selector) matches(o *object) bool {
	m := o.meta()
	if s.namespace != "" && m.GetNamespace() != s.namespace {
		return false
	}
	for _, f := range s.fields {
		if (fieldOf(o.obj, f.Field) == f.Value) == (f.Operator == selection.NotEquals) {
			return false
		}
	}
	return s.labels == nil || s.labels.Matches(labels.Set(m.GetLabels()))
}

// fieldPath returns where a field that selectors name is in the object.
func fieldPath(name string) string {
	if name == "source" { // of events
		return "source.component"
	}
	return name
}

// fieldOf returns a field of an object as text. What is not there is empty.
func fieldOf(o runtime.Object, name string) string {
	m := accessor(o)
	switch name {
	case "metadata.name":
		return m.GetName()
	case "metadata.namespace":
		return m.GetNamespace()
	}
	if p, ok := o.(*corev1.Pod); ok {
		switch name {
		case "spec.nodeName":
			return p.Spec.NodeName
		case "status.phase":
			return string(p.Status.Phase)
		case "spec.schedulerName":
			return p.Spec.SchedulerName
		}
	}
	path := strings.Split(fieldPath(name), ".")
	if u, ok := o.(*unstructured.Unstructured); ok {
		v, found, err := unstructured.NestedFieldNoCopy(u.Object, path...)
		if !found || err != nil || v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	text, _ := valueAt(reflect.ValueOf(o), path)
	return text
}

// valueAt returns the value at a path of JSON names as text, and whether the type has
// such a path, to something other than a struct or list.
func valueAt(v reflect.Value, path []string) (string, bool) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v = reflect.Zero(v.Type().Elem())
		} else {
			v = v.Elem()
		}
	}
	if len(path) == 0 {
		switch v.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64:
			return fmt.Sprint(v.Interface()), true
		}
		return "", false
	}
	if v.Kind() != reflect.Struct {
		return "", false
	}
	for i := range v.NumField() {
		name, rest, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" && strings.Contains(rest, "inline") {
			if text, ok := valueAt(v.Field(i), path); ok {
				return text, true
			}
		}
		if name == path[0] {
			return valueAt(v.Field(i), path[1:])
		}
	}
	return "", false
}
