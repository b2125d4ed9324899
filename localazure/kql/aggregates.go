// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"sort"
	"time"
)

// accumulator computes one aggregate of one group. add returns false if the
// accumulator keeps one more value in memory.
type accumulator interface {
	add(args []any) bool
	result() any
}

type aggregate struct {
	min, max int
	typ      Type // "" is the type of the first argument
	new      func() accumulator
}

var aggregates = map[string]aggregate{
	"count":                {0, 0, Long, func() accumulator { return &countAcc{} }},
	"countif":              {1, 1, Long, func() accumulator { return &countAcc{cond: true} }},
	"dcount":               {1, 2, Long, func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} }},
	"count_distinct":       {1, 1, Long, func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} }},
	"dcountif":             {2, 3, Long, where(func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} })},
	"count_distinctif":     {2, 2, Long, where(func() accumulator { return &setAcc{seen: map[string]bool{}, count: true} })},
	"sum":                  {1, 1, Long, func() accumulator { return &sumAcc{} }},
	"sumif":                {2, 2, Long, where(func() accumulator { return &sumAcc{} })},
	"avg":                  {1, 1, Real, func() accumulator { return &sumAcc{avg: true} }},
	"avgif":                {2, 2, Real, where(func() accumulator { return &sumAcc{avg: true} })},
	"min":                  {1, 1, "", func() accumulator { return &extremeAcc{sign: -1} }},
	"max":                  {1, 1, "", func() accumulator { return &extremeAcc{sign: 1} }},
	"minif":                {2, 2, "", where(func() accumulator { return &extremeAcc{sign: -1} })},
	"maxif":                {2, 2, "", where(func() accumulator { return &extremeAcc{sign: 1} })},
	"any":                  {1, 1, "", func() accumulator { return &anyAcc{} }},
	"take_any":             {1, 64, "", func() accumulator { return &anyAcc{} }},
	"take_anyif":           {2, 2, "", where(func() accumulator { return &anyAcc{} })},
	"make_list":            {1, 2, Dynamic, func() accumulator { return &setAcc{} }},
	"make_list_if":         {2, 3, Dynamic, where(func() accumulator { return &setAcc{} })},
	"make_list_with_nulls": {1, 1, Dynamic, func() accumulator { return &setAcc{nulls: true} }},
	"make_set":             {1, 2, Dynamic, func() accumulator { return &setAcc{seen: map[string]bool{}} }},
	"make_set_if":          {2, 3, Dynamic, where(func() accumulator { return &setAcc{seen: map[string]bool{}} })},
	"make_bag":             {1, 2, Dynamic, func() accumulator { return &bagAcc{} }},
	"percentile":           {2, 2, "", func() accumulator { return &percentileAcc{} }},
	"percentiles":          {2, 64, "", nil},
	"percentiles_array":    {2, 64, Dynamic, func() accumulator { return &percentileAcc{array: true} }},
	"stdev":                {1, 1, Real, func() accumulator { return &stdevAcc{} }},
	"variance":             {1, 1, Real, func() accumulator { return &stdevAcc{squared: true} }},
	"arg_max":              {1, 64, "", nil},
	"arg_min":              {1, 64, "", nil},
}

// where restricts an aggregate to rows for which its second argument is true.
func where(of func() accumulator) func() accumulator {
	return func() accumulator { return &ifAcc{of()} }
}

type ifAcc struct{ of accumulator }

func (a *ifAcc) add(args []any) bool {
	if toBool(args[1]) != true {
		return true
	}
	return a.of.add(append([]any{args[0]}, args[2:]...))
}

func (a *ifAcc) result() any { return a.of.result() }

type countAcc struct {
	n    int64
	cond bool
}

func (a *countAcc) add(args []any) bool {
	if !a.cond || toBool(args[0]) == true {
		a.n++
	}
	return true
}

func (a *countAcc) result() any { return a.n }

type sumAcc struct {
	avg    bool
	n      int64
	i      int64
	f      float64
	real   bool
	span   time.Duration
	isSpan bool
}

func (a *sumAcc) add(args []any) bool {
	switch v := args[0].(type) {
	case int64:
		a.i += v
	case float64:
		a.f += v
		a.real = true
	case time.Duration:
		a.span += v
		a.isSpan = true
	default:
		return true
	}
	a.n++
	return true
}

func (a *sumAcc) result() any {
	switch {
	case a.avg && a.n == 0:
		return nil
	case a.isSpan && a.avg:
		return a.span / time.Duration(a.n)
	case a.isSpan:
		return a.span
	case a.avg:
		return (a.f + float64(a.i)) / float64(a.n)
	case a.real:
		return a.f + float64(a.i)
	}
	return a.i
}

