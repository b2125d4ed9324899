// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Table is a table that queries can read.
type Table interface {
	// Schema describes the table. It returns the same at every call.
	Schema() Schema
	// Scan calls visit for each row until visit returns false or ctx ends. The
	// row has one value for each of s.Columns; Scan may reuse the slice after
	// visit returns. Values have the Go types of their columns.
	Scan(ctx context.Context, s Scan, visit func(row []any) bool) error
}

// Schema is the name and the columns of a table.
type Schema struct {
	Name    string
	Columns []Column
	// Filterable names the columns for which Scan uses conditions.
	Filterable []string
}

// Column is a column of a table or of a result.
type Column struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// Scan is what a query needs of a table.
type Scan struct {
	// Columns are the names of the columns that the query reads.
	Columns []string
	// Conditions hold for all rows that the query uses. A table may ignore
	// them: the query checks every row itself.
	Conditions []Condition
}

// Condition compares a column with constant values.
type Condition struct {
	Column string
	Op     ConditionOp
	// Values has one value, or any number of values for In. A value may have
	// another type than the column.
	Values []any
}

// ConditionOp is a comparison.
type ConditionOp string

// The comparisons of a Condition.
const (
	Equal          ConditionOp = "=="
	Less           ConditionOp = "<"
	LessOrEqual    ConditionOp = "<="
	Greater        ConditionOp = ">"
	GreaterOrEqual ConditionOp = ">="
	In             ConditionOp = "in"
)

const (
	// maxConditionValues bounds the values of all conditions of a Scan.
	maxConditionValues = 500
	// maxInValues bounds the values of one In condition.
	maxInValues = 98
)

// tableNames returns the names of tables, in their order.
func tableNames(tables []Table) []string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Schema().Name
	}
	return names
}

// resolve returns the tables with the given names.
func (x *exec) resolve(names []token) ([]Table, error) {
	var out []Table
	for _, n := range names {
		if strings.Contains(n.text, "*") {
			return nil, unresolved(x.src, n, fmt.Sprintf("no table is named like '%s': %s", n.text, x.availableTables()))
		}
		i := slices.IndexFunc(x.tables, func(t Table) bool { return strings.EqualFold(t.Schema().Name, n.text) })
		if i >= 0 && x.tables[i].Schema().Name == n.text {
			out = append(out, x.tables[i])
			continue
		}
		hint := ""
		if i >= 0 {
			hint = "; did you mean '" + x.tables[i].Schema().Name + "'?"
		}
		return nil, unresolved(x.src, n, fmt.Sprintf("failed to resolve table named '%s': %s%s", n.text, x.availableTables(), hint))
	}
	return out, nil
}

// availableTables lists the tables for an error message.
func (x *exec) availableTables() string {
	names := tableNames(x.tables)
	switch last := len(names) - 1; {
	case last < 0:
		return "there are no tables"
	case last == 0:
		return "there is only " + names[0]
	default:
		return "there are " + strings.Join(names[:last], ", ") + " and " + names[last]
	}
}

