// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/nap-aks/nap/catalog/internal/table"
)

func TestAKSReserved(t *testing.T) {
	for _, c := range []struct {
		vcpus    int
		gib      float64
		cpu, mem int64
	}{
		{2, 8, 100, 1843}, {4, 16, 140, 2662}, {8, 32, 180, 3645}, {16, 32, 260, 3645}, {32, 110, 420, 8437},
		{64, 256, 740, 12165}, {128, 512, 1380, 17408}, {2, 7, 100, 1638}, {20, 80, 300, 6594}, {1, 0.75, 60, 192},
		{8, 218.75, 180, 11402}, {6, 112, 160, 8560}, {24, 220, 340, 11427},
	} {
		cpu, mem := AKSReserved(c.vcpus, c.gib)
		if cpu != c.cpu || mem != c.mem {
			t.Errorf("AKSReserved(%d, %v) = %d, %d; want %d, %d", c.vcpus, c.gib, cpu, mem, c.cpu, c.mem)
		}
	}
}

func TestCapacityExcludesVMOverhead(t *testing.T) {
	for gib, want := range map[float64]int64{16: 15891378995, 8: 7945689497, 256: 254262063923, 512: 508524127846, 218.75: 216520038809, 0.75: 0} {
		if got := CapacityMemoryBytes(gib); got != want {
			t.Errorf("CapacityMemoryBytes(%v) = %d, want %d", gib, got, want)
		}
	}
	_, reserved := AKSReserved(4, 16)
	alloc := float64(CapacityMemoryBytes(16))/(1<<20) - float64(reserved) - float64(EvictionMemoryMiB)
	if math.Abs(alloc-11743.2) > 0.05 {
		t.Errorf("a D4s_v3 has %.1f MiB allocatable, want 11743.2", alloc)
	}
}

// ephemeralGB returns the largest ephemeral OS disk in GB and the placement that
// Azure would choose.
func ephemeralGB(s Size) (int64, string) {
	switch {
	case !s.EphemeralOSDisk:
		return 0, ""
	case s.NVMeDiskMiB > 0 && slices.Contains(s.EphemeralPlacements, "NvmeDisk"):
		return s.NVMeDiskMiB << 20 / 1e9, "NvmeDisk"
	case s.CachedDiskBytes > 0:
		return s.CachedDiskBytes / 1e9, "CacheDisk"
	case s.ResourceDiskMiB > 0:
		return s.ResourceDiskMiB << 20 / 1e9, "ResourceDisk"
	}
	return 0, ""
}

func TestModelledDisksMatchKnownSizes(t *testing.T) {
	for name, want := range map[string]struct {
		gb int64
		in string
	}{
		"Standard_D128ds_v6": {7559, "NvmeDisk"}, "Standard_D64s_v3": {1717, "CacheDisk"}, "Standard_D16plds_v5": {429, "CacheDisk"},
		"Standard_NC24ads_A100_v4": {274, "CacheDisk"}, "Standard_B20ms": {32, "CacheDisk"}, "Standard_D2s_v3": {53, "CacheDisk"},
		"Standard_F16s_v2": {274, "CacheDisk"}, "Standard_D2as_v6": {0, ""}, "Standard_D2_v5": {0, ""}, "Standard_DS2_v2": {92, "CacheDisk"},
	} {
		s := anywhere(t, name)
		if gb, in := ephemeralGB(s); gb != want.gb || in != want.in {
			t.Errorf("%s has an ephemeral disk of %d GB on %q, want %d on %q", name, gb, in, want.gb, want.in)
		}
		if !s.DisksModelled {
			t.Errorf("%s: DisksModelled is false, want true", name)
		}
	}
}

// anywhere returns the size from the first region that lists it.
func anywhere(t *testing.T, name string) Size {
	t.Helper()
	for _, r := range Regions() {
		if s, err := Lookup(r, name); err == nil {
			return s
		}
	}
	t.Fatalf("no region lists %s", name)
	return Size{}
}

