package kql

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Column is a column of an answer.
type Column struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// stage takes rows; push returns false when it wants no more.
type stage interface {
	push(row []any) bool
	close()
}

// build makes a stage that passes its rows to next.
type build func(next stage) stage

// run is one execution of a query.
type run struct {
	ctx   context.Context
	err   error
	held  int // rows in memory
	bytes int // about what they take
	made  int // rows that operators made
}

func (r *run) fail(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return false
}

// hold accounts for a row, or for values, that stay in memory.
func (r *run) hold(vals ...any) bool {
	r.bytes += 64
	for _, v := range vals {
		r.bytes += sizeOfValue(v)
	}
	if r.held++; r.held > MaxRowsRead {
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the query holds more than %d rows in memory; filter by time or category first", MaxRowsRead)})
	}
	if r.bytes > MaxBytesHeld {
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the query holds more than %d MiB in memory; filter by time or category first, or project the columns that are needed", MaxBytesHeld>>20)})
	}
	return true
}

// makes accounts for a row that an operator makes beyond those it was given;
// it also sees the end of the request's time.
func (r *run) makes(operator string) bool {
	if r.made++; r.made > MaxRowsMade {
		why := "make its input smaller first"
		if operator == "join" {
			why = "many rows of both sides have the same key; summarize or distinct one side first, or join on more columns"
		}
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("%s makes more than %d rows: %s", operator, MaxRowsMade, why)})
	}
	if r.made&1023 == 0 && r.err == nil {
		r.err = r.ctx.Err()
	}
	return r.err == nil
}

// sizeOfValue is about the memory that a value takes.
func sizeOfValue(v any) int {
	switch v := v.(type) {
	case string:
		return 32 + len(v)
	case []any:
		n := 40
		for _, e := range v {
			n += sizeOfValue(e)
		}
		return n
	case map[string]any:
		n := 64
		for k, e := range v {
			n += 32 + len(k) + sizeOfValue(e)
		}
		return n
	}
	return 24
}

// plan compiles the operators; cols becomes the schema of the answer.
func (c *compiler) plan(ops []operator, r *run) ([]build, error) {
	var out []build
	for _, op := range ops {
		b, err := c.operator(op, r)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (c *compiler) operator(op operator, r *run) (build, error) {
	switch op.kind {
	case "where":
		f, typ, err := c.compile(op.pred)
		if err != nil {
			return nil, err
		}
		if typ != Bool && typ != Dynamic {
			return nil, semantic(c.src, op.pred.tok, fmt.Sprintf("where needs a condition, not a value of type %s", typ))
		}
		return func(next stage) stage {
			return &mapStage{next, func(row []any) ([]any, bool) { return row, toBool(f(row)) == true }}
		}, nil
	case "project", "extend":
		return c.project(op)
	case "project-away", "project-keep", "project-reorder":
		return c.pick(op)
	case "project-rename":
		return c.rename(op)
	case "distinct":
		return c.distinct(op, r)
	case "count":
		c.cols = []Column{{"Count", Long}}
		return func(next stage) stage { return &countStage{next: next} }, nil
	case "getschema":
		return c.getSchema(), nil
	case "as", "render":
		return func(next stage) stage { return next }, nil
	case "join", "lookup":
		return c.join(op)
	case "union":
		return c.unionWith(op)
	case "parse", "parse-where":
		return c.parseText(op)
	case "make-series":
		return c.makeSeries(op, r)
	case "mv-apply":
		return c.apply(op, r)
	case "sample":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return &sampleStage{next: next, run: r, n: n} }, nil
	case "sample-distinct":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		b, err := c.distinct(op, r)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return b(&takeStage{next, n}) }, nil
	case "take":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return &takeStage{next, n} }, nil
	case "sort":
		return c.sort(op, r, -1)
	case "top":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return c.sort(op, r, n)
	case "summarize":
		return c.summarize(op, r)
	case "mv-expand":
		return c.expand(op, r)
	}
	return nil, semantic(c.src, op.tok, fmt.Sprintf("the operator '%s' is not supported", op.kind))
}

