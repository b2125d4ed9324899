// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math/rand/v2"
	"sort"
)

type countStage struct {
	next stage
	n    int64
}

func (s *countStage) push([]any) bool { s.n++; return true }

func (s *countStage) close() { s.next.push([]any{s.n}); s.next.close() }

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

// sampleStage keeps n rows with equal probability.
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

func (c *compiler) distinct(op operator, r *run) (newStage, error) {
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

func (c *compiler) sort(op operator, r *run, top int) (newStage, error) {
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
	top  int // number of rows to keep; -1 is all
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
