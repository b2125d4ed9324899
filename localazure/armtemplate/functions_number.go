// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"math"
	"strconv"
	"strings"
)

var numberFunctions = map[string]builtin{
	"add": arith(func(x, y int64) (int64, error) {
		if s := x + y; (s > x) == (y > 0) {
			return s, nil
		}
		return 0, failf("the sum of %d and %d is too large", x, y)
	}),
	"sub": arith(func(x, y int64) (int64, error) {
		if d := x - y; (d < x) == (y > 0) {
			return d, nil
		}
		return 0, failf("the difference of %d and %d is too large", x, y)
	}),
	"mul": arith(func(x, y int64) (int64, error) {
		if x == 0 || y == 0 {
			return 0, nil
		}
		if p := x * y; p/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64) {
			return p, nil
		}
		return 0, failf("the product of %d and %d is too large", x, y)
	}),
	"div": arith(func(x, y int64) (int64, error) {
		if y == 0 || x == math.MinInt64 && y == -1 {
			return 0, failf("%d cannot be divided by %d", x, y)
		}
		return x / y, nil
	}),
	"mod": arith(func(x, y int64) (int64, error) {
		if y == 0 {
			return 0, failf("%d cannot be divided by 0", x)
		}
		if y == -1 {
			return 0, nil
		}
		return x % y, nil
	}),
	"int": {1, 1, func(_ *frame, a []any) (any, error) {
		switch v := a[0].(type) {
		case int64:
			return v, nil
		case float64:
			if math.Abs(v) < 1<<62 {
				return int64(v), nil
			}
		case string:
			if i, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil {
				return i, nil
			}
			return nil, failf("'%s' is not an integer", clip(v))
		}
		return nil, failf("a String or Integer is expected, not %s", typeName(a[0]))
	}},
	"float": {1, 1, func(_ *frame, a []any) (any, error) {
		switch v := a[0].(type) {
		case int64:
			return float64(v), nil
		case float64:
			return v, nil
		case string:
			if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				return f, nil
			}
			return nil, failf("'%s' is not a number", clip(v))
		}
		return nil, failf("a String or Integer is expected, not %s", typeName(a[0]))
	}},
	"min": {1, -1, func(_ *frame, a []any) (any, error) { return extreme(a, -1) }},
	"max": {1, -1, func(_ *frame, a []any) (any, error) { return extreme(a, 1) }},
}

func arith(fn func(x, y int64) (int64, error)) builtin {
	return builtin{2, 2, func(_ *frame, a []any) (any, error) {
		x, err := intArg(a[0])
		if err != nil {
			return nil, err
		}
		y, err := intArg(a[1])
		if err != nil {
			return nil, err
		}
		return wrapInt(fn(x, y))
	}}
}

func wrapInt(i int64, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return i, nil
}

func extreme(a []any, sign int) (any, error) {
	if arr, ok := a[0].([]any); ok && len(a) == 1 {
		a = arr
	}
	if len(a) == 0 {
		return nil, failf("the array is empty")
	}
	best := a[0]
	if _, ok := toFloat(best); !ok {
		return nil, failf("integers are expected, not %s", typeName(best))
	}
	for _, v := range a[1:] {
		c, err := compare(v, best)
		if err != nil {
			return nil, err
		}
		if c*sign > 0 {
			best = v
		}
	}
	return best, nil
}
