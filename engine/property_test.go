// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"encoding/json"
	"testing"

	. "github.com/nap-aks/nap/engine"
	"pgregory.net/rapid"
)

func mustJSON(v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Every plan satisfies all constraints and limits, has one verdict per pod, costs
// at least its bound, and refuses no pod that obviously fits.
func TestPlansAreValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSnapshot(t)
		o := Options{Trace: TraceAll}
		if rapid.IntRange(0, 4).Draw(t, "policy") == 0 {
			o.Preferences = PreferencesIgnore
		}
		if rapid.Bool().Draw(t, "improve") {
			o.Work = 20_000 // also for passes that are too small for it by default
		}
		before := mustJSON(s)
		p, err := Place(s, o)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if mustJSON(s) != before {
			t.Fatalf("the snapshot was changed")
		}
		if err := verify(s, p, o); err != nil {
			t.Fatalf("%v\nsnapshot %s\nplan %s", err, before, mustJSON(p))
		}
		q, err := Place(s, o)
		if err != nil || mustJSON(p) != mustJSON(q) {
			t.Fatalf("two calls differ")
		}
	})
}
