// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"time"
)

// mathFunctions compute with numbers, and round numbers, times and timespans.
var mathFunctions = map[string]scalar{
	"abs":        {1, 1, typeOfFirst, abs},
	"round":      {1, 2, Real, round},
	"ceiling":    {1, 1, Real, onReal(math.Ceil)},
	"sqrt":       {1, 1, Real, onReal(math.Sqrt)},
	"log":        {1, 1, Real, onReal(math.Log)},
	"log10":      {1, 1, Real, onReal(math.Log10)},
	"log2":       {1, 1, Real, onReal(math.Log2)},
	"exp":        {1, 1, Real, onReal(math.Exp)},
	"exp2":       {1, 1, Real, onReal(math.Exp2)},
	"exp10":      {1, 1, Real, onReal(func(x float64) any { return math.Pow(10, x) })},
	"pow":        {2, 2, Real, pow},
	"sign":       {1, 1, Long, onReal(func(x float64) any { return int64(cmp(x, 0)) })},
	"isnan":      {1, 1, Bool, onReal(math.IsNaN)},
	"isinf":      {1, 1, Bool, onReal(func(x float64) any { return math.IsInf(x, 0) })},
	"isfinite":   {1, 1, Bool, onReal(func(x float64) any { return !math.IsInf(x, 0) && !math.IsNaN(x) })},
	"binary_and": {2, 2, Long, onLongs(func(x, y int64) int64 { return x & y })},
	"binary_or":  {2, 2, Long, onLongs(func(x, y int64) int64 { return x | y })},
	"binary_xor": {2, 2, Long, onLongs(func(x, y int64) int64 { return x ^ y })},
	"bin":        {2, 2, typeOfFirst, func(_ *compiler, a []any) any { return bin(a[0], a[1]) }},
	"floor":      {2, 2, typeOfFirst, func(_ *compiler, a []any) any { return bin(a[0], a[1]) }},
	"bin_at":     {3, 3, typeOfFirst, func(_ *compiler, a []any) any { return binAt(a[0], a[1], a[2]) }},
}

func abs(_ *compiler, a []any) any {
	switch v := a[0].(type) {
	case int64:
		return max(v, -v)
	case float64:
		return math.Abs(v)
	case time.Duration:
		return v.Abs()
	}
	return nil
}

func round(_ *compiler, a []any) any {
	x, ok := toReal(a[0])
	p := int64(0)
	if len(a) > 1 {
		p, _ = toLong(a[1]).(int64)
	}
	if !ok || p < 0 || p > 15 {
		return nil
	}
	return math.Round(x*math.Pow10(int(p))) / math.Pow10(int(p))
}

func pow(_ *compiler, a []any) any {
	x, okx := toReal(a[0])
	y, oky := toReal(a[1])
	if !okx || !oky {
		return nil
	}
	return math.Pow(x, y)
}
