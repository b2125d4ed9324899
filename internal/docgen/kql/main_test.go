// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/kql"
)

func TestReferencePageIsCurrent(t *testing.T) {
	got, err := os.ReadFile("../../../docs/reference/kql.md")
	if err != nil {
		t.Fatal(err)
	}
	want := page(kql.Reference())
	if string(got) != want {
		t.Error("docs/reference/kql.md is out of date: run make generate")
	}
	for _, name := range []string{"| `prev` | 1 to 3 | as its arguments |", "| `row_number` | 0 to 2 | long |", "`partition`", "`autocluster`", "| `pivot` |"} {
		if !strings.Contains(want, name) {
			t.Errorf("the page lacks %s", name)
		}
	}
}
