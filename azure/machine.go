// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
)

// Tags on the Azure resources of a machine. Slashes are not allowed in keys.
const (
	tagCluster   = "karpenter.azure.com_cluster"
	tagBilling   = "compute.aks.billing"
	tagNodePool  = "karpenter.sh_nodepool"
	tagNodeClaim = "karpenter.azure.com_aksmachine_nodeclaim"

	maxMachineName = 34

	stateSucceeded = "Succeeded"
	stateFailed    = "Failed"
	stateDeleting  = "Deleting"
)

// MachineName returns the name of a NodeClaim's machine: the NodeClaim's name if it
// has at most 34 characters, else a shortened name with a hash that keeps names
// distinct.
func MachineName(claim string) string {
	if len(claim) <= maxMachineName {
		return claim
	}
	head, tail := claim, ""
	if i := strings.LastIndex(claim, "-"); i >= 0 && len(claim)-i < maxMachineName-8 {
		head, tail = claim[:i], claim[i:]
	}
	sum := sha256.Sum256([]byte(claim))
	hash := new(big.Int).SetBytes(sum[:8]).Text(36)
	hash = (strings.Repeat("0", 6) + hash)[len(hash):][:6]
	return strings.TrimRight(head[:maxMachineName-len(tail)-6-1], "-") + "-" + hash + tail
}

// commonTags returns the tags of a machine: the additional tags, those of the class,
// and the provider's own. Later ones take precedence.
func (p *Provider) commonTags(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) map[string]*string {
	tags := map[string]*string{}
	set := func(k, v string) { tags[strings.ReplaceAll(k, "/", "_")] = to.Ptr(v) }
	for k, v := range p.config.AdditionalTags {
		set(k, v)
	}
	for k, v := range nc.Spec.Tags {
		set(k, v)
	}
	set(tagCluster, p.cluster.Name)
	set(tagBilling, "linux")
	set(tagNodeClaim, claim.Name)
	if pool := claim.Labels[karpv1.NodePoolLabelKey]; pool != "" {
		set(tagNodePool, pool)
	}
	return tags
}

// inPlaceHash returns the hash of the tags, which are updated in place.
func (p *Provider) inPlaceHash(nc *v1beta1.AKSNodeClass) string {
	all := map[string]string{}
	for k, v := range p.config.AdditionalTags {
		all[k] = v
	}
	for k, v := range nc.Spec.Tags {
		all[k] = v
	}
	return v1beta1.TagsHash(all)
}

