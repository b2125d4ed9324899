// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package addons

import (
	"testing"

	"github.com/nap-aks/nap/localazure/intent"
)

func TestAddonsDependOnTheNetworkPlugin(t *testing.T) {
	tests := []struct {
		name       string
		ci         intent.ClusterIntent
		has, hasNo []string
	}{
		{"overlay with Cilium", intent.ClusterIntent{NetworkPlugin: "azure", NetworkPluginMode: "overlay", NetworkDataplane: "cilium"},
			[]string{"DaemonSet/cilium", "DaemonSet/azure-cns", "Deployment/cilium-operator"}, []string{"DaemonSet/kube-proxy"}},
		{"overlay", intent.ClusterIntent{NetworkPlugin: "azure", NetworkPluginMode: "overlay"},
			[]string{"DaemonSet/kube-proxy", "DaemonSet/azure-cns"}, []string{"DaemonSet/cilium", "Deployment/cilium-operator"}},
		{"own CNI", intent.ClusterIntent{NetworkPlugin: "none"},
			[]string{"DaemonSet/kube-proxy"}, []string{"DaemonSet/cilium", "DaemonSet/azure-cns"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objs, err := Objects(tt.ci)
			if err != nil {
				t.Fatal(err)
			}
			there := map[string]bool{}
			for _, u := range objs {
				there[u.GetKind()+"/"+u.GetName()] = true
				if r, ok := resources[u.GetKind()]; !ok {
					t.Errorf("Apply does not know kind %s", u.GetKind())
				} else if r.namespaced != (u.GetNamespace() == "kube-system") {
					t.Errorf("%s %s is in namespace %q", u.GetKind(), u.GetName(), u.GetNamespace())
				}
			}
			for _, name := range append(tt.has, "Deployment/coredns", "PodDisruptionBudget/coredns-pdb", "Deployment/metrics-server", "DaemonSet/csi-azuredisk-node",
				"StorageClass/managed-csi", "StorageClass/default", "Service/kube-dns") {
				if !there[name] {
					t.Errorf("no %s", name)
				}
			}
			for _, name := range tt.hasNo {
				if there[name] {
					t.Errorf("%s should not be installed", name)
				}
			}
		})
	}
}
