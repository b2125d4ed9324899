// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes property tests check more clusters than rapid does by default, because
// some combinations of rules occur once in thousands, and the same ones each time: a
// change is judged by what it changes. `make properties` looks at others, and at more.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "500", "rapid.seed": "1"} {
		if flag.Lookup(name) != nil {
			_ = flag.Set(name, value)
		}
	}
	flag.Parse()
	os.Exit(m.Run())
}
