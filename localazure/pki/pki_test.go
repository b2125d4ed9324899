// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCertificatesAreReusedUntilTheirContentChanges(t *testing.T) {
	dir := t.TempDir()
	ca, err := OpenAuthority(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ca.Server("api", "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		b, err := os.ReadFile(p.CertFile)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := read()
	if ca, err = OpenAuthority(dir, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Server("api", "localhost", "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if read() != one {
		t.Error("the certificate was replaced although nothing changed")
	}
	if _, err := ca.Server("api", "localhost", "127.0.0.1", "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if read() == one {
		t.Error("the certificate was kept although a host was added")
	}
	for _, f := range []string{p.KeyFile, filepath.Join(dir, "ca.key")} {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f, st.Mode().Perm())
		}
	}
}
