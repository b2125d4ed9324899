// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is the type of a column, with its name in the Log Analytics API.
type Type string

// The types and their Go types. A value of any type may be nil, which is null. A
// dynamic value is of any of these Go types, map[string]any or []any.
const (
	String   Type = "string"   // string
	Long     Type = "long"     // int64
	Real     Type = "real"     // float64
	Bool     Type = "bool"     // bool
	DateTime Type = "datetime" // time.Time, in UTC
	TimeSpan Type = "timespan" // time.Duration
	Dynamic  Type = "dynamic"
)

// dynamic converts decoded JSON to values.
func dynamic(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return nil
		}
		return f
	case []any:
		for i := range v {
			v[i] = dynamic(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = dynamic(v[k])
		}
	}
	return v
}

// ParseJSON decodes JSON as parse_json() does; text that is not JSON stays a
// string.
func ParseJSON(s string) any {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil || dec.More() {
		return s
	}
	return dynamic(v)
}

func typeOf(v any) Type {
	switch v.(type) {
	case bool:
		return Bool
	case int64:
		return Long
	case float64:
		return Real
	case string:
		return String
	case time.Time:
		return DateTime
	case time.Duration:
		return TimeSpan
	}
	return Dynamic
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "dictionary"
	case []any:
		return "array"
	case int64:
		return "long"
	case float64:
		return "double"
	}
	return string(typeOf(v))
}

// member returns v.name or v[at]. A string that contains JSON is decoded, as some
// logs keep properties as text.
func member(v, at any) any {
	if s, ok := v.(string); ok && (strings.HasPrefix(s, "{") || strings.HasPrefix(s, "[")) {
		v = ParseJSON(s)
	}
	switch v := v.(type) {
	case map[string]any:
		if k, ok := at.(string); ok {
			return v[k]
		}
	case []any:
		if i, ok := at.(int64); ok {
			if i < 0 {
				i += int64(len(v))
			}
			if i >= 0 && i < int64(len(v)) {
				return v[i]
			}
		}
	}
	return nil
}

func toDynamic(v any) any {
	if s, ok := v.(string); ok {
		return ParseJSON(s)
	}
	return v
}

// text implements tostring().
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.UTC().Format("2006-01-02T15:04:05.0000000Z")
	case time.Duration:
		return timespanText(v)
	}
	b, err := json.Marshal(jsonValue(v))
	if err != nil {
		return ""
	}
	return string(b)
}

// timespanText formats a timespan as [-][d.]hh:mm:ss[.fffffff].
func timespanText(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign = "-"
		d = -d
	}
	day := 24 * time.Hour
	out := fmt.Sprintf("%02d:%02d:%02d", d%day/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
	if d >= day {
		out = fmt.Sprintf("%d.%s", d/day, out)
	}
	if frac := d % time.Second / 100; frac > 0 {
		out += fmt.Sprintf(".%07d", frac)
	}
	return sign + out
}

// jsonValue converts a value to that of a Result.
func jsonValue(v any) any {
	switch v := v.(type) {
	case time.Time, time.Duration:
		return text(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = jsonValue(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = jsonValue(v[k])
		}
		return out
	}
	return v
}

// ToString returns a value as tostring() does.
func ToString(v any) string { return text(v) }

// orElse returns v, or def if v is empty.
func orElse[T ~string](v, def T) T {
	if v == "" {
		return def
	}
	return v
}
