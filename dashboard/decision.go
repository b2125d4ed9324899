// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nap-aks/nap/engine"
)

// Kinds of a Decision.
const (
	KindScaleUp = "ScaleUp"
	KindRemoval = "Removal" // consolidation, drift, expiration, repair or by hand
	KindGone    = "Gone"    // a machine that was being removed no longer exists
)

// Decision is an entry of the timeline.
type Decision struct {
	ID   uint64    `json:"id"`
	Time time.Time `json:"time"`
	Kind string    `json:"kind"`
	// Reason is that of a removal: Underutilized, Empty, Drifted, Expired, …
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text"`
	// Machines were bought, Nodes are removed.
	Machines []Bought `json:"machines,omitempty"`
	Nodes    []string `json:"nodes,omitempty"`
	// PodsMoved is the number of pods that were placed or have to move, Refused of
	// those that found no place.
	PodsMoved int `json:"podsMoved"`
	Refused   int `json:"refused,omitempty"`
	// Before and After are the cost of the cluster per hour: predicted for purchases
	// and removals, measured for Gone.
	Before float64 `json:"before"`
	After  float64 `json:"after"`
}

// Bought is a machine of a purchase with what else would have held its pods.
type Bought struct {
	Claim            string     `json:"claim,omitempty"` // empty: it could not be created
	Pool             string     `json:"pool"`
	Size             string     `json:"size"`
	Zone             string     `json:"zone,omitempty"`
	CapacityType     string     `json:"capacityType,omitempty"`
	USDPerHour       float64    `json:"usdPerHour"`
	Pods             int        `json:"pods"`
	PodNames         []string   `json:"podNames"` // the first ones
	Alternatives     []Offering `json:"alternatives,omitempty"`
	AlternativeCount int        `json:"alternativeCount"`
}

// Offering is a size, zone and capacity type at a price.
type Offering struct {
	Size         string  `json:"size"`
	Zone         string  `json:"zone,omitempty"`
	CapacityType string  `json:"capacityType,omitempty"`
	USDPerHour   float64 `json:"usdPerHour"`
}

// knownAfter is the age from which on a machine without a known purchase is told.
const knownAfter = 15 * time.Second

// Bounds of what a Decision names, so that one entry stays small.
const (
	maxPodNames     = 20
	maxAlternatives = 8
	maxMachines     = 500
)

// Pass is what a provisioning pass decided.
type Pass struct {
	Time time.Time
	Plan *engine.Plan
	// Claims are the names of the NodeClaims by machine of the plan; empty if one could
	// not be created.
	Claims []string
	// Invalid are the pods that could not be planned for, with the reason.
	Invalid map[string]error
}

// decision returns the timeline's entry for a pass, nil if it bought nothing.
func (p *Pass) decision(before float64) *Decision {
	if len(p.Plan.Machines) == 0 {
		return nil
	}
	d := &Decision{Time: p.Time, Kind: KindScaleUp, Before: before, After: before}
	for i := range p.Plan.Machines {
		m := &p.Plan.Machines[i]
		b := Bought{Pool: m.NodePool, USDPerHour: m.PriceUSDPerHour, AlternativeCount: max(len(m.Offerings)-1, 0)}
		if i < len(p.Claims) {
			b.Claim = p.Claims[i]
		}
		if len(m.Offerings) > 0 {
			first := m.Offerings[0]
			b.Size, b.Zone, b.CapacityType = first.InstanceType, first.Zone, first.CapacityType
			for _, of := range m.Offerings[1:min(len(m.Offerings), 1+maxAlternatives)] {
				b.Alternatives = append(b.Alternatives, Offering{of.InstanceType, of.Zone, of.CapacityType, of.PriceUSDPerHour})
			}
		}
		for _, g := range m.Pods {
			b.Pods += len(g.Pods)
			b.PodNames = append(b.PodNames, g.Pods[:min(len(g.Pods), maxPodNames-len(b.PodNames))]...)
		}
		if b.Claim != "" {
			d.After += b.USDPerHour
		}
		d.PodsMoved += b.Pods
		d.Machines = append(d.Machines, b)
	}
	for _, v := range p.Plan.Verdicts {
		if v.Outcome == engine.Refused {
			d.Refused += len(v.Pods)
		}
	}
	d.Text = fmt.Sprintf("bought %s for %s: %s", plural(len(d.Machines), "machine"), plural(d.PodsMoved, "pod"), sizesOf(d.Machines))
	d.Machines = d.Machines[:min(len(d.Machines), maxMachines)]
	return d
}

// sizesOf summarizes machines: "3 × Standard_D4s_v5, 1 × Standard_D8s_v5".
func sizesOf(list []Bought) string {
	count := map[string]int{}
	var order []string
	for _, b := range list {
		if count[b.Size] == 0 {
			order = append(order, b.Size)
		}
		count[b.Size]++
	}
	slices.SortStableFunc(order, func(x, y string) int { return count[y] - count[x] })
	var parts []string
	for i, size := range order {
		if i == 4 {
			parts = append(parts, fmt.Sprintf("%d other sizes", len(order)-4))
			break
		}
		parts = append(parts, fmt.Sprintf("%d × %s", count[size], size))
	}
	return strings.Join(parts, ", ")
}

