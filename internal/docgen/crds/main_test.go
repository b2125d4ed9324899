// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/nap-aks/nap/apis"
)

func TestCommittedReferenceIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../../../docs/reference/crds.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, page(apis.CRDs())) {
		t.Error("docs/reference/crds.md is out of date: run go generate ./apis/...")
	}
}
