// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/test/sim/scenario"
)

func TestIntegralsAreExact(t *testing.T) {
	r := NewRecorder(Options{})
	r.Sample(Sample{T: 0, USDPerHour: 10, BoundUSDPerHour: 5})
	r.Sample(Sample{T: 30 * time.Minute, USDPerHour: 99, BoundUSDPerHour: 5})
	r.Sample(Sample{T: 30 * time.Minute, USDPerHour: 20, BoundUSDPerHour: 5})
	r.Sample(Sample{T: 90 * time.Minute, USDPerHour: 0, BoundUSDPerHour: 10})
	s := r.Summarise(2 * time.Hour)
	// 10 × 0.5 h + 20 × 1 h; 5 × 1.5 h + 10 × 0.5 h.
	if s.CostUSD != 25 || s.BoundUSD != 12.5 || s.CostOverBound != 2 {
		t.Errorf("cost %v, bound %v, ratio %v; want 25, 12.5, 2", s.CostUSD, s.BoundUSD, s.CostOverBound)
	}
	if s = r.Summarise(time.Hour); s.CostUSD != 15 {
		t.Errorf("cost of the first hour is %v, want 15", s.CostUSD)
	}
}

func TestPercentiles(t *testing.T) {
	var values []time.Duration
	for i := 1; i <= 100; i++ {
		values = append(values, time.Duration(i))
	}
	for _, c := range []struct {
		n    int
		p    float64
		want time.Duration
	}{{100, 0.5, 50}, {100, 0.99, 99}, {100, 1, 100}, {5, 0.5, 3}, {4, 0.5, 2}, {1, 0.99, 1}, {0, 0.5, 0}} {
		if got := percentile(values[:c.n], c.p); got != c.want {
			t.Errorf("percentile %v of 1 to %d is %d, want %d", c.p, c.n, got, c.want)
		}
	}
}

func TestLivesWavesAndWaste(t *testing.T) {
	r := NewRecorder(Options{})
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	r.PodCreated("a", s(1))
	r.PodCreated("b", s(1))
	r.PodCreated("c", s(2))
	r.PodCreated("gone", s(2))
	r.PodRunning("a", s(5))
	r.PodRunning("a", s(50))
	r.PodRunning("b", s(21))
	r.PodDeleted("gone", s(9))
	for i, at := range []float64{3, 7.5, 12.5, 17.6} {
		r.MachineBought(string(rune('a'+i)), "Standard_D8as_v6", s(at))
	}
	r.MachineUseful("a")
	r.MachineUseful("c")
	got := r.Summarise(s(60))
	if got.RunningP50Seconds != 4 || got.RunningMaxSeconds != 20 || got.NeverRan != 1 || got.Pods != 4 {
		t.Errorf("pods: %+v", got)
	}
	want := []Wave{{s(3), 3}, {s(17.6), 1}}
	if !reflect.DeepEqual(got.Waves, want) || got.MachinesBought != 4 || got.MachinesWasted != 2 {
		t.Errorf("machines: waves %v, want %v; bought %d, wasted %d", got.Waves, want, got.MachinesBought, got.MachinesWasted)
	}
}

func TestHistory(t *testing.T) {
	record := func(n int, change string) *Recorder {
		r := NewRecorder(Options{})
		for i := range n {
			r.Wrote(Write{T: time.Duration(i) * time.Second, Client: "nap", Verb: "create", Object: "NodeClaim a", Change: change})
		}
		return r
	}
	if again := record(100, "x").HistoryHash(); again != record(100, "x").HistoryHash() {
		t.Error("two equal histories have different hashes")
	}
	if record(100, "x").HistoryHash() == record(100, "y").HistoryHash() || record(100, "x").HistoryHash() == record(99, "x").HistoryHash() {
		t.Error("two different histories have the same hash")
	}
	r := record(100, "x\ny")
	r.Violated("fleet", "a machine has no claim", 100*time.Second)
	r.Violated("fleet", "another", 101*time.Second)
	v := r.Violations()
	if len(v) != 1 || len(v[0].History) != lastLines || v[0].History[0] != "   60.000000 nap create NodeClaim a x y" {
		t.Errorf("violations: %+v", v)
	}
}

