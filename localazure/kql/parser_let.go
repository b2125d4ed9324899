// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"maps"
)

// binding is the value of a let statement; one field is set.
type binding struct {
	scalar *expr
	table  *pipeline
	fn     *function
}

// function is a function of a let statement. Each call parses its body again with
// the arguments of the call as the values of the parameters.
type function struct {
	params  []param
	body    int // index of its first token
	scope   map[string]binding
	tabular bool
}

type param struct {
	name  string
	table bool
	def   *expr
}

// maxCalls bounds the calls of functions that a query defines, including calls
// inside functions.
const maxCalls = 1000

// statements parses let statements.
func (p *parser) statements() error {
	for p.peekName("let") {
		if err := p.let(); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) let() error {
	p.next()
	name := p.cur()
	if name.kind != tokName {
		return p.fail("expected a name after let and found '%s'", name.text)
	}
	p.next()
	if err := p.expect("="); err != nil {
		return err
	}
	b, err := p.letValue(name)
	if err != nil {
		return err
	}
	p.lets[name.text] = b
	if p.cur().kind == tokEnd {
		return p.fail("a let statement ends with ';' and must be followed by a query")
	}
	return p.expect(";")
}

func (p *parser) letValue(name token) (binding, error) {
	if p.peekName("view") && p.toks[p.pos+1].text == "(" {
		p.next()
	}
	if p.isFunction() {
		fn, err := p.function()
		return binding{fn: fn}, err
	}
	if p.startsTabular(p.pos) {
		t, err := p.pipeline()
		return binding{table: t}, err
	}
	e, err := p.expr()
	if err == nil && p.is("|") {
		return binding{}, p.fail("the value before '|' is not a table")
	}
	if err != nil || e.op == exLiteral || p.inFunction > 0 {
		return binding{scalar: e}, err
	}
	return binding{scalar: &expr{op: exLet, name: name.text, args: []*expr{e}, tok: e.tok}}, nil
}

// isFunction reports whether the next tokens are "()" or "(name:".
func (p *parser) isFunction() bool {
	if !p.is("(") {
		return false
	}
	a := p.toks[p.pos+1]
	if a.kind == tokSymbol && a.text == ")" {
		return true
	}
	return a.kind == tokName && p.toks[p.pos+2].kind == tokSymbol && p.toks[p.pos+2].text == ":"
}

// function parses "(a:long, T:(*)) { ... }".
func (p *parser) function() (*function, error) {
	fn := &function{scope: maps.Clone(p.lets)}
	p.next()
	for !p.accept(")") {
		t := p.cur()
		if t.kind != tokName {
			return nil, p.fail("expected a parameter and found '%s'", t.text)
		}
		p.next()
		if err := p.expect(":"); err != nil {
			return nil, err
		}
		prm := param{name: t.text}
		if p.accept("(") { // a table: its columns are not checked
			prm.table = true
			for depth := 1; depth > 0; {
				c := p.next()
				if c.kind == tokEnd {
					return nil, p.fail("expected ')' and found '%s'", c.text)
				}
				depth += map[string]int{"(": 1, ")": -1}[c.text]
			}
		} else if _, err := p.typeName(); err != nil {
			return nil, err
		}
		if !prm.table && p.accept("=") {
			e, err := p.withoutSearch(p.additive)
			if err != nil {
				return nil, err
			}
			prm.def = e
		}
		fn.params = append(fn.params, prm)
		if !p.accept(",") && !p.is(")") {
			return nil, p.fail("expected ',' or ')' and found '%s'", p.cur().text)
		}
	}
	if err := p.expect("{"); err != nil {
		return nil, err
	}
	fn.body = p.pos
	// parse the body once, so that errors in it have a position
	scope := maps.Clone(fn.scope)
	for _, prm := range fn.params {
		if prm.table {
			scope[prm.name] = binding{table: &pipeline{source: source{kind: srcPrint}}}
		} else {
			scope[prm.name] = binding{scalar: &expr{op: exColumn, name: prm.name}}
		}
	}
	return fn, p.inScope(scope, func() error {
		if err := p.statements(); err != nil {
			return err
		}
		var err error
		if fn.tabular = p.startsTabular(p.pos); fn.tabular {
			_, err = p.pipeline()
		} else {
			_, err = p.expr()
		}
		return err
	})
}

// inScope parses the body of a function up to its closing brace, with the given
// names.
func (p *parser) inScope(scope map[string]binding, read func() error) error {
	if err := p.enter(); err != nil {
		return err
	}
	saved, search := p.lets, p.search
	p.lets, p.search = scope, false
	p.inFunction++
	err := read()
	if err == nil {
		p.accept(";")
		err = p.expect("}")
	}
	p.inFunction--
	p.lets, p.search = saved, search
	p.depth--
	return err
}

// call parses the arguments of a call and then, with read, the body of the
// function.
func (p *parser) call(name token, fn *function, read func() error) error {
	if p.calls++; p.calls > maxCalls {
		return syntax(p.src, name, "the functions of the query are called more than 1000 times, including calls inside functions")
	}
	bare := len(fn.params) == 0 && !p.is("(") // without arguments the parentheses are optional
	if !bare {
		if err := p.expect("("); err != nil {
			return err
		}
	}
	scope := maps.Clone(fn.scope)
	for i, prm := range fn.params {
		switch {
		case p.is(")"):
			if prm.def == nil {
				return semantic(p.src, name, "the function '"+name.text+"' needs a value for its parameter '"+prm.name+"'")
			}
			scope[prm.name] = binding{scalar: prm.def}
			continue
		case prm.table:
			t, err := p.pipeline()
			if err != nil {
				return err
			}
			scope[prm.name] = binding{table: t}
		default:
			e, err := p.withoutSearch(p.expr)
			if err != nil {
				return err
			}
			scope[prm.name] = binding{scalar: e}
		}
		if i+1 < len(fn.params) && !p.accept(",") && !p.is(")") {
			return p.fail("expected ',' or ')' and found '%s'", p.cur().text)
		}
	}
	if !bare && !p.is(")") {
		return p.fail("the function '%s' takes %s", name.text, arity(len(fn.params), len(fn.params)))
	}
	if !bare {
		p.next()
	}
	back := p.pos
	p.pos = fn.body
	err := p.inScope(scope, func() error {
		if err := p.statements(); err != nil {
			return err
		}
		return read()
	})
	if err == nil {
		p.pos = back
	}
	return err
}
