// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// serverVersion returns the API server's release and, in brackets, the minor
// version that it emulates.
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

// kubelets returns nil if all nodes run the version and at least min of them
// belong to NodePools.
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

// TestUpgrade upgrades a cluster with running pods to the next minor version, as
// az aks upgrade does: the control plane reports and emulates the new version,
// the fixed pool is upgraded node by node, and the provisioned nodes drift and
// are replaced within the budgets of pods and NodePools.
func TestUpgrade(t *testing.T) {
	in := start(t)
	const name, from, to136 = "old", "1.35.6", "1.36.3"
	body := in.autoCluster(name, 1)
	body.Properties.KubernetesVersion = to.Ptr("1.31.2")
	_, err := in.putCluster(name, body)
	var re *azcore.ResponseError
	if !errors.As(err, &re) || re.StatusCode != http.StatusBadRequest || re.ErrorCode != "K8sVersionNotSupported" || !strings.Contains(err.Error(), from) {
		t.Errorf("creating a cluster of a version that is not offered: %v", err)
	}
	body.Properties.KubernetesVersion = to.Ptr(from)
	if _, err := in.putCluster(name, body); err != nil {
		t.Fatal(err)
	}
	c := in.open(t, name)
	if v, err := c.serverVersion(); err != nil || v != "v"+from+" (1.35)" {
		t.Fatalf("the API server reports version %s (%v), want v%s", v, err, from)
	}
	// Two nodes of the pool and one of the four pods may be disrupted at a time.
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
	done, err := in.putCluster(name, got.ManagedCluster)
	if err != nil {
		t.Fatalf("upgrading: %v", err)
	}
	t.Logf("az aks upgrade took %s", time.Since(began).Round(time.Millisecond))
	if v := *done.Properties.CurrentKubernetesVersion; v != to136 {
		t.Errorf("ARM reports version %s", v)
	}
	if v, err := c.serverVersion(); err != nil || v != "v"+to136+" (1.36)" {
		t.Errorf("the API server reports version %s (%v), want v%s", v, err, to136)
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
