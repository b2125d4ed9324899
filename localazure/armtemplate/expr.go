// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"fmt"
	"strconv"
	"strings"
)

// expr is a parsed expression: a literal, a call, or an access to a property or
// an element.
type expr struct {
	op      op
	value   any    // opLiteral
	name    string // opCall: function name, with the namespace of a user function
	key     string // opCall: name in lower case
	args    []*expr
	of      *expr // opIndex: the object or array; args[0] is the key
	safe    bool  // opIndex: .? or [?], which give null if there is no such key
	runtime bool  // calls reference or list* somewhere inside
}

type op uint8

const (
	opLiteral op = iota
	opCall
	opIndex
)

// isExpression reports whether a template string is an expression: it is
// enclosed in brackets, and the first one is not doubled.
func isExpression(s string) bool {
	return len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' && s[1] != '['
}

// unescape returns the value of a template string that is not an expression.
func unescape(s string) string {
	if strings.HasPrefix(s, "[[") && strings.HasSuffix(s, "]") {
		return s[1:]
	}
	return s
}

// escapeLiteral is the inverse of unescape.
func escapeLiteral(s string) string {
	if len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' {
		return "[" + s
	}
	return s
}

// parseExpr parses the text between the brackets of an expression.
func parseExpr(src string) (*expr, error) {
	if len(src) > MaxExpressionLength {
		return nil, failf("the expression has %d characters; at most %d are allowed", len(src), MaxExpressionLength)
	}
	p := &exprParser{src: src}
	e, err := p.expr()
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos < len(src) {
		return nil, p.fail("unexpected %s", p.here())
	}
	return e, nil
}

type exprParser struct {
	src   string
	pos   int
	depth int
}

func (p *exprParser) fail(format string, args ...any) error {
	src := p.src
	if len(src) > 120 {
		src = src[:120] + "..."
	}
	return failf("the language expression '%s' is not valid: %s at position %d", src, fmt.Sprintf(format, args...), p.pos+1)
}

func (p *exprParser) here() string {
	if p.pos >= len(p.src) {
		return "end of expression"
	}
	return "'" + p.src[p.pos:p.pos+1] + "'"
}

func (p *exprParser) space() {
	for p.pos < len(p.src) && strings.IndexByte(" \t\r\n", p.src[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *exprParser) peek() byte {
	p.space()
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *exprParser) expr() (*expr, error) {
	if p.depth++; p.depth > MaxNesting {
		return nil, p.fail("nested deeper than %d levels", MaxNesting)
	}
	defer func() { p.depth-- }()
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	for chain := 0; ; chain++ {
		if chain > MaxNesting {
			return nil, p.fail("more than %d accesses in a row", MaxNesting)
		}
		switch p.peek() {
		case '.':
			p.pos++
			safe := p.optional()
			p.space()
			name := p.ident()
			if name == "" {
				return nil, p.fail("expected a property name and found %s", p.here())
			}
			e = &expr{op: opIndex, of: e, safe: safe, args: []*expr{{value: name}}, runtime: e.runtime}
		case '[':
			p.pos++
			safe := p.optional()
			i, err := p.expr()
			if err != nil {
				return nil, err
			}
			if p.peek() != ']' {
				return nil, p.fail("expected ']' and found %s", p.here())
			}
			p.pos++
			e = &expr{op: opIndex, of: e, safe: safe, args: []*expr{i}, runtime: e.runtime || i.runtime}
		default:
			return e, nil
		}
	}
}

func (p *exprParser) optional() bool {
	if p.pos < len(p.src) && p.src[p.pos] == '?' {
		p.pos++
		return true
	}
	return false
}

func (p *exprParser) ident() string {
	start := p.pos
	for p.pos < len(p.src) && (p.src[p.pos] == '_' || p.src[p.pos] == '$' || isAlnum(p.src[p.pos])) {
		p.pos++
	}
	return p.src[start:p.pos]
}

func (p *exprParser) primary() (*expr, error) {
	c := p.peek()
	switch {
	case c == '\'':
		return p.str()
	case c == '-' || c == '+' || c >= '0' && c <= '9':
		start := p.pos
		p.pos++
		for p.pos < len(p.src) && (isAlnum(p.src[p.pos])) {
			p.pos++
		}
		text := p.src[start:p.pos]
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			p.pos = start
			return nil, p.fail("'%s' is not an integer", text)
		}
		return &expr{value: i}, nil
	}
	start := p.pos
	name := p.ident()
	if name == "" {
		return nil, p.fail("expected a value and found %s", p.here())
	}
	for p.pos < len(p.src) && p.src[p.pos] == '.' { // namespace.function
		dot := p.pos
		p.pos++
		part := p.ident()
		if part == "" {
			p.pos = dot
			break
		}
		name += "." + part
	}
	if p.peek() != '(' {
		p.pos = start
		return nil, p.fail("'%s' is not followed by '('; text is written in single quotes", name)
	}
	p.pos++
	e := &expr{op: opCall, name: name, key: strings.ToLower(name)}
	e.runtime = needsRuntime(e.key)
	if p.peek() == ')' {
		p.pos++
		return e, nil
	}
	for {
		a, err := p.expr()
		if err != nil {
			return nil, err
		}
		e.args = append(e.args, a)
		e.runtime = e.runtime || a.runtime
		switch p.peek() {
		case ',':
			p.pos++
		case ')':
			p.pos++
			return e, nil
		default:
			return nil, p.fail("expected ',' or ')' and found %s", p.here())
		}
	}
}

func (p *exprParser) str() (*expr, error) {
	start := p.pos
	p.pos++
	var b strings.Builder
	for p.pos < len(p.src) {
		c := p.src[p.pos]
		p.pos++
		if c != '\'' {
			b.WriteByte(c)
			continue
		}
		if p.pos < len(p.src) && p.src[p.pos] == '\'' { // '' is one quote
			b.WriteByte('\'')
			p.pos++
			continue
		}
		return &expr{value: b.String()}, nil
	}
	p.pos = start
	return nil, p.fail("a string is not closed")
}

// needsRuntime reports whether a function reads deployed resources.
func needsRuntime(key string) bool {
	switch key {
	case "reference", "references":
		return true
	}
	return strings.HasPrefix(key, "list") && len(key) > len("list") && !strings.Contains(key, ".")
}
