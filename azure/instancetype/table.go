// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package instancetype converts Azure's VM sizes to Karpenter's instance types. It is
// pure: Resource SKUs, prices, availability and the settings of an AKSNodeClass are
// the input, instance types the output. It does not call Azure or Kubernetes, so that
// planning works offline.
//
// A Table is created once from the SKUs of a region and shared. Build is cheap and can
// be called for each node class and each change of price or availability.
package instancetype

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/internal/resourcesku"
)

// DiskPlacement is the local disk that holds an ephemeral OS disk.
type DiskPlacement string

// The placements of an ephemeral OS disk, in the order they are tried.
const (
	PlacementNone     DiskPlacement = ""
	PlacementNVMe     DiskPlacement = "NvmeDisk"
	PlacementCache    DiskPlacement = "CacheDisk"
	PlacementResource DiskPlacement = "ResourceDisk"
)

// SKU holds the properties of a VM size in a region that provisioning needs.
type SKU struct {
	Name        Name
	QuotaFamily string // key of the vCPU quota
	VCPUs       int64
	MemoryGiB   float64
	Arch        string // amd64 or arm64
	GPUs        int64
	// Zones are the usable zone numbers, without restricted ones.
	Zones                 []string
	SpotCapable           bool
	AcceleratedNetworking bool
	PremiumIO             bool
	EncryptionAtHost      bool
	TrustedLaunch         bool
	HyperVGenerations     []string // "1", "2"
	EphemeralOSDiskGB     int64
	EphemeralPlacement    DiskPlacement
	MaxDataDisks          int64

	gpu          gpuSize
	base         scheduling.Requirements // independent of settings
	kubeReserved corev1.ResourceList
}

// Rejected is a size that is never used, with the reason.
type Rejected struct {
	Size   string
	Reason string
}

// Table holds the usable sizes of a region. It is immutable.
type Table struct {
	Region   string
	SKUs     []*SKU // by name
	Rejected []Rejected

	byName    map[string]*SKU
	offerings map[offeringKey]scheduling.Requirements

	chargesOnce sync.Once
	charges     map[string]map[string]int64 // see quotaCharges
}

type offeringKey struct {
	zone string // zone number, or RegionalZone
	spot bool
}

// restricted sizes are too small for AKS, or have no price of their own.
var restricted = map[string]string{
	"Standard_A0": "too small for AKS", "Standard_A1": "too small for AKS", "Standard_A1_v2": "too small for AKS",
	"Standard_B1s": "too small for AKS", "Standard_B1ms": "too small for AKS", "Standard_F1": "too small for AKS", "Standard_F1s": "too small for AKS",
	"Basic_A0": "too small for AKS", "Basic_A1": "too small for AKS", "Basic_A2": "not allowed by AKS", "Basic_A3": "not allowed by AKS", "Basic_A4": "not allowed by AKS",
	"Standard_E64i_v3": "isolated size without a price of its own", "Standard_E64is_v3": "isolated size without a price of its own",
}

// ErrNoSKUs is wrapped by the error if no size of a region is usable. The caller keeps
// its previous table.
var ErrNoSKUs = errors.New("no usable VM size")

// NewTable creates a table from the Resource SKUs of a region. It skips SKUs that are not
// VM sizes. The error wraps ErrNoSKUs if none is usable.
func NewTable(region string, skus []*resourcesku.SKU) (*Table, error) {
	region = strings.ToLower(region)
	t := &Table{Region: region, byName: map[string]*SKU{}, offerings: map[offeringKey]scheduling.Requirements{}}
	for _, r := range skus {
		if r == nil || r.Name == nil || r.ResourceType == nil || !strings.EqualFold(*r.ResourceType, "virtualMachines") {
			continue
		}
		sku, reason := readSKU(region, r)
		if reason != "" {
			t.Rejected = append(t.Rejected, Rejected{*r.Name, reason})
			continue
		}
		if t.byName[*r.Name] == nil {
			t.byName[*r.Name] = sku
			t.SKUs = append(t.SKUs, sku)
		}
	}
	if len(t.SKUs) == 0 {
		return nil, fmt.Errorf("%w in region %s among %d SKUs", ErrNoSKUs, region, len(skus))
	}
	slices.SortFunc(t.SKUs, func(a, b *SKU) int { return strings.Compare(a.Name.Full, b.Name.Full) })
	zones := map[string]bool{v1beta1.RegionalZone: true}
	for _, s := range t.SKUs {
		for _, z := range s.Zones {
			zones[z] = true
		}
		s.complete(region)
	}
	for z := range zones {
		for _, spot := range []bool{false, true} {
			t.offerings[offeringKey{z, spot}] = offeringRequirements(region, z, spot)
		}
	}
	return t, nil
}

