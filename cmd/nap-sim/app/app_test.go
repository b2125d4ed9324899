// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/test/sim/report"
	"github.com/nap-aks/nap/test/sim/scenario"
)

// modes of the test binary when a test runs it as the child.
const modeVariable = "NAP_SIM_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(modeVariable) {
	case "":
		os.Exit(m.Run())
	case "crash":
		panic("fatal: all goroutines are asleep")
	case "hang":
		time.Sleep(time.Minute)
	}
	cmd := NewCommand(Options{Simulate: fake(0)})
	os.Exit(Main(context.Background(), cmd, os.Stderr))
}

// fake returns a runner whose runs pass, except for the seed bad. Its histories depend
// on the seed and the engine.
func fake(bad uint64) Runner {
	return func(_ context.Context, s *scenario.Scenario, o RunOptions) (*report.Result, error) {
		plan, err := s.Compile(o.Seed)
		if err != nil {
			return nil, err
		}
		r := report.NewRecorder(report.Options{KeepHistory: o.History})
		r.Wrote(report.Write{Client: o.Engine, Verb: "create", Object: fmt.Sprintf("nodeclaim %d", o.Seed)})
		running := 10
		if o.Seed == bad {
			running = 9
		}
		r.Sample(report.Sample{USDPerHour: 1, PlanUSDPerHour: 1, PodsTotal: 10, PodsRunning: running, PodsPending: 10 - running})
		return r.Finish(s, plan, o.Engine, o.Seed), nil
	}
}

const simple = `name: simple
duration: 1m
events:
- at: 1s
  generate: {name: app, count: 1, replicas: 10}
expect:
- running: all
`

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "simple.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sim runs the command and returns exit status, stdout and stderr.
func sim(o Options, args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	cmd := NewCommand(o)
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	return Main(context.Background(), cmd, &errs), out.String(), errs.String()
}

func TestExitStatuses(t *testing.T) {
	good := write(t, simple)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"passes", []string{"run", good}, 0, "simple  engine nap, seed 1: passed"},
		{"expectation fails", []string{"run", good, "--seed", "13"}, 1, "✗ running all  (running 9 of 10)"},
		{"unknown command", []string{"walk"}, 2, `the command "walk" is unknown`},
		{"unknown flag", []string{"run", good, "--sed", "1"}, 2, "unknown flag: --sed"},
		{"no file", []string{"run"}, 2, "run needs one file"},
		{"missing file", []string{"run", good + "x"}, 2, "no such file"},
		{"unknown engine", []string{"run", good, "--engine", "ours"}, 2, `the engine "ours" is unknown: use nap or karpenter`},
		{"runs alone", []string{"run", good, "--runs", "3"}, 2, "--runs needs --until-failure"},
		{"picture format", []string{"run", good, "--picture", "a.gif"}, 2, "write a name that ends in .png or .svg"},
		{"unknown name", []string{"run", good, "--name", "other"}, 2, `has no scenario "other"`},
		{"check good", []string{"check", good}, 0, "1 scenarios"},
		{"check bad", []string{"check", write(t, strings.Replace(simple, "count", "cuont", 1))}, 2, `line 5: events.generate has no field "cuont": write "count"`},
		{"list", []string{"list", filepath.Dir(good)}, 0, "simple     simple.yaml   1m"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := sim(Options{Run: fake(13)}, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("exit status %d, want %d, and in the output %q:\n%s%s", code, c.code, c.want, out, errs)
			}
		})
	}
}

func TestUntilFailureStopsAtTheFailureAndKeepsIt(t *testing.T) {
	dir := t.TempDir()
	code, _, errs := sim(Options{Run: fake(5)}, "run", write(t, simple), "--until-failure", "--seed", "3", "--out", dir)
	if code != 1 || !strings.Contains(errs, "simple seed 4: passed") || strings.Contains(errs, "seed 6") {
		t.Fatalf("exit status %d:\n%s", code, errs)
	}
	saved := filepath.Join(dir, "simple-nap-5.json")
	if _, err := os.Stat(saved); err != nil {
		t.Fatal(err)
	}
	code, out, errs := sim(Options{Run: fake(5)}, "replay", saved)
	if code != 0 || !strings.Contains(out, "✓ the same history: 1 writes") {
		t.Errorf("replay: exit status %d:\n%s%s", code, out, errs)
	}
	other := func(ctx context.Context, s *scenario.Scenario, o RunOptions) (*report.Result, error) {
		o.Seed++
		return fake(5)(ctx, s, o)
	}
	code, out, _ = sim(Options{Run: other}, "replay", saved)
	if code != 1 || !strings.Contains(out, "✗ another history") {
		t.Errorf("replay with another history: exit status %d:\n%s", code, out)
	}
	code, _, _ = sim(Options{Run: fake(0)}, "run", write(t, simple), "--until-failure", "--runs", "4")
	if code != 0 {
		t.Errorf("four runs without a failure: exit status %d", code)
	}
}

