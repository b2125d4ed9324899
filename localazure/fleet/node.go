// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/tunnel"
)

const (
	mib = int64(1) << 20

	// managedAnnotation marks the nodes whose kubelet the fleet simulates. It is
	// removed when the machine stops, which ends the heartbeats.
	managedAnnotation = "kwok.x-k8s.io/node"

	ciliumTaint = "node.cilium.io/agent-not-ready"
	spotLabel   = "kubernetes.azure.com/scalesetpriority"
)

// NodeFor returns the Node that the kubelet of a machine registers, with the
// labels, capacity and taints that AKS gives that size.
func NodeFor(m intent.MachineIntent, c intent.ClusterIntent) (*corev1.Node, error) {
	size, err := catalog.Lookup(m.Location, m.VMSize)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	taints, err := taintsFor(m, c)
	if err != nil {
		return nil, err
	}
	capacity, allocatable := resourcesFor(m, size)
	ip := nodeIP(m)
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   m.NodeName,
			Labels: labelsFor(m, c, size),
			Annotations: map[string]string{
				managedAnnotation:                                        "fake",
				"node.alpha.kubernetes.io/ttl":                           "0",
				"volumes.kubernetes.io/controller-managed-attach-detach": "true",
			},
		},
		Spec: corev1.NodeSpec{ProviderID: m.ProviderID, Taints: taints},
		Status: corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: allocatable,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: ip},
				{Type: corev1.NodeHostName, Address: m.NodeName},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: tunnel.KubeletPort}},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID:               fmt.Sprintf("%032x", hash(m.ProviderID)),
				SystemUUID:              fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(hash(m.ProviderID)), hash(m.NodeName)>>16),
				BootID:                  fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(hash(m.NodeName)), hash(m.ProviderID)>>16),
				KernelVersion:           kernel(m.OSSKU),
				OSImage:                 osImage(m.OSSKU),
				ContainerRuntimeVersion: "containerd://2.1.4",
				KubeletVersion:          "v" + m.KubernetesVersion,
				OperatingSystem:         "linux",
				Architecture:            size.Arch,
			},
		},
	}
	return n, nil
}

