package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// pollEvery makes the SDK's pollers ask each second.
var pollEvery = &runtime.PollUntilDoneOptions{Frequency: time.Second}

// TestDocumentation follows the how-to pages of node auto-provisioning from
// the template that creates the cluster to the last step of switching it off.
func TestDocumentation(t *testing.T) {
	in := start(t)

	if !t.Run("a template with mode Auto creates a cluster that provisions its nodes", func(t *testing.T) {
		in.deployTemplate(t, "napcluster")
		got, err := in.clusters.Get(in.ctx, resourceGroup, "napcluster", nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := got.Properties.NodeProvisioningProfile; p == nil || p.Mode == nil || *p.Mode != armcontainerservice.NodeProvisioningModeAuto {
			t.Fatalf("nodeProvisioningProfile reads back as %+v, want mode Auto", p)
		}
		c := in.open(t, "napcluster")
		eventually(t, "system pool nodes Ready", time.Minute, func() error { return c.readyNodes(3) })
		eventually(t, "default NodePools exist", time.Minute, func() error {
			for _, name := range []string{"default", "system-surge"} {
				if _, err := c.nodePool(name); err != nil {
					return err
				}
			}
			return nil
		})
	}) {
		return
	}
	c := in.open(t, "napcluster")

	t.Run("pods that do not fit get machines and give them back", func(t *testing.T) {
		c.apply(t, deployment("inflate", 30, "1", "1Gi"))
		eventually(t, "30 pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
		nodes, err := c.nodes(true)
		if err != nil || len(nodes) == 0 {
			t.Fatalf("no node carries karpenter.sh/nodepool (%v)", err)
		}
		pods, err := c.pods("default", "inflate")
		if err != nil {
			t.Fatal(err)
		}
		onNAP := 0
		for _, p := range pods {
			for _, n := range nodes {
				if p.Spec.NodeName == n.Name {
					onNAP++
				}
			}
		}
		if onNAP < 20 {
			t.Errorf("only %d of 30 pods run on provisioned nodes", onNAP)
		}
		if got, err := c.machineNames(); err != nil || len(got) != len(nodes) {
			t.Errorf("%d nodes of NodePools but ARM lists the machines %v (%v)", len(nodes), got, err)
		}
		c.scale(t, "inflate", 0)
		eventually(t, "machines and nodes gone", 3*time.Minute, func() error { return c.noMachines() })
	})

	t.Run("events, logs and metrics show what it did", func(t *testing.T) {
		eventually(t, "events of source node-auto-provisioning", time.Minute, func() error {
			out, err := in.run("kubectl", "--cluster-name", c.name, "get", "events", "-A", "--field-selector", "source=node-auto-provisioning")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			if !strings.Contains(out, "Launched") && !strings.Contains(out, "Disruption") && !strings.Contains(out, "NodeClaim") && !strings.Contains(out, "Nominated") {
				return fmt.Errorf("no event of the controller in:\n%s", out)
			}
			return nil
		})
		out, err := in.run("logs", "controller")
		if err != nil {
			t.Fatalf("nap logs controller: %v\n%s", err, out)
		}
		parsed := 0
		for line := range strings.Lines(out) {
			if i := strings.IndexByte(line, '{'); i >= 0 && json.Valid([]byte(strings.TrimSpace(line[i:]))) {
				parsed++
			}
		}
		if parsed == 0 {
			t.Errorf("the controller's log holds no JSON line:\n%.500s", out)
		}
		metrics := c.controllerMetrics(t)
		for _, name := range []string{"karpenter_nodeclaims_created_total", "karpenter_nodes_allocatable", "karpenter_scheduler_scheduling_duration_seconds", "karpenter_nodepools_usage", "karpenter_cluster_state_synced"} {
			if !strings.Contains(metrics, name) {
				t.Errorf("/metrics has no %s", name)
			}
		}
	})

	t.Run("disabling with nodes in the way is refused and changes nothing", func(t *testing.T) {
		c.scale(t, "inflate", 30)
		eventually(t, "30 pods Running again", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
		before, err := c.nodes(true)
		if err != nil || len(before) == 0 {
			t.Fatalf("no provisioned node to stand in the way (%v)", err)
		}
		err = in.setMode(c.name, armcontainerservice.NodeProvisioningModeManual)
		var re *azcore.ResponseError
		if !errors.As(err, &re) {
			t.Fatalf("disable with nodes: got %v, want a refusal", err)
		}
		if re.StatusCode < 400 || re.StatusCode > 499 {
			t.Errorf("refused with status %d, want 400..499", re.StatusCode)
		}
		for _, want := range []string{before[0].Name, "default", "system-surge", "limits"} {
			if !strings.Contains(re.Error(), want) {
				t.Errorf("the refusal does not name %q:\n%v", want, re)
			}
		}
		got, err := in.clusters.Get(in.ctx, resourceGroup, c.name, nil)
		if err != nil || *got.Properties.NodeProvisioningProfile.Mode != armcontainerservice.NodeProvisioningModeAuto {
			t.Errorf("after the refusal the mode is %v (%v), want Auto", got.Properties.NodeProvisioningProfile, err)
		}
		after, err := c.nodes(true)
		if err != nil || len(after) < len(before) {
			t.Errorf("after the refusal %d nodes are left of %d (%v)", len(after), len(before), err)
		}
	})

	t.Run("with too little fixed capacity some nodes stay and disabling is still refused", func(t *testing.T) {
		c.apply(t, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "inflate", Namespace: "default"},
			Spec: policyv1.PodDisruptionBudgetSpec{
				MaxUnavailable: to.Ptr(intstr.FromInt32(3)),
				Selector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": "inflate"}},
			},
		})
		c.freezeNodePools(t)
		// One small node takes only a few of the pods.
		in.addPool(t, c.name, "fixed", 1, "Standard_D4s_v5")
		time.Sleep(15 * time.Second)
		if nodes, err := c.nodes(true); err != nil || len(nodes) == 0 {
			t.Fatalf("all provisioned nodes went although there is no room for their pods (%v)", err)
		}
		if err := in.setMode(c.name, armcontainerservice.NodeProvisioningModeManual); err == nil {
			t.Fatal("disable was accepted while provisioned nodes still carry work")
		}
	})

	t.Run("disabling as documented moves the work and succeeds", func(t *testing.T) {
		stop := c.watchBudget(t, "inflate", 3)
		in.addPool(t, c.name, "fixed", 3, "Standard_D16s_v5", "big")
		eventually(t, "provisioned machines vanish", 5*time.Minute, func() error { return c.noMachines() })
		eventually(t, "the work runs on fixed nodes", 2*time.Minute, func() error { return c.running("default", "inflate", 30) })
		stop()
		if err := in.setMode(c.name, armcontainerservice.NodeProvisioningModeManual); err != nil {
			t.Fatalf("disable after the documented steps: %v", err)
		}
		got, err := in.clusters.Get(in.ctx, resourceGroup, c.name, nil)
		if err != nil || *got.Properties.NodeProvisioningProfile.Mode != armcontainerservice.NodeProvisioningModeManual {
			t.Fatalf("mode reads back as %v (%v), want Manual", got.Properties.NodeProvisioningProfile, err)
		}
	})
}

// TestEnableExisting switches a Manual cluster to Auto, and deletes it.
func TestEnableExisting(t *testing.T) {
	in := start(t)
	in.createManual(t, "plain")
	c := in.open(t, "plain")
	if _, err := c.nodePool("default"); err == nil {
		t.Fatal("a Manual cluster has a NodePool already")
	}
	if err := in.setMode("plain", armcontainerservice.NodeProvisioningModeAuto); err != nil {
		t.Fatalf("enabling: %v", err)
	}
	c.apply(t, deployment("inflate", 12, "1", "1Gi"))
	eventually(t, "12 pods Running", 2*time.Minute, func() error { return c.running("default", "inflate", 12) })
	if nodes, err := c.nodes(true); err != nil || len(nodes) == 0 {
		t.Fatalf("no provisioned node (%v)", err)
	}
	poller, err := in.clusters.BeginDelete(in.ctx, resourceGroup, "plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("deleting the cluster: %v", err)
	}
	if _, err := in.clusters.Get(in.ctx, resourceGroup, "plain", nil); err == nil {
		t.Fatal("the deleted cluster can still be read")
	}
}

// deployTemplate deploys examples/nap.json as a template deployment and waits.
func (in *instance) deployTemplate(t *testing.T, wantCluster string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "examples", "nap.json"))
	if err != nil {
		t.Fatal(err)
	}
	var template map[string]any
	if err := json.Unmarshal(raw, &template); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), wantCluster) {
		t.Fatalf("examples/nap.json does not create %s", wantCluster)
	}
	poller, err := in.deploys.BeginCreateOrUpdate(in.ctx, resourceGroup, "nap", armdeployments.Deployment{
		Properties: &armdeployments.DeploymentProperties{Mode: to.Ptr(armdeployments.DeploymentModeIncremental), Template: template},
	}, nil)
	if err != nil {
		t.Fatalf("template deployment: %v", err)
	}
	began := time.Now()
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("template deployment: %v", err)
	}
	t.Logf("template deployment Succeeded after %s", time.Since(began).Round(time.Millisecond))
}

