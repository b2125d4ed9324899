// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build simruntime

package world

import _ "unsafe" // for linkname

// Deterministic reports whether the process has the Go runtime that hack/simruntime
// prepares, in which a seed gives one history.
const Deterministic = true

// seedRuntime sets the random numbers of the runtime in the bubble: the order of map
// iteration, of ready select cases and of timers that are due together, and
// math/rand's global source.
//
//go:linkname seedRuntime
func seedRuntime(seed uint64)

// runBubble runs f in a testing/synctest bubble and returns when all its goroutines
// have ended. It panics if they are blocked for ever.
//
//go:linkname runBubble
func runBubble(f func())

// resetHeap makes the addresses of later allocations independent of what the process
// did before.
//
//go:linkname resetHeap
func resetHeap()
