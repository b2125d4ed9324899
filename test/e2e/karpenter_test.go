package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// karpenterNodeClass and karpenterNodePool are what Karpenter's suites start
// each spec from, in place of their own kwok class. The pool is zonal, because
// the suites know no zone "0".
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

// TestKarpenterSuites runs Karpenter's own end-to-end suites, from its module
// and unchanged, against a cluster of the local Azure. NAP_KARPENTER_SUITE
// names the suite (regression, disruption, performance), NAP_KARPENTER_FOCUS
// and NAP_KARPENTER_SKIP narrow the specs by regular expression.
func TestKarpenterSuites(t *testing.T) {
	suite := os.Getenv("NAP_KARPENTER_SUITE")
	if suite == "" {
		t.Skip("takes up to an hour: `make e2e-karpenter` runs it (NAP_KARPENTER_SUITE is not set)")
	}
	in := start(t)
	const name = "karpenter"
	poller, err := in.clusters.BeginCreateOrUpdate(in.ctx, resourceGroup, name, armcontainerservice.ManagedCluster{
		Location: to.Ptr(in.location()),
		Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{
			DNSPrefix: to.Ptr(name),
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{{
				Name: to.Ptr("nodepool1"), Count: to.Ptr[int32](3), Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem),
				VMSize: to.Ptr("Standard_D4s_v5"), OSType: to.Ptr(armcontainerservice.OSTypeLinux),
				NodeTaints: []*string{to.Ptr("CriticalAddonsOnly=true:NoSchedule")},
			}},
			NetworkProfile: &armcontainerservice.NetworkProfile{
				NetworkPlugin:     to.Ptr(armcontainerservice.NetworkPluginAzure),
				NetworkPluginMode: to.Ptr(armcontainerservice.NetworkPluginModeOverlay),
				NetworkDataplane:  to.Ptr(armcontainerservice.NetworkDataplaneCilium),
			},
			NodeProvisioningProfile: &armcontainerservice.ManagedClusterNodeProvisioningProfile{
				Mode:             to.Ptr(armcontainerservice.NodeProvisioningModeAuto),
				DefaultNodePools: to.Ptr(armcontainerservice.NodeProvisioningDefaultNodePoolsNone),
			},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := poller.PollUntilDone(in.ctx, pollEvery); err != nil {
		t.Fatal(err)
	}
	c := in.open(t, name)
	// The suites want a cluster without any node class or pool.
	class := &unstructured.Unstructured{}
	class.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.azure.com", Version: "v1beta1", Kind: "AKSNodeClass"})
	class.SetName("default")
	if err := ctrlclient.IgnoreNotFound(c.kube.Delete(c.ctx, class)); err != nil {
		t.Fatal(err)
	}

	creds, err := in.clusters.ListClusterAdminCredentials(in.ctx, resourceGroup, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := map[string][]byte{"kubeconfig": creds.Kubeconfigs[0].Value, "class.yaml": []byte(karpenterNodeClass), "pool.yaml": []byte(karpenterNodePool)}
	for f, content := range files {
		if err := os.WriteFile(filepath.Join(dir, f), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"test", "-count=1", "-timeout", "60m", "-v", "sigs.k8s.io/karpenter/test/suites/" + suite, "-args",
		"--default-nodeclass=" + filepath.Join(dir, "class.yaml"), "--default-nodepool=" + filepath.Join(dir, "pool.yaml"), "--ginkgo.v=false"}
	if f := os.Getenv("NAP_KARPENTER_FOCUS"); f != "" {
		args = append(args, "--ginkgo.focus="+f)
	}
	if f := os.Getenv("NAP_KARPENTER_SKIP"); f != "" {
		args = append(args, "--ginkgo.skip="+f)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Errorf("Karpenter's %s suite: %v", suite, err)
	}
}
