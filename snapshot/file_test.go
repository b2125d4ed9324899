// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/nap-aks/nap/snapshot"
	"github.com/nap-aks/nap/test/clustergen"
)

func TestFileRoundTripKeepsTheSnapshot(t *testing.T) {
	for seed := range uint64(60) {
		o := clustergen.Generate(seed, clustergen.Options{})
		o.Assumed = map[string]string{}
		o.Quotas = quotas(int64(seed))
		var b bytes.Buffer
		if err := snapshot.Write(&b, o); err != nil {
			t.Fatal(err)
		}
		back, err := snapshot.Read(bytes.NewReader(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		diff(t, fmt.Sprintf("seed %d", seed), canonical(t, build(t, o).Snapshot), canonical(t, build(t, back).Snapshot))
		var again bytes.Buffer
		if err := snapshot.Write(&again, back); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Fatalf("seed %d: the file that was read and written again differs", seed)
		}
	}
}

func TestReadRefusesInvalidFiles(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON": "hello", "another kind": `{"kind":"List","version":1}`, "a later version": `{"kind":"nap-snapshot","version":99}`,
		"a list that is not there": `{"kind":"nap-snapshot","version":1,"instanceTypesOf":{"p":3}}`,
	} {
		if _, err := snapshot.Read(bytes.NewReader([]byte(text))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
