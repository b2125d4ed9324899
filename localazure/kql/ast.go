// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"slices"
)

// pipeline is a source of rows and the operators on them.
type pipeline struct {
	source source
	ops    []operator
}

func (q *pipeline) clone() *pipeline { return &pipeline{q.source, slices.Clone(q.ops)} }

type sourceKind uint8

const (
	srcTable     sourceKind = iota // tables, one after the other
	srcPrint                       // one row of values
	srcUnion                       // union of pipelines
	srcRange                       // range name from .. to .. step ..
	srcDatatable                   // rows of literals
	srcNamed                       // the table that table() names
	srcFind                        // rows of several tables that meet a condition
)

// source is the source of the rows of a pipeline.
type source struct {
	kind   sourceKind
	tok    token
	tables []token    // srcTable; a name may contain stars
	values []named    // srcPrint
	union  *unionSpec // srcUnion
	// srcRange
	name           string
	from, to, step *expr
	// srcDatatable
	cols  []Column
	cells []*expr
	table *expr     // srcNamed: the name
	find  *findSpec // srcFind
}

// unionSpec is the inputs of a union and how their columns are combined.
type unionSpec struct {
	fuzzy    bool // inputs that do not exist are left out
	branches []*pipeline
	inner    bool   // only the columns that all branches have
	source   string // withsource: the column with the name of the input
}

// named is an expression with the name of its column.
type named struct {
	name string
	tok  token
	expr *expr
	desc bool // order by: descending
	// order by: nulls first or last; the default is first for asc, last for desc
	nullsFirst bool
	typ        Type  // mv-expand: to typeof(...)
	def        *expr // make-series: default
}

// joinKey is one equality of join ... on.
type joinKey struct{ left, right token }

// parsePart is a part of the pattern of parse: a star, a literal or a column.
type parsePart struct {
	tok     token
	star    bool
	literal string
	column  string
	typ     Type
}

type operator struct {
	kind string // canonical operator name
	tok  token
	pred *expr   // where
	cols []named // project, extend, summarize's aggregates, sort keys, ...
	by   []named // summarize ... by
	n    *expr   // take, top, sample; mv-expand's limit

	how     string      // kind= of join, parse and mv-expand
	sub     *pipeline   // join, lookup: the right side
	on      []operator  // mv-apply: the operators on the elements of a row
	keys    []joinKey   // join, lookup
	union   *unionSpec  // union
	pattern []parsePart // parse
	flags   string      // parse kind=regex
	index   string      // mv-expand with_itemindex; count as
	// make-series
	axis           named
	from, to, step *expr
	// evaluate
	plugin []*expr       // the arguments
	output *outputSchema // the columns that it must return; nil is all
}

type exprOp uint8

const (
	exLiteral exprOp = iota
	exColumn
	exCall   // name(args)
	exMember // args[0].name
	exIndex  // args[0][args[1]]
	exBinary // name is the operator
	exUnary
	exIn       // args[0] in (args[1:]), or in (sub)
	exStar     // count(*), project *, * has "x"
	exLet      // a let that is not a literal; args[0] is computed once
	exToScalar // toscalar(sub)
)

type expr struct {
	op       exprOp
	name     string
	value    any
	args     []*expr
	tok      token
	sub      *pipeline
	size     int       // number of nodes of this expression; 0 is not yet counted
	computed *computed // exLet, exToScalar, exIn with sub: the value, once computed
}

// computed is the value of an expression that does not depend on the row.
type computed struct {
	value any
	typ   Type
	set   map[string]bool
}

// maxExprSize bounds the nodes of an expression after inlining functions:
// functions that each call the previous one twice would double it every time.
const maxExprSize = 20_000

// sizeOf counts the nodes of an expression. It visits shared ones once.
func sizeOf(e *expr) int {
	if e.size == 0 {
		e.size = 1
		for _, a := range e.args {
			if e.size += sizeOf(a); e.size > 2*maxExprSize {
				break
			}
		}
	}
	return e.size
}