const known = simple + `knownFailure: {reason: it is being mended, expectation: running all}
`

func TestKnownFailures(t *testing.T) {
	path := write(t, known)
	code, out, _ := sim(Options{Run: fake(1)}, "suite", filepath.Dir(path))
	if code != 0 || !strings.Contains(out, "known failure") || !strings.Contains(out, "it is being mended") || !strings.Contains(out, "1 of 1 as expected") {
		t.Errorf("a known failure: exit status %d:\n%s", code, out)
	}
	code, out, _ = sim(Options{Run: fake(0)}, "suite", filepath.Dir(path))
	if code != 1 || !strings.Contains(out, "remove knownFailure from the scenario") {
		t.Errorf("a known failure that does not happen: exit status %d:\n%s", code, out)
	}
	code, out, _ = sim(Options{Run: fake(1)}, "run", path, "--engine", "karpenter")
	if code != 1 || strings.Contains(out, "being mended") {
		t.Errorf("the failure is known of the other engine only: exit status %d:\n%s", code, out)
	}
}

func TestCompare(t *testing.T) {
	picture := filepath.Join(t.TempDir(), "both.svg")
	code, out, errs := sim(Options{Run: fake(0)}, "compare", write(t, simple), "--seeds", "3", "--picture", picture)
	if code != 0 || !strings.Contains(out, "simple, 3 seeds") || !strings.Contains(out, "3 passed") {
		t.Errorf("exit status %d:\n%s%s", code, out, errs)
	}
	b, err := os.ReadFile(picture)
	if err != nil || !bytes.Contains(b, []byte("karpenter")) {
		t.Errorf("the picture does not name karpenter: %v", err)
	}
}

func TestJSONOutputAndHistory(t *testing.T) {
	history := filepath.Join(t.TempDir(), "history.txt")
	code, out, errs := sim(Options{Run: fake(0)}, "run", write(t, simple), "-o", "json", "--history", history)
	var r report.Result
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil || r.Scenario != "simple" || len(r.Checks) != 1 {
		t.Errorf("exit status %d, %v:\n%s%s", code, err, out, errs)
	}
	if b, err := os.ReadFile(history); err != nil || string(b) != "    0.000000 nap create nodeclaim 1 \n" {
		t.Errorf("history %q, %v", b, err)
	}
}

func TestChildProcess(t *testing.T) {
	list, err := scenario.Load(write(t, simple))
	if err != nil {
		t.Fatal(err)
	}
	o := RunOptions{Seed: 7, Engine: "karpenter", History: true}
	c := &child{timeout: time.Minute, env: []string{modeVariable + "=run"}}
	got, err := c.run(t.Context(), list[0], o)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fake(0)(t.Context(), list[0], o)
	if err != nil {
		t.Fatal(err)
	}
	if got.HistoryHash != want.HistoryHash || got.Outcome() != report.Passed || len(got.History) != 1 {
		t.Errorf("the child's result differs: %+v", got)
	}
	c.env = []string{modeVariable + "=crash"}
	if got, err = c.run(t.Context(), list[0], o); err != nil {
		t.Fatal(err)
	}
	again := "nap-sim run " + list[0].Source.Path + " --name simple --seed 7 --engine karpenter"
	if got.Outcome() != report.Crashed || !strings.Contains(got.Crash, again) || !strings.Contains(got.Crash, "all goroutines are asleep") {
		t.Errorf("a crash is reported as %s: %s", got.Outcome(), got.Crash)
	}
	c.env, c.timeout = []string{modeVariable + "=hang"}, 200*time.Millisecond
	if got, err = c.run(t.Context(), list[0], o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got.Crash, "no result after 200ms of real time") {
		t.Errorf("a timeout is reported as %s", got.Crash)
	}
}
