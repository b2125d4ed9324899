// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"sort"
)

var lambdaFunctions = map[string]builtin{
	"map": {2, 2, func(f *frame, a []any) (any, error) {
		arr, l, err := arrayAndLambda(a, 1, 2)
		if err != nil {
			return nil, err
		}
		out := make([]any, len(arr))
		for i, v := range arr {
			if out[i], err = f.apply(l, v, int64(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	}},
	"filter": {2, 2, func(f *frame, a []any) (any, error) {
		arr, l, err := arrayAndLambda(a, 1, 2)
		if err != nil {
			return nil, err
		}
		out := []any{}
		for i, v := range arr {
			r, err := f.apply(l, v, int64(i))
			if err != nil {
				return nil, err
			}
			keep, err := boolArg(r)
			if err != nil {
				return nil, err
			}
			if keep {
				out = append(out, v)
			}
		}
		return out, nil
	}},
	"reduce": {3, 3, func(f *frame, a []any) (any, error) {
		arr, err := arrArg(a[0])
		if err != nil {
			return nil, err
		}
		l, err := lambdaArg(a[2], 2, 3)
		if err != nil {
			return nil, err
		}
		acc := a[1]
		for i, v := range arr {
			if acc, err = f.apply(l, acc, v, int64(i)); err != nil {
				return nil, err
			}
		}
		return acc, nil
	}},
	"sort": {2, 2, func(f *frame, a []any) (any, error) {
		arr, l, err := arrayAndLambda(a, 2, 2)
		if err != nil {
			return nil, err
		}
		out := append([]any{}, arr...)
		var failed error
		sort.SliceStable(out, func(i, j int) bool {
			if failed != nil {
				return false
			}
			r, err := f.apply(l, out[i], out[j])
			if err != nil {
				failed = err
				return false
			}
			less, err := boolArg(r)
			if err != nil {
				failed = err
			}
			return less
		})
		return out, failed
	}},
	"toObject": {2, 3, func(f *frame, a []any) (any, error) {
		return byKey(f, a, func(_, v any) any { return v })
	}},
	"groupBy": {2, 3, func(f *frame, a []any) (any, error) {
		return byKey(f, a, func(group, v any) any {
			list, _ := group.([]any)
			return append(list, v)
		})
	}},
	"mapValues": {2, 2, func(f *frame, a []any) (any, error) {
		o, err := objArg(a[0])
		if err != nil {
			return nil, err
		}
		l, err := lambdaArg(a[1], 1, 1)
		if err != nil {
			return nil, err
		}
		out := newObject()
		for _, k := range o.keys {
			v, err := f.apply(l, o.m[k])
			if err != nil {
				return nil, err
			}
			out.set(k, v)
		}
		return out, nil
	}},
}

func arrayAndLambda(a []any, lo, hi int) ([]any, *lambda, error) {
	arr, err := arrArg(a[0])
	if err != nil {
		return nil, nil, err
	}
	l, err := lambdaArg(a[1], lo, hi)
	return arr, l, err
}

// byKey converts an array to an object. For each element a lambda returns the key
// and, optionally, a second one the value; add combines the value with the
// previous one of that key.
func byKey(f *frame, a []any, add func(previous, v any) any) (any, error) {
	arr, key, err := arrayAndLambda(a, 1, 2)
	if err != nil {
		return nil, err
	}
	var val *lambda
	if len(a) > 2 {
		if val, err = lambdaArg(a[2], 1, 2); err != nil {
			return nil, err
		}
	}
	out := newObject()
	for i, v := range arr {
		k, err := f.apply(key, v, int64(i))
		if err != nil {
			return nil, err
		}
		ks, err := strArg(k)
		if err != nil {
			return nil, err
		}
		if val != nil {
			if v, err = f.apply(val, v, int64(i)); err != nil {
				return nil, err
			}
		}
		out.set(ks, add(out.m[ks], v))
	}
	return out, nil
}
