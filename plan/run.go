// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/internal/peer"
	"github.com/nap-aks/nap/snapshot"
)

// Names of the engines.
const (
	EngineNap       = "nap"
	EngineKarpenter = "karpenter"
)

// Options configure a run.
type Options struct {
	// Quick stops the engine after its quick path.
	Quick bool
	// Timeout bounds Karpenter's scheduler; zero means none.
	Timeout time.Duration
	// MaxAlternatives is the number of further offerings to report for a machine;
	// zero means 10, negative all.
	MaxAlternatives int
}

// Nap plans with nap's engine.
func Nap(o *snapshot.Objects, opt Options) (*Report, error) {
	start := time.Now()
	in, err := snapshot.Build(o)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster: %w", err)
	}
	eo := in.Options
	if opt.Quick {
		eo.Work = engine.WorkQuick
	}
	built := time.Now()
	p, err := engine.Place(in.Snapshot, eo)
	if err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	r := &Report{Version: ReportVersion, Engine: EngineNap, Time: o.Now}
	r.Summary.ReadSeconds, r.Summary.PlanSeconds = built.Sub(start).Seconds(), time.Since(built).Seconds()
	r.fromPlan(in, p, opt)
	r.emptyPools(o)
	return r, nil
}

// emptyPools says which NodePools can create no machine at all, and why, in the notes
// and in the reasons of pods that may have asked for one of them.
func (r *Report) emptyPools(o *snapshot.Objects) {
	why := emptyPools(o)
	r.Notes = append(r.Notes, why...)
	for i := range r.Refused {
		r.Refused[i].Reason = withPools(r.Refused[i].Reason, r.Refused[i].Code, len(o.NodePools), why)
	}
}

// emptyPools returns a sentence for each NodePool whose requirements no size meets.
func emptyPools(o *snapshot.Objects) []string {
	var out []string
	for _, np := range o.NodePools {
		if text := snapshot.Unmet(np, o.InstanceTypes[np.Name]); text != "" {
			out = append(out, fmt.Sprintf("NodePool %s can create no machine: %s", np.Name, text))
		}
	}
	sort.Strings(out)
	return out
}

// withPools completes a reason for which NodePools without sizes may be the cause.
func withPools(reason, code string, pools int, why []string) string {
	switch {
	case len(why) == 0:
		return reason
	case code == string(engine.ReasonNoPools) && len(why) == pools:
		return strings.Join(why, "; ")
	case code == string(engine.ReasonNoPools) || code == string(engine.ReasonRequirement) || code == string(engine.ReasonTaints):
		return reason + "; " + strings.Join(why, "; ")
	}
	return reason
}

func (r *Report) fromPlan(in *snapshot.Input, p *engine.Plan, opt Options) {
	for i := range p.Machines {
		m := &p.Machines[i]
		out := Machine{NodePool: m.NodePool, USDPerHour: m.PriceUSDPerHour, Requests: m.Requests}
		if len(m.Offerings) > 0 {
			first := m.Offerings[0]
			out.Size, out.Zone, out.CapacityType = first.InstanceType, first.Zone, first.CapacityType
			out.AlternativeCount = len(m.Offerings) - 1
			for _, o := range m.Offerings[1:] {
				if n := opt.alternatives(); n >= 0 && len(out.Alternatives) >= n {
					break
				}
				out.Alternatives = append(out.Alternatives, Offering{Size: o.InstanceType, Zone: o.Zone, CapacityType: o.CapacityType, USDPerHour: o.PriceUSDPerHour})
			}
		}
		for _, g := range m.Pods {
			out.Pods = append(out.Pods, g.Pods...)
		}
		sort.Strings(out.Pods)
		r.Machines = append(r.Machines, out)
	}
	for _, pl := range p.Placements {
		out := Placement{Node: pl.Node}
		for _, g := range pl.Pods {
			out.Pods = append(out.Pods, g.Pods...)
		}
		sort.Strings(out.Pods)
		r.Placements = append(r.Placements, out)
	}
	for i := range p.Verdicts {
		v := &p.Verdicts[i]
		r.Summary.Pods += len(v.Pods)
		switch v.Outcome {
		case engine.OnNode:
			r.Summary.OnNodes += len(v.Pods)
		case engine.OnMachine:
			r.Summary.OnMachines += len(v.Pods)
		case engine.Deferred:
			r.Summary.Deferred += len(v.Pods)
			r.refuse(v.Pods, string(v.Code), v.Reason)
		default:
			r.Summary.Refused += len(v.Pods)
			r.refuse(v.Pods, string(v.Code), v.Reason)
		}
		if len(v.Relaxed) > 0 {
			r.relax(v.Pods, v.Relaxed)
		}
	}
	r.invalid(in.Invalid)
	r.workloads(in.Pods)
	if p.Bound != nil {
		r.Summary.BoundUSDPerHour, r.Summary.BoundKind = p.Bound.USDPerHour, p.Bound.Kind
		gap := p.Bound.Gap
		r.Summary.Gap = &gap
	}
	r.Summary.QuickUSDPerHour = p.QuickCostUSDPerHour
	r.finish()
}

func (o Options) alternatives() int {
	if o.MaxAlternatives == 0 {
		return 10
	}
	return o.MaxAlternatives
}

