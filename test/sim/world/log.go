// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// logLimit is how many lines a log keeps: the latest.
const logLimit = 200000

// logBook keeps the log of the programs in memory: writing to a file would be a system
// call, after which goroutines may go on in another order.
type logBook struct {
	mu    sync.Mutex
	lines []string
	// errors counts error lines by message.
	errors map[string]int
}

// add appends a line.
func (b *logBook) add(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) >= logLimit {
		b.lines = append(b.lines[:0], b.lines[len(b.lines)/2:]...)
	}
	b.lines = append(b.lines, line)
}

// all returns the lines that are kept.
func (b *logBook) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// logger returns a logger of a program that writes to the book.
func (b *logBook) logger(program string) logr.Logger {
	return logr.New(&logSink{book: b, name: program})
}

// logSink implements logr.LogSink.
type logSink struct {
	book   *logBook
	name   string
	values []any
}

// Init implements logr.LogSink.
func (*logSink) Init(logr.RuntimeInfo) {}

// Enabled reports true for level 0 only.
func (*logSink) Enabled(level int) bool { return level == 0 }

// Info implements logr.LogSink.
func (s *logSink) Info(_ int, msg string, kv ...any) { s.write("", msg, kv) }

// Error implements logr.LogSink.
func (s *logSink) Error(err error, msg string, kv ...any) {
	s.book.mu.Lock()
	if s.book.errors == nil {
		s.book.errors = map[string]int{}
	}
	s.book.errors[msg]++
	s.book.mu.Unlock()
	s.write("ERROR ", msg, append([]any{"error", err}, kv...))
}

func (s *logSink) write(level, msg string, kv []any) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s%s", time.Now().UTC().Format("15:04:05.000"), s.name, level, msg)
	all := append(s.values[:len(s.values):len(s.values)], kv...)
	for i := 0; i+1 < len(all); i += 2 {
		fmt.Fprintf(&b, " %v=%v", all[i], text(all[i+1]))
	}
	s.book.add(b.String())
}

// text formats a value. Pointers print what they point to, because addresses say
// nothing in another run.
func text(v any) any {
	switch v := v.(type) {
	case string, error, fmt.Stringer, bool, int, int64, float64, nil:
		return v
	}
	return fmt.Sprintf("%+v", v)
}

// WithValues implements logr.LogSink.
func (s *logSink) WithValues(kv ...any) logr.LogSink {
	return &logSink{book: s.book, name: s.name, values: append(s.values[:len(s.values):len(s.values)], kv...)}
}

// WithName implements logr.LogSink.
func (s *logSink) WithName(name string) logr.LogSink {
	return &logSink{book: s.book, name: s.name + "." + name, values: s.values}
}