// SKU returns a usable size by its full name, or nil.
func (t *Table) SKU(name string) *SKU { return t.byName[name] }

// ZoneLabel returns the zone label of a zone number in the region: "eastus-1". For ""
// and "0" it returns "0", the regional placement.
func ZoneLabel(region, zone string) string {
	if zone == "" || zone == v1beta1.RegionalZone {
		return v1beta1.RegionalZone
	}
	return strings.ToLower(region) + "-" + zone
}

// ZoneNumber is the inverse of ZoneLabel. It returns "" for the regional placement.
func ZoneNumber(label string) string {
	if label == v1beta1.RegionalZone {
		return ""
	}
	return label[strings.LastIndex(label, "-")+1:]
}

// capabilities are the capabilities of a Resource SKU by name.
type capabilities map[string]string

// number returns 0 for a capability that is missing or not a number.
func (c capabilities) number(name string) float64 {
	f, err := strconv.ParseFloat(c[name], 64)
	if err != nil {
		return 0
	}
	return f
}

func (c capabilities) yes(name string) bool { return strings.EqualFold(c[name], "true") }

// readSKU converts a Resource SKU. If the size is not usable, it returns the reason.
func readSKU(region string, r *resourcesku.SKU) (*SKU, string) {
	name := *r.Name
	if reason, ok := restricted[name]; ok {
		return nil, reason
	}
	parsed, err := ParseName(name)
	if err != nil {
		return nil, err.Error()
	}
	c := capabilities{}
	for _, capability := range r.Capabilities {
		if capability.Name != nil && capability.Value != nil {
			c[*capability.Name] = *capability.Value
		}
	}
	s := &SKU{
		Name:                  parsed,
		VCPUs:                 int64(c.number("vCPUs")),
		MemoryGiB:             c.number("MemoryGB"),
		GPUs:                  int64(c.number("GPUs")),
		SpotCapable:           c.yes("LowPriorityCapable"),
		AcceleratedNetworking: c.yes("AcceleratedNetworkingEnabled"),
		PremiumIO:             c.yes("PremiumIO"),
		EncryptionAtHost:      c.yes("EncryptionAtHostSupported"),
		MaxDataDisks:          int64(c.number("MaxDataDiskCount")),
		gpu:                   gpuFor(name),
	}
	if r.Family != nil {
		s.QuotaFamily = *r.Family
	}
	switch {
	case parsed.Confidential():
		return nil, "confidential computing sizes are not supported"
	case parsed.Constrained:
		return nil, "sizes with constrained vCPUs are not supported"
	case s.VCPUs < 2:
		return nil, "fewer than 2 vCPUs"
	case s.MemoryGiB < 3.5:
		return nil, "less than 3.5 GiB of memory"
	case s.GPUs > 0 && s.gpu.manufacturer == "":
		return nil, "AKS has no driver for its GPUs"
	}
	switch strings.ToLower(c["CpuArchitectureType"]) {
	case "x64":
		s.Arch = karpv1.ArchitectureAmd64
	case "arm64":
		s.Arch = karpv1.ArchitectureArm64
	default:
		return nil, fmt.Sprintf("unknown CPU architecture %q", c["CpuArchitectureType"])
	}
	for _, g := range strings.Split(c["HyperVGenerations"], ",") {
		if g = strings.TrimSpace(g); g != "" {
			s.HyperVGenerations = append(s.HyperVGenerations, strings.TrimPrefix(strings.ToUpper(g), "V"))
		}
	}
	s.TrustedLaunch = slices.Contains(s.HyperVGenerations, "2") && !c.yes("TrustedLaunchDisabled")
	if c.yes("EphemeralOSDiskSupported") {
		switch nvme, cache, local := c.number("NvmeDiskSizeInMiB"), c.number("CachedDiskBytes"), c.number("MaxResourceVolumeMB"); {
		case nvme > 0 && strings.Contains(c["SupportedEphemeralOSDiskPlacements"], string(PlacementNVMe)):
			s.EphemeralOSDiskGB, s.EphemeralPlacement = int64(nvme*(1<<20)/1e9), PlacementNVMe
		case cache > 0:
			s.EphemeralOSDiskGB, s.EphemeralPlacement = int64(cache/1e9), PlacementCache
		case local > 0:
			s.EphemeralOSDiskGB, s.EphemeralPlacement = int64(local*(1<<20)/1e9), PlacementResource
		}
	}
	if !s.readZones(region, r) {
		return nil, "not available to the subscription in " + region
	}
	return s, ""
}