// why is the sentence on a machine's node.
func (b *Bought) why() string {
	s := "bought for " + plural(b.Pods, "pod")
	if len(b.PodNames) > 0 {
		s += ": " + b.PodNames[0]
		if b.Pods > 1 {
			s += fmt.Sprintf(" and %d more", b.Pods-1)
		}
	}
	if len(b.Alternatives) > 0 {
		a := b.Alternatives[0]
		s += fmt.Sprintf("; next best %s at $%.4f/h", a.Size, a.USDPerHour)
	}
	return s
}

// verdicts returns the verdicts of a pass by pod key.
func (p *Pass) verdicts() map[string]*Verdict {
	out := map[string]*Verdict{}
	traces := map[engine.ClassID]*engine.ClassTrace{}
	if p.Plan.Trace != nil {
		for i := range p.Plan.Trace.Classes {
			traces[p.Plan.Trace.Classes[i].Class] = &p.Plan.Trace.Classes[i]
		}
	}
	for i := range p.Plan.Verdicts {
		pv := &p.Plan.Verdicts[i]
		v := &Verdict{Outcome: string(pv.Outcome), Code: string(pv.Code), Reason: pv.Reason, Node: pv.Node}
		switch pv.Outcome {
		case engine.OnMachine:
			if pv.Machine >= 0 && pv.Machine < len(p.Claims) {
				v.Node = p.Claims[pv.Machine]
			}
			v.Reason = "goes on a machine that was just bought"
		case engine.OnNode:
			v.Reason = "goes on a node that exists or is being made"
		default:
			if t := traces[pv.Class]; t != nil {
				v.Stages, v.Nearest = t.Stages, t.Nearest
			}
		}
		for _, pod := range pv.Pods {
			out[pod] = v
		}
	}
	for pod, err := range p.Invalid {
		out[pod] = &Verdict{Outcome: "Invalid", Reason: err.Error()}
	}
	return out
}

// changes returns the removals between two states, one decision for each reason.
func changes(old, now *State, removed func(claim string) string) []*Decision {
	if old == nil {
		return nil
	}
	was := make(map[string]*Node, len(old.Nodes))
	for i := range old.Nodes {
		was[key(&old.Nodes[i])] = &old.Nodes[i]
	}
	leaving := map[string]*Decision{}
	gone := &Decision{Time: now.Time, Kind: KindGone, Before: old.USDPerHour, After: now.USDPerHour}
	var out []*Decision
	remove := func(n *Node) {
		reason := removed(n.Claim)
		d := leaving[reason]
		if d == nil {
			d = &Decision{Time: now.Time, Kind: KindRemoval, Reason: reason, Before: old.USDPerHour, After: old.USDPerHour}
			leaving[reason] = d
			out = append(out, d)
		}
		d.Nodes = append(d.Nodes, n.Name)
		d.PodsMoved += n.Pods
		d.After -= n.USDPerHour
	}
	for i := range now.Nodes {
		n := &now.Nodes[i]
		before := was[key(n)]
		delete(was, key(n))
		if n.Phase != PhaseDraining || before != nil && before.Phase == PhaseDraining {
			continue
		}
		remove(n)
	}
	for _, n := range was {
		gone.Nodes = append(gone.Nodes, n.Name)
		if n.Phase != PhaseDraining { // it went faster than we looked
			remove(n)
		}
	}
	for _, d := range out {
		slices.Sort(d.Nodes)
		d.Text = fmt.Sprintf("removing %s (%s): %s", plural(len(d.Nodes), "machine"), d.Reason, plural(d.PodsMoved, "pod"))
		d.Nodes = d.Nodes[:min(len(d.Nodes), maxMachines)]
	}
	if len(gone.Nodes) > 0 {
		slices.Sort(gone.Nodes)
		gone.Text = plural(len(gone.Nodes), "machine") + " gone"
		gone.Nodes = gone.Nodes[:min(len(gone.Nodes), maxMachines)]
		out = append(out, gone)
	}
	return out
}

// appeared returns the machines of a state that are neither seen nor bought by a known
// pass, nil if there are none, and marks them as seen. It gives a purchase some time to
// become known: NodeClaims exist before the pass that made them has ended.
func appeared(s *State, seen map[string]bool, bought map[string]Purchase) *Decision {
	d := &Decision{Time: s.Time, Kind: KindScaleUp, After: s.USDPerHour, Before: s.USDPerHour}
	here := make(map[string]bool, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		k := key(n)
		here[k] = true
		if seen[k] || s.Time.Sub(n.Created) < knownAfter {
			continue
		}
		seen[k] = true
		if _, ok := bought[n.Claim]; ok {
			continue
		}
		d.Machines = append(d.Machines, Bought{Claim: n.Claim, Pool: n.Pool, Size: n.Size, Zone: n.Zone, CapacityType: n.CapacityType, USDPerHour: n.USDPerHour, Pods: n.Pods, PodNames: []string{}})
		d.PodsMoved += n.Pods
		d.Before -= n.USDPerHour
	}
	for k := range seen {
		if !here[k] {
			delete(seen, k)
		}
	}
	if len(d.Machines) == 0 {
		return nil
	}
	d.Text = plural(len(d.Machines), "new machine") + ": " + sizesOf(d.Machines)
	d.Machines = d.Machines[:min(len(d.Machines), maxMachines)]
	return d
}

// key identifies a machine before and after it has a Node.
func key(n *Node) string {
	if n.Claim != "" {
		return n.Claim
	}
	return "node/" + n.Name
}
