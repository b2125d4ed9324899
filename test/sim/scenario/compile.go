// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Stream returns the random numbers of one component. Streams of different names are
// independent of each other, so that a draw more in one component moves no other.
func Stream(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// Action is a step at a time.
type Action struct {
	// At is the time after the start; 0 or less is before the controllers start.
	At time.Duration
	// Line is the line of the event in the file, or 0.
	Line int
	Step Step
}

// Step is what an action does: one of the types of this package that implement it.
type Step interface{ step() }

// InstallDefaults creates the custom resources' definitions, NodePools and the
// AKSNodeClass that nap installs.
type InstallDefaults struct{}

// Apply creates the objects, or replaces the spec, labels and annotations of those
// that exist. The objects are shared between runs: copy them.
type Apply struct{ Objects []runtime.Object }

// Delete deletes an object, in the background.
type Delete struct{ Ref Ref }

// ScaleTo sets the replicas of the workloads of a selection.
type ScaleTo struct {
	Selection Selection
	To        Count
	// Original is true if a percentage is of the replicas the workload was created
	// with, instead of its current ones.
	Original bool
}

// Restart rolls out the workloads of a selection anew, as kubectl rollout restart does.
type Restart struct{ Selection Selection }

// Inject begins a fault. The fault draws from Stream(Seed, Fault.Kind).
type Inject struct {
	Fault Fault
	// Until is when it is over, in time after the start.
	Until time.Duration
	Seed  uint64
}

// ChangeNodes does Op to nodes: cordon, uncordon, drain or delete. Where nodes are
// counted they are drawn by Stream(Seed, Op).
type ChangeNodes struct {
	Op    string
	Nodes Nodes
	Seed  uint64
}

// PatchNodePool merges Spec into the spec of a NodePool.
type PatchNodePool struct {
	Name string
	Spec map[string]any
}

// ChangePrice multiplies prices.
type ChangePrice struct{ Price Price }

func (InstallDefaults) step() {}
func (Apply) step()           {}
func (Delete) step()          {}
func (ScaleTo) step()         {}
func (Restart) step()         {}
func (Inject) step()          {}
func (ChangeNodes) step()     {}
func (PatchNodePool) step()   {}
func (ChangePrice) step()     {}

// afterLast is how long a scenario without a duration goes on after its last event.
const afterLast = 10 * time.Minute

// Plan is a compiled scenario.
type Plan struct {
	// Start are the steps before time 0.
	Start []Action
	// Actions are the steps of the run, sorted by time.
	Actions []Action
	// LastEvent is when the last action happens or the last fault that ends before
	// the run does is over.
	LastEvent time.Duration
	// Duration is how long the run lasts.
	Duration time.Duration
	// Settings are the scenario's, with the preset and the defaults filled in.
	Settings Settings
	// Invariants are the scenario's, with the defaults filled in.
	Invariants Invariants
}

// Compile returns what happens in the scenario with a seed. It is the same whichever
// engine runs.
func (s *Scenario) Compile(seed uint64) (*Plan, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	p := &Plan{
		Duration:   time.Duration(s.Duration),
		Settings:   s.Settings.WithDefaults(),
		Invariants: s.Invariants.withDefaults(),
	}
	if s.Objects == nil {
		p.Start = append(p.Start, Action{Step: InstallDefaults{}})
	}
	for _, m := range s.Objects {
		a := Action{Line: m.Line, Step: Apply{Objects: m.Objects}}
		if m.Default {
			a.Step = InstallDefaults{}
		}
		p.Start = append(p.Start, a)
	}
	c := compiler{scenario: s, seed: seed, namespaces: map[string]bool{"default": true, "kube-system": true}}
	for i := range s.Events {
		if err := c.event(i); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(c.actions, func(a, b Action) int { return cmp.Compare(a.At, b.At) })
	for _, a := range c.actions {
		p.LastEvent = max(p.LastEvent, a.At)
		if f, ok := a.Step.(Inject); ok && f.Fault.For != 0 {
			p.LastEvent = max(p.LastEvent, a.At+time.Duration(f.Fault.For))
		}
	}
	if p.Duration == 0 {
		p.Duration = p.LastEvent + afterLast
	}
	p.LastEvent = min(p.LastEvent, p.Duration)
	for i, a := range c.actions {
		if a.At > p.Duration {
			c.actions = c.actions[:i]
			break
		}
		if f, ok := a.Step.(Inject); ok {
			f.Until = f.Fault.End(a.At, p.Duration)
			c.actions[i].Step = f
		}
	}
	p.Actions = c.actions
	return p, nil
}

// compiler collects the actions of one scenario.
type compiler struct {
	scenario   *Scenario
	seed       uint64
	namespaces map[string]bool
	actions    []Action
}

func (c *compiler) add(at time.Duration, line int, step Step) {
	c.actions = append(c.actions, Action{At: at, Line: line, Step: step})
}

// namespace creates a namespace at a time unless the scenario has it already.
func (c *compiler) namespace(at time.Duration, line int, name string) {
	if c.namespaces[name] {
		return
	}
	c.namespaces[name] = true
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}
	ns.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	c.add(at, line, Apply{Objects: []runtime.Object{ns}})
}

// event adds the actions of the event i of the scenario.
func (c *compiler) event(i int) error {
	e := &c.scenario.Events[i]
	at := time.Duration(e.At)
	switch {
	case e.Generate != nil:
		c.generate(at, i, e.Generate)
		return nil
	case e.Trace != nil:
		return c.trace(at, i, e.Trace)
	}
	until := time.Duration(e.Until)
	if e.Every == 0 {
		until = at
	} else if until == 0 {
		until = time.Duration(c.scenario.Duration)
	}
	for n := uint64(0); at <= until; n++ {
		c.add(at, e.Line, c.step(e, c.seed^uint64(i+1)<<40^n<<8))
		if e.Every == 0 {
			break
		}
		at += time.Duration(e.Every)
	}
	return nil
}

// step returns the step of an event that is no workload of its own making. seed is
// for what the step draws.
func (c *compiler) step(e *Event, seed uint64) Step {
	switch {
	case e.Apply != nil:
		var objects []runtime.Object
		for _, m := range e.Apply {
			if m.Default {
				return InstallDefaults{}
			}
			objects = append(objects, m.Objects...)
		}
		return Apply{Objects: objects}
	case e.Delete != nil:
		return Delete{Ref: *e.Delete}
	case e.Scale != nil:
		return ScaleTo{Selection: e.Scale.Selection, To: e.Scale.To, Original: e.Scale.Of == "original"}
	case e.Restart != nil:
		return Restart{Selection: *e.Restart}
	case e.Fault != nil:
		return Inject{Fault: *e.Fault, Seed: seed}
	case e.Cordon != nil:
		return ChangeNodes{Op: "cordon", Nodes: *e.Cordon, Seed: seed}
	case e.Uncordon != nil:
		return ChangeNodes{Op: "uncordon", Nodes: *e.Uncordon, Seed: seed}
	case e.Drain != nil:
		return ChangeNodes{Op: "drain", Nodes: *e.Drain, Seed: seed}
	case e.DeleteNode != nil:
		return ChangeNodes{Op: "delete", Nodes: *e.DeleteNode, Seed: seed}
	case e.SetNodePool != nil:
		return PatchNodePool{Name: e.SetNodePool.Name, Spec: e.SetNodePool.Spec}
	}
	return ChangePrice{Price: *e.Price}
}

func namespaceOr(name string) string {
	if name == "" {
		return "default"
	}
	return name
}
