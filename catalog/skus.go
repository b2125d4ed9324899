// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/internal/resourcesku"
)

// SKUs returns the sizes of a region in the form of the Compute Resource SKUs
// API (resourceType virtualMachines, Azure's capability names, booleans as
// True/False), including sizes without a price; restrictions are left out. It
// returns nil for an unknown region; Sizes returns the error.
func SKUs(regionName string) []*resourcesku.SKU {
	r, err := lookupRegion(regionName)
	if err != nil {
		return nil
	}
	out := make([]*resourcesku.SKU, 0, len(r.sizes))
	for i := range r.sizes {
		out = append(out, newSKU(normalizeRegion(regionName), &r.sizes[i]))
	}
	return out
}

func newSKU(location string, s *Size) *resourcesku.SKU {
	short := s.Name
	if _, after, ok := strings.Cut(s.Name, "_"); ok {
		short = after
	}
	info := &resourcesku.LocationInfo{Location: &location, Zones: ptrs(s.Zones)}
	if s.UltraSSD && len(s.Zones) > 0 {
		info.ZoneDetails = []*resourcesku.ZoneDetails{{
			Name:         ptrs(s.Zones),
			Capabilities: []*resourcesku.Capability{capability("UltraSSDAvailable", "True")},
		}}
	}
	return &resourcesku.SKU{
		ResourceType: ptr("virtualMachines"),
		Name:         &s.Name, Tier: ptr("Standard"), Size: &short, Family: &s.QuotaFamily,
		Locations:    ptrs([]string{location}),
		LocationInfo: []*resourcesku.LocationInfo{info},
		Capabilities: capabilities(s),
		Restrictions: []*resourcesku.Restriction{},
	}
}

func capabilities(s *Size) []*resourcesku.Capability {
	var out []*resourcesku.Capability
	add := func(name, value string) { out = append(out, capability(name, value)) }
	number := func(name string, v int64) { add(name, strconv.FormatInt(v, 10)) }
	flag := func(name string, v bool) {
		if v {
			add(name, "True")
		} else {
			add(name, "False")
		}
	}
	number("MaxResourceVolumeMB", s.ResourceDiskMiB)
	number("OSVhdSizeMB", 1047552)
	number("vCPUs", int64(s.VCPUs))
	if len(s.HyperVGenerations) > 0 {
		add("HyperVGenerations", strings.Join(s.HyperVGenerations, ","))
	}
	add("CpuArchitectureType", map[string]string{"amd64": "x64", "arm64": "Arm64"}[s.Arch])
	add("MemoryGB", strconv.FormatFloat(s.MemoryGiB, 'f', -1, 64))
	number("MaxDataDiskCount", int64(s.MaxDataDisks))
	flag("LowPriorityCapable", s.SpotCapable)
	flag("PremiumIO", s.PremiumIO)
	add("VMDeploymentTypes", "IaaS")
	number("vCPUsAvailable", int64(s.VCPUsAvailable))
	if s.Parent != "" {
		add("ParentSize", s.Parent)
	}
	if s.GPUs > 0 {
		number("GPUs", int64(s.GPUs))
	}
	if s.CachedDiskBytes > 0 {
		number("CachedDiskBytes", s.CachedDiskBytes)
	}
	if s.NVMeDiskMiB > 0 {
		number("NvmeDiskSizeInMiB", s.NVMeDiskMiB)
		if s.NVMeDisks > 0 {
			number("NvmeSizePerDiskInMiB", s.NVMeDiskMiB/int64(s.NVMeDisks))
		}
	}
	if s.UncachedIOPS > 0 {
		number("UncachedDiskIOPS", int64(s.UncachedIOPS))
	}
	if s.UncachedMBps > 0 {
		number("UncachedDiskBytesPerSecond", int64(s.UncachedMBps)*1_000_000)
	}
	flag("EphemeralOSDiskSupported", s.EphemeralOSDisk)
	if len(s.EphemeralPlacements) > 0 {
		add("SupportedEphemeralOSDiskPlacements", strings.Join(s.EphemeralPlacements, ","))
	}
	flag("EncryptionAtHostSupported", s.EncryptionAtHost)
	flag("AcceleratedNetworkingEnabled", s.AcceleratedNetworking)
	flag("RdmaEnabled", s.RDMA)
	number("MaxNetworkInterfaces", int64(s.MaxNICs))
	flag("UltraSSDAvailable", s.UltraSSD)
	if !s.TrustedLaunch && slices.Contains(s.HyperVGenerations, "V2") {
		add("TrustedLaunchDisabled", "True")
	}
	if s.Confidential != "" {
		add("ConfidentialComputingType", s.Confidential)
	}
	return out
}

func capability(name, value string) *resourcesku.Capability {
	return &resourcesku.Capability{Name: &name, Value: &value}
}

func ptr[T any](v T) *T { return &v }

func ptrs(list []string) []*string {
	out := make([]*string, 0, len(list))
	for _, s := range list {
		out = append(out, ptr(s))
	}
	return out
}