// count evaluates the row count of take and top.
func (c *compiler) count(e *expr) (int, error) {
	bare := *c
	bare.cols = nil
	f, _, err := bare.compile(e)
	if err != nil {
		return 0, err
	}
	n, ok := toLong(f(nil)).(int64)
	if !ok || n < 0 {
		return 0, semantic(c.src, e.tok, "a number of rows must be an integer that is not negative")
	}
	return int(min(n, math.MaxInt32)), nil
}

type mapStage struct {
	next stage
	f    func([]any) ([]any, bool)
}

func (s *mapStage) push(row []any) bool {
	out, ok := s.f(row)
	return !ok || s.next.push(out)
}
func (s *mapStage) close() { s.next.close() }

type countStage struct {
	next stage
	n    int64
}

func (s *countStage) push([]any) bool { s.n++; return true }
func (s *countStage) close()          { s.next.push([]any{s.n}); s.next.close() }

type takeStage struct {
	next stage
	left int
}

func (s *takeStage) push(row []any) bool {
	if s.left <= 0 {
		return false
	}
	s.left--
	return s.next.push(row) && s.left > 0
}
func (s *takeStage) close() { s.next.close() }

func (c *compiler) project(op operator) (build, error) {
	var cols []Column
	if op.kind == "extend" {
		cols = append(cols, c.cols...)
	}
	type target struct {
		at int
		f  eval
	}
	var targets []target
	for _, n := range op.cols {
		if n.expr.op == exStar {
			return nil, semantic(c.src, n.tok, "'*' has no meaning in "+op.kind)
		}
		f, typ, err := c.compile(n.expr)
		if err != nil {
			return nil, err
		}
		at := position(cols, n.name)
		if at < 0 {
			at = len(cols)
			cols = append(cols, Column{})
		} else if op.kind == "project" {
			return nil, semantic(c.src, n.tok, fmt.Sprintf("a column named '%s' is projected twice", n.name))
		}
		cols[at] = Column{n.name, typ}
		targets = append(targets, target{at, f})
	}
	extend := op.kind == "extend"
	c.cols = cols
	width := len(cols)
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, width)
			if extend {
				copy(out, row)
			}
			for _, t := range targets {
				out[t.at] = t.f(row)
			}
			return out, true
		}}
	}, nil
}

// matchColumn matches a column name against a pattern with stars.
func matchColumn(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}

func (c *compiler) pick(op operator) (build, error) {
	hit := make([]int, len(c.cols)) // position of the first pattern that matches, from 1
	for k, n := range op.cols {
		found := false
		for i, col := range c.cols {
			if matchColumn(n.name, col.Name) {
				found = true
				if hit[i] == 0 {
					hit[i] = k + 1
				}
			}
		}
		if !found && !strings.Contains(n.name, "*") {
			return nil, unresolved(c.src, n.tok, fmt.Sprintf("failed to resolve column named '%s'%s", n.name, c.hint(n.name)))
		}
	}
	var idx []int
	switch op.kind {
	case "project-reorder":
		for k := range op.cols {
			for i := range c.cols {
				if hit[i] == k+1 {
					idx = append(idx, i)
				}
			}
		}
		for i := range c.cols {
			if hit[i] == 0 {
				idx = append(idx, i)
			}
		}
	default:
		for i := range c.cols {
			if (hit[i] > 0) == (op.kind == "project-keep") {
				idx = append(idx, i)
			}
		}
	}
	cols := make([]Column, len(idx))
	for k, i := range idx {
		cols[k] = c.cols[i]
	}
	c.cols = cols
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, len(idx))
			for k, i := range idx {
				out[k] = row[i]
			}
			return out, true
		}}
	}, nil
}

func (c *compiler) rename(op operator) (build, error) {
	cols := append([]Column{}, c.cols...)
	for _, n := range op.cols {
		i := -1
		if n.expr.op == exColumn {
			i = c.column(n.expr.name)
		}
		if i < 0 {
			return nil, semantic(c.src, n.tok, "project-rename takes new = old, where old is a column")
		}
		cols[i].Name = n.name
	}
	c.cols = cols
	return func(next stage) stage { return next }, nil
}

