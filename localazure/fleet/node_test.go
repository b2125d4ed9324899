// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/localazure/intent"
)

func aMachine(change func(*intent.MachineIntent)) intent.MachineIntent {
	m := intent.MachineIntent{
		ClusterUID: "u", Pool: intent.MachinesPool, Name: "default-abcde", NodeName: "aks-aksmanagedap-default-abcde-12345678-vm",
		ProviderID: "azure:///subscriptions/s/resourceGroups/mc/providers/Microsoft.Compute/virtualMachines/x", VMSize: "standard_d4s_v5",
		Location: "eastus", Zone: "2", Mode: "User", MaxPods: 110, OSDiskSizeGB: 128, OSSKU: "Ubuntu2204", KubernetesVersion: "1.36.3",
		NodeResourceGroup: "MC_rg_c_eastus", NodeImageVersion: "AKSUbuntu-2204gen2containerd-202611.01.0",
		Labels: map[string]string{"karpenter.sh/nodepool": "default", "agentpool": "liar"},
		Taints: []string{"karpenter.sh/unregistered:NoExecute", "team=a:NoSchedule"},
	}
	if change != nil {
		change(&m)
	}
	return m
}

var ciliumCluster = intent.ClusterIntent{NetworkPlugin: "azure", NetworkPluginMode: "overlay", NetworkDataplane: "cilium"}

func TestNodeLooksLikeOneOfAKS(t *testing.T) {
	tests := []struct {
		name       string
		change     func(*intent.MachineIntent)
		labels     map[string]string // "-" means absent
		taints     []string
		allocMilli int64
	}{
		{
			name: "a provisioned machine in a zone",
			labels: map[string]string{
				"node.kubernetes.io/instance-type": "Standard_D4s_v5", "topology.kubernetes.io/zone": "eastus-2", "topology.disk.csi.azure.com/zone": "eastus-2",
				"topology.kubernetes.io/region": "eastus", "kubernetes.io/arch": "amd64", "kubernetes.azure.com/mode": "user", "agentpool": intent.MachinesPool,
				"karpenter.sh/nodepool": "default", "kubernetes.azure.com/scalesetpriority": "regular", "kubernetes.azure.com/sku-memory": "16384",
				"kubernetes.azure.com/os-sku-effective": "Ubuntu2204", "kubernetes.azure.com/ebpf-dataplane": "cilium", "kubernetes.azure.com/cluster": "MC_rg_c_eastus",
				"karpenter.sh/do-not-sync-taints": "true",
			},
			taints: []string{"karpenter.sh/unregistered:NoExecute", "team=a:NoSchedule"}, allocMilli: 3860,
		},
		{
			name:   "without a zone",
			change: func(m *intent.MachineIntent) { m.Zone = "" },
			labels: map[string]string{"topology.kubernetes.io/zone": "0", "topology.disk.csi.azure.com/zone": ""},
			taints: []string{"karpenter.sh/unregistered:NoExecute", "team=a:NoSchedule"}, allocMilli: 3860,
		},
		{
			name: "a spot machine of node auto-provisioning gets no taint",
			change: func(m *intent.MachineIntent) {
				m.Spot, m.Taints = true, nil
			},
			labels: map[string]string{"kubernetes.azure.com/scalesetpriority": "spot", "kubernetes.azure.com/priority": "spot"}, allocMilli: 3860,
		},
		{
			name: "an instance of a spot scale set",
			change: func(m *intent.MachineIntent) {
				m.Pool, m.Spot, m.Taints = "spots", true, nil
			},
			labels: map[string]string{"kubernetes.azure.com/scalesetpriority": "spot", "kubernetes.azure.com/priority": "-", "kubernetes.azure.com/nodepool-type": "VirtualMachineScaleSets"},
			taints: []string{"kubernetes.azure.com/scalesetpriority=spot:NoSchedule", "node.cilium.io/agent-not-ready=true:NoExecute"}, allocMilli: 3860,
		},
		{
			name:   "two cores",
			change: func(m *intent.MachineIntent) { m.VMSize = "Standard_D2s_v5"; m.Taints = nil },
			labels: map[string]string{"kubernetes.azure.com/sku-cpu": "2"}, allocMilli: 1900,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := NodeFor(aMachine(tt.change), ciliumCluster)
			if err != nil {
				t.Fatal(err)
			}
			for k, want := range tt.labels {
				got, ok := n.Labels[k]
				if want == "-" {
					if ok {
						t.Errorf("label %s is %q, want none", k, got)
					}
				} else if got != want || !ok {
					t.Errorf("label %s is %q, want %q", k, got, want)
				}
			}
			var taints []string
			for _, taint := range n.Spec.Taints {
				taints = append(taints, taint.ToString())
			}
			if got, want := strings.Join(taints, " "), strings.Join(tt.taints, " "); got != want {
				t.Errorf("taints are %q, want %q", got, want)
			}
			if got := n.Status.Allocatable.Cpu().MilliValue(); got != tt.allocMilli {
				t.Errorf("allocatable CPU is %dm, want %dm", got, tt.allocMilli)
			}
			if n.Status.Allocatable.Memory().Cmp(*n.Status.Capacity.Memory()) >= 0 {
				t.Error("nothing of the memory is reserved")
			}
		})
	}
}

