// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// findSpec is what follows find.
type findSpec struct {
	union   *unionSpec
	pred    *expr
	project []Column // nil is the columns of the condition and those of all tables
	pack    bool     // the other columns are in pack_
}

// tableName parses "(name [, scope])" of table().
func (p *parser) tableName() (*expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e, err := p.withoutSearch(p.expr)
	if err != nil {
		return nil, err
	}
	if p.accept(",") {
		if _, err := p.withoutSearch(p.expr); err != nil {
			return nil, err
		}
	}
	return e, p.expect(")")
}

// tableNamed returns the name of the table that table() reads.
func (x *exec) tableNamed(s *source) (token, error) {
	if readsColumns(s.table) {
		return token{}, semantic(x.src, s.table.tok, "table() needs a constant: it cannot read a column")
	}
	v, _, err := x.constant(s.table)
	if err != nil {
		return token{}, err
	}
	name, ok := v.(string)
	if !ok {
		return token{}, semantic(x.src, s.table.tok, "table() needs the name of a table as a string")
	}
	t := s.table.tok
	t.text = name
	return t, nil
}

// withoutMissing removes the inputs of a union that name tables that do not
// exist. It leaves one if all do.
func (x *exec) withoutMissing(u *unionSpec) {
	missing := func(q *pipeline) bool {
		names := q.source.tables
		if q.source.kind == srcNamed {
			t, err := x.tableNamed(&q.source)
			if err != nil {
				return false
			}
			names = []token{t}
		}
		_, err := x.resolve(names)
		var fault *Error
		return (q.source.kind == srcTable || q.source.kind == srcNamed) && errors.As(err, &fault)
	}
	if !slices.ContainsFunc(u.branches, func(q *pipeline) bool { return !missing(q) }) {
		return
	}
	u.branches = slices.DeleteFunc(slices.Clone(u.branches), missing)
}

// findOf parses "[withsource=c] [in (tables)] [where] condition [project ...]".
func (p *parser) findOf(t token) (*findSpec, error) {
	params, err := p.parameters("withsource", "datascope")
	if err != nil {
		return nil, err
	}
	f := &findSpec{union: &unionSpec{source: orElse(params["withsource"].text, "source_")}}
	if p.peekName("in") && p.toks[p.pos+1].text == "(" {
		p.pos += 2
		for {
			q, err := p.tableOperand(true)
			if err != nil {
				return nil, err
			}
			f.union.branches = append(f.union.branches, p.expandStars(q)...)
			if !p.accept(",") {
				break
			}
		}
		if err := p.expect(")"); err != nil {
			return nil, err
		}
	} else {
		for _, name := range p.tables {
			n := t
			n.text = name
			f.union.branches = append(f.union.branches, &pipeline{source: source{tok: n, tables: []token{n}}})
		}
	}
	p.acceptName("where")
	saved := p.search
	p.search = true
	f.pred, err = p.expr()
	p.search = saved
	if err != nil {
		return nil, err
	}
	switch {
	case p.acceptName("project"):
		return f, p.findColumns(f)
	case p.acceptName("project-smart"):
	}
	f.pack = true
	return f, nil
}

// findColumns parses "a, b:type, pack_all()" of find ... project.
func (p *parser) findColumns(f *findSpec) error {
	f.project = []Column{}
	for {
		t := p.cur()
		if t.kind != tokName {
			return p.fail("expected a column and found '%s'", t.text)
		}
		p.next()
		if lower := strings.ToLower(t.text); p.is("(") && (lower == "pack" || lower == "pack_all") {
			p.next()
			p.accept("*")
			if err := p.expect(")"); err != nil {
				return err
			}
			f.pack = true
		} else {
			col := Column{Name: t.text}
			if p.accept(":") {
				typ, err := p.typeName()
				if err != nil {
					return err
				}
				col.Type = typ
			}
			f.project = append(f.project, col)
		}
		if !p.accept(",") {
			return nil
		}
	}
}

// findSource compiles find.
func (x *exec) findSource(s *source) (*relation, error) {
	f := s.find
	branches, err := x.branches(f.union, 0)
	if err != nil {
		return nil, err
	}
	cols, change := f.union.layout(branches)
	c := &compiler{exec: x, cols: cols}
	holds, typ, err := c.compile(f.pred)
	if err != nil {
		return nil, err
	}
	if typ != Bool && typ != Dynamic {
		return nil, semantic(x.src, f.pred.tok, fmt.Sprintf("find needs a condition, not a value of type %s", typ))
	}
	out, at := []Column{cols[0]}, []int{0}
	if f.project == nil {
		read := map[string]bool{}
		columnsOf(f.pred, read)
		for i, col := range cols[1:] {
			if read[col.Name] || !slices.ContainsFunc(branches, func(b branch) bool { return !slices.Contains(b.cols, col) }) {
				out, at = append(out, col), append(at, i+1)
			}
		}
	}
	for _, col := range f.project {
		i := c.column(col.Name)
		if slices.ContainsFunc(out, func(o Column) bool { return o.Name == col.Name }) {
			continue
		}
		if col.Type == "" {
			if col.Type = String; i >= 0 {
				col.Type = cols[i].Type
			}
		}
		out, at = append(out, col), append(at, i)
	}
	if f.pack {
		out = append(out, Column{"pack_", Dynamic})
	}
	return &relation{out, func(next stage) bool {
		return feedAll(branches, change, &mapStage{next, func(row []any) ([]any, bool) {
			if toBool(holds(row)) != true {
				return nil, false
			}
			values := make([]any, len(at), len(out))
			for k, i := range at {
				if values[k] = zero(out[k].Type); i >= 0 {
					values[k] = convert(row[i], out[k].Type)
				}
			}
			if f.pack {
				values = append(values, packed(cols, row, at))
			}
			return values, true
		}})
	}}, nil
}

// packed returns a bag of the columns that have a value and are not at the given
// positions.
func packed(cols []Column, row []any, without []int) map[string]any {
	bag := map[string]any{}
	for i, v := range row {
		if v != nil && v != "" && !slices.Contains(without, i) {
			bag[cols[i].Name] = v
		}
	}
	return bag
}

// columnsOf adds the names of the columns that an expression reads.
func columnsOf(e *expr, names map[string]bool) {
	if e.op == exColumn {
		names[e.name] = true
	}
	for _, a := range e.args {
		columnsOf(a, names)
	}
}
