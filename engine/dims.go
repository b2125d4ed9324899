// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"math"
	"slices"
	"strings"
)

// dimTable numbers resource dimensions. Attachments of a CSI driver are one, too.
type dimTable struct {
	ids   map[string]int
	names []string
}

const (
	dimCPU = iota
	dimMemory
	dimPods
)

const attachPrefix = "attach:"

// unlimited is the amount of a resource without a limit, such as the attachments
// of some CSI drivers. Sums with real amounts do not overflow.
const unlimited = math.MaxInt64 / 4

func (d *dimTable) id(name string) int {
	if i, ok := d.ids[name]; ok {
		return i
	}
	i := len(d.names)
	d.ids[name] = i
	d.names = append(d.names, name)
	return i
}

// missing returns the amount of a dimension that a machine does not list.
func (d *dimTable) missing(i int) int64 {
	if i == dimPods || strings.HasPrefix(d.names[i], attachPrefix) {
		return unlimited
	}
	return 0
}

func (d *dimTable) vec(r Resources) []int64 {
	d.know(r)
	v := make([]int64, len(d.names))
	for k, a := range r {
		v[d.ids[k]] = a
	}
	return v
}

// know numbers the resources that are new, in the order of their names.
func (d *dimTable) know(r Resources) {
	for k := range r {
		if _, ok := d.ids[k]; !ok {
			for _, k := range slices.Sorted(maps.Keys(r)) {
				d.id(k)
			}
			return
		}
	}
}

// capacityVec is like vec for the amounts of a machine.
func (d *dimTable) capacityVec(r Resources, limits map[string]int) []int64 {
	d.know(r)
	var unknown []string
	for k := range limits {
		if _, ok := d.ids[attachPrefix+k]; !ok {
			unknown = append(unknown, attachPrefix+k)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		d.id(name)
	}
	v := make([]int64, len(d.names))
	for i := range v {
		v[i] = d.missing(i)
	}
	for k, a := range r {
		v[d.ids[k]] = a
	}
	for k, a := range limits {
		v[d.ids[attachPrefix+k]] = int64(a)
	}
	return v
}

func (d *dimTable) pad(v []int64) []int64 {
	for len(v) < len(d.names) {
		v = append(v, d.missing(len(v)))
	}
	return v
}

func sub(a, b []int64) {
	for i := range b {
		a[i] -= b[i]
	}
}

// fits reports whether a vector fits into what is free. Missing trailing
// dimensions of either are zero.
func fits(vec, free []int64) bool {
	for d, r := range vec {
		if r > 0 && (d >= len(free) || r > free[d]) {
			return false
		}
	}
	return true
}

// fitCount returns how many times a vector fits, at most limit.
func fitCount(vec, free []int64, limit int64) int64 {
	for d, r := range vec {
		if r <= 0 {
			continue
		}
		if d >= len(free) || free[d] < r {
			return 0
		}
		if limit > math.MaxInt32 || free[d] < r*limit {
			limit = min(limit, free[d]/r)
		}
	}
	return limit
}

// fitsTogether reports whether the sum of two vectors fits into alloc.
func fitsTogether(a, b, alloc []int64) bool {
	for d, r := range a {
		if d < len(b) {
			r += b[d]
		}
		if r > 0 && (d >= len(alloc) || r > alloc[d]) {
			return false
		}
	}
	return fits(b, alloc)
}
