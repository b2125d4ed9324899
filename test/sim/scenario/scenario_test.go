// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	policyv1 "k8s.io/api/policy/v1"
)

const folder = "../scenarios"

// text writes a plan as text, objects as JSON.
func text(t *testing.T, p *Plan) string {
	t.Helper()
	var b strings.Builder
	for _, a := range append(slices.Clone(p.Start), p.Actions...) {
		j, err := json.Marshal(a.Step)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %T %s\n", a.At, a.Step, j)
	}
	return b.String()
}

// TestScenarioFiles compiles each file that comes with the simulator twice.
func TestScenarioFiles(t *testing.T) {
	list, err := LoadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	known, kinds := 0, map[string]bool{}
	for _, s := range list {
		if s.About == "" {
			t.Errorf("%s says nothing about itself", s.Name)
		}
		if s.KnownFailure != nil {
			known++
		}
		for _, e := range s.Events {
			if e.Fault != nil {
				kinds[e.Fault.Kind] = true
			}
		}
		if strings.HasPrefix(s.Name, "burst-200") || s.Name == "big-day" || s.Name == "trace-day" {
			continue // compiled below: their text is long
		}
		again, err := Parse(s.Source)
		if err != nil {
			t.Errorf("%s cannot be read again from its source: %v", s.Name, err)
			continue
		}
		one, err := s.Compile(7)
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		two, err := again.Compile(7)
		if err != nil || text(t, one) != text(t, two) {
			t.Errorf("%s: two plans of one seed differ (%v)", s.Name, err)
		}
	}
	if known != 2 {
		t.Errorf("%d known failures, want 2", known)
	}
	for _, k := range FaultKinds {
		if !kinds[k.Name] {
			t.Errorf("no scenario has the fault %s", k.Name)
		}
	}
}

