package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// running is a nap command under way, with what it has printed.
type running struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	text strings.Builder
	end  chan error
}

// begin starts a nap command that takes a while.
func (in *instance) begin(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(in.bin, args...), end: make(chan error, 1)}
	r.cmd.Env = append(os.Environ(), "NAP_HOME="+in.home)
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			r.mu.Lock()
			r.text.WriteString(s.Text() + "\n")
			r.mu.Unlock()
		}
		r.end <- r.cmd.Wait()
	}()
	return r
}

func (r *running) printed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// says waits until the command has printed something.
func (r *running) says(t *testing.T, want string, within time.Duration) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q", want), within, func() error {
		if s := r.printed(); !strings.Contains(s, want) {
			return fmt.Errorf("it says %s", s)
		}
		return nil
	})
}

// ends waits for the command's end and gives what it printed.
func (r *running) ends(t *testing.T, within time.Duration) (string, error) {
	t.Helper()
	select {
	case err := <-r.end:
		return r.printed(), err
	case <-time.After(within):
		t.Fatalf("%v is not done after %s:\n%s", r.cmd.Args[1:], within, r.printed())
		return "", nil
	}
}

// pool is an agent pool in a few words.
func (c *cluster) pool(name string) string {
	p, err := c.pools.Get(c.ctx, resourceGroup, c.name, name, nil)
	if err != nil {
		return "none"
	}
	return fmt.Sprintf("%d nodes, autoscaler %t", *p.Properties.Count, *p.Properties.EnableAutoScaling)
}

func (c *cluster) mode() string {
	m, err := c.clusters.Get(c.ctx, resourceGroup, c.name, nil)
	if err != nil {
		return err.Error()
	}
	return string(*m.Properties.NodeProvisioningProfile.Mode)
}

