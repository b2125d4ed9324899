package kql

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exec is one query being compiled and run.
type exec struct {
	store *Store
	req   Request
	src   string
	now   time.Time
	run   *run
	// text counts what string functions build.
	text int
	// sources counts the sources that are compiled.
	sources int
}

// relation is a compiled source of rows.
type relation struct {
	cols []Column
	// feed pushes all rows into a stage, which stays open; false when the stage
	// wants no more or the run has failed.
	feed func(stage) bool
}

// end is where one pipeline's rows go over into another's.
type end struct {
	next stage
	run  *run
	rows int
	done bool
}

func (s *end) push(row []any) bool {
	if s.rows++; s.rows&1023 == 0 && s.run.err == nil { // the request's time may be over
		s.run.err = s.run.ctx.Err()
	}
	s.done = s.done || s.run.err != nil || !s.next.push(row)
	return !s.done
}
func (s *end) close() {}

// eachRow is a stage at which rows end.
type eachRow func(row []any) bool

func (f eachRow) push(row []any) bool { return f(row) }
func (f eachRow) close()              {}

// relation compiles a pipeline.
func (x *exec) relation(q *pipeline) (*relation, error) {
	if x.sources++; x.sources > MaxSources {
		return nil, &Error{Code: LimitError, Message: fmt.Sprintf("the query reads tables more than %d times, counting what its let statements stand for each time it is used", MaxSources)}
	}
	rel, err := x.sourceOf(q)
	if err != nil {
		return nil, err
	}
	c := &compiler{exec: x, cols: rel.cols}
	stages, err := c.plan(q.ops, x.run)
	if err != nil {
		return nil, err
	}
	return &relation{c.cols, func(next stage) bool {
		last := &end{next: next, run: x.run}
		var first stage = last
		for i := len(stages) - 1; i >= 0; i-- {
			first = stages[i](first)
		}
		rel.feed(first)
		if x.run.err == nil {
			first.close()
		}
		return x.run.err == nil && !last.done
	}}, nil
}

func (x *exec) sourceOf(q *pipeline) (*relation, error) {
	s := &q.source
	switch s.kind {
	case srcPrint:
		c := &compiler{exec: x}
		b, err := c.project(operator{kind: "project", cols: s.values})
		if err != nil {
			return nil, err
		}
		return &relation{c.cols, func(next stage) bool { return b(next).push(nil) }}, nil
	case srcRange:
		return x.rangeOf(s)
	case srcDatatable:
		return x.datatable(s)
	case srcUnion:
		if names := plainTables(s.union); names != nil {
			return x.scanned(q, names)
		}
		return x.unionOf(s.union, nil)
	}
	return x.scanned(q, s.tables)
}

// plainTables are the tables of a union that has nothing but tables.
func plainTables(u *unionSpec) []token {
	var names []token
	for _, b := range u.branches {
		if b.source.kind != srcTable || len(b.ops) > 0 || u.inner || u.source != "" {
			return nil
		}
		names = append(names, b.source.tables...)
	}
	return names
}

// scanned reads tables from the database, with what of the operators the
// database can do.
func (x *exec) scanned(q *pipeline, names []token) (*relation, error) {
	views, err := x.resolve(names)
	if err != nil {
		return nil, err
	}
	base := schema(views)
	where, args := x.pushdown(q)
	needed := q.neededColumns(base)
	return &relation{base, func(next stage) bool {
		for _, v := range views {
			if x.run.err != nil || !x.store.scan(x.run, v, base, needed, where, args, next) {
				return false
			}
		}
		return true
	}}, nil
}

// constant computes an expression that may not look at columns.
func (x *exec) constant(e *expr) (any, Type, error) {
	f, typ, err := (&compiler{exec: x}).compile(e)
	if err != nil {
		return nil, "", err
	}
	return f(nil), typ, x.run.err
}

// rangeOf is the source "range x from a to b step c".
func (x *exec) rangeOf(s *source) (*relation, error) {
	from, typ, err := x.constant(s.from)
	if err != nil {
		return nil, err
	}
	to, _, err := x.constant(s.to)
	if err != nil {
		return nil, err
	}
	step, stepType, err := x.constant(s.step)
	if err != nil {
		return nil, err
	}
	if typ == Long && stepType == Real {
		from, typ = float64(from.(int64)), Real
	}
	up := compareZero(step)
	_, ok := compare(from, to)
	if next := arithmetic("+", from, step); !ok || up == 0 || next == nil {
		return nil, semantic(x.src, s.tok, "range needs a beginning and an end of one type, and a step that can be added to them and is not 0")
	}
	return &relation{[]Column{{s.name, typ}}, func(next stage) bool {
		for v := from; ; v = arithmetic("+", v, step) {
			d, ok := compare(v, to)
			if !ok || d*up > 0 {
				return true
			}
			if !x.run.makes("range") || !next.push([]any{v}) {
				return false
			}
			if n, ok := v.(int64); ok && (up > 0 && n > math.MaxInt64/2 || up < 0 && n < math.MinInt64/2) {
				return true
			}
		}
	}}, nil
}

