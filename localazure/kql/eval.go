package kql

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// eval computes an expression on a row; what cannot be computed is null.
type eval func(row []any) any

// compiler turns expressions into evals over a schema.
type compiler struct {
	*exec
	cols []Column
}

const maxTextBytes = 256 << 20

func (c *compiler) column(name string) int { return position(c.cols, name) }

// position is where a column is; -1 if it is not there. Names are unique.
func position(cols []Column, name string) int {
	return slices.IndexFunc(cols, func(c Column) bool { return c.Name == name })
}

func (c *compiler) compile(e *expr) (eval, Type, error) {
	switch e.op {
	case exLiteral:
		v := e.value
		return func([]any) any { return v }, typeOf(v), nil
	case exColumn:
		i := c.column(e.name)
		if i < 0 {
			return nil, "", unresolved(c.src, e.tok, fmt.Sprintf("failed to resolve column named '%s'%s", e.name, c.hint(e.name)))
		}
		return func(row []any) any { return row[i] }, c.cols[i].Type, nil
	case exMember:
		of, _, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		name := e.name
		return func(row []any) any { return member(of(row), name) }, Dynamic, nil
	case exIndex:
		of, _, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		at, _, err := c.compile(e.args[1])
		if err != nil {
			return nil, "", err
		}
		return func(row []any) any { return member(of(row), at(row)) }, Dynamic, nil
	case exLet, exToScalar:
		k, err := c.once(e)
		if err != nil {
			return nil, "", err
		}
		return func([]any) any { return k.value }, k.typ, nil
	case exUnary:
		of, typ, err := c.compile(e.args[0])
		if err != nil {
			return nil, "", err
		}
		return func(row []any) any {
			switch v := of(row).(type) {
			case int64:
				return -v
			case float64:
				return -v
			case time.Duration:
				return -v
			}
			return nil
		}, typ, nil
	case exBinary:
		return c.binary(e)
	case exIn:
		return c.in(e)
	case exCall:
		return c.call(e)
	}
	return nil, "", semantic(c.src, e.tok, "'*' has no meaning here")
}

