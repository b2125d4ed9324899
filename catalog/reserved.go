package catalog

import "math"

// EvictionMemoryMiB is the kubelet's hard eviction threshold on AKS nodes, in
// MiB: memory below it is not allocatable.
const EvictionMemoryMiB int64 = 750

// VMMemoryOverhead is the part of a size's memory that the guest does not see:
// the hypervisor's and the kernel's share.
const VMMemoryOverhead = 0.075

// reservedStep reserves part of a resource for the kubelet and the system: fraction of
// everything up to the bound that the steps before have not covered.
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

// AKSReserved returns what AKS reserves for the kubelet on a size with that
// many vCPUs and that much memory (not rounded, as the SKU says): CPU in
// millicores and memory in MiB, both cut to whole units. The eviction threshold
// EvictionMemoryMiB comes on top.
func AKSReserved(vcpus int, memoryGiB float64) (cpuMilli, memoryMiB int64) {
	// The sums are of decimal fractions; the small amount keeps 1843.2 from
	// becoming less and, more to the point, an exact 100 from becoming 99.
	const epsilon = 1e-6
	return int64(reserved(float64(vcpus), cpuSteps)*1000 + epsilon), int64(reserved(memoryGiB, memorySteps)*1024 + epsilon)
}

// CapacityMemoryBytes returns the memory that a node of a size with that much
// memory reports as capacity: whole GiB less VMMemoryOverhead.
func CapacityMemoryBytes(memoryGiB float64) int64 {
	g := math.Floor(memoryGiB) * (1 << 30)
	return int64(g - math.Ceil(g*VMMemoryOverhead))
}