func TestSeedsDiffer(t *testing.T) {
	s, err := Burst(BurstOptions{Count: 40, Replicas: 20, Over: 10 * time.Second, Boot: time.Minute, ScaleTo: 0.6})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "scale-in-40-boot-1m" || s.Settings.Boot != Exactly(time.Minute) || len(s.Events) != 2 {
		t.Errorf("the burst is %+v", s)
	}
	a, err := s.Compile(1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Compile(2)
	if err != nil {
		t.Fatal(err)
	}
	if text(t, a) == text(t, b) {
		t.Error("two seeds make the same workloads")
	}
}

func parse(src string) (*Scenario, error) {
	return Parse(Source{Path: "s.yaml", Text: src, Files: map[string]string{
		"ok.yaml":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n",
		"trace.csv": "name,cpu_milli,memory_mib,num_gpu,creation_time,deletion_time\na,1000,2048,0,10,70\nb,2000,4096,1,5,\nc,500,512,0,0,20\n",
	}})
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "s.yaml: the file is empty: write at least name and events"},
		{"name: A b", `s.yaml: name is "A b": write lower-case letters, digits, dots and dashes`},
		{"name: a\nevent: []", `s.yaml: line 2: the scenario has no field "event": write "events"`},
		{"name: a\nname: b", `s.yaml: line 2: the scenario has the field "name" twice`},
		{"name: a\nduration: 10", `s.yaml: line 2: "10" has no unit: write for example 10s or 10m`},
		{"name: a\nduration: ten", `s.yaml: line 2: "ten" is no duration: write for example 90s, 5m, 1h30m or 2d`},
		{"name: a\nsettings: {boot: 5s..2s}", `s.yaml: line 2: "5s..2s" ends before it begins: write 2s..5s`},
		{"name: a\nsettings: {machine: mac}", `s.yaml: settings.machine: the preset "mac" is unknown: write laptop or aks`},
		{"name: a\nseed: -1", `s.yaml: line 2: seed is "-1": write a whole number that is not negative`},
		{"name: a\nevents:\n- at: 1s", `s.yaml: line 3: the event has no action: write one of ` + actionNames},
		{"name: a\nevents:\n- {at: 1s, restart: {all: true}, drain: {count: 1}}", `s.yaml: line 3: the event has 2 actions, restart and drain: write an event for each`},
		{"name: a\nduration: 1m\nevents:\n- {at: 2m, restart: {all: true}}", `s.yaml: line 4: at 2m is after the end at 1m`},
		{"name: a\nevents:\n- {at: 2m, every: 1m, restart: {all: true}}", `s.yaml: line 3: every without until needs the scenario's duration`},
		{"name: a\nevents:\n- {restart: {}}", `s.yaml: line 3: restart selects nothing: write names, labels, namespace, or all: true`},
		{"name: a\nevents:\n- {scale: {all: true, to: sixty}}", `s.yaml: line 3: "sixty" is no count: write a whole number, or a percentage such as 60%`},
		{"name: a\nevents:\n- {fault: {kind: stockout}}", `s.yaml: line 3: the fault kind "stockout" is unknown: write "stockOut"`},
		{"name: a\nevents:\n- {fault: {kind: conflict, zone: '1'}}", `s.yaml: line 3: the fault conflict takes no zone: it takes client, verb, resource, for, probability, times`},
		{"name: a\nevents:\n- {fault: {kind: leaderOverlap}}", `s.yaml: line 3: the fault leaderOverlap needs for`},
		{"name: a\nevents:\n- {fault: {kind: conflict, probability: 2}}", `s.yaml: line 3: probability is 2: write a number above 0 and at most 1`},
		{"name: a\nevents:\n- {generate: {name: a, count: 1, cpu: 1}}", `s.yaml: line 3: generate needs both cpu and memory, or neither`},
		{"name: a\nevents:\n- {generate: {name: a, count: 1, zoneSpread: 0.5}}", `s.yaml: line 3: "0.5" is no share: write a percentage from 0% to 100%, for example 25%`},
		{"name: a\nevents:\n- {generate: {name: a, count: 1}}\n- {generate: {name: a, count: 2}}", `s.yaml: line 4: the names default/a overlap with those of line 3: write another name or namespace`},
		{"name: a\nevents:\n- {apply: [{kind: Pod}]}", `s.yaml: line 3: an object has no apiVersion or no kind: write both`},
		{"name: a\nevents:\n- {apply: [{file: no.yaml}]}", `s.yaml: line 3: reading the file no.yaml: it is not among the files of the source`},
		{"name: a\nobjects: [{file: ok.yaml}, {file: ok.yaml}]", "s.yaml: line 2: ConfigMap default/a is among the objects twice: rename one\ns.yaml: line 2: Namespace b is among the objects twice: rename one"},
		{"name: a\nexpect:\n- {within: 1m}", `s.yaml: line 3: the expectation expects nothing: write a figure, for example running: all`},
		{"name: a\nexpect:\n- {machines: about 3}", `s.yaml: line 3: "about 3" is no condition: ` + conditionForms},
		{"name: a\nexpect:\n- {cost: at most 5 plans}", `s.yaml: line 3: "at most 5 plans" is no condition: the unit "plans" is unknown; ` + conditionForms},
		{"name: a\nexpect:\n- {machines: at most 1 plan}", `s.yaml: line 3: machines is "at most 1 plan": write a number`},
		{"name: a\nexpect:\n- {timeToRunningP50: 5}", `s.yaml: line 3: timeToRunningP50 is "5": write a duration such as 48s`},
		{"name: a\nexpect:\n- {at: 1s, waves: 5}", `s.yaml: line 3: waves is known at the end only: write it without at, within and always`},
		{"name: a\ninvariants: {off: [fleets]}", `s.yaml: invariants.off: the invariant "fleets" is unknown: write "fleet"`},
		{"name: a\nknownFailure: {reason: x, expectation: y}", `s.yaml: knownFailure.expectation: there is no expectation named "y"`},
		{"name: a-$(x)\nmatrix: {y: [1]}", `s.yaml: line 1: $(x) is no parameter of matrix`},
		{"name: a\nmatrix: {y: [1]}", `s.yaml: line 2: the parameter y of matrix is not used: write $(y) where it belongs`},
		{"name: a\nseed: $(y)\nmatrix: {y: [1, 2]}", `s.yaml: the matrix makes the name a twice: use each of its parameters in name, for example name: burst-$(count)`},
	} {
		_, err := parse(c.text)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q\n got %v\nwant %s", c.text, err, c.want)
		}
	}
	_, err := parse("name: a\nobjects:\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replica: 3}}")
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.replica"`) {
		t.Errorf("an unknown field of a Deployment: %v", err)
	}
}

