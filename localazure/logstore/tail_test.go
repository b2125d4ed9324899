// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTailReadsEveryLineOnce(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "karpenter.log")
	src := Source{Path: path, Category: "node-auto-provisioning", Cluster: clusterA, Pod: "p"}
	ctx := context.Background()
	catchUp := func(want int) {
		t.Helper()
		total := 0
		for {
			n, err := s.tailOnce(ctx, src)
			if err != nil {
				t.Fatal(err)
			}
			if total += n; n == 0 {
				break
			}
		}
		if total != want {
			t.Fatalf("read %d records, want %d", total, want)
		}
	}
	appendTo := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	catchUp(0) // no file yet
	appendTo(`{"level":"INFO","time":"2026-11-24T11:00:00.5Z","message":"one"}` + "\n" + `{"level":"ERROR","ti`)
	catchUp(1) // half a line waits
	appendTo(`me":"2026-11-24T11:00:01Z","message":"two"}` + "\nI1124 11:00:02.250000    1 server.go:10] three\nplain four\n\n")
	catchUp(3)
	catchUp(0) // nothing is read twice
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	appendTo(`{"ts":1795518003000.5,"msg":"five","err":"boom"}` + "\n")
	catchUp(1) // a new file is read from its start
	appendTo(strings.Repeat("x", maxLine+100) + "\nsix\n")
	catchUp(2) // a line that is too long is cut, the next is whole
	res, err := s.Query(ctx, Request{Query: `AKSControlPlane | project TimeGenerated, Level, m = substring(Message, 0, 10)`})
	if err != nil {
		t.Fatal(err)
	}
	got := show(res)
	for _, want := range []string{`["2026-11-24T11:00:00.5000000Z","info","one"]`, `["2026-11-24T11:00:01.0000000Z","error","two"]`, `["2026-11-24T11:00:02.2500000Z","info","I1124 11:0"]`, `"","plain four"]`, `["2026-11-24T11:00:03.0005000Z","error","five"]`, `"","xxxxxxxxxx"]`, `"","six"]`} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %s in %s", want, got)
		}
	}
}

func TestTailStopsWithItsContext(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Tail(ctx, Source{Path: path, Category: "c"}) }()
	deadline := time.Now().Add(10 * time.Second)
	for {
		res, err := s.Query(context.Background(), Request{Query: "AzureDiagnostics | count"})
		if err != nil {
			t.Fatal(err)
		}
		if res.Rows[0][0] == int64(2) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lines were not read in 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