func compareZero(v any) int {
	switch v := v.(type) {
	case int64:
		return cmp(v, 0)
	case float64:
		return cmp(v, 0)
	case time.Duration:
		return cmp(v, 0)
	}
	return 0
}

func (x *exec) datatable(s *source) (*relation, error) {
	cells := make([]any, len(s.cells))
	for i, e := range s.cells {
		v, typ, err := x.constant(e)
		if err != nil {
			return nil, err
		}
		col := s.cols[i%len(s.cols)]
		if cells[i] = convert(v, col.Type); v != nil && cells[i] == nil {
			return nil, semantic(x.src, e.tok, fmt.Sprintf("the column '%s' is of type %s and the value of type %s", col.Name, col.Type, typ))
		}
	}
	return &relation{s.cols, func(next stage) bool {
		for row := range slices.Chunk(cells, len(s.cols)) {
			if !next.push(slices.Clone(row)) {
				return false
			}
		}
		return true
	}}, nil
}

// convert makes a value of a type; null when that cannot be.
func convert(v any, t Type) any {
	switch t {
	case String:
		return text(v)
	case Long:
		return toLong(v)
	case Real:
		return realOrNil(v)
	case Bool:
		return toBool(v)
	case DateTime:
		return toTime(v)
	case TimeSpan:
		return toSpan(v)
	}
	return v
}

// zero is a column's value where a row has none; text is never null.
func zero(t Type) any {
	if t == String {
		return ""
	}
	return nil
}

// unionOf brings relations together. left, when given, is a schema whose rows
// come from elsewhere; the first of maps is then for them.
func (x *exec) unionOf(u *unionSpec, left []Column) (*relation, error) {
	rel, _, err := x.union(u, left)
	return rel, err
}

func (x *exec) union(u *unionSpec, left []Column) (rel *relation, leftMap func([]any) []any, err error) {
	var schemas [][]Column
	var names []string
	var rels []*relation
	if left != nil {
		schemas, names, rels = append(schemas, left), append(names, "union_arg0"), append(rels, nil)
	}
	for _, b := range u.branches {
		r, err := x.relation(b)
		if err != nil {
			return nil, nil, err
		}
		name := "union_arg" + strconv.Itoa(len(rels))
		if b.source.kind == srcTable && len(b.source.tables) == 1 && len(b.ops) == 0 {
			name = b.source.tables[0].text
		}
		schemas, names, rels = append(schemas, r.cols), append(names, name), append(rels, r)
	}
	types := map[string][]Type{}
	count := map[Column]int{}
	var order []Column
	for _, cols := range schemas {
		for _, c := range cols {
			if count[c]++; !slices.Contains(types[c.Name], c.Type) {
				types[c.Name] = append(types[c.Name], c.Type)
				order = append(order, c)
			}
		}
	}
	var cols, from []Column // from: the column of the branches
	if u.source != "" {
		cols, from = append(cols, Column{u.source, String}), append(from, Column{})
	}
	for _, c := range order {
		if u.inner && count[c] < len(schemas) {
			continue
		}
		out := c
		if len(types[c.Name]) > 1 && !u.inner { // one name, several types
			out.Name = c.Name + "_" + string(c.Type)
		}
		cols, from = append(cols, out), append(from, c)
	}
	maps := make([]func([]any) []any, len(schemas))
	for i, s := range schemas {
		at := make([]int, len(cols))
		for k, c := range from {
			at[k] = slices.Index(s, c)
		}
		name := names[i]
		maps[i] = func(row []any) []any {
			out := make([]any, len(cols))
			for k, j := range at {
				if j >= 0 {
					out[k] = row[j]
				} else {
					out[k] = zero(cols[k].Type)
				}
			}
			if u.source != "" {
				out[0] = name
			}
			return out
		}
	}
	rel = &relation{cols, func(next stage) bool {
		for i, r := range rels {
			if r != nil && !r.feed(&mapStage{next, func(row []any) ([]any, bool) { return maps[i](row), true }}) {
				return false
			}
		}
		return true
	}}
	return rel, maps[0], nil
}

// unionWith is union as an operator: the rows so far, then those of the others.
func (c *compiler) unionWith(op operator) (build, error) {
	rel, left, err := c.exec.union(op.union, c.cols)
	if err != nil {
		return nil, err
	}
	c.cols = rel.cols
	return func(next stage) stage {
		return &unionStage{next: &end{next: next, run: c.run}, after: next, left: left, others: rel.feed}
	}, nil
}

type unionStage struct {
	next   *end
	after  stage
	left   func([]any) []any
	others func(stage) bool
}

func (s *unionStage) push(row []any) bool { return s.next.push(s.left(row)) }