// A node must report the same capacity that the Azure provider computes for its
// size, or every machine looks drifted or too small.
func TestAllocatableMemoryMatchesTheProvider(t *testing.T) {
	n, err := NodeFor(aMachine(nil), ciliumCluster)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Status.Capacity.Memory().Value(); got != 15891378995 {
		t.Errorf("capacity is %d bytes, want 15891378995 (16 GiB less 7.5%%)", got)
	}
	if got, want := n.Status.Allocatable.Memory().Value(), int64(15891378995-(2662+750)<<20); got != want {
		t.Errorf("allocatable is %d bytes, want %d", got, want)
	}
}

func TestParseTaints(t *testing.T) {
	for text, want := range map[string]corev1.Taint{
		"a=b:NoSchedule":      {Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule},
		"x.io/y:NoExecute":    {Key: "x.io/y", Effect: corev1.TaintEffectNoExecute},
		"a=:PreferNoSchedule": {Key: "a", Effect: corev1.TaintEffectPreferNoSchedule},
	} {
		if got, err := parseTaint(text); err != nil || got != want {
			t.Errorf("%s: %+v (%v)", text, got, err)
		}
	}
	for _, bad := range []string{"", "a", "a=b", "a:Sometimes", ":NoSchedule"} {
		if _, err := parseTaint(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if _, err := NodeFor(aMachine(func(m *intent.MachineIntent) { m.Taints = []string{"broken"} }), ciliumCluster); err == nil || !strings.Contains(err.Error(), "default-abcde") {
		t.Errorf("the error does not name the machine: %v", err)
	}
}

func TestBootTimesAreReproducible(t *testing.T) {
	f := &fleet{Options: Options{BootTime: time.Second, Seed: 1}}
	same := f.bootDelay(aMachine(nil))
	if again := f.bootDelay(aMachine(nil)); again != same {
		t.Errorf("same machine, same seed: %s and %s", same, again)
	}
	differ := 0
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		d := f.bootDelay(aMachine(func(m *intent.MachineIntent) { m.Name = name }))
		if d < 600*time.Millisecond || d > 1400*time.Millisecond {
			t.Errorf("%s boots in %s, want 0.6 to 1.4 s", name, d)
		}
		if d != same {
			differ++
		}
	}
	if differ == 0 {
		t.Error("all machines boot in the same time")
	}
}

func TestClusterLabelIsValid(t *testing.T) {
	for in, want := range map[string]string{
		"MC_rg_c_eastus":               "MC_rg_c_eastus",
		"MC_(a)_b":                     "MC_-a-_b",
		"ends-":                        "ends-z",
		strings.Repeat("a", 80):        strings.Repeat("a", 63),
		strings.Repeat("a", 62) + "-x": strings.Repeat("a", 62) + "z",
	} {
		if got := clusterLabel(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestStagesAreValid(t *testing.T) {
	st, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, list := range st {
		n += len(list)
	}
	if n != 9 {
		t.Errorf("%d stages, want 2 of nodes and 7 of pods", n)
	}
}
