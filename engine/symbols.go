// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"slices"
	"strconv"
)

// Values of a label key are interned as small integers. Two are special.
const (
	valAbsent int32 = 0 // the label is absent
	valOther  int32 = 1 // the label has a value that no requirement names
	valFirst  int32 = 2
)

// symbols interns label keys and, per key, their values.
type symbols struct {
	keys map[string]int32
	tab  []keyTable
}

type keyTable struct {
	name  string
	ids   map[string]int32
	names []string // by ID; the first two are the special values
}

func (s *symbols) key(name string) int32 {
	if k, ok := s.keys[name]; ok {
		return k
	}
	if s.keys == nil {
		s.keys = map[string]int32{}
	}
	k := int32(len(s.tab))
	s.keys[name] = k
	s.tab = append(s.tab, keyTable{name: name, ids: map[string]int32{}, names: []string{"<absent>", "<other>"}})
	return k
}

func (s *symbols) value(key int32, v string) int32 {
	t := &s.tab[key]
	if id, ok := t.ids[v]; ok {
		return id
	}
	id := int32(len(t.names))
	t.ids[v] = id
	t.names = append(t.names, v)
	return id
}

func (s *symbols) valueName(key, v int32) string { return s.tab[key].names[v] }

// creq is a compiled Requirement.
type creq struct {
	key    int32
	op     Operator
	values []int32 // sorted, for In and NotIn
	num    int64   // for the ordering operators
}

func (s *symbols) compileReq(r Requirement) (creq, error) {
	c := creq{key: s.key(r.Key), op: r.Operator}
	switch r.Operator {
	case In, NotIn:
		for _, v := range r.Values {
			c.values = append(c.values, s.value(c.key, v))
		}
		slices.Sort(c.values)
		c.values = slices.Compact(c.values)
	case Exists, DoesNotExist:
	case Gt, Lt, Gte, Lte:
		if len(r.Values) != 1 {
			return c, fmt.Errorf("requirement %s %s needs exactly one value, has %d", r.Key, r.Operator, len(r.Values))
		}
		n, err := strconv.ParseInt(r.Values[0], 10, 64)
		if err != nil {
			return c, fmt.Errorf("requirement %s %s needs an integer, has %q", r.Key, r.Operator, r.Values[0])
		}
		c.num = n
	default:
		return c, fmt.Errorf("requirement on %s has the unknown operator %q", r.Key, r.Operator)
	}
	return c, nil
}

func (s *symbols) compileReqs(rs []Requirement) ([]creq, error) {
	out := make([]creq, 0, len(rs))
	for _, r := range rs {
		c, err := s.compileReq(r)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// holds reports whether value v of the requirement's key satisfies it.
func (s *symbols) holds(c *creq, v int32) bool {
	switch c.op {
	case In:
		_, ok := slices.BinarySearch(c.values, v)
		return ok
	case NotIn:
		_, ok := slices.BinarySearch(c.values, v)
		return !ok
	case Exists:
		return v != valAbsent
	case DoesNotExist:
		return v == valAbsent
	}
	if v < valFirst {
		return false
	}
	n, err := strconv.ParseInt(s.tab[c.key].names[v], 10, 64)
	if err != nil {
		return false
	}
	switch c.op {
	case Gt:
		return n > c.num
	case Lt:
		return n < c.num
	case Gte:
		return n >= c.num
	case Lte:
		return n <= c.num
	}
	return false
}

// cacheKey appends a key that is equal for equal requirements.
func (c *creq) cacheKey(b []byte) []byte {
	b = append(strconv.AppendInt(b, int64(c.key), 10), ' ')
	b = append(b, c.op...)
	b = strconv.AppendInt(append(b, ' '), c.num, 10)
	for _, v := range c.values {
		b = strconv.AppendInt(append(b, ' '), int64(v), 10)
	}
	return b
}
