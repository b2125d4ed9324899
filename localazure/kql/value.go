package kql

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is a column type, as the Log Analytics API names it.
type Type string

// The column types.
const (
	String   Type = "string"
	Long     Type = "long"
	Real     Type = "real"
	Bool     Type = "bool"
	DateTime Type = "datetime"
	TimeSpan Type = "timespan"
	Dynamic  Type = "dynamic"
)

// Values are nil, bool, int64, float64, string, time.Time, time.Duration, and
// the compounds of dynamic: map[string]any and []any.

// dynamic makes values of decoded JSON.
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

// parseJSON is parse_json: what is not JSON stays a string.
func parseJSON(s string) any {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil || dec.More() {
		return s
	}
	return dynamic(v)
}

// text is tostring().
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

// timespanText is [-][d.]hh:mm:ss[.fffffff].
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

// jsonValue is a value as it stands in an answer.
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
		if t, err := parseTime(v); err == nil {
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

// compare orders two values of comparable kinds; ok is false for others and
// for null.
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

// key is a value as part of a grouping key: equal values, equal keys.
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
