package kql

import (
	"fmt"
	"regexp"
	"strings"
)

// parseText compiles parse and parse-where. The pattern becomes one regular
// expression, which matches in linear time.
func (c *compiler) parseText(op operator) (newStage, error) {
	src, _, err := c.compile(op.pred)
	if err != nil {
		return nil, err
	}
	type target struct {
		at    int
		typ   Type
		group string
	}
	var targets []target
	cols := append([]Column{}, c.cols...)
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
				return nil, semantic(c.src, part.tok, fmt.Sprintf("the pattern has the column '%s' twice", part.column))
			}
			seen[part.column] = true
			at := -1
			for k := range cols {
				if cols[k].Name == part.column {
					at = k
				}
			}
			if at < 0 {
				at = len(cols)
				cols = append(cols, Column{})
			}
			cols[at] = Column{part.column, part.typ}
			inner := ".*?"
			switch {
			case part.typ == Long:
				inner = `[-+]?\d+`
			case part.typ == Real:
				inner = `[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?`
			case last:
				inner = ".*"
			}
			name := fmt.Sprintf("column_%d", len(targets))
			fmt.Fprintf(&b, "(?P<%s>%s)", name, inner)
			targets = append(targets, target{at, part.typ, name})
		}
	}
	b.WriteString("$")
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, semantic(c.src, op.tok, "the pattern is not a valid regular expression: "+err.Error())
	}
	groups := make([]int, len(targets)) // with kind=regex the pattern may have groups too
	for i, t := range targets {
		groups[i] = re.SubexpIndex(t.group)
	}
	where, relaxed := op.kind == "parse-where", op.how != "simple"
	width := len(cols)
	c.cols = cols
	return func(next stage) stage {
		return &mapStage{next, func(row []any) ([]any, bool) {
			out := make([]any, width)
			copy(out, row)
			m := re.FindStringSubmatch(text(src(row)))
			ok := m != nil
			for i, t := range targets {
				out[t.at] = zero(t.typ)
				if m == nil {
					continue
				}
				s := m[groups[i]]
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
