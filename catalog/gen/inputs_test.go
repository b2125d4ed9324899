// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"reflect"
	"testing"

	"github.com/nap-aks/nap/catalog/internal/table"
)

func TestCommittedCatalogueMatchesInputs(t *testing.T) {
	want, err := readInputs("inputs")
	if err != nil {
		t.Fatal(err)
	}
	want.Sort()
	file, err := os.Open("../catalog.tsv.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got, err := table.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("catalog.tsv.gz differs from what the inputs give: run go generate ./catalog")
	}
}
