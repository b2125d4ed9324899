// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// Validate reports what is wrong with the scenario. Scenarios that Load, Parse and the
// functions of this package return are valid.
func (s *Scenario) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameForm.MatchString(s.Name) {
		add("name is %q: write lower-case letters, digits, dots and dashes", s.Name)
	}
	errs = append(errs, s.Settings.validate()...)
	for i := range s.Events {
		if err := s.Events[i].validate(s); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.overlaps()...)
	for i := range s.Expect {
		if err := s.Expect[i].validate(time.Duration(s.Duration)); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.uniqueExpectations()...)
	for _, name := range s.Invariants.Off {
		if !slices.Contains(InvariantNames, name) {
			add("invariants.off: the invariant %q is unknown: %s", name, suggest(name, InvariantNames))
		}
	}
	if k := s.KnownFailure; k != nil {
		switch {
		case k.Reason == "":
			add("knownFailure has no reason: say why the scenario fails and what will mend it")
		case (k.Expectation == "") == (k.Invariant == ""):
			add("knownFailure must name either the expectation or the invariant that fails")
		case k.Invariant != "" && !slices.Contains(InvariantNames, k.Invariant):
			add("knownFailure.invariant: the invariant %q is unknown: %s", k.Invariant, suggest(k.Invariant, InvariantNames))
		case k.Expectation != "" && !slices.ContainsFunc(s.Expect, func(e Expectation) bool { return e.Title() == k.Expectation }):
			add("knownFailure.expectation: there is no expectation named %q", k.Expectation)
		case k.Engine != "" && !slices.Contains(Engines, k.Engine):
			add("knownFailure.engine: the engine %q is unknown: %s", k.Engine, suggest(k.Engine, Engines))
		}
	}
	return errors.Join(errs...)
}

func (s Settings) validate() []error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("settings."+format, args...)) }
	if _, ok := presets[s.Machine]; !ok && s.Machine != "" {
		add("machine: the preset %q is unknown: write laptop or aks", s.Machine)
	}
	if s.Nominations != "" && s.Nominations != "on" && s.Nominations != "off" {
		add("nominations is %q: write on or off", s.Nominations)
	}
	if s.SchedulerMarks < 0 || s.ControllerQPS < 0 {
		add("schedulerMarks and controllerQPS must not be negative")
	}
	if s.SystemNodes.Count < 0 {
		add("systemNodes.count is negative: write how many nodes there are")
	}
	for _, family := range slices.Sorted(mapKeys(s.Quotas)) {
		if s.Quotas[family] < 0 {
			add("quotas.%s is negative: write vCPUs", family)
		}
	}
	return errs
}

// actions returns the names of the actions that the event has.
func (e *Event) actions() []string {
	var out []string
	for _, a := range []struct {
		name string
		is   bool
	}{
		{"apply", e.Apply != nil}, {"delete", e.Delete != nil}, {"scale", e.Scale != nil}, {"restart", e.Restart != nil},
		{"generate", e.Generate != nil}, {"trace", e.Trace != nil}, {"fault", e.Fault != nil}, {"cordon", e.Cordon != nil},
		{"uncordon", e.Uncordon != nil}, {"drain", e.Drain != nil}, {"deleteNode", e.DeleteNode != nil},
		{"setNodePool", e.SetNodePool != nil}, {"price", e.Price != nil},
	} {
		if a.is {
			out = append(out, a.name)
		}
	}
	return out
}

const actionNames = "apply, delete, scale, restart, generate, trace, fault, cordon, uncordon, drain, deleteNode, setNodePool or price"

