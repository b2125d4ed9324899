// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// asTable is the media type that kubectl get, k9s and dashboards accept.
const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// TestKubernetesClients does what k9s and dashboards do with a cluster: discover
// everything, read the schemas, list and watch each kind as a table, ask for
// permissions, follow logs, show resource usage, and maintain nodes.
func TestKubernetesClients(t *testing.T) {
	in := start(t)
	in.deployTemplate(t, "napcluster")
	c := in.open(t, "napcluster")
	app := deployment("web", 16, "1", "1Gi")
	app.Spec.Template.Annotations = map[string]string{"nap.dev/usage-cpu": "500m", "nap.dev/usage-memory": "300Mi"}
	c.apply(t, app)
	eventually(t, "16 pods Running", 3*time.Minute, func() error { return c.running("default", "web", 16) })
	// Without disruption the pods stay where they are.
	c.mustKubectl(t, "patched", "patch", "nodepool", "default", "--type=merge", "-p", `{"spec":{"disruption":{"budgets":[{"nodes":"0"}]}}}`)
	dc, err := discovery.NewDiscoveryClientForConfig(c.rest)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []metav1.APIResource
	t.Run("aggregated and legacy discovery agree", func(t *testing.T) { kinds = c.testDiscovery(t, dc) })
	t.Run("schemas", func(t *testing.T) { c.testSchemas(t, dc) })
	t.Run("every kind as a table", func(t *testing.T) { c.testTables(t, kinds) })
	t.Run("watches as tables", c.testWatches)
	t.Run("permissions", c.testPermissions)
	pods, err := c.pods("default", "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("resource usage and the horizontal pod autoscaler", func(t *testing.T) { c.testUsage(t, pods[0]) })
	t.Run("logs, and commands that need a process", func(t *testing.T) { c.testLogs(t, pods[0].Name) })
	t.Run("maintenance of nodes", c.testMaintenance)
}

// kubectl runs nap kubectl and returns its output.
func (c *cluster) kubectl(args ...string) (string, error) {
	return c.run(append([]string{"kubectl"}, args...)...)
}

// mustKubectl fails the test unless the command succeeds and prints want.
func (c *cluster) mustKubectl(t *testing.T, want string, args ...string) string {
	t.Helper()
	out, err := c.kubectl(args...)
	if err != nil || !strings.Contains(out, want) {
		t.Fatalf("kubectl %s: %v\n%s\nwant %q in it", strings.Join(args, " "), err, out, want)
	}
	return out
}

// testDiscovery returns the resources that can be listed.
func (c *cluster) testDiscovery(t *testing.T, dc *discovery.DiscoveryClient) []metav1.APIResource {
	var kinds []metav1.APIResource
	names := func(legacy bool) (out []string) {
		dc.UseLegacyDiscovery = legacy
		_, lists, err := dc.ServerGroupsAndResources()
		if err != nil {
			t.Fatalf("legacy %t: %v", legacy, err)
		}
		for _, l := range lists {
			for _, r := range l.APIResources {
				out = append(out, l.GroupVersion+"/"+r.Name)
				if !legacy && !strings.Contains(r.Name, "/") && slices.Contains(r.Verbs, "list") {
					group, version, both := strings.Cut(l.GroupVersion, "/")
					if !both {
						group, version = "", group
					}
					r.Group, r.Version = group, version
					kinds = append(kinds, r)
				}
			}
		}
		slices.Sort(out)
		return out
	}
	aggregated, legacy := names(false), names(true)
	if !slices.Equal(aggregated, legacy) {
		t.Errorf("aggregated discovery has %d resources, legacy discovery %d", len(aggregated), len(legacy))
	}
	for _, want := range []string{"karpenter.sh/v1/nodepools", "karpenter.sh/v1/nodeclaims/status", "karpenter.azure.com/v1beta1/aksnodeclasses", "metrics.k8s.io/v1beta1/pods", "apps/v1/deployments/scale"} {
		if !slices.Contains(aggregated, want) {
			t.Errorf("%s is not discovered", want)
		}
	}
	return kinds
}

func (c *cluster) testSchemas(t *testing.T, dc *discovery.DiscoveryClient) {
	paths, err := dc.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]string{"apis/karpenter.sh/v1": "NodePool", "apis/karpenter.azure.com/v1beta1": "AKSNodeClass", "api/v1": "io.k8s.api.core.v1.Pod"} {
		gv, ok := paths[path]
		if !ok {
			t.Errorf("no schema of %s", path)
			continue
		}
		if b, err := gv.Schema("application/json"); err != nil || !strings.Contains(string(b), kind) {
			t.Errorf("the schema of %s (%v, %d bytes) lacks %s", path, err, len(b), kind)
		}
	}
	c.mustKubectl(t, "consolidateAfter", "explain", "nodepool.spec.disruption")
	eventually(t, "the schema of metrics", time.Minute, func() error {
		if out, err := c.kubectl("explain", "podmetrics.containers"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

func (c *cluster) testTables(t *testing.T, kinds []metav1.APIResource) {
	if len(kinds) < 50 {
		t.Errorf("only %d kinds can be listed", len(kinds))
	}
	for _, r := range kinds {
		table := c.table(t, r)
		if table.Kind != "Table" || len(table.ColumnDefinitions) == 0 || table.ColumnDefinitions[0].Name != "Name" && r.Name != "events" {
			t.Errorf("%s of %s is returned as %s, columns %v", r.Name, r.Group, table.Kind, columns(table))
		}
		if want := map[string]string{
			"nodepools":      "Name NodeClass Nodes Ready Age Weight CPU Memory",
			"nodeclaims":     "Name Type Capacity Zone Node Ready Age ImageID ID NodePool NodeClass Drifted",
			"aksnodeclasses": "Name Ready Age ImageFamily",
		}[r.Name]; want != "" && strings.Join(columns(table), " ") != want {
			t.Errorf("%s has the columns %v, want %s", r.Name, columns(table), want)
		}
		if (r.Name == "nodeclaims" || r.Name == "nodepools") && len(table.Rows) == 0 {
			t.Errorf("no %s", r.Name)
		}
	}
}

func (c *cluster) testWatches(t *testing.T) {
	for _, path := range []string{"/apis/karpenter.sh/v1/nodepools", "/apis/karpenter.sh/v1/nodeclaims", "/apis/karpenter.azure.com/v1beta1/aksnodeclasses", "/api/v1/nodes", "/api/v1/pods", "/api/v1/events", "/apis/apps/v1/deployments"} {
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		resp := c.get(ctx, t, path+"?watch=true&includeObject=Metadata", asTable)
		var ev struct {
			Type   string
			Object metav1.Table
		}
		err := json.NewDecoder(resp.Body).Decode(&ev)
		_ = resp.Body.Close()
		cancel()
		if err != nil || ev.Type != "ADDED" || ev.Object.Kind != "Table" || len(ev.Object.Rows) != 1 {
			t.Errorf("the first event of %s: %v, %s of %s", path, err, ev.Type, ev.Object.Kind)
		}
	}
}

func (c *cluster) testPermissions(t *testing.T) {
	c.mustKubectl(t, "yes", "auth", "can-i", "delete", "nodeclaims.karpenter.sh")
	c.mustKubectl(t, "*.*", "auth", "can-i", "--list")
	out, err := c.kubectl("auth", "can-i", "get", "nodes.metrics.k8s.io", "--as=nobody")
	if err == nil || !strings.Contains(out, "no") {
		t.Errorf("a user without roles may read metrics: %s", out)
	}
	if out, err := c.kubectl("top", "nodes", "--as=nobody"); err == nil || !strings.Contains(out, "Forbidden") && !strings.Contains(out, "forbidden") {
		t.Errorf("a user without roles reads metrics: %s", out)
	}
}

func (c *cluster) testUsage(t *testing.T, pod corev1.Pod) {
	if f := strings.Fields(c.mustKubectl(t, pod.Name, "top", "pod", pod.Name, "--no-headers")); len(f) != 3 || f[1] != "500m" || f[2] != "300Mi" {
		t.Errorf("kubectl top pod: %v, want 500m and 300Mi", f)
	}
	c.mustKubectl(t, pod.Spec.NodeName, "top", "nodes")
	c.apply(t, &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MinReplicas: ptr.To[int32](1), MaxReplicas: 18,
		Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](25)}}}},
	}})
	eventually(t, "usage is twice the target: the autoscaler scales to its maximum, and machines are created", 4*time.Minute, func() error { return c.running("default", "web", 18) })
	c.mustKubectl(t, "deleted", "delete", "hpa", "web")
}

