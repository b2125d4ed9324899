// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package migration_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/localazure/arm/migration"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

var update = flag.Bool("update", false, "write the .want files")

// scenario reads a file of testdata: a cluster's pools, as `az aks show` prints
// them, by name.
func scenario(t *testing.T, file string) (migration.Cluster, migration.Options) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Location          string
		AutoScalerProfile rp.Doc
		Pools             map[string]rp.Doc
		Priorities        string
	}
	if err := sigsyaml.UnmarshalStrict(b, &in); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	c := migration.Cluster{Location: in.Location, AutoScalerProfile: in.AutoScalerProfile}
	for n, p := range in.Pools {
		c.Pools = append(c.Pools, migration.Pool{Name: n, Properties: p})
	}
	return c, migration.Options{Priorities: in.Priorities, ScaleSet: func(pool string) string { return "aks-" + pool + "-1234-vmss" }}
}

// The .want file of a scenario has the proposal and all notes.
func TestTranslateScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d scenarios (%v)", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".yaml"), func(t *testing.T) {
			p, err := migration.Translate(scenario(t, f))
			if err != nil {
				t.Fatal(err)
			}
			text, err := p.YAML()
			if err != nil {
				t.Fatal(err)
			}
			valid(t, text)
			got := text + "\n=== all notes\n"
			for _, n := range p.Notes {
				got += strings.TrimPrefix(n.Pool+": ", ": ") + n.String() + "\n"
			}
			want := strings.TrimSuffix(f, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(b) {
				t.Errorf("translation of %s differs from %s (go test ./localazure/arm/migration -update rewrites it):\n%s", f, want, got)
			}
		})
	}
}

// valid checks that the proposal has no unknown fields and that Karpenter accepts
// its values.
func valid(t *testing.T, text string) {
	t.Helper()
	names := map[string]string{}
	for _, doc := range strings.Split(text, "---\n") {
		if !strings.Contains(doc, "kind:") {
			continue
		}
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatal(err)
		}
		switch kind.Kind {
		case "NodePool":
			var np karpv1.NodePool
			if err := sigsyaml.UnmarshalStrict([]byte(doc), &np); err != nil {
				t.Fatalf("%v in\n%s", err, doc)
			}
			if err := np.RuntimeValidate(t.Context()); err != nil {
				t.Errorf("NodePool %s: %v", np.Name, err)
			}
			names[np.Spec.Template.Spec.NodeClassRef.Name] += "pool "
		case "AKSNodeClass":
			var nc v1beta1.AKSNodeClass
			if err := sigsyaml.UnmarshalStrict([]byte(doc), &nc); err != nil {
				t.Fatalf("%v in\n%s", err, doc)
			}
			names[nc.Name] += "class"
		default:
			t.Errorf("a %s in the proposal", kind.Kind)
		}
	}
	for n, has := range names {
		if has != "pool class" {
			t.Errorf("%s: there is a %s only", n, has)
		}
	}
}

func TestChoiceOfPoolsAndSizes(t *testing.T) {
	c, _ := scenario(t, "testdata/shop.yaml")
	p, err := migration.Translate(c, migration.Options{Pools: []string{"byhand", "web"}, KeepSizes: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.Pools(), " "); got != "byhand web" {
		t.Errorf("replaced are %s", got)
	}
	text, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	valid(t, text)
	for _, want := range []string{"- Standard_D8s_v5", "- Standard_D4s_v5", "cpu: \"8\"", "cpu: \"80\""} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, v1beta1.LabelSKUFamily) {
		t.Error("sizes are to be kept, but a family is asked for")
	}
	left := false
	for _, n := range p.Notes {
		left = left || n.Pool == "batch" && strings.Contains(n.Text, "was not chosen")
	}
	if !left {
		t.Error("nothing says that the pool batch stays without its autoscaler")
	}
	for pool, want := range map[string]string{"system": "of mode System and stays", "nosuch": `no agent pool "nosuch"`} {
		if _, err := migration.Translate(c, migration.Options{Pools: []string{pool}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("replacing %s: %v", pool, err)
		}
	}
}

// The labels that are left out are those that admission refuses.
func TestLostLabelsAgreeWithAdmission(t *testing.T) {
	message := ""
	for _, crd := range apis.CRDs() {
		if crd.Spec.Names.Kind != "NodePool" {
			continue
		}
		s := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties["template"].Properties["metadata"].Properties["labels"]
		for _, r := range s.XValidations {
			message += r.Rule + "\n"
		}
	}
	for key, refused := range map[string]bool{
		"kubernetes.azure.com/mode": false, "kubernetes.azure.com/os-sku": false, "kubernetes.azure.com/scalesetpriority": false,
		"kubernetes.azure.com/agentpool": true, "agentpool": true, "storagetier": true, "accelerator": true, "tier": false, "example.com/tier": false,
	} {
		c := migration.Cluster{Location: "eastus", Pools: []migration.Pool{{Name: "p", Properties: rp.Doc{"mode": "User", "vmSize": "Standard_D4s_v5", "count": 1.0, "nodeLabels": map[string]any{key: "x"}}}}}
		p, err := migration.Translate(c, migration.Options{Pools: []string{"p"}})
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if noted := strings.Contains(text, "nodeLabels ("+key+") is lost"); noted != refused {
			t.Errorf("label %s: left out %v, want %v\n%s", key, noted, refused, text)
		}
		quoted := strings.Contains(message, `"`+key+`"`)
		own := strings.HasPrefix(key, "kubernetes.azure.com/") || !strings.Contains(key, "/") && key != "tier"
		// For AKS's domain, admission lists the allowed keys; for bare keys, the refused ones.
		if own && strings.Contains(key, "/") && quoted == refused || own && !strings.Contains(key, "/") && quoted != refused {
			t.Errorf("label %s: left out %v, but admission says otherwise", key, refused)
		}
	}
}

// AKS's default profile has one note: by default the autoscaler does not drain
// nodes with system pods.
func TestDefaultProfileNotesSystemPods(t *testing.T) {
	p, err := migration.Translate(migration.Cluster{Location: "eastus", AutoScalerProfile: rp.Doc{
		"balance-similar-node-groups": "false", "daemonset-eviction-for-empty-nodes": false, "daemonset-eviction-for-occupied-nodes": true, "expander": "random", "ignore-daemonsets-utilization": false,
		"max-empty-bulk-delete": "10", "max-graceful-termination-sec": "600", "max-node-provision-time": "15m", "max-total-unready-percentage": "45", "new-pod-scale-up-delay": "0s", "ok-total-unready-count": "3",
		"scale-down-delay-after-add": "10m", "scale-down-delay-after-delete": "10s", "scale-down-delay-after-failure": "3m", "scale-down-unneeded-time": "10m", "scale-down-unready-time": "20m",
		"scale-down-utilization-threshold": "0.5", "scan-interval": "10s", "skip-nodes-with-local-storage": "false", "skip-nodes-with-system-pods": "true",
	}}, migration.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Notes) != 1 || p.Notes[0].Setting != "skip-nodes-with-system-pods" {
		t.Errorf("notes %v", p.Notes)
	}
}
