// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// outputSchema is what follows the colon of evaluate: the columns of the result.
type outputSchema struct {
	star bool // the columns of the input come first
	cols []Column
}

// plugin is a plugin of evaluate. It gets all rows, as the columns of its result
// depend on them.
type plugin func(x *exec, op operator, in *rowSet) (*rowSet, error)

// plugins are the plugins of evaluate by name.
var plugins = map[string]plugin{}

func init() { // the plugins read the table of functions, which lists them
	plugins["bag_unpack"] = bagUnpack
	plugins["pivot"] = pivot
	plugins["narrow"] = narrow
}

// rowSet is a table in memory.
type rowSet struct {
	cols []Column
	rows [][]any
}

// maxPluginColumns bounds the columns of the result of a plugin.
const maxPluginColumns = 1000

// evaluateOf parses "plugin(arguments) [: (schema)]".
func (p *parser) evaluateOf(op *operator) error {
	if _, err := p.parameters(); err != nil {
		return err
	}
	t := p.cur()
	if t.kind != tokName {
		return p.fail("expected a plugin after evaluate and found '%s'", t.text)
	}
	names := slices.Sorted(maps.Keys(plugins))
	if _, ok := plugins[strings.ToLower(t.text)]; !ok {
		return p.fail("the plugin '%s' of evaluate is not supported; use one of %s", t.text, strings.Join(names, ", "))
	}
	p.next()
	op.how, op.tok = strings.ToLower(t.text), t
	if !p.is("(") {
		return p.expect("(")
	}
	call, err := p.name(t)
	if err != nil {
		return err
	}
	op.plugin = call.args
	if !p.accept(":") {
		return nil
	}
	if err := p.expect("("); err != nil {
		return err
	}
	op.output = &outputSchema{star: p.accept("*")}
	if op.output.star && !p.accept(",") {
		return p.expect(")")
	}
	for {
		c := p.cur()
		if c.kind != tokName {
			return p.fail("expected a column and found '%s'", c.text)
		}
		p.next()
		if err := p.expect(":"); err != nil {
			return err
		}
		typ, err := p.typeName()
		if err != nil {
			return err
		}
		op.output.cols = append(op.output.cols, Column{c.text, typ})
		if !p.accept(",") {
			return p.expect(")")
		}
	}
}

// evaluate runs a plugin on the rows of a relation. It reads them now.
func (x *exec) evaluate(rel *relation, op operator) (*relation, error) {
	in, err := x.rowsOf(rel)
	if err != nil {
		return nil, err
	}
	out, err := plugins[op.how](x, op, in)
	if err != nil {
		return nil, err
	}
	if x.run.err != nil {
		return nil, x.run.err
	}
	if op.output != nil {
		out = op.output.apply(in.cols, out)
	}
	return &relation{out.cols, func(next stage) bool {
		for _, row := range out.rows {
			if !next.push(slices.Clone(row)) {
				return false
			}
		}
		return true
	}}, nil
}

// rowsOf reads a relation into memory.
func (x *exec) rowsOf(rel *relation) (*rowSet, error) {
	out := &rowSet{cols: rel.cols}
	rel.feed(rowFunc(func(row []any) bool {
		out.rows = append(out.rows, row)
		return x.run.hold(row...)
	}))
	return out, x.run.err
}

// apply returns rows with the columns of a schema only.
func (s *outputSchema) apply(in []Column, set *rowSet) *rowSet {
	out := &rowSet{}
	if s.star {
		for _, c := range in {
			if position(set.cols, c.Name) >= 0 {
				out.cols = append(out.cols, c)
			}
		}
	}
	for _, c := range s.cols {
		if i := position(out.cols, c.Name); i >= 0 {
			out.cols[i] = c
		} else {
			out.cols = append(out.cols, c)
		}
	}
	for _, row := range set.rows {
		values := make([]any, len(out.cols))
		for k, c := range out.cols {
			if values[k] = zero(c.Type); position(set.cols, c.Name) >= 0 {
				values[k] = convert(row[position(set.cols, c.Name)], c.Type)
			}
		}
		out.rows = append(out.rows, values)
	}
	return out
}

