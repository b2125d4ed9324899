// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Doc is a JSON object as sent by a client, with known and unknown properties.
type Doc map[string]any

// Clone returns a deep copy.
func (d Doc) Clone() Doc {
	if d == nil {
		return Doc{}
	}
	return Doc(cloneAny(map[string]any(d)).(map[string]any))
}

func cloneAny(v any) any {
	switch t := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(t))
		for k, x := range t {
			m[k] = cloneAny(x)
		}
		return m
	case Doc:
		return cloneAny(map[string]any(t))
	case []any:
		s := make([]any, len(t))
		for i, x := range t {
			s[i] = cloneAny(x)
		}
		return s
	}
	return v
}

// Lookup returns the value at a path. Names are matched without regard to case.
func (d Doc) Lookup(path ...string) (any, bool) {
	var cur any = map[string]any(d)
	for _, p := range path {
		m, ok := asMap(cur)
		if !ok {
			return nil, false
		}
		k, ok := findKey(m, p)
		if !ok {
			return nil, false
		}
		cur = m[k]
	}
	return cur, true
}

func asMap(v any) (map[string]any, bool) {
	switch t := v.(type) {
	case map[string]any:
		return t, t != nil
	case Doc:
		return t, t != nil
	}
	return nil, false
}

func findKey(m map[string]any, name string) (string, bool) {
	if _, ok := m[name]; ok {
		return name, true
	}
	for k := range m {
		if strings.EqualFold(k, name) {
			return k, true
		}
	}
	return "", false
}

// Str returns the string at a path, or "".
func (d Doc) Str(path ...string) string {
	v, _ := d.Lookup(path...)
	s, _ := v.(string)
	return s
}

// Bool returns the boolean at a path, or false.
func (d Doc) Bool(path ...string) bool {
	v, _ := d.Lookup(path...)
	b, _ := v.(bool)
	return b
}

// Int returns the integer at a path; false if it is absent or not an integer.
func (d Doc) Int(path ...string) (int, bool) {
	v, ok := d.Lookup(path...)
	if !ok {
		return 0, false
	}
	switch n := v.(type) {
	case float64:
		return int(n), n == float64(int(n))
	case int:
		return n, true
	case int64:
		return int(n), true
	case json.Number:
		i, err := n.Int64()
		return int(i), err == nil
	}
	return 0, false
}

// Map returns the object at a path, or nil.
func (d Doc) Map(path ...string) Doc {
	v, _ := d.Lookup(path...)
	m, _ := asMap(v)
	return m
}

// List returns the array at a path, or nil.
func (d Doc) List(path ...string) []any {
	v, _ := d.Lookup(path...)
	l, _ := v.([]any)
	return l
}

// Strings returns the strings in the array at a path.
func (d Doc) Strings(path ...string) []string {
	var out []string
	for _, v := range d.List(path...) {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Set writes a value at a path and creates missing objects on the way.
func (d Doc) Set(value any, path ...string) {
	m := map[string]any(d)
	for _, p := range path[:len(path)-1] {
		k, ok := findKey(m, p)
		if !ok {
			k = p
		}
		next, ok := asMap(m[k])
		if !ok {
			next = map[string]any{}
			m[k] = next
		}
		m = next
	}
	last := path[len(path)-1]
	if k, ok := findKey(m, last); ok {
		last = k
	}
	m[last] = value
}

// Default writes a value at a path that is absent, null or the empty string.
func (d Doc) Default(value any, path ...string) {
	if v, ok := d.Lookup(path...); ok && v != nil && v != "" {
		return
	}
	d.Set(value, path...)
}

// Canonicalize writes the string at a path as it is spelt in allowed. It reports
// whether allowed has it, in any case; if not, nothing is changed.
func (d Doc) Canonicalize(allowed []string, path ...string) bool {
	got := d.Str(path...)
	for _, a := range allowed {
		if strings.EqualFold(a, got) {
			d.Set(a, path...)
			return true
		}
	}
	return false
}

// Anys returns a list as it is stored in a document.
func Anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// Drop removes the value at a path.
func (d Doc) Drop(path ...string) {
	m := map[string]any(d)
	for _, p := range path[:len(path)-1] {
		k, ok := findKey(m, p)
		if !ok {
			return
		}
		if m, ok = asMap(m[k]); !ok {
			return
		}
	}
	if k, ok := findKey(m, path[len(path)-1]); ok {
		delete(m, k)
	}
}

// Into decodes the document into a model, such as an SDK type. Properties that the
// model lacks are ignored.
func (d Doc) Into(v any) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encoding the document: %w", err)
	}
	return json.Unmarshal(b, v)
}

// ToDoc converts a value that encodes to a JSON object.
func ToDoc(v any) (Doc, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	var d Doc
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	return d, nil
}

// opaque are the objects whose keys belong to the user. A PUT replaces them as a
// whole; all other objects are merged.
var opaque = map[string]bool{
	"tags": true, "nodelabels": true, "userassignedidentities": true, "parameters": true, "template": true,
	"customheaders": true, "addressspace": true,
}

// MergePut returns the document after a PUT of sent on stored: a missing property
// keeps its stored value, so that a client of an API version without it does not
// erase it; null clears it; arrays and opaque objects are replaced.
func MergePut(stored, sent Doc) Doc {
	return Doc(mergeMap(stored, sent, false))
}

// MergePatch returns the document after a PATCH (RFC 7386): as MergePut, but
// opaque objects are merged too, except tags, which ARM replaces.
func MergePatch(stored, sent Doc) Doc {
	return Doc(mergeMap(stored, sent, true))
}

func mergeMap(stored, sent map[string]any, patch bool) map[string]any {
	out := make(map[string]any, len(stored)+len(sent))
	for k, v := range stored {
		out[k] = cloneAny(v)
	}
	for k, v := range sent {
		key, had := findKey(out, k)
		if !had {
			key = k
		}
		if v == nil {
			delete(out, key)
			continue
		}
		lower := strings.ToLower(k)
		sm, isMap := asMap(v)
		old, oldMap := asMap(out[key])
		if isMap && oldMap && (!opaque[lower] || (patch && lower != "tags")) {
			out[key] = mergeMap(old, sm, patch)
			continue
		}
		if isMap {
			out[key] = mergeMap(nil, sm, patch)
			continue
		}
		out[key] = cloneAny(v)
	}
	return out
}
