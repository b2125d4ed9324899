// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"encoding/json"
	"strconv"
	"strings"
)

// conversionFunctions convert values and test their kind.
var conversionFunctions = map[string]scalar{
	"tostring":        {1, 1, String, onValue(text)},
	"tolong":          {1, 1, Long, onValue(toLong)},
	"toint":           {1, 1, Long, onValue(toLong)},
	"todouble":        {1, 1, Real, onValue(realOrNil)},
	"toreal":          {1, 1, Real, onValue(realOrNil)},
	"todecimal":       {1, 1, Real, onValue(realOrNil)},
	"tobool":          {1, 1, Bool, onValue(toBool)},
	"toboolean":       {1, 1, Bool, onValue(toBool)},
	"toguid":          {1, 1, String, func(_ *compiler, a []any) any { return strings.ToLower(text(a[0])) }},
	"tohex":           {1, 1, String, toHex},
	"todynamic":       {1, 1, Dynamic, onValue(toDynamic)},
	"parse_json":      {1, 1, Dynamic, onValue(toDynamic)},
	"parsejson":       {1, 1, Dynamic, onValue(toDynamic)},
	"toobject":        {1, 1, Dynamic, onValue(toDynamic)},
	"dynamic_to_json": {1, 1, String, dynamicToJSON},
	"gettype":         {1, 1, String, onValue(typeName)},
	"isempty":         {1, 1, Bool, onValue(func(v any) any { return text(v) == "" })},
	"isnotempty":      {1, 1, Bool, onValue(func(v any) any { return text(v) != "" })},
	"isnull":          {1, 1, Bool, onValue(func(v any) any { return v == nil })},
	"isnotnull":       {1, 1, Bool, onValue(func(v any) any { return v != nil })},
}

func toHex(_ *compiler, a []any) any {
	n, ok := toLong(a[0]).(int64)
	if !ok {
		return ""
	}
	return strconv.FormatUint(uint64(n), 16) //nolint:gosec // the bits, as hexadecimal digits have them
}

func dynamicToJSON(_ *compiler, a []any) any {
	b, err := json.Marshal(jsonValue(a[0]))
	if err != nil {
		return ""
	}
	return string(b)
}
