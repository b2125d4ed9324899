// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"context"
	"fmt"
	"time"
)

// Request is a query and its input.
type Request struct {
	Query string
	// Tables are the tables that the query may name, in the order in which
	// search and names with stars read them.
	Tables []Table
	// Now is the time of now() and ago(); zero means time.Now.
	Now time.Time
}

// Result is the result of a query. Values are nil, bool, int64, float64,
// string, and decoded JSON for dynamic columns; times and timespans are text.
type Result struct {
	Columns []Column
	Rows    [][]any
	// Truncated is true if rows beyond MaxRowsReturned were left out.
	Truncated bool
}

// Run runs a query. Errors in the query are of type *Error; other errors come from
// tables and from ctx.
func Run(ctx context.Context, req Request) (*Result, error) {
	q, err := parse(req.Query, tableNames(req.Tables))
	if err != nil {
		return nil, err
	}
	if req.Now.IsZero() {
		req.Now = time.Now()
	}
	x := &exec{tables: req.Tables, src: req.Query, now: req.Now.UTC(), run: &run{ctx: ctx}}
	rel, err := x.relation(q)
	if err != nil {
		return nil, err
	}
	res := &Result{Columns: rel.cols, Rows: [][]any{}}
	rel.feed(&collect{rel.cols, res})
	if x.run.err == nil {
		x.run.err = ctx.Err()
	}
	if x.run.err == nil && x.text > maxTextBytes {
		x.run.err = &Error{Code: LimitError, Message: fmt.Sprintf("the query builds more than %d bytes of text", maxTextBytes)}
	}
	return res, x.run.err
}

// collect is the stage that writes the result.
type collect struct {
	cols []Column
	out  *Result
}

func (c *collect) push(row []any) bool {
	if len(c.out.Rows) >= MaxRowsReturned {
		c.out.Truncated = true
		return false
	}
	vals := make([]any, len(row))
	for i, v := range row {
		if vals[i] = jsonValue(v); v == nil && c.cols[i].Type == String {
			vals[i] = ""
		}
	}
	c.out.Rows = append(c.out.Rows, vals)
	return true
}

func (c *collect) close() {}

// run is one execution of a query.
type run struct {
	ctx   context.Context
	err   error
	held  int // rows in memory
	bytes int // their approximate size
	made  int // rows that operators have added
}

func (r *run) fail(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return false
}

// hold counts a row, or values, that stay in memory. It returns false if the run
// has failed.
func (r *run) hold(vals ...any) bool {
	r.bytes += 64
	for _, v := range vals {
		r.bytes += sizeOfValue(v)
	}
	if r.held++; r.held > MaxRowsRead {
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the query holds more than %d rows in memory; filter the table first", MaxRowsRead)})
	}
	if r.bytes > MaxBytesHeld {
		return r.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the query holds more than %d MiB in memory; filter the table first, or project the columns that are needed", MaxBytesHeld>>20)})
	}
	return true
}

// countMade counts a row that an operator adds to those of its input, and checks
// the context. It returns false if the run has failed.
func (r *run) countMade(operator string) bool {
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

// sizeOfValue returns the approximate memory size of a value.
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

// stage processes rows. push returns false if the stage needs no more rows.
type stage interface {
	push(row []any) bool
	close()
}

// newStage returns a stage that pushes its output to next.
type newStage func(next stage) stage

// relation is a compiled source of rows.
type relation struct {
	cols []Column
	// feed pushes all rows into a stage and does not close it. It returns false
	// if the stage needs no more rows or the run has failed.
	feed func(stage) bool
}

// boundary passes the rows of one pipeline to another one, which stays open.
type boundary struct {
	next stage
	run  *run
	rows int
	done bool
}

func (s *boundary) push(row []any) bool {
	if s.rows++; s.rows&1023 == 0 && s.run.err == nil { // check the context now and then
		s.run.err = s.run.ctx.Err()
	}
	s.done = s.done || s.run.err != nil || !s.next.push(row)
	return !s.done
}

func (s *boundary) close() {}

// rowFunc is a last stage that calls a function.
type rowFunc func(row []any) bool

func (f rowFunc) push(row []any) bool { return f(row) }

func (f rowFunc) close() {}

// relation compiles a pipeline.
func (x *exec) relation(q *pipeline) (*relation, error) {
	if x.sources++; x.sources > MaxSources {
		return nil, &Error{Code: LimitError, Message: fmt.Sprintf("the query reads tables more than %d times, counting tables of let statements each time they are used", MaxSources)}
	}
	rel, err := x.sourceOf(q)
	if err != nil {
		return nil, err
	}
	c := &compiler{exec: x, cols: rel.cols, serialized: q.source.kind == srcRange}
	ops := q.ops
	for i := 0; i < len(ops); {
		if ops[i].kind != "evaluate" {
			i++
			continue
		}
		if rel, err = x.through(c, rel, ops[:i]); err != nil {
			return nil, err
		}
		if rel, err = x.evaluate(rel, ops[i]); err != nil {
			return nil, err
		}
		c = &compiler{exec: x, cols: rel.cols}
		ops, i = ops[i+1:], 0
	}
	return x.through(c, rel, ops)
}

// through compiles operators on a relation, whose columns c has.
func (x *exec) through(c *compiler, rel *relation, ops []operator) (*relation, error) {
	stages, err := c.plan(ops, x.run)
	if err != nil {
		return nil, err
	}
	return &relation{c.cols, func(next stage) bool {
		last := &boundary{next: next, run: x.run}
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

type mapStage struct {
	next stage
	f    func([]any) ([]any, bool)
}

func (s *mapStage) push(row []any) bool {
	out, ok := s.f(row)
	return !ok || s.next.push(out)
}

func (s *mapStage) close() { s.next.close() }