// createManual creates a small cluster without node auto-provisioning.
func (in *instance) createManual(t *testing.T, name string) {
	t.Helper()
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, armcontainerservice.ManagedCluster{
		Location: to.Ptr(in.location()),
		Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{
			DNSPrefix: to.Ptr(name),
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{{
				Name: to.Ptr("nodepool1"), Count: to.Ptr[int32](2), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem),
				VMSize: to.Ptr("Standard_D2s_v5"), OSType: to.Ptr(armcontainerservice.OSTypeLinux),
			}},
			NetworkProfile: &armcontainerservice.NetworkProfile{
				NetworkPlugin:     to.Ptr(armcontainerservice.NetworkPluginAzure),
				NetworkPluginMode: to.Ptr(armcontainerservice.NetworkPluginModeOverlay),
				NetworkDataplane:  to.Ptr(armcontainerservice.NetworkDataplaneCilium),
			},
		},
	}, nil)
	if err != nil {
		t.Fatalf("creating cluster %s: %v", name, err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("creating cluster %s: %v", name, err)
	}
}

// setMode switches node auto-provisioning as az aks update does: GET, PUT, poll.
func (in *instance) setMode(name string, mode armcontainerservice.NodeProvisioningMode) error {
	got, err := in.clusters.Get(in.ctx, resourceGroup, name, nil)
	if err != nil {
		return err
	}
	if got.Properties.NodeProvisioningProfile == nil {
		got.Properties.NodeProvisioningProfile = &armcontainerservice.ManagedClusterNodeProvisioningProfile{}
	}
	got.Properties.NodeProvisioningProfile.Mode = to.Ptr(mode)
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, got.ManagedCluster, nil)
	if err != nil {
		return err
	}
	_, err = poller.PollUntilDone(in.ctx, pollEvery)
	return err
}

