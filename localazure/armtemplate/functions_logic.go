// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
)

func lazyIf(f *frame, e *expr) (any, error) {
	if len(e.args) != 3 {
		return nil, failf("the template function 'if' takes 3 arguments, not %d", len(e.args))
	}
	c, err := f.eval(e.args[0])
	if err != nil {
		return nil, err
	}
	b, err := boolArg(c)
	if err != nil {
		return nil, prefixFunction("if", err)
	}
	if b {
		return f.eval(e.args[1])
	}
	return f.eval(e.args[2])
}

func lazyAnd(f *frame, e *expr) (any, error) { return f.shortCircuit(e, false) }

func lazyOr(f *frame, e *expr) (any, error) { return f.shortCircuit(e, true) }

func (f *frame) shortCircuit(e *expr, stop bool) (any, error) {
	if len(e.args) < 1 {
		return nil, failf("the template function '%s' takes at least 1 argument", e.name)
	}
	for _, a := range e.args {
		v, err := f.eval(a)
		if err != nil {
			return nil, err
		}
		b, err := boolArg(v)
		if err != nil {
			return nil, prefixFunction(e.name, err)
		}
		if b == stop {
			return stop, nil
		}
	}
	return !stop, nil
}

func lazyCoalesce(f *frame, e *expr) (any, error) {
	if len(e.args) < 1 {
		return nil, failf("the template function 'coalesce' takes at least 1 argument")
	}
	for _, a := range e.args {
		v, err := f.eval(a)
		if err != nil || v != nil {
			return v, err
		}
	}
	return nil, nil
}

// makeLambda implements lambda: the last argument is the body, the others are
// the names of the parameters.
func makeLambda(f *frame, e *expr) (any, error) {
	if len(e.args) < 1 {
		return nil, failf("the template function 'lambda' takes at least a body")
	}
	l := &lambda{body: e.args[len(e.args)-1], frame: f}
	for _, a := range e.args[:len(e.args)-1] {
		s, ok := a.value.(string)
		if a.op != opLiteral || !ok {
			return nil, failf("a lambda's parameter must be a literal string")
		}
		l.params = append(l.params, s)
	}
	return l, nil
}

var coreFunctions = map[string]builtin{
	"parameters": {1, 1, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		return f.parameter(s)
	}},
	"variables": {1, 1, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		return f.variable(s)
	}},
	"lambdaVariables": {1, 1, func(f *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		for b := f.bound; b != nil; b = b.next {
			if strings.EqualFold(b.name, s) {
				return b.value, nil
			}
		}
		return nil, failf("no lambda variable '%s' is in scope", s)
	}},
	"copyIndex": {0, 2, func(f *frame, a []any) (any, error) { return f.copyIndex(a) }},
	"not": {1, 1, func(_ *frame, a []any) (any, error) {
		b, err := boolArg(a[0])
		return !b, err
	}},
	"true":  {0, 0, func(*frame, []any) (any, error) { return true, nil }},
	"false": {0, 0, func(*frame, []any) (any, error) { return false, nil }},
	"null":  {0, 0, func(*frame, []any) (any, error) { return nil, nil }},
	"bool": {1, 1, func(_ *frame, a []any) (any, error) {
		switch v := a[0].(type) {
		case bool:
			return v, nil
		case int64:
			return v != 0, nil
		case string:
			switch strings.ToLower(v) {
			case "true", "1":
				return true, nil
			case "false", "0":
				return false, nil
			}
			return nil, failf("'%s' is neither true nor false", v)
		}
		return nil, failf("a String, Integer or Boolean is expected, not %s", typeName(a[0]))
	}},
	"equals": {2, 2, func(f *frame, a []any) (any, error) { return f.meter.equal(a[0], a[1], 0) }},
	"less":   compareFn(func(c int) bool { return c < 0 }), "lessOrEquals": compareFn(func(c int) bool { return c <= 0 }),
	"greater": compareFn(func(c int) bool { return c > 0 }), "greaterOrEquals": compareFn(func(c int) bool { return c >= 0 }),
	"fail": str1(func(s string) (any, error) { return nil, failf("%s", s) }),
}

func compareFn(ok func(int) bool) builtin {
	return builtin{2, 2, func(_ *frame, a []any) (any, error) {
		c, err := compare(a[0], a[1])
		return err == nil && ok(c), err
	}}
}