func (s *unionStage) close() {
	if !s.next.done {
		s.others(s.next)
	}
	s.after.close()
}

// once computes an expression that depends on no row, once for the query.
func (c *compiler) once(e *expr) (*known, error) {
	if e.known != nil {
		return e.known, nil
	}
	k := &known{}
	if e.op == exLet {
		var err error
		if k.value, k.typ, err = c.constant(e.args[0]); err != nil {
			return nil, err
		}
		e.known = k
		return k, nil
	}
	rel, err := c.relation(e.sub)
	if err != nil {
		return nil, err
	}
	if len(rel.cols) == 0 {
		return nil, semantic(c.src, e.tok, "the table in parentheses has no column")
	}
	k.typ = rel.cols[0].Type
	if e.op == exToScalar {
		rel.feed(eachRow(func(row []any) bool { // the first row's
			k.value = row[0]
			return false
		}))
	} else {
		list := []any{}
		k.set = map[string]bool{}
		rel.feed(eachRow(func(row []any) bool {
			if id := key(row[0]); !k.set[id] && c.run.hold(row[0]) {
				k.set[id] = true
				list = append(list, row[0])
			}
			return c.run.err == nil
		}))
		k.value = list
	}
	if c.run.err != nil {
		return nil, c.run.err
	}
	e.known = k
	return k, nil
}

// anyColumn is an operator on text whose left side is "*": true when one
// column fulfils it.
func (c *compiler) anyColumn(e *expr) (eval, Type, error) {
	bare, not := strings.CutPrefix(e.name, "!")
	_, onText := stringOperators[bare]
	if !onText && bare != "matches regex" && bare != "==" && bare != "=~" {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("'*' goes with operators on text, such as has and contains, and not with '%s'", e.name))
	}
	var ones []eval
	for i, col := range c.cols {
		one := *e
		one.name = bare
		one.args = append([]*expr{{op: exCall, name: "tostring", tok: e.tok, args: []*expr{{op: exColumn, name: col.Name, tok: e.tok}}}}, e.args[1:]...)
		if col.Type == String && i == c.column(col.Name) {
			one.args[0] = one.args[0].args[0]
		}
		f, _, err := c.compile(&one)
		if err != nil {
			return nil, "", err
		}
		ones = append(ones, f)
	}
	return func(row []any) any {
		for _, f := range ones {
			if f(row) == true {
				return !not
			}
		}
		return not
	}, Bool, nil
}

// schemaCall are the functions that look at the columns there are.
func (c *compiler) schemaCall(e *expr, name string) (eval, Type, error) {
	if name == "pack_all" {
		cols := c.cols
		return func(row []any) any {
			m := make(map[string]any, len(cols))
			for i, col := range cols {
				m[col.Name] = row[i]
			}
			return m
		}, Dynamic, nil
	}
	if len(e.args) != 2 {
		return nil, "", semantic(c.src, e.tok, fmt.Sprintf("function '%s' takes 2 arguments, not %d", e.name, len(e.args)))
	}
	col, ok := e.args[0].value.(string)
	if e.args[0].op != exLiteral || !ok {
		return nil, "", semantic(c.src, e.args[0].tok, e.name+" needs the column's name as a text")
	}
	if c.column(col) >= 0 {
		return c.compile(&expr{op: exColumn, name: col, tok: e.args[0].tok})
	}
	return c.compile(e.args[1])
}

func (c *compiler) getSchema() build {
	cols := c.cols
	c.cols = []Column{{"ColumnName", String}, {"ColumnOrdinal", Long}, {"DataType", String}, {"ColumnType", String}}
	system := map[Type]string{String: "System.String", Long: "System.Int64", Real: "System.Double", Bool: "System.SByte", DateTime: "System.DateTime", TimeSpan: "System.TimeSpan", Dynamic: "System.Object"}
	return func(next stage) stage {
		return &schemaStage{next, cols, system}
	}
}

type schemaStage struct {
	next   stage
	cols   []Column
	system map[Type]string
}

func (s *schemaStage) push([]any) bool { return false }

func (s *schemaStage) close() {
	for i, c := range s.cols {
		if !s.next.push([]any{c.Name, int64(i), s.system[c.Type], string(c.Type)}) {
			break
		}
	}
	s.next.close()
}

// sampleStage keeps n of all rows, each with the same chance.
type sampleStage struct {
	next stage
	run  *run
	n    int
	seen int
	rows [][]any
}

func (s *sampleStage) push(row []any) bool {
	s.seen++
	if len(s.rows) < s.n {
		s.rows = append(s.rows, row)
		return s.run.hold(row...)
	}
	if at := rand.IntN(s.seen); at < s.n { //nolint:gosec // a sample, not a secret
		s.rows[at] = row
	}
	return true
}

func (s *sampleStage) close() {
	for _, row := range s.rows {
		if !s.next.push(row) {
			break
		}
	}
	s.next.close()
}
