// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func mark(ok bool) string {
	if ok {
		return "✓"
	}
	return "✗"
}

// WriteText writes the result for a person: figures, expectations and invariants, and
// of what was broken the first with the history before it.
func (r *Result) WriteText(w io.Writer) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s  engine %s, seed %d: %s\n", r.Scenario, r.Engine, r.Seed, r.Outcome())
	if r.About != "" {
		fmt.Fprintf(out, "%s\n", r.About)
	}
	if r.Crash != "" {
		fmt.Fprintf(out, "\n%s\n", strings.TrimRight(r.Crash, "\n"))
		_, err := io.WriteString(w, out.String())
		return err
	}
	fmt.Fprintln(out)
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintf(tw, "  %s\t%s\n", row.name, row.format(row.value(&r.Summary)))
	}
	fmt.Fprintf(tw, "  waves\t%s\n", waveText(r.Summary.Waves))
	var clients []string
	for c := range r.Summary.APICallsByClient {
		clients = append(clients, c)
	}
	slices.Sort(clients)
	for _, c := range clients {
		fmt.Fprintf(tw, "  API calls of %s\t%d\n", c, r.Summary.APICallsByClient[c])
	}
	fmt.Fprintf(tw, "  history\t%d writes, %s\n", r.Summary.Writes, short(r.HistoryHash))
	fmt.Fprintf(tw, "  speed\t%s simulated in %.1f CPU s: %.0f days per CPU hour\n",
		clock(time.Duration(r.Summary.SimulatedSeconds*float64(time.Second))), r.Summary.CPUSeconds, r.Summary.DaysPerCPUHour)
	tw.Flush()
	if len(r.Checks) > 0 {
		fmt.Fprintln(out, "\nExpectations")
		for _, c := range r.Checks {
			fmt.Fprintf(out, "  %s %s", mark(c.OK), c.Name)
			if c.Got != "" {
				fmt.Fprintf(out, "  (%s)", c.Got)
			}
			fmt.Fprintln(out)
		}
	}
	fmt.Fprintln(out, "\nInvariants")
	if len(r.Violations) == 0 {
		fmt.Fprintln(out, "  ✓ none broken")
	}
	for i, v := range r.Violations {
		fmt.Fprintf(out, "  ✗ %s at %s: %s\n", v.Invariant, clock(v.T), v.Message)
		if i > 0 {
			continue
		}
		for _, line := range v.History {
			fmt.Fprintf(out, "      %s\n", line)
		}
	}
	if r.KnownFailure != "" {
		fmt.Fprintf(out, "\nKnown failure: %s\n", r.KnownFailure)
	}
	if r.Unexpected != "" {
		fmt.Fprintf(out, "✗ %s\n", r.Unexpected)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func short(hash string) string { return hash[:min(12, len(hash))] }

func waveText(waves []Wave) string {
	var parts []string
	for i, w := range waves {
		if i == 8 {
			parts = append(parts, fmt.Sprintf("and %d more", len(waves)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%d at %s", w.Machines, clock(w.T)))
	}
	if len(parts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s", len(waves), strings.Join(parts, ", "))
}

// row is a figure in the tables.
type row struct {
	name   string
	value  func(*Summary) float64
	format func(float64) string
}

func decimals(n int, unit string) func(float64) string {
	return func(v float64) string { return strings.TrimSpace(fmt.Sprintf("%.*f %s", n, v, unit)) }
}

func times(v float64) string { return fmt.Sprintf("%.3f ×", v) }

var rows = []row{
	{"cost over time", func(s *Summary) float64 { return s.CostUSD }, decimals(4, "$")},
	{"÷ bound's", func(s *Summary) float64 { return s.CostOverBound }, times},
	{"cost at the end", func(s *Summary) float64 { return s.FinalUSDPerHour }, decimals(4, "$/h")},
	{"÷ one plan's", func(s *Summary) float64 { return s.FinalOverPlan }, times},
	{"pods created", func(s *Summary) float64 { return float64(s.Pods) }, decimals(0, "")},
	{"pods running at the end", func(s *Summary) float64 { return float64(s.PodsRunning) }, decimals(0, "")},
	{"pods pending at the end", func(s *Summary) float64 { return float64(s.PodsPending) }, decimals(0, "")},
	{"time to Running, p50", func(s *Summary) float64 { return s.RunningP50Seconds }, decimals(1, "s")},
	{"time to Running, p99", func(s *Summary) float64 { return s.RunningP99Seconds }, decimals(1, "s")},
	{"time to Running, max", func(s *Summary) float64 { return s.RunningMaxSeconds }, decimals(1, "s")},
	{"machines at the end", func(s *Summary) float64 { return float64(s.Machines) }, decimals(0, "")},
	{"machines at most", func(s *Summary) float64 { return float64(s.MachinesMax) }, decimals(0, "")},
	{"machines bought", func(s *Summary) float64 { return float64(s.MachinesBought) }, decimals(0, "")},
	{"machines wasted", func(s *Summary) float64 { return float64(s.MachinesWasted) }, decimals(0, "")},
	{"evictions", func(s *Summary) float64 { return float64(s.Evictions) }, decimals(0, "")},
	{"moves", func(s *Summary) float64 { return float64(s.Moves) }, decimals(0, "")},
	{"API calls", func(s *Summary) float64 { return float64(s.APICalls) }, decimals(0, "")},
}

// WriteCompare writes a table of the figures of two engines: one row per figure with
// the ratio of the first engine to the second. Of several runs it has the median and,
// in brackets, the least and the most. The runs of the two may have different lengths;
// crashed ones are counted and left out.
func WriteCompare(w io.Writer, first, second []*Result) error {
	if len(first) == 0 || len(second) == 0 {
		return fmt.Errorf("comparing engines: a run of each is needed")
	}
	var a, b = summaries(first), summaries(second)
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s, %d seeds\n\n", first[0].Scenario, len(first))
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(tw, "FIGURE\t%s\t%s\tRATIO\n", first[0].Engine, second[0].Engine)
	compared := append(slices.Clone(rows),
		row{"waves", func(s *Summary) float64 { return float64(len(s.Waves)) }, decimals(0, "")},
		row{"CPU", func(s *Summary) float64 { return s.CPUSeconds }, decimals(1, "s")})
	for _, row := range compared {
		x, xt := spread(a, row)
		y, yt := spread(b, row)
		rt := "–"
		if y != 0 {
			rt = fmt.Sprintf("%.3f", x/y)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", row.name, xt, yt, rt)
	}
	fmt.Fprintf(tw, "outcomes\t%s\t%s\t\n", outcomes(first), outcomes(second))
	tw.Flush()
	_, err := io.WriteString(w, out.String())
	return err
}

func summaries(results []*Result) []*Summary {
	var out []*Summary
	for _, r := range results {
		if r.Crash == "" {
			out = append(out, &r.Summary)
		}
	}
	return out
}

// spread returns the median of a figure, and it as text with least and most.
func spread(list []*Summary, r row) (float64, string) {
	if len(list) == 0 {
		return 0, "–"
	}
	var values []float64
	for _, s := range list {
		values = append(values, r.value(s))
	}
	slices.Sort(values)
	n := len(values)
	median := (values[(n-1)/2] + values[n/2]) / 2
	if n == 1 {
		return median, r.format(median)
	}
	return median, fmt.Sprintf("%s (%s–%s)", r.format(median), number(r.format(values[0])), number(r.format(values[n-1])))
}

// outcomes counts how runs ended.
func outcomes(results []*Result) string {
	n := map[Outcome]int{}
	for _, r := range results {
		n[r.Outcome()]++
	}
	var parts []string
	for _, o := range []Outcome{Passed, KnownFailed, Failed, Crashed} {
		if n[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[o], o))
		}
	}
	return strings.Join(parts, ", ")
}

// WriteSuite writes a line for each result.
func WriteSuite(w io.Writer, results []*Result) error {
	out := &strings.Builder{}
	tw := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "\tSCENARIO\tENGINE\tSEED\tOUTCOME\tSIMULATED\tCPU\tWHAT")
	for _, r := range results {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\t%.1fs\t%s\n", mark(r.OK()), r.Scenario, r.Engine, r.Seed, r.Outcome(),
			clock(time.Duration(r.Summary.SimulatedSeconds*float64(time.Second))), r.Summary.CPUSeconds, r.What())
	}
	tw.Flush()
	good := 0
	for _, r := range results {
		if r.OK() {
			good++
		}
	}
	fmt.Fprintf(out, "\n%d of %d as expected: %s\n", good, len(results), outcomes(results))
	_, err := io.WriteString(w, out.String())
	return err
}

// What says in one line why the run did not pass, or is empty.
func (r *Result) What() string {
	switch {
	case r.Crash != "":
		line, _, _ := strings.Cut(strings.TrimSpace(r.Crash), "\n")
		return line
	case r.Unexpected != "":
		return r.Unexpected
	case r.KnownFailure != "":
		return r.KnownFailure
	case len(r.Violations) > 0:
		return fmt.Sprintf("%s at %s: %s", r.Violations[0].Invariant, clock(r.Violations[0].T), r.Violations[0].Message)
	}
	for _, c := range r.Checks {
		if !c.OK {
			return fmt.Sprintf("%s (%s)", c.Name, c.Got)
		}
	}
	return ""
}

// number returns a formatted figure without its unit.
func number(text string) string {
	n, _, _ := strings.Cut(text, " ")
	return n
}
