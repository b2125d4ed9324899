package armtemplate

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Values of the expression language: nil, bool, int64, float64, string,
// []any, *object, and *lambda (only as an argument).

// object is a JSON object that keeps the order of its keys. Lookup prefers the
// exact key and falls back to ignoring case, as ARM does.
type object struct {
	keys []string
	m    map[string]any
}

func newObject() *object { return &object{m: map[string]any{}} }

func (o *object) set(k string, v any) {
	if _, ok := o.m[k]; !ok {
		o.keys = append(o.keys, k)
	}
	o.m[k] = v
}

func (o *object) get(k string) (any, bool) {
	if v, ok := o.m[k]; ok {
		return v, true
	}
	for _, have := range o.keys {
		if strings.EqualFold(have, k) {
			return o.m[have], true
		}
	}
	return nil, false
}

func obj(kv ...any) *object {
	o := newObject()
	for i := 0; i+1 < len(kv); i += 2 {
		o.set(kv[i].(string), kv[i+1])
	}
	return o
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "Null"
	case bool:
		return "Boolean"
	case int64:
		return "Integer"
	case float64:
		return "Float"
	case string:
		return "String"
	case []any:
		return "Array"
	case *object:
		return "Object"
	case *lambda:
		return "Lambda"
	}
	return "Unknown"
}

// literal is the value that a node stands for when nothing is evaluated.
func literal(n *node) any {
	switch n.kind {
	case kindBool:
		return n.bool
	case kindNumber:
		return number(n.str)
	case kindString:
		return n.str
	case kindArray:
		out := make([]any, len(n.elems))
		for i, e := range n.elems {
			out[i] = literal(e)
		}
		return out
	case kindObject:
		o := newObject()
		for _, m := range n.members {
			o.set(m.key, literal(m.val))
		}
		return o
	}
	return nil
}

func number(s string) any {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i
	}
	f, _ := strconv.ParseFloat(s, 64) // out of range gives an infinity, refused by the encoder
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 && !strings.ContainsAny(s, ".") {
		return int64(f)
	}
	return f
}

// fromJSON decodes strict or lenient JSON into a value.
func fromJSON(b []byte) (any, error) {
	n, err := readJSON(b, false)
	if err != nil {
		return nil, err
	}
	return literal(n), nil
}

// encode renders a value as JSON, charging the meter for every byte so that a
// small value which refers to itself many times over cannot explode.
func (m *meter) encode(v any) ([]byte, error) { return m.appendJSON(nil, v, 0, 0) }

// appendJSON writes v; indent levels are not supported by ARM, so none here.
func (m *meter) appendJSON(b []byte, v any, depth, escape int) ([]byte, error) {
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
			if b, err = m.appendJSON(b, e, depth+1, escape); err != nil {
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
			if b, err = m.appendJSON(b, v.m[k], depth+1, escape); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	default:
		return nil, failf("a %s is not a value", typeName(v))
	}
	return b, m.grow(len(b) - start)
}

// appendString writes a JSON string without HTML escapes: expressions and
// scripts stay readable.
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

// equal compares two values as equals() does: strings with their case, numbers
// by value, objects without regard to the order of keys.
func (m *meter) equal(a, b any, depth int) (bool, error) {
	if depth > maxValueDepth {
		return false, failf("the value is nested deeper than %d levels", maxValueDepth)
	}
	if err := m.step(1); err != nil {
		return false, err
	}
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for i := range a {
			if eq, err := m.equal(a[i], b[i], depth+1); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case *object:
		b, ok := b.(*object)
		if !ok || len(a.keys) != len(b.keys) {
			return false, nil
		}
		for _, k := range a.keys {
			bv, ok := b.get(k)
			if !ok {
				return false, nil
			}
			if eq, err := m.equal(a.m[k], bv, depth+1); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case int64:
		if f, ok := b.(float64); ok {
			return float64(a) == f, nil
		}
	case float64:
		if i, ok := b.(int64); ok {
			return a == float64(i), nil
		}
	case *lambda:
		return false, failf("a lambda cannot be compared")
	}
	if _, ok := b.([]any); ok {
		return false, nil
	}
	if _, ok := b.(*object); ok {
		return false, nil
	}
	return a == b, nil
}

// errTooMuch says that a limit of evaluation was hit.
var errTooMuch = errors.New("evaluation limit")

// meter counts what evaluation costs.
type meter struct {
	steps, bytes int
	depth        int
}

func (m *meter) step(n int) error {
	if m.steps += n; m.steps > MaxSteps {
		return &evalError{msg: fmt.Sprintf("evaluating the template takes more than %d steps; simplify its expressions and loops", MaxSteps), off: -1, err: errTooMuch}
	}
	return nil
}

func (m *meter) grow(n int) error {
	if m.bytes += n; m.bytes > MaxProducedBytes {
		return &evalError{msg: fmt.Sprintf("evaluating the template produces more than %d bytes; simplify its expressions and loops", MaxProducedBytes), off: -1, err: errTooMuch}
	}
	return nil
}

// call enters a user function, a lambda, a variable or a parameter default.
func (m *meter) call() error {
	if m.depth++; m.depth > maxCallDepth {
		return failf("functions, variables and lambdas call each other more than %d deep", maxCallDepth)
	}
	return nil
}

func (m *meter) ret() { m.depth-- }

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
