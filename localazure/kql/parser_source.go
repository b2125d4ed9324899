// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"slices"
	"strings"
)

// pipeline parses a source and its operators. If the source is a pipeline itself,
// the operators are added to it, so that the conditions of both reach its table.
func (p *parser) pipeline() (*pipeline, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	q, err := p.source()
	if err != nil {
		return nil, err
	}
	return q, p.operators(q)
}

func (p *parser) operators(q *pipeline) error {
	for p.accept("|") {
		op, err := p.operator()
		if err != nil {
			return err
		}
		q.ops = append(q.ops, op)
		if len(q.ops) > MaxNesting {
			return p.fail("the query has more than %d operators", MaxNesting)
		}
	}
	return nil
}

func (p *parser) source() (*pipeline, error) {
	t := p.cur()
	if t.kind == tokSymbol && t.text == "(" {
		p.next()
		q, err := p.pipeline()
		if err != nil {
			return nil, err
		}
		return q, p.expect(")")
	}
	if t.kind == tokSymbol && t.text == "[" && p.toks[p.pos+1].kind == tokString { // ['table name']
		p.next()
		t = p.next()
		return &pipeline{source: source{tok: t, tables: []token{t}}}, p.expect("]")
	}
	if t.kind != tokName {
		return nil, p.fail("a query starts with a table%s; found '%s'", p.example(), t.text)
	}
	p.next()
	if b, ok := p.lets[t.text]; ok {
		switch {
		case b.table != nil:
			if p.accept("(") { // T() for let T = view () { ... }
				if err := p.expect(")"); err != nil {
					return nil, err
				}
			}
			return b.table.clone(), nil
		case b.fn != nil && b.fn.tabular:
			var q *pipeline
			err := p.call(t, b.fn, func() (err error) {
				q, err = p.pipeline()
				return err
			})
			return q, err
		}
		return nil, unresolved(p.src, t, "'"+t.text+"' is a value, not a table; use print for values")
	}
	q := &pipeline{source: source{tok: t}}
	var err error
	switch strings.ToLower(t.text) {
	case "print":
		q.source.kind = srcPrint
		q.source.values, err = p.namedList("print_")
	case "union":
		q.source.union, err = p.unionOf()
		q.source.kind = srcUnion
	case "range":
		err = p.rangeOf(&q.source)
	case "datatable":
		err = p.datatable(&q.source)
	case "materialize":
		if err = p.expect("("); err == nil {
			if q, err = p.pipeline(); err == nil {
				err = p.expect(")")
			}
		}
	case "table":
		if !p.is("(") {
			q.source.tables = []token{t}
			break
		}
		q.source.kind = srcNamed
		q.source.table, err = p.tableName()
	case "find":
		q.source.kind = srcFind
		q.source.find, err = p.findOf(t)
	case "search":
		var op operator
		op, err = p.searchOf(t)
		q.source.union = &unionSpec{branches: op.union.branches, source: "$table"}
		q.source.kind = srcUnion
		op.union = nil
		q.ops = append(q.ops, op)
	default:
		q.source.tables = []token{t}
	}
	return q, err
}

// startsTabular reports whether a table, and not a value, starts at a token.
func (p *parser) startsTabular(at int) bool {
	for p.toks[at].kind == tokSymbol && p.toks[at].text == "(" {
		at++
	}
	t, next := p.toks[at], p.toks[min(at+1, len(p.toks)-1)]
	if t.kind != tokName {
		return false
	}
	is := func(s string) bool { return next.kind == tokSymbol && next.text == s }
	if b, ok := p.lets[t.text]; ok {
		return b.table != nil || b.fn != nil && b.fn.tabular && (is("(") || len(b.fn.params) == 0)
	}
	switch strings.ToLower(t.text) {
	case "union", "search":
		return next.kind == tokName || next.kind == tokString || is("(") || is("*")
	case "print":
		return next.kind == tokName || next.kind == tokString || next.kind == tokNumber || is("(")
	case "range":
		return next.kind == tokName
	case "find":
		return next.kind == tokName || next.kind == tokString
	case "datatable", "materialize", "table":
		return is("(")
	}
	if is("|") {
		return true
	}
	known := slices.ContainsFunc(p.tables, func(name string) bool { return strings.EqualFold(name, t.text) })
	return known && (next.kind == tokEnd || is(";") || is(")") || is("}") || is(","))
}

