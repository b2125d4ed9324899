// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"
)

// stringOperators by their name without "!". Those with the suffix _cs are
// case-sensitive; the others get lower-case operands.
var stringOperators = map[string]func(s, t string) bool{
	"contains": strings.Contains, "has": hasTerm, "startswith": strings.HasPrefix, "endswith": strings.HasSuffix,
	"hasprefix": hasPrefix, "hassuffix": hasSuffix,
	"contains_cs": strings.Contains, "has_cs": hasTerm, "startswith_cs": strings.HasPrefix, "endswith_cs": strings.HasSuffix,
	"hasprefix_cs": hasPrefix, "hassuffix_cs": hasSuffix,
}

func isTermByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// hasBoundary reports whether s contains t without a letter or digit before it
// (if before) and after it (if after).
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

func hasTerm(s, t string) bool { return hasBoundary(s, t, true, true) }

func hasPrefix(s, t string) bool { return hasBoundary(s, t, true, false) }

func hasSuffix(s, t string) bool { return hasBoundary(s, t, false, true) }

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
				return nil, "", semantic(c.src, e.tok, fmt.Sprintf("cannot compare values of types %s and %s; convert one of them, for example with tostring() or tolong()", types[0], t))
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

// pattern compiles a literal regular expression. It returns nil for one that is
// computed.
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

var regexps = struct {
	sync.Mutex
	m map[string]*regexp.Regexp
}{m: map[string]*regexp.Regexp{}}

// cachedRegexp compiles a regular expression, or returns nil if it is not valid.
func cachedRegexp(p string) *regexp.Regexp {
	regexps.Lock()
	defer regexps.Unlock()
	if re, ok := regexps.m[p]; ok {
		return re
	}
	re, err := regexp.Compile(p)
	if err != nil {
		re = nil
	}
	if len(regexps.m) > 256 {
		clear(regexps.m)
	}
	regexps.m[p] = re
	return re
}

func (c *compiler) in(e *expr) (eval, Type, error) {
	if e.args[0].op == exStar {
		return nil, "", semantic(c.src, e.tok, "'*' needs an operator on text with one operand, such as * has \"x\"")
	}
	a, _, err := c.compileAll(e.args)
	if err != nil {
		return nil, "", err
	}
	bare, not := strings.CutPrefix(e.name, "!")
	if e.sub != nil { // in (table): the values of its first column
		k, err := c.computeOnce(e)
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

// anyColumn compiles a string operator with "*" on its left side: it is true if
// it is true for one of the columns.
func (c *compiler) anyColumn(e *expr) (eval, Type, error) {
	bare, not := strings.CutPrefix(e.name, "!")
	_, onText := stringOperators[bare]
	if !onText && bare != "matches regex" && bare != "==" && bare != "=~" {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("'*' can only be used with operators on text, such as has and contains, not with '%s'", e.name))
	}
	var ones []eval
	for i, col := range c.cols {
		one := *e
		one.name = bare
		one.args = append([]*expr{{op: exCall, name: "tostring", tok: e.tok, args: []*expr{{op: exColumn, name: col.Name, tok: e.tok}}}}, e.args[1:]...)
		if col.Type == String && i == c.column(col.Name) {
			one.args[0] = one.args[0].args[0]
		}
		f, _, err := c.compile(&one)
		if err != nil {
			return nil, "", err
		}
		ones = append(ones, f)
	}
	return func(row []any) any {
		for _, f := range ones {
			if f(row) == true {
				return !not
			}
		}
		return not
	}, Bool, nil
}