func TestEveryRegionListsItsSizes(t *testing.T) {
	if n := len(Regions()); n != 12 {
		t.Fatalf("%d regions, want 12", n)
	}
	unpriced := 0
	for _, r := range Regions() {
		sizes, err := Sizes(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(sizes) < 1000 {
			t.Errorf("%s lists %d sizes, want 1000 or more", r, len(sizes))
		}
		for _, s := range sizes {
			if s.VCPUs < 1 || s.VCPUsAvailable < 1 || s.VCPUsAvailable > s.VCPUs || s.MemoryGiB <= 0 || s.MaxNICs < 1 {
				t.Errorf("%s %s: %d vCPUs, %d available, %v GiB, %d NICs", r, s.Name, s.VCPUs, s.VCPUsAvailable, s.MemoryGiB, s.MaxNICs)
			}
			if s.GPUs > 0 != (s.GPUManufacturer != "") {
				t.Errorf("%s %s: %d GPUs by %q", r, s.Name, s.GPUs, s.GPUManufacturer)
			}
			if s.HasPrice && s.SpotCapable && (s.SpotUSDPerHour <= 0 || s.SpotUSDPerHour >= s.OnDemandUSDPerHour) {
				t.Errorf("%s %s: spot %v, on-demand %v USD/h", r, s.Name, s.SpotUSDPerHour, s.OnDemandUSDPerHour)
			}
			if !s.HasPrice {
				unpriced++
			}
		}
	}
	if unpriced == 0 {
		t.Error("every size has a price; sizes without a price must stay in the listing")
	}
}

func TestKnownSizesAndPrices(t *testing.T) {
	s, err := Lookup("East US", "standard_d4S_v3")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "Standard_D4s_v3" || s.VCPUs != 4 || s.MemoryGiB != 16 || s.QuotaFamily != "standardDSv3Family" || s.OnDemandUSDPerHour != 0.192 {
		t.Errorf("got %+v", s)
	}
	m, err := Lookup("eastus", "Standard_M8-2ms")
	if err != nil {
		t.Fatal(err)
	}
	if m.VCPUs != 8 || m.VCPUsAvailable != 2 || m.Parent != "Standard_M8ms" || m.TrustedLaunch {
		t.Errorf("got %+v", m)
	}
	if _, err := Lookup("mars", "Standard_D4s_v3"); !errors.Is(err, ErrUnknownRegion) || !strings.Contains(err.Error(), "westeurope") {
		t.Errorf("unknown region: %v", err)
	}
	if _, err := Lookup("eastus", "Standard_D4s_v99"); !errors.Is(err, ErrUnknownSize) {
		t.Errorf("unknown size: %v", err)
	}
}

func TestSKUsUseAzureCapabilityNames(t *testing.T) {
	skus := SKUs("eastus")
	sizes, _ := Sizes("eastus")
	if len(skus) != len(sizes) {
		t.Fatalf("%d SKUs of %d sizes", len(skus), len(sizes))
	}
	restricted := 0
	for i, sku := range skus {
		if len(sku.Restrictions) != 0 {
			t.Fatalf("%s has a restriction", *sku.Name)
		}
		if sizes[i].Restricted {
			restricted++
		}
		caps := map[string]string{}
		for _, c := range sku.Capabilities {
			caps[*c.Name] = *c.Value
		}
		for _, name := range []string{"vCPUs", "MemoryGB", "CpuArchitectureType", "PremiumIO", "MaxDataDiskCount", "LowPriorityCapable"} {
			if caps[name] == "" {
				t.Errorf("%s lacks capability %s", *sku.Name, name)
			}
		}
		if *sku.Name == "Standard_D4s_v3" {
			if caps["vCPUs"] != "4" || caps["CachedDiskBytes"] != "107374182400" || caps["HyperVGenerations"] != "V1,V2" || len(sku.LocationInfo[0].Zones) != 3 {
				t.Errorf("D4s_v3: %v", caps)
			}
		}
	}
	if restricted == 0 {
		t.Error("no size is restricted in the source listing, so the check above proves nothing")
	}
	if SKUs("mars") != nil {
		t.Error("SKUs of an unknown region are not nil")
	}
}

func TestFileRoundTrip(t *testing.T) {
	f, err := table.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := table.Encode(&b, f); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), data) {
		t.Error("decoding and encoding the file changes it: it is not in canonical form")
	}
	if len(data) > 1<<20 {
		t.Errorf("the catalogue has %d bytes", len(data))
	}
	if _, err := table.Decode(bytes.NewReader(data[:len(data)/2])); err == nil {
		t.Error("a truncated file decodes without an error")
	}
}
