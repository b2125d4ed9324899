// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"sort"
)

// expansion compiles the columns that mv-expand and mv-apply expand. It sets cols
// to a schema with an element in each of them.
func (c *compiler) expansion(op operator) (*expandPlan, error) {
	p := &expandPlan{limit: math.MaxInt, index: -1, array: op.how == "array"}
	cols := append([]Column{}, c.cols...)
	for _, n := range op.cols {
		f, _, err := c.compile(n.expr)
		if err != nil {
			return nil, err
		}
		at := position(cols, n.name)
		if at < 0 {
			at = len(cols)
			cols = append(cols, Column{})
		}
		typ := n.typ
		if typ == "" {
			typ = Dynamic
		}
		cols[at] = Column{n.name, typ}
		p.lists, p.at, p.types = append(p.lists, f), append(p.at, at), append(p.types, typ)
	}
	if op.index != "" {
		p.index = len(cols)
		cols = append(cols, Column{op.index, Long})
	}
	if op.n != nil {
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		p.limit = n
	}
	p.width = len(cols)
	c.cols = cols
	return p, nil
}

type expandPlan struct {
	lists []eval
	at    []int
	types []Type
	index int // position of the item index; -1 is none
	limit int
	width int
	array bool // the elements of bags are [key, value]
}

// elements returns the elements of a value; other values than arrays and bags are
// their only element.
func (p *expandPlan) elements(v any) []any {
	switch v := toDynamic(v).(type) {
	case []any:
		return v
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		list := make([]any, 0, len(v))
		for _, k := range keys {
			if p.array {
				list = append(list, []any{k, v[k]})
			} else {
				list = append(list, map[string]any{k: v[k]})
			}
		}
		return list
	default:
		return []any{v}
	}
}

// each calls f with one row for each element.
func (p *expandPlan) each(r *run, what string, row []any, f func([]any) bool) bool {
	lists := make([][]any, len(p.lists))
	n := 0
	for i, l := range p.lists {
		lists[i] = p.elements(l(row))
		n = max(n, len(lists[i]))
	}
	for k := range min(n, p.limit) {
		out := make([]any, p.width)
		copy(out, row)
		for i, at := range p.at {
			out[at] = nil
			if k < len(lists[i]) {
				out[at] = lists[i][k]
			}
			if p.types[i] != Dynamic {
				out[at] = convert(out[at], p.types[i])
			}
		}
		if p.index >= 0 {
			out[p.index] = int64(k)
		}
		if !r.countMade(what) || !f(out) {
			return false
		}
	}
	return true
}

// expand compiles mv-expand: one row for each element of an array or bag.
func (c *compiler) expand(op operator, r *run) (newStage, error) {
	p, err := c.expansion(op)
	if err != nil {
		return nil, err
	}
	return func(next stage) stage { return &expandStage{next, r, p} }, nil
}

type expandStage struct {
	next stage
	run  *run
	plan *expandPlan
}

func (s *expandStage) push(row []any) bool {
	return s.plan.each(s.run, "mv-expand", row, s.next.push)
}

func (s *expandStage) close() { s.next.close() }

// apply compiles mv-apply, which runs operators on the elements of an array of
// each row. Its output has the columns of the row and those of the operators.
func (c *compiler) apply(op operator, r *run) (newStage, error) {
	outer := c.cols
	p, err := c.expansion(op)
	if err != nil {
		return nil, err
	}
	stages, err := c.plan(op.on, r)
	if err != nil {
		return nil, err
	}
	cols := append([]Column{}, outer...)
	to := make([]int, len(c.cols)) // where the inner columns go
	for i, col := range c.cols {
		to[i] = -1
		for k := range outer {
			if outer[k].Name == col.Name {
				to[i], cols[k] = k, col
			}
		}
		if to[i] < 0 {
			to[i] = len(cols)
			cols = append(cols, col)
		}
	}
	c.cols = cols
	return func(next stage) stage {
		return &applyStage{next, func(row []any) bool {
			last := &boundary{run: r, next: &mapStage{next, func(in []any) ([]any, bool) {
				out := make([]any, len(cols))
				copy(out, row)
				for i, v := range in {
					out[to[i]] = v
				}
				return out, true
			}}}
			var first stage = last
			for i := len(stages) - 1; i >= 0; i-- {
				first = stages[i](first)
			}
			p.each(r, "mv-apply", row, first.push)
			if r.err == nil {
				first.close()
			}
			return r.err == nil && !last.done
		}}
	}, nil
}

type applyStage struct {
	next stage
	f    func([]any) bool
}

func (s *applyStage) push(row []any) bool { return s.f(row) }

func (s *applyStage) close() { s.next.close() }