// machineFor returns the body of the PUT that creates the machine of a NodeClaim.
func (p *Provider) machineFor(nc *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim, o launchOption, kubernetesVersion, imageID string) (armcontainerservice.Machine, error) {
	image, err := NodeImageVersion(imageID)
	if err != nil {
		return armcontainerservice.Machine{}, err
	}
	osSKU, err := machineOSSKU(nc, kubernetesVersion)
	if err != nil {
		return armcontainerservice.Machine{}, err
	}
	diskType := armcontainerservice.OSDiskTypeManaged
	if o.sku.EphemeralPlacement != instancetype.PlacementNone && int64(nc.OSDiskSizeGBOrDefault()) <= o.sku.EphemeralOSDiskGB {
		diskType = armcontainerservice.OSDiskTypeEphemeral
	}
	kubelet, err := kubeletConfig(nc.Spec.Kubelet)
	if err != nil {
		return armcontainerservice.Machine{}, err
	}
	linux, err := linuxOSConfig(nc.Spec.LinuxOSConfig)
	if err != nil {
		return armcontainerservice.Machine{}, err
	}
	mode := armcontainerservice.AgentPoolModeUser
	if claim.Labels[v1beta1.AKSLabelMode] == v1beta1.ModeSystem {
		mode = armcontainerservice.AgentPoolModeSystem
	}
	priority := armcontainerservice.ScaleSetPriorityRegular
	if o.spot {
		priority = armcontainerservice.ScaleSetPrioritySpot
	}
	m := armcontainerservice.Machine{Properties: &armcontainerservice.MachineProperties{
		Hardware: &armcontainerservice.MachineHardwareProfile{VMSize: to.Ptr(o.sku.Name.Full)},
		Kubernetes: &armcontainerservice.MachineKubernetesProfile{
			OrchestratorVersion:      to.Ptr(kubernetesVersion),
			NodeLabels:               map[string]*string{},
			NodeInitializationTaints: initializationTaints(claim),
			NodeTaints:               []*string{},
			MaxPods:                  nc.Spec.MaxPods,
			KubeletConfig:            kubelet,
		},
		OperatingSystem: &armcontainerservice.MachineOSProfile{
			OSType: to.Ptr(armcontainerservice.OSTypeLinux), OSSKU: to.Ptr(osSKU),
			OSDiskSizeGB: to.Ptr(nc.OSDiskSizeGBOrDefault()), OSDiskType: to.Ptr(diskType),
			EnableFIPS: to.Ptr(nc.FIPS()),
		},
		Network: &armcontainerservice.MachineNetworkProperties{VnetSubnetID: nc.Spec.VNETSubnetID},
		Security: &armcontainerservice.MachineSecurityProfile{
			SSHAccess:              to.Ptr(armcontainerservice.AgentPoolSSHAccessLocalUser),
			EnableEncryptionAtHost: to.Ptr(nc.EncryptionAtHost()), EnableVTPM: to.Ptr(nc.VTPM()), EnableSecureBoot: to.Ptr(nc.SecureBoot()),
		},
		Mode:             to.Ptr(mode),
		Priority:         to.Ptr(priority),
		NodeImageVersion: to.Ptr(image),
		Tags:             p.commonTags(nc, claim),
	}}
	if o.zone != v1beta1.RegionalZone {
		m.Zones = []*string{to.Ptr(o.zone)}
	}
	if linux != nil {
		m.Properties.OperatingSystem.LinuxProfile = &armcontainerservice.MachineOSProfileLinuxProfile{LinuxOSConfig: linux}
	}
	if nc.ArtifactStreamingOn() && o.sku.Arch != karpv1.ArchitectureArm64 {
		m.Properties.Kubernetes.ArtifactStreamingProfile = &armcontainerservice.AgentPoolArtifactStreamingProfile{Enabled: to.Ptr(true)}
	}
	if instancetype.GPUManufacturer(o.sku.Name.Full) != "" {
		driver := armcontainerservice.GPUDriverInstall
		if !nc.GPUDriver() {
			driver = armcontainerservice.GPUDriverNone
		}
		m.Properties.Hardware.GpuProfile = &armcontainerservice.GPUProfile{Driver: to.Ptr(driver)}
	}
	// The kubelet registers with all taints, including startup taints. Karpenter
	// must not add those again that an agent removed before Karpenter registers
	// the node.
	m.Properties.Kubernetes.NodeLabels[karpv1.NodeDoNotSyncTaintsLabelKey] = to.Ptr("true")
	for k, v := range nodeLabels(claim, o) {
		if sendable(k) {
			m.Properties.Kubernetes.NodeLabels[k] = to.Ptr(v)
		}
	}
	return m, nil
}

// machineOSSKU returns the OS SKU of the image of a class.
func machineOSSKU(nc *v1beta1.AKSNodeClass, kubernetesVersion string) (armcontainerservice.OSSKU, error) {
	switch family := effectiveFamily(nc, kubernetesVersion); family {
	case "2004":
		return armcontainerservice.OSSKUUbuntu, nil
	case "2204":
		if nc.FIPS() {
			return armcontainerservice.OSSKUUbuntu, nil
		}
		return armcontainerservice.OSSKUUbuntu2204, nil
	case "2404":
		return armcontainerservice.OSSKUUbuntu2404, nil
	case "azurelinux2", "azurelinux3":
		return armcontainerservice.OSSKUAzureLinux, nil
	default:
		return "", fmt.Errorf("image family %q has no OS SKU", family)
	}
}