func (c *compiler) distinct(op operator, r *run) (build, error) {
	if len(op.cols) == 1 && op.cols[0].expr.op == exStar {
		op.cols = nil
		for _, col := range c.cols {
			op.cols = append(op.cols, named{name: col.Name, expr: &expr{op: exColumn, name: col.Name}})
		}
	}
	op.kind = "project"
	proj, err := c.project(op)
	if err != nil {
		return nil, err
	}
	return func(next stage) stage {
		seen := map[string]bool{}
		return proj(&mapStage{next, func(row []any) ([]any, bool) {
			k := rowKey(row)
			if seen[k] || !r.hold(row...) {
				return nil, false
			}
			seen[k] = true
			return row, true
		}})
	}, nil
}

func rowKey(row []any) string {
	var b strings.Builder
	for _, v := range row {
		k := key(v)
		b.WriteString(strconv.Itoa(len(k)))
		b.WriteByte(':')
		b.WriteString(k)
	}
	return b.String()
}

func (c *compiler) sort(op operator, r *run, top int) (build, error) {
	keys := make([]eval, len(op.cols))
	for i, n := range op.cols {
		var err error
		if keys[i], _, err = c.compile(n.expr); err != nil {
			return nil, err
		}
	}
	return func(next stage) stage { return &sortStage{next: next, run: r, keys: keys, by: op.cols, top: top} }, nil
}

type sorted struct{ row, keys []any }

type sortStage struct {
	next stage
	run  *run
	keys []eval
	by   []named
	top  int // -1: all
	rows []sorted
}

func (s *sortStage) push(row []any) bool {
	k := make([]any, len(s.keys))
	for i, f := range s.keys {
		k[i] = f(row)
	}
	if s.top < 0 && !s.run.hold(row...) {
		return false
	}
	s.rows = append(s.rows, sorted{row, k})
	if s.top >= 0 && len(s.rows) > 2*s.top+1024 {
		s.order()
	}
	return s.run.err == nil
}

func (s *sortStage) order() {
	sort.SliceStable(s.rows, func(i, j int) bool {
		for k, n := range s.by {
			a, b := s.rows[i].keys[k], s.rows[j].keys[k]
			if (a == nil) != (b == nil) {
				return (a == nil) == n.nullsFirst
			}
			if c, _ := compare(a, b); c != 0 {
				return (c < 0) != n.desc
			}
		}
		return false
	})
	if s.top >= 0 && len(s.rows) > s.top {
		clear(s.rows[s.top:])
		s.rows = s.rows[:s.top]
	}
}

func (s *sortStage) close() {
	s.order()
	for _, r := range s.rows {
		if !s.next.push(r.row) {
			break
		}
	}
	s.rows = nil
	s.next.close()
}

// summarize groups rows. Aggregate calls inside its expressions become columns
// of their own, so that avg(x) / 2 or round(avg(x), 1) work like any
// expression.
func (c *compiler) summarize(op operator, r *run) (build, error) {
	by := make([]eval, len(op.by))
	var groupCols []Column
	for i, n := range op.by {
		f, typ, err := c.compile(n.expr)
		if err != nil {
			return nil, err
		}
		by[i] = f
		groupCols = append(groupCols, Column{n.name, typ})
	}
	op.cols = percentiles(op.cols)
	var calls []*aggCall
	inner := *c // schema that the outer expressions see: groups, then aggregates
	inner.cols = append([]Column{}, groupCols...)
	var outs []eval
	outCols := append([]Column{}, groupCols...)
	for _, n := range op.cols {
		if name := strings.ToLower(n.expr.name); n.expr.op == exCall && (name == "arg_max" || name == "arg_min" || name == "take_any" && (len(n.expr.args) > 1 || len(n.expr.args) == 1 && n.expr.args[0].op == exStar)) {
			call, cols, err := c.argExtreme(n, name, groupCols)
			if err != nil {
				return nil, err
			}
			for i := range cols {
				calls = append(calls, &aggCall{part: i + call.skip, first: i == 0, of: call})
				at := len(inner.cols)
				inner.cols = append(inner.cols, Column{"$" + strconv.Itoa(at), cols[i].Type})
				outs = append(outs, func(row []any) any { return row[at] })
			}
			outCols = append(outCols, cols...)
			continue
		}
		e, err := c.liftAggregates(n.expr, &inner, &calls)
		if err != nil {
			return nil, err
		}
		f, typ, err := inner.compile(e)
		if err != nil {
			return nil, err
		}
		outs = append(outs, f)
		outCols = append(outCols, Column{n.name, typ})
	}
	names := map[string]bool{}
	for i := range outCols { // two columns of one name get numbers
		base := outCols[i].Name
		for k := 1; names[outCols[i].Name]; k++ {
			outCols[i].Name = base + strconv.Itoa(k)
		}
		names[outCols[i].Name] = true
	}
	c.cols = outCols
	return func(next stage) stage {
		return &groupStage{next: next, run: r, by: by, calls: calls, outs: outs, groups: map[string]*group{}}
	}, nil
}

