// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "math/bits"

// bitset is a set of small integers, one bit each. Sets over the same universe
// have the same number of words.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int32) bool { return b[i>>6]&(1<<(uint(i)&63)) != 0 }
func (b bitset) set(i int32)      { b[i>>6] |= 1 << (uint(i) & 63) }
func (b bitset) clear(i int32)    { b[i>>6] &^= 1 << (uint(i) & 63) }

// setRange sets [lo, hi).
func (b bitset) setRange(lo, hi int32) {
	for i := lo; i < hi; i++ {
		if i&63 == 0 && i+64 <= hi {
			b[i>>6] = ^uint64(0)
			i += 63
			continue
		}
		b.set(i)
	}
}

// clearRange clears [lo, hi).
func (b bitset) clearRange(lo, hi int32) {
	for i := lo; i < hi; {
		end := min((i>>6+1)<<6, hi)
		mask := ^uint64(0) << (uint(i) & 63)
		if e := uint(end) & 63; e != 0 {
			mask &= 1<<e - 1
		}
		b[i>>6] &^= mask
		i = end
	}
}

func (b bitset) and(o bitset) {
	for i := range b {
		b[i] &= o[i]
	}
}

func (b bitset) or(o bitset) {
	for i := range b {
		b[i] |= o[i]
	}
}

func (b bitset) andNot(o bitset) {
	for i := range b {
		b[i] &^= o[i]
	}
}

// meets reports whether two sets have a common member.
func (b bitset) meets(o bitset) bool {
	for i, w := range b {
		if w&o[i] != 0 {
			return true
		}
	}
	return false
}

func (b bitset) clone() bitset { return append(bitset(nil), b...) }

func (b bitset) empty() bool {
	for _, w := range b {
		if w != 0 {
			return false
		}
	}
	return true
}

func (b bitset) count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// anyIn reports whether some member is in [lo, hi).
func (b bitset) anyIn(lo, hi int32) bool { return b.next(lo, hi) < hi }

// next returns the smallest member that is at least i, or hi.
func (b bitset) next(i, hi int32) int32 {
	for i < hi {
		w := b[i>>6] >> (uint(i) & 63) // what is left of the word
		if w != 0 {
			i += int32(bits.TrailingZeros64(w))
			if i < hi {
				return i
			}
			return hi
		}
		i = (i>>6 + 1) << 6
	}
	return hi
}

// grow returns the set with space for the members below n.
func (b bitset) grow(n int) bitset {
	for len(b) < (n+63)/64 {
		b = append(b, 0)
	}
	return b
}