// nodeLabels returns the labels of the node that follow from the NodeClaim and the
// launch option.
func nodeLabels(claim *karpv1.NodeClaim, o launchOption) map[string]string {
	out := map[string]string{}
	for k, v := range claim.Labels {
		out[k] = v
	}
	single := func(reqs scheduling.Requirements, wellKnownOnly bool) {
		for key, r := range reqs {
			if r.Operator() == corev1.NodeSelectorOpIn && r.Len() == 1 && (!wellKnownOnly || karpv1.WellKnownLabels.Has(key)) {
				out[key] = r.Any()
			}
		}
	}
	single(scheduling.NewNodeSelectorRequirementsWithMinValues(claim.Spec.Requirements...), false)
	single(o.instanceType.Requirements, false)
	single(o.offering.Requirements, false)
	delete(out, v1beta1.LabelSKUHyperVGeneration)
	return out
}

// kubeletLabels are the labels in Kubernetes' domains that the kubelet sets on its
// node.
var kubeletLabels = map[string]bool{
	corev1.LabelHostname: true, corev1.LabelInstanceTypeStable: true, corev1.LabelOSStable: true, corev1.LabelArchStable: true,
	corev1.LabelTopologyZone: true, corev1.LabelTopologyRegion: true,
}

// sendable reports whether a label may be set in a machine request. Labels that AKS
// or the kubelet set, or that a kubelet is not allowed to set, are not sendable.
func sendable(key string) bool {
	domain := karpv1.GetLabelDomain(key)
	switch {
	case domain == v1beta1.AKSLabelDomain || strings.HasSuffix(domain, "."+v1beta1.AKSLabelDomain):
		return false
	case kubeletLabels[key]:
		return false
	case key == "agentpool" || key == "storageprofile" || key == "storagetier" || key == "accelerator":
		return false
	case domain == "kubelet.kubernetes.io" || strings.HasSuffix(domain, ".kubelet.kubernetes.io"),
		domain == "node.kubernetes.io" || strings.HasSuffix(domain, ".node.kubernetes.io"):
		return true
	case domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io"),
		domain == "k8s.io" || strings.HasSuffix(domain, ".k8s.io"):
		return false
	}
	return true
}

// initializationTaints returns all taints of a NodeClaim and Karpenter's unregistered
// taint. AKS sets them once and does not restore them.
func initializationTaints(claim *karpv1.NodeClaim) []*string {
	var out []*string
	seen := map[string]bool{}
	for _, list := range [][]corev1.Taint{claim.Spec.Taints, claim.Spec.StartupTaints, {karpv1.UnregisteredNoExecuteTaint}} {
		for _, t := range list {
			s := t.Key + "=" + t.Value + ":" + string(t.Effect)
			if t.Value == "" {
				s = t.Key + ":" + string(t.Effect)
			}
			if !seen[s] {
				seen[s] = true
				out = append(out, to.Ptr(s))
			}
		}
	}
	return out
}

// wholeMiB rounds a size to MiB.
func wholeMiB(size *string) (*int32, error) {
	if size == nil {
		return nil, nil
	}
	bytes, err := v1beta1.Quantity(*size)
	if err != nil {
		return nil, err
	}
	return to.Ptr(int32(min(math.Round(float64(bytes)/(1<<20)), math.MaxInt32))), nil
}

