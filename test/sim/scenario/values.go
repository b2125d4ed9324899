// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Duration is a time span written as 90s, 1h30m or 2d.
type Duration time.Duration

func (d Duration) String() string { return formatDuration(time.Duration(d)) }

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func parseDuration(s string) (time.Duration, error) {
	days := time.Duration(0)
	rest := s
	if head, tail, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration: write for example 90s, 5m, 1h30m or 2d", s)
		}
		days, rest = time.Duration(n)*24*time.Hour, tail
	}
	if rest == "" && days > 0 {
		return days, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		if _, numeric := strconv.ParseFloat(s, 64); numeric == nil {
			return 0, fmt.Errorf("%q has no unit: write for example %ss or %sm", s, s, s)
		}
		return 0, fmt.Errorf("%q is no duration: write for example 90s, 5m, 1h30m or 2d", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative: write a duration from 0s on", s)
	}
	return days + d, nil
}

func (d *Duration) decodeNode(n *yaml.Node) error {
	v, err := parseDuration(n.Value)
	if err != nil {
		return errorAt(n, "%w", err)
	}
	*d = Duration(v)
	return nil
}

// Range is a time span that is drawn evenly between Min and Max. In files it is one
// duration, or two: 2s..5s.
type Range struct{ Min, Max time.Duration }

// Exactly returns the range of the one duration d.
func Exactly(d time.Duration) Range { return Range{Min: d, Max: d} }

// Draw returns a duration of the range.
func (r Range) Draw(rng *rand.Rand) time.Duration {
	if r.Max <= r.Min {
		return r.Min
	}
	return r.Min + time.Duration(rng.Int64N(int64(r.Max-r.Min)+1))
}

func (r Range) String() string {
	if r.Min == r.Max {
		return formatDuration(r.Min)
	}
	return formatDuration(r.Min) + ".." + formatDuration(r.Max)
}

func (r *Range) decodeNode(n *yaml.Node) error {
	low, high, two := strings.Cut(n.Value, "..")
	var err error
	if r.Min, err = parseDuration(low); err != nil {
		return errorAt(n, "%w", err)
	}
	r.Max = r.Min
	if two {
		if r.Max, err = parseDuration(high); err != nil {
			return errorAt(n, "%w", err)
		}
	}
	if r.Max < r.Min {
		return errorAt(n, "%q ends before it begins: write %s..%s", n.Value, high, low)
	}
	return nil
}

// Share is a part of a whole from 0 to 1, written as a percentage: 25%.
type Share float64

func (s *Share) decodeNode(n *yaml.Node) error {
	v, ok := strings.CutSuffix(n.Value, "%")
	f, err := strconv.ParseFloat(v, 64)
	if !ok || err != nil || f < 0 || f > 100 {
		return errorAt(n, "%q is no share: write a percentage from 0%% to 100%%, for example 25%%", n.Value)
	}
	*s = Share(f / 100)
	return nil
}

// Count is a number of things, or a share of them: 12 or 60%.
type Count struct {
	N int
	// Share is the share if IsShare, from 0 on.
	Share   float64
	IsShare bool
}

// Of returns the count out of total, rounded to the nearest.
func (c Count) Of(total int) int {
	if !c.IsShare {
		return c.N
	}
	return int(c.Share*float64(total) + 0.5)
}

func (c *Count) decodeNode(n *yaml.Node) error {
	text, percent := strings.CutSuffix(n.Value, "%")
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || !percent && f != float64(int(f)) {
		return errorAt(n, "%q is no count: write a whole number, or a percentage such as 60%%", n.Value)
	}
	if percent {
		*c = Count{Share: f / 100, IsShare: true}
	} else {
		*c = Count{N: int(f)}
	}
	return nil
}

// IntRange is a whole number drawn evenly from Min to Max. In files it is one number,
// or two: 5..40.
type IntRange struct{ Min, Max int }

// Draw returns a number of the range.
func (r IntRange) Draw(rng *rand.Rand) int {
	if r.Max <= r.Min {
		return r.Min
	}
	return r.Min + rng.IntN(r.Max-r.Min+1)
}

