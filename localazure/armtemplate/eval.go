// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"strconv"
	"strings"
	"sync"
)

// env holds what the expressions of one template can refer to.
type env struct {
	t       *Template
	in      Input
	meter   *meter
	rt      Runtime // nil during Expand
	graph   *Graph  // set once resources are known
	exprs   *sync.Map
	given   map[string]any // parameter values of the request, by lower-case name
	params  map[string]any // evaluated, by lower-case name
	vars    map[string]any
	busy    map[string]bool // variables and parameters being evaluated: cycles
	keep    bool            // keep expressions that need a Runtime as text
	skipped bool            // an expression was kept
}

// frame is the scope of an expression: its loops, user function and lambdas.
type frame struct {
	*env
	loops     []loop
	args      map[string]any // parameters of the user function
	bound     *binding
	inDefault bool // in the default value of a parameter: utcNow and newGuid are allowed
	escape    bool // produce template text: escape strings that look like expressions
}

type loop struct {
	name     string
	index    int64
	resource bool
}

// binding is a lambda variable in scope.
type binding struct {
	name  string
	value any
	next  *binding
}

// lambda is a function value.
type lambda struct {
	params []string
	body   *expr
	frame  *frame
}

func (f *frame) push(name string, index int64, resource bool) *frame {
	g := *f
	g.loops = append(f.loops[:len(f.loops):len(f.loops)], loop{name, index, resource})
	return &g
}

// value evaluates a node of the template: the expressions in its strings and
// keys, and the property loops in its objects.
func (f *frame) value(n *node) (any, error) {
	if n == nil {
		return nil, nil
	}
	if err := f.meter.step(1); err != nil {
		return nil, at(n, err)
	}
	switch n.kind {
	case kindString:
		return f.text(n)
	case kindArray:
		out := make([]any, 0, len(n.elems))
		if err := f.meter.grow(16 * len(n.elems)); err != nil {
			return nil, at(n, err)
		}
		for i, e := range n.elems {
			v, err := f.value(e)
			if err != nil {
				return nil, under("["+strconv.Itoa(i)+"]", err)
			}
			out = append(out, v)
		}
		return out, nil
	case kindObject:
		o := newObject()
		for _, m := range n.members {
			if err := f.member(o, m); err != nil {
				return nil, err
			}
		}
		return o, nil
	}
	return literal(n), nil
}

func (f *frame) member(o *object, m member) error {
	if strings.EqualFold(m.key, "copy") && isPropertyLoop(m.val) {
		return under("."+m.key, f.propertyLoops(o, m.val))
	}
	key := m.key
	if isExpression(key) {
		v, err := f.expression(key)
		if err != nil {
			if f.keep && errors.Is(err, errDeferred) {
				f.skipped = true
				v = key
			} else {
				return under("."+key, at(m.val, err))
			}
		}
		s, ok := v.(string)
		if !ok {
			return under("."+key, at(m.val, failf("a property name must be a string, not %s", typeName(v))))
		}
		key = s
	} else {
		key = unescape(key)
	}
	v, err := f.value(m.val)
	if err != nil {
		return under("."+m.key, err)
	}
	if err := f.meter.grow(len(key) + 48); err != nil {
		return at(m.val, err)
	}
	o.set(key, v)
	return nil
}

func (f *frame) text(n *node) (any, error) {
	if !isExpression(n.str) {
		s := unescape(n.str)
		if f.escape {
			s = escapeLiteral(s)
		}
		return s, nil
	}
	v, err := f.expression(n.str)
	if err != nil {
		if f.keep && errors.Is(err, errDeferred) {
			f.skipped = true
			return n.str, nil
		}
		return nil, at(n, err)
	}
	if f.escape {
		if v, err = f.meter.escapeAll(v, 0); err != nil {
			return nil, at(n, err)
		}
	}
	return v, nil
}

// escapeAll escapes all strings in a computed value that look like expressions.
func (m *meter) escapeAll(v any, depth int) (any, error) {
	if err := m.step(1); err != nil {
		return nil, err
	}
	if depth > maxValueDepth {
		return nil, failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	switch v := v.(type) {
	case string:
		return escapeLiteral(v), nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			var err error
			if out[i], err = m.escapeAll(e, depth+1); err != nil {
				return nil, err
			}
		}
		return out, m.grow(16 * len(v))
	case *object:
		out := newObject()
		for _, k := range v.keys {
			e, err := m.escapeAll(v.m[k], depth+1)
			if err != nil {
				return nil, err
			}
			out.set(escapeLiteral(k), e)
		}
		return out, m.grow(64 * len(v.keys))
	}
	return v, nil
}

// isPropertyLoop reports whether the value of a property named copy is a
// property loop.
func isPropertyLoop(n *node) bool {
	if n == nil || n.kind != kindArray || len(n.elems) == 0 {
		return false
	}
	for _, e := range n.elems {
		if e.kind != kindObject || e.get("name") == nil || e.get("count") == nil || e.get("input") == nil {
			return false
		}
	}
	return true
}

func (f *frame) propertyLoops(o *object, n *node) error {
	for i, e := range n.elems {
		seg := "[" + strconv.Itoa(i) + "]"
		name, err := f.str(e.get("name"))
		if err != nil {
			return under(seg+".name", err)
		}
		count, err := f.loopCount(e.get("count"))
		if err != nil {
			return under(seg+".count", err)
		}
		items, err := f.unroll(name, count, e.get("input"))
		if err != nil {
			return under(seg+".input", err)
		}
		o.set(name, items)
	}
	return nil
}

func (f *frame) unroll(name string, count int64, input *node) ([]any, error) {
	items := make([]any, 0, count)
	if err := f.meter.grow(16 * int(count)); err != nil {
		return nil, err
	}
	for i := range count {
		v, err := f.push(name, i, false).value(input)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

// loopCount evaluates the number of iterations of a loop.
func (f *frame) loopCount(n *node) (int64, error) {
	if n == nil {
		return 0, failf("a copy loop has no 'count'")
	}
	v, err := f.value(n)
	if err != nil {
		return 0, err
	}
	c, ok := v.(int64)
	if !ok {
		return 0, at(n, failf("the count of a copy loop must be an integer, not %s", typeName(v)))
	}
	if c < 0 || c > MaxCopyCount {
		return 0, at(n, failf("the count of a copy loop is %d; it must be from 0 to %d", c, MaxCopyCount))
	}
	return c, nil
}

// str evaluates a node whose value must be a string.
func (f *frame) str(n *node) (string, error) {
	if n == nil {
		return "", failf("a string is missing")
	}
	v, err := f.value(n)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", at(n, failf("a string is expected, not %s", typeName(v)))
	}
	return s, nil
}
