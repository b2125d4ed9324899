// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// Explanation is the output of nap explain -o json: where a pod goes, or why it
// has no place.
type Explanation struct {
	Version int    `json:"version"`
	Pod     string `json:"pod"`
	// Outcome is OnNode, OnMachine, Refused, Deferred, Invalid, Bound (to a node) or
	// Waiting (for the kube-scheduler's first attempt).
	Outcome string   `json:"outcome"`
	Code    string   `json:"code,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Node    string   `json:"node,omitempty"`
	Machine *Machine `json:"machine,omitempty"`
	Relaxed []string `json:"relaxed,omitempty"`
	// Alike is the number of pods of the same shape that share the outcome.
	Alike   int            `json:"alike"`
	Stages  []engine.Stage `json:"stages,omitempty"`
	Nearest []engine.Miss  `json:"nearest,omitempty"`
}

// Explain plans for the whole cluster, because pods compete for capacity, and
// explains the outcome of one pod. It returns an error if the pod does not exist.
func Explain(o *snapshot.Objects, pod string, opt Options) (*Explanation, error) {
	in, err := snapshot.Build(o)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster: %w", err)
	}
	e := &Explanation{Version: ReportVersion, Pod: pod}
	if err := in.Invalid[pod]; err != nil {
		e.Outcome, e.Reason = "Invalid", err.Error()
		return e, nil
	}
	if in.Pods[pod] == nil {
		return e, e.notPending(o)
	}
	eo := in.Options
	eo.Trace = engine.TraceAll
	if opt.Quick {
		eo.Work = engine.WorkQuick
	}
	p, err := engine.Place(in.Snapshot, eo)
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	i := slices.IndexFunc(p.Verdicts, func(v engine.Verdict) bool { return slices.Contains(v.Pods, pod) })
	if i < 0 {
		return nil, fmt.Errorf("the plan has no verdict for pod %s: please report this with the file that `nap plan --save` writes", pod)
	}
	v := &p.Verdicts[i]
	e.Outcome, e.Code, e.Reason, e.Node, e.Relaxed, e.Alike = string(v.Outcome), string(v.Code), withPools(v.Reason, string(v.Code), len(o.NodePools), emptyPools(o)), v.Node, v.Relaxed, len(v.Pods)
	if v.Outcome == engine.OnMachine && v.Machine >= 0 && v.Machine < len(p.Machines) {
		one := &Report{}
		one.fromPlan(&snapshot.Input{Pods: in.Pods}, &engine.Plan{Machines: p.Machines[v.Machine : v.Machine+1]}, opt)
		e.Machine = &one.Machines[0]
	}
	if p.Trace != nil {
		for _, t := range p.Trace.Classes {
			if t.Class == v.Class {
				e.Stages, e.Nearest = t.Stages, t.Nearest
			}
		}
	}
	return e, nil
}

// notPending explains a pod that needs no plan.
func (e *Explanation) notPending(o *snapshot.Objects) error {
	var near []string
	_, name, _ := strings.Cut(e.Pod, "/")
	for _, p := range o.Pods {
		key := snapshot.PodKey(p)
		switch {
		case key == e.Pod && p.Spec.NodeName != "":
			e.Outcome, e.Node, e.Reason = "Bound", p.Spec.NodeName, "it is already bound to the node"
			return nil
		case key == e.Pod:
			e.Outcome, e.Reason = "Waiting", "the kube-scheduler has not marked it unschedulable, so nothing is provisioned for it"
			if at := o.Assumed[key]; at != "" {
				e.Node, e.Reason = at, "an earlier plan assigned it to this node"
			}
			return nil
		case p.Name == name || strings.HasPrefix(p.Name, name):
			near = append(near, key)
		}
	}
	if len(near) > 5 {
		near = append(near[:5], "…")
	}
	if len(near) > 0 {
		return fmt.Errorf("no pod %s; similar names: %s", e.Pod, strings.Join(near, ", "))
	}
	return fmt.Errorf("no pod %s; -n selects the namespace", e.Pod)
}

// WriteTable prints the explanation for a person.
func (e *Explanation) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Pod %s", e.Pod)
	switch e.Outcome {
	case string(engine.OnMachine):
		fmt.Fprintf(&b, " goes on a new machine")
		if m := e.Machine; m != nil {
			fmt.Fprintf(&b, ": %s, %s, %s, from NodePool %s, $%.4f per hour, with %d other pods.\n", m.Size, zoneName(m.Zone), m.CapacityType, m.NodePool, m.USDPerHour, len(m.Pods)-1)
			fmt.Fprintf(&b, "%d other offerings would hold the same pods", m.AlternativeCount)
			for i, a := range m.Alternatives {
				if i == 3 {
					break
				}
				fmt.Fprintf(&b, "%s %s %s %s $%.4f", map[bool]string{true: ": ", false: ", "}[i == 0], a.Size, zoneName(a.Zone), a.CapacityType, a.USDPerHour)
			}
		}
		b.WriteString(".\n")
	case string(engine.OnNode):
		fmt.Fprintf(&b, " goes on node %s, which exists or is being created.\n", e.Node)
	case "Bound":
		fmt.Fprintf(&b, " runs on node %s.\n", e.Node)
	default:
		fmt.Fprintf(&b, " has no place (%s).\n%s\n", e.Outcome, e.Reason)
	}
	if e.Alike > 1 {
		fmt.Fprintf(&b, "%d pods of the same shape have this outcome.\n", e.Alike)
	}
	for _, r := range e.Relaxed {
		fmt.Fprintf(&b, "Relaxed preference: %s\n", r)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the explanation: %w", err)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(e.Stages) > 0 {
		fmt.Fprintln(tw, "\nCONSTRAINT\tOFFERINGS LEFT\tNODES LEFT\tDETAIL")
		for _, s := range e.Stages {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%s\n", s.Name, s.Offerings, s.Nodes, s.Detail)
		}
	}
	if len(e.Nearest) > 0 {
		fmt.Fprintln(tw, "\nNEAREST MISS\tRULED OUT BY\tDETAIL")
		for _, m := range e.Nearest {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", m.What, m.Reason, m.Detail)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("writing the explanation: %w", err)
	}
	return nil
}
