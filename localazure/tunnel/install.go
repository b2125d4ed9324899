// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// manifests make metrics.k8s.io part of a cluster's API. The Service selects no
// pods, so the API is available even if those of metrics-server do not run: an
// unavailable API would block the deletion of namespaces.
var manifests = []struct {
	gvr  schema.GroupVersionResource
	ns   string
	text string
}{
	{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "kube-system", `
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system, labels: {k8s-app: metrics-server, kubernetes.azure.com/managedby: aks, kubernetes.io/cluster-service: "true"}}
spec: {type: ExternalName, externalName: ` + metricsHost + `}
`},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, "", `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: system:aggregated-metrics-reader
  labels: {kubernetes.azure.com/managedby: aks, rbac.authorization.k8s.io/aggregate-to-admin: "true", rbac.authorization.k8s.io/aggregate-to-edit: "true", rbac.authorization.k8s.io/aggregate-to-view: "true"}
rules:
- {apiGroups: [metrics.k8s.io], resources: [pods, nodes], verbs: [get, list]}
`},
	{schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}, "", `
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io, labels: {k8s-app: metrics-server, kubernetes.azure.com/managedby: aks}}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system, port: 443}
`},
}

// Install registers the metrics API of the tunnel in the cluster. Serve must be
// running.
func Install(ctx context.Context, client dynamic.Interface) error {
	for _, i := range manifests {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(i.text), &u.Object); err != nil {
			return fmt.Errorf("metrics API: %w", err)
		}
		var r dynamic.ResourceInterface = client.Resource(i.gvr)
		if i.ns != "" {
			r = client.Resource(i.gvr).Namespace(i.ns)
		}
		if _, err := r.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "aks", Force: true}); err != nil {
			return fmt.Errorf("metrics API: %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}
