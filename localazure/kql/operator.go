// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"math"
)

// plan compiles operators. It sets cols to the schema of their output.
func (c *compiler) plan(ops []operator, r *run) ([]newStage, error) {
	var out []newStage
	for _, op := range ops {
		b, err := c.windowed(op, r)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (c *compiler) operator(op operator, r *run) (newStage, error) {
	switch op.kind {
	case "where":
		f, typ, err := c.compile(op.pred)
		if err != nil {
			return nil, err
		}
		if typ != Bool && typ != Dynamic {
			return nil, semantic(c.src, op.pred.tok, fmt.Sprintf("where needs a condition, not a value of type %s", typ))
		}
		return func(next stage) stage {
			return &mapStage{next, func(row []any) ([]any, bool) { return row, toBool(f(row)) == true }}
		}, nil
	case "project", "extend":
		return c.project(op)
	case "project-away", "project-keep", "project-reorder":
		return c.pick(op)
	case "project-rename":
		return c.rename(op)
	case "distinct":
		return c.distinct(op, r)
	case "count":
		c.cols = []Column{{orElse(op.index, "Count"), Long}}
		return func(next stage) stage { return &countStage{next: next} }, nil
	case "getschema":
		return c.getSchema(), nil
	case "as", "render":
		return func(next stage) stage { return next }, nil
	case "join", "lookup":
		return c.join(op)
	case "union":
		return c.union(op)
	case "parse", "parse-where":
		return c.parseText(op)
	case "make-series":
		return c.makeSeries(op, r)
	case "mv-apply":
		return c.apply(op, r)
	case "sample":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return &sampleStage{next: next, run: r, n: n} }, nil
	case "sample-distinct":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		b, err := c.distinct(op, r)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return b(&takeStage{next, n}) }, nil
	case "take":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return func(next stage) stage { return &takeStage{next, n} }, nil
	case "sort":
		return c.sort(op, r, -1)
	case "top":
		n, err := c.count(op.n)
		if err != nil {
			return nil, err
		}
		return c.sort(op, r, n)
	case "summarize":
		return c.summarize(op, r)
	case "mv-expand":
		return c.expand(op, r)
	case "partition":
		return c.partition(op, r)
	case "evaluate":
		return nil, semantic(c.src, op.tok, "evaluate cannot be used inside mv-apply and partition: its columns depend on the rows")
	}
	return nil, semantic(c.src, op.tok, fmt.Sprintf("the operator '%s' is not supported", op.kind))
}

// count evaluates a number of rows, as of take and top.
func (c *compiler) count(e *expr) (int, error) {
	bare := *c
	bare.cols = nil
	f, _, err := bare.compile(e)
	if err != nil {
		return 0, err
	}
	n, ok := toLong(f(nil)).(int64)
	if !ok || n < 0 {
		return 0, semantic(c.src, e.tok, "a number of rows must be an integer that is not negative")
	}
	return int(min(n, math.MaxInt32)), nil
}
