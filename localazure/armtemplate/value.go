// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"math"
	"strconv"
	"strings"
)

// Values of the expression language: nil, bool, int64, float64, string,
// []any, *object, and *lambda (only as an argument).

// object is a JSON object that keeps the order of its keys. Lookup prefers a key
// in the same case and otherwise ignores case, as ARM does.
type object struct {
	keys []string
	m    map[string]any
}

func newObject() *object { return &object{m: map[string]any{}} }

func (o *object) set(k string, v any) {
	if _, ok := o.m[k]; !ok {
		o.keys = append(o.keys, k)
	}
	o.m[k] = v
}

func (o *object) get(k string) (any, bool) {
	if v, ok := o.m[k]; ok {
		return v, true
	}
	for _, have := range o.keys {
		if strings.EqualFold(have, k) {
			return o.m[have], true
		}
	}
	return nil, false
}

func obj(kv ...any) *object {
	o := newObject()
	for i := 0; i+1 < len(kv); i += 2 {
		o.set(kv[i].(string), kv[i+1])
	}
	return o
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "Null"
	case bool:
		return "Boolean"
	case int64:
		return "Integer"
	case float64:
		return "Float"
	case string:
		return "String"
	case []any:
		return "Array"
	case *object:
		return "Object"
	case *lambda:
		return "Lambda"
	}
	return "Unknown"
}

// literal returns the value of a node without evaluating expressions.
func literal(n *node) any {
	switch n.kind {
	case kindBool:
		return n.bool
	case kindNumber:
		return number(n.str)
	case kindString:
		return n.str
	case kindArray:
		out := make([]any, len(n.elems))
		for i, e := range n.elems {
			out[i] = literal(e)
		}
		return out
	case kindObject:
		o := newObject()
		for _, m := range n.members {
			o.set(m.key, literal(m.val))
		}
		return o
	}
	return nil
}

func number(s string) any {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(s, 64) // infinity if out of range, which encode rejects
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 && !strings.ContainsAny(s, ".") {
		return int64(f)
	}
	return f
}

// fromJSON decodes JSON, also with comments, into a value.
func fromJSON(b []byte) (any, error) {
	n, err := readJSON(b, false)
	if err != nil {
		return nil, err
	}
	return literal(n), nil
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// compare compares two numbers, or two strings by code point.
func compare(a, b any) (int, error) {
	if as, ok := a.(string); ok {
		if bs, ok := b.(string); ok {
			return strings.Compare(as, bs), nil
		}
	}
	x, okx := toFloat(a)
	y, oky := toFloat(b)
	if !okx || !oky {
		return 0, failf("%s and %s cannot be ordered: two numbers or two strings are expected", typeName(a), typeName(b))
	}
	if ai, ok := a.(int64); ok {
		if bi, ok := b.(int64); ok {
			switch {
			case ai < bi:
				return -1, nil
			case ai > bi:
				return 1, nil
			}
			return 0, nil
		}
	}
	switch {
	case x < y:
		return -1, nil
	case x > y:
		return 1, nil
	}
	return 0, nil
}

// equal reports whether equals() is true for two values: strings are
// case-sensitive, numbers are equal by value, the order of keys is ignored.
func (m *meter) equal(a, b any, depth int) (bool, error) {
	if depth > maxValueDepth {
		return false, failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	if err := m.step(1); err != nil {
		return false, err
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for i := range a {
			if eq, err := m.equal(a[i], b[i], depth+1); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case *object:
		b, ok := b.(*object)
		if !ok || len(a.keys) != len(b.keys) {
			return false, nil
		}
		for _, k := range a.keys {
			bv, ok := b.get(k)
			if !ok {
				return false, nil
			}
			if eq, err := m.equal(a.m[k], bv, depth+1); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case int64:
		if f, ok := b.(float64); ok {
			return float64(a) == f, nil
		}
	case float64:
		if i, ok := b.(int64); ok {
			return a == float64(i), nil
		}
	case *lambda:
		return false, failf("a lambda cannot be compared")
	}
	if _, ok := b.([]any); ok {
		return false, nil
	}
	if _, ok := b.(*object); ok {
		return false, nil
	}
	return a == b, nil
}
