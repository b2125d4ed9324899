// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package addons installs in a managed cluster what AKS installs in kube-system:
// DaemonSets, system Deployments, storage classes and disruption budgets. Their
// requests are every machine's overhead, so they influence which sizes are worth
// buying.
package addons

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nap-aks/nap/azure/aksdefaults"
	"github.com/nap-aks/nap/localazure/intent"
)

//go:embed kube-system.yaml.tmpl
var manifests string

type container struct{ Name, Image, CPU, Memory, Limit string }

type workload struct {
	Name, App, PDB, Priority string
	Replicas                 int
	HostNetwork, Spread      bool
	Containers               []container
}

type storageClass struct {
	Name, Provisioner, SKU, Binding string
	Default                         bool
}

type values struct {
	DaemonSets, Deployments []workload
	StorageClasses          []storageClass
	DNSServiceIP            string
}

const registry = "mcr.microsoft.com/"

func one(name, image, cpu, memory, limit string) []container {
	return []container{{name, registry + image, cpu, memory, limit}}
}

func valuesFor(ci intent.ClusterIntent) values {
	cilium := strings.EqualFold(ci.NetworkDataplane, "cilium")
	v := values{DNSServiceIP: ci.DNSServiceIP}
	if v.DNSServiceIP == "" {
		v.DNSServiceIP = "10.0.0.10"
	}
	v.DaemonSets = []workload{
		{Name: "cloud-node-manager", HostNetwork: true, Containers: one("cloud-node-manager", "oss/v2/kubernetes/azure-cloud-node-manager", "50m", "50Mi", "512Mi")},
		{Name: "csi-azuredisk-node", HostNetwork: true, Containers: []container{
			{"liveness-probe", registry + "oss/v2/kubernetes-csi/livenessprobe", "10m", "20Mi", "100Mi"},
			{"node-driver-registrar", registry + "oss/v2/kubernetes-csi/csi-node-driver-registrar", "10m", "20Mi", "100Mi"},
			{"azuredisk", registry + "oss/v2/kubernetes-csi/azuredisk-csi", "10m", "20Mi", "1000Mi"},
		}},
		{Name: "csi-azurefile-node", HostNetwork: true, Containers: []container{
			{"liveness-probe", registry + "oss/v2/kubernetes-csi/livenessprobe", "10m", "20Mi", "100Mi"},
			{"node-driver-registrar", registry + "oss/v2/kubernetes-csi/csi-node-driver-registrar", "10m", "20Mi", "100Mi"},
			{"azurefile", registry + "oss/v2/kubernetes-csi/azurefile-csi", "10m", "20Mi", "600Mi"},
		}},
		{Name: "azure-ip-masq-agent", HostNetwork: true, Containers: one("azure-ip-masq-agent", "aks/ip-masq-agent-v2", "100m", "50Mi", "250Mi")},
	}
	if strings.EqualFold(ci.NetworkPlugin, "azure") && (cilium || strings.EqualFold(ci.NetworkPluginMode, "overlay")) {
		v.DaemonSets = append(v.DaemonSets, workload{Name: "azure-cns", HostNetwork: true,
			Containers: one("cns-container", "containernetworking/azure-cns", "40m", "250Mi", "250Mi")})
	}
	if cilium {
		v.DaemonSets = append(v.DaemonSets, workload{Name: "cilium", HostNetwork: true,
			Containers: one("cilium-agent", "containernetworking/cilium/cilium", "100m", "300Mi", "2Gi")})
	} else {
		v.DaemonSets = append(v.DaemonSets, workload{Name: "kube-proxy", HostNetwork: true,
			Containers: one("kube-proxy", "oss/kubernetes/kube-proxy", "100m", "128Mi", "1Gi")})
	}
	v.Deployments = []workload{
		{Name: "coredns", App: "kube-dns", PDB: "coredns-pdb", Priority: "system-node-critical", Replicas: 2, Spread: true,
			Containers: one("coredns", "oss/v2/kubernetes/coredns", "100m", "70Mi", "500Mi")},
		{Name: "coredns-autoscaler", App: "coredns-autoscaler", Priority: "system-node-critical", Replicas: 1,
			Containers: one("autoscaler", "oss/v2/kubernetes/autoscaler/cluster-proportional-autoscaler", "20m", "10Mi", "500Mi")},
		{Name: "konnectivity-agent", App: "konnectivity-agent", PDB: "konnectivity-agent", Priority: "system-node-critical", Replicas: 2, Spread: true,
			Containers: one("konnectivity-agent", "oss/v2/kubernetes/apiserver-network-proxy/agent", "20m", "20Mi", "1Gi")},
		{Name: "konnectivity-agent-autoscaler", App: "konnectivity-agent-autoscaler", Priority: "system-node-critical", Replicas: 1,
			Containers: one("autoscaler", "oss/v2/kubernetes/autoscaler/cluster-proportional-autoscaler", "20m", "10Mi", "500Mi")},
		{Name: "metrics-server", App: "metrics-server", PDB: "metrics-server-pdb", Priority: "system-node-critical", Replicas: 2, Spread: true,
			Containers: []container{
				{"metrics-server-vpa", registry + "oss/v2/kubernetes/autoscaler/addon-resizer", "5m", "30Mi", "50Mi"},
				{"metrics-server", registry + "oss/v2/kubernetes/metrics-server", "148m", "127Mi", "318Mi"},
			}},
	}
	if cilium {
		v.Deployments = append(v.Deployments, workload{Name: "cilium-operator", App: "cilium-operator", Priority: "system-cluster-critical", Replicas: 2, HostNetwork: true, Spread: true,
			Containers: one("cilium-operator", "containernetworking/cilium/operator-generic", "100m", "128Mi", "500Mi")})
	}
	for _, c := range aksdefaults.StorageClasses() {
		v.StorageClasses = append(v.StorageClasses, storageClass{c.Name, c.Provisioner, c.Parameters["skuname"], string(*c.VolumeBindingMode), c.Name == aksdefaults.DefaultStorageClass})
	}
	return v
}

