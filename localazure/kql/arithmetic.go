package kql

import (
	"math"
	"time"
)

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

func arithmetic(op string, a, b any) any {
	switch x := a.(type) {
	case time.Time:
		switch y := b.(type) {
		case time.Duration:
			if op == "+" {
				return x.Add(y)
			} else if op == "-" {
				return x.Add(-y)
			}
		case time.Time:
			if op == "-" {
				return x.Sub(y)
			}
		}
		return nil
	case time.Duration:
		switch y := b.(type) {
		case time.Duration:
			switch op {
			case "+":
				return x + y
			case "-":
				return x - y
			case "/":
				if y != 0 {
					return float64(x) / float64(y)
				}
			case "%":
				if y != 0 {
					return x % y
				}
			}
			return nil
		case time.Time:
			if op == "+" {
				return y.Add(x)
			}
			return nil
		}
		if f, ok := toReal(b); ok {
			if op == "*" && math.Abs(float64(x)*f) < 1<<62 {
				return time.Duration(float64(x) * f)
			} else if op == "/" && f != 0 && math.Abs(float64(x)/f) < 1<<62 {
				return time.Duration(float64(x) / f)
			}
		}
		return nil
	case int64:
		if y, ok := b.(int64); ok {
			switch op {
			case "+":
				return x + y
			case "-":
				return x - y
			case "*":
				return x * y
			case "/":
				if y != 0 {
					return x / y
				}
			case "%":
				if y != 0 {
					return x % y
				}
			}
			return nil
		}
		if d, ok := b.(time.Duration); ok && op == "*" {
			return arithmetic(op, d, a)
		}
	case string:
		return nil
	}
	x, okx := toReal(a)
	y, oky := toReal(b)
	if _, isText := b.(string); !okx || !oky || isText {
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
