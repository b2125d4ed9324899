// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"math"
	"time"
)

// makeSeries compiles make-series: it summarizes by the points of an axis, and
// then combines the rows of each group to one row of arrays.
func (c *compiler) makeSeries(op operator, r *run) (newStage, error) {
	_, typ, err := c.compile(op.axis.expr)
	if err != nil {
		return nil, err
	}
	s := &seriesPlan{run: r, typ: typ}
	if s.step, _, err = c.constant(op.step); err != nil {
		return nil, err
	}
	bounds := []struct {
		e  *expr
		to *any
	}{{op.from, &s.from}, {op.to, &s.to}}
	for _, b := range bounds {
		if b.e == nil {
			continue
		}
		if *b.to, _, err = c.constant(b.e); err != nil {
			return nil, err
		}
	}
	origin, okType := map[Type]any{DateTime: time.Time{}, Long: int64(0), Real: 0.0, TimeSpan: time.Duration(0)}[typ]
	if !okType {
		return nil, semantic(c.src, op.axis.tok, fmt.Sprintf("the axis of a series must be a datetime, a timespan or a number, not of type %s", typ))
	}
	if signOf(s.step) <= 0 || arithmetic("+", origin, s.step) == nil {
		return nil, semantic(c.src, op.step.tok, "the step of a series must be more than 0 and fit its axis: a timespan for times, a number for numbers")
	}
	for _, b := range bounds {
		if _, ok := compare(*b.to, origin); b.e != nil && !ok {
			return nil, semantic(c.src, b.e.tok, fmt.Sprintf("the bounds of a series must be of the type of its axis, %s", typ))
		}
	}
	if s.from != nil {
		origin = s.from
	}
	if s.from != nil && s.to != nil {
		if n := s.points(s.from, s.to); n > MaxRowsReturned {
			return nil, semantic(c.src, op.step.tok, fmt.Sprintf("the series has more than %d points; take a longer step", MaxRowsReturned))
		}
	}
	filter := operator{kind: "where", tok: op.tok, pred: &expr{value: true}}
	and := func(name string, bound any) {
		filter.pred = &expr{op: exBinary, name: "and", tok: op.tok, args: []*expr{filter.pred,
			{op: exBinary, name: name, tok: op.axis.tok, args: []*expr{op.axis.expr, {value: bound, tok: op.axis.tok}}}}}
	}
	if s.from != nil {
		and(">=", s.from)
	}
	if s.to != nil {
		and("<", s.to)
	}
	point := named{name: "$point", tok: op.axis.tok, expr: &expr{op: exCall, name: "bin_at", tok: op.axis.tok,
		args: []*expr{op.axis.expr, {value: s.step, tok: op.step.tok}, {value: origin, tok: op.axis.tok}}}}
	sum := operator{kind: "summarize", tok: op.tok, cols: op.cols, by: append(append([]named{}, op.by...), point)}
	stages, err := c.plan([]operator{filter, sum}, r)
	if err != nil {
		return nil, err
	}
	s.by = len(op.by)
	cols := append([]Column{}, c.cols[:s.by]...)
	for i, col := range c.cols[s.by+1:] {
		cols = append(cols, Column{col.Name, Dynamic})
		def := any(int64(0))
		if i < len(op.cols) && op.cols[i].def != nil {
			if def, _, err = c.constant(op.cols[i].def); err != nil {
				return nil, err
			}
		}
		s.defaults = append(s.defaults, def)
	}
	c.cols = append(cols, Column{op.axis.name, Dynamic})
	return func(next stage) stage {
		var first stage = &seriesStage{seriesPlan: s, next: next, groups: map[string]*series{}}
		for i := len(stages) - 1; i >= 0; i-- {
			first = stages[i](first)
		}
		return first
	}, nil
}

type seriesPlan struct {
	run            *run
	typ            Type
	from, to, step any
	by             int
	defaults       []any
}

// points returns the number of steps from one value to another, rounded up.
func (s *seriesPlan) points(from, to any) int {
	var n float64
	switch to := to.(type) {
	case time.Time:
		n = float64(to.Sub(from.(time.Time))) / float64(s.step.(time.Duration))
	case time.Duration:
		n = float64(to-from.(time.Duration)) / float64(s.step.(time.Duration))
	default:
		a, _ := toReal(from)
		b, _ := toReal(to)
		step, _ := toReal(s.step)
		n = (b - a) / step
	}
	if math.IsNaN(n) || n < 0 {
		return 0
	}
	return int(math.Ceil(min(n-1e-9, math.MaxInt32)))
}

type series struct {
	by     []any
	points []seriesPoint
}

type seriesPoint struct {
	at   any
	vals []any
}

type seriesStage struct {
	*seriesPlan
	next     stage
	groups   map[string]*series
	order    []*series
	min, max any
}

func (s *seriesStage) push(row []any) bool {
	at := row[s.by]
	if at == nil {
		return true
	}
	by := append([]any{}, row[:s.by]...)
	k := rowKey(by)
	g := s.groups[k]
	if g == nil {
		g = &series{by: by}
		s.groups[k] = g
		s.order = append(s.order, g)
	}
	g.points = append(g.points, seriesPoint{at, row[s.by+1:]})
	s.min, s.max = extreme([]any{s.min, at}, -1), extreme([]any{s.max, at}, 1)
	return s.run.hold(row...)
}

func (s *seriesStage) close() {
	if s.emit() && s.run.err == nil {
		s.next.close()
	}
}

func (s *seriesStage) emit() bool {
	if len(s.order) == 0 {
		return true
	}
	from := s.from
	if from == nil {
		from = s.min
	}
	n := 0
	if s.to != nil {
		n = s.points(from, s.to)
	} else {
		n = s.points(from, s.max) + 1
	}
	if n > MaxRowsReturned {
		return s.run.fail(&Error{Code: LimitError, Message: fmt.Sprintf("the series has more than %d points; take a longer step, or set from and to", MaxRowsReturned)})
	}
	axis := make([]any, n)
	for i, v := 0, from; i < n; i, v = i+1, arithmetic("+", v, s.step) {
		axis[i] = v
	}
	for _, g := range s.order {
		arrays := make([][]any, len(s.defaults))
		for k, def := range s.defaults {
			arrays[k] = make([]any, n)
			for i := range arrays[k] {
				arrays[k][i] = def
				if !s.run.countMade("make-series") {
					return false
				}
			}
		}
		for _, p := range g.points {
			if i := s.points(from, p.at); i < n {
				for k, v := range p.vals {
					if v != nil {
						arrays[k][i] = v
					}
				}
			}
		}
		row := g.by
		for _, a := range arrays {
			row = append(row, any(a))
		}
		if !s.next.push(append(row, any(axis))) {
			break
		}
	}
	return true
}
