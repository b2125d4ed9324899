// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"slices"
	"strconv"
)

// join compiles join and lookup. It reads the right side into memory, indexed by
// key, and streams the left side.
func (c *compiler) join(op operator) (newStage, error) {
	right, err := c.relation(op.sub)
	if err != nil {
		return nil, err
	}
	rc := &compiler{exec: c.exec, cols: right.cols}
	var lat, rat []int
	for _, k := range op.keys {
		l, r := c.column(k.left.text), rc.column(k.right.text)
		if l < 0 {
			return nil, unresolved(c.src, k.left, fmt.Sprintf("failed to resolve column named '%s' of the join's left side%s", k.left.text, c.hint(k.left.text)))
		}
		if r < 0 {
			return nil, unresolved(c.src, k.right, fmt.Sprintf("failed to resolve column named '%s' of the join's right side%s", k.right.text, rc.hint(k.right.text)))
		}
		if lt, rt := c.cols[l].Type, right.cols[r].Type; lt != rt {
			return nil, semantic(c.src, k.left, fmt.Sprintf("the columns of a join must be of one type: '%s' is %s and '%s' is %s; convert one of them, for example with tostring() or tolong()", k.left.text, lt, k.right.text, rt))
		} else if lt == Dynamic {
			return nil, semantic(c.src, k.left, fmt.Sprintf("a join cannot compare dynamic values: convert '%s' first, for example with extend x = tostring(...)", k.left.text))
		}
		lat, rat = append(lat, l), append(rat, r)
	}
	j := &joinPlan{run: c.run, kind: op.how, right: right, lat: lat, rat: rat, left: len(c.cols)}
	j.zeros = make([]any, len(c.cols))
	for i, col := range c.cols {
		j.zeros[i] = zero(col.Type)
	}
	keep := func(int) bool { return true }
	if op.kind == "lookup" { // the output omits the keys of the right side
		keep = func(i int) bool { return !slices.Contains(rat, i) }
	}
	var cols []Column
	switch op.how {
	case "leftsemi", "leftanti":
		cols = c.cols
	case "rightsemi", "rightanti":
		cols = right.cols
	default:
		cols = slices.Clone(c.cols)
		names := map[string]bool{}
		for _, col := range cols {
			names[col.Name] = true
		}
		for i, col := range right.cols {
			if !keep(i) {
				continue
			}
			base := col.Name
			for n := 1; names[col.Name]; n++ {
				col.Name = base + strconv.Itoa(n)
			}
			names[col.Name] = true
			cols = append(cols, col)
			j.take = append(j.take, i)
			j.rightZeros = append(j.rightZeros, zero(col.Type))
		}
	}
	c.cols = cols
	return func(next stage) stage { return &joinStage{joinPlan: j, next: next} }, nil
}

type joinPlan struct {
	run        *run
	kind       string
	right      *relation
	lat, rat   []int
	left       int   // columns of the left side
	take       []int // columns of the right side in the output
	zeros      []any // the left side for rows of the right side without a match
	rightZeros []any
}

type joinStage struct {
	*joinPlan
	next  stage
	rows  []joined
	byKey map[string][]int
	seen  map[string]bool // innerunique: keys of the left side
	done  bool
}

func (s *joinStage) load() bool {
	if s.byKey != nil {
		return s.run.err == nil
	}
	s.byKey, s.seen = map[string][]int{}, map[string]bool{}
	s.right.feed(rowFunc(func(row []any) bool {
		k, ok := keyOf(row, s.rat)
		if !ok && s.kind != "rightouter" && s.kind != "fullouter" && s.kind != "rightanti" {
			return true
		}
		if s.run.hold(row...) {
			if ok {
				s.byKey[k] = append(s.byKey[k], len(s.rows))
			}
			s.rows = append(s.rows, joined{row: row})
		}
		return s.run.err == nil
	}))
	return s.run.err == nil
}

func (s *joinStage) emit(left, right []any) bool {
	if !s.run.countMade("join") {
		return false
	}
	out := make([]any, 0, s.left+len(s.take))
	if left == nil {
		left = s.zeros
	}
	out = append(out, left...)
	if right == nil {
		out = append(out, s.rightZeros...)
	} else {
		for _, i := range s.take {
			out = append(out, right[i])
		}
	}
	return s.next.push(out)
}

func (s *joinStage) push(row []any) bool {
	if s.done || !s.load() {
		return false
	}
	k, ok := keyOf(row, s.lat)
	var hits []int
	if ok {
		hits = s.byKey[k]
	}
	more := true
	switch s.kind {
	case "leftsemi":
		more = len(hits) == 0 || s.next.push(row)
	case "leftanti":
		more = len(hits) > 0 || s.next.push(row)
	case "rightsemi", "rightanti":
		for _, i := range hits {
			s.rows[i].matched = true
		}
		delete(s.byKey, k) // each row is marked once
	default:
		if s.kind == "innerunique" && len(hits) > 0 {
			if s.seen[k] {
				return true
			}
			s.seen[k] = true
		}
		for _, i := range hits {
			s.rows[i].matched = true
			if more = s.emit(row, s.rows[i].row); !more {
				break
			}
		}
		if len(hits) == 0 && (s.kind == "leftouter" || s.kind == "fullouter") {
			more = s.emit(row, nil)
		}
	}
	s.done = !more
	return more
}

func (s *joinStage) close() {
	if !s.done && s.load() {
		for i := range s.rows {
			r := &s.rows[i]
			more := true
			switch {
			case s.kind == "rightsemi" && r.matched, s.kind == "rightanti" && !r.matched:
				more = s.next.push(r.row)
			case (s.kind == "rightouter" || s.kind == "fullouter") && !r.matched:
				more = s.emit(nil, r.row)
			}
			if !more {
				break
			}
		}
	}
	s.rows, s.byKey = nil, map[string][]int{}
	if s.run.err == nil {
		s.next.close()
	}
}

type joined struct {
	row     []any
	matched bool
}

// keyOf returns the key of a row. ok is false if a part of it is null: null has no
// match.
func keyOf(row []any, at []int) (key string, ok bool) {
	vals := make([]any, len(at))
	for i, a := range at {
		if vals[i] = row[a]; vals[i] == nil {
			return "", false
		}
	}
	return rowKey(vals), true
}
