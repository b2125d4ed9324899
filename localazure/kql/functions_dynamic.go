// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"slices"
	"sort"
	"strings"
)

// dynamicFunctions work on arrays and property bags.
var dynamicFunctions = map[string]scalar{
	"array_length":    {1, 1, Long, onValue(arrayLength)},
	"array_concat":    {1, -1, Dynamic, arrayConcat},
	"array_slice":     {3, 3, Dynamic, onArray(arraySlice)},
	"array_reverse":   {1, 1, Dynamic, onArray(arrayReverse)},
	"array_sum":       {1, 1, Real, onArray(arraySum)},
	"array_sort_asc":  {1, 2, Dynamic, onArray(func(l, _ []any) any { return sortArray(l, 1) })},
	"array_sort_desc": {1, 2, Dynamic, onArray(func(l, _ []any) any { return sortArray(l, -1) })},
	"array_index_of":  {2, 2, Long, arrayIndexOf},
	"strcat_array":    {2, 2, String, joinArray},
	"pack_array":      {0, -1, Dynamic, func(_ *compiler, a []any) any { return append([]any{}, a...) }},
	"pack":            {0, -1, Dynamic, pack},
	"bag_pack":        {0, -1, Dynamic, pack},
	"bag_keys":        {1, 1, Dynamic, onValue(bagKeys)},
	"bag_has_key":     {2, 2, Bool, bagHasKey},
	"bag_merge":       {2, -1, Dynamic, bagMerge},
	"bag_remove_keys": {2, 2, Dynamic, bagRemoveKeys},
	"set_has_element": {2, 2, Bool, setHasElement},
	"set_union":       {2, -1, Dynamic, func(_ *compiler, a []any) any { return setOf(a, func(in, of int) bool { return in > 0 }) }},
	"set_intersect":   {2, -1, Dynamic, func(_ *compiler, a []any) any { return setOf(a, func(in, of int) bool { return in == of }) }},
	"set_difference":  {2, -1, Dynamic, setDifference},
	"range":           {2, 3, Dynamic, rangeArray},
	"repeat":          {2, 2, Dynamic, repeatValue},
}

func arrayLength(v any) any {
	if l, ok := toDynamic(v).([]any); ok {
		return int64(len(l))
	}
	return nil
}

func arrayConcat(_ *compiler, a []any) any {
	out := []any{}
	for _, v := range a {
		l, ok := toDynamic(v).([]any)
		if !ok || len(out)+len(l) > maxArray {
			return nil
		}
		out = append(out, l...)
	}
	return out
}

func arraySlice(l, a []any) any {
	from, okf := toLong(a[0]).(int64)
	to, okt := toLong(a[1]).(int64)
	if !okf || !okt {
		return nil
	}
	n := int64(len(l))
	if from < 0 {
		from = max(0, from+n)
	}
	if to < 0 {
		to += n
	}
	if to = min(to, n-1); from > to {
		return []any{}
	}
	return slices.Clone(l[from : to+1])
}

func arrayReverse(l, _ []any) any {
	out := slices.Clone(l)
	slices.Reverse(out)
	return out
}

func arraySum(l, _ []any) any {
	sum := 0.0
	for _, v := range l {
		f, _ := toReal(v)
		sum += f
	}
	return sum
}

func arrayIndexOf(_ *compiler, a []any) any {
	l, _ := toDynamic(a[0]).([]any)
	for i, v := range l {
		if equal(v, a[1]) {
			return int64(i)
		}
	}
	return int64(-1)
}

func joinArray(_ *compiler, a []any) any {
	l, _ := toDynamic(a[0]).([]any)
	parts := make([]string, len(l))
	for i, v := range l {
		parts[i] = text(v)
	}
	return strings.Join(parts, text(a[1]))
}

func bagKeys(v any) any {
	m, ok := toDynamic(v).(map[string]any)
	if !ok {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([]any, len(keys))
	for i, k := range keys {
		out[i] = k
	}
	return out
}

func bagHasKey(_ *compiler, a []any) any {
	m, _ := toDynamic(a[0]).(map[string]any)
	_, ok := m[text(a[1])]
	return ok
}

func bagMerge(_ *compiler, a []any) any {
	out := map[string]any{}
	for _, v := range slices.Backward(a) { // the first value of a key stays
		m, _ := toDynamic(v).(map[string]any)
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func bagRemoveKeys(_ *compiler, a []any) any {
	m, ok := toDynamic(a[0]).(map[string]any)
	if !ok {
		return nil
	}
	out := map[string]any{}
	keys, _ := toDynamic(a[1]).([]any)
	for k, v := range m {
		if !slices.ContainsFunc(keys, func(x any) bool { return text(x) == k }) {
			out[k] = v
		}
	}
	return out
}

func setHasElement(_ *compiler, a []any) any {
	l, _ := toDynamic(a[0]).([]any)
	for _, v := range l {
		if equal(v, a[1]) {
			return true
		}
	}
	return false
}

func rangeArray(c *compiler, a []any) any {
	step := any(int64(1))
	if len(a) > 2 {
		step = a[2]
	}
	up := signOf(step)
	out := []any{}
	for v := a[0]; up != 0 && len(out) < maxArray; v = arithmetic("+", v, step) {
		d, ok := compare(v, a[1])
		if !ok || d*up > 0 {
			break
		}
		if !c.run.countMade("range") {
			return nil
		}
		out = append(out, v)
	}
	return out
}

func repeatValue(c *compiler, a []any) any {
	n, ok := toLong(a[1]).(int64)
	if !ok || n < 0 || n > maxArray {
		return nil
	}
	out := make([]any, 0, min(n, 64))
	for range n {
		if !c.run.countMade("repeat") {
			return nil
		}
		out = append(out, a[0])
	}
	return out
}

// maxArray bounds the elements of an array that a function returns.
const maxArray = 1 << 20

func pack(_ *compiler, a []any) any {
	m := map[string]any{}
	for i := 0; i+1 < len(a); i += 2 {
		m[text(a[i])] = a[i+1]
	}
	return m
}

func sortArray(l []any, sign int) any {
	out := slices.Clone(l)
	sort.SliceStable(out, func(i, j int) bool {
		if out[i] == nil || out[j] == nil {
			return out[j] == nil && out[i] != nil // nulls last
		}
		c, ok := compare(out[i], out[j])
		return ok && c*sign < 0
	})
	return out
}

// setOf combines arrays to a set. keep decides about a value that is in some of
// the arrays.
func setOf(a []any, keep func(in, of int) bool) any {
	in := map[string]int{}
	var order []any
	for _, v := range a {
		l, ok := toDynamic(v).([]any)
		if !ok {
			return nil
		}
		here := map[string]bool{}
		for _, e := range l {
			if k := key(e); !here[k] {
				if here[k] = true; in[k] == 0 {
					order = append(order, e)
				}
				in[k]++
			}
		}
	}
	out := []any{}
	for _, e := range order {
		if keep(in[key(e)], len(a)) {
			out = append(out, e)
		}
	}
	return out
}

func setDifference(_ *compiler, a []any) any {
	gone := map[string]bool{}
	for _, v := range a[1:] {
		l, ok := toDynamic(v).([]any)
		if !ok {
			return nil
		}
		for _, e := range l {
			gone[key(e)] = true
		}
	}
	l, ok := toDynamic(a[0]).([]any)
	if !ok {
		return nil
	}
	out := []any{}
	for _, e := range l {
		if k := key(e); !gone[k] {
			gone[k] = true
			out = append(out, e)
		}
	}
	return out
}