// pluginColumn returns the position of the column that an argument names.
func (x *exec) pluginColumn(op operator, i int, in *rowSet) (int, error) {
	if i >= len(op.plugin) || op.plugin[i].op != exColumn {
		return 0, semantic(x.src, op.tok, fmt.Sprintf("argument %d of %s must be a column", i+1, op.how))
	}
	e := op.plugin[i]
	at := position(in.cols, e.name)
	if at < 0 {
		c := compiler{exec: x, cols: in.cols}
		return 0, unresolved(x.src, e.tok, fmt.Sprintf("failed to resolve column named '%s'%s", e.name, c.hint(e.name)))
	}
	return at, nil
}

func (x *exec) tooManyColumns(op operator) error {
	return &Error{Code: LimitError, Message: fmt.Sprintf("%s makes more than %d columns: filter the table first", op.how, maxPluginColumns)}
}

// bagUnpack implements bag_unpack(bag [, prefix [, conflict [, ignored]]]): a
// column for each key of the bags.
func bagUnpack(x *exec, op operator, in *rowSet) (*rowSet, error) {
	at, err := x.pluginColumn(op, 0, in)
	if err != nil {
		return nil, err
	}
	if in.cols[at].Type != Dynamic {
		return nil, semantic(x.src, op.plugin[0].tok, fmt.Sprintf("bag_unpack needs a column of type dynamic, and '%s' is %s", in.cols[at].Name, in.cols[at].Type))
	}
	options := []any{nil, "", "error", nil}
	if len(op.plugin) > len(options) {
		return nil, semantic(x.src, op.tok, fmt.Sprintf("bag_unpack takes %s, not %d", arity(1, len(options)), len(op.plugin)))
	}
	for i := 1; i < len(op.plugin); i++ {
		if options[i], _, err = x.constant(op.plugin[i]); err != nil {
			return nil, err
		}
	}
	prefix, conflict := text(options[1]), text(options[2])
	if !slices.Contains([]string{"error", "replace_source", "keep_source"}, conflict) {
		return nil, semantic(x.src, op.plugin[2].tok, "the conflict of bag_unpack must be error, replace_source or keep_source")
	}
	ignored := map[string]bool{}
	list, _ := toDynamic(options[3]).([]any)
	for _, v := range list {
		ignored[text(v)] = true
	}
	types := map[string]Type{}
	for _, row := range in.rows {
		bag, _ := row[at].(map[string]any)
		for k, v := range bag {
			if ignored[k] {
				continue
			}
			if types[prefix+k] = joinTypes(types[prefix+k], v); len(types) > maxPluginColumns {
				return nil, x.tooManyColumns(op)
			}
		}
	}
	out := &rowSet{cols: slices.Delete(slices.Clone(in.cols), at, at+1)}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		i, typ := position(out.cols, name), orElse(types[name], Dynamic)
		switch {
		case i < 0:
			out.cols = append(out.cols, Column{name, typ})
		case conflict == "error":
			return nil, semantic(x.src, op.tok, fmt.Sprintf("bag_unpack makes a column '%s', which the table has already: give a prefix, or a conflict of replace_source or keep_source", name))
		case conflict == "replace_source":
			out.cols[i].Type = typ
		}
	}
	for _, row := range in.rows {
		values := make([]any, len(out.cols))
		copy(values, slices.Delete(slices.Clone(row), at, at+1))
		bag, _ := row[at].(map[string]any)
		for i, c := range out.cols {
			name, ok := strings.CutPrefix(c.Name, prefix)
			_, unpacked := types[c.Name]
			if !ok || !unpacked || i < len(in.cols)-1 && conflict == "keep_source" {
				continue
			}
			values[i] = convert(bag[name], c.Type)
		}
		out.rows = append(out.rows, values)
		if !x.run.hold(values[len(in.cols)-1:]...) {
			return nil, x.run.err
		}
	}
	return out, nil
}

// joinTypes returns the type of a column that has values of type t and v.
func joinTypes(t Type, v any) Type {
	switch of := typeOf(v); {
	case v == nil || t == of:
		return t
	case t == "":
		return of
	case t == Long && of == Real || t == Real && of == Long:
		return Real
	}
	return Dynamic
}

