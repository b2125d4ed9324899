// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// window is a window function: its value depends on other rows of a serialized
// table.
type window struct {
	min, max int  // number of arguments
	typ      Type // typeOfFirst is that of the first argument
	// constant are the positions of the arguments that must not read columns.
	constant []int
	// values returns the values for all rows. args has the values of the arguments
	// for each row; arguments that the call leaves out are missing.
	values func(args [][]any) []any
}

// windowFunctions are the window functions by lower-case name.
var windowFunctions = map[string]window{
	"prev":               {1, 3, typeOfFirst, []int{1, 2}, func(a [][]any) []any { return shifted(a, -1) }},
	"next":               {1, 3, typeOfFirst, []int{1, 2}, func(a [][]any) []any { return shifted(a, 1) }},
	"row_number":         {0, 2, Long, []int{0}, rowNumber},
	"row_cumsum":         {1, 2, typeOfFirst, nil, rowCumulativeSum},
	"row_rank_dense":     {1, 2, Long, nil, rowRankDense},
	"row_rank_min":       {1, 2, Long, nil, rowRankMin},
	"row_window_session": {3, 4, DateTime, []int{1, 2}, rowWindowSession},
}

// argument returns argument i of a row, or a default if the call leaves it out.
func argument(row []any, i int, def any) any {
	if i < len(row) {
		return row[i]
	}
	return def
}

// restarts reports whether argument i of a row restarts the calculation.
func restarts(row []any, i int) bool { return toBool(argument(row, i, false)) == true }

func shifted(args [][]any, sign int) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = argument(a, 2, nil)
		by, ok := toLong(argument(a, 1, int64(1))).(int64)
		if at := int64(i) + int64(sign)*by; ok && max(by, -by) <= int64(len(args)) && at >= 0 && at < int64(len(args)) {
			out[i] = args[at][0]
		}
	}
	return out
}

func rowNumber(args [][]any) []any {
	out := make([]any, len(args))
	n := int64(0)
	for i, a := range args {
		start, _ := toLong(argument(a, 0, int64(1))).(int64)
		if i == 0 || restarts(a, 1) {
			n = start
		} else {
			n++
		}
		out[i] = n
	}
	return out
}

func rowCumulativeSum(args [][]any) []any {
	out := make([]any, len(args))
	var sum any
	for i, a := range args {
		if restarts(a, 1) {
			sum = nil
		}
		switch {
		case a[0] == nil:
		case sum == nil:
			sum = a[0]
		default:
			sum = arithmetic("+", sum, a[0])
		}
		out[i] = sum
	}
	return out
}

func rowRankDense(args [][]any) []any {
	out := make([]any, len(args))
	rank := int64(0)
	for i, a := range args {
		switch {
		case i == 0 || restarts(a, 1):
			rank = 1
		case key(a[0]) != key(args[i-1][0]):
			rank++
		}
		out[i] = rank
	}
	return out
}

func rowRankMin(args [][]any) []any {
	out := make([]any, len(args))
	rank, row := int64(0), int64(0)
	for i, a := range args {
		if row++; i == 0 || restarts(a, 1) {
			rank, row = 1, 1
		} else if key(a[0]) != key(args[i-1][0]) {
			rank = row
		}
		out[i] = rank
	}
	return out
}

func rowWindowSession(args [][]any) []any {
	out := make([]any, len(args))
	var start, last time.Time
	open := false
	for i, a := range args {
		at, ok := toTime(a[0]).(time.Time)
		if !ok {
			open = false
			continue
		}
		first, okf := toSpan(a[1]).(time.Duration)
		near, okn := toSpan(a[2]).(time.Duration)
		if !open || restarts(a, 3) || okf && !at.Before(start.Add(first)) || okn && !at.Before(last.Add(near)) {
			start = at
		}
		open, last = true, at
		out[i] = start
	}
	return out
}

// serializedBy says what an operator makes of the order of its rows: true for one
// that defines it, false for one that loses it. Others keep what there is.
var serializedBy = map[string]bool{"sort": true, "top": true, "serialize": true, "getschema": true,
	"sample": false, "sample-distinct": false, "distinct": false, "join": false, "lookup": false, "union": false,
	"summarize": false, "count": false, "mv-apply": false, "make-series": false, "partition": false, "evaluate": false}