// TestMigrateAndBack moves a cluster from the cluster autoscaler to node
// auto-provisioning and half the way back, with pods running all the time
// within their disruption budget: a plan first, an attempt that is aborted, one
// that goes through although the Resource Manager is killed, and an attempt to
// disable that is aborted too.
func TestMigrateAndBack(t *testing.T) {
	in := start(t)
	const name, pods = "cas", 5
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, armcontainerservice.ManagedCluster{
		Location: to.Ptr(in.location()), Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{DNSPrefix: to.Ptr(name),
			NetworkProfile:    &armcontainerservice.NetworkProfile{NetworkPlugin: to.Ptr(armcontainerservice.NetworkPluginAzure), NetworkPluginMode: to.Ptr(armcontainerservice.NetworkPluginModeOverlay), NetworkDataplane: to.Ptr(armcontainerservice.NetworkDataplaneCilium)},
			AutoScalerProfile: &armcontainerservice.ManagedClusterPropertiesAutoScalerProfile{Expander: to.Ptr(armcontainerservice.ExpanderPriority)},
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{
				{Name: to.Ptr("system"), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem), Count: to.Ptr[int32](1), VMSize: to.Ptr("Standard_D2s_v3")},
				{Name: to.Ptr("web"), Mode: to.Ptr(armcontainerservice.AgentPoolModeUser), Count: to.Ptr[int32](2), VMSize: to.Ptr("Standard_D4s_v5"), EnableAutoScaling: to.Ptr(true), MinCount: to.Ptr[int32](1), MaxCount: to.Ptr[int32](4)},
			}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, nil); err != nil {
		t.Fatal(err)
	}
	c := in.open(t, name)
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: to.Ptr(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}
	c.apply(t, budget)
	c.apply(t, deployment("web", pods, "1100m", "1Gi"))
	eventually(t, "pods Running", time.Minute, func() error { return c.running("default", "web", pods) })

	c.apply(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-autoscaler-priority-expander", Namespace: "kube-system"}, Data: map[string]string{"priorities": "5: [\"aks-web-.*-vmss\"]"}})

	// The plan, which changes nothing.
	file := filepath.Join(t.TempDir(), "nodepools.yaml")
	out, err := in.run("enable", "--cluster", name, "--migrate-from", "cluster-autoscaler", "--dry-run", "--save", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"NODE THAT GOES", "default/web × 3", "5 pods: 0 on existing nodes, 5 on", "2 nodes of 3 would go", "per hour, afterwards $", "pool web, minCount (1): changed"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not say %q:\n%s", want, out)
		}
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "name: web\n") || !strings.Contains(string(b), "  weight: 10\n") {
		t.Errorf("the proposal (%v) is\n%s", err, b)
	}
	if strings.Contains(out, "have no place") {
		t.Errorf("pods without a place:\n%s", out)
	}
	if got := c.mode() + ", web " + c.pool("web"); got != "Manual, web 2 nodes, autoscaler true" {
		t.Fatalf("a dry run left the cluster as %s", got)
	}

	// Given up half the way: the pool gets its nodes back, and the pods that have
	// moved move back.
	held := c.watchBudget(t, "web", 1)
	try := in.begin(t, "enable", "--cluster", name, "--migrate-from", "cluster-autoscaler", "--nodepools", file)
	try.says(t, "pool web: 1 nodes left to drain", 2*time.Minute)
	if err := try.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if out, err := try.ends(t, 3*time.Minute); err == nil || !strings.Contains(out, "Canceled") || !strings.Contains(out, "provisioned nodes") {
		t.Errorf("aborted, it ended with %v:\n%s", err, out)
	} else {
		t.Log(out)
	}
	held()
	eventually(t, "pods Running", time.Minute, func() error { return c.running("default", "web", pods) })
	if got := c.mode() + ", web " + c.pool("web"); got != "Manual, web 2 nodes, autoscaler true" {
		t.Fatalf("after the abort the cluster is %s", got)
	}
	if nodes, err := c.nodes(false); err != nil || len(nodes) != 3 {
		t.Errorf("%d nodes (%v)", len(nodes), err)
	} else {
		for _, n := range nodes {
			if n.Spec.Unschedulable {
				t.Errorf("node %s is still cordoned", n.Name)
			}
		}
	}
	if nps := c.nodePoolNames(t); len(nps) > 0 {
		t.Errorf("NodePools %v are left", nps)
	}

	// It goes through, over the death of ARM.
	held = c.watchBudget(t, "web", 1)
	try = in.begin(t, "enable", "--cluster", name, "--migrate-from", "cluster-autoscaler", "--nodepools", file)
	try.says(t, "being drained", 2*time.Minute)
	if err := syscall.Kill(in.component(t, "arm").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if out, err = try.ends(t, 4*time.Minute); err != nil || !strings.Contains(out, "node auto-provisioning is on (mode Auto) in place of the cluster autoscaler") {
		t.Fatalf("%v:\n%s", err, out)
	}
	held()
	t.Log(out)
	if got := c.mode() + ", web " + c.pool("web") + ", system " + c.pool("system"); got != "Auto, web 0 nodes, autoscaler false, system 1 nodes, autoscaler false" {
		t.Errorf("migrated, the cluster is %s", got)
	}
	eventually(t, "pods Running", time.Minute, func() error { return c.running("default", "web", pods) })
	nodes, err := c.nodes(true)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%d provisioned nodes (%v)", len(nodes), err)
	}
	for _, n := range nodes {
		if np := n.Labels["karpenter.sh/nodepool"]; np != "web" {
			t.Errorf("node %s is of NodePool %s", n.Name, np)
		}
	}

	// The way back, aborted while nodes drain: all is as it was.
	out, err = in.run("disable", "--cluster", name)
	if err == nil || !strings.Contains(out, "5 pods that run now would have no place") {
		t.Errorf("disabling without room: %v\n%s", err, out)
	}
	limits := c.nodePoolSpec(t, "web")
	if err := c.kube.Patch(c.ctx, budget, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"maxUnavailable":0}}`))); err != nil {
		t.Fatal(err)
	}
	try = in.begin(t, "disable", "--cluster", name, "--fixed-pool", "name=fixed,size=Standard_D4s_v5,count=2")
	try.says(t, "nodes left: ", 2*time.Minute)
	try.says(t, "kept by pod default/web-", 2*time.Minute)
	if s := c.nodePoolSpec(t, "web"); s == limits {
		t.Errorf("while nodes drain the NodePool is open: %s", s)
	}
	if err := try.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if out, err := try.ends(t, 2*time.Minute); err == nil || !strings.Contains(out, "Canceled") {
		t.Errorf("aborted, it ended with %v:\n%s", err, out)
	}
	if got := c.mode() + ", fixed " + c.pool("fixed"); got != "Auto, fixed none" {
		t.Errorf("after the abort the cluster is %s", got)
	}
	if s := c.nodePoolSpec(t, "web"); s != limits {
		t.Errorf("the NodePool was %s and is %s", limits, s)
	}

	// And all the way, within the budget.
	if err := c.kube.Patch(c.ctx, budget, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"maxUnavailable":1}}`))); err != nil {
		t.Fatal(err)
	}
	held = c.watchBudget(t, "web", 1)
	out, err = in.run("disable", "--cluster", name, "--fixed-pool", "name=fixed,size=Standard_D4s_v5,count=2")
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	held()
	t.Log(out)
	if got := c.mode() + ", fixed " + c.pool("fixed"); got != "Manual, fixed 2 nodes, autoscaler false" {
		t.Errorf("disabled, the cluster is %s", got)
	}
	eventually(t, "pods Running", time.Minute, func() error { return c.running("default", "web", pods) })
	if err := c.noMachines(); err != nil {
		t.Error(err)
	}
	// On again, with the NodePools as they were.
	if out, err := in.run("enable", "--cluster", name); err != nil || !strings.Contains(out, "is on (mode Auto)") {
		t.Errorf("%v:\n%s", err, out)
	}
	if s := c.nodePoolSpec(t, "web"); c.mode() != "Auto" || s != limits {
		t.Errorf("mode %s, and the NodePool was %s and is %s", c.mode(), limits, s)
	}
}

// nodePoolNames are the names of the NodePools that there are.
func (c *cluster) nodePoolNames(t *testing.T) []string {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePoolList"})
	if err := c.kube.List(c.ctx, list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range list.Items {
		out = append(out, o.GetName())
	}
	return out
}

// nodePoolSpec is a NodePool's spec as JSON.
func (c *cluster) nodePoolSpec(t *testing.T, name string) string {
	t.Helper()
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePool"})
	if err := c.kube.Get(c.ctx, types.NamespacedName{Name: name}, o); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(o.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
