package kql

// query is a parsed query: named values, a source, and operators on it.
type query struct {
	src    string
	source source
	ops    []operator
}

// source is where rows come from.
type source struct {
	tok    token
	table  string  // one table
	tables []token // union of tables
	print  []named // print: one row of values
}

// named is an expression with the name of its column.
type named struct {
	name string
	tok  token
	expr *expr
	desc bool // order by: descending
	// order by: nulls first or last; Kusto's default is first for asc, last for desc
	nullsFirst bool
}

type operator struct {
	kind string // canonical operator name
	tok  token
	pred *expr   // where
	cols []named // project, extend, summarize's aggregates, sort keys, ...
	by   []named // summarize ... by
	n    *expr   // take, top
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
	exIn   // args[0] in (args[1:])
	exStar // count(*), project *
)

type expr struct {
	op    exprOp
	name  string
	value any
	args  []*expr
	tok   token
}
