// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

func (p *parser) expr() (*expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	e, err := p.chain("or", func() (*expr, error) {
		return p.chain("and", p.comparison)
	})
	if err == nil && sizeOf(e) > maxExprSize {
		return nil, p.fail("the expression is too large: it has more than %d parts, including the bodies of the functions that it calls", maxExprSize)
	}
	return e, err
}

// withoutSearch calls f outside of the rules of search: a string is a value.
func (p *parser) withoutSearch(f func() (*expr, error)) (*expr, error) {
	saved := p.search
	p.search = false
	e, err := f()
	p.search = saved
	return e, err
}

// chain parses operands of a logical operator.
func (p *parser) chain(op string, sub func() (*expr, error)) (*expr, error) {
	e, err := sub()
	if err != nil {
		return nil, err
	}
	for first := true; p.peekName(op); first = false {
		t := p.next()
		r, err := sub()
		if err != nil {
			return nil, err
		}
		if !first { // flat, so that long chains do not nest
			e.args = append(e.args, r)
			continue
		}
		e = &expr{op: exBinary, name: op, args: []*expr{e, r}, tok: t}
	}
	return e, nil
}

var symbolComparisons = map[string]string{"==": "==", "=~": "=~", "!=": "!=", "<>": "!=", "!~": "!~", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

func (p *parser) comparison() (*expr, error) {
	var l *expr
	var err error
	if p.is("*") { // * has "x": in any column
		l = &expr{op: exStar, tok: p.next()}
	} else if l, err = p.additive(); err != nil {
		return nil, err
	}
	t := p.cur()
	name := strings.ToLower(t.text)
	if p.search && p.is(":") { // column:"term"
		p.next()
		r, err := p.additive()
		if err != nil {
			return nil, err
		}
		if r.op != exLiteral {
			return nil, syntax(p.src, r.tok, "expected a string or a number after ':'")
		}
		return term(l, r, t), nil
	}
	if t.kind == tokSymbol {
		if op, ok := symbolComparisons[name]; ok {
			p.next()
			r, err := p.additive()
			if err != nil {
				return nil, err
			}
			return &expr{op: exBinary, name: op, args: []*expr{l, r}, tok: t}, nil
		}
	}
	bare := strings.TrimPrefix(name, "!")
	if t.kind != tokName && !(t.kind == tokSymbol && strings.HasPrefix(name, "!")) {
		return p.operand(l)
	}
	switch bare {
	case "in", "in~", "has_any", "has_all":
		p.next()
		return p.in(l, name, t)
	case "between":
		p.next()
		return p.between(l, name, t)
	case "matches":
		p.next()
		if !p.acceptName("regex") {
			return nil, p.fail("expected 'regex' after matches and found '%s'", p.cur().text)
		}
		r, err := p.additive()
		return &expr{op: exBinary, name: "matches regex", args: []*expr{l, r}, tok: t}, err
	}
	if _, ok := stringOperators[bare]; ok {
		p.next()
		r, err := p.additive()
		return &expr{op: exBinary, name: name, args: []*expr{l, r}, tok: t}, err
	}
	if t.kind == tokSymbol {
		return nil, p.fail("'%s' is not an operator", t.text)
	}
	return p.operand(l)
}

// operand returns an operand that no operator follows.
func (p *parser) operand(e *expr) (*expr, error) {
	if e.op == exStar {
		return nil, syntax(p.src, e.tok, "'*' must be followed by an operator on text, as in * has \"x\"")
	}
	if _, ok := e.value.(string); ok && e.op == exLiteral && p.search {
		return term(&expr{op: exStar, tok: e.tok}, e, e.tok), nil
	}
	return e, nil
}

func (p *parser) in(l *expr, name string, t token) (*expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e := &expr{op: exIn, name: name, args: []*expr{l}, tok: t}
	if p.startsTabular(p.pos) {
		sub, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		e.sub = sub
		return e, p.expect(")")
	}
	for {
		a, err := p.withoutSearch(p.expr)
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, a)
		if p.accept(",") {
			continue
		}
		return e, p.expect(")")
	}
}

func (p *parser) between(l *expr, name string, t token) (*expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	lo, err := p.additive()
	if err != nil {
		return nil, err
	}
	if err := p.expect(".."); err != nil {
		return nil, err
	}
	hi, err := p.additive()
	if err != nil {
		return nil, err
	}
	return &expr{op: exBinary, name: name, args: []*expr{l, lo, hi}, tok: t}, p.expect(")")
}

func (p *parser) additive() (*expr, error) {
	return p.binary([]string{"+", "-"}, func() (*expr, error) {
		return p.binary([]string{"*", "/", "%"}, p.unary)
	})
}

func (p *parser) binary(ops []string, sub func() (*expr, error)) (*expr, error) {
	e, err := sub()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		t := p.cur()
		found := false
		for _, op := range ops {
			found = found || t.kind == tokSymbol && t.text == op
		}
		if !found {
			return e, nil
		}
		if n > MaxNesting {
			return nil, p.fail("more than %d operators in a row", MaxNesting)
		}
		p.next()
		r, err := sub()
		if err != nil {
			return nil, err
		}
		e = &expr{op: exBinary, name: t.text, args: []*expr{e, r}, tok: t}
	}
}

func (p *parser) unary() (*expr, error) {
	if t := p.cur(); p.is("-") || p.is("+") {
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		p.next()
		e, err := p.unary()
		if err != nil || t.text == "+" {
			return e, err
		}
		return &expr{op: exUnary, name: "-", args: []*expr{e}, tok: t}, nil
	}
	return p.postfix()
}

