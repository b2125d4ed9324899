// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

// conditionalFunctions choose between their arguments.
var conditionalFunctions = map[string]scalar{
	"not":      {1, 1, Bool, onValue(not)},
	"iff":      {3, 3, typeOfSecond, iff},
	"iif":      {3, 3, typeOfSecond, iff},
	"case":     {3, -1, typeOfSecond, caseOf},
	"coalesce": {1, -1, typeOfFirst, coalesce},
	"max_of":   {1, -1, typeOfFirst, func(_ *compiler, a []any) any { return extreme(a, 1) }},
	"min_of":   {1, -1, typeOfFirst, func(_ *compiler, a []any) any { return extreme(a, -1) }},
}

func not(v any) any {
	if b, ok := toBool(v).(bool); ok {
		return !b
	}
	return nil
}

func caseOf(_ *compiler, a []any) any {
	for i := 0; i+1 < len(a); i += 2 {
		if toBool(a[i]) == true {
			return a[i+1]
		}
	}
	return a[len(a)-1]
}

func coalesce(_ *compiler, a []any) any {
	for _, v := range a {
		if v != nil && v != "" {
			return v
		}
	}
	return a[len(a)-1]
}

func iff(_ *compiler, a []any) any {
	if toBool(a[0]) == true {
		return a[1]
	}
	return a[2]
}
