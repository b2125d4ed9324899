// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

var arrayFunctions = map[string]builtin{
	"array": {1, 1, func(_ *frame, a []any) (any, error) {
		if arr, ok := a[0].([]any); ok {
			return arr, nil
		}
		return []any{a[0]}, nil
	}},
	"createArray":  {0, -1, func(_ *frame, a []any) (any, error) { return append([]any{}, a...), nil }},
	"createObject": {0, -1, createObject},
	"concat":       {1, -1, concat},
	"contains":     {2, 2, contains},
	"empty": {1, 1, func(_ *frame, a []any) (any, error) {
		n, err := size(a[0])
		return n == 0, err
	}},
	"length": {1, 1, func(_ *frame, a []any) (any, error) {
		if a[0] == nil {
			return nil, failf("null has no length")
		}
		n, err := size(a[0])
		return int64(n), err
	}},
	"first":       {1, 1, func(_ *frame, a []any) (any, error) { return end(a[0], true) }},
	"last":        {1, 1, func(_ *frame, a []any) (any, error) { return end(a[0], false) }},
	"indexOf":     {2, 2, func(f *frame, a []any) (any, error) { return indexOf(f, a, false) }},
	"lastIndexOf": {2, 2, func(f *frame, a []any) (any, error) { return indexOf(f, a, true) }},
	"skip":        {2, 2, func(_ *frame, a []any) (any, error) { return slice(a, true) }},
	"take":        {2, 2, func(_ *frame, a []any) (any, error) { return slice(a, false) }},
	"range": {2, 2, func(f *frame, a []any) (any, error) {
		start, err := intArg(a[0])
		if err != nil {
			return nil, err
		}
		n, err := intArg(a[1])
		if err != nil {
			return nil, err
		}
		if n < 0 || n > MaxRange || start > 1<<31-1-n || start < -(1<<31) {
			return nil, failf("the count must be from 0 to %d, and start plus count at most 2147483647", MaxRange)
		}
		out := make([]any, n)
		for i := range out {
			out[i] = start + int64(i)
		}
		return out, f.meter.step(int(n) / 4)
	}},
	"union":        {1, -1, union},
	"intersection": {2, -1, intersection},
	"flatten": {1, 1, func(f *frame, a []any) (any, error) {
		arr, err := arrArg(a[0])
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, v := range arr {
			inner, err := arrArg(v)
			if err != nil {
				return nil, err
			}
			if err := f.meter.grow(16 * len(inner)); err != nil {
				return nil, err
			}
			out = append(out, inner...)
		}
		return out, nil
	}},
	"tryGet": {2, -1, func(_ *frame, a []any) (any, error) {
		v := a[0]
		for _, key := range a[1:] {
			if v == nil {
				return nil, nil
			}
			next, found, err := part(v, key)
			if err != nil {
				return nil, err
			}
			if !found {
				return nil, nil
			}
			v = next
		}
		return v, nil
	}},
	"indexFromEnd":    {2, 2, func(_ *frame, a []any) (any, error) { return fromEnd(a, false) }},
	"tryIndexFromEnd": {2, 2, func(_ *frame, a []any) (any, error) { return fromEnd(a, true) }},
	"objectKeys": {1, 1, func(_ *frame, a []any) (any, error) {
		o, err := objArg(a[0])
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, k := range slices.Sorted(maps.Keys(o.m)) {
			out = append(out, k)
		}
		return out, nil
	}},
	"items": {1, 1, func(_ *frame, a []any) (any, error) {
		o, err := objArg(a[0])
		if err != nil {
			return nil, err
		}
		out := []any{}
		for _, k := range slices.Sorted(maps.Keys(o.m)) {
			out = append(out, obj("key", k, "value", o.m[k]))
		}
		return out, nil
	}},
	"shallowMerge": {1, 1, func(f *frame, a []any) (any, error) {
		arr, err := arrArg(a[0])
		if err != nil {
			return nil, err
		}
		out := newObject()
		for _, v := range arr {
			o, err := objArg(v)
			if err != nil {
				return nil, err
			}
			if err := f.meter.step(len(o.keys)); err != nil {
				return nil, err
			}
			for _, k := range o.keys {
				out.set(k, o.m[k])
			}
		}
		return out, nil
	}},
}

func createObject(_ *frame, a []any) (any, error) {
	if len(a)%2 != 0 {
		return nil, failf("an even number of arguments is expected: names and values")
	}
	o := newObject()
	for i := 0; i < len(a); i += 2 {
		k, err := strArg(a[i])
		if err != nil {
			return nil, err
		}
		o.set(k, a[i+1])
	}
	return o, nil
}

func concat(f *frame, a []any) (any, error) {
	if _, ok := a[0].([]any); ok {
		out := []any{}
		for _, v := range a {
			arr, err := arrArg(v)
			if err != nil {
				return nil, err
			}
			if err := f.meter.grow(16 * len(arr)); err != nil {
				return nil, err
			}
			out = append(out, arr...)
		}
		return out, nil
	}
	parts := make([]string, len(a))
	total := 0
	for i, v := range a {
		switch v.(type) {
		case string, bool, int64, float64:
		default:
			return nil, failf("text and arrays can be concatenated, not %s", typeName(v))
		}
		s, err := f.toString(v)
		if err != nil {
			return nil, err
		}
		parts[i] = s
		if total += len(s); total > MaxProducedBytes {
			return nil, failf("the text is too long")
		}
	}
	return strings.Join(parts, ""), nil
}