func parse(t *testing.T, text string) (*scenario.Scenario, *scenario.Plan) {
	t.Helper()
	s, err := scenario.Parse(scenario.Source{Path: "test.yaml", Text: text})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Compile(1)
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

func TestExpectations(t *testing.T) {
	r := NewRecorder(Options{})
	r.Sample(Sample{T: 0, PodsTotal: 0})
	r.Sample(Sample{T: 10 * time.Second, PodsTotal: 10, PodsPending: 10, USDPerHour: 0, PlanUSDPerHour: 4})
	r.Sample(Sample{T: 40 * time.Second, PodsTotal: 10, PodsRunning: 10, USDPerHour: 5, PlanUSDPerHour: 4, Machines: 3})
	r.Sample(Sample{T: 80 * time.Second, PodsTotal: 10, PodsRunning: 10, USDPerHour: 4, PlanUSDPerHour: 4, Machines: 2, Evictions: 2})
	r.MachineBought("a", "", 20*time.Second)
	r.MachineBought("b", "", 70*time.Second)
	r.Event("Launched")
	for _, c := range []struct {
		expect string
		ok     bool
		got    string
	}{
		{"running: all", true, "running 10 of 10"},
		{"at: 39s, running: all", false, "running 0 of 10"},
		{"at: 5s, running: all", false, "running 0 of 0"},
		{"within: 30s, running: all", true, "running 10 of 10 at 40.0s"},
		{"within: 29s, running: all", false, "running 0 of 10 still at 39.0s"},
		{"cost: at most 1.03 plan", true, "cost 1.000 × plan (4.0000 $/h)"},
		{"at: 1m, cost: at most 1.03 plan", false, "cost 1.250 × plan (5.0000 $/h)"},
		{"cost: at most 1 bound", false, "cost: 4.0000 $/h, and the bound is not known"},
		{"evictions: at most 20%", true, "evictions 2 of 10"},
		{"evictions: at most 19%", false, "evictions 2 of 10"},
		{"always: true, machines: at most 2", false, "machines 3 at 40.0s"},
		{"always: true, at: 80s, machines: 2", true, "machines 2"},
		{"at: 50s, bought: 1", true, "bought 1"},
		{"bought: 1", false, "bought 2"},
		{"noChangeAfter: 60s", true, "last change at 1m10s"},
		{"noChangeAfter: 59s", false, "1 changes after 1m09s, the last at 1m10s"},
		{"event: Launched", true, "1 events Launched"},
		{"noEvent: Launched", false, "1 events Launched"},
		{"waves: 2", true, "waves 2"},
		{"engine: karpenter, bought: 99", true, ""},
	} {
		s, p := parse(t, "name: x\nduration: 100s\nevents:\n- {at: 10s, restart: {all: true}}\nexpect:\n- {"+c.expect+"}\n")
		checks := r.evaluate(s, p, "nap")
		if c.got == "" {
			if len(checks) != 0 {
				t.Errorf("%s: judged for the other engine: %v", c.expect, checks)
			}
			continue
		}
		if checks[0].OK != c.ok || checks[0].Got != c.got {
			t.Errorf("%s: %v %q, want %v %q", c.expect, checks[0].OK, checks[0].Got, c.ok, c.got)
		}
	}
}

func TestThinKeepsPeaksAndEnds(t *testing.T) {
	var all []Sample
	for i := range 10_000 {
		all = append(all, Sample{T: time.Duration(i) * time.Second})
	}
	all[5003].PodsPending = 700
	all[7777].USDPerHour = 12
	got := thin(all, 400)
	if len(got) > 400 || got[0].T != 0 || got[len(got)-1].T != all[9999].T {
		t.Errorf("%d samples from %s to %s", len(got), got[0].T, got[len(got)-1].T)
	}
	pending, cost := 0, 0.0
	for _, s := range got {
		pending, cost = max(pending, s.PodsPending), max(cost, s.USDPerHour)
	}
	if pending != 700 || cost != 12 {
		t.Errorf("the peaks are lost: %d pods, $%v", pending, cost)
	}
}

func summary(cost, p50 float64, bought int) *Result {
	return &Result{Scenario: "scale-in", Engine: "nap", Summary: Summary{
		CostUSD: cost, BoundUSD: 10, CostOverBound: cost / 10, FinalUSDPerHour: 60, FinalOverPlan: 1.05,
		Pods: 800, PodsRunning: 480, RunningP50Seconds: p50, RunningP99Seconds: 48, RunningMaxSeconds: 50,
		Machines: 30, MachinesMax: 45, MachinesBought: bought, Evictions: 100, APICalls: 9000, CPUSeconds: 12,
	}}
}

func TestCompareTable(t *testing.T) {
	var out bytes.Buffer
	other := []*Result{summary(30, 20, 15), summary(30, 22, 15), summary(30, 24, 16)}
	for _, r := range other {
		r.Engine = "karpenter"
	}
	other[2].Violations = []Violation{{Invariant: "fleet"}}
	if err := WriteCompare(&out, []*Result{summary(11, 30, 40), summary(12, 31, 50), summary(14, 32, 42)}, other); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/compare.txt", out.String())
}

func TestTextOutput(t *testing.T) {
	r := summary(12, 31, 45)
	r.Seed, r.HistoryHash = 7, strings.Repeat("ab", 32)
	r.Summary.SimulatedSeconds = 1500
	r.Summary.SetCPU(12)
	r.Summary.Waves = []Wave{{10 * time.Second, 40}, {70 * time.Second, 5}}
	r.Summary.APICallsByClient = map[string]int{"nap": 4000, "kube-scheduler": 5000}
	r.Checks = []Check{{"running all", true, "running 480 of 480"}, {"cost at most 1.03 plan", false, "cost 1.050 × plan"}}
	r.Violations = []Violation{{T: 100 * time.Second, Invariant: "fleet", Message: "machine a has no claim", History: []string{"99 nap delete NodeClaim a"}}}
	var out bytes.Buffer
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/result.txt", out.String())
}

// golden compares with a file; NAP_REWRITE=1 writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("NAP_REWRITE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (NAP_REWRITE=1 writes it again):\n%s", path, got)
	}
}