func (e *Event) validate(s *Scenario) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("line %d: "+format, append([]any{e.Line}, args...)...)
	}
	have := e.actions()
	switch {
	case len(have) == 0:
		return fail("the event has no action: write one of %s", actionNames)
	case len(have) > 1:
		return fail("the event has %d actions, %s: write an event for each", len(have), strings.Join(have, " and "))
	case e.Until != 0 && e.Every == 0:
		return fail("until needs every")
	case e.Until != 0 && e.Until < e.At:
		return fail("until is before at: write a time from %s on", e.At)
	case e.Every != 0 && e.Until == 0 && s.Duration == 0:
		return fail("every without until needs the scenario's duration")
	case e.Every != 0 && (e.Generate != nil || e.Trace != nil):
		return fail("%s cannot be repeated, since its names would be: write several events", have[0])
	case s.Duration != 0 && e.At > s.Duration:
		return fail("at %s is after the end at %s", e.At, s.Duration)
	}
	switch {
	case e.Delete != nil && (e.Delete.Kind == "" || e.Delete.Name == ""):
		return fail("delete needs kind and name")
	case e.Scale != nil:
		if e.Scale.Of != "" && e.Scale.Of != "current" && e.Scale.Of != "original" {
			return fail("scale.of is %q: write current or original", e.Scale.Of)
		}
		return e.Scale.Selection.validate(e.Line, "scale")
	case e.Restart != nil:
		return e.Restart.validate(e.Line, "restart")
	case e.Generate != nil:
		return e.Generate.validate()
	case e.Trace != nil:
		return e.Trace.validate()
	case e.Fault != nil:
		return e.Fault.validate()
	case e.SetNodePool != nil && (e.SetNodePool.Name == "" || len(e.SetNodePool.Spec) == 0):
		return fail("setNodePool needs name and spec")
	case e.Price != nil && e.Price.Times <= 0:
		return fail("price.times is %v: write by what prices are multiplied", e.Price.Times)
	}
	for _, n := range []*Nodes{e.Cordon, e.Uncordon, e.Drain, e.DeleteNode} {
		if n != nil && (n.Name == "") == (n.Count == Count{}) {
			return fail("%s needs either name or count", have[0])
		}
	}
	return nil
}

func (s *Selection) validate(line int, what string) error {
	switch {
	case s.Kind != "" && s.Kind != "Deployment" && s.Kind != "StatefulSet":
		return fmt.Errorf("line %d: %s.kind is %q: write Deployment or StatefulSet", line, what, s.Kind)
	case !s.All && s.Namespace == "" && len(s.Names) == 0 && len(s.Labels) == 0:
		return fmt.Errorf("line %d: %s selects nothing: write names, labels, namespace, or all: true", line, what)
	case s.All && (s.Namespace != "" || len(s.Names) > 0 || len(s.Labels) > 0):
		return fmt.Errorf("line %d: %s has all: true and a selection: write one of them", line, what)
	}
	return nil
}

func (g *Generate) validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("line %d: generate "+format, append([]any{g.Line}, args...)...)
	}
	switch {
	case !nameForm.MatchString(g.Name) || strings.Contains(g.Name, "."):
		return fail("has the name %q: write lower-case letters, digits and dashes", g.Name)
	case g.Kind != "" && g.Kind != "Deployment" && g.Kind != "StatefulSet" && g.Kind != "Job":
		return fail("has the kind %q: write Deployment, StatefulSet or Job", g.Kind)
	case g.Count < 1:
		return fail("has no count: write how many workloads it makes")
	case (g.CPU == nil) != (g.Memory == nil):
		return fail("needs both cpu and memory, or neither")
	case g.CPU != nil && g.Shapes != nil:
		return fail("has cpu and shapes: write one of them")
	case g.Kind == "Job" && g.RunFor == Range{}:
		return fail("makes Jobs and needs runFor")
	case g.Kind != "Job" && g.RunFor != Range{}:
		return fail("has runFor, which only Jobs take: write kind: Job")
	case g.Kind == "Job" && g.PDB > 0:
		return fail("has pdb, which Jobs do not take")
	}
	for _, shape := range g.Shapes {
		if shape.Weight < 0 || shape.CPU.Max.IsZero() || shape.Memory.Max.IsZero() {
			return fail("has a shape without cpu or memory, or with a negative weight")
		}
	}
	return nil
}

func (t *Trace) validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("line %d: trace "+format, append([]any{t.Line}, args...)...)
	}
	switch {
	case (t.File == "") == (t.Shape == ""):
		return fail("needs either file or shape")
	case t.Shape != "" && t.Shape != "openb":
		return fail("has the shape %q: write openb", t.Shape)
	case t.Tasks < 0 || t.Tasks > 0 && t.Shape == "":
		return fail("has tasks, which only a shape takes")
	case t.Speed < 0:
		return fail("has a negative speed")
	case t.As != "" && t.As != "replicaset" && t.As != "job":
		return fail("has as: %q: write replicaset or job", t.As)
	}
	return nil
}

