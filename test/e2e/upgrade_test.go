package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// newCluster is the body of a cluster with node auto-provisioning and a system
// pool of one node for addons only.
func (in *instance) newCluster(name, version string) armcontainerservice.ManagedCluster {
	return armcontainerservice.ManagedCluster{
		Location: to.Ptr(in.location()),
		Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{
			DNSPrefix: to.Ptr(name), KubernetesVersion: to.Ptr(version),
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{{
				Name: to.Ptr("nodepool1"), Count: to.Ptr[int32](1), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem),
				VMSize: to.Ptr("Standard_D4s_v5"), NodeTaints: []*string{to.Ptr("CriticalAddonsOnly=true:NoSchedule")},
			}},
			NetworkProfile: &armcontainerservice.NetworkProfile{
				NetworkPlugin:     to.Ptr(armcontainerservice.NetworkPluginAzure),
				NetworkPluginMode: to.Ptr(armcontainerservice.NetworkPluginModeOverlay),
				NetworkDataplane:  to.Ptr(armcontainerservice.NetworkDataplaneCilium),
			},
			NodeProvisioningProfile: &armcontainerservice.ManagedClusterNodeProvisioningProfile{Mode: to.Ptr(armcontainerservice.NodeProvisioningModeAuto)},
		},
	}
}

// serverVersion is the release and, in brackets, the minor version whose
// behaviour the API server says that it has.
func (c *cluster) serverVersion() (string, error) {
	dc, err := discovery.NewDiscoveryClientForConfig(c.rest)
	if err != nil {
		return "", err
	}
	v, err := dc.ServerVersion()
	if err != nil {
		return "", err
	}
	return v.GitVersion + " (" + v.EmulationMajor + "." + v.EmulationMinor + ")", nil
}

// kubelets returns nil when all nodes run that version, fixed ones and at least
// min of NodePools.
func (c *cluster) kubelets(version string, min int) error {
	nodes, err := c.nodes(false)
	if err != nil {
		return err
	}
	provisioned := 0
	for _, n := range nodes {
		if n.Status.NodeInfo.KubeletVersion != version {
			return fmt.Errorf("node %s runs %s", n.Name, n.Status.NodeInfo.KubeletVersion)
		}
		if n.Labels["karpenter.sh/nodepool"] != "" {
			provisioned++
		}
	}
	if provisioned < min {
		return fmt.Errorf("%d provisioned nodes, want %d", provisioned, min)
	}
	return nil
}

// TestUpgrade takes a cluster with work on it from one minor version to the
// next, as az aks upgrade does: the control plane reports and behaves as the
// version asked for, the fixed pool follows node by node, and the provisioned
// nodes drift and are replaced within the budgets of pods and pools.
func TestUpgrade(t *testing.T) {
	in := start(t)
	const name, from, to136 = "old", "1.35.6", "1.36.3"
	body := in.newCluster(name, "1.31.2")
	_, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, body, nil)
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != http.StatusBadRequest || re.ErrorCode != "K8sVersionNotSupported" || !strings.Contains(err.Error(), from) {
		t.Errorf("a version that cannot be had: %v", err)
	}
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, in.newCluster(name, from), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatal(err)
	}
	c := in.open(t, name)
	if v, err := c.serverVersion(); err != nil || v != "v"+from+" (1.35)" {
		t.Fatalf("the API server says it is %s (%v), want v%s", v, err, from)
	}
	// Two nodes of the pool may go at a time, and one pod of each four.
	eventually(t, "NodePool default", time.Minute, func() error {
		pool, err := c.nodePool("default")
		if err != nil {
			return err
		}
		return c.kube.Patch(c.ctx, pool, ctrlclient.RawPatch(types.MergePatchType, []byte(`{"spec":{"disruption":{"budgets":[{"nodes":"2"}]}}}`)))
	})
	app := deployment("web", 4, "1500m", "1Gi")
	app.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
		TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}}}
	c.apply(t, budget("web", 1))
	c.apply(t, app)
	eventually(t, "4 pods Running", time.Minute, func() error { return c.running("default", "web", 4) })
	if err := c.kubelets("v"+from, 4); err != nil {
		t.Fatal(err)
	}
	before, err := c.nodes(true)
	if err != nil {
		t.Fatal(err)
	}
	profile, err := in.clusters.GetUpgradeProfile(in.ctx, resourceGroup, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	offered := false
	for _, u := range profile.Properties.ControlPlaneProfile.Upgrades {
		offered = offered || *u.KubernetesVersion == to136
	}
	if !offered || *profile.Properties.ControlPlaneProfile.KubernetesVersion != from {
		t.Errorf("az aks get-upgrades would not offer %s from %s", to136, from)
	}

	stop := c.watchBudget(t, "web", 1)
	began := time.Now()
	got, err := in.clusters.Get(in.ctx, resourceGroup, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	got.Properties.KubernetesVersion = to.Ptr(to136)
	for _, p := range got.Properties.AgentPoolProfiles {
		p.OrchestratorVersion = to.Ptr(to136)
	}
	poller, err = in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, got.ManagedCluster, nil)
	if err != nil {
		t.Fatal(err)
	}
	done, err := poller.PollUntilDone(in.ctx, pollEvery)
	if err != nil {
		t.Fatalf("upgrading: %v", err)
	}
	t.Logf("az aks upgrade took %s", time.Since(began).Round(time.Millisecond))
	if v := *done.Properties.CurrentKubernetesVersion; v != to136 {
		t.Errorf("ARM says the cluster is %s", v)
	}
	if v, err := c.serverVersion(); err != nil || v != "v"+to136+" (1.36)" {
		t.Errorf("the API server says it is %s (%v), want v%s", v, err, to136)
	}
	eventually(t, "every node runs the new version", 3*time.Minute, func() error { return c.kubelets("v"+to136, 4) })
	eventually(t, "4 pods Running again", 30*time.Second, func() error { return c.running("default", "web", 4) })
	stop()
	after, err := c.nodes(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range after {
		for _, b := range before {
			if a.Name == b.Name {
				t.Errorf("node %s was not replaced", a.Name)
			}
		}
	}
}
