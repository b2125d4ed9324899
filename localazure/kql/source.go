// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"math"
	"slices"
)

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
		if s.union.fuzzy {
			x.withoutMissing(s.union)
		}
		if names := plainTables(s.union); names != nil {
			return x.scanned(q, names)
		}
		return x.unionSource(s.union)
	case srcFind:
		return x.findSource(s)
	case srcNamed:
		name, err := x.tableNamed(s)
		if err != nil {
			return nil, err
		}
		return x.scanned(q, []token{name})
	}
	return x.scanned(q, s.tables)
}

// plainTables returns the tables of a union of tables only, and nil for others.
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

// rangeOf compiles the source "range x from a to b step c".
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
	up := signOf(step)
	_, ok := compare(from, to)
	if next := arithmetic("+", from, step); !ok || up == 0 || next == nil {
		return nil, semantic(x.src, s.tok, "range needs a start and an end of one type, and a step that can be added to them and is not 0")
	}
	return &relation{[]Column{{s.name, typ}}, func(next stage) bool {
		for v := from; ; v = arithmetic("+", v, step) {
			d, ok := compare(v, to)
			if !ok || d*up > 0 {
				return true
			}
			if !x.run.countMade("range") || !next.push([]any{v}) {
				return false
			}
			if n, ok := v.(int64); ok && (up > 0 && n > math.MaxInt64/2 || up < 0 && n < math.MinInt64/2) {
				return true
			}
		}
	}}, nil
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
			return nil, semantic(x.src, e.tok, fmt.Sprintf("the column '%s' is of type %s and the value is of type %s", col.Name, col.Type, typ))
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
