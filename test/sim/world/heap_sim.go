// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build simruntime

package world

import "unsafe"

// regionSize is the alignment of the memory in which a run begins.
const regionSize = 1 << 28

// plugs fill the pages that were free when the run began.
var plugs [][]byte

// freshHeap makes the addresses of what the bubble allocates independent of what the
// process did before: it fills all free pages up to the next region. Maps with
// pointers as keys are ordered by addresses.
func freshHeap() {
	resetHeap()
	plugs = make([][]byte, 0, regionSize/8192+1)
	for end := uintptr(0); len(plugs) < cap(plugs); {
		b := make([]byte, 8192)
		plugs = append(plugs, b)
		at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		if end == 0 {
			end = (at + regionSize) &^ (regionSize - 1)
		}
		if at >= end {
			break
		}
	}
	resetHeap()
}
