// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// parsedColumn is a column of the pattern of parse.
type parsedColumn struct {
	at    int // position in the row
	typ   Type
	group int // in the regular expression
}

// parseText compiles parse and parse-where. The pattern becomes one regular
// expression, which matches in linear time.
func (c *compiler) parseText(op operator) (newStage, error) {
	src, _, err := c.compile(op.pred)
	if err != nil {
		return nil, err
	}
	re, targets, err := c.parsePattern(op)
	if err != nil {
		return nil, err
	}
	where, relaxed := op.kind == "parse-where", op.how != "simple"
	width := len(c.cols)
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, width)
			copy(out, row)
			m := re.FindStringSubmatch(text(src(row)))
			ok := m != nil
			for _, t := range targets {
				out[t.at] = zero(t.typ)
				if m == nil {
					continue
				}
				s := m[t.group]
				if t.typ == Dynamic {
					out[t.at] = ParseJSON(s)
				} else if out[t.at] = convert(s, t.typ); out[t.at] == nil {
					ok = false
				}
			}
			if !ok && !relaxed { // kind=simple: all columns or none
				for _, t := range targets {
					out[t.at] = zero(t.typ)
				}
			}
			return out, ok || !where
		}}
	}, nil
}

// parsePattern compiles the pattern of parse and adds its columns to the schema.
func (c *compiler) parsePattern(op operator) (*regexp.Regexp, []parsedColumn, error) {
	var targets []parsedColumn
	cols := slices.Clone(c.cols)
	var b strings.Builder
	b.WriteString("(?s" + strings.ReplaceAll(op.flags, "s", "") + ")^")
	seen := map[string]bool{}
	for i, part := range op.pattern {
		last := i == len(op.pattern)-1
		switch {
		case part.star:
			b.WriteString(".*?")
		case part.column == "" && op.how == "regex":
			b.WriteString("(?:" + part.literal + ")")
		case part.column == "":
			b.WriteString(regexp.QuoteMeta(part.literal))
		default:
			if seen[part.column] {
				return nil, nil, semantic(c.src, part.tok, fmt.Sprintf("the pattern has the column '%s' twice", part.column))
			}
			seen[part.column] = true
			at := position(cols, part.column)
			if at < 0 {
				at = len(cols)
				cols = append(cols, Column{})
			}
			cols[at] = Column{part.column, part.typ}
			fmt.Fprintf(&b, "(?P<%s>%s)", groupName(len(targets)), valuePattern(part.typ, last))
			targets = append(targets, parsedColumn{at: at, typ: part.typ})
		}
	}
	b.WriteString("$")
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, nil, semantic(c.src, op.tok, "the pattern is not a valid regular expression: "+err.Error())
	}
	for i := range targets { // by name: with kind=regex the pattern may have groups too
		targets[i].group = re.SubexpIndex(groupName(i))
	}
	c.cols = cols
	return re, targets, nil
}

func groupName(i int) string { return fmt.Sprintf("column_%d", i) }

// valuePattern returns a regular expression for the values of a column.
func valuePattern(t Type, last bool) string {
	switch {
	case t == Long:
		return `[-+]?\d+`
	case t == Real:
		return `[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?`
	case last:
		return ".*"
	}
	return ".*?"
}