type aggCall struct {
	args []eval
	new  func() accumulator
	part int // of arg_max: which of its columns
	of   *aggCall
	// first of the columns of one arg_max: it feeds them all
	first bool
	skip  int // of take_any: columns at the front that are not its own
}

// liftAggregates replaces aggregate calls by columns of inner.
func (c *compiler) liftAggregates(e *expr, inner *compiler, calls *[]*aggCall) (*expr, error) {
	if e.op == exCall {
		if agg, ok := aggregates[strings.ToLower(e.name)]; ok {
			if len(e.args) < agg.min || len(e.args) > agg.max {
				return nil, semantic(c.src, e.tok, fmt.Sprintf("aggregate '%s' takes %s, not %d", e.name, arity(agg.min, agg.max), len(e.args)))
			}
			if agg.new == nil {
				return nil, semantic(c.src, e.tok, fmt.Sprintf("'%s' must stand alone in summarize", e.name))
			}
			args, types, err := c.compileAll(e.args)
			if err != nil {
				return nil, err
			}
			typ := agg.typ
			if typ == "" {
				typ = types[0]
			}
			if name := strings.ToLower(e.name); len(types) > 0 && (strings.HasPrefix(name, "sum") && (types[0] == Real || types[0] == TimeSpan) || strings.HasPrefix(name, "avg") && types[0] == TimeSpan) {
				typ = types[0]
			}
			at := len(inner.cols)
			name := "$" + strconv.Itoa(at)
			inner.cols = append(inner.cols, Column{name, typ})
			*calls = append(*calls, &aggCall{args: args, new: agg.new})
			return &expr{op: exColumn, name: name, tok: e.tok}, nil
		}
	}
	out := *e
	out.args = make([]*expr, len(e.args))
	for i, a := range e.args {
		var err error
		if out.args[i], err = c.liftAggregates(a, inner, calls); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func (c *compiler) argExtreme(n named, name string, groups []Column) (*aggCall, []Column, error) {
	e := n.expr
	if name == "take_any" { // the row with the least of nothing: the first
		one := *e
		one.args = append([]*expr{{value: int64(0), tok: e.tok}}, e.args...)
		n.expr, n.name = &one, "arg_min"
		call, cols, err := c.argExtreme(n, "arg_min", groups)
		if err != nil {
			return nil, nil, err
		}
		call.skip = 1
		return call, cols[1:], nil
	}
	if len(e.args) < 1 {
		return nil, nil, semantic(c.src, e.tok, fmt.Sprintf("aggregate '%s' takes at least 1 argument", e.name))
	}
	by, typ, err := c.compile(e.args[0])
	if err != nil {
		return nil, nil, err
	}
	first := autoName(e.args[0], name+"_", 0)
	if !strings.HasPrefix(n.name, name) {
		first = n.name
	}
	call := &aggCall{args: []eval{by}}
	cols := []Column{{first, typ}}
	for _, a := range e.args[1:] {
		if a.op == exStar {
			for i, col := range c.cols {
				skip := col.Name == first
				for _, g := range groups {
					skip = skip || g.Name == col.Name
				}
				if !skip {
					call.args = append(call.args, func(row []any) any { return row[i] })
					cols = append(cols, col)
				}
			}
			continue
		}
		f, typ, err := c.compile(a)
		if err != nil {
			return nil, nil, err
		}
		call.args = append(call.args, f)
		cols = append(cols, Column{autoName(a, "Column", len(cols)), typ})
	}
	sign := 1
	if name == "arg_min" {
		sign = -1
	}
	call.new = func() accumulator { return &argAcc{sign: sign} }
	return call, cols, nil
}

type group struct {
	by   []any
	accs []accumulator
}

type groupStage struct {
	next   stage
	run    *run
	by     []eval
	calls  []*aggCall
	outs   []eval
	groups map[string]*group
	order  []*group
}

func (s *groupStage) group(by []any) *group {
	k := rowKey(by)
	g := s.groups[k]
	if g == nil {
		if !s.run.hold(by...) {
			return nil
		}
		g = &group{by: by, accs: make([]accumulator, len(s.calls))}
		shared := map[*aggCall]accumulator{}
		for i, call := range s.calls {
			if call.of == nil {
				g.accs[i] = call.new()
				continue
			}
			acc := shared[call.of]
			if acc == nil {
				acc = call.of.new()
				shared[call.of] = acc
			}
			g.accs[i] = &partAcc{acc.(*argAcc), call.part}
		}
		s.groups[k] = g
		s.order = append(s.order, g)
	}
	return g
}

func (s *groupStage) push(row []any) bool {
	by := make([]any, len(s.by))
	for i, f := range s.by {
		by[i] = f(row)
	}
	g := s.group(by)
	if g == nil {
		return false
	}
	for i, call := range s.calls {
		from := call
		if call.of != nil {
			if !call.first { // one accumulator for all parts
				continue
			}
			from = call.of
		}
		args := make([]any, len(from.args))
		for j, f := range from.args {
			args[j] = f(row)
		}
		if !g.accs[i].add(args) && !s.run.hold(args...) {
			return false
		}
	}
	return true
}

func (s *groupStage) close() {
	if len(s.by) == 0 && len(s.order) == 0 && len(s.calls) > 0 {
		s.group(nil)
	}
	for _, g := range s.order {
		inner := append([]any{}, g.by...)
		for _, a := range g.accs {
			inner = append(inner, a.result())
		}
		out := append([]any{}, g.by...)
		for _, f := range s.outs {
			out = append(out, f(inner))
		}
		if !s.next.push(out) {
			break
		}
	}
	s.next.close()
}

// accumulator gathers one aggregate of one group; add returns false when it
// now holds one more value in memory.
type accumulator interface {
	add(args []any) bool
	result() any
}

type aggregate struct {
	min, max int
	typ      Type // "" is that of the first argument
	new      func() accumulator
}

var aggregates = map[string]aggregate{
	"count":                {0, 0, Long, func() accumulator { return &countAcc{} }},
	"countif":              {1, 1, Long, func() accumulator { return &countAcc{cond: true} }},
	"dcount":               {1, 2, Long, func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} }},
	"count_distinct":       {1, 1, Long, func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} }},
	"dcountif":             {2, 3, Long, where(func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} })},
	"count_distinctif":     {2, 2, Long, where(func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} })},
	"sum":                  {1, 1, Long, func() accumulator { return &sumAcc{} }},
	"sumif":                {2, 2, Long, where(func() accumulator { return &sumAcc{} })},
	"avg":                  {1, 1, Real, func() accumulator { return &sumAcc{avg: true} }},
	"avgif":                {2, 2, Real, where(func() accumulator { return &sumAcc{avg: true} })},
	"min":                  {1, 1, "", func() accumulator { return &extremeAcc{sign: -1} }},
	"max":                  {1, 1, "", func() accumulator { return &extremeAcc{sign: 1} }},
	"minif":                {2, 2, "", where(func() accumulator { return &extremeAcc{sign: -1} })},
	"maxif":                {2, 2, "", where(func() accumulator { return &extremeAcc{sign: 1} })},
	"any":                  {1, 1, "", func() accumulator { return &anyAcc{} }},
	"take_any":             {1, 64, "", func() accumulator { return &anyAcc{} }},
	"take_anyif":           {2, 2, "", where(func() accumulator { return &anyAcc{} })},
	"make_list":            {1, 2, Dynamic, func() accumulator { return &setAcc{} }},
	"make_list_if":         {2, 3, Dynamic, where(func() accumulator { return &setAcc{} })},
	"make_list_with_nulls": {1, 1, Dynamic, func() accumulator { return &setAcc{nulls: true} }},
	"make_set":             {1, 2, Dynamic, func() accumulator { return &setAcc{seen: map[string]bool{}} }},
	"make_set_if":          {2, 3, Dynamic, where(func() accumulator { return &setAcc{seen: map[string]bool{}} })},
	"make_bag":             {1, 2, Dynamic, func() accumulator { return &bagAcc{} }},
	"percentile":           {2, 2, "", func() accumulator { return &percentileAcc{} }},
	"percentiles":          {2, 64, "", nil},
	"percentiles_array":    {2, 64, Dynamic, func() accumulator { return &percentileAcc{array: true} }},
	"stdev":                {1, 1, Real, func() accumulator { return &stdevAcc{} }},
	"variance":             {1, 1, Real, func() accumulator { return &stdevAcc{squared: true} }},
	"arg_max":              {1, 64, "", nil},
	"arg_min":              {1, 64, "", nil},
}

