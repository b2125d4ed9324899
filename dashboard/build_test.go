// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package dashboard_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/dashboard/dashboardtest"
	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

func cluster(t testing.TB, nodes int) *snapshot.Objects {
	t.Helper()
	o, err := dashboardtest.Cluster(nodes)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestBuildAddsUp checks the totals of a state against the objects themselves.
func TestBuildAddsUp(t *testing.T) {
	o := cluster(t, 200)
	var b dashboard.Builder
	s := b.Build(o, dashboard.Known{})
	if len(s.Nodes) != 200 || s.Unpriced != 0 {
		t.Fatalf("%d nodes, %d without a price; want 200 and 0", len(s.Nodes), s.Unpriced)
	}
	running, pending := 0, 0
	for _, p := range o.Pods {
		if p.Spec.NodeName != "" {
			running++
		} else {
			pending++
		}
	}
	if s.Pods.Running != running || s.Pods.Pending != pending {
		t.Errorf("pods = %+v, want %d running and %d pending", s.Pods, running, pending)
	}
	cost, grouped, onNodes, waiting := 0.0, 0.0, 0, 0
	for _, n := range s.Nodes {
		cost += n.USDPerHour
		onNodes += n.Pods
		if n.Phase == dashboard.PhaseReady && n.CPU.Share() > 1 {
			t.Errorf("node %s has requests of %.2f of what it has", n.Name, n.CPU.Share())
		}
		if n.Stays.Code == "" || n.Stays.Text == "" {
			t.Errorf("node %s: nothing says why it stays", n.Name)
		}
	}
	for _, g := range s.Groups {
		grouped += g.USDPerHour
	}
	for _, w := range s.Waiting {
		waiting += w.Count
	}
	if math.Abs(cost-s.USDPerHour) > 1e-9 || math.Abs(grouped-cost) > 1e-9 || cost < 10 {
		t.Errorf("cost: state %f, nodes %f, groups %f", s.USDPerHour, cost, grouped)
	}
	if onNodes != running || waiting != pending {
		t.Errorf("%d pods on nodes and %d in groups, want %d and %d", onNodes, waiting, running, pending)
	}
	phases := map[string]int{}
	codes := map[string]int{}
	for _, n := range s.Nodes {
		phases[n.Phase]++
		codes[n.Stays.Code]++
	}
	for _, phase := range []string{dashboard.PhaseBought, dashboard.PhaseBooting, dashboard.PhaseInitializing, dashboard.PhaseReady, dashboard.PhaseDraining} {
		if phases[phase] == 0 {
			t.Errorf("no node is %s: %v", phase, phases)
		}
	}
	for _, code := range []string{dashboard.StayFixed, dashboard.StayStarting, dashboard.StayLeaving, dashboard.StayDoNotDisrupt, dashboard.StayPDB, dashboard.StaySettling, dashboard.StayBudget} {
		if codes[code] == 0 {
			t.Errorf("nothing stays for %s: %v", code, codes)
		}
	}
}

// TestVerdictsReachTheState checks that the funnel of refused pods and the reason of a
// purchase are shown, and that the timeline has the purchase.
func TestVerdictsReachTheState(t *testing.T) {
	o := cluster(t, 40)
	clock := clocktesting.NewFakeClock(dashboardtest.Now)
	l, err := dashboard.NewLive(dashboard.Config{Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }, Clock: clock, Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	pass, err := dashboardtest.Pass(o)
	if err != nil {
		t.Fatal(err)
	}
	l.ObservePass(*pass)
	if err := l.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, _ := l.State()
	refused := 0
	for _, v := range pass.Plan.Verdicts {
		if v.Outcome == engine.Refused {
			refused += len(v.Pods)
		}
	}
	if refused == 0 || s.Pods.Refused != refused || s.Pods.Assigned != s.Pods.Pending-refused {
		t.Errorf("pods = %+v, want %d refused and the others assigned", s.Pods, refused)
	}
	if w := s.Waiting[0]; w.Outcome != string(engine.Refused) || len(w.Stages) == 0 || len(w.Nearest) == 0 || w.Reason == "" {
		t.Errorf("the first group that waits is %+v, want refused pods with funnel and near misses", w)
	}
	list, err := l.Decisions(dashboardtest.Now.Add(-time.Hour), dashboardtest.Now, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Kind != dashboard.KindScaleUp || len(list[0].Machines) != len(pass.Plan.Machines) || list[0].Refused != refused {
		t.Fatalf("timeline = %+v, want one purchase of %d machines", list, len(pass.Plan.Machines))
	}
	if m := list[0].Machines[0]; m.AlternativeCount == 0 || len(m.Alternatives) == 0 || m.Alternatives[0].USDPerHour < m.USDPerHour {
		t.Errorf("machine %+v has no dearer alternative", m)
	}
}

// TestRemovalsAreRecorded checks that a machine that leaves is in the timeline with its
// reason, predicted and measured cost, also if it went between two states.
func TestRemovalsAreRecorded(t *testing.T) {
	o := cluster(t, 30)
	clock := clocktesting.NewFakeClock(dashboardtest.Now)
	l, err := dashboard.NewLive(dashboard.Config{Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }, Clock: clock, Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := l.State()
	gone := o.NodeClaims[0]
	at := metav1.NewTime(dashboardtest.Now)
	leaving := gone.DeepCopy()
	leaving.DeletionTimestamp = &at
	leaving.StatusConditions().SetTrueWithReason("DisruptionReason", "Underutilized", "")
	l.ObserveClaim(leaving)
	next := *o
	next.NodeClaims, next.Nodes = o.NodeClaims[1:], nil
	for _, n := range o.Nodes {
		if n.Spec.ProviderID != gone.Status.ProviderID {
			next.Nodes = append(next.Nodes, n)
		}
	}
	*o = next
	o.Now = o.Now.Add(time.Minute)
	clock.Step(time.Minute)
	if err := l.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, _ := l.State()
	list, err := l.Decisions(dashboardtest.Now, o.Now, 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[1].Kind != dashboard.KindRemoval || list[1].Reason != "Underutilized" || list[0].Kind != dashboard.KindGone {
		t.Fatalf("timeline = %+v, want a removal and its end", list)
	}
	if saved := list[1].Before - list[1].After; saved <= 0 || math.Abs(list[0].Before-list[0].After-saved) > 1e-9 {
		t.Errorf("predicted saving %f, measured %f", saved, list[0].Before-list[0].After)
	}
	if list[0].Before != before.USDPerHour || list[0].After != after.USDPerHour {
		t.Errorf("measured %f to %f, want %f to %f", list[0].Before, list[0].After, before.USDPerHour, after.USDPerHour)
	}
}

// TestMachinesThatAppear checks that machines without a known purchase are told once,
// after some time, and those that a pass bought are not.
func TestMachinesThatAppear(t *testing.T) {
	o := cluster(t, 30)
	clock := clocktesting.NewFakeClock(dashboardtest.Now)
	l, err := dashboard.NewLive(dashboard.Config{Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }, Clock: clock, Log: testr.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	pass := &dashboard.Pass{Time: o.Now, Claims: []string{"bought"}, Plan: &engine.Plan{Machines: []engine.Machine{{NodePool: "default", Offerings: []engine.RankedOffering{{InstanceType: "Standard_D4s_v5"}}}}}}
	for _, name := range []string{"bought", "by-hand"} {
		c := o.NodeClaims[0].DeepCopy()
		c.Name, c.Status.ProviderID, c.CreationTimestamp = name, "azure:///"+name, metav1.NewTime(o.Now)
		o.NodeClaims = append(o.NodeClaims, c)
	}
	count := func() (n int, last []dashboard.Bought) {
		list, err := l.Decisions(dashboardtest.Now.Add(-time.Hour), dashboardtest.Now.Add(time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			last = list[0].Machines
		}
		return len(list), last
	}
	for i, want := range []int{0, 1, 2, 2} {
		if err := l.Update(t.Context()); err != nil { // the claims are seen before the pass ends
			t.Fatal(err)
		}
		if n, last := count(); n != want || i == 2 && (len(last) != 1 || last[0].Claim != "by-hand") {
			t.Fatalf("step %d: %d decisions, the last of %+v", i, n, last)
		}
		if i == 0 {
			l.ObservePass(*pass)
		} else {
			clock.Step(20 * time.Second)
			o.Now = clock.Now()
		}
	}
}

// TestBoundIsBelowTheCost checks the proven bound on a cluster whose pods all fit.
func TestBoundIsBelowTheCost(t *testing.T) {
	o := cluster(t, 60)
	var b dashboard.Builder
	s := b.Build(o, dashboard.Known{})
	cost, pods := 0.0, 0
	for _, n := range s.Nodes {
		if n.Pool != "" {
			cost += n.USDPerHour
			pods += n.Pods
		}
	}
	bound, err := dashboard.BoundOf(o, cost)
	if err != nil {
		t.Fatal(err)
	}
	if bound == nil || bound.USDPerHour <= 0 || bound.USDPerHour > cost || bound.Gap < 0 || bound.Pods != pods {
		t.Fatalf("bound %+v, cost %f, %d pods on machines of NodePools", bound, cost, pods)
	}
}

// TestWindows checks the forecast of a budget with a schedule.
func TestWindows(t *testing.T) {
	var b dashboard.Builder
	s := b.Build(cluster(t, 60), dashboard.Known{})
	for _, p := range s.Pools {
		if p.Name != "batch" {
			continue
		}
		var got []dashboard.Window
		for _, w := range p.Windows {
			if w.Reason == "Underutilized" {
				got = append(got, w)
			}
		}
		// 09:30 to 18:00 closed, then open until 08:00, then closed again.
		if len(got) != 3 || got[0].Allowed != 0 || got[1].Allowed <= 0 || got[2].Allowed != 0 {
			t.Fatalf("windows = %+v", got)
		}
		for i, want := range []time.Time{dashboardtest.Now.Add(8*time.Hour + 35*time.Minute), dashboardtest.Now.Add(22*time.Hour + 30*time.Minute)} {
			if d := got[i].To.Sub(want).Abs(); d > 5*time.Minute {
				t.Errorf("window %d ends at %s, want about %s", i, got[i].To, want)
			}
		}
		return
	}
	t.Fatal("no pool batch")
}

func BenchmarkBuild(b *testing.B) {
	o := cluster(b, 5000)
	var builder dashboard.Builder
	b.ReportAllocs()
	for b.Loop() {
		builder.Build(o, dashboard.Known{})
	}
	b.ReportMetric(float64(len(o.Pods)), "pods")
}
