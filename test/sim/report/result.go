// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nap-aks/nap/test/sim/scenario"
)

// Summary are the figures of a run.
type Summary struct {
	SimulatedSeconds float64 `json:"simulatedSeconds"`
	// CostUSD is the cost over time, PlanUSD that of one plan of the pods of each
	// moment, BoundUSD that of the proven bound. Ratios are 0 where the base is.
	CostUSD             float64 `json:"costUSD"`
	PlanUSD             float64 `json:"planUSD"`
	BoundUSD            float64 `json:"boundUSD"`
	CostOverBound       float64 `json:"costOverBound"`
	FinalUSDPerHour     float64 `json:"finalUSDPerHour"`
	FinalPlanUSDPerHour float64 `json:"finalPlanUSDPerHour"`
	FinalOverPlan       float64 `json:"finalOverPlan"`
	// Pods counts all pods that were created; NeverRan those that still exist and have
	// not run.
	Pods              int     `json:"pods"`
	PodsRunning       int     `json:"podsRunning"`
	PodsPending       int     `json:"podsPending"`
	NeverRan          int     `json:"neverRan"`
	RunningP50Seconds float64 `json:"timeToRunningP50Seconds"`
	RunningP99Seconds float64 `json:"timeToRunningP99Seconds"`
	RunningMaxSeconds float64 `json:"timeToRunningMaxSeconds"`
	Machines          int     `json:"machines"`
	MachinesMax       int     `json:"machinesMax"`
	MachinesBought    int     `json:"machinesBought"`
	// MachinesWasted never had a pod besides those of DaemonSets.
	MachinesWasted   int            `json:"machinesWasted"`
	Waves            []Wave         `json:"waves"`
	Evictions        int            `json:"evictions"`
	Moves            int            `json:"moves"`
	APICalls         int            `json:"apiCalls"`
	APICallsByClient map[string]int `json:"apiCallsByClient,omitempty"`
	Writes           int            `json:"writes"`
	// CPUSeconds is the processor time of the run. It and DaysPerCPUHour are measured
	// and differ between runs of one seed.
	CPUSeconds     float64 `json:"cpuSeconds"`
	DaysPerCPUHour float64 `json:"daysPerCPUHour"`
}

// SetCPU notes the processor time that the run took.
func (s *Summary) SetCPU(seconds float64) {
	s.CPUSeconds = seconds
	s.DaysPerCPUHour = ratio(s.SimulatedSeconds/86400, seconds/3600)
}

// Check is an expectation that was judged.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Got says what was found.
	Got string `json:"got"`
}

// Result is what a run shows. It holds all that is needed to run it again.
type Result struct {
	Scenario string          `json:"scenario"`
	About    string          `json:"about,omitempty"`
	Engine   string          `json:"engine"`
	Seed     uint64          `json:"seed"`
	Source   scenario.Source `json:"source"`
	// Version is that of the program.
	Version string `json:"version,omitempty"`
	// HistoryHash is the SHA-256 of the history: equal for two runs in which the same
	// things happened at the same times.
	HistoryHash string      `json:"historyHash"`
	Summary     Summary     `json:"summary"`
	Checks      []Check     `json:"expectations"`
	Violations  []Violation `json:"violations,omitempty"`
	// KnownFailure is the reason of the scenario's known failure, if it is this
	// engine's; Unexpected is true if the run did not fail as it says.
	KnownFailure string `json:"knownFailure,omitempty"`
	Unexpected   string `json:"unexpected,omitempty"`
	// Crash is set instead of figures if the run ended without a result.
	Crash   string   `json:"crash,omitempty"`
	Samples []Sample `json:"samples,omitempty"`

	// History are the lines of the history, if they were kept.
	History []string `json:"-"`
	// Log are the lines that the programs logged, if they were kept.
	Log []string `json:"-"`
}

// Outcome is how a run ended.
type Outcome string

// The outcomes. KnownFailed and Passed are good.
const (
	Passed      Outcome = "passed"
	Failed      Outcome = "failed"
	KnownFailed Outcome = "known failure"
	Crashed     Outcome = "crashed"
)

// Outcome judges the run.
func (r *Result) Outcome() Outcome {
	switch {
	case r.Crash != "":
		return Crashed
	case r.Unexpected != "":
		return Failed
	case r.KnownFailure != "":
		return KnownFailed
	case len(r.Violations) > 0 || slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK }):
		return Failed
	}
	return Passed
}

// OK reports whether the run ended as it should.
func (r *Result) OK() bool { o := r.Outcome(); return o == Passed || o == KnownFailed }

// Finish returns the result of a recorded run of a compiled scenario. The caller adds
// the processor time and the version.
func (r *Recorder) Finish(s *scenario.Scenario, plan *scenario.Plan, engine string, seed uint64) *Result {
	res := &Result{
		Scenario: s.Name, About: s.About, Engine: engine, Seed: seed, Source: s.Source,
		HistoryHash: r.HistoryHash(), Summary: r.Summarise(plan.Duration),
		Checks: r.evaluate(s, plan, engine), Violations: r.Violations(), Samples: r.Samples(), History: r.History(),
	}
	res.judgeKnown(s.KnownFailure)
	return res
}

// judgeKnown compares the failures of the run with the known one.
func (r *Result) judgeKnown(k *scenario.KnownFailure) {
	if k == nil {
		return
	}
	engine := k.Engine
	if engine == "" {
		engine = "nap"
	}
	if engine != r.Engine {
		return
	}
	r.KnownFailure = k.Reason
	found := false
	for _, c := range r.Checks {
		switch {
		case c.OK:
		case c.Name == k.Expectation:
			found = true
		default:
			r.Unexpected = fmt.Sprintf("another expectation than the known one failed: %s", c.Name)
		}
	}
	for _, v := range r.Violations {
		if v.Invariant == k.Invariant {
			found = true
		} else {
			r.Unexpected = fmt.Sprintf("another invariant than the known one was broken: %s", v.Invariant)
		}
	}
	if !found {
		r.Unexpected = "the known failure did not happen: remove knownFailure from the scenario"
	}
}

// WriteJSON writes the result as JSON with the field names of its types.
func (r *Result) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("writing the result of %s: %w", r.Scenario, err)
	}
	return nil
}

// ReadJSON reads a result that WriteJSON wrote.
func ReadJSON(reader io.Reader) (*Result, error) {
	var r Result
	if err := json.NewDecoder(reader).Decode(&r); err != nil {
		return nil, fmt.Errorf("reading a result: %w", err)
	}
	if r.Scenario == "" || r.Engine == "" {
		return nil, fmt.Errorf("reading a result: it names no scenario or no engine: give a file that nap-sim run -o json has written")
	}
	return &r, nil
}

// clock returns a time after the start as people read it.
func clock(t time.Duration) string {
	switch {
	case t >= 24*time.Hour:
		return fmt.Sprintf("%dd%02dh%02dm", t/(24*time.Hour), t/time.Hour%24, t/time.Minute%60)
	case t >= time.Hour:
		return fmt.Sprintf("%dh%02dm%02ds", t/time.Hour, t/time.Minute%60, t/time.Second%60)
	case t >= time.Minute:
		return fmt.Sprintf("%dm%02ds", t/time.Minute, t/time.Second%60)
	}
	return fmt.Sprintf("%.1fs", t.Seconds())
}
