// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func TestForcedUpgradeNeedsOverrideInTheFuture(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, x := range map[string]struct {
		override map[string]any
		want     bool
	}{
		"nothing":        {nil, false},
		"without an end": {map[string]any{"forceUpgrade": true}, false},
		"before the end": {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:00:01.000Z"}, true},
		"another zone":   {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:30:00+01:00"}, false},
		"at the end":     {map[string]any{"forceUpgrade": true, "until": "2026-11-25T12:00:00Z"}, false},
		"switched off":   {map[string]any{"forceUpgrade": false, "until": "2026-11-26T12:00:00Z"}, false},
		"an invalid end": {map[string]any{"forceUpgrade": true, "until": "tomorrow"}, false},
	} {
		d := rp.Doc{}
		d.Set(x.override, overridePath...)
		if got := forced(d, now); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}