// addPool adds a fixed user pool and waits for it; an optional last argument
// overrides the name.
func (in *instance) addPool(t *testing.T, cluster, name string, count int32, size string, rename ...string) {
	t.Helper()
	if len(rename) > 0 {
		name = rename[0]
	}
	poller, err := in.pools.BeginCreateOrUpdate(in.ctx, resourceGroup, cluster, name, armcontainerservice.AgentPool{
		Properties: &armcontainerservice.ManagedClusterAgentPoolProfileProperties{
			Count: to.Ptr(count), VMSize: to.Ptr(size), Mode: to.Ptr(armcontainerservice.AgentPoolModeUser),
			OSType: to.Ptr(armcontainerservice.OSTypeLinux),
		},
	}, nil)
	if err != nil {
		t.Fatalf("adding pool %s: %v", name, err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatalf("adding pool %s: %v", name, err)
	}
}

var nodePoolGVK = schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePool"}

func (c *cluster) nodePool(name string) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(nodePoolGVK)
	return u, c.kube.Get(c.ctx, types.NamespacedName{Name: name}, u)
}

// freezeNodePools takes the documented first steps of switching off: limits of
// 0 so that nothing new is bought, and the taint that drifts every node.
func (c *cluster) freezeNodePools(t *testing.T) {
	t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePoolList"})
	if err := c.kube.List(c.ctx, list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		patch := `{"spec":{"limits":{"cpu":"0"},"template":{"spec":{"taints":[{"key":"karpenter.azure.com/disable","effect":"NoSchedule"}]}}}}`
		if err := c.kube.Patch(c.ctx, &list.Items[i], ctrlclient.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatalf("freezing NodePool %s: %v", list.Items[i].GetName(), err)
		}
	}
}