// readZones sets the zones of a size in the region. It returns false if the region is
// restricted.
func (s *SKU) readZones(region string, r *resourcesku.SKU) bool {
	for _, info := range r.LocationInfo {
		if info.Location != nil && strings.EqualFold(*info.Location, region) {
			for _, z := range info.Zones {
				if z != nil {
					s.Zones = append(s.Zones, *z)
				}
			}
		}
	}
	for _, restriction := range r.Restrictions {
		if restriction.Type == nil {
			continue
		}
		var locations, zones []*string
		if restriction.RestrictionInfo != nil {
			locations, zones = restriction.RestrictionInfo.Locations, restriction.RestrictionInfo.Zones
		}
		switch *restriction.Type {
		case resourcesku.RestrictedLocation:
			for _, l := range append(slices.Clone(restriction.Values), locations...) {
				if l != nil && strings.EqualFold(*l, region) {
					return false
				}
			}
		case resourcesku.RestrictedZone:
			s.Zones = slices.DeleteFunc(s.Zones, func(zone string) bool {
				return slices.ContainsFunc(zones, func(z *string) bool { return z != nil && *z == zone })
			})
		}
	}
	slices.Sort(s.Zones)
	s.Zones = slices.Compact(s.Zones)
	return true
}

// complete computes the parts that Build shares between all settings.
func (s *SKU) complete(region string) {
	memoryMiB := strconv.FormatInt(int64(s.MemoryGiB*1024), 10)
	cpu := strconv.FormatInt(s.VCPUs, 10)
	version := s.Name.Version
	if version == "" {
		version = "1"
	}
	gpus := int64(0)
	if s.gpu.manufacturer != "" {
		gpus = s.GPUs
	}
	r := []*scheduling.Requirement{
		in(corev1.LabelInstanceTypeStable, s.Name.Full),
		in(v1beta1.LabelSKUName, s.Name.Full),
		in(corev1.LabelArchStable, s.Arch),
		in(corev1.LabelOSStable, string(corev1.Linux)),
		in(corev1.LabelTopologyRegion, region),
		in(v1beta1.LabelSKUFamily, s.Name.Family),
		in(v1beta1.LabelSKUSeries, s.Name.Series()),
		in(v1beta1.LabelSKUVersion, version),
		in(v1beta1.LabelSKUCPU, cpu),
		in(v1beta1.AKSLabelSKUCPU, cpu),
		in(v1beta1.LabelSKUMemory, memoryMiB),
		in(v1beta1.AKSLabelSKUMemory, memoryMiB),
		in(v1beta1.LabelSKUGPUCount, strconv.FormatInt(gpus, 10)),
		inOrAbsent(v1beta1.LabelSKUGPUManufacturer, s.gpu.manufacturer),
		in(v1beta1.LabelSKUNetworkingAccelerated, strconv.FormatBool(s.AcceleratedNetworking)),
		in(v1beta1.LabelSKUStoragePremiumCapable, strconv.FormatBool(s.PremiumIO)),
		in(v1beta1.AKSLabelMode, v1beta1.ModeSystem, v1beta1.ModeUser),
		in(v1beta1.AKSLabelScaleSetPriority, v1beta1.PriorityRegular, v1beta1.PrioritySpot),
		in(v1beta1.AKSLabelPriority, v1beta1.PriorityRegular, v1beta1.PrioritySpot),
		in(v1beta1.LabelSKUStorageUltraSSD, "false"),
		absent(corev1.LabelWindowsBuild),
	}
	if gpus > 0 {
		r = append(r, inOrAbsent(v1beta1.LabelSKUGPUName, s.Name.Accelerator))
	} else {
		r = append(r, absent(v1beta1.LabelSKUGPUName))
	}
	if s.EphemeralOSDiskGB > 0 {
		r = append(r, in(v1beta1.LabelSKUStorageEphemeralOSMaxSize, strconv.FormatInt(s.EphemeralOSDiskGB, 10)))
	} else {
		r = append(r, absent(v1beta1.LabelSKUStorageEphemeralOSMaxSize))
	}
	s.base = scheduling.NewRequirements(r...)
	s.kubeReserved = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(reservedMilliCPU(s.VCPUs), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(reservedMemoryMiB(s.MemoryGiB)<<20, resource.BinarySI),
	}
}