func TestResultSurvivesJSON(t *testing.T) {
	r := summary(1, 2, 3)
	r.Samples = []Sample{{T: time.Second, Machines: 4}}
	r.Source = scenario.Source{Path: "a.yaml", Text: "name: a", Files: map[string]string{"b": "c"}, Name: "a"}
	r.Checks = []Check{{"a", true, "b"}}
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ReadJSON(strings.NewReader("{}")); err == nil {
		t.Error("an empty result is read without an error")
	}
}

// life returns a result with a burst and a scale-in.
func life(engine string, lag float64) *Result {
	r := &Result{Scenario: "scale-in", Engine: engine, Seed: 7, Summary: Summary{SimulatedSeconds: 1500}}
	for i := 0; i <= 1500; i += 3 {
		x := float64(i)
		up := math.Max(0, math.Min(1, (x-15*lag)/(30*lag)))
		down := math.Max(0, math.Min(1, (x-400)/(250*lag)))
		s := Sample{T: time.Duration(i) * time.Second, USDPerHour: math.Floor(42*up)*1.9 - math.Floor(14*down)*1.9, Machines: int(42*up - 14*down), Evictions: int(300 * down * lag)}
		if i >= 10 {
			s.PodsPending = int(800 * (1 - up))
			s.PlanUSDPerHour, s.BoundUSDPerHour = 75, 71
		}
		if i >= 400 {
			s.PlanUSDPerHour, s.BoundUSDPerHour = 46, 43
		}
		r.Samples = append(r.Samples, s)
	}
	return r
}

func TestPicture(t *testing.T) {
	dir := t.TempDir()
	if d := os.Getenv("NAP_PICTURES"); d != "" {
		dir = d
	}
	both := []*Result{life("nap", 1), life("karpenter", 1.3)}
	if err := WritePicture(dir+"/both.png", both...); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/both.png")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	// Each line has its colour somewhere in the picture.
	for name, want := range map[string]any{"nap": runColours[0], "karpenter": runColours[1]} {
		wr, wg, wb, _ := runColours[map[string]int{"nap": 0, "karpenter": 1}[name]].RGBA()
		found := false
		for y := 0; y < img.Bounds().Dy() && !found; y++ {
			for x := 0; x < img.Bounds().Dx() && !found; x++ {
				r, g, b, _ := img.At(x, y).RGBA()
				found = r == wr && g == wg && b == wb
			}
		}
		if !found {
			t.Errorf("the picture has no line of %s in %v", name, want)
		}
	}
	var svg bytes.Buffer
	if err := Draw(&svg, "svg", both...); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"pods pending", "cost, $/h", "machines", "evictions since start", "karpenter", "one plan of all pods", "lower bound", "10 min"} {
		if !strings.Contains(svg.String(), text) {
			t.Errorf("the picture does not have the text %q", text)
		}
	}
	dec := xml.NewDecoder(&svg)
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the SVG is no XML: %v", err)
		}
	}
	if err := WritePicture(dir+"/a.png", &Result{}); err == nil {
		t.Error("a picture without samples is drawn")
	}
}
