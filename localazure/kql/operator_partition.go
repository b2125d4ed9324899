// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import "fmt"

// partitionOf parses "by column ( operator | ... )". Braces do as well.
func (p *parser) partitionOf(op *operator) error {
	if _, err := p.parameters(); err != nil {
		return err
	}
	if !p.acceptName("by") {
		return p.fail("expected 'by' with a column after partition and found '%s'", p.cur().text)
	}
	t := p.cur()
	if t.kind != tokName {
		return p.fail("expected a column and found '%s'", t.text)
	}
	p.next()
	op.by = []named{{name: t.text, tok: t, expr: &expr{op: exColumn, name: t.text, tok: t}}}
	end := ")"
	if p.is("{") {
		end = "}"
		p.next()
	} else if err := p.expect("("); err != nil {
		return err
	}
	if err := p.enter(); err != nil {
		return err
	}
	defer func() { p.depth-- }()
	first, err := p.operator()
	if err != nil {
		return err
	}
	q := &pipeline{ops: []operator{first}}
	if err := p.operators(q); err != nil {
		return err
	}
	op.on = q.ops
	return p.expect(end)
}

// partition compiles partition, which runs operators on the rows of each value of
// a column. The partitions come in the order of their first rows.
func (c *compiler) partition(op operator, r *run) (newStage, error) {
	by, typ, err := c.compile(op.by[0].expr)
	if err != nil {
		return nil, err
	}
	if typ == Dynamic {
		return nil, semantic(c.src, op.by[0].tok, fmt.Sprintf("partition cannot compare dynamic values: convert '%s' first, for example with extend x = tostring(...)", op.by[0].name))
	}
	stages, err := c.plan(op.on, r)
	if err != nil {
		return nil, err
	}
	return func(next stage) stage {
		return &partitionStage{next: next, run: r, by: by, stages: stages, at: map[string]int{}}
	}, nil
}

type partitionStage struct {
	next   stage
	run    *run
	by     eval
	stages []newStage
	at     map[string]int // of a value's rows in parts
	parts  [][][]any
}

func (s *partitionStage) push(row []any) bool {
	k := key(s.by(row))
	i, ok := s.at[k]
	if !ok {
		i = len(s.parts)
		s.at[k], s.parts = i, append(s.parts, nil)
	}
	s.parts[i] = append(s.parts[i], row)
	return s.run.hold(row...)
}

func (s *partitionStage) close() {
	for i, rows := range s.parts {
		last := &boundary{next: s.next, run: s.run}
		var first stage = last
		for k := len(s.stages) - 1; k >= 0; k-- {
			first = s.stages[k](first)
		}
		for _, row := range rows {
			if !first.push(row) {
				break
			}
		}
		if s.run.err != nil {
			return
		}
		first.close()
		if s.parts[i] = nil; last.done {
			break
		}
	}
	if s.run.err == nil {
		s.next.close()
	}
}