// reservedMilliCPU returns what AKS reserves for the kubelet and the container runtime:
// 6% of the first core, 4% of the second, 2% of the next two, 1% of the rest.
func reservedMilliCPU(cores int64) int64 {
	return 60*min(cores, 1) + 40*clamp(cores-1, 1) + 20*clamp(cores-2, 2) + 10*max(cores-4, 0)
}

// reservedMemoryMiB returns what AKS reserves: 25% of the first 4 GiB, 20% of the next 4,
// 10% of the next 8, 6% up to 128 GiB and 2% of the rest, truncated to MiB.
func reservedMemoryMiB(gib float64) int64 {
	reserved, left := 0.0, gib
	for _, band := range []struct{ gib, share float64 }{{4, .25}, {4, .20}, {8, .10}, {112, .06}, {math.MaxFloat64, .02}} {
		part := math.Min(left, band.gib)
		reserved += part * band.share
		left -= part
	}
	return int64(reserved * 1024)
}

func clamp(v, limit int64) int64 { return min(max(v, 0), limit) }

func in(key string, values ...string) *scheduling.Requirement {
	return scheduling.NewRequirement(key, corev1.NodeSelectorOpIn, values...)
}

func absent(key string) *scheduling.Requirement {
	return scheduling.NewRequirement(key, corev1.NodeSelectorOpDoesNotExist)
}

func inOrAbsent(key, value string) *scheduling.Requirement {
	if value == "" {
		return absent(key)
	}
	return in(key, value)
}

// offeringRequirements returns the requirements of an offering, which all sizes share.
func offeringRequirements(region, zone string, spot bool) scheduling.Requirements {
	capacityType, priority := karpv1.CapacityTypeOnDemand, v1beta1.PriorityRegular
	if spot {
		capacityType, priority = karpv1.CapacityTypeSpot, v1beta1.PrioritySpot
	}
	scope := v1beta1.PlacementZonal
	if zone == v1beta1.RegionalZone {
		scope = v1beta1.PlacementRegional
	}
	return scheduling.NewRequirements(
		in(karpv1.CapacityTypeLabelKey, capacityType),
		in(v1beta1.AKSLabelScaleSetPriority, priority),
		in(v1beta1.AKSLabelPriority, priority),
		in(corev1.LabelTopologyZone, ZoneLabel(region, zone)),
		in(v1beta1.LabelPlacementScope, scope),
		in(v1beta1.LabelSKUStorageUltraSSD, "false"),
	)
}
