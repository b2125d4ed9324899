// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package catalog

import "math"

// EvictionMemoryMiB is the kubelet's hard eviction threshold on AKS nodes, in
// MiB: memory below it is not allocatable.
const EvictionMemoryMiB int64 = 750

// VMMemoryOverhead is the fraction of a size's memory that the hypervisor and the
// kernel take, so that the guest does not see it.
const VMMemoryOverhead = 0.075

// reservedStep reserves a fraction of the amount between the previous step's
// bound and upTo for the kubelet and the system.
type reservedStep struct{ upTo, fraction float64 }

var (
	cpuSteps    = []reservedStep{{1, 0.06}, {2, 0.04}, {4, 0.02}, {math.Inf(1), 0.01}}
	memorySteps = []reservedStep{{4, 0.25}, {8, 0.20}, {16, 0.10}, {128, 0.06}, {math.Inf(1), 0.02}}
)

func reserved(amount float64, steps []reservedStep) float64 {
	var sum, from float64
	for _, s := range steps {
		if amount <= from {
			break
		}
		sum += (math.Min(amount, s.upTo) - from) * s.fraction
		from = s.upTo
	}
	return sum
}

// AKSReserved returns the kube-reserved CPU (millicores) and memory (MiB) of a
// size on AKS, both truncated to whole units. memoryGiB is the SKU's value, not
// rounded. The eviction threshold EvictionMemoryMiB is not included.
func AKSReserved(vcpus int, memoryGiB float64) (cpuMilli, memoryMiB int64) {
	// Sums of decimal fractions may fall just below the exact value; epsilon
	// keeps an exact 100 from being truncated to 99.
	const epsilon = 1e-6
	return int64(reserved(float64(vcpus), cpuSteps)*1000 + epsilon), int64(reserved(memoryGiB, memorySteps)*1024 + epsilon)
}

// CapacityMemoryBytes returns the memory that a node with memoryGiB reports as
// capacity: whole GiB less VMMemoryOverhead.
func CapacityMemoryBytes(memoryGiB float64) int64 {
	g := math.Floor(memoryGiB) * (1 << 30)
	return int64(g - math.Ceil(g*VMMemoryOverhead))
}