func (c *cluster) testLogs(t *testing.T, pod string) {
	c.mustKubectl(t, "this container is simulated", "logs", pod, "--timestamps")
	ctx, cancel := context.WithTimeout(c.ctx, 3*time.Minute)
	defer cancel()
	resp := c.get(ctx, t, "/api/v1/namespaces/default/pods/"+pod+"/log?follow=true", "*/*")
	defer func() { _ = resp.Body.Close() }()
	r := bufio.NewReader(resp.Body)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "simulated") {
		t.Fatalf("the followed log starts with %q: %v", line, err)
	}
	c.mustKubectl(t, "deleted", "delete", "pod", pod, "--wait=false")
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the followed log of a deleted pod does not end: %v", err)
	}
	pods, err := c.pods("default", "web")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil })
	other := pods[i].Name
	for _, args := range [][]string{{"exec", other, "--", "ls"}, {"attach", other}, {"port-forward", other, ":80"}, {"get", "--raw", "/api/v1/namespaces/default/pods/" + other + "/proxy/"}} {
		if out, err := c.kubectl(args...); err == nil || !strings.Contains(out, "simulated") {
			t.Errorf("kubectl %s: %v, %s; want an error that names the reason", strings.Join(args, " "), err, out)
		}
	}
}

func (c *cluster) testMaintenance(t *testing.T) {
	nodes, err := c.nodes(true)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("%d nodes: %v", len(nodes), err)
	}
	node := nodes[0].Name
	c.mustKubectl(t, "cordoned", "cordon", node)
	c.mustKubectl(t, "drained", "drain", node, "--ignore-daemonsets", "--timeout=2m")
	if _, err := c.kubectl("uncordon", node); err != nil { // an empty node may be deleted by now
		t.Logf("uncordon: %v", err)
	}
	c.mustKubectl(t, "Last Transition Time", "describe", "nodepool", "default")
	c.mustKubectl(t, "Allocatable", "describe", "nodes")
	c.mustKubectl(t, "Node Name", "describe", "nodeclaims")
	c.mustKubectl(t, "patched", "patch", "nodepool", "default", "--type=merge", "-p", `{"spec":{"weight":7}}`)
	c.mustKubectl(t, "scaled", "scale", "deployment", "web", "--replicas=3")
	c.mustKubectl(t, "web", "get", "deployment", "web", "--subresource=scale")
	eventually(t, "3 pods Running", 2*time.Minute, func() error { return c.running("default", "web", 3) })
	c.mustKubectl(t, "node-auto-provisioning", "get", "events", "-A", "--field-selector=source=node-auto-provisioning", "-o", "wide")
}

// get reads a path of the cluster's API with an Accept header.
func (c *cluster) get(ctx context.Context, t *testing.T, path, accept string) *http.Response {
	t.Helper()
	client, err := rest.HTTPClientFor(c.rest)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.rest.Host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 2000))
		_ = resp.Body.Close()
		t.Fatalf("%s: %s: %s", path, resp.Status, b)
	}
	return resp
}

// table lists a kind, in all namespaces, as a table.
func (c *cluster) table(t *testing.T, r metav1.APIResource) metav1.Table {
	t.Helper()
	path := "/apis/" + r.Group + "/" + r.Version + "/" + r.Name
	if r.Group == "" {
		path = "/api/" + r.Version + "/" + r.Name
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	resp := c.get(ctx, t, path, asTable)
	defer func() { _ = resp.Body.Close() }()
	var table metav1.Table
	if err := json.NewDecoder(resp.Body).Decode(&table); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return table
}

func columns(t metav1.Table) (names []string) {
	for _, c := range t.ColumnDefinitions {
		names = append(names, c.Name)
	}
	return names
}
