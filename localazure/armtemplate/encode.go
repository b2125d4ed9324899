// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"
)

// encode returns a value as JSON. The meter counts every byte: a small value that
// contains another one many times can have a huge JSON.
func (m *meter) encode(v any) ([]byte, error) { return m.appendJSON(nil, v, 0) }

// appendJSON appends v to b.
func (m *meter) appendJSON(b []byte, v any, depth int) ([]byte, error) {
	if depth > maxValueDepth {
		return nil, failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	if err := m.step(1); err != nil {
		return nil, err
	}
	start := len(b)
	switch v := v.(type) {
	case nil:
		b = append(b, "null"...)
	case bool:
		b = strconv.AppendBool(b, v)
	case int64:
		b = strconv.AppendInt(b, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, failf("a number is out of range")
		}
		s, _ := json.Marshal(v)
		b = append(b, s...)
	case string:
		b = appendString(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = m.appendJSON(b, e, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case *object:
		b = append(b, '{')
		for i, k := range v.keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, k), ':')
			var err error
			if b, err = m.appendJSON(b, v.m[k], depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	default:
		return nil, failf("a %s is not a value", typeName(v))
	}
	return b, m.grow(len(b) - start)
}

// appendString appends a JSON string. Unlike encoding/json it does not escape <,
// > and &, so that expressions and scripts stay readable.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c == '\n':
				b = append(b, '\\', 'n')
			case c == '\r':
				b = append(b, '\\', 'r')
			case c == '\t':
				b = append(b, '\\', 't')
			case c < 0x20 || c == 0x7f:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r)
		i += size
	}
	return append(b, '"')
}
