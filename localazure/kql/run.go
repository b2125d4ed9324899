package kql

import (
	"context"
	"fmt"
	"time"
)

// Request is a query and what it runs on.
type Request struct {
	Query string
	// Tables are the tables that the query may name, in the order in which
	// search and names with stars read them.
	Tables []Table
	// Now is the time of now() and ago(); zero means time.Now.
	Now time.Time
}

// Result is the answer to a query. Values are nil, bool, int64, float64,
// string, and decoded JSON for dynamic columns; times and timespans are text.
type Result struct {
	Columns []Column
	Rows    [][]any
	// Truncated is true when rows beyond MaxRowsReturned were left out.
	Truncated bool
}

// Run answers a query. A fault of the query is an *Error; other errors come
// from tables and from ctx.
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

// stage takes rows; push returns false when it wants no more.
type stage interface {
	push(row []any) bool
	close()
}

// build makes a stage that passes its rows to next.
type build func(next stage) stage

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

func (f eachRow) close() {}

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

type mapStage struct {
	next stage
	f    func([]any) ([]any, bool)
}

func (s *mapStage) push(row []any) bool {
	out, ok := s.f(row)
	return !ok || s.next.push(out)
}

func (s *mapStage) close() { s.next.close() }
