// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package app has the commands of nap-sim. The simulator itself is handed in, so that
// the commands do not depend on it.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/test/sim/report"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// RunOptions say how a scenario is run.
type RunOptions struct {
	Seed   uint64 `json:"seed"`
	Engine string `json:"engine"`
	// History keeps all lines of the history in the result.
	History bool `json:"history,omitempty"`
	// Log keeps the log of the programs in the result.
	Log bool `json:"log,omitempty"`
}

// Runner lives through a scenario. It returns an error only if the run had no result;
// a failed expectation is part of the result.
type Runner func(ctx context.Context, s *scenario.Scenario, o RunOptions) (*report.Result, error)

// Options of the commands.
type Options struct {
	// Simulate runs in this process. The hidden command exec calls it, once per
	// process.
	Simulate Runner
	// Run is how all other commands run a scenario; if nil, in a child process of the
	// same program.
	Run Runner
}

// Exit statuses.
const (
	ExitFailed = 1
	ExitUsage  = 2
)

// ExitError ends the program with a status. Err is nil if all has been said.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// errFailed is the end of a command whose output has said what failed.
var errFailed = &ExitError{Code: ExitFailed}

func usage(format string, args ...any) error {
	return &ExitError{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Main runs the command with arguments and returns the exit status. Errors go to
// stderr.
func Main(ctx context.Context, cmd *cobra.Command, stderr io.Writer) int {
	err := cmd.ExecuteContext(ctx)
	var exit *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.Err != nil {
			fmt.Fprintln(stderr, "nap-sim:", exit.Err)
		}
		return exit.Code
	}
	fmt.Fprintln(stderr, "nap-sim:", err)
	return ExitFailed
}

// command holds what the subcommands share.
type command struct {
	run     Runner
	child   *child
	timeout time.Duration
}

// NewCommand returns nap-sim.
func NewCommand(o Options) *cobra.Command {
	c := &command{run: o.Run}
	if c.run == nil {
		c.child = &child{}
		c.run = c.child.run
	}
	cmd := &cobra.Command{
		Use:   "nap-sim",
		Short: "Live through the life of a cluster in simulated time",
		Long: `nap-sim runs nap's controllers, or Karpenter's, in a cluster on simulated time: the
real code with the real scheduler and workload controllers, in one process. A scenario
says what happens and what must hold; a scenario and a seed give one history.

Exit status: 0 if all is as expected (known failures included), 1 if an expectation or
an invariant failed, 2 for wrong use.`,
		Example: `  nap-sim run test/sim/scenarios/scale-in.yaml --seed 7 --picture scale-in.png
  nap-sim compare test/sim/scenarios/scale-in.yaml --seeds 5
  nap-sim run faults-crash.yaml --until-failure --runs 200 --out results
  nap-sim replay results/faults-crash-nap-17.json
  nap-sim suite test/sim/scenarios`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("the command %q is unknown: nap-sim help lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().DurationVar(&c.timeout, "timeout", time.Hour, "real time after which one run is given up")
	cmd.PersistentPreRun = func(*cobra.Command, []string) {
		if c.child != nil {
			c.child.timeout = c.timeout
		}
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	cmd.AddCommand(c.runCommand(), c.compareCommand(), c.replayCommand(), listCommand(), checkCommand(), c.suiteCommand(), execCommand(o.Simulate))
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return cmd
}

// load returns the scenarios of a file, or the one called name.
func load(path, name string) ([]*scenario.Scenario, error) {
	list, err := scenario.Load(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	if name == "" {
		return list, nil
	}
	i := slices.IndexFunc(list, func(s *scenario.Scenario) bool { return s.Name == name })
	if i < 0 {
		return nil, usage("%s has no scenario %q: nap-sim list shows those of a folder", path, name)
	}
	return list[i : i+1], nil
}

// seedOf returns the seed of a run: the flag's if it was given, else the scenario's, or 1.
func seedOf(cmd *cobra.Command, flag uint64, s *scenario.Scenario) uint64 {
	switch {
	case cmd.Flags().Changed("seed"):
		return flag
	case s.Seed != 0:
		return s.Seed
	}
	return 1
}

func checkEngine(engine string) error {
	if !slices.Contains(scenario.Engines, engine) {
		return usage("the engine %q is unknown: use nap or karpenter", engine)
	}
	return nil
}
