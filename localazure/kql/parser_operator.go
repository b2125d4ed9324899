// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"slices"
	"strings"
)

func (p *parser) operator() (operator, error) {
	t := p.next()
	op := operator{kind: strings.ToLower(t.text), tok: t}
	if t.kind != tokName {
		if t.kind != tokEnd {
			p.pos--
		}
		return op, p.fail("expected an operator after '|' and found '%s'", t.text)
	}
	var err error
	switch op.kind {
	case "where", "filter":
		op.kind = "where"
		op.pred, err = p.expr()
	case "project", "extend", "distinct":
		op.cols, err = p.namedList("Column")
	case "serialize":
		if p.cur().kind == tokName || p.is("(") {
			op.cols, err = p.namedList("Column")
		}
	case "project-away", "project-keep", "project-reorder":
		op.cols, err = p.columnPatterns()
	case "project-rename":
		op.cols, err = p.namedList("")
	case "mv-expand":
		err = p.mvExpand(&op)
	case "mv-apply":
		err = p.mvApply(&op)
	case "summarize":
		if _, err = p.parameters(); err != nil {
			return op, err
		}
		if !p.peekName("by") {
			if op.cols, err = p.namedList("agg"); err != nil {
				return op, err
			}
		}
		if p.acceptName("by") {
			op.by, err = p.namedList("Column")
		}
	case "make-series":
		err = p.makeSeries(&op)
	case "order", "sort":
		op.kind = "sort"
		if !p.acceptName("by") {
			return op, p.fail("expected 'by' after %s and found '%s'", t.text, p.cur().text)
		}
		op.cols, err = p.sortList()
	case "order-by", "sort-by":
		op.kind = "sort"
		op.cols, err = p.sortList()
	case "take", "limit", "sample":
		if op.kind == "limit" {
			op.kind = "take"
		}
		op.n, err = p.expr()
	case "sample-distinct":
		if op.n, err = p.expr(); err != nil {
			return op, err
		}
		if !p.acceptName("of") {
			return op, p.fail("expected 'of' in sample-distinct and found '%s'", p.cur().text)
		}
		op.cols, err = p.namedList("Column")
	case "top":
		if op.n, err = p.expr(); err != nil {
			return op, err
		}
		if !p.acceptName("by") {
			return op, p.fail("expected 'by' in top and found '%s'", p.cur().text)
		}
		op.cols, err = p.sortList()
	case "join", "lookup":
		err = p.join(&op)
	case "union":
		op.union, err = p.unionOf()
	case "parse", "parse-where":
		err = p.parseOf(&op)
	case "search":
		op, err = p.searchOf(t)
		op.union = nil
	case "as":
		if _, err = p.parameters(); err == nil && p.cur().kind != tokName {
			return op, p.fail("expected a name after as and found '%s'", p.cur().text)
		}
		p.next()
	case "count":
		if p.acceptName("as") {
			if p.cur().kind != tokName {
				return op, p.fail("expected a name after as and found '%s'", p.cur().text)
			}
			op.index = p.next().text
		}
	case "getschema":
	case "partition":
		err = p.partitionOf(&op)
	case "evaluate":
		err = p.evaluateOf(&op)
	case "render":
		for depth := 0; ; {
			c := p.cur()
			if c.kind == tokEnd || c.kind == tokSymbol && (c.text == "|" || c.text == ";" || c.text == "}" || c.text == ")" && depth == 0) {
				break
			}
			if c.kind == tokSymbol {
				depth += map[string]int{"(": 1, ")": -1}[c.text]
			}
			p.next()
		}
	default:
		p.pos--
		return op, p.fail("the operator '%s' is not supported; use one of %s", t.text, strings.Join(operatorNames, ", "))
	}
	return op, err
}

// parameters parses "name=value" pairs, such as kind=inner. It skips hints.
func (p *parser) parameters(names ...string) (map[string]token, error) {
	out := map[string]token{}
	for p.cur().kind == tokName {
		name := strings.ToLower(p.cur().text)
		if name == "hint" && p.toks[p.pos+1].text == "." {
			p.next()
			p.next()
			if p.cur().kind != tokName {
				return nil, p.fail("expected the name of a hint and found '%s'", p.cur().text)
			}
			p.next()
			if err := p.expect("="); err != nil {
				return nil, err
			}
			p.next()
			continue
		}
		if !slices.Contains(names, name) || !p.isAssignment() {
			break
		}
		p.pos += 2
		if k := p.cur().kind; k != tokName && k != tokNumber && k != tokString {
			return nil, p.fail("expected a value for %s and found '%s'", name, p.cur().text)
		}
		out[name] = p.next()
	}
	return out, nil
}