func TestGenerateHasTheSharesAsked(t *testing.T) {
	s, err := parse(`name: a
events:
- at: 5s
  generate: {name: app, namespace: load, count: 40, replicas: 3..7, over: 20s, zoneSpread: 25%, hostnameAntiAffinity: 10%, pdb: 50%, doNotDisrupt: 5%, spot: 30%, cpu: 100m..4, memory: 1Gi}
- at: 5s
  generate: {name: work, namespace: load, kind: Job, count: 2, replicas: 4, runFor: 30s..60s}
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Compile(3)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, a := range p.Actions {
		apply, ok := a.Step.(Apply)
		if !ok {
			t.Fatalf("a step %T", a.Step)
		}
		for _, o := range apply.Objects {
			switch o := o.(type) {
			case *appsv1.Deployment:
				counts["deployments"]++
				if n := *o.Spec.Replicas; n < 3 || n > 7 || o.Annotations[ReplicasAnnotation] != fmt.Sprint(n) {
					t.Errorf("%s has %d replicas, annotated %s", o.Name, n, o.Annotations[ReplicasAnnotation])
				}
				spec := o.Spec.Template.Spec
				if cpu := spec.Containers[0].Resources.Requests.Cpu().MilliValue(); cpu < 100 || cpu > 4000 {
					t.Errorf("%s asks for %dm", o.Name, cpu)
				}
				for name, has := range map[string]bool{
					"spread": len(spec.TopologySpreadConstraints) > 0, "apart": spec.Affinity != nil,
					"keep": o.Spec.Template.Annotations[doNotDisrupt] == "true", "spot": len(spec.NodeSelector) > 0,
				} {
					if has {
						counts[name]++
					}
				}
				counts["last"] = max(counts["last"], int(a.At/time.Millisecond))
			case *policyv1.PodDisruptionBudget:
				counts["budgets"]++
			case *batchv1.Job:
				counts["jobs"]++
				d, err := time.ParseDuration(o.Spec.Template.Annotations[RunForAnnotation])
				if err != nil || d < 30*time.Second || d > time.Minute {
					t.Errorf("%s runs for %s, %v", o.Name, d, err)
				}
			}
		}
	}
	for name, want := range map[string]int{"deployments": 40, "spread": 10, "apart": 4, "keep": 2, "spot": 12, "budgets": 20, "jobs": 2, "last": 24500} {
		if counts[name] != want {
			t.Errorf("%s: %d, want %d", name, counts[name], want)
		}
	}
	if p.LastEvent != 24500*time.Millisecond || p.Duration != p.LastEvent+afterLast {
		t.Errorf("last event at %s, duration %s", p.LastEvent, p.Duration)
	}
}

func TestTraceFile(t *testing.T) {
	s, err := parse("name: a\nduration: 1h\nevents:\n- {at: 1m, trace: {file: trace.csv, speed: 2}}\n")
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Compile(1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range p.Actions {
		switch step := a.Step.(type) {
		case Apply:
			got = append(got, fmt.Sprintf("%s + %s", a.At, reference(step.Objects[0])))
		case Delete:
			got = append(got, fmt.Sprintf("%s - %s", a.At, step.Ref))
		}
	}
	// Row b asks for a GPU and is left out.
	want := []string{"1m0s + ReplicaSet default/task-00000", "1m5s + ReplicaSet default/task-00001", "1m10s - ReplicaSet default/task-00000", "1m35s - ReplicaSet default/task-00001"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestMadeTraceIsADay(t *testing.T) {
	tasks := makeTrace(Stream(1, "x"), 8000)
	night, day := 0, 0
	for _, k := range tasks {
		switch {
		case k.arrival < 0 || k.arrival >= 24*time.Hour || k.end-k.arrival < 30*time.Second:
			t.Fatalf("a task from %s to %s", k.arrival, k.end)
		case k.arrival < 6*time.Hour:
			night++
		case k.arrival >= 12*time.Hour && k.arrival < 18*time.Hour:
			day++
		}
	}
	if len(tasks) != 8000 || day < 2*night {
		t.Errorf("%d tasks, %d of them at night and %d in the afternoon", len(tasks), night, day)
	}
}

func TestRepeatedEventsAndFaultWindows(t *testing.T) {
	s, err := parse(`name: a
duration: 1h
events:
- {at: 10m, every: 20m, until: 50m, restart: {all: true}}
- {at: 55m, fault: {kind: hang, for: 20m}}
- {at: 5m, fault: {kind: conflict}}
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Compile(1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range p.Actions {
		line := fmt.Sprintf("%s %T", a.At, a.Step)
		if f, ok := a.Step.(Inject); ok {
			line += " until " + f.Until.String()
		}
		got = append(got, line)
	}
	want := []string{
		"5m0s scenario.Inject until 1h0m0s", "10m0s scenario.Restart", "30m0s scenario.Restart", "50m0s scenario.Restart",
		"55m0s scenario.Inject until 1h0m0s",
	}
	if !slices.Equal(got, want) || p.LastEvent != time.Hour {
		t.Errorf("got %q, last event at %s", got, p.LastEvent)
	}
}

func TestMatrixNames(t *testing.T) {
	list, err := Load(filepath.Join(folder, "burst.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 18 || list[0].Name != "burst-5-over-0s-boot-1500ms" || list[17].Name != "burst-200-over-60s-boot-60s" {
		t.Errorf("%d scenarios: %q", len(list), names(list))
	}
	if b := list[1].Settings.Boot; b != Exactly(time.Minute) {
		t.Errorf("the second boots in %s", b)
	}
}

func TestLoadDirRefusesEqualNames(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"a.yaml", "b.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("name: same\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "the scenario same is in") {
		t.Errorf("got %v", err)
	}
}
