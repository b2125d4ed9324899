// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ErrNoInstance is wrapped by errors about a home in which nothing runs.
var ErrNoInstance = errors.New("no instance is running here")

// Lock is a supervisor's exclusive claim on its home.
type Lock struct {
	f *os.File
}

// LockInfo is what the holder of a lock wrote about itself.
type LockInfo struct {
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"startedAt"`
}

// LockedError is returned if another process holds the home.
type LockedError struct {
	Home Home
	LockInfo
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("an instance already runs in %s (pid %d, since %s): `nap status` shows it, `nap down` stops it, --home starts another beside it",
		e.Home.Dir, e.PID, e.StartedAt.Format(time.RFC3339))
}

// TakeLock claims the home for this process. The kernel releases the lock when
// the process ends, however it ends, so a file left behind does no harm. The
// error is a *LockedError if a live process holds the lock.
func TakeLock(h Home) (*Lock, error) {
	f, err := os.OpenFile(h.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			info, _ := ReadLock(h)
			return nil, &LockedError{Home: h, LockInfo: info}
		}
		return nil, fmt.Errorf("lock %s: %w", h.Path("lock"), err)
	}
	b, err := json.Marshal(LockInfo{PID: os.Getpid(), StartedAt: time.Now().UTC()})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", h.Path("lock"), err)
	}
	return &Lock{f: f}, nil
}

// Release releases the lock.
func (l *Lock) Release() {
	_ = l.f.Truncate(0)
	_ = l.f.Close()
}

// ReadLock returns the holder of a home's lock. The error wraps ErrNoInstance
// if nobody holds it, whatever an earlier holder left in the file.
func ReadLock(h Home) (LockInfo, error) {
	var info LockInfo
	f, err := os.OpenFile(h.Path("lock"), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("%s: %w; `nap up` starts one", h.Dir, ErrNoInstance)
	}
	if err != nil {
		return info, fmt.Errorf("lock: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return info, fmt.Errorf("%s: %w; `nap up` starts one", h.Dir, ErrNoInstance)
	}
	if err := json.NewDecoder(f).Decode(&info); err != nil {
		return info, fmt.Errorf("lock %s is held but unreadable: %w", h.Path("lock"), err)
	}
	return info, nil
}