// pivot implements pivot(column [, aggregate [, by ...]]): a column for each value
// of a column, with the aggregate of its rows. Without by, rows are grouped by the
// columns that neither argument names.
func pivot(x *exec, op operator, in *rowSet) (*rowSet, error) {
	at, err := x.pluginColumn(op, 0, in)
	if err != nil {
		return nil, err
	}
	agg := &expr{op: exCall, name: "count", tok: op.tok}
	if len(op.plugin) > 1 {
		agg = op.plugin[1]
	}
	if _, ok := aggregates[strings.ToLower(agg.name)]; agg.op != exCall || !ok {
		return nil, semantic(x.src, agg.tok, "the second argument of pivot must be an aggregate, such as count() or sum(x)")
	}
	used := map[string]bool{in.cols[at].Name: true}
	columnsOf(agg, used)
	var by []named
	for i := 2; i < len(op.plugin); i++ {
		if _, err := x.pluginColumn(op, i, in); err != nil {
			return nil, err
		}
		by = append(by, named{name: op.plugin[i].name, tok: op.plugin[i].tok, expr: op.plugin[i]})
	}
	for _, c := range in.cols {
		if len(op.plugin) < 3 && !used[c.Name] {
			by = append(by, named{name: c.Name, tok: op.tok, expr: &expr{op: exColumn, name: c.Name, tok: op.tok}})
		}
	}
	key1 := named{name: "\x00pivot", tok: op.tok, expr: &expr{op: exColumn, name: in.cols[at].Name, tok: op.tok}}
	sums := operator{kind: "summarize", tok: op.tok, by: append(slices.Clone(by), key1), cols: []named{{name: "\x00value", tok: agg.tok, expr: agg}}}
	c := &compiler{exec: x, cols: in.cols}
	grouped, err := x.through(c, &relation{in.cols, func(next stage) bool {
		for _, row := range in.rows {
			if !next.push(row) {
				return false
			}
		}
		return true
	}}, []operator{sums})
	if err != nil {
		return nil, err
	}
	set, err := x.rowsOf(grouped)
	if err != nil {
		return nil, err
	}
	return spread(x, op, set, len(by))
}

// spread turns the rows (group..., name, value) into one row for each group, with
// a column for each name.
func spread(x *exec, op operator, set *rowSet, groups int) (*rowSet, error) {
	names := map[string]int{}
	for _, row := range set.rows {
		if names[text(row[groups])] = 0; len(names) > maxPluginColumns {
			return nil, x.tooManyColumns(op)
		}
	}
	out := &rowSet{cols: slices.Clone(set.cols[:groups])}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		names[name] = len(out.cols)
		label := orElse(name, "Column")
		for n := 1; position(out.cols, label) >= 0; n++ {
			label = fmt.Sprintf("%s%d", orElse(name, "Column"), n)
		}
		out.cols = append(out.cols, Column{label, set.cols[groups+1].Type})
	}
	empty := func(i int) any { // counts and sums of no row are 0
		switch agg := op.plugin; {
		case len(agg) < 2, strings.HasPrefix(strings.ToLower(agg[1].name), "count"), strings.HasPrefix(strings.ToLower(agg[1].name), "dcount"), strings.HasPrefix(strings.ToLower(agg[1].name), "sum"):
			return convert(int64(0), out.cols[i].Type)
		}
		return zero(out.cols[i].Type)
	}
	at := map[string][]any{}
	for _, row := range set.rows {
		id := rowKey(row[:groups])
		values := at[id]
		if values == nil {
			values = make([]any, len(out.cols))
			copy(values, row[:groups])
			for i := groups; i < len(values); i++ {
				values[i] = empty(i)
			}
			if !x.run.hold(values...) {
				return nil, x.run.err
			}
			at[id], out.rows = values, append(out.rows, values)
		}
		values[names[text(row[groups])]] = row[groups+1]
	}
	return out, nil
}

// narrow implements narrow(): a row for each value of each row.
func narrow(x *exec, op operator, in *rowSet) (*rowSet, error) {
	if len(op.plugin) > 0 {
		return nil, semantic(x.src, op.tok, "narrow takes no arguments")
	}
	out := &rowSet{cols: []Column{{"Row", Long}, {"Column", String}, {"Value", String}}}
	for i, row := range in.rows {
		for k, c := range in.cols {
			if !x.run.countMade("narrow") || !x.run.hold(row[k]) {
				return nil, x.run.err
			}
			out.rows = append(out.rows, []any{int64(i), c.Name, text(row[k])})
		}
	}
	return out, nil
}
