// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"strings"
)

// builtin is a template function. All its arguments are evaluated before the
// call.
type builtin struct {
	min, max int // number of arguments; max < 0 is unbounded
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

// str1 makes a builtin from a function of one string.
func str1(fn func(string) (any, error)) builtin {
	return builtin{1, 1, func(_ *frame, a []any) (any, error) {
		s, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		return fn(s)
	}}
}

func str2(fn func(a, b string) (any, error)) builtin {
	return builtin{2, 2, func(_ *frame, a []any) (any, error) {
		x, err := strArg(a[0])
		if err != nil {
			return nil, err
		}
		y, err := strArg(a[1])
		if err != nil {
			return nil, err
		}
		return fn(x, y)
	}}
}
