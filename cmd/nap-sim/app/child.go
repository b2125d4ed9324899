// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/test/sim/report"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// request is what the parent writes to the child's stdin.
type request struct {
	Source  scenario.Source `json:"source"`
	Options RunOptions      `json:"options"`
}

// answer is what the child writes to stdout. The history is beside the result, whose
// JSON does not have it.
type answer struct {
	Result  *report.Result `json:"result,omitempty"`
	Error   string         `json:"error,omitempty"`
	History []string       `json:"history,omitempty"`
	Log     []string       `json:"log,omitempty"`
}

// execCommand returns the hidden command that runs one scenario in this process.
func execCommand(simulate Runner) *cobra.Command {
	return &cobra.Command{
		Use:    "exec",
		Short:  "Run one scenario in this process: the request on stdin, the result on stdout",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var q request
			if err := json.NewDecoder(cmd.InOrStdin()).Decode(&q); err != nil {
				return usage("reading the request: %w", err)
			}
			if simulate == nil {
				return usage("this program has no simulator")
			}
			s, err := scenario.Parse(q.Source)
			if err != nil {
				return usage("%w", err)
			}
			var a answer
			a.Result, err = simulate(cmd.Context(), s, q.Options)
			if err != nil {
				a = answer{Error: err.Error()}
			} else {
				a.History, a.Log = a.Result.History, a.Result.Log
			}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(a); err != nil {
				return fmt.Errorf("writing the result: %w", err)
			}
			return nil
		},
	}
}

// child runs scenarios in child processes of this program.
type child struct {
	timeout time.Duration
	// program and env are set by tests.
	program string
	env     []string
}

// outputKept is how much of a crashed child's output is reported.
const outputKept = 16 << 10

// run runs one scenario in one child process. A child that crashes or takes too long
// gives a result with Crash set.
func (c *child) run(ctx context.Context, s *scenario.Scenario, o RunOptions) (*report.Result, error) {
	program := c.program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("finding this program to run a scenario in a process of its own: %w", err)
		}
	}
	input, err := json.Marshal(request{Source: s.Source, Options: o})
	if err != nil {
		return nil, fmt.Errorf("writing the request for %s: %w", s.Name, err)
	}
	limited := ctx
	if c.timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	var stdout bytes.Buffer
	stderr := &tail{}
	cmd := exec.CommandContext(limited, program, "exec")
	// One P from the start and no collection by itself: what a seed gives depends on it.
	cmd.Env = append(append(os.Environ(), "GOMAXPROCS=1", "GOGC=off"), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("running %s: %w", s.Name, ctx.Err())
	}
	crash := func(what string) *report.Result {
		return &report.Result{
			Scenario: s.Name, About: s.About, Engine: o.Engine, Seed: o.Seed, Source: s.Source,
			Crash: fmt.Sprintf("%s\nrun it again: %s\n%s", what, again(s, o), stderr),
		}
	}
	if errors.Is(limited.Err(), context.DeadlineExceeded) {
		return crash(fmt.Sprintf("no result after %s of real time", c.timeout)), nil
	}
	if runErr != nil {
		return crash(fmt.Sprintf("the process ended with %v", runErr)), nil
	}
	var a answer
	if err := json.Unmarshal(stdout.Bytes(), &a); err != nil {
		return crash(fmt.Sprintf("the process ended without a result: %v", err)), nil
	}
	if a.Error != "" {
		return crash(a.Error), nil
	}
	if a.Result == nil {
		return crash("the process ended without a result"), nil
	}
	a.Result.History, a.Result.Log = a.History, a.Log
	return a.Result, nil
}

// again returns the command that repeats a run.
func again(s *scenario.Scenario, o RunOptions) string {
	parts := []string{"nap-sim", "run", s.Source.Path}
	if s.Source.Path == "" {
		parts[2] = s.Name
	}
	parts = append(parts, "--name", s.Name, "--seed", fmt.Sprint(o.Seed), "--engine", o.Engine)
	return strings.Join(parts, " ")
}

// tail keeps the first and the last part of what is written: the first lines of a crash
// say why, the last what the program said before.
type tail struct {
	head, end []byte
	dropped   bool
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if room := outputKept/2 - len(t.head); room > 0 {
		k := min(room, len(p))
		t.head = append(t.head, p[:k]...)
		p = p[k:]
	}
	t.end = append(t.end, p...)
	if extra := len(t.end) - outputKept/2; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
		t.dropped = true
	}
	return n, nil
}

func (t *tail) String() string {
	between := ""
	if t.dropped {
		between = "\n…\n"
	}
	return string(t.head) + between + string(t.end)
}
