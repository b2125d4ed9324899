// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nap-aks/nap/internal/kubemem"
	"github.com/nap-aks/nap/snapshot"
)

var at = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, text string) *Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ReadManifests([]string{path}, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run executes a command and returns its output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := NewPlanCommand()
	if args[0] == "explain" {
		cmd = NewExplainCommand()
	}
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args[1:])
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func planJSON(t *testing.T, args ...string) *Report {
	t.Helper()
	out, err := run(t, append([]string{"plan", "-o", "json", "--quick"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

func TestWorkloadsBecomePods(t *testing.T) {
	s, err := ReadManifests([]string{"testdata/shop.yaml"}, at)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, p := range s.Objects.Pods {
		o := p.OwnerReferences[0]
		count[o.Kind+" "+strings.Split(p.Name, "-")[0]]++
		if p.Namespace != "shop" {
			t.Errorf("pod %s in namespace %s", p.Name, p.Namespace)
		}
	}
	want := map[string]int{"ReplicaSet web": 30, "ReplicaSet api": 12, "StatefulSet db": 3, "Job train": 2}
	if !reflect.DeepEqual(count, want) {
		t.Errorf("got %v, want %v", count, want)
	}
	if len(s.Objects.DaemonSets) != 1 || len(s.Objects.PVCs) != 3 {
		t.Errorf("%d DaemonSets, %d claims", len(s.Objects.DaemonSets), len(s.Objects.PVCs))
	}
	if !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "Widget") }) {
		t.Errorf("no note about what was ignored: %v", s.Notes)
	}
}

func TestManifestsGetClusterDefaults(t *testing.T) {
	s := read(t, `
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  hostNetwork: true
  containers: [{name: c, image: x, ports: [{containerPort: 53}], resources: {limits: {cpu: "2"}}}]
---
kind: List
apiVersion: v1
items:
- {apiVersion: v1, kind: Pod, metadata: {name: done}, status: {phase: Succeeded}, spec: {containers: []}}
- {apiVersion: v1, kind: Pod, metadata: {name: runs}, spec: {nodeName: n1, containers: []}}
- {apiVersion: batch/v1, kind: CronJob, metadata: {name: nightly}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: cm}}
`)
	byName := map[string]*corev1.Pod{}
	for _, p := range s.Objects.Pods {
		byName[p.Name] = p
	}
	a := byName["a"]
	if a.Namespace != "default" || a.Spec.Containers[0].Ports[0].HostPort != 53 || a.Spec.Containers[0].Resources.Requests.Cpu().String() != "2" {
		t.Errorf("a: %+v", a.Spec)
	}
	if byName["runs"].Status.Phase != corev1.PodRunning || byName["done"].Status.Phase != corev1.PodSucceeded {
		t.Errorf("phases: %v %v", byName["runs"].Status, byName["done"].Status)
	}
	if len(s.Notes) != 2 {
		t.Errorf("notes: %v", s.Notes)
	}
}

func TestPodsGivenWithTheirOwnersAreNotDuplicated(t *testing.T) {
	s := read(t, `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: []}}}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: u, controller: true}]}, spec: {replicas: 2, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: []}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1-x, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: v, controller: true}]}, spec: {containers: []}}
`)
	if len(s.Objects.Pods) != 1 {
		t.Errorf("%d pods, want the one that is given", len(s.Objects.Pods))
	}
}

func TestPlanPlacesEveryPodOnce(t *testing.T) {
	for _, engineName := range []string{EngineNap, EngineKarpenter} {
		r := planJSON(t, "-f", "testdata/shop.yaml", "--engine", engineName)
		seen := map[string]int{}
		for _, m := range r.Machines {
			if m.Size == "" || m.USDPerHour <= 0 || len(m.Pods) == 0 {
				t.Errorf("%s: machine %+v", engineName, m)
			}
			for _, p := range m.Pods {
				seen[p]++
			}
		}
		for _, v := range r.Refused {
			if v.Reason == "" {
				t.Errorf("%s: pods %v are refused without a reason", engineName, v.Pods)
			}
			for _, p := range v.Pods {
				seen[p]++
			}
		}
		for p, n := range seen {
			if n != 1 {
				t.Errorf("%s: pod %s occurs %d times", engineName, p, n)
			}
		}
		s := r.Summary
		if len(seen) != 47 || s.Pods != 47 || s.OnMachines != 45 || s.Refused != 2 || s.Machines != len(r.Machines) {
			t.Errorf("%s: %d pods seen, %+v", engineName, len(seen), s)
		}
		for _, v := range r.Refused {
			if !strings.HasPrefix(v.Pods[0], "shop/train-") {
				t.Errorf("%s: %v are refused, not the GPU pods", engineName, v.Pods)
			}
		}
	}
}

// The example has one NodePool, for spot. The plan adds the one AKS creates.
func TestExampleUsesAKSDefaultNodePool(t *testing.T) {
	r := planJSON(t, "-f", "../examples/shop.yaml")
	if len(r.Refused) != 0 {
		t.Errorf("refused: %+v", r.Refused)
	}
	pools := map[string]bool{}
	for _, m := range r.Machines {
		pools[m.NodePool] = true
	}
	if !pools["default"] || !pools["spot-batch"] {
		t.Errorf("machines come from %v, want default and spot-batch", pools)
	}
	// eastus has zones: nothing is planned where the zone is not known.
	for _, m := range r.Machines {
		if m.Zone == "0" {
			t.Errorf("a %s of NodePool %s is regional", m.Size, m.NodePool)
		}
	}
}

func TestGPUPodsGetAGPUFamily(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool.yaml")
	pool := `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: gpu}
spec:
  template:
    spec:
      nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}
      requirements:
      - {key: karpenter.azure.com/sku-family, operator: In, values: ["N"]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [spot]}
`
	if err := os.WriteFile(path, []byte(pool), 0o600); err != nil {
		t.Fatal(err)
	}
	r := planJSON(t, "-f", "testdata/shop.yaml", "-f", path, "--region", "westeurope", "--default-node-pools", "None")
	for _, m := range r.Machines {
		if m.CapacityType != "spot" || !strings.HasPrefix(m.Size, "Standard_N") || m.NodePool != "gpu" {
			t.Errorf("machine %+v", m)
		}
	}
	if r.Region != "westeurope" || r.Summary.OnMachines != 47 {
		t.Errorf("%+v", r.Summary)
	}
}

func TestPlanStaysWithinQuotas(t *testing.T) {
	dir := t.TempDir()
	usage, pod := filepath.Join(dir, "usage.json"), filepath.Join(dir, "in.yaml")
	// az prints amounts as strings.
	if err := os.WriteFile(usage, []byte(`[
		{"currentValue": "90", "limit": "100", "localName": "Total Regional vCPUs", "name": {"value": "cores", "localizedValue": "Total Regional vCPUs"}},
		{"currentValue": "1", "limit": "20", "name": {"value": "PublicIPAddresses", "localizedValue": "Public IP Addresses"}}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pod, []byte(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 8, selector: {matchLabels: {app: web}},
		template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: x, resources: {requests: {cpu: 3500m}}}]}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := planJSON(t, "-f", pod); r.Summary.Refused != 0 {
		t.Fatalf("%d pods refused without quotas", r.Summary.Refused)
	}
	file := filepath.Join(dir, "cluster.nap")
	r := planJSON(t, "-f", pod, "--usage", usage, "--save", file)
	if r.Summary.OnMachines != 2 || r.Summary.Refused != 6 {
		t.Errorf("%d pods on machines and %d refused; 10 vCPUs hold two pods of 3.5", r.Summary.OnMachines, r.Summary.Refused)
	}
	if len(r.Refused) != 1 || r.Refused[0].Code != "Quota" || !strings.Contains(r.Refused[0].Reason, "of quota cores (Total Regional vCPUs), 2 left of 100 after the 8 of this plan: ask Azure for more") {
		t.Errorf("the refusal is %+v", r.Refused)
	}
	// The snapshot file has the quotas.
	if again := planJSON(t, "--snapshot", file); again.Summary.Refused != 6 {
		t.Errorf("the replay refuses %d", again.Summary.Refused)
	}
	if err := os.WriteFile(usage, []byte(`{"hello": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "plan", "-f", pod, "--usage", usage); err == nil || !strings.Contains(err.Error(), "az vm list-usage") {
		t.Errorf("a file that is not a usage file: %v", err)
	}
}

func TestSavedPlanReplaysIdentically(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.nap")
	first := planJSON(t, "-f", "testdata/shop.yaml", "--save", file)
	second := planJSON(t, "--snapshot", file)
	first.Notes, second.Notes = nil, nil
	for _, r := range []*Report{first, second} {
		r.Summary.PlanSeconds, r.Summary.ReadSeconds = 0, 0
	}
	if !reflect.DeepEqual(first, second) {
		a, _ := json.Marshal(first)
		b, _ := json.Marshal(second)
		t.Errorf("the replay differs:\n%s\n%s", a, b)
	}
	if !slices.IsSortedFunc(first.Machines, func(a, b Machine) int { return int(10000 * (b.USDPerHour - a.USDPerHour)) }) {
		t.Error("machines are not in order")
	}
}

func TestManifestsAreMergedIntoSnapshot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.nap")
	planJSON(t, "-f", "testdata/shop.yaml", "--save", file)
	more := filepath.Join(t.TempDir(), "more.yaml")
	text := `{apiVersion: v1, kind: Pod, metadata: {name: extra, namespace: shop}, spec: {containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}}`
	if err := os.WriteFile(more, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := planJSON(t, "--snapshot", file, "-f", more); r.Summary.Pods != 48 {
		t.Errorf("%d pods, want 48", r.Summary.Pods)
	}
}

func TestExistingNodesAreUsedFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.yaml")
	text := `
{apiVersion: v1, kind: Node, metadata: {name: big, labels: {node.kubernetes.io/instance-type: Standard_D16s_v5, topology.kubernetes.io/zone: eastus-1, kubernetes.io/os: linux, kubernetes.io/arch: amd64}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := planJSON(t, "-f", path)
	if r.Summary.OnNodes != 1 || len(r.Placements) != 1 || r.Placements[0].Node != "big" {
		t.Errorf("%+v %+v", r.Summary, r.Placements)
	}
}

func TestCompareShowsBothEngines(t *testing.T) {
	out, err := run(t, "plan", "--quick", "-f", "testdata/shop.yaml", "--compare")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NAP", "KARPENTER", "$ per hour", "refused"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	out, err = run(t, "plan", "--quick", "-f", "testdata/shop.yaml", "--compare", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var c Comparison
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Nap.Engine != EngineNap || c.Karpenter.Engine != EngineKarpenter {
		t.Errorf("%v %+v", err, c)
	}
}

// A comparison measures both plans by one bound that holds for either.
func TestCompareUsesOneBoundForBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apart.yaml")
	text := `
apiVersion: apps/v1
kind: Deployment
metadata: {name: apart}
spec:
  replicas: 40
  selector: {matchLabels: {app: apart}}
  template:
    metadata: {labels: {app: apart}}
    spec:
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: apart}}}]}}
      containers: [{name: c, image: x, resources: {requests: {cpu: 500m, memory: 256Mi}}}]
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "plan", "-f", path, "--compare", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var c Comparison
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	k, n := &c.Karpenter.Summary, &c.Nap.Summary
	if n.Refused+k.Refused > 0 || n.Machines != 40 {
		t.Fatalf("%+v\n%+v", n, k)
	}
	if k.BoundUSDPerHour < 0.99*n.USDPerHour || k.BoundUSDPerHour > n.USDPerHour+1e-9 || k.BoundUSDPerHour > k.USDPerHour+1e-9 || k.Gap == nil {
		t.Errorf("bound %v; nap costs %v, Karpenter %v", k.BoundUSDPerHour, n.USDPerHour, k.USDPerHour)
	}
	out, err = run(t, "plan", "-f", path, "--engine", "karpenter")
	if err != nil || !strings.Contains(out, "no placement costs less than") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExplainNamesOutcomeAndConstraints(t *testing.T) {
	for name, want := range map[string][]string{
		"train-0": {"no place", "nvidia.com/gpu", "CONSTRAINT", "NEAREST MISS"},
		"db-1":    {"new machine", "Standard_D", "CONSTRAINT", "3 pods of the same shape"},
	} {
		out, err := run(t, "explain", "pod", name, "-n", "shop", "-f", "testdata/shop.yaml", "--quick")
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in:\n%s", name, w, out)
			}
		}
	}
	if _, err := run(t, "explain", "pod", "web", "-n", "shop", "-f", "testdata/shop.yaml"); err == nil || !strings.Contains(err.Error(), "shop/web-00") {
		t.Errorf("a pod that does not exist: %v", err)
	}
	if _, err := run(t, "explain", "node", "x", "-f", "testdata/shop.yaml"); err == nil {
		t.Error("explain node returned no error")
	}
	missing := filepath.Join(t.TempDir(), "in.yaml")
	text := `{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [], volumes: [{name: v, persistentVolumeClaim: {claimName: lost}}]}}`
	if err := os.WriteFile(missing, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "explain", "pod", "p", "-f", missing, "-o", "json")
	if err != nil || !strings.Contains(out, `"Invalid"`) || !strings.Contains(out, "lost") {
		t.Errorf("a pod with a lost claim: %v\n%s", err, out)
	}
}

