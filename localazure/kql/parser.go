// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strconv"
	"strings"
)

type parser struct {
	src    string
	tables []string // names of the available tables
	toks   []token
	pos    int
	depth  int
	lets   map[string]binding
	// inFunction counts the enclosing function bodies. There, let statements may
	// depend on columns through parameters.
	inFunction int
	// search is true in a search, where a string is a condition on all columns.
	search bool
	// calls counts the calls of functions that the query defines.
	calls int
}

// parse parses let statements and one pipeline.
func parse(src string, tables []string) (*pipeline, error) {
	toks, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, tables: tables, toks: toks, lets: map[string]binding{}}
	if err := p.statements(); err != nil {
		return nil, err
	}
	q, err := p.pipeline()
	if err != nil {
		return nil, err
	}
	p.accept(";")
	if p.cur().kind != tokEnd {
		return nil, p.fail("unexpected '%s'", p.cur().text)
	}
	return q, nil
}

func (p *parser) cur() token { return p.toks[p.pos] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != tokEnd {
		p.pos++
	}
	return t
}

func (p *parser) fail(format string, args ...any) error {
	t := p.cur()
	msg := fmt.Sprintf(format, args...)
	if t.kind == tokEnd {
		msg = strings.Replace(msg, "''", "the end of the query", 1)
	}
	return syntax(p.src, t, msg)
}

func (p *parser) is(sym string) bool { return p.cur().kind == tokSymbol && p.cur().text == sym }

func (p *parser) accept(sym string) bool {
	if p.is(sym) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(sym string) error {
	if !p.accept(sym) {
		return p.fail("expected '%s' and found '%s'", sym, p.cur().text)
	}
	return nil
}

func (p *parser) peekName(name string) bool {
	return p.cur().kind == tokName && strings.EqualFold(p.cur().text, name)
}

func (p *parser) acceptName(name string) bool {
	if p.peekName(name) {
		p.pos++
		return true
	}
	return false
}

// isAssignment reports whether the next tokens are "name =".
func (p *parser) isAssignment() bool {
	return p.cur().kind == tokName && p.toks[p.pos+1].kind == tokSymbol && p.toks[p.pos+1].text == "="
}

// acceptAssignment consumes "name =" and returns the name, or "".
func (p *parser) acceptAssignment() string {
	if !p.isAssignment() {
		return ""
	}
	name := p.next().text
	p.next()
	return name
}

func (p *parser) enter() error {
	if p.depth++; p.depth > MaxNesting {
		return p.fail("the expression is nested deeper than %d levels", MaxNesting)
	}
	return nil
}

// namedList parses "name = expr, expr, ...". auto is the prefix of the names of
// expressions without one.
func (p *parser) namedList(auto string) ([]named, error) {
	var out []named
	for {
		n := named{tok: p.cur()}
		if p.is("*") {
			n.expr = &expr{op: exStar, tok: p.next()}
			n.name = "*"
		} else {
			n.name = p.acceptAssignment()
			e, err := p.expr()
			if err != nil {
				return nil, err
			}
			n.expr = e
			if n.name == "" {
				n.name = autoName(e, auto, len(out))
			}
		}
		out = append(out, n)
		if !p.accept(",") {
			return out, nil
		}
	}
}

// autoName returns the name that Kusto gives to the i-th expression without one.
func autoName(e *expr, auto string, i int) string {
	switch e.op {
	case exColumn, exLet:
		return e.name
	case exMember:
		return autoName(e.args[0], auto, i) + "_" + e.name
	case exIndex:
		if s, ok := e.args[1].value.(string); ok && e.args[1].op == exLiteral {
			return autoName(e.args[0], auto, i) + "_" + s
		}
	case exCall:
		fn := strings.ToLower(e.name)
		switch fn {
		case "bin", "floor", "tostring", "tolong", "toint", "todouble", "todatetime", "tobool", "tolower", "toupper", "startofday", "startofhour", "parse_json", "todynamic":
			if len(e.args) > 0 && (e.args[0].op == exColumn || e.args[0].op == exMember || e.args[0].op == exIndex) {
				return autoName(e.args[0], auto, i)
			}
		}
		if _, agg := aggregates[fn]; agg {
			name := strings.TrimPrefix(fn+"_", "make_")
			if len(e.args) > 0 && fn != "countif" {
				if a := e.args[0]; a.op == exColumn || a.op == exMember || a.op == exIndex {
					name += autoName(a, auto, i)
				}
				if fn == "percentile" && len(e.args) > 1 && e.args[1].op == exLiteral {
					name += "_" + strings.NewReplacer(".", "_", "-", "_").Replace(text(e.args[1].value))
				}
			}
			return name
		}
	}
	if auto == "print_" {
		return auto + strconv.Itoa(i)
	}
	return auto + strconv.Itoa(i+1)
}

// columnPatterns parses names that may contain *.
func (p *parser) columnPatterns() ([]named, error) {
	var out []named
	for {
		t := p.cur()
		text := ""
		end := t.off
		for (p.cur().kind == tokName || p.cur().kind == tokNumber || p.is("*")) && (text == "" || p.cur().off == end) {
			text += p.cur().text
			end = p.cur().end
			p.next()
		}
		if text == "" {
			return nil, p.fail("expected a column and found '%s'", p.cur().text)
		}
		out = append(out, named{name: text, tok: t})
		if p.acceptName("asc") || p.acceptName("desc") {
			continue
		}
		if !p.accept(",") {
			return out, nil
		}
	}
}

func (p *parser) sortList() ([]named, error) {
	var out []named
	for {
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		n := named{tok: e.tok, expr: e, desc: true}
		if p.acceptName("asc") {
			n.desc = false
		} else {
			p.acceptName("desc")
		}
		n.nullsFirst = !n.desc
		if p.acceptName("nulls") {
			switch {
			case p.acceptName("first"):
				n.nullsFirst = true
			case p.acceptName("last"):
				n.nullsFirst = false
			default:
				return nil, p.fail("expected first or last after nulls and found '%s'", p.cur().text)
			}
		}
		out = append(out, n)
		if !p.accept(",") {
			return out, nil
		}
	}
}

// typeName parses the name of a type.
func (p *parser) typeName() (Type, error) {
	t := p.cur()
	typ, ok := typeNames[strings.ToLower(t.text)]
	if t.kind != tokName || !ok {
		return "", p.fail("expected a type, such as string or long, and found '%s'", t.text)
	}
	p.next()
	return typ, nil
}

var typeNames = map[string]Type{"string": String, "long": Long, "int": Long, "real": Real, "double": Real, "decimal": Real, "bool": Bool, "boolean": Bool,
	"datetime": DateTime, "date": DateTime, "timespan": TimeSpan, "time": TimeSpan, "dynamic": Dynamic, "guid": String}