// kind returns the value of the kind= parameter, or the default.
func (p *parser) kind(params map[string]token, def string, kinds ...string) (string, error) {
	t, ok := params["kind"]
	if !ok {
		return def, nil
	}
	if k := strings.ToLower(t.text); slices.Contains(kinds, k) {
		return k, nil
	}
	return "", syntax(p.src, t, "kind must be one of "+strings.Join(kinds, ", "))
}

// join parses "[kind=...] table on keys".
func (p *parser) join(op *operator) error {
	params, err := p.parameters("kind")
	if err != nil {
		return err
	}
	if op.kind == "join" {
		op.how, err = p.kind(params, "innerunique", "inner", "innerunique", "leftouter", "rightouter", "fullouter", "leftanti", "anti", "leftantisemi", "rightanti", "rightantisemi", "leftsemi", "rightsemi")
	} else {
		op.how, err = p.kind(params, "leftouter", "leftouter", "inner")
	}
	if err != nil {
		return err
	}
	switch op.how {
	case "anti", "leftantisemi":
		op.how = "leftanti"
	case "rightantisemi":
		op.how = "rightanti"
	}
	if op.sub, err = p.tableOperand(false); err != nil {
		return err
	}
	if !p.acceptName("on") {
		return p.fail("expected 'on' with the columns that must be equal and found '%s'", p.cur().text)
	}
	for {
		k, err := p.joinKey()
		if err != nil {
			return err
		}
		op.keys = append(op.keys, k)
		if !p.accept(",") && !p.acceptName("and") {
			return nil
		}
	}
}

// joinKey parses a column, or an equality of $left and $right.
func (p *parser) joinKey() (joinKey, error) {
	column := func() (side string, t token, err error) {
		if p.is("[") && p.toks[p.pos+1].kind == tokString {
			p.next()
			t = p.next()
			return "", t, p.expect("]")
		}
		t = p.cur()
		if t.kind != tokName {
			return "", t, p.fail("expected a column and found '%s'", t.text)
		}
		p.next()
		if (t.text == "$left" || t.text == "$right") && p.accept(".") {
			side, t = t.text, p.cur()
			if t.kind != tokName {
				return "", t, p.fail("expected a column after %s. and found '%s'", side, t.text)
			}
			p.next()
		}
		return side, t, nil
	}
	s1, t1, err := column()
	if err != nil {
		return joinKey{}, err
	}
	if s1 == "" {
		if p.is("==") {
			return joinKey{}, p.fail("write $left.%s == $right.column: both sides of an equality must name their table", t1.text)
		}
		return joinKey{t1, t1}, nil
	}
	if err := p.expect("=="); err != nil {
		return joinKey{}, err
	}
	s2, t2, err := column()
	if err != nil {
		return joinKey{}, err
	}
	switch {
	case s1 == "$left" && s2 == "$right":
		return joinKey{t1, t2}, nil
	case s1 == "$right" && s2 == "$left":
		return joinKey{t2, t1}, nil
	}
	return joinKey{}, syntax(p.src, t2, "one side of the equality must be of $left and the other of $right")
}

// expansions parses "[name =] expr [to typeof(t)], ...".
func (p *parser) expansions() ([]named, error) {
	var out []named
	for {
		n := named{tok: p.cur()}
		n.name = p.acceptAssignment()
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		n.expr = e
		if n.name == "" {
			n.name = autoName(e, "Column", len(out))
		}
		if p.acceptName("to") {
			if !p.acceptName("typeof") {
				return nil, p.fail("expected typeof(...) after to and found '%s'", p.cur().text)
			}
			if err := p.expect("("); err != nil {
				return nil, err
			}
			if n.typ, err = p.typeName(); err != nil {
				return nil, err
			}
			if err := p.expect(")"); err != nil {
				return nil, err
			}
		}
		out = append(out, n)
		if !p.accept(",") {
			return out, nil
		}
	}
}