func kubeletConfig(k *v1beta1.KubeletConfiguration) (*armcontainerservice.KubeletConfig, error) {
	if k == nil {
		return nil, nil
	}
	logSize, err := wholeMiB(k.ContainerLogMaxSize)
	if err != nil {
		return nil, fmt.Errorf("reading kubelet.containerLogMaxSize: %w", err)
	}
	out := &armcontainerservice.KubeletConfig{
		CPUManagerPolicy: k.CPUManagerPolicy, CPUCfsQuota: k.CPUCFSQuota,
		ImageGcHighThreshold: k.ImageGCHighThresholdPercent, ImageGcLowThreshold: k.ImageGCLowThresholdPercent,
		TopologyManagerPolicy: k.TopologyManagerPolicy, ContainerLogMaxFiles: k.ContainerLogMaxFiles,
		ContainerLogMaxSizeMB: logSize, FailSwapOn: k.FailSwapOn,
	}
	if k.CPUCFSQuotaPeriod != nil {
		out.CPUCfsQuotaPeriod = to.Ptr(k.CPUCFSQuotaPeriod.Duration.String())
	}
	for _, s := range k.AllowedUnsafeSysctls {
		out.AllowedUnsafeSysctls = append(out.AllowedUnsafeSysctls, to.Ptr(s))
	}
	if k.PodPidsLimit != nil {
		limit := *k.PodPidsLimit
		if limit < 0 {
			limit = -1
		}
		out.PodMaxPids = to.Ptr(int32(min(limit, math.MaxInt32)))
	}
	return out, nil
}

func linuxOSConfig(l *v1beta1.LinuxOSConfiguration) (*armcontainerservice.LinuxOSConfig, error) {
	if l == nil {
		return nil, nil
	}
	swap, err := wholeMiB(l.SwapFileSize)
	if err != nil {
		return nil, fmt.Errorf("reading linuxOSConfig.swapFileSize: %w", err)
	}
	out := &armcontainerservice.LinuxOSConfig{
		SwapFileSizeMB: swap, TransparentHugePageEnabled: l.TransparentHugePageEnabled, TransparentHugePageDefrag: l.TransparentHugePageDefrag,
	}
	if s := l.Sysctls; s != nil {
		out.Sysctls = &armcontainerservice.SysctlConfig{
			FsAioMaxNr: s.FsAioMaxNr, FsFileMax: s.FsFileMax, FsInotifyMaxUserWatches: s.FsInotifyMaxUserWatches, FsNrOpen: s.FsNrOpen,
			KernelThreadsMax: s.KernelThreadsMax, NetCoreNetdevMaxBacklog: s.NetCoreNetdevMaxBacklog, NetCoreOptmemMax: s.NetCoreOptmemMax,
			NetCoreRmemDefault: s.NetCoreRmemDefault, NetCoreRmemMax: s.NetCoreRmemMax, NetCoreSomaxconn: s.NetCoreSomaxconn,
			NetCoreWmemDefault: s.NetCoreWmemDefault, NetCoreWmemMax: s.NetCoreWmemMax, NetIPv4IPLocalPortRange: s.NetIPv4IPLocalPortRange,
			NetIPv4NeighDefaultGcThresh1: s.NetIPv4NeighDefaultGcThresh1, NetIPv4NeighDefaultGcThresh2: s.NetIPv4NeighDefaultGcThresh2,
			NetIPv4NeighDefaultGcThresh3: s.NetIPv4NeighDefaultGcThresh3, NetIPv4TCPFinTimeout: s.NetIPv4TCPFinTimeout,
			NetIPv4TCPKeepaliveProbes: s.NetIPv4TCPKeepaliveProbes, NetIPv4TCPKeepaliveTime: s.NetIPv4TCPKeepaliveTime,
			NetIPv4TcpkeepaliveIntvl: s.NetIPv4TCPKeepaliveIntvl, NetIPv4TCPMaxSynBacklog: s.NetIPv4TCPMaxSynBacklog,
			NetIPv4TCPMaxTwBuckets: s.NetIPv4TCPMaxTwBuckets, NetIPv4TCPTwReuse: s.NetIPv4TCPTwReuse,
			NetNetfilterNfConntrackBuckets: s.NetNetfilterNfConntrackBuckets, NetNetfilterNfConntrackMax: s.NetNetfilterNfConntrackMax,
			VMMaxMapCount: s.VMMaxMapCount, VMSwappiness: s.VMSwappiness, VMVfsCachePressure: s.VMVfsCachePressure,
		}
	}
	return out, nil
}

