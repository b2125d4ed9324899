// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogsRotateAndKeepThree(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.log")
	l, err := openLog(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	chunk := []byte(strings.Repeat("x", logMaxBytes/2+1))
	for range 6 {
		if n, err := l.Write(chunk); err != nil || n != len(chunk) {
			t.Fatalf("wrote %d: %v", n, err)
		}
	}
	for i, want := range []bool{true, true, true, true, false} {
		name := file
		if i > 0 {
			name = fmt.Sprintf("%s.%d", file, i)
		}
		st, err := os.Stat(name)
		if (err == nil) != want {
			t.Errorf("%s exists: %t, want %t", filepath.Base(name), err == nil, want)
		}
		if err == nil && st.Size() > logMaxBytes {
			t.Errorf("%s has %d bytes", filepath.Base(name), st.Size())
		}
	}
}