type extremeAcc struct {
	sign int
	best any
}

func (a *extremeAcc) add(args []any) bool {
	if v := args[0]; v != nil {
		if c, ok := compare(v, a.best); a.best == nil || ok && c*a.sign > 0 {
			a.best = v
		}
	}
	return true
}

func (a *extremeAcc) result() any { return a.best }

type anyAcc struct{ v any }

func (a *anyAcc) add(args []any) bool {
	if a.v == nil {
		a.v = args[0]
	}
	return true
}

func (a *anyAcc) result() any { return a.v }

// setAcc implements make_list, make_set (with seen) and dcount (with count).
type setAcc struct {
	seen  map[string]bool
	count bool
	nulls bool
	list  []any
}

func (a *setAcc) add(args []any) bool {
	if args[0] == nil && !a.nulls {
		return true
	}
	if len(args) > 1 && !a.count {
		if n, ok := args[1].(int64); ok && int64(len(a.list)) >= n {
			return true
		}
	}
	if a.seen != nil {
		k := key(args[0])
		if a.seen[k] {
			return true
		}
		a.seen[k] = true
	}
	if !a.count {
		a.list = append(a.list, args[0])
	}
	return false
}

func (a *setAcc) result() any {
	if a.count {
		return int64(len(a.seen))
	}
	return append([]any{}, a.list...)
}

// bagAcc implements make_bag. It keeps the first value of each key.
type bagAcc struct{ bag map[string]any }

func (a *bagAcc) add(args []any) bool {
	if a.bag == nil {
		a.bag = map[string]any{}
	}
	m, ok := toDynamic(args[0]).(map[string]any)
	if !ok {
		return true
	}
	for k, v := range m {
		if len(args) > 1 {
			if n, ok := args[1].(int64); ok && int64(len(a.bag)) >= n {
				break
			}
		}
		if _, there := a.bag[k]; !there {
			a.bag[k] = v
		}
	}
	return false
}

func (a *bagAcc) result() any {
	if a.bag == nil {
		return map[string]any{}
	}
	return a.bag
}

type percentileAcc struct {
	array bool // the result is an array with a value for each percentile
	ps    []float64
	vals  []float64
	orig  []any
}

func (a *percentileAcc) add(args []any) bool {
	if a.ps == nil {
		for _, p := range args[1:] {
			list, ok := p.([]any)
			if !ok {
				list = []any{p}
			}
			for _, p := range list {
				f, _ := toReal(p)
				a.ps = append(a.ps, f)
			}
		}
	}
	f, ok := toReal(args[0])
	if !ok {
		return true
	}
	a.vals = append(a.vals, f)
	a.orig = append(a.orig, args[0])
	return false
}

// result uses the nearest rank.
func (a *percentileAcc) result() any {
	if len(a.vals) == 0 {
		return nil
	}
	idx := make([]int, len(a.vals))
	for i := range idx {
		idx[i] = i
	}
	sort.Slice(idx, func(i, j int) bool { return a.vals[idx[i]] < a.vals[idx[j]] })
	out := make([]any, len(a.ps))
	for i, p := range a.ps {
		rank := int(math.Ceil(min(max(p, 0), 100)/100*float64(len(idx)))) - 1
		out[i] = a.orig[idx[max(rank, 0)]]
	}
	if a.array {
		return out
	}
	return out[0]
}

// stdevAcc computes the sample standard deviation with Welford's method.
type stdevAcc struct {
	squared  bool
	n        float64
	mean, m2 float64
}

func (a *stdevAcc) add(args []any) bool {
	if f, ok := toReal(args[0]); ok {
		a.n++
		d := f - a.mean
		a.mean += d / a.n
		a.m2 += d * (f - a.mean)
	}
	return true
}

func (a *stdevAcc) result() any {
	if a.n < 2 {
		return 0.0
	}
	if a.squared {
		return a.m2 / (a.n - 1)
	}
	return math.Sqrt(a.m2 / (a.n - 1))
}

type argAcc struct {
	sign int
	best []any
}

func (a *argAcc) add(args []any) bool {
	if args[0] == nil {
		return true
	}
	if a.best == nil {
		a.best = args
		return false // holds all of a row
	}
	if c, ok := compare(args[0], a.best[0]); ok && c*a.sign > 0 {
		a.best = args
	}
	return true
}

func (a *argAcc) result() any { return nil }

type partAcc struct {
	acc  *argAcc
	part int
}

func (a *partAcc) add(args []any) bool { return a.acc.add(args) }

func (a *partAcc) result() any {
	if a.acc.best == nil {
		return nil
	}
	return a.acc.best[a.part]
}
