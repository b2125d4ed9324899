// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"slices"
	"strconv"
)

// branch is one input of a union.
type branch struct {
	name string // for withsource
	cols []Column
	feed func(stage) bool
}

// branches compiles the inputs of a union. Inputs that are not tables are called
// union_arg and a number; number is that of the first input.
func (x *exec) branches(u *unionSpec, number int) ([]branch, error) {
	var out []branch
	for _, q := range u.branches {
		r, err := x.relation(q)
		if err != nil {
			return nil, err
		}
		name := "union_arg" + strconv.Itoa(number+len(out))
		if q.source.kind == srcTable && len(q.source.tables) == 1 && len(q.ops) == 0 {
			name = q.source.tables[0].text
		}
		out = append(out, branch{name, r.cols, r.feed})
	}
	return out, nil
}

// layout returns the columns of a union, and a function for each branch that
// changes its rows to them.
func (u *unionSpec) layout(branches []branch) (cols []Column, convert []func([]any) []any) {
	types := map[string][]Type{}
	count := map[Column]int{}
	var distinct []Column
	for _, b := range branches {
		for _, c := range b.cols {
			if count[c]++; !slices.Contains(types[c.Name], c.Type) {
				types[c.Name] = append(types[c.Name], c.Type)
				distinct = append(distinct, c)
			}
		}
	}
	var from []Column // the column of the branches for each of cols
	if u.source != "" {
		cols, from = append(cols, Column{u.source, String}), append(from, Column{})
	}
	for _, c := range distinct {
		if u.inner && count[c] < len(branches) {
			continue
		}
		out := c
		if len(types[c.Name]) > 1 && !u.inner { // one name, several types
			out.Name = c.Name + "_" + string(c.Type)
		}
		cols, from = append(cols, out), append(from, c)
	}
	for _, b := range branches {
		at := make([]int, len(cols))
		for k, c := range from {
			at[k] = slices.Index(b.cols, c)
		}
		convert = append(convert, func(row []any) []any {
			out := make([]any, len(cols))
			for k, j := range at {
				if j >= 0 {
					out[k] = row[j]
				} else {
					out[k] = zero(cols[k].Type)
				}
			}
			if u.source != "" {
				out[0] = b.name
			}
			return out
		})
	}
	return cols, convert
}

// feedAll pushes the converted rows of all branches into a stage.
func feedAll(branches []branch, convert []func([]any) []any, next stage) bool {
	for i, b := range branches {
		if !b.feed(&mapStage{next, func(row []any) ([]any, bool) { return convert[i](row), true }}) {
			return false
		}
	}
	return true
}

// unionSource compiles union as the source of a pipeline.
func (x *exec) unionSource(u *unionSpec) (*relation, error) {
	branches, err := x.branches(u, 0)
	if err != nil {
		return nil, err
	}
	cols, convert := u.layout(branches)
	return &relation{cols, func(next stage) bool { return feedAll(branches, convert, next) }}, nil
}

// union compiles union as an operator: first the rows of the pipeline, then
// those of the other tables.
func (c *compiler) union(op operator) (newStage, error) {
	if op.union.fuzzy {
		c.withoutMissing(op.union)
	}
	others, err := c.branches(op.union, 1)
	if err != nil {
		return nil, err
	}
	all := append([]branch{{name: "union_arg0", cols: c.cols}}, others...)
	cols, convert := op.union.layout(all)
	c.cols = cols
	return func(next stage) stage {
		return &unionStage{next: &boundary{next: next, run: c.run}, after: next, convert: convert[0],
			others: func(s stage) { feedAll(others, convert[1:], s) }}
	}, nil
}

type unionStage struct {
	next    *boundary
	after   stage
	convert func([]any) []any
	others  func(stage)
}

func (s *unionStage) push(row []any) bool { return s.next.push(s.convert(row)) }

func (s *unionStage) close() {
	if !s.next.done {
		s.others(s.next)
	}
	s.after.close()
}
