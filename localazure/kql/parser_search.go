// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"regexp"
	"strings"
)

// searchOf parses what follows search. The result has the tables as a union; they
// are all tables without "in (...)".
func (p *parser) searchOf(t token) (operator, error) {
	op := operator{kind: "where", tok: t, union: &unionSpec{}}
	params, err := p.parameters("kind")
	if err != nil {
		return op, err
	}
	how, err := p.kind(params, "case_insensitive", "case_insensitive", "case_sensitive", "default")
	if err != nil {
		return op, err
	}
	if p.peekName("in") && p.toks[p.pos+1].text == "(" {
		p.pos += 2
		for {
			q, err := p.tableOperand(true)
			if err != nil {
				return op, err
			}
			op.union.branches = append(op.union.branches, p.expandStars(q)...)
			if !p.accept(",") {
				break
			}
		}
		if err := p.expect(")"); err != nil {
			return op, err
		}
	} else {
		for _, name := range p.tables {
			n := t
			n.text = name
			op.union.branches = append(op.union.branches, &pipeline{source: source{tok: n, tables: []token{n}}})
		}
	}
	saved := p.search
	p.search = true
	op.pred, err = p.expr()
	p.search = saved
	if err == nil && how == "case_sensitive" {
		op.pred = caseSensitive(op.pred)
	}
	return op, err
}

// term returns the condition for a string in a search: it matches a whole word or,
// with stars, the start, the end or a part of one.
func term(of, what *expr, t token) *expr {
	s := text(what.value)
	bare := strings.Trim(s, "*")
	op := "has"
	switch {
	case bare == "":
		return &expr{value: true, tok: t}
	case strings.Contains(bare, "*"):
		parts := strings.Split(s, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		return &expr{op: exBinary, name: "matches regex", args: []*expr{of, {value: "(?is)" + strings.Join(parts, ".*"), tok: what.tok}}, tok: t}
	case strings.HasPrefix(s, "*") && strings.HasSuffix(s, "*"):
		op = "contains"
	case strings.HasPrefix(s, "*"):
		op = "hassuffix"
	case strings.HasSuffix(s, "*"):
		op = "hasprefix"
	}
	return &expr{op: exBinary, name: op, args: []*expr{of, {value: bare, tok: what.tok}}, tok: t}
}

// caseSensitive returns an expression with case-sensitive string operators.
func caseSensitive(e *expr) *expr {
	out := *e
	if e.op == exBinary {
		if _, ok := stringOperators[e.name+"_cs"]; ok {
			out.name = e.name + "_cs"
		}
		out.args = make([]*expr, len(e.args))
		for i, a := range e.args {
			out.args[i] = caseSensitive(a)
		}
	}
	return &out
}
