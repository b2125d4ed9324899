// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype

import (
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/apis/v1beta1"
)

const (
	// PenaltyPriceUSDPerHour is the price of a size without a known price, so that it
	// is the last choice.
	PenaltyPriceUSDPerHour = 999.0
	// DefaultVMMemoryOverheadPercent is the fraction of a VM's memory that the host
	// and the guest's firmware use.
	DefaultVMMemoryOverheadPercent = 0.075
	// DiskCSIDriver is the CSI driver whose volumes count against the data disks of a
	// size.
	DiskCSIDriver = "disk.csi.azure.com"

	hardEvictionMemory = 750 << 20
	localDNSMinVCPUs   = 4
	localDNSMinMiB     = 244

	resourceNVIDIA corev1.ResourceName = "nvidia.com/gpu"
	resourceAMD    corev1.ResourceName = "amd.com/gpu"
)

// Cluster holds the cluster settings that instance types depend on.
type Cluster struct {
	// NetworkPlugin ("azure", "none", …) and NetworkPluginMode ("overlay", "")
	// decide the default number of pods per node.
	NetworkPlugin     string
	NetworkPluginMode string
	// NodeResourceGroup is the resource group of the machines; nodes have it as a
	// label.
	NodeResourceGroup string
	// VMMemoryOverheadPercent is a fraction (0 to 1), usually
	// DefaultVMMemoryOverheadPercent. Zero means no overhead.
	VMMemoryOverheadPercent float64
}

// Settings are the parts of an AKSNodeClass and its cluster that instance types depend
// on. Equal settings give equal instance types.
type Settings struct {
	ImageFamily             string
	OSDiskSizeGB            int32
	MaxPods                 int32
	EncryptionAtHost        bool
	TrustedLaunch           bool
	GPUDriver               bool
	ArtifactStreaming       bool
	FIPS                    bool
	LocalDNS                bool
	NodeResourceGroup       string
	VMMemoryOverheadPercent float64
}

// SettingsFor returns the settings of a node class in a cluster.
func SettingsFor(nc *v1beta1.AKSNodeClass, c Cluster) Settings {
	s := Settings{
		ImageFamily:             nc.ImageFamilyOrDefault(),
		OSDiskSizeGB:            nc.OSDiskSizeGBOrDefault(),
		MaxPods:                 MaxPods(nc, c),
		EncryptionAtHost:        nc.EncryptionAtHost(),
		TrustedLaunch:           nc.TrustedLaunchOn(),
		GPUDriver:               nc.GPUDriver(),
		ArtifactStreaming:       nc.ArtifactStreamingOn(),
		FIPS:                    nc.FIPS(),
		NodeResourceGroup:       c.NodeResourceGroup,
		VMMemoryOverheadPercent: c.VMMemoryOverheadPercent,
	}
	s.LocalDNS = nc.Status.LocalDNSState != nil && *nc.Status.LocalDNSState == v1beta1.LocalDNSStateEnabled
	return s
}

// MaxPods returns the maximum number of pods on a node of the class: maxPods of the
// class, or the default of the cluster's network plugin.
func MaxPods(nc *v1beta1.AKSNodeClass, c Cluster) int32 {
	switch {
	case nc.Spec.MaxPods != nil:
		return *nc.Spec.MaxPods
	case c.NetworkPlugin == "none", c.NetworkPlugin == "azure" && c.NetworkPluginMode == "overlay":
		return 250
	case c.NetworkPlugin == "azure" && c.NetworkPluginMode == "":
		return 30
	default:
		return 110
	}
}

// PriceFunc returns the price of a size in USD per hour, or false if it has none.
type PriceFunc func(size string, spot bool) (float64, bool)

// AvailableFunc reports whether a size is available now in a zone ("1", or
// v1beta1.RegionalZone) and capacity type.
type AvailableFunc func(sku *SKU, zone string, spot bool) bool

// Build returns the instance types that a node class may use, sorted by name. It leaves
// out sizes that the settings exclude and keeps those that are only unavailable now,
// with unavailable offerings. If available is nil, all offerings are available.
//
// The results share immutable parts with the table: treat them as read-only.
func (t *Table) Build(s Settings, price PriceFunc, available AvailableFunc) []*cloudprovider.InstanceType {
	osSKU := v1beta1.ImageFamilyUbuntu
	if s.ImageFamily == v1beta1.ImageFamilyAzureLinux {
		osSKU = v1beta1.ImageFamilyAzureLinux
	}
	shared := []*scheduling.Requirement{
		in(v1beta1.AKSLabelCluster, ClusterLabel(s.NodeResourceGroup)),
		in(v1beta1.AKSLabelOSSKU, osSKU),
		absent(v1beta1.AKSLabelFIPSEnabled),
	}
	if s.FIPS {
		shared[2] = in(v1beta1.AKSLabelFIPSEnabled, "true")
	}
	narrowed := map[string]*scheduling.Requirement{} // sets of zones, capacity types and scopes recur
	eviction := corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(hardEvictionMemory, resource.BinarySI)}
	pods := *resource.NewQuantity(int64(s.MaxPods), resource.DecimalSI)
	disk := *resource.NewQuantity(int64(s.OSDiskSizeGB)*1e9, resource.DecimalSI)

	out := make([]*cloudprovider.InstanceType, 0, len(t.SKUs))
	for _, sku := range t.SKUs {
		if exclusionReason(sku, s) != "" {
			continue
		}
		it := &cloudprovider.InstanceType{
			Name:         sku.Name.Full,
			Requirements: make(scheduling.Requirements, len(sku.base)+6),
			Capacity: corev1.ResourceList{
				corev1.ResourceCPU:              *resource.NewQuantity(sku.VCPUs, resource.DecimalSI),
				corev1.ResourceMemory:           *resource.NewQuantity(capacityMemory(sku.MemoryGiB, s.VMMemoryOverheadPercent), resource.BinarySI),
				corev1.ResourceEphemeralStorage: disk,
				corev1.ResourcePods:             pods,
				resourceNVIDIA:                  *resource.NewQuantity(0, resource.DecimalSI),
				resourceAMD:                     *resource.NewQuantity(0, resource.DecimalSI),
			},
			Overhead: &cloudprovider.InstanceTypeOverhead{KubeReserved: sku.kubeReserved, EvictionThreshold: eviction},
		}
		switch sku.gpu.manufacturer {
		case manufacturerNVIDIA:
			it.Capacity[resourceNVIDIA] = *resource.NewQuantity(sku.GPUs, resource.DecimalSI)
		case manufacturerAMD:
			it.Capacity[resourceAMD] = *resource.NewQuantity(sku.GPUs, resource.DecimalSI)
		}
		if sku.MaxDataDisks > 0 {
			it.VolumeAttachmentLimits = map[string]int{DiskCSIDriver: int(sku.MaxDataDisks)}
		}
		for key, r := range sku.base {
			it.Requirements[key] = r
		}
		for _, r := range shared {
			it.Requirements[r.Key] = r
		}
		t.addOfferings(it, sku, price, available, narrowed)
		out = append(out, it)
	}
	return out
}