// hint names a column that differs only in case.
func (c *compiler) hint(name string) string {
	for _, col := range c.cols {
		if strings.EqualFold(col.Name, name) {
			return fmt.Sprintf("; did you mean '%s'?", col.Name)
		}
	}
	return ""
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

// member is v.name or v[at]; strings that hold JSON are looked into, since
// properties of log records are kept as text.
func member(v, at any) any {
	if s, ok := v.(string); ok && (strings.HasPrefix(s, "{") || strings.HasPrefix(s, "[")) {
		v = parseJSON(s)
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

// stringOperators by their name without "!"; those that end in _cs mind case.
var stringOperators = map[string]func(s, t string) bool{
	"contains": strings.Contains, "has": hasTerm, "startswith": strings.HasPrefix, "endswith": strings.HasSuffix,
	"hasprefix": hasPrefix, "hassuffix": hasSuffix,
	"contains_cs": strings.Contains, "has_cs": hasTerm, "startswith_cs": strings.HasPrefix, "endswith_cs": strings.HasSuffix,
	"hasprefix_cs": hasPrefix, "hassuffix_cs": hasSuffix,
}

func isTermByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// hasBoundary finds t in s where no letter or digit stands before or after, as
// asked.
func hasBoundary(s, t string, before, after bool) bool {
	if t == "" {
		return true
	}
	for from := 0; ; {
		i := strings.Index(s[from:], t)
		if i < 0 {
			return false
		}
		i += from
		end := i + len(t)
		if (!before || i == 0 || !isTermByte(s[i-1]) || !isTermByte(t[0])) &&
			(!after || end == len(s) || !isTermByte(s[end]) || !isTermByte(t[len(t)-1])) {
			return true
		}
		from = i + 1
	}
}

func hasTerm(s, t string) bool   { return hasBoundary(s, t, true, true) }
func hasPrefix(s, t string) bool { return hasBoundary(s, t, true, false) }
func hasSuffix(s, t string) bool { return hasBoundary(s, t, false, true) }

func (c *compiler) compileAll(es []*expr) ([]eval, []Type, error) {
	out, types := make([]eval, len(es)), make([]Type, len(es))
	for i, e := range es {
		var err error
		if out[i], types[i], err = c.compile(e); err != nil {
			return nil, nil, err
		}
	}
	return out, types, nil
}

func (c *compiler) binary(e *expr) (eval, Type, error) {
	if e.args[0].op == exStar {
		return c.anyColumn(e)
	}
	a, types, err := c.compileAll(e.args)
	if err != nil {
		return nil, "", err
	}
	switch e.name {
	case "and":
		return func(row []any) any {
			for _, f := range a {
				if toBool(f(row)) != true {
					return false
				}
			}
			return true
		}, Bool, nil
	case "or":
		return func(row []any) any {
			for _, f := range a {
				if toBool(f(row)) == true {
					return true
				}
			}
			return false
		}, Bool, nil
	case "==", "!=", "<", "<=", ">", ">=", "between", "!between":
		for _, t := range types[1:] {
			if !comparable(types[0], t) {
				return nil, "", semantic(c.src, e.tok, fmt.Sprintf("cannot compare values of types %s and %s; convert one, as with tostring() or tolong()", types[0], t))
			}
		}
	}
	x, y := a[0], a[1]
	switch e.name {
	case "==", "!=":
		want := e.name == "=="
		return func(row []any) any {
			v, w := x(row), y(row)
			if v == nil && w == nil {
				return nil
			}
			return equal(v, w) == want
		}, Bool, nil
	case "=~":
		return func(row []any) any { return strings.EqualFold(text(x(row)), text(y(row))) }, Bool, nil
	case "!~":
		return func(row []any) any { return !strings.EqualFold(text(x(row)), text(y(row))) }, Bool, nil
	case "<", "<=", ">", ">=":
		op := e.name
		return func(row []any) any {
			d, ok := compare(x(row), y(row))
			return ok && (d < 0 && op[0] == '<' || d > 0 && op[0] == '>' || d == 0 && len(op) == 2)
		}, Bool, nil
	case "between", "!between":
		not := e.name[0] == '!'
		hi := a[2]
		return func(row []any) any {
			v, from, to := x(row), y(row), hi(row)
			if d, ok := to.(time.Duration); ok {
				if t, ok := from.(time.Time); ok {
					to = t.Add(d)
				}
			}
			l, ok1 := compare(from, v)
			h, ok2 := compare(v, to)
			return (ok1 && ok2 && l <= 0 && h <= 0) != not
		}, Bool, nil
	case "matches regex":
		return c.regex(x, e.args[1], y)
	case "+", "-", "*", "/", "%":
		return func(row []any) any { return arithmetic(e.name, x(row), y(row)) }, arithmeticType(e.name, types[0], types[1]), nil
	}
	bare, not := strings.CutPrefix(e.name, "!")
	op, ok := stringOperators[bare]
	if !ok {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("the operator '%s' is not supported", e.name))
	}
	if strings.HasSuffix(bare, "_cs") {
		return func(row []any) any { return op(text(x(row)), text(y(row))) != not }, Bool, nil
	}
	return func(row []any) any { return op(strings.ToLower(text(x(row))), strings.ToLower(text(y(row)))) != not }, Bool, nil
}

func comparable(a, b Type) bool {
	num := func(t Type) bool { return t == Long || t == Real }
	return a == b || a == Dynamic || b == Dynamic || num(a) && num(b) || a == DateTime && b == TimeSpan // between(t .. 1h)
}

// equal is ==: null equals nothing but null.
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

func (c *compiler) regex(x eval, pattern *expr, y eval) (eval, Type, error) {
	re, err := c.pattern(pattern)
	if err != nil {
		return nil, "", err
	}
	return func(row []any) any {
		if re == nil {
			r := cachedRegexp(text(y(row)))
			return r != nil && r.MatchString(text(x(row)))
		}
		return re.MatchString(text(x(row)))
	}, Bool, nil
}

// pattern compiles a literal regular expression; nil for a computed one.
func (c *compiler) pattern(e *expr) (*regexp.Regexp, error) {
	s, ok := e.value.(string)
	if e.op != exLiteral || !ok {
		return nil, nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, semantic(c.src, e.tok, "the regular expression is not valid: "+err.Error())
	}
	return re, nil
}

func arithmeticType(op string, a, b Type) Type {
	switch {
	case a == DateTime && b == DateTime, a == TimeSpan && b == TimeSpan && op != "/", a == TimeSpan && (b == Long || b == Real), b == TimeSpan && (a == Long || a == Real):
		return TimeSpan
	case a == DateTime || b == DateTime:
		return DateTime
	case a == Long && b == Long:
		return Long
	case a == Dynamic && b == Dynamic:
		return Dynamic
	}
	return Real
}

func arithmetic(op string, a, b any) any {
	switch x := a.(type) {
	case time.Time:
		switch y := b.(type) {
		case time.Duration:
			if op == "+" {
				return x.Add(y)
			} else if op == "-" {
				return x.Add(-y)
			}
		case time.Time:
			if op == "-" {
				return x.Sub(y)
			}
		}
		return nil
	case time.Duration:
		switch y := b.(type) {
		case time.Duration:
			switch op {
			case "+":
				return x + y
			case "-":
				return x - y
			case "/":
				if y != 0 {
					return float64(x) / float64(y)
				}
			case "%":
				if y != 0 {
					return x % y
				}
			}
			return nil
		case time.Time:
			if op == "+" {
				return y.Add(x)
			}
			return nil
		}
		if f, ok := toReal(b); ok {
			if op == "*" && math.Abs(float64(x)*f) < 1<<62 {
				return time.Duration(float64(x) * f)
			} else if op == "/" && f != 0 && math.Abs(float64(x)/f) < 1<<62 {
				return time.Duration(float64(x) / f)
			}
		}
		return nil
	case int64:
		if y, ok := b.(int64); ok {
			switch op {
			case "+":
				return x + y
			case "-":
				return x - y
			case "*":
				return x * y
			case "/":
				if y != 0 {
					return x / y
				}
			case "%":
				if y != 0 {
					return x % y
				}
			}
			return nil
		}
		if d, ok := b.(time.Duration); ok && op == "*" {
			return arithmetic(op, d, a)
		}
	case string:
		return nil
	}
	x, okx := toReal(a)
	y, oky := toReal(b)
	if _, isText := b.(string); !okx || !oky || isText {
		return nil
	}
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	}
	return math.Mod(x, y)
}

func (c *compiler) in(e *expr) (eval, Type, error) {
	if e.args[0].op == exStar {
		return nil, "", semantic(c.src, e.tok, "'*' goes with an operator on one text, such as * has \"x\"")
	}
	a, _, err := c.compileAll(e.args)
	if err != nil {
		return nil, "", err
	}
	bare, not := strings.CutPrefix(e.name, "!")
	if e.sub != nil { // in (table): the values of its first column
		k, err := c.once(e)
		if err != nil {
			return nil, "", err
		}
		if bare == "in" {
			return func(row []any) any { return k.set[key(a[0](row))] != not }, Bool, nil
		}
		a = append(a, func([]any) any { return k.value })
	}
	match := func(v, w any) bool { return equal(v, w) }
	switch bare {
	case "in~":
		match = func(v, w any) bool { return strings.EqualFold(text(v), text(w)) }
	case "has_any", "has_all":
		match = func(v, w any) bool { return hasTerm(strings.ToLower(text(v)), strings.ToLower(text(w))) }
	}
	all := bare == "has_all"
	return func(row []any) any {
		v := a[0](row)
		for _, f := range a[1:] {
			w := f(row)
			list, ok := w.([]any)
			if !ok {
				list = []any{w}
			}
			for _, w := range list {
				if match(v, w) != all {
					return !all != not
				}
			}
		}
		return all != not
	}, Bool, nil
}

func (c *compiler) call(e *expr) (eval, Type, error) {
	name := strings.ToLower(e.name)
	if name == "column_ifexists" || name == "columnifexists" || name == "pack_all" {
		return c.schemaCall(e, name)
	}
	fn, ok := scalars[name]
	if !ok {
		if _, agg := aggregates[name]; agg {
			return nil, "", semantic(c.src, e.tok, fmt.Sprintf("the aggregate function '%s' can only be used in summarize", e.name))
		}
		return nil, "", unresolved(c.src, e.tok, fmt.Sprintf("unknown function '%s'", e.name))
	}
	if len(e.args) < fn.min || fn.max >= 0 && len(e.args) > fn.max {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("function '%s' takes %s, not %d", e.name, arity(fn.min, fn.max), len(e.args)))
	}
	a, types, err := c.compileAll(e.args)
	if err != nil {
		return nil, "", err
	}
	typ := fn.typ
	if typ == "" {
		typ = types[min(fn.typeArg, len(types)-1)]
		if name == "bin" || name == "floor" {
			if typ == Long && types[1] == Real {
				typ = Real
			}
		}
	}
	switch name { // literal patterns are compiled once
	case "extract", "extract_all", "replace_regex", "replace":
		i := map[string]int{"replace_regex": 1}[name]
		if _, err := c.pattern(e.args[i]); err != nil {
			return nil, "", err
		}
	}
	if at, ok := map[string]int{"extract": 3, "extract_json": 2, "extractjson": 2}[name]; ok && len(e.args) > at { // typeof(...)
		t, ok := e.args[at].value.(string)
		if typ = typeNames[t]; !ok || typ == "" || e.args[at].op != exLiteral {
			return nil, "", semantic(c.src, e.args[at].tok, "expected a type, such as typeof(long)")
		}
	}
	budget := &c.text
	return func(row []any) any {
		args := make([]any, len(a))
		for i, f := range a {
			args[i] = f(row)
		}
		v := fn.call(c, args)
		if s, ok := v.(string); ok {
			if *budget += len(s); *budget > maxTextBytes {
				return nil
			}
		}
		return v
	}, typ, nil
}

func arity(lo, hi int) string {
	switch {
	case hi < 0:
		return fmt.Sprintf("at least %d arguments", lo)
	case lo == hi:
		return fmt.Sprintf("%d arguments", lo)
	}
	return fmt.Sprintf("%d to %d arguments", lo, hi)
}