// overlaps reports objects that are made twice.
func (s *Scenario) overlaps() []error {
	var errs []error
	seen := map[Ref]bool{}
	for _, m := range s.Objects {
		for _, o := range m.Objects {
			if r := reference(o); seen[r] {
				errs = append(errs, fmt.Errorf("line %d: %s is among the objects twice: rename one", m.Line, r))
			} else {
				seen[r] = true
			}
		}
	}
	families := map[string]int{}
	for _, e := range s.Events {
		var key string
		switch {
		case e.Generate != nil:
			key = namespaceOr(e.Generate.Namespace) + "/" + e.Generate.Name
		case e.Trace != nil:
			key = namespaceOr(e.Trace.Namespace) + "/task"
		default:
			continue
		}
		if line := families[key]; line != 0 {
			errs = append(errs, fmt.Errorf("line %d: the names %s overlap with those of line %d: write another name or namespace", e.Line, key, line))
		}
		families[key] = e.Line
	}
	return errs
}

func (e *Expectation) validate(duration time.Duration) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("line %d: "+format, append([]any{e.Line}, args...)...)
	}
	switch {
	case len(e.List()) == 0 && e.NoChangeAfter == nil && e.Event == "" && e.NoEvent == "":
		return fail("the expectation expects nothing: write a figure, for example running: all")
	case e.At != nil && e.Within != nil:
		return fail("the expectation has at and within: write one of them")
	case e.Within != nil && e.Always:
		return fail("the expectation has within and always: write at and always")
	case (e.At != nil || e.Within != nil || e.Always) && e.NoChangeAfter != nil:
		return fail("noChangeAfter has a time of its own: write it without at, within and always")
	case duration != 0 && e.At != nil && time.Duration(*e.At) > duration:
		return fail("at %s is after the end at %s", *e.At, Duration(duration))
	case e.Engine != "" && !slices.Contains(Engines, e.Engine):
		return fail("the engine %q is unknown: %s", e.Engine, suggest(e.Engine, Engines))
	}
	for _, f := range e.List() {
		if err := unitFits(f); err != nil {
			return fail("%s", err)
		}
		if runWide[f.Name] && (e.Within != nil || e.Always || e.At != nil) {
			return fail("%s is known at the end only: write it without at, within and always", f.Name)
		}
	}
	return nil
}

// runWide are the figures that are about the whole run.
var runWide = map[string]bool{
	"timeToRunningP50": true, "timeToRunningP99": true, "timeToRunningMax": true,
	"wasted": true, "waves": true,
}

// unitFits reports a condition whose unit its figure does not have.
func unitFits(f Figure) error {
	allowed := []string{""}
	switch f.Name {
	case "cost", "costIntegral":
		allowed = []string{"", "plan", "bound"}
	case "timeToRunningP50", "timeToRunningP99", "timeToRunningMax":
		allowed = []string{"s"}
	case "running", "pending", "refused", "pods":
		allowed = []string{"", "%", "all"}
	case "evictions", "moves":
		allowed = []string{"", "%"}
	}
	if slices.Contains(allowed, f.Condition.Unit) {
		return nil
	}
	forms := map[string]string{"": "a number", "plan": "times plan", "bound": "times bound", "s": "a duration such as 48s", "%": "a percentage of the pods", "all": "all"}
	var words []string
	for _, a := range allowed {
		words = append(words, forms[a])
	}
	return fmt.Errorf("%s is %q: write %s", f.Name, f.Condition, strings.Join(words, " or "))
}

// Title returns the name of the expectation, or one made from what it expects.
func (e *Expectation) Title() string {
	if e.Name != "" {
		return e.Name
	}
	var parts []string
	for _, f := range e.List() {
		parts = append(parts, f.Name+" "+f.Condition.String())
	}
	if e.NoChangeAfter != nil {
		parts = append(parts, "no change after "+e.NoChangeAfter.String())
	}
	if e.Event != "" {
		parts = append(parts, "event "+e.Event)
	}
	if e.NoEvent != "" {
		parts = append(parts, "no event "+e.NoEvent)
	}
	title := strings.Join(parts, ", ")
	switch {
	case e.At != nil && e.Always:
		title = "always from " + e.At.String() + ": " + title
	case e.At != nil:
		title = "at " + e.At.String() + ": " + title
	case e.Within != nil:
		title = "within " + e.Within.String() + ": " + title
	case e.Always:
		title = "always: " + title
	}
	return title
}

func (s *Scenario) uniqueExpectations() []error {
	var errs []error
	seen := map[string]bool{}
	for i := range s.Expect {
		key := s.Expect[i].Engine + " " + s.Expect[i].Title()
		if seen[key] {
			errs = append(errs, fmt.Errorf("line %d: the expectation %q is there twice: give it another name", s.Expect[i].Line, s.Expect[i].Title()))
		}
		seen[key] = true
	}
	return errs
}
