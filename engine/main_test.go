// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain makes property tests check more clusters than rapid does by default:
// some combinations of rules occur once in thousands.
func TestMain(m *testing.M) {
	if f := flag.Lookup("rapid.checks"); f != nil {
		_ = flag.Set("rapid.checks", "500")
	}
	flag.Parse()
	os.Exit(m.Run())
}