// resources maps the kinds in the manifests to their resources; it saves a discovery
// request.
var resources = map[string]struct {
	name       string
	namespaced bool
}{
	"DaemonSet": {"daemonsets", true}, "Deployment": {"deployments", true}, "ServiceAccount": {"serviceaccounts", true},
	"Service": {"services", true}, "PodDisruptionBudget": {"poddisruptionbudgets", true},
	"StorageClass": {"storageclasses", false}, "CSIDriver": {"csidrivers", false},
}

// Objects returns the objects to install in a cluster.
func Objects(ci intent.ClusterIntent) ([]*unstructured.Unstructured, error) {
	t, err := template.New("kube-system").Parse(manifests)
	if err != nil {
		return nil, fmt.Errorf("kube-system template: %w", err)
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, valuesFor(ci)); err != nil {
		return nil, fmt.Errorf("kube-system template: %w", err)
	}
	var out []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(&buf, 4096)
	for {
		u := &unstructured.Unstructured{}
		if err := dec.Decode(&u.Object); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("kube-system manifests: %w", err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// Apply installs or updates the addons by server-side apply, and returns the version
// that the API server reports, without v. It fails until kube-system exists, which
// the API server creates shortly after it is ready.
func Apply(ctx context.Context, cfg *rest.Config, ci intent.ClusterIntent) (string, error) {
	objs, err := Objects(ci)
	if err != nil {
		return "", err
	}
	dc, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return "", fmt.Errorf("client of cluster %s: %w", ci.Name, err)
	}
	version, err := dc.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("version of cluster %s: %w", ci.Name, err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return "", fmt.Errorf("client of cluster %s: %w", ci.Name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, u := range objs {
		r, ok := resources[u.GetKind()]
		if !ok {
			return "", fmt.Errorf("kube-system manifests: kind %s is not in the list of resources", u.GetKind())
		}
		gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
		if err != nil {
			return "", fmt.Errorf("kube-system manifests: %w", err)
		}
		var ri dynamic.ResourceInterface = client.Resource(gv.WithResource(r.name))
		if r.namespaced {
			ri = client.Resource(gv.WithResource(r.name)).Namespace(u.GetNamespace())
		}
		g.Go(func() error {
			if _, err := ri.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "aks", Force: true}); err != nil {
				return fmt.Errorf("applying %s %s: %w", u.GetKind(), u.GetName(), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return strings.TrimPrefix(version.GitVersion, "v"), nil
}