func (p *parser) mvExpand(op *operator) error {
	params, err := p.parameters("kind", "bagexpansion", "with_itemindex")
	if err != nil {
		return err
	}
	if k, ok := params["bagexpansion"]; ok {
		params["kind"] = k
	}
	if op.how, err = p.kind(params, "bag", "bag", "array"); err != nil {
		return err
	}
	op.index = params["with_itemindex"].text
	if op.cols, err = p.expansions(); err != nil {
		return err
	}
	if p.acceptName("limit") {
		op.n, err = p.additive()
	}
	return err
}

// mvApply parses "[name =] array [to typeof(t)], ... on ( operator | ... )".
func (p *parser) mvApply(op *operator) error {
	params, err := p.parameters("with_itemindex")
	if err != nil {
		return err
	}
	op.index, op.how = params["with_itemindex"].text, "bag"
	if op.cols, err = p.expansions(); err != nil {
		return err
	}
	if p.acceptName("limit") {
		if op.n, err = p.additive(); err != nil {
			return err
		}
	}
	if !p.acceptName("on") {
		return p.fail("expected 'on' in mv-apply and found '%s'", p.cur().text)
	}
	if err := p.expect("("); err != nil {
		return err
	}
	if err := p.enter(); err != nil {
		return err
	}
	defer func() { p.depth-- }()
	first, err := p.operator()
	if err != nil {
		return err
	}
	q := &pipeline{ops: []operator{first}}
	if err := p.operators(q); err != nil {
		return err
	}
	op.on = q.ops
	return p.expect(")")
}

// makeSeries parses "agg [default = v], ... on axis [from a] [to b] step c [by ...]".
func (p *parser) makeSeries(op *operator) error {
	if _, err := p.parameters("kind"); err != nil {
		return err
	}
	for {
		n := named{tok: p.cur()}
		n.name = p.acceptAssignment()
		e, err := p.additive()
		if err != nil {
			return err
		}
		n.expr = e
		if n.name == "" {
			n.name = autoName(e, "agg", len(op.cols))
		}
		if p.acceptName("default") {
			if err := p.expect("="); err != nil {
				return err
			}
			if n.def, err = p.additive(); err != nil {
				return err
			}
		}
		op.cols = append(op.cols, n)
		if !p.accept(",") {
			break
		}
	}
	if !p.acceptName("on") {
		return p.fail("expected 'on' with the axis of the series and found '%s'", p.cur().text)
	}
	op.axis.tok = p.cur()
	e, err := p.additive()
	if err != nil {
		return err
	}
	op.axis.expr, op.axis.name = e, autoName(e, "Column", 0)
	for _, part := range []struct {
		word string
		to   **expr
	}{{"from", &op.from}, {"to", &op.to}, {"step", &op.step}} {
		if !p.acceptName(part.word) {
			continue
		}
		if *part.to, err = p.additive(); err != nil {
			return err
		}
	}
	if op.step == nil {
		return p.fail("expected 'step' with the distance between two points and found '%s'", p.cur().text)
	}
	if p.acceptName("by") {
		op.by, err = p.namedList("Column")
	}
	return err
}

// parseOf parses "[kind=...] expr with pattern".
func (p *parser) parseOf(op *operator) error {
	params, err := p.parameters("kind", "flags")
	if err != nil {
		return err
	}
	if op.how, err = p.kind(params, "simple", "simple", "relaxed", "regex"); err != nil {
		return err
	}
	if f, ok := params["flags"]; ok {
		op.flags = f.text
		if op.how != "regex" || strings.Trim(f.text, "imsU") != "" {
			return syntax(p.src, f, "flags must be letters of imsU and need kind=regex")
		}
	}
	if op.pred, err = p.expr(); err != nil {
		return err
	}
	if !p.acceptName("with") {
		return p.fail("expected 'with' and a pattern and found '%s'", p.cur().text)
	}
	for {
		t := p.cur()
		part := parsePart{tok: t}
		switch {
		case p.accept("*"):
			part.star = true
		case t.kind == tokString:
			part.literal = p.next().text
		case t.kind == tokName:
			part.column, part.typ = p.next().text, String
			if p.accept(":") {
				if part.typ, err = p.typeName(); err != nil {
					return err
				}
			}
		default:
			if len(op.pattern) == 0 {
				return p.fail("expected a pattern of *, strings and columns and found '%s'", t.text)
			}
			return nil
		}
		if n := len(op.pattern); n > 0 && op.pattern[n-1].star && part.star {
			return syntax(p.src, t, "two stars in a row have no meaning")
		}
		op.pattern = append(op.pattern, part)
	}
}
