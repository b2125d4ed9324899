// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// compare compares two values. ok is false for null and for values of types that
// cannot be compared.
func compare(a, b any) (c int, ok bool) {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	case time.Time:
		b, ok := b.(time.Time)
		return a.Compare(b), ok
	case time.Duration:
		b, ok := b.(time.Duration)
		return cmp(a, b), ok
	case bool:
		b, ok := b.(bool)
		return cmp(b2i(a), b2i(b)), ok
	case int64:
		if b, ok := b.(int64); ok {
			return cmp(a, b), true
		}
		f, ok := b.(float64)
		return cmp(float64(a), f), ok
	case float64:
		switch b := b.(type) {
		case float64:
			return cmp(a, b), true
		case int64:
			return cmp(a, float64(b)), true
		}
	case nil:
		return 0, false
	default:
		if text(a) == text(b) {
			return 0, b != nil
		}
		return strings.Compare(text(a), text(b)), false
	}
	return 0, false
}

// equal implements ==. null is equal to null only.
func equal(a, b any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	c, ok := compare(a, b)
	if !ok {
		switch a.(type) {
		case map[string]any, []any:
			return text(a) == text(b)
		}
	}
	return ok && c == 0
}

func comparable(a, b Type) bool {
	num := func(t Type) bool { return t == Long || t == Real }
	return a == b || a == Dynamic || b == Dynamic || num(a) && num(b) || a == DateTime && b == TimeSpan // between(t .. 1h)
}

func cmp[T int | int64 | float64 | time.Duration](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func signOf(v any) int {
	switch v := v.(type) {
	case int64:
		return cmp(v, 0)
	case float64:
		return cmp(v, 0)
	case time.Duration:
		return cmp(v, 0)
	}
	return 0
}

func extreme(a []any, sign int) any {
	var best any
	for _, v := range a {
		if v == nil {
			continue
		}
		if c, ok := compare(v, best); best == nil || ok && c*sign > 0 {
			best = v
		}
	}
	return best
}

// key returns a string that is the same for equal values, for grouping.
func key(v any) string {
	switch v := v.(type) {
	case nil:
		return "n"
	case string:
		return "s" + v
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return "i" + strconv.FormatInt(int64(v), 10)
		}
		return "f" + text(v)
	case int64:
		return "i" + strconv.FormatInt(v, 10)
	case time.Time:
		return "t" + strconv.FormatInt(v.UnixNano(), 10)
	case time.Duration:
		return "d" + strconv.FormatInt(int64(v), 10)
	case bool:
		return "b" + strconv.FormatBool(v)
	}
	return "j" + text(v)
}

func rowKey(row []any) string {
	var b strings.Builder
	for _, v := range row {
		k := key(v)
		b.WriteString(strconv.Itoa(len(k)))
		b.WriteByte(':')
		b.WriteString(k)
	}
	return b.String()
}
