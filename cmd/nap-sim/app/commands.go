// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/test/sim/report"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// runFlags are the flags of run.
type runFlags struct {
	seed         uint64
	engine, name string
	out, output  string
	picture      string
	history      string
	log          string
	untilFailure bool
	runs         int
}

func (c *command) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a scenario and judge it",
		Long: `run lives through the scenarios of a file and judges them. With --until-failure it goes
on with the next seeds until one fails, and keeps its result for replay.`,
		Example: `  nap-sim run burst.yaml --name burst-40-over-0s-boot-60s --seed 3
  nap-sim run shop.yaml --engine karpenter -o json
  nap-sim run faults-crash.yaml --until-failure --runs 500 --out results`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error { return c.runScenarios(cmd, args[0], f) },
	}
	fl := cmd.Flags()
	fl.Uint64Var(&f.seed, "seed", 1, "seed of the run (default: the scenario's, or 1)")
	fl.StringVar(&f.engine, "engine", "nap", "which controllers provision and disrupt: nap or karpenter")
	fl.StringVar(&f.name, "name", "", "one scenario of a file whose matrix makes several")
	fl.StringVar(&f.out, "out", "", "folder for the results (JSON) and their pictures")
	fl.StringVarP(&f.output, "output", "o", "text", "what to print: text or json")
	fl.StringVar(&f.picture, "picture", "", "file for a picture, .svg or .png")
	fl.StringVar(&f.history, "history", "", "file for all lines of the history")
	fl.StringVar(&f.log, "log", "", "file for the log of nap's programs, with simulated times")
	fl.BoolVar(&f.untilFailure, "until-failure", false, "go on with the next seed until a run fails")
	fl.IntVar(&f.runs, "runs", 0, "with --until-failure, stop after so many runs (0: never)")
	return cmd
}

func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("%s needs one file: nap-sim %s", cmd.Name(), cmd.Use)
	}
	return nil
}

func (f *runFlags) check(cmd *cobra.Command, n int) error {
	if err := checkEngine(f.engine); err != nil {
		return err
	}
	switch {
	case f.output != "text" && f.output != "json":
		return usage("the output %q is unknown: use text or json", f.output)
	case f.runs != 0 && !f.untilFailure:
		return usage("--runs needs --until-failure")
	case f.runs < 0:
		return usage("--runs is negative: write how many runs there may be")
	case (f.picture != "" || f.history != "" || f.log != "") && n > 1:
		return usage("--picture, --history and --log are for one scenario, and the file has %d: choose one with --name, or use --out", n)
	}
	return checkPicture(f.picture)
}

func checkPicture(path string) error {
	if ext := strings.ToLower(filepath.Ext(path)); path != "" && ext != ".png" && ext != ".svg" {
		return usage("the picture %s: write a name that ends in .png or .svg", path)
	}
	return nil
}

func (c *command) runScenarios(cmd *cobra.Command, path string, f runFlags) error {
	list, err := load(path, f.name)
	if err != nil {
		return err
	}
	if err := f.check(cmd, len(list)); err != nil {
		return err
	}
	failed := false
	for i, s := range list {
		seed := seedOf(cmd, f.seed, s)
		for n := 1; ; n++ {
			r, err := c.run(cmd.Context(), s, RunOptions{Seed: seed, Engine: f.engine, History: f.history != "", Log: f.log != ""})
			if err != nil {
				return err
			}
			last := !f.untilFailure || !r.OK() || n == f.runs
			if !last {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s seed %d: %s\n", s.Name, seed, r.Outcome())
				seed++
				continue
			}
			if i > 0 && f.output == "text" {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			if err := f.write(cmd, r); err != nil {
				return err
			}
			failed = failed || !r.OK()
			break
		}
	}
	if failed {
		return errFailed
	}
	return nil
}

// write prints a result and writes its files.
func (f *runFlags) write(cmd *cobra.Command, r *report.Result) error {
	if err := save(f.out, r); err != nil {
		return err
	}
	if f.picture != "" && r.Crash == "" {
		if err := report.WritePicture(f.picture, r); err != nil {
			return err
		}
	}
	if f.history != "" {
		if err := os.WriteFile(f.history, []byte(strings.Join(r.History, "\n")+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing the history: %w", err)
		}
	}
	if f.log != "" {
		if err := os.WriteFile(f.log, []byte(strings.Join(r.Log, "\n")+"\n"), 0o644); err != nil {
			return fmt.Errorf("writing the log: %w", err)
		}
	}
	if f.output == "json" {
		return r.WriteJSON(cmd.OutOrStdout())
	}
	return r.WriteText(cmd.OutOrStdout())
}

// save writes a result and its picture into a folder, if one is given.
func save(dir string, r *report.Result) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("creating the folder for results: %w", err)
	}
	base := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", r.Scenario, r.Engine, r.Seed))
	file, err := os.Create(base + ".json")
	if err != nil {
		return fmt.Errorf("creating the result: %w", err)
	}
	defer file.Close()
	if err := r.WriteJSON(file); err != nil {
		return err
	}
	if r.Crash != "" || len(r.Samples) == 0 {
		return nil
	}
	return report.WritePicture(base+".svg", r)
}

