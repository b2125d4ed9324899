// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"math"
	"strconv"
)

// byteUnits are the units of format_bytes, each 1,024 times the one before it.
var byteUnits = []string{"Bytes", "KB", "MB", "GB", "TB", "PB"}

// formatBytes implements format_bytes(size [, precision [, units]]). Without
// units it chooses the largest unit of which there is at least one.
func formatBytes(_ *compiler, a []any) any {
	size, ok := toReal(a[0])
	if !ok {
		return nil
	}
	precision := int64(0)
	if len(a) > 1 {
		if precision, ok = toLong(a[1]).(int64); !ok || precision < 0 || precision > 15 {
			return nil
		}
	}
	unit := 0
	for s := math.Abs(size); len(a) < 3 && s >= 1024 && unit < len(byteUnits)-1; s /= 1024 {
		unit++
	}
	if len(a) > 2 {
		for unit < len(byteUnits) && byteUnits[unit] != text(a[2]) {
			unit++
		}
		if unit == len(byteUnits) {
			return nil
		}
	}
	scale := math.Pow(10, float64(precision))
	value := math.Round(size/math.Pow(1024, float64(unit))*scale) / scale
	return strconv.FormatFloat(value, 'f', -1, 64) + " " + byteUnits[unit]
}

// dataSize returns the bytes that estimate_data_size counts for a value of a
// column of a type.
func dataSize(v any, t Type) int64 {
	switch {
	case t == Bool:
		return 1
	case t == Long || t == Real || t == DateTime || t == TimeSpan:
		return 8
	case v == nil:
		return 0
	}
	return int64(len(text(v)))
}

// estimateDataSize compiles estimate_data_size(*) and estimate_data_size(a, ...).
func (c *compiler) estimateDataSize(e *expr) (eval, Type, error) {
	var of []eval
	var types []Type
	for _, a := range e.args {
		if a.op == exStar {
			for i, col := range c.cols {
				of, types = append(of, func(row []any) any { return row[i] }), append(types, col.Type)
			}
			continue
		}
		f, typ, err := c.compile(a)
		if err != nil {
			return nil, "", err
		}
		of, types = append(of, f), append(types, typ)
	}
	if len(e.args) == 0 {
		return nil, "", semantic(c.src, e.tok, "function 'estimate_data_size' takes columns, or '*' for all of them")
	}
	return func(row []any) any {
		n := int64(0)
		for i, f := range of {
			n += dataSize(f(row), types[i])
		}
		return n
	}, Long, nil
}