// labelsFor returns the labels of the intent and those that AKS and the cloud node
// manager add, which take precedence.
func labelsFor(m intent.MachineIntent, c intent.ClusterIntent, size catalog.Size) map[string]string {
	l := map[string]string{}
	maps.Copy(l, m.Labels)
	mode := strings.ToLower(m.Mode)
	if mode == "" {
		mode = "user"
	}
	zone, diskZone := "0", ""
	if m.Zone != "" {
		zone = strings.ToLower(m.Location) + "-" + m.Zone
		diskZone = zone
	}
	nap := m.Pool == intent.MachinesPool
	nodepoolType := "VirtualMachineScaleSets"
	if nap {
		nodepoolType = "Machines"
	}
	storageTier := "Standard_LRS"
	if size.PremiumIO {
		storageTier = "Premium_LRS"
	}
	for k, v := range map[string]string{
		corev1.LabelHostname:                       m.NodeName,
		corev1.LabelArchStable:                     size.Arch,
		corev1.LabelOSStable:                       "linux",
		"beta.kubernetes.io/arch":                  size.Arch,
		"beta.kubernetes.io/os":                    "linux",
		corev1.LabelInstanceTypeStable:             size.Name,
		"beta.kubernetes.io/instance-type":         size.Name,
		corev1.LabelTopologyRegion:                 strings.ToLower(m.Location),
		corev1.LabelTopologyZone:                   zone,
		"failure-domain.beta.kubernetes.io/region": strings.ToLower(m.Location),
		"failure-domain.beta.kubernetes.io/zone":   zone,
		"topology.disk.csi.azure.com/zone":         diskZone,

		"agentpool":                               m.Pool,
		"kubernetes.azure.com/agentpool":          m.Pool,
		"kubernetes.azure.com/nodepool-type":      nodepoolType,
		"kubernetes.azure.com/cluster":            clusterLabel(m.NodeResourceGroup),
		"kubernetes.azure.com/mode":               mode,
		"kubernetes.azure.com/role":               "agent",
		"kubernetes.azure.com/node-image-version": m.NodeImageVersion,
		"kubernetes.azure.com/os-sku":             osSKULabel(m.OSSKU),
		"kubernetes.azure.com/os-sku-requested":   osSKULabel(m.OSSKU),
		"kubernetes.azure.com/os-sku-effective":   osSKUEffective(m.OSSKU),
		"kubernetes.azure.com/storageprofile":     "managed",
		"kubernetes.azure.com/storagetier":        storageTier,
		"kubernetes.azure.com/kubelet-serving-ca": "cluster",
		"kubernetes.azure.com/localdns-state":     "disabled",
		"storageprofile":                          "managed",
		"storagetier":                             storageTier,
	} {
		l[k] = v
	}
	switch {
	case m.Spot:
		l[spotLabel] = "spot"
	case nap:
		l[spotLabel] = "regular"
	}
	if nap {
		l["kubernetes.azure.com/priority"] = l[spotLabel]
		// The kubelet registers with all taints, startup taints included; Karpenter
		// must not add those again that are removed before it sees the node.
		l["karpenter.sh/do-not-sync-taints"] = "true"
		l["kubernetes.azure.com/sku-cpu"] = strconv.Itoa(size.VCPUsAvailable)
		l["kubernetes.azure.com/sku-memory"] = strconv.FormatInt(int64(size.MemoryGiB*1024), 10)
	}
	if isCilium(c) {
		l["kubernetes.azure.com/ebpf-dataplane"] = "cilium"
	}
	if strings.EqualFold(c.NetworkPluginMode, "overlay") {
		l["kubernetes.azure.com/azure-cni-overlay"] = "true"
		l["kubernetes.azure.com/podnetwork-type"] = "overlay"
	}
	if size.GPUs > 0 {
		l["accelerator"] = size.GPUManufacturer
		l["kubernetes.azure.com/accelerator"] = size.GPUManufacturer
	}
	return l
}

func isCilium(c intent.ClusterIntent) bool { return strings.EqualFold(c.NetworkDataplane, "cilium") }

// clusterLabel returns the node resource group as AKS writes it into a label.
func clusterLabel(group string) string {
	s := strings.NewReplacer("(", "-", ")", "-").Replace(group)
	if len(s) > 63 {
		s = s[:63]
	}
	if s == "" {
		return s
	}
	if last := s[len(s)-1]; last == '-' || last == '_' || last == '.' {
		if len(s) < 63 {
			return s + "z"
		}
		return s[:len(s)-1] + "z"
	}
	return s
}

func osSKULabel(sku string) string {
	if strings.HasPrefix(strings.ToLower(sku), "azurelinux") {
		return "AzureLinux"
	}
	return "Ubuntu"
}

func osSKUEffective(sku string) string {
	switch strings.ToLower(sku) {
	case "azurelinux", "azurelinux3":
		return "AzureLinux3"
	case "ubuntu2204":
		return "Ubuntu2204"
	default:
		return "Ubuntu2404"
	}
}

func osImage(sku string) string {
	switch osSKUEffective(sku) {
	case "AzureLinux3":
		return "Microsoft Azure Linux 3.0"
	case "Ubuntu2204":
		return "Ubuntu 22.04.5 LTS"
	default:
		return "Ubuntu 24.04.3 LTS"
	}
}

func kernel(sku string) string {
	switch osSKUEffective(sku) {
	case "AzureLinux3":
		return "6.6.96.1-1.azl3"
	case "Ubuntu2204":
		return "5.15.0-1092-azure"
	default:
		return "6.8.0-1034-azure"
	}
}