// invalid adds the pods that could not be planned for.
func (r *Report) invalid(pods map[string]error) {
	by := map[string][]string{}
	for k, err := range pods {
		by[err.Error()] = append(by[err.Error()], k)
	}
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		sort.Strings(by[reason])
		r.refuse(by[reason], "Invalid", reason)
		r.Summary.Pods += len(by[reason])
		r.Summary.Refused += len(by[reason])
	}
}

// Karpenter plans with Karpenter's scheduler. Each machine is priced at the cheapest
// offering it allows. After a timeout the report has the decisions made so far and
// a note.
func Karpenter(ctx context.Context, o *snapshot.Objects, opt Options) (*Report, error) {
	res, err := peer.Schedule(ctx, o, peer.Options{Timeout: opt.Timeout})
	if err != nil && !errors.Is(err, peer.ErrTimeout) {
		return nil, err
	}
	r := &Report{Version: ReportVersion, Engine: EngineKarpenter, Time: o.Now}
	if err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("Karpenter's scheduler was stopped after %s; pods it had not considered are counted as refused", opt.Timeout))
	}
	r.Summary.ReadSeconds, r.Summary.PlanSeconds = (res.Fill + res.Prepare).Seconds(), res.Solve.Seconds()
	pods := map[string]*corev1.Pod{}
	for _, m := range res.Machines() {
		out := Machine{NodePool: m.Claim.NodePoolName, Size: m.InstanceType, Zone: m.Zone, CapacityType: m.CapacityType, USDPerHour: m.USDPerHour}
		for _, p := range m.Claim.Pods {
			out.Pods = append(out.Pods, snapshot.PodKey(p))
			pods[snapshot.PodKey(p)] = p
		}
		sort.Strings(out.Pods)
		out.Requests = engine.Resources{}
		for name, q := range m.Claim.Spec.Resources.Requests {
			if name == corev1.ResourceCPU {
				out.Requests[string(name)] = q.MilliValue()
			} else {
				out.Requests[string(name)] = q.Value()
			}
		}
		out.Alternatives, out.AlternativeCount = peerAlternatives(m, opt.alternatives())
		r.Machines = append(r.Machines, out)
		r.Summary.OnMachines += len(out.Pods)
	}
	for _, n := range res.ExistingNodes {
		if len(n.Pods) == 0 {
			continue
		}
		out := Placement{Node: n.Name()}
		for _, p := range n.Pods {
			out.Pods = append(out.Pods, snapshot.PodKey(p))
			pods[snapshot.PodKey(p)] = p
		}
		sort.Strings(out.Pods)
		r.Placements = append(r.Placements, out)
		r.Summary.OnNodes += len(out.Pods)
	}
	by := map[string][]string{}
	for k, err := range res.Errors {
		by[err.Error()] = append(by[err.Error()], podName(k))
	}
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		sort.Strings(by[reason])
		r.refuse(by[reason], "", strings.ReplaceAll(reason, "\n", " "))
		r.Summary.Refused += len(by[reason])
	}
	r.Summary.Pods = res.Pods
	if left := res.Pods - r.Summary.OnNodes - r.Summary.OnMachines - r.Summary.Refused; left > 0 {
		r.Summary.Refused += left
		r.Notes = append(r.Notes, fmt.Sprintf("no decision was made for %d pods", left))
	}
	r.workloads(pods)
	r.finish()
	if err := r.prove(o, opt); err != nil {
		return nil, err
	}
	return r, nil
}

// prove adds a lower bound that is independent of the engine, and the distance of
// this plan from it. A plan that refuses pods may cost less, so it gets none.
func (r *Report) prove(o *snapshot.Objects, opt Options) error {
	if r.Summary.Refused > 0 {
		return nil
	}
	in, err := snapshot.Build(o)
	if err != nil {
		return fmt.Errorf("reading the cluster for the bound: %w", err)
	}
	eo := in.Options
	if opt.Quick {
		eo.Work = engine.WorkQuick
	}
	b, err := engine.Bound(in.Snapshot, eo)
	if err != nil {
		return fmt.Errorf("proving the bound: %w", err)
	}
	if b.USDPerHour > 0 {
		gap := r.Summary.USDPerHour/b.USDPerHour - 1
		r.Summary.BoundUSDPerHour, r.Summary.BoundKind, r.Summary.Gap = b.USDPerHour, b.Kind, &gap
	}
	return nil
}

func podName(k types.NamespacedName) string { return k.Namespace + "/" + k.Name }

func peerAlternatives(m peer.Machine, limit int) ([]Offering, int) {
	var out []Offering
	for _, it := range m.Claim.InstanceTypeOptions {
		for _, o := range it.Offerings.Launchable() {
			if m.Claim.Requirements.IsCompatible(o.Requirements, scheduling.AllowUndefinedWellKnownLabels) {
				out = append(out, Offering{Size: it.Name, Zone: o.Zone(), CapacityType: o.CapacityType(), USDPerHour: o.Price})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].USDPerHour != out[j].USDPerHour {
			return out[i].USDPerHour < out[j].USDPerHour
		}
		if out[i].Size != out[j].Size {
			return out[i].Size < out[j].Size
		}
		return out[i].Zone < out[j].Zone
	})
	n := max(len(out)-1, 0)
	if len(out) > 0 {
		out = out[1:]
	}
	if limit >= 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, n
}
