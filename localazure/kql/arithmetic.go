// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"time"
)

// arithmeticType returns the type of the result of arithmetic.
func arithmeticType(op string, a, b Type) Type {
	switch {
	case a == DateTime && b == DateTime, a == TimeSpan && b == TimeSpan && op != "/", a == TimeSpan && (b == Long || b == Real), b == TimeSpan && (a == Long || a == Real):
		return TimeSpan
	case a == DateTime || b == DateTime:
		return DateTime
	case a == Long && b == Long:
		return Long
	case a == Dynamic && b == Dynamic:
		return Dynamic
	}
	return Real
}

// arithmetic computes a op b for +, -, *, / and %. It returns nil if op is not
// defined for the values, and for division by zero of integers and timespans.
func arithmetic(op string, a, b any) any {
	switch x := a.(type) {
	case time.Time:
		return timeArithmetic(op, x, b)
	case time.Duration:
		return spanArithmetic(op, x, b)
	case int64:
		switch y := b.(type) {
		case int64:
			return longArithmetic(op, x, y)
		case time.Duration:
			if op == "*" {
				return spanArithmetic(op, y, a)
			}
		}
	case string:
		return nil
	}
	if _, isText := b.(string); isText {
		return nil
	}
	x, okx := toReal(a)
	y, oky := toReal(b)
	if !okx || !oky {
		return nil
	}
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	}
	return math.Mod(x, y)
}

func timeArithmetic(op string, x time.Time, b any) any {
	switch y := b.(type) {
	case time.Duration:
		switch op {
		case "+":
			return x.Add(y)
		case "-":
			return x.Add(-y)
		}
	case time.Time:
		if op == "-" {
			return x.Sub(y)
		}
	}
	return nil
}

func spanArithmetic(op string, x time.Duration, b any) any {
	switch y := b.(type) {
	case time.Duration:
		switch {
		case op == "+":
			return x + y
		case op == "-":
			return x - y
		case op == "/" && y != 0:
			return float64(x) / float64(y)
		case op == "%" && y != 0:
			return x % y
		}
		return nil
	case time.Time:
		if op == "+" {
			return y.Add(x)
		}
		return nil
	}
	f, ok := toReal(b)
	switch {
	case !ok:
	case op == "*" && math.Abs(float64(x)*f) < 1<<62:
		return time.Duration(float64(x) * f)
	case op == "/" && f != 0 && math.Abs(float64(x)/f) < 1<<62:
		return time.Duration(float64(x) / f)
	}
	return nil
}

func longArithmetic(op string, x, y int64) any {
	switch {
	case op == "+":
		return x + y
	case op == "-":
		return x - y
	case op == "*":
		return x * y
	case op == "/" && y != 0:
		return x / y
	case op == "%" && y != 0:
		return x % y
	}
	return nil
}

// bin rounds v down to a multiple of by.
func bin(v, by any) any {
	switch v := v.(type) {
	case time.Time:
		if d, ok := by.(time.Duration); ok && d > 0 {
			return v.Truncate(d) // counts from the year 1, as bin() does
		}
		return nil
	case time.Duration:
		if d, ok := by.(time.Duration); ok && d > 0 {
			return v - ((v%d)+d)%d
		}
		return nil
	case int64:
		if n, ok := by.(int64); ok && n > 0 {
			return v - ((v%n)+n)%n
		}
	}
	x, okx := toReal(v)
	n, okn := toReal(by)
	if !okx || !okn || n <= 0 {
		return nil
	}
	return math.Floor(x/n) * n
}

// binAt rounds v down to a multiple of by, counted from at.
func binAt(v, by, at any) any {
	switch at := at.(type) {
	case time.Time:
		t, okt := v.(time.Time)
		d, okd := by.(time.Duration)
		if !okt || !okd || d <= 0 {
			return nil
		}
		if at.IsZero() { // a Duration cannot reach back to the year 1
			return bin(t, d)
		}
		off, ok := bin(t.Sub(at), d).(time.Duration)
		if !ok {
			return nil
		}
		return at.Add(off)
	case time.Duration:
		if d, ok := v.(time.Duration); ok {
			if off, ok := bin(d-at, by).(time.Duration); ok {
				return at + off
			}
		}
		return nil
	}
	return arithmetic("+", bin(arithmetic("-", v, at), by), at)
}
