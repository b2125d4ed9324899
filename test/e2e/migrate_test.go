// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// migration is a cluster with an autoscaled pool "web" that is migrated to node
// auto-provisioning and back.
type migration struct {
	*cluster
	budget *policyv1.PodDisruptionBudget
	// nodePools is the file that the dry run saved the proposed NodePools in.
	nodePools string
}

// migratedPods is the number of pods of the app "web".
const migratedPods = 5

// TestMigrateAndBack moves a cluster from the cluster autoscaler to node
// auto-provisioning and back, with pods running all the time within their
// disruption budget: a dry run, an attempt that is aborted, one that succeeds
// although ARM is killed, an attempt to disable that is aborted, and one that
// succeeds.
func TestMigrateAndBack(t *testing.T) {
	m := startMigration(t)
	m.dryRun(t)
	m.abortEnable(t)
	m.enableThroughKill(t)
	limits := m.abortDisable(t)
	m.disable(t)
	// Enabled again, the NodePools are as they were.
	if out, err := m.run("enable", "--cluster", m.name); err != nil || !strings.Contains(out, "is on (mode Auto)") {
		t.Errorf("%v:\n%s", err, out)
	}
	if s := m.nodePoolSpec(t, "web"); m.mode() != "Auto" || s != limits {
		t.Errorf("mode %s, and the NodePool was %s and is %s", m.mode(), limits, s)
	}
}

func startMigration(t *testing.T) *migration {
	in := start(t)
	const name = "cas"
	body := in.smallCluster(name, 1, "Standard_D2s_v3")
	body.Properties.AutoScalerProfile = &armcontainerservice.ManagedClusterPropertiesAutoScalerProfile{Expander: to.Ptr(armcontainerservice.ExpanderPriority)}
	body.Properties.AgentPoolProfiles[0].Name = to.Ptr("system")
	body.Properties.AgentPoolProfiles = append(body.Properties.AgentPoolProfiles, &armcontainerservice.ManagedClusterAgentPoolProfile{
		Name: to.Ptr("web"), Mode: to.Ptr(armcontainerservice.AgentPoolModeUser), Count: to.Ptr[int32](2), VMSize: to.Ptr("Standard_D4s_v5"),
		EnableAutoScaling: to.Ptr(true), MinCount: to.Ptr[int32](1), MaxCount: to.Ptr[int32](4),
	})
	if _, err := in.putCluster(name, body); err != nil {
		t.Fatal(err)
	}
	m := &migration{cluster: in.open(t, name), budget: budget("web", 1), nodePools: filepath.Join(t.TempDir(), "nodepools.yaml")}
	m.apply(t, m.budget)
	m.apply(t, deployment("web", migratedPods, "1100m", "1Gi"))
	m.allRun(t)
	m.apply(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-autoscaler-priority-expander", Namespace: "kube-system"}, Data: map[string]string{"priorities": "5: [\"aks-web-.*-vmss\"]"}})
	return m
}

// allRun waits until all pods run.
func (m *migration) allRun(t *testing.T) {
	t.Helper()
	eventually(t, "pods Running", time.Minute, func() error { return m.running("default", "web", migratedPods) })
}

