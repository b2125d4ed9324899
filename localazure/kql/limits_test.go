// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A short query can need very much; it fails soon and with a clear error.
func TestLimits(t *testing.T) {
	doubling := "let f0 = (x:long) { x + x }; "
	tables := "let T0 = AKSControlPlane; "
	for i := 1; i < 30; i++ {
		doubling += fmt.Sprintf("let f%d = (x:long) { f%d(x) + f%d(x) }; ", i, i-1, i-1)
		tables += fmt.Sprintf("let T%d = T%d | union T%d; ", i, i-1, i-1)
	}
	nested := "let g0 = (x:bool) { x and x }; print "
	for range 40 {
		nested += "g0("
	}
	nested += "true" + strings.Repeat(")", 40)
	for name, c := range map[string]struct{ query, want string }{
		"a join of everything with everything": {`range i from 1 to 20000 step 1 | extend k = 1 | join kind=inner (range j from 1 to 20000 step 1 | extend k = 1) on k | count`, "join makes more than 5000000 rows"},
		"mv-expand again and again":            {`range i from 1 to 1000 step 1 | extend a = range(1, 1000) | mv-expand a | mv-expand b = range(1, 1000) | count`, "makes more than 5000000 rows"},
		"a range without end":                  {`range i from 1 to 100000000000 step 1 | count`, "range makes more than 5000000 rows"},
		"functions that double":                {doubling + "print f29(1)", "are called more than 1000 times"},
		"a call in a call":                     {nested, "too large"},
		"tables that double":                   {tables + "T29 | count", "reads tables more than 64 times"},
		"a series of many points":              {`AKSControlPlane | make-series count() on TimeGenerated step 100ms`, "the series has more than 30000 points"},
	} {
		_, err := query(t.Context(), c.query)
		var qe *Error
		if !errors.As(err, &qe) || !strings.Contains(qe.Message, c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A query ends with its context, also while it reads no table.
func TestQueryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := query(ctx, `range i from 1 to 4000000 step 1 | summarize count()`)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
