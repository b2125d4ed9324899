// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// convert converts a value to a type; nil if that is not possible.
func convert(v any, t Type) any {
	switch t {
	case String:
		return text(v)
	case Long:
		return toLong(v)
	case Real:
		return realOrNil(v)
	case Bool:
		return toBool(v)
	case DateTime:
		return toTime(v)
	case TimeSpan:
		return toSpan(v)
	}
	return v
}

// zero returns the value of a column that a row does not have. Strings are never
// null.
func zero(t Type) any {
	if t == String {
		return ""
	}
	return nil
}

func toReal(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil
	case time.Duration:
		return float64(v) / float64(100*time.Nanosecond), true
	}
	return 0, false
}

func realOrNil(v any) any {
	if f, ok := toReal(v); ok {
		return f
	}
	return nil
}

func toLong(v any) any {
	switch v := v.(type) {
	case int64:
		return v
	case time.Duration:
		return int64(v / 100)
	case time.Time:
		return v.UnixNano()/100 + 621355968000000000
	case string:
		if i, err := strconv.ParseInt(strings.TrimSpace(v), 0, 64); err == nil {
			return i
		}
	}
	if f, ok := toReal(v); ok && math.Abs(f) < 1<<62 {
		return int64(f)
	}
	return nil
}

func toTime(v any) any {
	switch v := v.(type) {
	case time.Time:
		return v
	case string:
		if t, err := ParseTime(v); err == nil {
			return t
		}
	}
	return nil
}

func toSpan(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return v
	case int64:
		if v > -1<<40 && v < 1<<40 {
			return time.Duration(v) * 100
		}
	case string:
		if d, err := parseTimespan(v); err == nil {
			return d
		}
	}
	return nil
}

func toBool(v any) any {
	switch v := v.(type) {
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "true", "1":
			return true
		case "false", "0":
			return false
		}
	}
	return nil
}
