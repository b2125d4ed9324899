// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package catalog is the embedded catalogue of Azure's VM sizes: their
// properties, the regions that offer them, and prices. The local Azure serves
// it as the Compute Resource SKUs API and the price list; `nap plan` uses it
// without a running instance or a network. It does not depend on Karpenter, on
// AKS policy (which sizes node auto-provisioning uses) or on a cluster.
//
// # Sources
//
// go generate writes catalog.tsv.gz from the files in gen/inputs; README.md
// lists their sources, dates and terms. With -live the generator reads the
// Azure APIs instead. The file itself begins with its sources. The committed file
// has:
//
//   - name, family, series, quota family, vCPUs, memory, architecture, data
//     disks, NICs, GPUs, premium IO, accelerated networking, ephemeral OS disk,
//     hypervisor generations, confidential, encryption at host: the Resource
//     SKUs API listings of 2026-08-01, public series pages where the API has
//     no such field (network and disk throughput, GPU models).
//   - zones, restrictions, spot capability per region: the Resource SKUs API of
//     2026-08-01, as one subscription sees it. The restriction
//     NotAvailableForSubscription is a property of that subscription, not of the
//     region. Size.Restricted keeps it; SKUs ignores it.
//   - on-demand prices: list prices of 2026-06-18, Linux, USD per hour. A listed
//     size without a price has HasPrice false; it is not left out.
//
// # Modelled values
//
// The inputs have no spot prices and no local disk sizes. The generator models
// them with these rules, unless it runs with -live:
//
//   - Spot price: on-demand × factor, with factor = low + span × h, h in [0,1)
//     from an FNV-1a hash of "<quota family or series>/<region>". low/span is
//     0.10/0.25 for CPU sizes and 0.30/0.35 for GPU sizes; rounded to
//     1e-6 USD. A family costs the same fraction throughout a region, and
//     regions differ, as in Azure.
//   - Local disks, per vCPU of the full size, from the name (v = version):
//     resource disk sizes v1-v3 with premium IO 8 GiB (D/DS v2 and older 7,
//     GPU and H sizes 22, M 32) and cache 25 GiB (F 16, DS v2 43, M 99, B a
//     fixed 30 GiB in all); without premium IO 25 GiB resource disk (v2 and
//     older 50) and no cache. From v4 on a local disk exists only with the
//     feature letter d (GPU, H and L sizes: if the size supports ephemeral OS
//     disks): v4 and v5 37.5 GiB resource disk and 25 GiB cache, v6 and later
//     55 GiB NVMe without cache; L sizes 240 GiB NVMe (and 8 GiB resource disk). GPU sizes
//     and H sizes up to v5: 22 GiB resource disk and 256 GiB cache in all, from v6 NVMe.
//     Size.DisksModelled is true for them.
//   - Ephemeral placements: NvmeDisk if the NVMe disk is the only local disk,
//     otherwise ResourceDisk and CacheDisk.
//   - Trusted launch is off for arm64 up to v5, for M up to v2, and for sizes
//     without generation 2. Ultra disks: all premium sizes except B, in each zone.
//   - GPUs of the RTX PRO 6000 v6 sizes: one per 72 vCPUs (64 for the sizes
//     whose vCPUs are a multiple of 32), at least one.
package catalog

//go:generate go run ./gen

import (
	"bytes"
	_ "embed" // the data file
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nap-aks/nap/catalog/internal/table"
)

//go:embed catalog.tsv.gz
var data []byte

// ErrUnknownRegion is wrapped by errors about a region that is not in the catalogue.
var ErrUnknownRegion = errors.New("region not in the catalogue")

// ErrUnknownSize is wrapped by errors about a size that the region does not list.
var ErrUnknownSize = errors.New("size not listed in the region")

// Size is one VM size as one region offers it.
type Size struct {
	Name        string // full name, e.g. Standard_D4s_v5
	Family      string // family letters of the name: D, E, NC, …
	QuotaFamily string // vCPU quota family, e.g. standardDSv5Family; may be empty
	Series      string // e.g. Dsv5
	Arch        string // amd64 or arm64

	VCPUs          int     // of the full size; a constrained size has its parent's
	VCPUsAvailable int     // visible to the guest
	Parent         string  // full size of a constrained size, otherwise empty
	MemoryGiB      float64 // Azure names the capability MemoryGB, but the unit is GiB
	MaxDataDisks   int
	MaxNICs        int
	NetworkMbps    int // expected bandwidth; 0 unknown
	UncachedIOPS   int // remote disk limit; 0 unknown
	UncachedMBps   int // remote disk limit; 0 unknown

	GPUs            int
	GPUModel        string
	GPUManufacturer string // nvidia, amd or empty
	GPUMemoryGiB    float64
	GPURegistered   bool // AKS has a driver for it

	Zones      []string // zone numbers, sorted; empty means regional only
	Restricted bool     // NotAvailableForSubscription in the source listing

	SpotCapable           bool
	PremiumIO             bool
	AcceleratedNetworking bool
	EncryptionAtHost      bool
	TrustedLaunch         bool // generation 2 and not disabled
	UltraSSD              bool
	RDMA                  bool
	Confidential          string   // empty, SGX, CVM or CC-Parent
	HyperVGenerations     []string // V1, V2

	EphemeralOSDisk     bool
	EphemeralPlacements []string // NvmeDisk, ResourceDisk, CacheDisk
	CachedDiskBytes     int64
	ResourceDiskMiB     int64 // temporary disk
	NVMeDiskMiB         int64 // all local NVMe disks together
	NVMeDisks           int
	DisksModelled       bool // the three disk sizes are modelled; see the package comment

	Lifecycle string // retirement date or generation note, empty when current

	HasPrice           bool
	OnDemandUSDPerHour float64 // 0 without price
	SpotUSDPerHour     float64 // 0 without price or when not spot capable
}

