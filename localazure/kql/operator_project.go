// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"strings"
)

func (c *compiler) project(op operator) (newStage, error) {
	var cols []Column
	if op.kind == "extend" {
		cols = append(cols, c.cols...)
	}
	type target struct {
		at int
		f  eval
	}
	var targets []target
	for _, n := range op.cols {
		if n.expr.op == exStar {
			return nil, semantic(c.src, n.tok, "'*' has no meaning in "+op.kind)
		}
		f, typ, err := c.compile(n.expr)
		if err != nil {
			return nil, err
		}
		at := position(cols, n.name)
		if at < 0 {
			at = len(cols)
			cols = append(cols, Column{})
		} else if op.kind == "project" {
			return nil, semantic(c.src, n.tok, fmt.Sprintf("a column named '%s' is projected twice", n.name))
		}
		cols[at] = Column{n.name, typ}
		targets = append(targets, target{at, f})
	}
	extend := op.kind == "extend"
	c.cols = cols
	width := len(cols)
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, width)
			if extend {
				copy(out, row)
			}
			for _, t := range targets {
				out[t.at] = t.f(row)
			}
			return out, true
		}}
	}, nil
}

// matchColumn reports whether a name matches a pattern with stars.
func matchColumn(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, parts[len(parts)-1])
}

// pick compiles project-away, project-keep and project-reorder.
func (c *compiler) pick(op operator) (newStage, error) {
	hit := make([]int, len(c.cols)) // position of the first pattern that matches, from 1
	for k, n := range op.cols {
		found := false
		for i, col := range c.cols {
			if matchColumn(n.name, col.Name) {
				found = true
				if hit[i] == 0 {
					hit[i] = k + 1
				}
			}
		}
		if !found && !strings.Contains(n.name, "*") {
			return nil, unresolved(c.src, n.tok, fmt.Sprintf("failed to resolve column named '%s'%s", n.name, c.hint(n.name)))
		}
	}
	var idx []int
	switch op.kind {
	case "project-reorder":
		for k := range op.cols {
			for i := range c.cols {
				if hit[i] == k+1 {
					idx = append(idx, i)
				}
			}
		}
		for i := range c.cols {
			if hit[i] == 0 {
				idx = append(idx, i)
			}
		}
	default:
		for i := range c.cols {
			if (hit[i] > 0) == (op.kind == "project-keep") {
				idx = append(idx, i)
			}
		}
	}
	cols := make([]Column, len(idx))
	for k, i := range idx {
		cols[k] = c.cols[i]
	}
	c.cols = cols
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, len(idx))
			for k, i := range idx {
				out[k] = row[i]
			}
			return out, true
		}}
	}, nil
}

func (c *compiler) rename(op operator) (newStage, error) {
	cols := append([]Column{}, c.cols...)
	for _, n := range op.cols {
		i := -1
		if n.expr.op == exColumn {
			i = c.column(n.expr.name)
		}
		if i < 0 {
			return nil, semantic(c.src, n.tok, "project-rename takes new = old, where old is a column")
		}
		cols[i].Name = n.name
	}
	c.cols = cols
	return func(next stage) stage { return next }, nil
}

func (c *compiler) getSchema() newStage {
	cols := c.cols
	c.cols = []Column{{"ColumnName", String}, {"ColumnOrdinal", Long}, {"DataType", String}, {"ColumnType", String}}
	system := map[Type]string{String: "System.String", Long: "System.Int64", Real: "System.Double", Bool: "System.SByte", DateTime: "System.DateTime", TimeSpan: "System.TimeSpan", Dynamic: "System.Object"}
	return func(next stage) stage {
		return &schemaStage{next, cols, system}
	}
}

type schemaStage struct {
	next   stage
	cols   []Column
	system map[Type]string
}

func (s *schemaStage) push([]any) bool { return false }

func (s *schemaStage) close() {
	for i, c := range s.cols {
		if !s.next.push([]any{c.Name, int64(i), s.system[c.Type], string(c.Type)}) {
			break
		}
	}
	s.next.close()
}
