// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"encoding/json"
	"testing"
)

func nodePool(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func text(t *testing.T, pool map[string]any) string {
	t.Helper()
	b, err := json.Marshal(pool)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Reopening and resuming restore a NodePool exactly, also after a second close or
// freeze.
func TestNodePoolIsRestored(t *testing.T) {
	for _, before := range []string{
		`{"metadata":{"name":"a"},"spec":{"template":{"spec":{}}}}`,
		`{"metadata":{"annotations":{"x":"y"},"name":"b"},"spec":{"disruption":{"budgets":[{"nodes":"10%"}]},"limits":{"cpu":"100","memory":"1Ti"},"template":{"spec":{"taints":[{"effect":"NoSchedule","key":"k"}]}}}}`,
	} {
		for name, x := range map[string]struct {
			do, undo func(map[string]any) (bool, error)
		}{
			"close": {closePool, reopenPool}, "freeze": {freezePool(false), resumePool}, "freeze all": {freezePool(true), resumePool},
		} {
			pool := nodePool(t, before)
			for range 2 {
				if _, err := x.do(pool); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			changed := text(t, pool)
			if changed == before {
				t.Errorf("%s changes nothing: %s", name, changed)
			}
			if ok, err := x.undo(pool); err != nil || !ok {
				t.Errorf("%s: undone %v (%v)", name, ok, err)
			}
			got, want := nodePool(t, text(t, pool)), nodePool(t, before)
			for _, p := range []map[string]any{got, want} { // an empty object is as none
				spec := p["spec"].(map[string]any)
				if d, ok := spec["disruption"].(map[string]any); ok && len(d) == 0 {
					delete(spec, "disruption")
				}
			}
			if text(t, got) != text(t, want) {
				t.Errorf("%s: restored to %s, want %s", name, text(t, got), text(t, want))
			}
			if ok, err := x.undo(pool); err != nil || ok {
				t.Errorf("%s: undone twice: %v (%v)", name, ok, err)
			}
		}
	}
}
