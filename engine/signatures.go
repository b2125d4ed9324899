// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "strconv"

// ownsAnti reports whether the class has a required anti-affinity term over a key
// that selects what the matcher does.
func (cl *class) ownsAnti(key int32, m *matcher) bool {
	for i, o := range cl.anti {
		if o == m && cl.antiKeys[i] == key {
			return true
		}
	}
	return false
}

// affKeys returns the labels that node selector and required affinity look at.
func (cl *class) affKeys() []int32 {
	var ks []int32
	for i := range cl.sel {
		ks = append(ks, cl.sel[i].key)
	}
	for _, t := range cl.aff {
		for i := range t {
			ks = append(ks, t[i].key)
		}
	}
	return ks
}

// affSig appends a text that is equal for equal node selectors and required node
// affinity.
func (cl *class) affSig(b []byte) []byte {
	for i := range cl.sel {
		b = append(cl.sel[i].cacheKey(b), ',')
	}
	return termsSig(b, cl.aff)
}

func termsSig(b []byte, terms [][]creq) []byte {
	for _, t := range terms {
		b = append(b, '|')
		for i := range t {
			b = append(t[i].cacheKey(b), ',')
		}
	}
	return b
}

// tolSig appends a text that is equal for equal tolerations.
func tolSig(b []byte, ts []Toleration) []byte {
	for i := range ts {
		for _, s := range [4]string{ts[i].Key, ts[i].Operator, ts[i].Value, string(ts[i].Effect)} {
			b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
			b = append(b, s...)
		}
	}
	return b
}

// volSig appends a text that is equal for equal volume topologies.
func (cl *class) volSig(b []byte) []byte {
	for _, v := range cl.vols {
		b = termsSig(append(b, '&'), v)
	}
	return b
}

// vecSig appends a text that is equal for equal amounts. Trailing zeros do not
// count.
func vecSig(b []byte, v []int64) []byte {
	n := len(v)
	for n > 0 && v[n-1] == 0 {
		n--
	}
	for _, x := range v[:n] {
		b = append(strconv.AppendInt(b, x, 36), ',')
	}
	return b
}