// addOfferings adds the offerings of a size, and the requirements that follow from the
// available ones.
func (t *Table) addOfferings(it *cloudprovider.InstanceType, sku *SKU, price PriceFunc, available AvailableFunc, narrowed map[string]*scheduling.Requirement) {
	var prices [2]float64
	for i := range prices {
		prices[i] = PenaltyPriceUSDPerHour
		if p, ok := price(sku.Name.Full, i == 1); ok {
			prices[i] = p
		}
	}
	zones := append(make([]string, 0, 4), sku.Zones...)
	zones = append(zones, v1beta1.RegionalZone)
	it.Offerings = make(cloudprovider.Offerings, 0, 2*len(zones))
	arr := make([]cloudprovider.Offering, 2*len(zones))
	var zoneLabels, types, scopes []string
	add := func(list []string, v string) []string {
		if slices.Contains(list, v) {
			return list
		}
		return append(list, v)
	}
	for _, zone := range zones {
		for i, spot := range []bool{false, true} {
			o := &arr[len(it.Offerings)]
			o.Requirements = t.offerings[offeringKey{zone, spot}]
			o.Price = prices[i]
			o.Available = (!spot || sku.SpotCapable) && (available == nil || available(sku, zone, spot))
			it.Offerings = append(it.Offerings, o)
			if !o.Available {
				continue
			}
			zoneLabels = add(zoneLabels, ZoneLabel(t.Region, zone))
			types = add(types, o.CapacityType())
			if zone == v1beta1.RegionalZone {
				scopes = add(scopes, v1beta1.PlacementRegional)
			} else {
				scopes = add(scopes, v1beta1.PlacementZonal)
			}
		}
	}
	for key, values := range map[string][]string{
		corev1.LabelTopologyZone:    zoneLabels,
		karpv1.CapacityTypeLabelKey: types,
		v1beta1.LabelPlacementScope: scopes,
	} {
		id := key + "=" + strings.Join(values, ",")
		if narrowed[id] == nil {
			narrowed[id] = in(key, values...)
		}
		it.Requirements[key] = narrowed[id]
	}
}

// exclusionReason returns the reason why the settings exclude a size, or "".
func exclusionReason(sku *SKU, s Settings) string {
	if sku.gpu.manufacturer != "" {
		switch {
		case s.ImageFamily == v1beta1.ImageFamilyAzureLinux && !sku.gpu.azureLinux:
			return "AzureLinux images have no driver for its GPUs"
		case s.ImageFamily != v1beta1.ImageFamilyAzureLinux && !sku.gpu.ubuntu:
			return "Ubuntu images have no driver for its GPUs"
		case s.GPUDriver && !sku.gpu.driver:
			return "AKS installs no driver for its GPUs: set gpu.mode None"
		}
	}
	arm := sku.Arch == karpv1.ArchitectureArm64
	switch {
	case s.EncryptionAtHost && !sku.EncryptionAtHost:
		return "it does not support encryption at host"
	case s.LocalDNS && (sku.VCPUs < localDNSMinVCPUs || sku.MemoryGiB*1024 < localDNSMinMiB):
		return "too small for LocalDNS"
	case s.ArtifactStreaming && arm:
		return "artifact streaming does not support arm64"
	case s.TrustedLaunch && !sku.TrustedLaunch:
		return "it does not support trusted launch"
	case s.TrustedLaunch && arm:
		return "there is no arm64 image for trusted launch"
	case s.FIPS && arm && s.ImageFamily != v1beta1.ImageFamilyAzureLinux:
		return "there is no arm64 FIPS image of Ubuntu"
	}
	return ""
}

// capacityMemory returns the memory that the guest sees, in bytes: whole GiB less the
// overhead.
func capacityMemory(gib, overhead float64) int64 {
	whole := int64(gib) << 30
	return whole - int64(math.Ceil(float64(whole)*overhead))
}

// ClusterLabel returns the value of the cluster label for a node resource group.
func ClusterLabel(group string) string {
	label := strings.NewReplacer("(", "-", ")", "-").Replace(group)
	if len(label) > 63 {
		label = label[:63]
	}
	trimmed := strings.TrimRight(label, "-_.")
	return trimmed + strings.Repeat("z", len(label)-len(trimmed))
}