func (p *parser) postfix() (*expr, error) {
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		t := p.cur()
		if n > MaxNesting {
			return nil, p.fail("more than %d accesses in a row", MaxNesting)
		}
		switch {
		case p.accept("."):
			m := p.cur()
			if m.kind != tokName {
				return nil, p.fail("expected a property name after '.' and found '%s'", m.text)
			}
			p.next()
			e = &expr{op: exMember, name: m.text, args: []*expr{e}, tok: m}
		case p.accept("["):
			i, err := p.withoutSearch(p.expr)
			if err != nil {
				return nil, err
			}
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			e = &expr{op: exIndex, args: []*expr{e, i}, tok: t}
		default:
			return e, nil
		}
	}
}

func (p *parser) primary() (*expr, error) {
	t := p.next()
	switch t.kind {
	case tokString:
		s := t.text
		for p.cur().kind == tokString { // adjacent literals are one
			s += p.next().text
		}
		return &expr{value: s, tok: t}, nil
	case tokNumber:
		v, err := parseNumber(t.text)
		if err != nil {
			return nil, syntax(p.src, t, err.Error())
		}
		return &expr{value: v, tok: t}, nil
	case tokSymbol:
		if t.text == "(" {
			e, err := p.expr()
			if err != nil {
				return nil, err
			}
			return e, p.expect(")")
		}
		if t.text == "[" && p.cur().kind == tokString { // ['column name']
			name := p.next()
			return &expr{op: exColumn, name: name.text, tok: name}, p.expect("]")
		}
	case tokName:
		return p.name(t)
	}
	if t.kind != tokEnd {
		p.pos--
	}
	return nil, p.fail("expected a value and found '%s'", p.cur().text)
}

func (p *parser) name(t token) (*expr, error) {
	lower := strings.ToLower(t.text)
	if !p.is("(") {
		switch lower {
		case "true", "false":
			return &expr{value: lower == "true", tok: t}, nil
		case "null":
			return &expr{tok: t}, nil
		}
		if b, ok := p.lets[t.text]; ok && b.scalar != nil {
			return b.scalar, nil
		}
		return &expr{op: exColumn, name: t.text, tok: t}, nil
	}
	if b, ok := p.lets[t.text]; ok && b.fn != nil && !b.fn.tabular {
		var e *expr
		err := p.call(t, b.fn, func() (err error) {
			e, err = p.withoutSearch(p.expr)
			return err
		})
		return e, err
	}
	switch lower {
	case "toscalar":
		p.next()
		sub, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		return &expr{op: exToScalar, sub: sub, tok: t}, p.expect(")")
	case "typeof":
		p.next()
		typ, err := p.typeName()
		if err != nil {
			return nil, err
		}
		return &expr{value: string(typ), tok: t}, p.expect(")")
	case "datetime", "timespan", "time", "dynamic", "long", "int", "real", "double", "bool", "guid", "decimal":
		return p.typedLiteral(lower, t)
	}
	p.next()
	e := &expr{op: exCall, name: t.text, tok: t}
	if p.accept(")") {
		return e, nil
	}
	for {
		if p.is("*") {
			e.args = append(e.args, &expr{op: exStar, tok: p.next()})
		} else {
			read := p.withoutSearch
			if lower == "not" { // search not("x")
				read = func(f func() (*expr, error)) (*expr, error) { return f() }
			}
			a, err := read(p.expr)
			if err != nil {
				return nil, err
			}
			e.args = append(e.args, a)
		}
		if p.accept(",") {
			continue
		}
		return e, p.expect(")")
	}
}

// typedLiteral parses literals such as datetime(2026-01-01) and dynamic([1,2]).
// It uses the text up to the matching parenthesis.
func (p *parser) typedLiteral(typ string, t token) (*expr, error) {
	open := p.next()
	depth := 1
	for depth > 0 {
		c := p.next()
		switch {
		case c.kind == tokEnd:
			return nil, syntax(p.src, t, typ+"( is not closed")
		case c.kind == tokSymbol && c.text == "(":
			depth++
		case c.kind == tokSymbol && c.text == ")":
			depth--
		}
	}
	raw := strings.TrimSpace(p.src[open.end:p.toks[p.pos-1].off])
	e := &expr{tok: t}
	text := strings.Trim(raw, `"'`)
	if strings.EqualFold(raw, "null") || raw == "" && typ != "dynamic" {
		return e, nil
	}
	var err error
	switch typ {
	case "datetime":
		var at time.Time
		if at, err = ParseTime(text); err == nil {
			e.value = at
		}
	case "timespan", "time":
		var d time.Duration
		if d, err = parseTimespan(text); err == nil {
			e.value = d
		}
	case "dynamic":
		var v any
		dec := json.NewDecoder(strings.NewReader(raw))
		dec.UseNumber()
		if err = dec.Decode(&v); err == nil {
			e.value = dynamic(v)
		} else {
			err = fmt.Errorf("dynamic(...) must hold JSON")
		}
	case "bool":
		if e.value, err = strconv.ParseBool(strings.ToLower(text)); err != nil {
			err = fmt.Errorf("'%s' is neither true nor false", text)
		}
	case "long", "int":
		if e.value, err = strconv.ParseInt(text, 0, 64); err != nil {
			err = fmt.Errorf("'%s' is not an integer", text)
		}
	case "guid":
		e.value = strings.ToLower(text)
	default:
		if e.value, err = strconv.ParseFloat(text, 64); err != nil {
			err = fmt.Errorf("'%s' is not a number", text)
		}
	}
	if err != nil {
		return nil, syntax(p.src, t, err.Error())
	}
	return e, nil
}