// setBudget changes how many pods may be unavailable.
func (m *migration) setBudget(t *testing.T, maxUnavailable string) {
	t.Helper()
	if err := m.kube.Patch(m.ctx, m.budget, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"maxUnavailable":`+maxUnavailable+`}}`))); err != nil {
		t.Fatal(err)
	}
}

// beginEnable starts the migration with the saved NodePools.
func (m *migration) beginEnable(t *testing.T) *command {
	t.Helper()
	return m.begin(t, "enable", "--cluster", m.name, "--migrate-from", "cluster-autoscaler", "--nodepools", m.nodePools)
}

// dryRun checks the plan of the migration, which changes nothing.
func (m *migration) dryRun(t *testing.T) {
	out, err := m.run("enable", "--cluster", m.name, "--migrate-from", "cluster-autoscaler", "--dry-run", "--save", m.nodePools)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"NODE THAT GOES", "default/web × 3", "5 pods: 0 on existing nodes, 5 on", "2 nodes of 3 would go", "per hour, afterwards $", "pool web, minCount (1): changed"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not contain %q:\n%s", want, out)
		}
	}
	if b, err := os.ReadFile(m.nodePools); err != nil || !strings.Contains(string(b), "name: web\n") || !strings.Contains(string(b), "  weight: 10\n") {
		t.Errorf("the saved NodePools (%v) are\n%s", err, b)
	}
	if strings.Contains(out, "have no place") {
		t.Errorf("the plan leaves pods without a node:\n%s", out)
	}
	if got := m.mode() + ", web " + m.pool("web"); got != "Manual, web 2 nodes, autoscaler true" {
		t.Fatalf("after the dry run the cluster is %s", got)
	}
}

// abortEnable aborts the migration after the first drained node: the pool gets
// its nodes back, and the pods that have moved move back.
func (m *migration) abortEnable(t *testing.T) {
	stop := m.watchBudget(t, "web", 1)
	enable := m.beginEnable(t)
	enable.says(t, "pool web: 1 nodes left to drain", 2*time.Minute)
	if err := enable.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if out, err := enable.ends(t, 3*time.Minute); err == nil || !strings.Contains(out, "Canceled") || !strings.Contains(out, "provisioned nodes") {
		t.Errorf("aborted, it ended with %v:\n%s", err, out)
	} else {
		t.Log(out)
	}
	stop()
	m.allRun(t)
	if got := m.mode() + ", web " + m.pool("web"); got != "Manual, web 2 nodes, autoscaler true" {
		t.Fatalf("after the abort the cluster is %s", got)
	}
	if nodes, err := m.nodes(false); err != nil || len(nodes) != 3 {
		t.Errorf("%d nodes (%v)", len(nodes), err)
	} else {
		for _, n := range nodes {
			if n.Spec.Unschedulable {
				t.Errorf("node %s is still cordoned", n.Name)
			}
		}
	}
	if nps := m.nodePoolNames(t); len(nps) > 0 {
		t.Errorf("NodePools %v are left", nps)
	}
}

// enableThroughKill migrates the cluster while ARM is killed and started again.
func (m *migration) enableThroughKill(t *testing.T) {
	stop := m.watchBudget(t, "web", 1)
	enable := m.beginEnable(t)
	enable.says(t, "being drained", 2*time.Minute)
	m.kill(t, "arm")
	out, err := enable.ends(t, 4*time.Minute)
	if err != nil || !strings.Contains(out, "node auto-provisioning is on (mode Auto) in place of the cluster autoscaler") {
		t.Fatalf("%v:\n%s", err, out)
	}
	stop()
	t.Log(out)
	if got := m.mode() + ", web " + m.pool("web") + ", system " + m.pool("system"); got != "Auto, web 0 nodes, autoscaler false, system 1 nodes, autoscaler false" {
		t.Errorf("migrated, the cluster is %s", got)
	}
	m.allRun(t)
	nodes, err := m.nodes(true)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%d provisioned nodes (%v)", len(nodes), err)
	}
	for _, n := range nodes {
		if np := n.Labels["karpenter.sh/nodepool"]; np != "web" {
			t.Errorf("node %s belongs to NodePool %s", n.Name, np)
		}
	}
}

// abortDisable checks that disabling without enough fixed capacity is refused,
// and that disabling that is aborted while nodes drain leaves the cluster as it
// was. It returns the spec of the NodePool web.
func (m *migration) abortDisable(t *testing.T) string {
	out, err := m.run("disable", "--cluster", m.name)
	if err == nil || !strings.Contains(out, "5 pods that run now would have no place") {
		t.Errorf("disabling without capacity for the pods: %v\n%s", err, out)
	}
	limits := m.nodePoolSpec(t, "web")
	m.setBudget(t, "0")
	disable := m.begin(t, "disable", "--cluster", m.name, "--fixed-pool", "name=fixed,size=Standard_D4s_v5,count=2")
	disable.says(t, "nodes left: ", 2*time.Minute)
	disable.says(t, "kept by pod default/web-", 2*time.Minute)
	if s := m.nodePoolSpec(t, "web"); s == limits {
		t.Errorf("while nodes drain the NodePool is open: %s", s)
	}
	if err := disable.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if out, err := disable.ends(t, 2*time.Minute); err == nil || !strings.Contains(out, "Canceled") {
		t.Errorf("aborted, it ended with %v:\n%s", err, out)
	}
	if got := m.mode() + ", fixed " + m.pool("fixed"); got != "Auto, fixed none" {
		t.Errorf("after the abort the cluster is %s", got)
	}
	if s := m.nodePoolSpec(t, "web"); s != limits {
		t.Errorf("the NodePool was %s and is %s", limits, s)
	}
	return limits
}

// disable moves the pods to a fixed pool within their budget.
func (m *migration) disable(t *testing.T) {
	m.setBudget(t, "1")
	stop := m.watchBudget(t, "web", 1)
	out, err := m.run("disable", "--cluster", m.name, "--fixed-pool", "name=fixed,size=Standard_D4s_v5,count=2")
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	stop()
	t.Log(out)
	if got := m.mode() + ", fixed " + m.pool("fixed"); got != "Manual, fixed 2 nodes, autoscaler false" {
		t.Errorf("disabled, the cluster is %s", got)
	}
	m.allRun(t)
	if err := m.noMachines(); err != nil {
		t.Error(err)
	}
}
