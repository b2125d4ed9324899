// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// cluster is a managed cluster and a client to its Kubernetes API.
type cluster struct {
	*instance
	name string
	kube ctrlclient.Client
	rest *rest.Config
}

// open connects to a cluster with the credentials that az aks get-credentials
// fetches.
func (in *instance) open(t *testing.T, name string) *cluster {
	t.Helper()
	resp, err := in.clusters.ListClusterAdminCredentials(in.ctx, resourceGroup, name, nil)
	if err != nil {
		t.Fatalf("credentials of cluster %s: %v", name, err)
	}
	if len(resp.Kubeconfigs) == 0 {
		t.Fatalf("cluster %s: no kubeconfig in the reply", name)
	}
	c, err := in.dial(name, resp.Kubeconfigs[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// dial creates the clients of a cluster from its kubeconfig.
func (in *instance) dial(name string, kubeconfig []byte) (*cluster, error) {
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("credentials of cluster %s: %w", name, err)
	}
	cfg.QPS, cfg.Burst = 200, 400
	kube, err := ctrlclient.New(cfg, ctrlclient.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("client to cluster %s: %w", name, err)
	}
	return &cluster{instance: in, name: name, kube: kube, rest: cfg}, nil
}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(s))
	return s
}()

// nodes lists the cluster's Nodes: all, or only those of NodePools.
func (c *cluster) nodes(napOnly bool) ([]corev1.Node, error) {
	var list corev1.NodeList
	if err := c.kube.List(c.ctx, &list); err != nil {
		return nil, err
	}
	var out []corev1.Node
	for _, n := range list.Items {
		if _, nap := n.Labels["karpenter.sh/nodepool"]; nap || !napOnly {
			out = append(out, n)
		}
	}
	return out, nil
}

// pods lists the pods of a namespace with the label app=name.
func (c *cluster) pods(namespace, app string) ([]corev1.Pod, error) {
	var list corev1.PodList
	opts := []ctrlclient.ListOption{ctrlclient.InNamespace(namespace)}
	if app != "" {
		opts = append(opts, ctrlclient.MatchingLabels{"app": app})
	}
	if err := c.kube.List(c.ctx, &list, opts...); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// running returns nil if exactly want pods of the app are Running and no others
// exist, and otherwise an error with the counts.
func (c *cluster) running(namespace, app string, want int) error {
	pods, err := c.pods(namespace, app)
	if err != nil {
		return err
	}
	run, pending := 0, 0
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		if p.Status.Phase == corev1.PodRunning {
			run++
		} else {
			pending++
		}
	}
	if run != want || pending != 0 {
		return fmt.Errorf("%s: %d pods Running and %d not, want %d Running", app, run, pending, want)
	}
	return nil
}

func (c *cluster) nodePool(name string) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePool"})
	return u, c.kube.Get(c.ctx, types.NamespacedName{Name: name}, u)
}

// freezeNodePools takes the first documented steps of disabling: limits of 0, so
// that no node is added, and a taint that makes every node drift.
func (c *cluster) freezeNodePools(t *testing.T) {
	t.Helper()
	pools, err := c.list("NodePool")
	if err != nil {
		t.Fatal(err)
	}
	for i := range pools {
		patch := `{"spec":{"limits":{"cpu":"0"},"template":{"spec":{"taints":[{"key":"karpenter.azure.com/disable","effect":"NoSchedule"}]}}}}`
		if err := c.kube.Patch(c.ctx, &pools[i], ctrlclient.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatalf("freezing NodePool %s: %v", pools[i].GetName(), err)
		}
	}
}

// noMachines returns nil if ARM lists no provisioned machine and the cluster has
// neither a Node of a NodePool nor a NodeClaim.
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

// list lists all objects of a Karpenter kind.
func (c *cluster) list(kind string) ([]unstructured.Unstructured, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: kind + "List"})
	err := c.kube.List(c.ctx, list)
	return list.Items, err
}

func (c *cluster) nodeClaims() ([]unstructured.Unstructured, error) { return c.list("NodeClaim") }

// machineNames returns the names of the provisioned machines in ARM.
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

// readyNodes returns nil if at least want nodes are Ready.
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

// apply creates an object.
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

// nodePoolNames returns the names of the cluster's NodePools.
func (c *cluster) nodePoolNames(t *testing.T) []string {
	t.Helper()
	pools, err := c.list("NodePool")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range pools {
		out = append(out, p.GetName())
	}
	return out
}

// nodePoolSpec returns a NodePool's spec as JSON.
func (c *cluster) nodePoolSpec(t *testing.T, name string) string {
	t.Helper()
	pool, err := c.nodePool(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(pool.Object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// matched returns nil if every machine in ARM has exactly one NodeClaim and one
// Node, and at least atLeast machines exist.
func (c *cluster) matched(atLeast int) error {
	machines, err := c.machineNames()
	if err != nil {
		return err
	}
	claims, err := c.nodeClaims()
	if err != nil {
		return err
	}
	nodes, err := c.nodes(true)
	if err != nil {
		return err
	}
	seen := map[string]int{}
	for _, claim := range claims {
		if claim.GetLabels()["karpenter.sh/nodepool"] == "" {
			return fmt.Errorf("NodeClaim %s belongs to no NodePool", claim.GetName())
		}
		id, _, _ := unstructured.NestedString(claim.Object, "status", "providerID")
		seen[id]++
		if id == "" || seen[id] > 1 {
			return fmt.Errorf("NodeClaim %s has provider ID %q, %d claims share it", claim.GetName(), id, seen[id])
		}
	}
	if len(machines) != len(claims) || len(nodes) != len(claims) || len(claims) < atLeast {
		return fmt.Errorf("%d machines in ARM, %d NodeClaims, %d Nodes", len(machines), len(claims), len(nodes))
	}
	for _, n := range nodes {
		if seen[n.Spec.ProviderID] != 1 {
			return fmt.Errorf("node %s (%s) has no NodeClaim", n.Name, n.Spec.ProviderID)
		}
	}
	return nil
}

// poolNodes returns the nodes of a fixed pool, and those of them that are cordoned.
func (c *cluster) poolNodes(pool string) (all, cordoned []string, err error) {
	nodes, err := c.nodes(false)
	for _, n := range nodes {
		if n.Labels["kubernetes.azure.com/agentpool"] != pool {
			continue
		}
		all = append(all, n.Name)
		if n.Spec.Unschedulable {
			cordoned = append(cordoned, n.Name)
		}
	}
	return all, cordoned, err
}
