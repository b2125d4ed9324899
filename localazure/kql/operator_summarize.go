// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strconv"
	"strings"
)

// summarize compiles summarize. Calls of aggregates inside expressions become
// hidden columns, so that expressions such as round(avg(x), 1) work like others.
func (c *compiler) summarize(op operator, r *run) (newStage, error) {
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
	inner := *c // the schema of these expressions: groups, then aggregates
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
	for i := range outCols { // number columns of the same name
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
	part int // arg_max: index of the column
	of   *aggCall
	// first is true for the first column of an arg_max, which adds the rows
	first bool
	skip  int // take_any: number of hidden columns at the front
}

// liftAggregates replaces calls of aggregates by columns of inner.
func (c *compiler) liftAggregates(e *expr, inner *compiler, calls *[]*aggCall) (*expr, error) {
	if e.op == exCall {
		if agg, ok := aggregates[strings.ToLower(e.name)]; ok {
			if len(e.args) < agg.min || len(e.args) > agg.max {
				return nil, semantic(c.src, e.tok, fmt.Sprintf("aggregate '%s' takes %s, not %d", e.name, arity(agg.min, agg.max), len(e.args)))
			}
			if agg.new == nil {
				return nil, semantic(c.src, e.tok, fmt.Sprintf("'%s' cannot be part of another expression in summarize", e.name))
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
	if name == "take_any" { // arg_min of a constant is the first row
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

// percentiles replaces percentiles() by one percentile() for each column.
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
			if !call.first { // the columns share an accumulator
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