// where makes an aggregate count only what its second argument is true for.
func where(of func() accumulator) func() accumulator {
	return func() accumulator { return &ifAcc{of()} }
}

type ifAcc struct{ of accumulator }

func (a *ifAcc) add(args []any) bool {
	if toBool(args[1]) != true {
		return true
	}
	return a.of.add(append([]any{args[0]}, args[2:]...))
}
func (a *ifAcc) result() any { return a.of.result() }

// bagAcc is make_bag: the first of two values for a name stays.
type bagAcc struct{ bag map[string]any }

func (a *bagAcc) add(args []any) bool {
	if a.bag == nil {
		a.bag = map[string]any{}
	}
	m, ok := toDynamic(args[0]).(map[string]any)
	if !ok {
		return true
	}
	for k, v := range m {
		if len(args) > 1 {
			if n, ok := args[1].(int64); ok && int64(len(a.bag)) >= n {
				break
			}
		}
		if _, there := a.bag[k]; !there {
			a.bag[k] = v
		}
	}
	return false
}

func (a *bagAcc) result() any {
	if a.bag == nil {
		return map[string]any{}
	}
	return a.bag
}

// percentiles makes a column for each percentile that percentiles() asks for.
func percentiles(cols []named) []named {
	var out []named
	for _, n := range cols {
		if n.expr.op != exCall || !strings.EqualFold(n.expr.name, "percentiles") || len(n.expr.args) < 2 {
			out = append(out, n)
			continue
		}
		base := n.name
		if rest, ok := strings.CutPrefix(base, "percentiles_"); ok {
			base = "percentile_" + rest
		}
		for i, p := range n.expr.args[1:] {
			one := n
			one.name = base + "_" + strconv.Itoa(i+1)
			if p.op == exLiteral {
				one.name = base + "_" + strings.ReplaceAll(text(p.value), ".", "_")
			}
			one.expr = &expr{op: exCall, name: "percentile", args: []*expr{n.expr.args[0], p}, tok: n.expr.tok}
			out = append(out, one)
		}
	}
	return out
}

