// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package home

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

func testHome(t *testing.T) Home {
	t.Helper()
	h, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLockIsExclusiveAndEndsWithItsHolder(t *testing.T) {
	h := testHome(t)
	if _, err := ReadLock(h); !errors.Is(err, ErrNoInstance) {
		t.Fatalf("a fresh home: %v, want ErrNoInstance", err)
	}
	l, err := TakeLock(h)
	if err != nil {
		t.Fatal(err)
	}
	var locked *LockedError
	if _, err := TakeLock(h); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("second taker got %v, want a LockedError that names pid %d", err, os.Getpid())
	}
	if !strings.Contains(locked.Error(), "nap down") {
		t.Errorf("the error does not say what to do: %v", locked)
	}
	l.Release()

	// A file left behind by a dead holder is no lock.
	if err := os.WriteFile(h.Path("lock"), []byte(`{"pid":999999,"startedAt":"2020-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLock(h); !errors.Is(err, ErrNoInstance) {
		t.Errorf("a stale file reads as %v, want ErrNoInstance", err)
	}
	l, err = TakeLock(h)
	if err != nil {
		t.Fatalf("a stale file blocks the lock: %v", err)
	}
	l.Release()
}

func TestPortsAreKeptUnlessTaken(t *testing.T) {
	h := testHome(t)
	p, err := OpenPorts(h)
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.Get("arm", false)
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Get("etcd", false)
	if err != nil || other == first {
		t.Fatalf("two names share port %d (%v)", other, err)
	}
	again, err := OpenPorts(h)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Get("arm", false); err != nil || got != first {
		t.Fatalf("after a restart arm is at %d (%v), want %d", got, err, first)
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", first))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got, err := again.Get("arm", true); err != nil || got != first {
		t.Errorf("our own process uses the port: got %d (%v), want %d", got, err, first)
	}
	moved, err := again.Get("arm", false)
	if err != nil || moved == first {
		t.Errorf("a port that another process took is assigned again: %d (%v)", moved, err)
	}
}
