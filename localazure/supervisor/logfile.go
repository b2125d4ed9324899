// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Log rotation: a file that reaches logMaxBytes is renamed to name.1; logKeep
// such files are kept.
const (
	logMaxBytes = 20 << 20
	logKeep     = 3
)

// logFile is a log file with rotation. It drops what cannot be written, for
// example to a full disk: a component must not block because of its log.
type logFile struct {
	mu   sync.Mutex
	path string
	f    *os.File
	size int64
	// dropped counts the lost bytes; the log notes them once it can be written again.
	dropped int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	l.f, l.size = f, st.Size()
	return nil
}

// Write never fails, and blocks on nothing but the disk.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > logMaxBytes && l.size > 0 {
		l.rotate()
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			l.dropped += int64(len(b))
			return len(b), nil
		}
	}
	if l.dropped > 0 {
		note := fmt.Sprintf("[%d bytes of log were lost: the disk was full or the folder gone]\n", l.dropped)
		if n, err := l.f.WriteString(note); err == nil {
			l.dropped = 0
			l.size += int64(n)
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	if err != nil {
		l.dropped += int64(len(b) - n)
	}
	return len(b), nil
}

func (l *logFile) rotate() {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
	for i := logKeep; i > 1; i-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", l.path, i-1), fmt.Sprintf("%s.%d", l.path, i))
	}
	_ = os.Rename(l.path, l.path+".1")
	l.size = 0
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