// ProviderID returns the provider ID of the node for a VM's ARM ID. The resource group
// is in lower case, as the cloud provider sets it on the node.
func ProviderID(vmID string) string {
	parts := strings.Split(vmID, "/")
	for i := range parts {
		if i > 0 && strings.EqualFold(parts[i-1], "resourceGroups") {
			parts[i] = strings.ToLower(parts[i])
		}
	}
	return "azure://" + strings.Join(parts, "/")
}

// machineNameOf returns the machine name in a provider ID. The VM's name is
// aks-<pool>-<machine>-<suffix>-vm.
func (p *Provider) machineNameOf(providerID string) (string, error) {
	vm := providerID[strings.LastIndex(providerID, "/")+1:]
	name, ok := strings.CutPrefix(vm, "aks-"+p.cluster.MachinesPool+"-")
	if !ok || !strings.HasPrefix(providerID, "azure://") {
		return "", providerIDError(providerID)
	}
	name, ok = strings.CutSuffix(name, "-vm")
	i := strings.LastIndex(name, "-")
	if !ok || i <= 0 {
		return "", providerIDError(providerID)
	}
	return name[:i], nil
}

// complete reports whether ARM has set all the fields that a NodeClaim needs.
func complete(m *armcontainerservice.Machine) bool {
	return m.Properties != nil && m.Properties.Hardware != nil && deref(m.Properties.Hardware.VMSize) != "" && deref(m.Properties.ResourceID) != ""
}

func state(m *armcontainerservice.Machine) string {
	if m.Properties == nil {
		return ""
	}
	return deref(m.Properties.ProvisioningState)
}

func tag(m *armcontainerservice.Machine, key string) string {
	if m.Properties == nil {
		return ""
	}
	return deref(m.Properties.Tags[key])
}

// claimOf returns the NodeClaim that describes a machine.
func (p *Provider) claimOf(m *armcontainerservice.Machine) *karpv1.NodeClaim {
	c := &karpv1.NodeClaim{}
	c.Name = tag(m, tagNodeClaim)
	c.Labels = map[string]string{}
	c.Annotations = map[string]string{}
	if id := deref(m.ID); id != "" {
		c.Annotations[v1beta1.AnnotationMachineResourceID] = id
	}
	if pool := tag(m, tagNodePool); pool != "" {
		c.Labels[karpv1.NodePoolLabelKey] = pool
	}
	if m.Properties == nil {
		return c
	}
	spot := deref(m.Properties.Priority) == armcontainerservice.ScaleSetPrioritySpot // ARM omits Regular
	c.Labels[karpv1.CapacityTypeLabelKey] = karpv1.CapacityTypeOnDemand
	if spot {
		c.Labels[karpv1.CapacityTypeLabelKey] = karpv1.CapacityTypeSpot
	}
	zone := v1beta1.RegionalZone
	if len(m.Zones) > 0 {
		zone = deref(m.Zones[0])
	}
	c.Labels[corev1.LabelTopologyZone] = instancetype.ZoneLabel(p.cluster.Location, zone)
	if m.Properties.Hardware != nil {
		c.Labels[corev1.LabelInstanceTypeStable] = deref(m.Properties.Hardware.VMSize)
	}
	if m.Properties.Status != nil && m.Properties.Status.CreationTimestamp != nil {
		c.CreationTimestamp.Time = *m.Properties.Status.CreationTimestamp
	}
	if vm := deref(m.Properties.ResourceID); vm != "" {
		c.Status.ProviderID = ProviderID(vm)
	}
	c.Status.ImageID = deref(m.Properties.NodeImageVersion)
	if state(m) == stateDeleting {
		c.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	}
	return c
}