func contains(f *frame, a []any) (any, error) {
	switch c := a[0].(type) {
	case string:
		s, err := f.toString(a[1])
		return strings.Contains(c, s), err
	case *object:
		k, err := strArg(a[1])
		if err != nil {
			return nil, err
		}
		_, ok := c.get(k)
		return ok, nil
	case []any:
		for _, v := range c {
			if eq, err := f.meter.equal(v, a[1], 0); eq || err != nil {
				return eq, err
			}
		}
		return false, nil
	}
	return nil, failf("an Array, Object or String is expected, not %s", typeName(a[0]))
}

func size(v any) (int, error) {
	switch v := v.(type) {
	case nil:
		return 0, nil
	case string:
		return utf8.RuneCountInString(v), nil
	case []any:
		return len(v), nil
	case *object:
		return len(v.keys), nil
	}
	return 0, failf("an Array, Object or String is expected, not %s", typeName(v))
}

func end(v any, first bool) (any, error) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return "", nil
		}
		if first {
			_, n := utf8.DecodeRuneInString(v)
			return v[:n], nil
		}
		_, n := utf8.DecodeLastRuneInString(v)
		return v[len(v)-n:], nil
	case []any:
		switch {
		case len(v) == 0:
			return nil, nil
		case first:
			return v[0], nil
		}
		return v[len(v)-1], nil
	}
	return nil, failf("an Array or String is expected, not %s", typeName(v))
}

func indexOf(f *frame, a []any, last bool) (any, error) {
	if arr, ok := a[0].([]any); ok {
		found := int64(-1)
		for i, v := range arr {
			eq, err := f.meter.equal(v, a[1], 0)
			if err != nil {
				return nil, err
			}
			if eq {
				found = int64(i)
				if !last {
					break
				}
			}
		}
		return found, nil
	}
	s, err := strArg(a[0])
	if err != nil {
		return nil, err
	}
	t, err := strArg(a[1])
	if err != nil {
		return nil, err
	}
	s, t = strings.ToLower(s), strings.ToLower(t) // ARM ignores case
	i := strings.Index(s, t)
	if last {
		i = strings.LastIndex(s, t)
	}
	if i > 0 {
		i = utf8.RuneCountInString(s[:i])
	}
	return int64(i), nil
}

func slice(a []any, skip bool) (any, error) {
	n, err := intArg(a[1])
	if err != nil {
		return nil, err
	}
	n = max(n, 0)
	switch v := a[0].(type) {
	case []any:
		i := min(int(n), len(v))
		if skip {
			return v[i:len(v):len(v)], nil
		}
		return v[:i:i], nil
	case string:
		r := []rune(v)
		i := min(int(n), len(r))
		if skip {
			return string(r[i:]), nil
		}
		return string(r[:i]), nil
	}
	return nil, failf("an Array or String is expected, not %s", typeName(a[0]))
}

func fromEnd(a []any, try bool) (any, error) {
	arr, err := arrArg(a[0])
	if err != nil {
		return nil, err
	}
	i, err := intArg(a[1])
	if err != nil {
		return nil, err
	}
	if i < 1 || i > int64(len(arr)) {
		if try {
			return nil, nil
		}
		return nil, failf("index %d from the end is out of bounds: the array has %d elements", i, len(arr))
	}
	return arr[int64(len(arr))-i], nil
}

// union merges objects, including objects inside them, where later values
// replace earlier ones; or it joins arrays, with each value once.
func union(f *frame, a []any) (any, error) {
	if _, ok := a[0].(*object); ok {
		out := newObject()
		for _, v := range a {
			o, err := objArg(v)
			if err != nil {
				return nil, err
			}
			if err := merge(f.meter, out, o, 0); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	out := []any{}
	for _, v := range a {
		arr, err := arrArg(v)
		if err != nil {
			return nil, err
		}
		for _, e := range arr {
			if in, err := contains(f, []any{out, e}); err != nil {
				return nil, err
			} else if in == false {
				out = append(out, e)
			}
		}
	}
	return out, nil
}

func merge(m *meter, into, from *object, depth int) error {
	if depth > maxValueDepth {
		return failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	for _, k := range from.keys {
		if err := m.step(1); err != nil {
			return err
		}
		v := from.m[k]
		key := k
		for _, have := range into.keys {
			if strings.EqualFold(have, k) {
				key = have
				break
			}
		}
		if fo, ok := v.(*object); ok {
			if io, ok := into.m[key].(*object); ok {
				both := newObject()
				if err := merge(m, both, io, depth+1); err != nil {
					return err
				}
				if err := merge(m, both, fo, depth+1); err != nil {
					return err
				}
				v = both
			}
		}
		if err := m.grow(48); err != nil {
			return err
		}
		into.set(key, v)
	}
	return m.step(len(into.keys))
}

func intersection(f *frame, a []any) (any, error) {
	if first, ok := a[0].(*object); ok {
		out := newObject()
	keys:
		for _, k := range first.keys {
			for _, v := range a[1:] {
				o, err := objArg(v)
				if err != nil {
					return nil, err
				}
				other, ok := o.get(k)
				if !ok {
					continue keys
				}
				if eq, err := f.meter.equal(first.m[k], other, 0); err != nil {
					return nil, err
				} else if !eq {
					continue keys
				}
			}
			out.set(k, first.m[k])
		}
		return out, nil
	}
	first, err := arrArg(a[0])
	if err != nil {
		return nil, err
	}
	out := []any{}
elems:
	for _, e := range first {
		for _, v := range a[1:] {
			if _, err := arrArg(v); err != nil {
				return nil, err
			}
			if in, err := contains(f, []any{v, e}); err != nil {
				return nil, err
			} else if in == false {
				continue elems
			}
		}
		if in, err := contains(f, []any{out, e}); err != nil {
			return nil, err
		} else if in == false {
			out = append(out, e)
		}
	}
	return out, nil
}