func TestUsageErrorsSayWhatToDo(t *testing.T) {
	for _, c := range [][]string{
		{"plan"}, {"plan", "-f", "testdata/shop.yaml", "--region", "mars"}, {"plan", "-f", "nowhere.yaml"}, {"plan", "-f", "testdata/shop.yaml", "-o", "yaml"},
		{"plan", "-f", "testdata/shop.yaml", "--engine", "dice"}, {"plan", "--snapshot", "testdata/shop.yaml"}, {"plan", "--snapshot", "x", "--from-cluster"},
	} {
		if out, err := run(t, c...); err == nil || len(err.Error()) < 20 {
			t.Errorf("%v: error %v, output %s", c, err, out)
		}
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[Report]().PkgPath() {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !regexpWord(string(doc), name) {
				t.Errorf("docs/plan.md does not mention %s of %s", name, typ.Name())
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Report]())
	walk(reflect.TypeFor[Explanation]())
	walk(reflect.TypeFor[Comparison]())
}

func regexpWord(doc, name string) bool {
	for _, form := range []string{"`" + name + "`", "." + name + "`", "`" + name + "[]", "." + name + "[]", `"` + name + `"`} {
		if strings.Contains(doc, form) {
			return true
		}
	}
	return false
}

func TestLiveClusterIsOnlyRead(t *testing.T) {
	s, err := ReadManifests([]string{"testdata/shop.yaml"}, at)
	if err != nil {
		t.Fatal(err)
	}
	c := kubemem.New()
	s.Objects.Each(func(o client.Object) { c.Upsert(o) })
	live, err := ListCluster(context.Background(), c, at) // kubemem refuses every write
	if err != nil {
		t.Fatal(err)
	}
	if len(live.Objects.Pods) != len(s.Objects.Pods) {
		t.Errorf("%d pods, want %d", len(live.Objects.Pods), len(s.Objects.Pods))
	}
	if err := live.AddInstanceTypes("eastus"); err != nil {
		t.Fatal(err)
	}
	before, err := snapshot.Build(live.Objects)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Nap(live.Objects, Options{Quick: true})
	if err != nil || r.Summary.Pods != 47 || len(before.Pods) != 47 {
		t.Errorf("%v, %+v", err, r)
	}
}

// A plan of manifests honours preferences as the controller does by default: not where
// they multiply the bill.
func TestPreferencesDoNotMultiplyTheBill(t *testing.T) {
	r := planJSON(t, "-f", "testdata/preferences.yaml")
	// One machine of four cores or two of two cost the same.
	if n := len(r.Machines); n > 2 || len(r.Refused) != 0 {
		t.Errorf("%d machines, %d refused; want at most two machines", n, len(r.Refused))
	}
}
