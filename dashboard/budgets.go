// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard

import (
	"cmp"
	"math"
	"slices"
	"time"

	"k8s.io/utils/clock"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/snapshot"
)

const (
	windowAhead = 24 * time.Hour
	windowStep  = 5 * time.Minute
)

// Unlimited is Window.Allowed if no budget applies.
const Unlimited = -1

// windows are the windows of a NodePool, and what they were computed for.
type windows struct {
	version string
	nodes   int
	at      time.Time
	list    []Window
	problem string
}

// reasons are what a budget can be restricted to.
var reasons = []karpv1.DisruptionReason{
	karpv1.DisruptionReasonUnderutilized, karpv1.DisruptionReasonEmpty, karpv1.DisruptionReasonDrifted, karpv1.DisruptionReasonUnhealthy,
}

// pools describes the NodePools. Windows are computed anew every few minutes only:
// each one evaluates cron schedules a few hundred times.
func (b *Builder) pools(o *snapshot.Objects, s *State) {
	nodes, cost := map[string]int{}, map[string]float64{}
	for i := range s.Nodes {
		nodes[s.Nodes[i].Pool]++
		cost[s.Nodes[i].Pool] += s.Nodes[i].USDPerHour
	}
	fresh := map[string]windows{}
	for _, p := range o.NodePools {
		w, ok := b.windows[p.Name]
		age := o.Now.Sub(w.at)
		if !ok || w.version != p.ResourceVersion || w.nodes != nodes[p.Name] || age < 0 || age >= windowStep {
			w = windowsOf(p, nodes[p.Name], o.Now)
		}
		fresh[p.Name] = w
		after := "Never"
		if d := p.Spec.Disruption.ConsolidateAfter.Duration; d != nil {
			after = d.String()
		}
		s.Pools = append(s.Pools, Pool{
			Name: p.Name, Nodes: nodes[p.Name], USDPerHour: cost[p.Name], Ready: p.StatusConditions().Root().IsTrue(),
			Policy: string(p.Spec.Disruption.ConsolidationPolicy), After: after, Windows: w.list, Problem: w.problem,
		})
	}
	b.windows = fresh
	slices.SortFunc(s.Pools, func(x, y Pool) int { return cmp.Compare(x.Name, y.Name) })
}

func windowsOf(p *karpv1.NodePool, nodes int, now time.Time) windows {
	w := windows{version: p.ResourceVersion, nodes: nodes, at: now, list: []Window{}}
	for _, reason := range reasons {
		var open *Window
		for t := now; t.Before(now.Add(windowAhead)); {
			next := t.Truncate(windowStep).Add(windowStep)
			n, err := p.GetAllowedDisruptionsByReason(fixedClock{t}, nodes, reason)
			if err != nil {
				w.list, w.problem = []Window{}, "its budgets cannot be read, so nothing is disrupted: "+err.Error()
				return w
			}
			if n == math.MaxInt32 {
				n = Unlimited
			}
			if open == nil || open.Allowed != n {
				w.list = append(w.list, Window{Reason: string(reason), From: t, Allowed: n})
				open = &w.list[len(w.list)-1]
			}
			open.To, t = next, next
		}
	}
	return w
}

// fixedClock is a clock that stands still.
type fixedClock struct{ at time.Time }

var _ clock.Clock = fixedClock{}

func (c fixedClock) Now() time.Time                  { return c.at }
func (c fixedClock) Since(t time.Time) time.Duration { return c.at.Sub(t) }

// The engines of Karpenter's budgets only read the time; nothing waits on this clock.

func (fixedClock) After(time.Duration) <-chan time.Time { return nil }
func (fixedClock) NewTimer(d time.Duration) clock.Timer { return clock.RealClock{}.NewTimer(d) }
func (fixedClock) Sleep(time.Duration)                  {}
func (fixedClock) Tick(time.Duration) <-chan time.Time  { return nil }
