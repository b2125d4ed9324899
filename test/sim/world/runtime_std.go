// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !simruntime

package world

// Deterministic reports whether the process has the Go runtime that hack/simruntime
// prepares, in which a seed gives one history.
const Deterministic = false

func seedRuntime(uint64) {}

func freshHeap() {}

func runBubble(func()) {
	panic("this program was built without the runtime of the simulator: build it with make nap-sim")
}
