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
	srcTable     sourceKind = iota // tables, all their rows one after the other
	srcPrint                       // one row of values
	srcUnion                       // union of pipelines
	srcRange                       // range name from .. to .. step ..
	srcDatatable                   // rows of literals
)

// source is where rows come from.
type source struct {
	kind   sourceKind
	tok    token
	tables []token    // srcTable; a name may hold stars
	values []named    // srcPrint
	union  *unionSpec // srcUnion
	// srcRange
	name           string
	from, to, step *expr
	// srcDatatable
	cols  []Column
	cells []*expr
}

// unionSpec are the branches of a union and how their columns are brought
// together.
type unionSpec struct {
	branches []*pipeline
	inner    bool   // only the columns that all branches have
	source   string // withsource: the column with the branch's name
}

// named is an expression with the name of its column.
type named struct {
	name string
	tok  token
	expr *expr
	desc bool // order by: descending
	// order by: nulls first or last; Kusto's default is first for asc, last for desc
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
	on      []operator  // mv-apply: what is done with the elements of a row
	keys    []joinKey   // join, lookup
	union   *unionSpec  // union
	pattern []parsePart // parse
	flags   string      // parse kind=regex
	index   string      // mv-expand with_itemindex
	// make-series
	axis           named
	from, to, step *expr
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
	exLet      // a let that is no literal; args[0] is computed once
	exToScalar // toscalar(sub)
)

type expr struct {
	op    exprOp
	name  string
	value any
	args  []*expr
	tok   token
	sub   *pipeline
	size  int    // nodes below and with this one, when counted
	known *known // exLet, exToScalar, exIn with sub: what it was computed to
}

// known is the value of an expression that does not depend on a row.
type known struct {
	value any
	typ   Type
	set   map[string]bool
}

// maxExprSize bounds the parts of an expression, counted where they are used:
// functions that call each other twice would double them at each step.
const maxExprSize = 20_000

// sizeOf counts an expression's parts; each is looked at once.
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