// windowed compiles an operator. The calls of window functions in its expressions
// become hidden columns, which a stage before it computes and one after it drops.
func (c *compiler) windowed(op operator, r *run) (newStage, error) {
	if op.kind == "serialize" {
		c.serialized, op.kind = true, "extend"
	}
	w := &windowPlan{compiler: c, width: len(c.cols)}
	switch op.kind {
	case "where":
		e, err := w.lift(op.pred)
		if err != nil {
			return nil, err
		}
		op.pred = e
	case "project", "extend":
		cols := append([]named{}, op.cols...)
		for i := range cols {
			e, err := w.lift(cols[i].expr)
			if err != nil {
				return nil, err
			}
			cols[i].expr = e
		}
		op.cols = cols
	}
	inner, err := c.operator(op, r)
	if err != nil {
		return nil, err
	}
	if s, ok := serializedBy[op.kind]; ok {
		c.serialized = s
	}
	if len(w.calls) == 0 {
		return inner, nil
	}
	drop := func(next stage) stage { return next }
	if op.kind != "project" { // the hidden columns follow those of the input
		c.cols = append(append([]Column{}, c.cols[:w.width]...), c.cols[w.width+len(w.calls):]...)
		drop = func(next stage) stage {
			return &mapStage{next, func(row []any) ([]any, bool) {
				return append(append([]any{}, row[:w.width]...), row[w.width+len(w.calls):]...), true
			}}
		}
	}
	return func(next stage) stage {
		return &windowStage{next: inner(drop(next)), run: r, calls: w.calls, width: w.width}
	}, nil
}

// windowPlan is the window functions of one operator.
type windowPlan struct {
	*compiler
	calls []windowCall
	width int // number of columns before the hidden ones
}

type windowCall struct {
	args   []eval
	values func(args [][]any) []any
}

// lift replaces calls of window functions by hidden columns. Inner calls come
// before the calls that use them.
func (w *windowPlan) lift(e *expr) (*expr, error) {
	if !callsWindow(e, map[*expr]bool{}) {
		return e, nil
	}
	out := *e
	out.size = 0
	out.args = make([]*expr, len(e.args))
	for i, a := range e.args {
		var err error
		if out.args[i], err = w.lift(a); err != nil {
			return nil, err
		}
	}
	fn, ok := windowFunctions[strings.ToLower(e.name)]
	if e.op != exCall || !ok {
		return &out, nil
	}
	switch {
	case !w.serialized:
		return nil, semantic(w.src, e.tok, fmt.Sprintf("function '%s' cannot be used here: the rows must be serialized; put 'sort by' or 'serialize' before it", e.name))
	case len(e.args) < fn.min || len(e.args) > fn.max:
		return nil, semantic(w.src, e.tok, fmt.Sprintf("function '%s' takes %s, not %d", e.name, arity(fn.min, fn.max), len(e.args)))
	}
	for _, i := range fn.constant {
		if i < len(e.args) && readsColumns(e.args[i]) {
			return nil, semantic(w.src, e.args[i].tok, fmt.Sprintf("argument %d of '%s' must be a constant", i+1, e.name))
		}
	}
	args, types, err := w.compileAll(out.args)
	if err != nil {
		return nil, err
	}
	typ := fn.typ
	if typ == typeOfFirst {
		typ = types[0]
	}
	if name := strings.ToLower(e.name); name == "row_cumsum" && typ != Long && typ != Real && typ != TimeSpan {
		return nil, semantic(w.src, e.args[0].tok, fmt.Sprintf("row_cumsum adds numbers or timespans, not values of type %s", typ))
	} else if name == "row_window_session" && types[0] != DateTime {
		return nil, semantic(w.src, e.args[0].tok, fmt.Sprintf("row_window_session needs a datetime, not a value of type %s", types[0]))
	}
	name := "\x00window" + strconv.Itoa(len(w.calls))
	w.cols = append(append([]Column{}, w.cols...), Column{name, typ})
	w.calls = append(w.calls, windowCall{args, fn.values})
	return &expr{op: exColumn, name: name, tok: e.tok}, nil
}

// callsWindow reports whether an expression calls a window function.
func callsWindow(e *expr, seen map[*expr]bool) bool {
	if seen[e] || e.op == exLet {
		return false
	}
	seen[e] = true
	if _, ok := windowFunctions[strings.ToLower(e.name)]; ok && e.op == exCall {
		return true
	}
	for _, a := range e.args {
		if callsWindow(a, seen) {
			return true
		}
	}
	return false
}

// readsColumns reports whether an expression depends on the row.
func readsColumns(e *expr) bool {
	if e.op == exColumn || e.op == exStar {
		return true
	}
	for _, a := range e.args {
		if readsColumns(a) {
			return true
		}
	}
	return false
}

// windowStage holds all rows and adds the values of window functions to them.
type windowStage struct {
	next  stage
	run   *run
	calls []windowCall
	width int
	rows  [][]any
}

func (s *windowStage) push(row []any) bool {
	out := make([]any, s.width, s.width+len(s.calls))
	copy(out, row)
	s.rows = append(s.rows, out)
	return s.run.hold(row...)
}

func (s *windowStage) close() {
	for _, call := range s.calls {
		args := make([][]any, len(s.rows))
		for i, row := range s.rows {
			if i&1023 == 0 && s.run.err == nil {
				s.run.err = s.run.ctx.Err()
			}
			if s.run.err != nil {
				return
			}
			args[i] = make([]any, len(call.args))
			for k, f := range call.args {
				args[i][k] = f(row)
			}
		}
		for i, v := range call.values(args) {
			s.rows[i] = append(s.rows[i], v)
		}
	}
	for _, row := range s.rows {
		if !s.next.push(row) {
			break
		}
	}
	s.rows = nil
	s.next.close()
}