// noMachines returns nil once ARM lists no provisioned machine and the cluster
// has neither a Node of a NodePool nor a NodeClaim.
func (c *cluster) noMachines() error {
	nodes, err := c.nodes(true)
	if err != nil {
		return err
	}
	machines, err := c.machineNames()
	if err != nil {
		return err
	}
	claims, err := c.nodeClaims()
	if err != nil {
		return err
	}
	if len(nodes)+len(machines)+len(claims) > 0 {
		return fmt.Errorf("%d nodes, %d machines, %d NodeClaims are left", len(nodes), len(machines), len(claims))
	}
	return nil
}

func (c *cluster) nodeClaims() ([]unstructured.Unstructured, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodeClaimList"})
	err := c.kube.List(c.ctx, list)
	return list.Items, err
}

// machineNames lists the machines of node auto-provisioning through ARM.
func (c *cluster) machineNames() ([]string, error) {
	var names []string
	pager := c.machines.NewListPager(resourceGroup, c.name, "aksmanagedap", nil)
	for pager.More() {
		page, err := pager.NextPage(c.ctx)
		if err != nil {
			var re *azcore.ResponseError
			if errors.As(err, &re) && re.StatusCode == http.StatusNotFound {
				return nil, nil
			}
			return nil, err
		}
		for _, m := range page.Value {
			names = append(names, *m.Name)
		}
	}
	return names, nil
}

func (c *cluster) readyNodes(want int) error {
	nodes, err := c.nodes(false)
	if err != nil {
		return err
	}
	ready := 0
	for _, n := range nodes {
		for _, cond := range n.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready < want {
		return fmt.Errorf("%d of %d nodes Ready", ready, want)
	}
	return nil
}

// apply creates an object of the test.
func (c *cluster) apply(t *testing.T, obj ctrlclient.Object) {
	t.Helper()
	if err := c.kube.Create(c.ctx, obj); err != nil {
		t.Fatalf("creating %T %s: %v", obj, obj.GetName(), err)
	}
}

func (c *cluster) scale(t *testing.T, name string, replicas int32) {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
	if err := c.kube.Patch(c.ctx, d, ctrlclient.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatalf("scaling %s to %d: %v", name, replicas, err)
	}
}

// watchBudget samples the app's available pods and fails the test whenever
// more than maxUnavailable of its 30 are missing. The returned function ends it.
func (c *cluster) watchBudget(t *testing.T, app string, maxUnavailable int) func() {
	done, finished := make(chan struct{}), make(chan struct{})
	worst := 0
	go func() {
		defer close(finished)
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
			var pdb policyv1.PodDisruptionBudget
			if err := c.kube.Get(c.ctx, types.NamespacedName{Namespace: "default", Name: app}, &pdb); err != nil || pdb.Status.ExpectedPods == 0 {
				continue
			}
			pods, err := c.pods("default", app)
			if err != nil {
				continue
			}
			ready := 0
			for _, p := range pods {
				if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
					ready++
				}
			}
			if missing := int(pdb.Status.ExpectedPods) - ready; missing > worst {
				worst = missing
			}
		}
	}()
	return func() {
		close(done)
		<-finished
		if worst > maxUnavailable {
			t.Errorf("at one time %d pods of %s were missing, its budget allows %d", worst, app, maxUnavailable)
		}
	}
}

// deployment is an app whose pods ask for the given CPU and memory.
func deployment(name string, replicas int32, cpu, memory string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: to.Ptr[int64](1),
					Containers: []corev1.Container{{
						Name: "app", Image: "mcr.microsoft.com/oss/kubernetes/pause:3.6",
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
							corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
						}},
					}},
				},
			},
		},
	}
}