type region struct {
	sizes []Size
	index map[string]int // lower-cased name
}

var load = sync.OnceValues(func() (*catalogue, error) {
	f, err := table.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("reading the embedded size catalogue: %w", err)
	}
	c := &catalogue{regions: map[string]func() region{}}
	for _, r := range f.Regions {
		// Regions are expanded on first use: most callers need one region, and the
		// expanded form is ten times larger.
		c.regions[r.Name] = sync.OnceValue(func() region { return newRegion(f.Sizes, r.Listings) })
		c.names = append(c.names, r.Name)
	}
	slices.Sort(c.names)
	return c, nil
})

type catalogue struct {
	names   []string
	regions map[string]func() region
}

func newRegion(sizes []table.Size, listings []table.Listing) region {
	reg := region{sizes: make([]Size, 0, len(listings)), index: make(map[string]int, len(listings))}
	for _, l := range listings {
		reg.index[strings.ToLower(sizes[l.Size].Name)] = len(reg.sizes)
		reg.sizes = append(reg.sizes, newSize(&sizes[l.Size], l))
	}
	return reg
}

func newSize(s *table.Size, l table.Listing) Size {
	has := func(f table.Flags) bool { return s.Flags&f != 0 }
	out := Size{
		Name: s.Name, Family: s.Family, QuotaFamily: s.QuotaFamily, Series: s.Series, Arch: s.Arch,
		VCPUs: s.VCPUs, VCPUsAvailable: s.VCPUsAvail, Parent: s.Parent, MemoryGiB: s.MemoryGiB,
		MaxDataDisks: s.MaxDataDisks, MaxNICs: s.MaxNICs, NetworkMbps: s.NetworkMbps,
		UncachedIOPS: s.UncachedIOPS, UncachedMBps: s.UncachedMBps,
		GPUs: s.GPUs, GPUModel: s.GPUModel, GPUManufacturer: s.GPUMaker, GPUMemoryGiB: s.GPUMemoryGiB, GPURegistered: s.GPURegistered,
		Restricted: l.Restricted, SpotCapable: l.Spot,
		PremiumIO: has(table.PremiumIO), AcceleratedNetworking: has(table.AcceleratedNetworking),
		EncryptionAtHost: has(table.EncryptionAtHost), UltraSSD: has(table.UltraSSD), RDMA: has(table.RDMA),
		Confidential:    s.Confidential,
		EphemeralOSDisk: has(table.EphemeralOSDisk), CachedDiskBytes: s.CachedBytes, ResourceDiskMiB: s.ResourceMiB,
		NVMeDiskMiB: s.NVMeMiB, NVMeDisks: s.NVMeDisks, DisksModelled: has(table.DisksModelled),
		Lifecycle: s.Lifecycle,
		HasPrice:  l.OnDemand > 0, OnDemandUSDPerHour: l.OnDemand, SpotUSDPerHour: l.SpotPrice,
	}
	for _, z := range l.Zones {
		out.Zones = append(out.Zones, string(z))
	}
	if s.HyperV != "" {
		out.HyperVGenerations = strings.Split(s.HyperV, ",")
	}
	if s.Placements != "" {
		out.EphemeralPlacements = strings.Split(s.Placements, ",")
	}
	out.TrustedLaunch = strings.Contains(s.HyperV, "V2") && !has(table.TrustedLaunchDisabled)
	return out
}

// mustLoad returns the decoded catalogue. The file is embedded, so a read error
// means a broken build, which callers cannot handle.
func mustLoad() *catalogue {
	c, err := load()
	if err != nil {
		panic(err)
	}
	return c
}

// Regions returns the names of the regions in the catalogue, sorted.
func Regions() []string { return slices.Clone(mustLoad().names) }

// Sizes returns all sizes that the region lists, sorted by name, including sizes
// without a price and restricted sizes. The caller must not change the slices
// inside a Size. The error wraps ErrUnknownRegion and names the known regions.
func Sizes(regionName string) ([]Size, error) {
	r, err := lookupRegion(regionName)
	if err != nil {
		return nil, err
	}
	return slices.Clone(r.sizes), nil
}

// Lookup returns one size of one region; names are case-insensitive. The error
// wraps ErrUnknownRegion or ErrUnknownSize.
func Lookup(regionName, size string) (Size, error) {
	r, err := lookupRegion(regionName)
	if err != nil {
		return Size{}, err
	}
	i, ok := r.index[strings.ToLower(size)]
	if !ok {
		return Size{}, fmt.Errorf("size %q in region %s: %w", size, regionName, ErrUnknownSize)
	}
	return r.sizes[i], nil
}

func lookupRegion(name string) (region, error) {
	c := mustLoad()
	r, ok := c.regions[normalizeRegion(name)]
	if !ok {
		return region{}, fmt.Errorf("region %q: %w, which has %s", name, ErrUnknownRegion, strings.Join(c.names, ", "))
	}
	return r(), nil
}

// normalizeRegion accepts both forms that Azure clients use: eastus and "East US".
func normalizeRegion(name string) string { return strings.ToLower(strings.ReplaceAll(name, " ", "")) }
