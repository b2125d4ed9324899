package kql

import (
	"maps"
	"slices"
	"strings"
)

// binding is what a let statement gave a name to: one of the three.
type binding struct {
	scalar *expr
	table  *pipeline
	fn     *function
}

// function is a let with parameters or braces. Its body is read anew at each
// call, with the parameters bound to what the call gives.
type function struct {
	params  []param
	body    int // where in the tokens it begins
	scope   map[string]binding
	tabular bool
}

type param struct {
	name  string
	table bool
	def   *expr
}

// maxCalls bounds the calls of a query's own functions, also by each other.
const maxCalls = 1000

// statements reads let statements.
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
	b, err := p.bound(name)
	if err != nil {
		return err
	}
	p.lets[name.text] = b
	if p.cur().kind == tokEnd {
		return p.fail("a let statement ends with ';', and a query follows it")
	}
	return p.expect(";")
}

func (p *parser) bound(name token) (binding, error) {
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
		return binding{}, p.fail("what stands before '|' is not a table")
	}
	if err != nil || e.op == exLiteral || p.inFunction > 0 {
		return binding{scalar: e}, err
	}
	return binding{scalar: &expr{op: exLet, name: name.text, args: []*expr{e}, tok: e.tok}}, nil
}

// isFunction tells whether "()" or "(name:" comes.
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

// function reads "(a:long, T:(*)) { ... }".
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
		if p.accept("(") { // a table: its columns are taken as they come
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
			e, err := p.plainly(p.additive)
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
	// read once here, so that faults show where they are
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

// inScope reads a function's body, up to its brace, with the given names.
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

// call reads a call's arguments and then, with read, the function's body.
func (p *parser) call(name token, fn *function, read func() error) error {
	if p.calls++; p.calls > maxCalls {
		return syntax(p.src, name, "the query's functions are called more than 1000 times, also by each other")
	}
	bare := len(fn.params) == 0 && !p.is("(") // nothing to give, no parentheses
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
			e, err := p.plainly(p.expr)
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

// startsTabular tells whether a table comes, and not a value.
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
	case "datatable", "materialize":
		return is("(")
	}
	if is("|") {
		return true
	}
	_, known := tables[strings.ToLower(t.text)]
	return known && (next.kind == tokEnd || is(";") || is(")") || is("}") || is(","))
}

// pipeline reads a source and the operators on it. A source that is a pipeline
// itself is put in front, so that its filters reach the database.
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

func (q *pipeline) clone() *pipeline { return &pipeline{q.source, slices.Clone(q.ops)} }

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
		return nil, p.fail("a query starts with a table, such as AzureDiagnostics; found '%s'", t.text)
	}
	p.next()
	if b, ok := p.lets[t.text]; ok {
		switch {
		case b.table != nil:
			if p.accept("(") { // let T = view () { ... } may be called
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
		return nil, unresolved(p.src, t, "'"+t.text+"' is a value and not a table; print shows values")
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

// item reads one table of a union, a join or a search: a name, also with
// stars, a call, or a pipeline in parentheses.
func (p *parser) item(stars bool) (*pipeline, error) {
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

// parameters reads "name=value" pairs, such as kind=inner and hints.
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

// kind checks a kind= parameter against what there is.
func (p *parser) kind(params map[string]token, def string, kinds ...string) (string, error) {
	t, ok := params["kind"]
	if !ok {
		return def, nil
	}
	if k := strings.ToLower(t.text); slices.Contains(kinds, k) {
		return k, nil
	}
	return "", syntax(p.src, t, "kind is one of "+strings.Join(kinds, ", "))
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
	u := &unionSpec{inner: kind == "inner", source: params["withsource"].text}
	for {
		q, err := p.item(true)
		if err != nil {
			return nil, err
		}
		u.branches = append(u.branches, each(q)...)
		if len(u.branches) > MaxNesting {
			return nil, p.fail("the union has more than %d tables", MaxNesting)
		}
		if !p.accept(",") {
			return u, nil
		}
	}
}

// each takes a name with stars apart into the tables that it means.
func each(q *pipeline) []*pipeline {
	if q.source.kind != srcTable || len(q.ops) > 0 || len(q.source.tables) != 1 || !strings.Contains(q.source.tables[0].text, "*") {
		return []*pipeline{q}
	}
	var out []*pipeline
	for _, name := range allTables {
		if t := q.source.tables[0]; matchColumn(t.text, name) {
			t.text = name
			out = append(out, &pipeline{source: source{tok: t, tables: []token{t}}})
		}
	}
	if out == nil { // the name is looked for, and not found, later
		return []*pipeline{q}
	}
	return out
}

// rangeOf reads "name from a to b step c".
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

// typeName reads the name of a type.
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

// searchOf reads what follows the word search; without "in (...)" the union is
// of all tables.
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
			q, err := p.item(true)
			if err != nil {
				return op, err
			}
			op.union.branches = append(op.union.branches, each(q)...)
			if !p.accept(",") {
				break
			}
		}
		if err := p.expect(")"); err != nil {
			return op, err
		}
	} else {
		for _, name := range allTables {
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

// caseSensitive makes a search's conditions on text mind case.
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

const operatorNames = "as, count, distinct, extend, getschema, join, lookup, make-series, mv-apply, mv-expand, order by, parse, parse-where, project (-away, -keep, -rename, -reorder), render, sample, sample-distinct, search, serialize, sort by, summarize, take, limit, top, union and where"

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
		op.kind = "extend"
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
	case "count", "getschema":
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
		return op, p.fail("the operator '%s' is not supported: "+operatorNames+" are", t.text)
	}
	return op, err
}

// join reads "[kind=...] table on keys".
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
	if op.sub, err = p.item(false); err != nil {
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

// joinKey reads a column, or an equality of $left and $right.
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
			return joinKey{}, p.fail("write $left.%s == $right.column: both sides of an equality say which table they are of", t1.text)
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

// expansions reads "[name =] expr [to typeof(t)], ...".
func (p *parser) expansions() ([]named, error) {
	var out []named
	for {
		n := named{tok: p.cur()}
		n.name = p.assigned()
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

// mvApply reads "[name =] array [to typeof(t)], ... on ( operator | ... )".
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

// makeSeries reads "agg [default = v], ... on axis [from a] [to b] step c [by ...]".
func (p *parser) makeSeries(op *operator) error {
	if _, err := p.parameters("kind"); err != nil {
		return err
	}
	for {
		n := named{tok: p.cur()}
		n.name = p.assigned()
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
		return p.fail("expected 'step' with the distance of two points and found '%s'", p.cur().text)
	}
	if p.acceptName("by") {
		op.by, err = p.namedList("Column")
	}
	return err
}

// parseOf reads "[kind=...] expr with pattern".
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
			return syntax(p.src, f, "flags are letters of imsU, with kind=regex")
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
				return p.fail("expected a pattern of *, texts and columns and found '%s'", t.text)
			}
			return nil
		}
		if n := len(op.pattern); n > 0 && op.pattern[n-1].star && part.star {
			return syntax(p.src, t, "two stars in a row have no meaning")
		}
		op.pattern = append(op.pattern, part)
	}
}
