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
	ctx  context.Context
	err  error
	held int // rows in memory
}

func (r *run) fail(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return false
}

func (r *run) hold() bool {
	if r.held++; r.held > MaxRowsRead {
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the query holds more than %d rows in memory; filter by time or category first", MaxRowsRead)})
	}
	return true
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
		return c.expand(op)
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
		at := -1
		for i, col := range cols {
			if col.Name == n.name {
				at = i
			}
		}
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
			return nil, semantic(c.src, n.tok, fmt.Sprintf("failed to resolve column named '%s'%s", n.name, c.hint(n.name)))
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
			if seen[k] || !r.hold() {
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
	if s.top < 0 && !s.run.hold() {
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

// expand is mv-expand: one row for each element of an array or bag.
func (c *compiler) expand(op operator) (build, error) {
	if len(op.cols) != 1 {
		return nil, semantic(c.src, op.tok, "mv-expand takes one column")
	}
	n := op.cols[0]
	f, _, err := c.compile(n.expr)
	if err != nil {
		return nil, err
	}
	at := c.column(n.name)
	cols := append([]Column{}, c.cols...)
	if at < 0 {
		at = len(cols)
		cols = append(cols, Column{})
	}
	cols[at] = Column{n.name, Dynamic}
	c.cols = cols
	return func(next stage) stage {
		return &expandStage{next, f, at, len(cols)}
	}, nil
}

type expandStage struct {
	next  stage
	f     eval
	at    int
	width int
}

func (s *expandStage) push(row []any) bool {
	var list []any
	switch v := toDynamic(s.f(row)).(type) {
	case []any:
		list = v
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			list = append(list, map[string]any{k: v[k]})
		}
	default:
		list = []any{v}
	}
	for _, e := range list {
		out := make([]any, s.width)
		copy(out, row)
		out[s.at] = e
		if !s.next.push(out) {
			return false
		}
	}
	return true
}
func (s *expandStage) close() { s.next.close() }

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
	var calls []*aggCall
	inner := *c // schema that the outer expressions see: groups, then aggregates
	inner.cols = append([]Column{}, groupCols...)
	var outs []eval
	outCols := append([]Column{}, groupCols...)
	for _, n := range op.cols {
		if name := strings.ToLower(n.expr.name); n.expr.op == exCall && (name == "arg_max" || name == "arg_min") {
			call, cols, err := c.argExtreme(n, name, groupCols)
			if err != nil {
				return nil, err
			}
			for i := range cols {
				calls = append(calls, &aggCall{part: i, of: call})
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
			if (strings.HasPrefix(strings.ToLower(e.name), "sum") || typ == TimeSpan) && len(types) > 0 && (types[0] == Real || types[0] == TimeSpan) {
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
		if !s.run.hold() {
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
			if call.part > 0 { // one accumulator for all parts
				continue
			}
			from = call.of
		}
		args := make([]any, len(from.args))
		for j, f := range from.args {
			args[j] = f(row)
		}
		if !g.accs[i].add(args) && !s.run.hold() {
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
	"count":      {0, 0, Long, func() accumulator { return &countAcc{} }},
	"countif":    {1, 1, Long, func() accumulator { return &countAcc{cond: true} }},
	"dcount":     {1, 2, Long, func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} }},
	"sum":        {1, 1, Long, func() accumulator { return &sumAcc{} }},
	"sumif":      {2, 2, Long, func() accumulator { return &sumAcc{cond: true} }},
	"avg":        {1, 1, Real, func() accumulator { return &sumAcc{avg: true} }},
	"avgif":      {2, 2, Real, func() accumulator { return &sumAcc{avg: true, cond: true} }},
	"min":        {1, 1, "", func() accumulator { return &extremeAcc{sign: -1} }},
	"max":        {1, 1, "", func() accumulator { return &extremeAcc{sign: 1} }},
	"any":        {1, 1, "", func() accumulator { return &anyAcc{} }},
	"take_any":   {1, 1, "", func() accumulator { return &anyAcc{} }},
	"make_list":  {1, 2, Dynamic, func() accumulator { return &setAcc{} }},
	"make_set":   {1, 2, Dynamic, func() accumulator { return &setAcc{seen: map[string]bool{}} }},
	"percentile": {2, 2, Real, func() accumulator { return &percentileAcc{} }},
	"stdev":      {1, 1, Real, func() accumulator { return &stdevAcc{} }},
	"arg_max":    {1, 64, "", nil},
	"arg_min":    {1, 64, "", nil},
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
	avg, cond bool
	n         int64
	i         int64
	f         float64
	real      bool
	span      time.Duration
	isSpan    bool
}

func (a *sumAcc) add(args []any) bool {
	if a.cond && toBool(args[1]) != true {
		return true
	}
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
	list  []any
}

func (a *setAcc) add(args []any) bool {
	if args[0] == nil {
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
	p    float64
	vals []float64
	orig []any
}

func (a *percentileAcc) add(args []any) bool {
	a.p, _ = toReal(args[1])
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
	rank := int(math.Ceil(min(max(a.p, 0), 100)/100*float64(len(idx)))) - 1
	return a.orig[idx[max(rank, 0)]]
}

// stdevAcc is the sample standard deviation, by Welford's method.
type stdevAcc struct {
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
	} else if c, ok := compare(args[0], a.best[0]); ok && c*a.sign > 0 {
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