// unionColumns returns the columns of all tables, each name once.
func unionColumns(tables []Table) []Column {
	var out []Column
	have := map[string]bool{}
	for _, t := range tables {
		for _, c := range t.Schema().Columns {
			if !have[c.Name] {
				have[c.Name] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// scanned reads the rows of tables one table after the other.
func (x *exec) scanned(q *pipeline, names []token) (*relation, error) {
	tables, err := x.resolve(names)
	if err != nil {
		return nil, err
	}
	cols := unionColumns(tables)
	conditions := x.conditions(q, tables)
	needed := q.neededColumns(cols)
	return &relation{cols, func(next stage) bool {
		for _, t := range tables {
			if x.run.err != nil || !x.scan(t, cols, needed, conditions, next) {
				return false
			}
		}
		return true
	}}, nil
}

// scan reads a table into a stage whose rows have the columns cols. It returns
// false when the stage wants no more rows or the run has failed.
func (x *exec) scan(t Table, cols []Column, needed map[string]bool, conditions []Condition, next stage) bool {
	s := t.Schema()
	var request Scan
	var at []int // positions of the scanned columns in cols
	for i, c := range cols {
		if needed[c.Name] && position(s.Columns, c.Name) >= 0 {
			request.Columns = append(request.Columns, c.Name)
			at = append(at, i)
		}
	}
	for _, c := range conditions {
		if slices.Contains(s.Filterable, c.Column) {
			request.Conditions = append(request.Conditions, c)
		}
	}
	more := true
	err := t.Scan(x.run.ctx, request, func(values []any) bool {
		row := make([]any, len(cols))
		for i, k := range at {
			row[k] = values[i]
		}
		more = next.push(row)
		return more
	})
	if err != nil {
		return x.run.fail(err)
	}
	return more
}

// neededColumns returns the names of the columns that the query reads: all of
// them unless an operator narrows the row down.
func (q *pipeline) neededColumns(cols []Column) map[string]bool {
	needed, all, star := map[string]bool{}, true, false
	seen := map[*expr]bool{}
	var walk func(e *expr)
	walk = func(e *expr) {
		if e == nil || seen[e] {
			return
		}
		seen[e] = true
		if e.op == exColumn {
			needed[e.name] = true
		}
		star = star || e.op == exStar || e.op == exCall && readsSchema(e.name)
		for _, a := range e.args {
			walk(a)
		}
	}
	for _, op := range q.ops {
		switch op.kind {
		case "project", "summarize", "count", "distinct", "sample-distinct", "make-series", "getschema":
			all = false
		case "mv-apply", "partition", "evaluate":
			star = true
		}
		walk(op.pred)
		walk(op.axis.expr)
		for _, k := range op.keys {
			needed[k.left.text] = true
		}
		for _, n := range slices.Concat(op.cols, op.by) {
			walk(n.expr)
		}
		if !all {
			break
		}
	}
	if all || star {
		for _, c := range cols {
			needed[c.Name] = true
		}
	}
	return needed
}

// conditions returns the comparisons of filterable columns with constants that
// the where operators at the start of a pipeline require. The where operators
// still run.
func (x *exec) conditions(q *pipeline, tables []Table) []Condition {
	f := conditionFinder{exec: x, filterable: map[string]bool{}, seen: map[*expr]bool{}}
	for _, t := range tables {
		for _, name := range t.Schema().Filterable {
			f.filterable[name] = true
		}
	}
	for _, op := range q.ops {
		if op.kind != "where" {
			break
		}
		f.conjunct(op.pred)
	}
	return f.found
}

type conditionFinder struct {
	*exec
	filterable map[string]bool
	seen       map[*expr]bool
	found      []Condition
	values     int // of all conditions found
}

func (f *conditionFinder) add(column string, op ConditionOp, values ...any) {
	f.found = append(f.found, Condition{column, op, values})
	f.values += len(values)
}

// conjunct looks at an expression that holds for all rows used.
func (f *conditionFinder) conjunct(e *expr) {
	if f.seen[e] || f.values > maxConditionValues {
		return
	}
	f.seen[e] = true
	if e.op == exBinary && e.name == "and" {
		for _, a := range e.args {
			f.conjunct(a)
		}
		return
	}
	if len(e.args) < 2 || e.args[0].op != exColumn || !f.filterable[e.args[0].name] {
		return
	}
	column := e.args[0].name
	switch {
	case e.op == exBinary:
		switch op := ConditionOp(e.name); op {
		case Equal, Less, LessOrEqual, Greater, GreaterOrEqual:
			f.add(column, op, f.valueOf(e.args[1]))
		case "between": // the upper bound may depend on the lower one
			f.add(column, GreaterOrEqual, f.valueOf(e.args[1]))
		}
	case e.op == exIn && e.name == "in" && e.sub == nil && len(e.args) <= maxInValues+1:
		values := make([]any, 0, len(e.args)-1)
		for _, a := range e.args[1:] {
			values = append(values, f.valueOf(a))
		}
		f.add(column, In, values...)
	}
}

// valueOf computes an expression that reads no column; nil for one that does.
func (f *conditionFinder) valueOf(e *expr) any {
	compute, _, err := (&compiler{exec: f.exec}).compile(e)
	if err != nil {
		return nil
	}
	return compute(nil)
}