// tableOperand parses a table of a union, a join or a search: a name (with stars,
// if they are allowed), a call, or a pipeline in parentheses.
func (p *parser) tableOperand(stars bool) (*pipeline, error) {
	t := p.cur()
	if stars && (t.kind == tokName || p.is("*")) && p.toks[p.pos+1].text != "(" {
		text, end := "", t.off
		for (p.cur().kind == tokName || p.cur().kind == tokNumber || p.is("*")) && p.cur().off == end {
			text += p.cur().text
			end = p.cur().end
			p.next()
		}
		if b, ok := p.lets[text]; ok && b.table != nil {
			return b.table.clone(), nil
		}
		t.text, t.end = text, end
		return &pipeline{source: source{tok: t, tables: []token{t}}}, nil
	}
	if t.kind != tokName && !p.is("(") {
		return nil, p.fail("expected a table and found '%s'", t.text)
	}
	return p.source()
}

func (p *parser) unionOf() (*unionSpec, error) {
	params, err := p.parameters("kind", "withsource", "isfuzzy")
	if err != nil {
		return nil, err
	}
	kind, err := p.kind(params, "outer", "inner", "outer")
	if err != nil {
		return nil, err
	}
	u := &unionSpec{inner: kind == "inner", source: params["withsource"].text, fuzzy: strings.EqualFold(params["isfuzzy"].text, "true")}
	for {
		q, err := p.tableOperand(true)
		if err != nil {
			return nil, err
		}
		u.branches = append(u.branches, p.expandStars(q)...)
		if len(u.branches) > MaxNesting {
			return nil, p.fail("the union has more than %d tables", MaxNesting)
		}
		if !p.accept(",") {
			return u, nil
		}
	}
}

// expandStars returns one pipeline for each table that a name with stars
// matches, and other pipelines as they are.
func (p *parser) expandStars(q *pipeline) []*pipeline {
	if q.source.kind != srcTable || len(q.ops) > 0 || len(q.source.tables) != 1 || !strings.Contains(q.source.tables[0].text, "*") {
		return []*pipeline{q}
	}
	var out []*pipeline
	for _, name := range p.tables {
		if t := q.source.tables[0]; matchColumn(t.text, name) {
			t.text = name
			out = append(out, &pipeline{source: source{tok: t, tables: []token{t}}})
		}
	}
	if out == nil { // resolve returns the error
		return []*pipeline{q}
	}
	return out
}

// rangeOf parses "name from a to b step c".
func (p *parser) rangeOf(s *source) error {
	s.kind = srcRange
	if p.cur().kind != tokName {
		return p.fail("expected a column after range and found '%s'", p.cur().text)
	}
	s.name = p.next().text
	for _, part := range []struct {
		word string
		to   **expr
	}{{"from", &s.from}, {"to", &s.to}, {"step", &s.step}} {
		if !p.acceptName(part.word) {
			return p.fail("expected '%s' in range and found '%s'", part.word, p.cur().text)
		}
		e, err := p.additive()
		if err != nil {
			return err
		}
		*part.to = e
	}
	return nil
}

func (p *parser) datatable(s *source) error {
	s.kind = srcDatatable
	if err := p.expect("("); err != nil {
		return err
	}
	for {
		t := p.cur()
		if t.kind != tokName {
			return p.fail("expected a column and found '%s'", t.text)
		}
		p.next()
		if err := p.expect(":"); err != nil {
			return err
		}
		typ, err := p.typeName()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(s.cols, func(c Column) bool { return c.Name == t.text }) {
			return semantic(p.src, t, "the datatable has two columns named '"+t.text+"'")
		}
		s.cols = append(s.cols, Column{t.text, typ})
		if !p.accept(",") {
			break
		}
	}
	if err := p.expect(")"); err != nil {
		return err
	}
	if err := p.expect("["); err != nil {
		return err
	}
	for !p.accept("]") {
		e, err := p.expr()
		if err != nil {
			return err
		}
		s.cells = append(s.cells, e)
		if !p.accept(",") && !p.is("]") {
			return p.fail("expected ',' or ']' and found '%s'", p.cur().text)
		}
	}
	if len(s.cells)%len(s.cols) != 0 {
		return semantic(p.src, s.tok, "the number of values of a datatable must be a multiple of the number of its columns")
	}
	return nil
}

// example names a table for an error message.
func (p *parser) example() string {
	if len(p.tables) == 0 {
		return ""
	}
	return ", such as " + p.tables[0]
}