type countAcc struct {
	n    int64
	cond bool
}

func (a *countAcc) add(args []any) bool {
	if !a.cond || toBool(args[0]) == true {
		a.n++
	}
	return true
}
func (a *countAcc) result() any { return a.n }

type sumAcc struct {
	avg    bool
	n      int64
	i      int64
	f      float64
	real   bool
	span   time.Duration
	isSpan bool
}

func (a *sumAcc) add(args []any) bool {
	switch v := args[0].(type) {
	case int64:
		a.i += v
	case float64:
		a.f += v
		a.real = true
	case time.Duration:
		a.span += v
		a.isSpan = true
	default:
		return true
	}
	a.n++
	return true
}

func (a *sumAcc) result() any {
	switch {
	case a.avg && a.n == 0:
		return nil
	case a.isSpan && a.avg:
		return a.span / time.Duration(a.n)
	case a.isSpan:
		return a.span
	case a.avg:
		return (a.f + float64(a.i)) / float64(a.n)
	case a.real:
		return a.f + float64(a.i)
	}
	return a.i
}

type extremeAcc struct {
	sign int
	best any
}

func (a *extremeAcc) add(args []any) bool {
	if v := args[0]; v != nil {
		if c, ok := compare(v, a.best); a.best == nil || ok && c*a.sign > 0 {
			a.best = v
		}
	}
	return true
}
func (a *extremeAcc) result() any { return a.best }

