// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// karpenterNodeClass and karpenterNodePool are the objects that Karpenter's
// suites start each spec from, in place of their own kwok class. The sizes are
// zonal, because the suites do not support zone "0".
const (
	karpenterNodeClass = `apiVersion: karpenter.azure.com/v1beta1
kind: AKSNodeClass
metadata: {name: default}
spec: {imageFamily: Ubuntu}
`
	karpenterNodePool = `apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  disruption: {consolidationPolicy: WhenEmptyOrUnderutilized, consolidateAfter: Never, budgets: [{nodes: 100%}]}
  limits: {cpu: 10000, memory: 8000Gi}
  template:
    spec:
      expireAfter: Never
      requirements:
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}
      - {key: karpenter.azure.com/sku-family, operator: In, values: [D]}
      nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}
`
)

// karpenterGates are the feature gates that Karpenter's own CI enables.
const karpenterGates = "NodeRepair=true,CapacityBuffer=true,StaticCapacity=true"

// karpenterRepair is the condition that the repair specs inject: the provider
// repairs it at once, and nothing on a node resets it.
const karpenterRepair = "kubernetes.azure.com/NodeHealthy=False"

// karpenterPart is a part of a suite that runs within an hour in one cluster.
type karpenterPart struct {
	suite, focus string
	// cores limits the pool's sizes, as the suite does for kwok's.
	cores string
	// arm allows arm64 machines as well, which one spec needs.
	arm bool
	// gates are feature gates to append to karpenterGates.
	gates string
}

// karpenterParts are the parts that SUITE can name, besides whole suites.
var karpenterParts = map[string]karpenterPart{
	"buffers":     {suite: "regression", focus: "CapacityBuffer", cores: "2"},
	"static":      {suite: "regression", focus: "StaticCapacity"},
	"integration": {suite: "regression", focus: "Integration|StandaloneNodeClaim|DefaultTopologySpread", arm: true},
	"chaos":       {suite: "regression", focus: "Chaos|Performance"},
	"drift":       {suite: "disruption", focus: "Drift"},
	"termination": {suite: "disruption", focus: "Termination|Expiration"},
	// With these gates other specs on static pools see more nodes deleted at once than they expect.
	"terminatefirst": {suite: "disruption", focus: "TerminateFirst", gates: ",TerminateFirstRepair=true,TerminateFirstDrift=true"},
	"repair":         {suite: "disruption", focus: "Repair|Reboot"},
}

// karpenterLeftOut are the suites that do not apply to this provider, with the
// reason.
var karpenterLeftOut = map[string]string{
	"dra": "it tests the DRA driver of Karpenter's kwok provider: each spec creates a DRAConfig, a kind that only this driver " +
		"brings, and a NodePool of kwok's sizes (c-4x-amd64-linux)",
}

// TestKarpenterSuites runs Karpenter's own end-to-end suites, from its module
// and unchanged, against clusters of the local Azure, one per suite or part.
// NAP_KARPENTER_SUITE names them, separated by spaces: regression, disruption,
// performance, dra, or a part (karpenterParts). NAP_KARPENTER_PARALLEL is how
// many run at once (1), NAP_KARPENTER_FOCUS selects specs by regular expression
// (in place of a part's own), NAP_KARPENTER_SKIP excludes specs, and
// NAP_KARPENTER_LOGS is a folder for the logs.
func TestKarpenterSuites(t *testing.T) {
	names := strings.Fields(os.Getenv("NAP_KARPENTER_SUITE"))
	if len(names) == 0 {
		t.Skip("takes up to an hour each: `make e2e-karpenter` runs them (NAP_KARPENTER_SUITE is not set)")
	}
	parallel := 1
	if s := os.Getenv("NAP_KARPENTER_PARALLEL"); s != "" {
		var err error
		if parallel, err = strconv.Atoi(s); err != nil || parallel < 1 {
			t.Fatalf("NAP_KARPENTER_PARALLEL=%q is not a number from 1", s)
		}
	}
	logs := os.Getenv("NAP_KARPENTER_LOGS")
	if logs == "" {
		logs = t.TempDir()
	} else if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	// All controllers of an instance inherit the same gates from its environment.
	byGates := map[string][]string{}
	for _, name := range names {
		if why, ok := karpenterLeftOut[name]; ok {
			fmt.Printf("%s is left out: %s\n", name, why)
			continue
		}
		gates := karpenterGates + karpenterParts[name].gates
		byGates[gates] = append(byGates[gates], name)
	}
	for gates, names := range byGates {
		t.Run(strings.Join(names, "+"), func(t *testing.T) {
			t.Setenv("FEATURE_GATES", gates)
			in := start(t)
			var wg sync.WaitGroup
			slots := make(chan struct{}, parallel)
			for _, name := range names {
				wg.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					in.karpenterSuite(t, name, gates, logs)
				})
			}
			wg.Wait()
		})
	}
}