func (c *command) compareCommand() *cobra.Command {
	var seeds int
	var seed uint64
	var name, out, picture string
	cmd := &cobra.Command{
		Use:   "compare FILE",
		Short: "Run a scenario with both engines and show one table",
		Example: `  nap-sim compare scale-in.yaml --seeds 5
  nap-sim compare shop.yaml --picture shop.png`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := load(args[0], name)
			if err != nil {
				return err
			}
			switch {
			case seeds < 1:
				return usage("--seeds is %d: write how many seeds are run", seeds)
			case picture != "" && len(list) > 1:
				return usage("--picture is for one scenario, and the file has %d: choose one with --name, or use --out", len(list))
			}
			if err := checkPicture(picture); err != nil {
				return err
			}
			failed := false
			for i, s := range list {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				ok, err := c.compare(cmd, s, seedOf(cmd, seed, s), seeds, out, picture)
				if err != nil {
					return err
				}
				failed = failed || !ok
			}
			if failed {
				return errFailed
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&seeds, "seeds", 1, "how many seeds are run")
	fl.Uint64Var(&seed, "seed", 1, "the first seed (default: the scenario's, or 1)")
	fl.StringVar(&name, "name", "", "one scenario of a file whose matrix makes several")
	fl.StringVar(&out, "out", "", "folder for the results (JSON) and their pictures")
	fl.StringVar(&picture, "picture", "", "file for a picture of the first seed with both engines, .svg or .png")
	return cmd
}

// compare runs a scenario with both engines and prints the table. It reports whether
// all runs were as expected.
func (c *command) compare(cmd *cobra.Command, s *scenario.Scenario, seed uint64, seeds int, out, picture string) (bool, error) {
	results := map[string][]*report.Result{}
	ok := true
	for i := range seeds {
		for _, engine := range scenario.Engines {
			r, err := c.run(cmd.Context(), s, RunOptions{Seed: seed + uint64(i), Engine: engine})
			if err != nil {
				return false, err
			}
			if err := save(out, r); err != nil {
				return false, err
			}
			if !r.OK() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s engine %s seed %d: %s: %s\n", s.Name, engine, r.Seed, r.Outcome(), r.What())
			}
			ok = ok && r.OK()
			results[engine] = append(results[engine], r)
		}
	}
	first, second := results[scenario.Engines[0]], results[scenario.Engines[1]]
	if picture != "" {
		if first[0].Crash != "" || second[0].Crash != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "no picture: a run of the first seed crashed")
		} else if err := report.WritePicture(picture, first[0], second[0]); err != nil {
			return false, err
		}
	}
	return ok, report.WriteCompare(cmd.OutOrStdout(), first, second)
}

func (c *command) replayCommand() *cobra.Command {
	var history string
	cmd := &cobra.Command{
		Use:   "replay RESULT.json",
		Short: "Run the scenario, seed and engine of a result again and compare the histories",
		Long: `replay runs what a result recorded: its scenario as it was then, its seed and its engine.
The history must be the same, unless the program is another build.`,
		Example: `  nap-sim replay results/scale-in-nap-7.json
  nap-sim replay results/scale-in-nap-7.json --history again.txt`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return usage("%w", err)
			}
			defer f.Close()
			old, err := report.ReadJSON(f)
			if err != nil {
				return usage("%s: %w", args[0], err)
			}
			s, err := scenario.Parse(old.Source)
			if err != nil {
				return usage("%s: the recorded scenario: %w", args[0], err)
			}
			now, err := c.run(cmd.Context(), s, RunOptions{Seed: old.Seed, Engine: old.Engine, History: history != ""})
			if err != nil {
				return err
			}
			if history != "" {
				if err := os.WriteFile(history, []byte(strings.Join(now.History, "\n")+"\n"), 0o644); err != nil {
					return fmt.Errorf("writing the history: %w", err)
				}
			}
			if err := now.WriteText(cmd.OutOrStdout()); err != nil {
				return err
			}
			return sameHistory(cmd.OutOrStdout(), old, now)
		},
	}
	cmd.Flags().StringVar(&history, "history", "", "file for all lines of the new history")
	return cmd
}

