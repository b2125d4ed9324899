// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// protoMessage is an object that can be protobuf.
type protoMessage interface {
	runtime.Object
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// object is one committed state of an object. Nothing in it changes but the encodings,
// which are made when they are first needed.
type object struct {
	key     string         // namespace/name
	version int64          // of the change that made it
	obj     runtime.Object // as Go's type
	work    runtime.Object // as the server works on it: Unstructured for custom resources, obj for the rest

	json, proto atomic.Pointer[[]byte]
}

// newObject returns a state for an object, which it takes over, without a version yet.
func (r *resource) newState(work runtime.Object) (*object, error) {
	work.GetObjectKind().SetGroupVersionKind(r.gvk)
	m := accessor(work)
	m.SetManagedFields(nil)
	o := &object{key: key(m.GetNamespace(), m.GetName()), obj: work, work: work}
	if r.custom != nil && r.typ != nil {
		typed := reflect.New(r.typ).Interface()
		text, err := json.Marshal(work.(*unstructured.Unstructured).Object)
		if err != nil {
			return nil, fmt.Errorf("encoding %s %s: %w", r.gvk.Kind, m.GetName(), err)
		}
		if err := json.Unmarshal(text, typed); err != nil {
			return nil, fmt.Errorf("reading %s %s as %s: %w", r.gvk.Kind, m.GetName(), r.typ, err)
		}
		o.obj = typed.(runtime.Object)
	}
	return o, nil
}

// setVersion is called once, before anybody else sees the object.
func (o *object) setVersion(v int64) {
	o.version = v
	text := strconv.FormatInt(v, 10)
	accessor(o.obj).SetResourceVersion(text)
	if o.work != o.obj {
		accessor(o.work).SetResourceVersion(text)
	}
}

// meta returns the metadata, which must not be changed.
func (o *object) meta() metav1.Object { return accessor(o.obj) }

// accessor returns the metadata of an object. All types that are served have some.
func accessor(o runtime.Object) metav1.Object {
	m, err := meta.Accessor(o)
	if err != nil {
		panic(err)
	}
	return m
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// copyOf returns a copy of an object in the server's form, of which metadata, spec and
// status may be replaced, but nothing below them changed.
func copyOf(o runtime.Object) runtime.Object {
	if u, ok := o.(*unstructured.Unstructured); ok {
		content := make(map[string]any, len(u.Object))
		for k, v := range u.Object {
			content[k] = v
		}
		if m, ok := u.Object["metadata"].(map[string]any); ok {
			own := make(map[string]any, len(m))
			for k, v := range m {
				own[k] = v
			}
			content["metadata"] = own
		}
		return &unstructured.Unstructured{Object: content}
	}
	v := reflect.ValueOf(o).Elem()
	out := reflect.New(v.Type())
	out.Elem().Set(v)
	return out.Interface().(runtime.Object)
}

// sent returns what is left of an object when it has been sent to the server.
func (r *resource) sent(o runtime.Object) (runtime.Object, error) {
	out := r.newObject()
	if r.proto {
		if m, ok := o.(protoMessage); ok {
			raw, err := m.Marshal()
			if err != nil {
				return nil, err
			}
			return out, out.(protoMessage).Unmarshal(raw)
		}
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return out, r.unmarshal(text, out)
}

// unmarshal reads JSON into an empty object in the server's form.
func (r *resource) unmarshal(text []byte, into runtime.Object) error {
	if u, ok := into.(*unstructured.Unstructured); ok {
		var content map[string]any
		if err := utiljson.Unmarshal(text, &content); err != nil {
			return err
		}
		if content == nil {
			content = map[string]any{}
		}
		if _, ok := content["metadata"].(map[string]any); !ok {
			content["metadata"] = map[string]any{}
		}
		u.Object = content
		return nil
	}
	return utiljson.Unmarshal(text, into)
}

// part returns a part of an object, spec or status, or an invalid value if it has no
// such part.
func part(o runtime.Object, name string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(name)
}

// takeField gives an object the part of another of the same type.
func takeField(to, from runtime.Object, name string) {
	if f := part(to, name); f.IsValid() {
		f.Set(part(from, name))
	}
}

func clearField(o runtime.Object, name string) {
	if f := part(o, name); f.IsValid() {
		f.SetZero()
	}
}

// sameField reports whether a part of two objects is the same.
func sameField(a, b runtime.Object, name string) bool {
	x, y := part(a, name), part(b, name)
	return !x.IsValid() || equality.Semantic.DeepEqual(x.Interface(), y.Interface())
}

// same reports whether an object would be stored as it is already.
func (r *resource) same(next runtime.Object, old *object) bool {
	if u, ok := next.(*unstructured.Unstructured); ok {
		return reflect.DeepEqual(u.Object, old.work.(*unstructured.Unstructured).Object)
	}
	if r.proto {
		before, err := old.protoBytes()
		if err != nil {
			return false
		}
		after, err := next.(protoMessage).Marshal()
		return err == nil && string(before) == string(after)
	}
	return equality.Semantic.DeepEqual(next, old.work)
}