// karpenterSuite runs one suite or part in its own cluster and prints each spec
// that did not pass, with the reason.
func (in *instance) karpenterSuite(t *testing.T, name, gates, logs string) {
	c, kubeconfig, err := in.karpenterCluster(t, name, gates)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	part, ok := karpenterParts[name]
	if !ok {
		part.suite, part.arm = name, true
	}
	dir := t.TempDir()
	pool := karpenterNodePool
	if part.cores != "" {
		pool = strings.Replace(pool, "      nodeClassRef:", fmt.Sprintf("      - {key: karpenter.azure.com/sku-cpu, operator: In, values: [%q]}\n      nodeClassRef:", part.cores), 1)
	}
	if part.arm {
		pool = strings.Replace(pool, "[amd64]", "[amd64, arm64]", 1)
	}
	files := map[string][]byte{"kubeconfig": kubeconfig, "class.yaml": []byte(karpenterNodeClass), "pool.yaml": []byte(pool)}
	for f, content := range files {
		if err := os.WriteFile(filepath.Join(dir, f), content, 0o600); err != nil {
			t.Error(err)
			return
		}
	}
	report := filepath.Join(logs, name+".json")
	args := []string{"test", "-count=1", "-timeout", "90m", "-v", "sigs.k8s.io/karpenter/test/suites/" + part.suite, "-args",
		"--default-nodeclass=" + filepath.Join(dir, "class.yaml"), "--default-nodepool=" + filepath.Join(dir, "pool.yaml"),
		"--repair-condition=" + karpenterRepair, "--ginkgo.json-report=" + report, "--ginkgo.timeout=85m", "--ginkgo.v"}
	focus := part.focus
	if f := os.Getenv("NAP_KARPENTER_FOCUS"); f != "" {
		focus = f // Ginkgo runs the union of several, not the intersection
	}
	if focus != "" {
		args = append(args, "--ginkgo.focus="+focus)
	}
	if f := os.Getenv("NAP_KARPENTER_SKIP"); f != "" {
		args = append(args, "--ginkgo.skip="+f)
	}
	out, err := os.Create(filepath.Join(logs, name+".log"))
	if err != nil {
		t.Error(err)
		return
	}
	defer out.Close()
	cmd := exec.CommandContext(c.ctx, "go", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	cmd.Stdout, cmd.Stderr = out, out
	began := time.Now()
	fmt.Printf("%s: started in cluster %s, log in %s\n", name, c.name, out.Name())
	runErr := cmd.Run()
	specs, err := readGinkgoReport(report)
	if err != nil {
		t.Errorf("%s: the suite wrote no report (%v) and ended with %v: see %s", name, err, runErr, out.Name())
		return
	}
	summary := summarize(specs)
	fmt.Printf("%s after %s\n%s", name, time.Since(began).Round(time.Second), summary)
	if runErr != nil {
		t.Errorf("Karpenter's %s: %v: see %s", name, runErr, out.Name())
	}
}

// karpenterCluster creates a cluster as the suites need it: with tainted system
// nodes and without any AKSNodeClass or NodePool.
func (in *instance) karpenterCluster(t *testing.T, name, gates string) (*cluster, []byte, error) {
	body := in.autoCluster(name, 3)
	body.Properties.NodeProvisioningProfile.DefaultNodePools = to.Ptr(armcontainerservice.NodeProvisioningDefaultNodePoolsNone)
	if _, err := in.putCluster(name, body); err != nil {
		return nil, nil, err
	}
	creds, err := in.clusters.ListClusterAdminCredentials(in.ctx, resourceGroup, name, nil)
	if err != nil {
		return nil, nil, err
	}
	c, err := in.dial(name, creds.Kubeconfigs[0].Value)
	if err != nil {
		return nil, nil, err
	}
	class := &unstructured.Unstructured{}
	class.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.azure.com", Version: "v1beta1", Kind: "AKSNodeClass"})
	class.SetName("default")
	if err := ctrlclient.IgnoreNotFound(c.kube.Delete(c.ctx, class)); err != nil {
		return nil, nil, err
	}
	kubeconfig, err := c.karpenterFront(t, gates)
	return c, kubeconfig, err
}

// ginkgoSpec is the part of Ginkgo's JSON report on a spec that is used here.
type ginkgoSpec struct {
	Containers []string `json:"ContainerHierarchyTexts"`
	Leaf       string   `json:"LeafNodeText"`
	LeafType   string   `json:"LeafNodeType"`
	State      string
	RunTime    time.Duration
	Failure    struct{ Message string }
}

func (s ginkgoSpec) name() string {
	return strings.Join(append(slices.Clone(s.Containers), s.Leaf), " / ")
}

func readGinkgoReport(file string) ([]ginkgoSpec, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var suites []struct{ SpecReports []ginkgoSpec }
	if err := json.Unmarshal(b, &suites); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var specs []ginkgoSpec
	for _, s := range suites {
		for _, r := range s.SpecReports {
			if r.LeafType == "It" || r.State == "failed" {
				specs = append(specs, r)
			}
		}
	}
	return specs, nil
}

var spaces = regexp.MustCompile(`\s+`)

// summarize counts the specs by state and lists them, with the first words of
// the reason if they did not pass. Specs that are not in focus are left out.
func summarize(specs []ginkgoSpec) string {
	counts, lines := map[string]int{}, ""
	for _, s := range specs {
		why := spaces.ReplaceAllString(s.Failure.Message, " ")
		if s.State == "skipped" && why == "" {
			continue // not in focus
		}
		counts[s.State]++
		if len(why) > 300 {
			why = why[:300] + "…"
		}
		if s.State == "passed" {
			lines += fmt.Sprintf("  passed   %5.0fs  %s\n", s.RunTime.Seconds(), s.name())
		} else {
			lines += fmt.Sprintf("  %-8s %5.0fs  %s: %s\n", s.State, s.RunTime.Seconds(), s.name(), why)
		}
	}
	return fmt.Sprintf("  %v\n%s", counts, lines)
}
