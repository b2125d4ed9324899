package armtemplate

import (
	"strings"
)

// builtin is a function whose arguments are all evaluated first; max < 0 is
// any number.
type builtin struct {
	min, max int
	call     func(f *frame, args []any) (any, error)
}

var (
	functions     map[string]builtin
	lazyFunctions map[string]func(f *frame, e *expr) (any, error)
)

func init() {
	functions = map[string]builtin{}
	for _, group := range []map[string]builtin{coreFunctions, stringFunctions, arrayFunctions, numberFunctions, dateFunctions, idFunctions, lambdaFunctions, cidrFunctions} {
		for name, fn := range group {
			functions[strings.ToLower(name)] = fn
		}
	}
	lazyFunctions = map[string]func(f *frame, e *expr) (any, error){
		"if": lazyIf, "and": lazyAnd, "or": lazyOr, "coalesce": lazyCoalesce, "lambda": makeLambda,
		"reference": (*frame).reference, "references": (*frame).references,
	}
}

func boolArg(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, failf("a Boolean is expected, not %s", typeName(v))
	}
	return b, nil
}

func strArg(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", failf("a String is expected, not %s", typeName(v))
	}
	return s, nil
}

func intArg(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case float64:
		if v == float64(int64(v)) {
			return int64(v), nil
		}
	}
	return 0, failf("an Integer is expected, not %s", typeName(v))
}

func arrArg(v any) ([]any, error) {
	a, ok := v.([]any)
	if !ok {
		return nil, failf("an Array is expected, not %s", typeName(v))
	}
	return a, nil
}

func objArg(v any) (*object, error) {
	o, ok := v.(*object)
	if !ok {
		return nil, failf("an Object is expected, not %s", typeName(v))
	}
	return o, nil
}

func lambdaArg(v any, lo, hi int) (*lambda, error) {
	l, ok := v.(*lambda)
	if !ok {
		return nil, failf("a lambda is expected, not %s", typeName(v))
	}
	if len(l.params) < lo || len(l.params) > hi {
		return nil, failf("the lambda must take %s", arity(lo, hi))
	}
	return l, nil
}

// str1 makes a builtin of a function of one string.
func str1(fn func(string) (any, error)) builtin {
	return builtin{1, 1, func(_ *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		return fn(s)
	}}
}

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
func lazyOr(f *frame, e *expr) (any, error)  { return f.shortCircuit(e, true) }

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

// makeLambda makes a function value: every argument but the last names a
// parameter.
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

// compare orders two numbers or two strings (by code point).
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

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