// sameHistory says whether two runs had the same history and fails if not.
func sameHistory(w io.Writer, old, now *report.Result) error {
	switch {
	case old.Crash != "" || now.Crash != "":
		fmt.Fprintf(w, "\nThe recorded run %s, this one %s.\n", old.Outcome(), now.Outcome())
		if (old.Crash != "") == (now.Crash != "") {
			return nil
		}
		return errFailed
	case old.HistoryHash == now.HistoryHash:
		fmt.Fprintf(w, "\n✓ the same history: %d writes, %s\n", now.Summary.Writes, now.HistoryHash)
		return nil
	}
	fmt.Fprintf(w, "\n✗ another history: %d writes, %s; recorded were %d writes, %s\n",
		now.Summary.Writes, now.HistoryHash, old.Summary.Writes, old.HistoryHash)
	if old.Version != now.Version {
		fmt.Fprintf(w, "  The result is from another build: %q, and this is %q.\n", old.Version, now.Version)
	}
	return errFailed
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list DIR",
		Short:   "List the scenarios of a folder",
		Example: "  nap-sim list test/sim/scenarios",
		Args:    oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := scenario.LoadDir(args[0])
			if err != nil {
				return usage("%w", err)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(tw, "SCENARIO\tFILE\tDURATION\tABOUT")
			for _, s := range list {
				plan, err := s.Compile(max(s.Seed, 1))
				if err != nil {
					return usage("%s: %w", s.Source.Path, err)
				}
				about := s.About
				if s.KnownFailure != nil {
					about += " (known failure)"
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", s.Name, filepath.Base(s.Source.Path), scenario.Duration(plan.Duration), about)
			}
			return tw.Flush()
		},
	}
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE…",
		Short:   "Check scenario files without running them",
		Example: "  nap-sim check test/sim/scenarios/*.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("check needs files: nap-sim check FILE…")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			bad := false
			for _, path := range args {
				list, err := scenario.Load(path)
				for _, s := range list {
					if err == nil {
						_, err = s.Compile(max(s.Seed, 1))
					}
				}
				if err != nil {
					bad = true
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d scenarios\n", path, len(list))
			}
			if bad {
				return &ExitError{Code: ExitUsage}
			}
			return nil
		},
	}
}

func (c *command) suiteCommand() *cobra.Command {
	var engine, out, match string
	var seed uint64
	var seeds int
	cmd := &cobra.Command{
		Use:   "suite DIR",
		Short: "Run all scenarios of a folder and show a table",
		Long: `suite runs all scenarios of a folder. A scenario with a known failure must fail as it
says: if it does not, that is a failure of the suite.`,
		Example: `  nap-sim suite test/sim/scenarios --seeds 3 --out results
  nap-sim suite test/sim/scenarios --match faults-`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkEngine(engine); err != nil {
				return err
			}
			if seeds < 1 {
				return usage("--seeds is %d: write how many seeds are run", seeds)
			}
			list, err := scenario.LoadDir(args[0])
			if err != nil {
				return usage("%w", err)
			}
			var results []*report.Result
			ok := true
			for _, s := range list {
				if !strings.Contains(s.Name, match) {
					continue
				}
				for i := range seeds {
					r, err := c.run(cmd.Context(), s, RunOptions{Seed: seedOf(cmd, seed, s) + uint64(i), Engine: engine})
					if err != nil {
						return err
					}
					if err := save(out, r); err != nil {
						return err
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "%s seed %d: %s\n", r.Scenario, r.Seed, r.Outcome())
					ok = ok && r.OK()
					results = append(results, r)
				}
			}
			if len(results) == 0 {
				return usage("no scenario in %s has %q in its name", args[0], match)
			}
			if err := report.WriteSuite(cmd.OutOrStdout(), results); err != nil {
				return err
			}
			if !ok {
				return errFailed
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&engine, "engine", "nap", "which controllers provision and disrupt: nap or karpenter")
	fl.StringVar(&out, "out", "", "folder for the results (JSON) and their pictures")
	fl.StringVar(&match, "match", "", "run only scenarios with this in their name")
	fl.Uint64Var(&seed, "seed", 1, "the first seed (default: the scenario's, or 1)")
	fl.IntVar(&seeds, "seeds", 1, "how many seeds are run of each scenario")
	return cmd
}