func (r *IntRange) decodeNode(n *yaml.Node) error {
	low, high, two := strings.Cut(n.Value, "..")
	if !two {
		high = low
	}
	var err, err2 error
	r.Min, err = strconv.Atoi(low)
	r.Max, err2 = strconv.Atoi(high)
	if err != nil || err2 != nil || r.Min < 0 || r.Max < r.Min {
		return errorAt(n, "%q is no number or range: write for example 20 or 5..40", n.Value)
	}
	return nil
}

// Quantity is an amount in Kubernetes' notation, or a range that is drawn evenly by
// its logarithm, so that small requests are as frequent as they are in clusters:
// 500m, 2Gi, or 100m..4.
type Quantity struct{ Min, Max resource.Quantity }

func (q *Quantity) decodeNode(n *yaml.Node) error {
	low, high, two := strings.Cut(n.Value, "..")
	if !two {
		high = low
	}
	var err, err2 error
	q.Min, err = resource.ParseQuantity(low)
	q.Max, err2 = resource.ParseQuantity(high)
	if err != nil || err2 != nil || q.Min.Sign() < 0 || q.Max.Cmp(q.Min) < 0 {
		return errorAt(n, "%q is no amount: write for example 500m, 2Gi or 100m..4", n.Value)
	}
	return nil
}

// Condition compares a figure with a limit. In files it is written as "at most 1.03
// plan", "at least 10", "12", "<= 48s" or "all".
type Condition struct {
	// Op is "<=", ">=" or "==".
	Op string
	// Value is the limit: a number, seconds for a duration, a share for a percentage.
	Value float64
	// Unit is what the limit is measured in: "" (the figure's own), "s", "%" (of all
	// pods), "plan" or "bound" (times their cost), or "all" (all pods).
	Unit string
	text string
}

func (c Condition) String() string { return c.text }

// Holds reports whether the figure got meets the condition. The limit is Value × base,
// where base is the figure of the unit (1 where there is none). Equality allows for
// rounding in the ninth digit.
func (c Condition) Holds(got, base float64) bool {
	limit := c.Value * base
	slack := 1e-9 * max(1, limit)
	switch c.Op {
	case "<=":
		return got <= limit+slack
	case ">=":
		return got >= limit-slack
	}
	return got >= limit-slack && got <= limit+slack
}

const conditionForms = `write for example "at most 10", "at least 3", 12, "at most 1.03 plan", "at most 48s", "at most 20%" or all`

// ParseCondition reads a condition.
func ParseCondition(text string) (Condition, error) {
	c := Condition{Op: "==", text: text}
	rest := strings.TrimSpace(text)
	for _, p := range []struct{ word, op string }{{"at most", "<="}, {"at least", ">="}, {"exactly", "=="}, {"<=", "<="}, {">=", ">="}, {"==", "=="}} {
		if r, ok := strings.CutPrefix(rest, p.word); ok {
			c.Op, rest = p.op, strings.TrimSpace(r)
			break
		}
	}
	if rest == "all" {
		c.Value, c.Unit = 1, "all"
		return c, nil
	}
	number, unit, _ := strings.Cut(rest, " ")
	if p, ok := strings.CutSuffix(number, "%"); ok && unit == "" {
		number, unit = p, "%"
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		d, derr := parseDuration(rest)
		if derr != nil {
			return Condition{}, fmt.Errorf("%q is no condition: %s", text, conditionForms)
		}
		c.Value, c.Unit = d.Seconds(), "s"
		return c, nil
	}
	switch unit {
	case "", "plan", "bound":
	case "%":
		f /= 100
	default:
		return Condition{}, fmt.Errorf("%q is no condition: the unit %q is unknown; %s", text, unit, conditionForms)
	}
	c.Value, c.Unit = f, unit
	return c, nil
}

func (c *Condition) decodeNode(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return errorAt(n, "a condition must be a single value: %s", conditionForms)
	}
	v, err := ParseCondition(n.Value)
	if err != nil {
		return errorAt(n, "%w", err)
	}
	*c = v
	return nil
}
