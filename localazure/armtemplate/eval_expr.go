// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"errors"
	"strconv"
	"strings"
)

// expression evaluates an expression in brackets.
func (f *frame) expression(s string) (any, error) {
	e, err := f.parse(s)
	if err != nil {
		return nil, err
	}
	return f.eval(e)
}

func (e *env) parse(s string) (*expr, error) {
	if x, ok := e.exprs.Load(s); ok {
		return x.(*expr), nil
	}
	if err := e.meter.step(1 + len(s)/16); err != nil {
		return nil, err
	}
	x, err := parseExpr(s[1 : len(s)-1])
	if err != nil {
		return nil, err
	}
	e.exprs.Store(s, x)
	return x, nil
}

func (f *frame) eval(e *expr) (any, error) {
	if err := f.meter.step(1); err != nil {
		return nil, err
	}
	switch e.op {
	case opLiteral:
		return e.value, nil
	case opIndex:
		return f.access(e)
	}
	if lazy, ok := lazyFunctions[e.key]; ok {
		return lazy(f, e)
	}
	if strings.HasPrefix(e.key, "list") {
		if _, known := functions[e.key]; !known && needsRuntime(e.key) {
			return f.list(e)
		}
	}
	if strings.Contains(e.key, ".") {
		return f.userFunction(e)
	}
	fn, ok := functions[e.key]
	if !ok {
		return nil, failf("the template function '%s' is not valid", e.name)
	}
	if len(e.args) < fn.min || fn.max >= 0 && len(e.args) > fn.max {
		return nil, failf("the template function '%s' takes %s, not %d", e.name, arity(fn.min, fn.max), len(e.args))
	}
	args, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	for _, a := range args { // functions read their arguments
		n := 0
		switch a := a.(type) {
		case string:
			n = len(a) / 256
		case []any:
			n = len(a) / 4
		case *object:
			n = len(a.keys)
		}
		if err := f.meter.step(n); err != nil {
			return nil, err
		}
	}
	v, err := fn.call(f, args)
	if err != nil {
		return nil, prefixFunction(e.name, err)
	}
	return v, f.charge(v)
}

// charge counts the memory of a new value, without the values inside it.
func (f *frame) charge(v any) error {
	switch v := v.(type) {
	case string:
		return f.meter.grow(len(v))
	case []any:
		return f.meter.grow(16 * len(v))
	case *object:
		return f.meter.grow(64 * len(v.keys))
	}
	return nil
}

func prefixFunction(name string, err error) error {
	var ee *evalError
	if errors.As(err, &ee) && ee.off < 0 && ee.path == "" && !strings.HasPrefix(ee.msg, "evaluating the template") && !strings.HasPrefix(ee.msg, "the template function") {
		ee.msg = "the template function '" + name + "' failed: " + ee.msg
	}
	return err
}

func arity(lo, hi int) string {
	switch {
	case hi < 0:
		return "at least " + strconv.Itoa(lo) + " arguments"
	case lo == hi:
		return strconv.Itoa(lo) + " arguments"
	}
	return strconv.Itoa(lo) + " to " + strconv.Itoa(hi) + " arguments"
}

func (f *frame) evalAll(args []*expr) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := f.eval(a)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

// access evaluates x.key, x[key], x.?key and x[?key].
func (f *frame) access(e *expr) (any, error) {
	base, err := f.eval(e.of)
	if err != nil {
		return nil, err
	}
	key, err := f.eval(e.args[0])
	if err != nil {
		return nil, err
	}
	v, found, err := part(base, key)
	switch {
	case err != nil && !(e.safe && base == nil):
		return nil, err
	case found || e.safe:
		return v, nil
	}
	return nil, missing(base, key)
}

func part(base, key any) (v any, found bool, err error) {
	switch b := base.(type) {
	case *object:
		k, ok := key.(string)
		if !ok {
			return nil, false, failf("a property is named by a string, not %s", typeName(key))
		}
		v, found = b.get(k)
		return v, found, nil
	case []any:
		i, ok := key.(int64)
		if !ok {
			return nil, false, failf("an array is indexed by an integer, not %s", typeName(key))
		}
		if i < 0 || i >= int64(len(b)) {
			return nil, false, nil
		}
		return b[i], true, nil
	}
	return nil, false, failf("%s has no properties; cannot read '%v'", article(base), key)
}

func article(v any) string {
	if v == nil {
		return "null"
	}
	return "a value of type " + typeName(v)
}

func missing(base, key any) error {
	switch b := base.(type) {
	case *object:
		names := strings.Join(b.keys[:min(len(b.keys), 20)], ", ")
		return failf("the language expression property '%v' doesn't exist, available properties are '%s'", key, names)
	case []any:
		return failf("the language expression property array index '%v' is out of bounds: the array has %d elements", key, len(b))
	}
	return failf("'%v' doesn't exist", key)
}

// userFunction calls a function of the template's functions section.
func (f *frame) userFunction(e *expr) (any, error) {
	fn, ok := f.t.functions[e.key]
	if !ok {
		return nil, failf("the template function '%s' is not valid: no such function is defined in the template", e.name)
	}
	if len(e.args) != len(fn.params) {
		return nil, failf("the template function '%s' takes %d arguments, not %d", e.name, len(fn.params), len(e.args))
	}
	vals, err := f.evalAll(e.args)
	if err != nil {
		return nil, err
	}
	args := map[string]any{}
	for i, p := range fn.params {
		if err := f.checkType(p.val, vals[i], "argument '"+p.key+"' of '"+e.name+"'", 0); err != nil {
			return nil, err
		}
		args[strings.ToLower(p.key)] = vals[i]
	}
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	v, err := (&frame{env: f.env, args: args}).value(fn.output)
	if err != nil {
		return nil, failf("in function '%s': %s", e.name, err.Error())
	}
	return v, nil
}

// apply calls a lambda.
func (f *frame) apply(l *lambda, args ...any) (any, error) {
	if err := f.meter.call(); err != nil {
		return nil, err
	}
	defer f.meter.ret()
	g := *l.frame
	for i, p := range l.params {
		if i < len(args) {
			g.bound = &binding{p, args[i], g.bound}
		}
	}
	return g.eval(l.body)
}
