// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"hash/fnv"
	"math"
	"strings"

	"github.com/nap-aks/nap/catalog/internal/table"
)

// This file models the values that the inputs lack. The documentation of package
// catalog describes the rules.

// Shapes of local disks, in GiB per vCPU of the full size unless said otherwise.
const (
	resourceWithPremium    = 8
	resourceWithPremiumV2  = 7
	resourceWithoutPremium = 25
	resourceWithoutV2      = 50
	resourceV4V5           = 37.5
	resourceGPU            = 22
	resourceM              = 32
	cacheDefault           = 25
	cacheF                 = 16
	cacheDSv2              = 43
	cacheM                 = 99
	cacheBTotal            = 30  // GiB in all
	cacheGPUTotal          = 256 // GiB in all
	nvmeV6                 = 55
	nvmeL                  = 240
)

const gib = 1 << 30

// spotPrice returns a modelled spot price in USD per hour: a fraction of the
// on-demand price that depends only on the quota family and the region.
func spotPrice(s *table.Size, region string, onDemand float64) float64 {
	family := s.QuotaFamily
	if family == "" {
		family = s.Series
	}
	h := fnv.New32a()
	h.Write([]byte(strings.ToLower(family) + "/" + region))
	low, span := 0.10, 0.25
	if s.GPUs > 0 {
		low, span = 0.30, 0.35
	}
	factor := low + span*float64(h.Sum32())/(math.MaxUint32+1)
	return math.Round(onDemand*factor*1e6) / 1e6
}

// hasFeature reports whether the size's name has the feature letter, for example
// d in D4ds_v5. The family letters in front of the digits do not count.
func hasFeature(s *table.Size, letter string) bool {
	short := strings.TrimPrefix(s.Name, "Standard_")
	short, _, _ = strings.Cut(short, "_")
	i := strings.LastIndexAny(short, "0123456789")
	return i >= 0 && strings.Contains(short[i+1:], letter)
}

func isAccelerated(s *table.Size) bool { return strings.HasPrefix(s.Family, "N") }

// modelGPUs sets the GPU manufacturer, and the number of GPUs if it is unknown.
func modelGPUs(s *table.Size, unknown bool) {
	if unknown && strings.Contains(s.Name, "RTXPRO6000BSE") {
		per := 72
		if s.VCPUs%32 == 0 {
			per = 64
		}
		s.GPUs = max(1, s.VCPUs/per)
	}
	switch {
	case s.GPUs == 0:
	case strings.HasPrefix(s.GPUModel, "AMD"):
		s.GPUMaker = "amd"
	default:
		s.GPUMaker = "nvidia"
	}
}

// modelFeatures sets ultra disk, trusted launch and RDMA.
func modelFeatures(s *table.Size, version int) {
	if s.Flags&table.PremiumIO != 0 && s.Family != "B" {
		s.Flags |= table.UltraSSD
	}
	if (s.Arch == "arm64" && version <= 5) || (s.Family == "M" && version <= 2) {
		s.Flags |= table.TrustedLaunchDisabled
	}
	if hasFeature(s, "r") {
		s.Flags |= table.RDMA
	}
}

// modelDisks sets the local disks and the ephemeral placements.
func modelDisks(s *table.Size, version int) {
	s.Flags |= table.DisksModelled
	vcpus := float64(s.VCPUs)
	ephemeral := s.Flags&table.EphemeralOSDisk != 0
	premium := s.Flags&table.PremiumIO != 0
	cacheGiB, resourceGiB, nvmeGiB := 0.0, 0.0, 0.0
	compute := strings.HasPrefix(s.Family, "H") // HB, HC, HX
	switch {
	case s.Family == "L":
		if s.NVMeDisks > 0 {
			nvmeGiB = nvmeL * vcpus
		}
		if version < 4 {
			resourceGiB = resourceWithPremium * vcpus
		}
	case isAccelerated(s) || compute:
		if ephemeral && version >= 6 {
			nvmeGiB = nvmeV6 * vcpus
		} else if ephemeral {
			resourceGiB, cacheGiB = resourceGPU*vcpus, cacheGPUTotal
		}
	case s.Family == "B":
		if version < 2 {
			resourceGiB, cacheGiB = resourceWithPremium*vcpus, cacheBTotal
		}
	case s.Family == "M":
		switch {
		case !ephemeral:
		case version >= 3:
			nvmeGiB = nvmeV6 * vcpus
		default:
			resourceGiB, cacheGiB = resourceM*vcpus, cacheM*vcpus
		}
	case version >= 6 || s.Family == "FX" && version == 2:
		if hasFeature(s, "d") {
			nvmeGiB = nvmeV6 * vcpus
		}
	case version >= 4:
		if hasFeature(s, "d") {
			resourceGiB, cacheGiB = resourceV4V5*vcpus, cacheDefault*vcpus
		} else if ephemeral { // v4 with premium IO but without d has a cache disk only
			cacheGiB = cacheDefault * vcpus
		}
	case !premium && version <= 2:
		resourceGiB = resourceWithoutV2 * vcpus
	case !premium:
		resourceGiB = resourceWithoutPremium * vcpus
	case s.Family == "F":
		resourceGiB, cacheGiB = resourceWithPremium*vcpus, cacheF*vcpus
	case version <= 2 && (s.Family == "D" || s.Family == "DS"):
		resourceGiB, cacheGiB = resourceWithPremiumV2*vcpus, cacheDSv2*vcpus
	default:
		resourceGiB, cacheGiB = resourceWithPremium*vcpus, cacheDefault*vcpus
	}
	s.CachedBytes = int64(cacheGiB * gib)
	s.ResourceMiB = int64(resourceGiB * 1024)
	s.NVMeMiB = int64(nvmeGiB * 1024)
	if s.NVMeMiB == 0 {
		s.NVMeDisks = 0
	} else if s.NVMeDisks == 0 {
		s.NVMeDisks = 1
	}
	switch {
	case !ephemeral:
	case s.NVMeMiB > 0 && s.ResourceMiB == 0 && s.CachedBytes == 0:
		s.Placements = "NvmeDisk"
	case s.ResourceMiB > 0 && s.CachedBytes > 0:
		s.Placements = "ResourceDisk,CacheDisk"
	case s.ResourceMiB > 0:
		s.Placements = "ResourceDisk"
	case s.CachedBytes > 0:
		s.Placements = "CacheDisk"
	}
}
