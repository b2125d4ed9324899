// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"maps"
	"time"
)

// scalar is a scalar function.
type scalar struct {
	min, max int // number of arguments; max < 0 is unbounded
	typ      Type
	call     func(c *compiler, args []any) any
}

// Result types of functions that return one of their arguments.
const (
	typeOfFirst  Type = "type of the first argument"
	typeOfSecond Type = "type of the second argument"
)

// scalars are all scalar functions by lower-case name.
var scalars = merged(conversionFunctions, conditionalFunctions, mathFunctions, stringFunctions, datetimeFunctions, dynamicFunctions)

func merged(groups ...map[string]scalar) map[string]scalar {
	all := map[string]scalar{}
	for _, g := range groups {
		maps.Copy(all, g)
	}
	return all
}

// onValue makes a scalar function from a function of one value.
func onValue[T any](f func(any) T) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any { return f(a[0]) }
}

// onString makes a scalar function from a function of one string.
func onString[T any](f func(string) T) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any { return f(text(a[0])) }
}

// onReal makes a scalar function from a function of one number. It returns null
// for other values.
func onReal[T any](f func(float64) T) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		x, ok := toReal(a[0])
		if !ok {
			return nil
		}
		return f(x)
	}
}

// onLongs makes a scalar function from a function of two integers. It returns
// null for other values.
func onLongs(f func(x, y int64) int64) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		x, okx := toLong(a[0]).(int64)
		y, oky := toLong(a[1]).(int64)
		if !okx || !oky {
			return nil
		}
		return f(x, y)
	}
}

// onTime makes a scalar function from a function of one datetime. It returns null
// for other values.
func onTime[T any](f func(time.Time) T) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		t, ok := toTime(a[0]).(time.Time)
		if !ok {
			return nil
		}
		return f(t)
	}
}

// onArray makes a scalar function from a function of an array and more arguments.
// It returns null if the first argument is not an array.
func onArray(f func(list, args []any) any) func(*compiler, []any) any {
	return func(_ *compiler, a []any) any {
		l, ok := toDynamic(a[0]).([]any)
		if !ok {
			return nil
		}
		return f(l, a[1:])
	}
}