// taintsFor returns the taints of the intent and those that AKS adds: on nodes of
// Spot scale sets and, with Cilium, on every node until its agent runs. Machines of
// node auto-provisioning list Cilium's taint themselves if they expect it.
func taintsFor(m intent.MachineIntent, c intent.ClusterIntent) ([]corev1.Taint, error) {
	var out []corev1.Taint
	has := func(key string, effect corev1.TaintEffect) bool {
		return slices.ContainsFunc(out, func(t corev1.Taint) bool { return t.Key == key && t.Effect == effect })
	}
	for _, s := range m.Taints {
		t, err := parseTaint(s)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.Name, err)
		}
		if !has(t.Key, t.Effect) {
			out = append(out, t)
		}
	}
	if m.Pool != intent.MachinesPool {
		if m.Spot && !has(spotLabel, corev1.TaintEffectNoSchedule) {
			out = append(out, corev1.Taint{Key: spotLabel, Value: "spot", Effect: corev1.TaintEffectNoSchedule})
		}
		if isCilium(c) && !has(ciliumTaint, corev1.TaintEffectNoExecute) {
			out = append(out, corev1.Taint{Key: ciliumTaint, Value: "true", Effect: corev1.TaintEffectNoExecute})
		}
	}
	return out, nil
}

// parseTaint parses "key=value:Effect" or "key:Effect".
func parseTaint(s string) (corev1.Taint, error) {
	rest, effect, ok := strings.Cut(s, ":")
	key, value, _ := strings.Cut(rest, "=")
	e := corev1.TaintEffect(effect)
	if !ok || key == "" || (e != corev1.TaintEffectNoSchedule && e != corev1.TaintEffectPreferNoSchedule && e != corev1.TaintEffectNoExecute) {
		return corev1.Taint{}, fmt.Errorf("taint %q is not key=value:NoSchedule, :PreferNoSchedule or :NoExecute", s)
	}
	return corev1.Taint{Key: key, Value: value, Effect: e}, nil
}

// resourcesFor returns the capacity that a node of that size reports, and what AKS
// leaves of it to pods.
func resourcesFor(m intent.MachineIntent, size catalog.Size) (capacity, allocatable corev1.ResourceList) {
	memory := catalog.CapacityMemoryBytes(size.MemoryGiB)
	disk := int64(m.OSDiskSizeGB) * 1e9
	if disk == 0 {
		disk = 128e9
	}
	pods := int64(m.MaxPods)
	if pods == 0 {
		pods = 250
	}
	capacity = corev1.ResourceList{
		corev1.ResourceCPU:                     *resource.NewQuantity(int64(size.VCPUsAvailable), resource.DecimalSI),
		corev1.ResourceMemory:                  *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage:        *resource.NewQuantity(disk, resource.DecimalSI),
		corev1.ResourcePods:                    *resource.NewQuantity(pods, resource.DecimalSI),
		corev1.ResourceHugePagesPrefix + "1Gi": *resource.NewQuantity(0, resource.DecimalSI),
		corev1.ResourceHugePagesPrefix + "2Mi": *resource.NewQuantity(0, resource.DecimalSI),
	}
	if size.GPUs > 0 && size.GPURegistered && size.GPUManufacturer != "" {
		capacity[corev1.ResourceName(size.GPUManufacturer+".com/gpu")] = *resource.NewQuantity(int64(size.GPUs), resource.DecimalSI)
	}
	allocatable = capacity.DeepCopy()
	cpuMilli, memMiB := catalog.AKSReserved(size.VCPUsAvailable, size.MemoryGiB)
	allocatable[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(size.VCPUsAvailable)*1000-cpuMilli, resource.DecimalSI)
	allocatable[corev1.ResourceMemory] = *resource.NewQuantity(memory-(memMiB+catalog.EvictionMemoryMiB)*mib, resource.BinarySI)
	return capacity, allocatable
}

// nodeIP returns an address in AKS's default node subnet, 10.224.0.0/16. It is
// derived from the node's name, so that it does not change with a restart.
func nodeIP(m intent.MachineIntent) string {
	h := hash(m.ClusterUID + "/" + m.NodeName)
	return fmt.Sprintf("10.224.%d.%d", (h>>8)%256, h%250+4)
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}
