// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// command is a running nap command and its output so far.
type command struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	end  chan error
}

// begin starts a nap command without waiting for its end.
func (in *instance) begin(t *testing.T, args ...string) *command {
	t.Helper()
	r := &command{cmd: exec.Command(in.bin, args...), end: make(chan error, 1)}
	r.cmd.Env = append(os.Environ(), "NAP_HOME="+in.home)
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			r.mu.Lock()
			r.text.WriteString(s.Text() + "\n")
			r.mu.Unlock()
		}
		r.end <- r.cmd.Wait()
	}()
	return r
}

// printed returns the command's output so far.
func (r *command) printed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// says waits until the command has printed want.
func (r *command) says(t *testing.T, want string, within time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q", want), within, func() error {
		if s := r.printed(); !strings.Contains(s, want) {
			return fmt.Errorf("it printed %s", s)
		}
		return nil
	})
}

// ends waits for the command's end and returns its output.
func (r *command) ends(t *testing.T, within time.Duration) (string, error) {
	t.Helper()
	select {
	case err := <-r.end:
		return r.printed(), err
	case <-time.After(within):
		t.Fatalf("%v has not ended after %s:\n%s", r.cmd.Args[1:], within, r.printed())
		return "", nil
	}
}