type anyAcc struct{ v any }

func (a *anyAcc) add(args []any) bool {
	if a.v == nil {
		a.v = args[0]
	}
	return true
}
func (a *anyAcc) result() any { return a.v }

// setAcc is make_list, make_set (seen) and dcount (count).
type setAcc struct {
	seen  map[string]bool
	count bool
	nulls bool
	list  []any
}

func (a *setAcc) add(args []any) bool {
	if args[0] == nil && !a.nulls {
		return true
	}
	if len(args) > 1 && !a.count {
		if n, ok := args[1].(int64); ok && int64(len(a.list)) >= n {
			return true
		}
	}
	if a.seen != nil {
		k := key(args[0])
		if a.seen[k] {
			return true
		}
		a.seen[k] = true
	}
	if !a.count {
		a.list = append(a.list, args[0])
	}
	return false
}

func (a *setAcc) result() any {
	if a.count {
		return int64(len(a.seen))
	}
	return append([]any{}, a.list...)
}

type percentileAcc struct {
	array bool // one value for each percentile asked for
	ps    []float64
	vals  []float64
	orig  []any
}

func (a *percentileAcc) add(args []any) bool {
	if a.ps == nil {
		for _, p := range args[1:] {
			list, ok := p.([]any)
			if !ok {
				list = []any{p}
			}
			for _, p := range list {
				f, _ := toReal(p)
				a.ps = append(a.ps, f)
			}
		}
	}
	f, ok := toReal(args[0])
	if !ok {
		return true
	}
	a.vals = append(a.vals, f)
	a.orig = append(a.orig, args[0])
	return false
}

// result is the nearest rank.
func (a *percentileAcc) result() any {
	if len(a.vals) == 0 {
		return nil
	}
	idx := make([]int, len(a.vals))
	for i := range idx {
		idx[i] = i
	}
	sort.Slice(idx, func(i, j int) bool { return a.vals[idx[i]] < a.vals[idx[j]] })
	out := make([]any, len(a.ps))
	for i, p := range a.ps {
		rank := int(math.Ceil(min(max(p, 0), 100)/100*float64(len(idx)))) - 1
		out[i] = a.orig[idx[max(rank, 0)]]
	}
	if a.array {
		return out
	}
	return out[0]
}

// stdevAcc is the sample standard deviation, by Welford's method.
type stdevAcc struct {
	squared  bool
	n        float64
	mean, m2 float64
}

func (a *stdevAcc) add(args []any) bool {
	if f, ok := toReal(args[0]); ok {
		a.n++
		d := f - a.mean
		a.mean += d / a.n
		a.m2 += d * (f - a.mean)
	}
	return true
}

func (a *stdevAcc) result() any {
	if a.n < 2 {
		return 0.0
	}
	if a.squared {
		return a.m2 / (a.n - 1)
	}
	return math.Sqrt(a.m2 / (a.n - 1))
}

type argAcc struct {
	sign int
	best []any
}

func (a *argAcc) add(args []any) bool {
	if args[0] == nil {
		return true
	}
	if a.best == nil {
		a.best = args
		return false // a row, which may be a wide one
	}
	if c, ok := compare(args[0], a.best[0]); ok && c*a.sign > 0 {
		a.best = args
	}
	return true
}
func (a *argAcc) result() any { return nil }

type partAcc struct {
	acc  *argAcc
	part int
}

func (a *partAcc) add(args []any) bool { return a.acc.add(args) }
func (a *partAcc) result() any {
	if a.acc.best == nil {
		return nil
	}
	return a.acc.best[a.part]
}
