// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/nap-aks/nap/test/sim/scenario"
)

// evaluate judges the expectations that apply to the engine.
func (r *Recorder) evaluate(s *scenario.Scenario, plan *scenario.Plan, engine string) []Check {
	summary := r.Summarise(plan.Duration)
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Check
	for i := range s.Expect {
		e := &s.Expect[i]
		if e.Engine != "" && e.Engine != engine {
			continue
		}
		c := Check{Name: e.Title(), OK: true}
		var got []string
		note := func(ok bool, text string) {
			c.OK = c.OK && ok
			if text != "" {
				got = append(got, text)
			}
		}
		if len(e.List()) > 0 {
			note(r.figures(e, plan, summary))
		}
		if e.NoChangeAfter != nil {
			note(r.quiet(plan.LastEvent + time.Duration(*e.NoChangeAfter)))
		}
		if e.Event != "" {
			note(r.reasons[e.Event] > 0, fmt.Sprintf("%d events %s", r.reasons[e.Event], e.Event))
		}
		if e.NoEvent != "" {
			note(r.reasons[e.NoEvent] == 0, fmt.Sprintf("%d events %s", r.reasons[e.NoEvent], e.NoEvent))
		}
		c.Got = strings.Join(got, ", ")
		out = append(out, c)
	}
	return out
}

// quiet reports whether nothing changed after a time.
func (r *Recorder) quiet(after time.Duration) (bool, string) {
	n := 0
	var last time.Duration
	for _, t := range r.changes {
		if t > after {
			n++
		}
		last = max(last, t)
	}
	if n == 0 {
		return true, "last change at " + clock(last)
	}
	return false, fmt.Sprintf("%d changes after %s, the last at %s", n, clock(after), clock(last))
}

// figures judges the conditions of e at its time.
func (r *Recorder) figures(e *scenario.Expectation, plan *scenario.Plan, summary Summary) (bool, string) {
	if len(r.samples) == 0 {
		return false, "no samples"
	}
	from, to := plan.Duration, plan.Duration
	if e.At != nil {
		from, to = time.Duration(*e.At), time.Duration(*e.At)
	}
	switch {
	case e.Within != nil:
		from, to = plan.LastEvent, min(plan.Duration, plan.LastEvent+time.Duration(*e.Within))
	case e.Always && e.At == nil:
		from, to = 0, plan.Duration
	case e.Always:
		to = plan.Duration
	}
	// The sample that holds at from, and those after it up to to.
	i := max(0, sort.Search(len(r.samples), func(i int) bool { return r.samples[i].T > from })-1)
	var ok bool
	var text string
	for ; i < len(r.samples) && (r.samples[i].T <= to); i++ {
		ok, text = r.judge(e, i, max(from, r.samples[i].T), summary)
		if e.Within != nil && ok || e.Always && !ok {
			return ok, text + " at " + clock(max(from, r.samples[i].T))
		}
	}
	if e.Within != nil {
		text += " still at " + clock(to)
	}
	return ok, text
}

// judge compares the figures of e at a time, at which the sample i holds.
func (r *Recorder) judge(e *scenario.Expectation, i int, at time.Duration, summary Summary) (bool, string) {
	s := r.samples[i]
	ok := true
	var parts []string
	for _, f := range e.List() {
		got, base, text := r.figure(f, i, at, summary)
		if base < 0 {
			ok = false
			parts = append(parts, f.Name+": "+text)
			continue
		}
		// Figures over all pods mean nothing while there are none.
		good := f.Condition.Holds(got, base) && (f.Condition.Unit != "all" || s.PodsTotal > 0)
		ok = ok && good
		parts = append(parts, f.Name+" "+text)
	}
	return ok, strings.Join(parts, ", ")
}

// figure returns the value of a figure, what the condition's limit is multiplied by, and
// the value as text. The base is negative if it is unknown.
func (r *Recorder) figure(f scenario.Figure, i int, at time.Duration, summary Summary) (got, base float64, text string) {
	s := r.samples[i]
	count := func(n, of int) (float64, float64, string) {
		switch f.Condition.Unit {
		case "%", "all":
			return float64(n), float64(of), fmt.Sprintf("%d of %d", n, of)
		}
		return float64(n), 1, fmt.Sprint(n)
	}
	money := func(v, plan, bound float64, unit string) (float64, float64, string) {
		var base float64
		var name string
		switch f.Condition.Unit {
		case "plan":
			base, name = plan, "plan"
		case "bound":
			base, name = bound, "bound"
		default:
			return v, 1, fmt.Sprintf("%.4f %s", v, unit)
		}
		if base <= 0 {
			if v == 0 {
				return 0, 0, "0 " + unit
			}
			return 0, -1, fmt.Sprintf("%.4f %s, and the %s is not known", v, unit, name)
		}
		return v, base, fmt.Sprintf("%.3f × %s (%.4f %s)", v/base, name, v, unit)
	}
	seconds := func(v float64) (float64, float64, string) {
		if summary.NeverRan > 0 && f.Name == "timeToRunningMax" {
			return v, -1, fmt.Sprintf("%d pods never ran", summary.NeverRan)
		}
		return v, 1, fmt.Sprintf("%.1fs", v)
	}
	switch f.Name {
	case "running":
		return count(s.PodsRunning, s.PodsTotal)
	case "pending":
		return count(s.PodsPending, s.PodsTotal)
	case "pods":
		return count(s.PodsTotal, s.PodsTotal)
	case "refused":
		return count(s.PodsRefused, s.PodsTotal)
	case "machines":
		return count(s.Machines, 0)
	case "nodes":
		return count(s.Nodes, 0)
	case "claims":
		return count(s.Claims, 0)
	case "evictions":
		return count(s.Evictions, s.PodsTotal)
	case "moves":
		return count(s.Moves, s.PodsTotal)
	case "apiCalls":
		return count(s.APICalls, 0)
	case "bought":
		n := 0
		for _, t := range r.buys {
			if t <= at {
				n++
			}
		}
		return count(n, 0)
	case "wasted":
		return count(summary.MachinesWasted, 0)
	case "waves":
		return count(len(summary.Waves), 0)
	case "cost":
		return money(s.USDPerHour, s.PlanUSDPerHour, s.BoundUSDPerHour, "$/h")
	case "costIntegral":
		upTo := r.samples[:i+1]
		return money(
			integral(upTo, at, func(s Sample) float64 { return s.USDPerHour }),
			integral(upTo, at, func(s Sample) float64 { return s.PlanUSDPerHour }),
			integral(upTo, at, func(s Sample) float64 { return s.BoundUSDPerHour }), "$")
	case "timeToRunningP50":
		return seconds(summary.RunningP50Seconds)
	case "timeToRunningP99":
		return seconds(summary.RunningP99Seconds)
	}
	return seconds(summary.RunningMaxSeconds)
}
