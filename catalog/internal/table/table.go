// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package table reads and writes the file format of the size catalogue, which
// the generator writes and package catalog embeds.
//
// The file is UTF-8 text compressed with gzip. It is columnar, because adjacent
// equal values compress well:
//
//	nap-catalog 1
//	source <TAB> free text, one line per source of data
//	sizes <TAB> number of sizes
//	<column> <TAB> value of size 0 <TAB> value of size 1 ...
//	region <TAB> name <TAB> number of sizes listed there
//	<column> <TAB> value of listing 0 ...
//
// Sizes and regions are sorted by name, listings by size. Encoding the same File
// always gives the same bytes.
package table

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

const header = "nap-catalog 1"

// Size is one VM size: the properties that are the same in every region.
type Size struct {
	Name          string  // full name, e.g. Standard_D4s_v5
	Family        string  // family letters of the name, e.g. D, NC
	QuotaFamily   string  // Azure's quota family, empty when unknown
	Series        string  // e.g. Dsv5
	Arch          string  // amd64 or arm64
	Parent        string  // the full size, if this size has constrained vCPUs
	VCPUs         int     // of the parent when constrained
	VCPUsAvail    int     // after the constraint
	MemoryGiB     float64 // Azure names it MemoryGB
	MaxDataDisks  int
	MaxNICs       int
	NetworkMbps   int // expected bandwidth, 0 unknown
	UncachedIOPS  int // 0 unknown
	UncachedMBps  int // 0 unknown
	GPUs          int
	GPUModel      string
	GPUMaker      string // nvidia or amd
	GPUMemoryGiB  float64
	GPURegistered bool   // in AKS's list of GPU sizes with a driver
	HyperV        string // V1, V2 or V1,V2
	Confidential  string // empty, or SNP, TDX, SGX by Azure's names (CVM if the inputs do not say which)
	Placements    string // ephemeral OS disk placements, comma separated
	CachedBytes   int64  // cache disk
	ResourceMiB   int64  // temporary disk
	NVMeMiB       int64  // local NVMe, all disks together
	NVMeDisks     int
	Lifecycle     string // retirement or generation notes, empty if current
	Flags         Flags
}

// Flags are the yes/no properties of a size.
type Flags uint16

// The flags of a size.
const (
	PremiumIO Flags = 1 << iota
	AcceleratedNetworking
	EphemeralOSDisk
	EncryptionAtHost
	TrustedLaunchDisabled
	UltraSSD
	RDMA
	DisksModelled // the generator's rules set the cache, resource and NVMe disk sizes
)

// Listing is one size in one region.
type Listing struct {
	Size       int     // index into File.Sizes
	Zones      string  // zone numbers without separator: "123", empty if the size is regional only
	Restricted bool    // NotAvailableForSubscription in the source listing
	Spot       bool    // LowPriorityCapable
	OnDemand   float64 // USD per hour; 0: no price
	SpotPrice  float64 // USD per hour; 0: no price
}

// Region is a region with its listings.
type Region struct {
	Name     string
	Listings []Listing
}

// File is the whole catalogue.
type File struct {
	Sources []string
	Sizes   []Size
	Regions []Region
}

// Sort sorts the file into its canonical order.
func (f *File) Sort() {
	order := make([]int, len(f.Sizes))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return f.Sizes[order[a]].Name < f.Sizes[order[b]].Name })
	sizes, at := make([]Size, len(order)), make([]int, len(order))
	for to, from := range order {
		sizes[to], at[from] = f.Sizes[from], to
	}
	f.Sizes = sizes
	sort.Slice(f.Regions, func(a, b int) bool { return f.Regions[a].Name < f.Regions[b].Name })
	for _, r := range f.Regions {
		for i := range r.Listings {
			r.Listings[i].Size = at[r.Listings[i].Size]
		}
		sort.Slice(r.Listings, func(a, b int) bool { return r.Listings[a].Size < r.Listings[b].Size })
	}
}

// column reads and writes one field of T.
type column[T any] struct {
	name string
	get  func(*T) string
	set  func(*T, string) error
}

func str[T any](name string, p func(*T) *string) column[T] {
	return column[T]{name, func(t *T) string { return *p(t) }, func(t *T, s string) error { *p(t) = s; return nil }}
}

func integer[T any, I int | int64 | Flags](name string, p func(*T) *I) column[T] {
	return column[T]{name,
		func(t *T) string { return strconv.FormatInt(int64(*p(t)), 10) },
		func(t *T, s string) error {
			v, err := strconv.ParseInt(s, 10, 64)
			*p(t) = I(v)
			return err
		}}
}

func float[T any](name string, p func(*T) *float64) column[T] {
	return column[T]{name,
		func(t *T) string { return strconv.FormatFloat(*p(t), 'f', -1, 64) },
		func(t *T, s string) error {
			v, err := strconv.ParseFloat(s, 64)
			*p(t) = v
			return err
		}}
}

func boolean[T any](name string, p func(*T) *bool) column[T] {
	return column[T]{name,
		func(t *T) string {
			if *p(t) {
				return "1"
			}
			return "0"
		},
		func(t *T, s string) error { *p(t) = s == "1"; return nil }}
}

var sizeColumns = []column[Size]{
	str("name", func(s *Size) *string { return &s.Name }),
	str("family", func(s *Size) *string { return &s.Family }),
	str("quota_family", func(s *Size) *string { return &s.QuotaFamily }),
	str("series", func(s *Size) *string { return &s.Series }),
	str("arch", func(s *Size) *string { return &s.Arch }),
	str("parent", func(s *Size) *string { return &s.Parent }),
	integer("vcpus", func(s *Size) *int { return &s.VCPUs }),
	integer("vcpus_available", func(s *Size) *int { return &s.VCPUsAvail }),
	float("memory_gib", func(s *Size) *float64 { return &s.MemoryGiB }),
	integer("max_data_disks", func(s *Size) *int { return &s.MaxDataDisks }),
	integer("max_nics", func(s *Size) *int { return &s.MaxNICs }),
	integer("network_mbps", func(s *Size) *int { return &s.NetworkMbps }),
	integer("uncached_iops", func(s *Size) *int { return &s.UncachedIOPS }),
	integer("uncached_mbps", func(s *Size) *int { return &s.UncachedMBps }),
	integer("gpus", func(s *Size) *int { return &s.GPUs }),
	str("gpu_model", func(s *Size) *string { return &s.GPUModel }),
	str("gpu_maker", func(s *Size) *string { return &s.GPUMaker }),
	float("gpu_memory_gib", func(s *Size) *float64 { return &s.GPUMemoryGiB }),
	boolean("gpu_registered", func(s *Size) *bool { return &s.GPURegistered }),
	str("hyperv", func(s *Size) *string { return &s.HyperV }),
	str("confidential", func(s *Size) *string { return &s.Confidential }),
	str("placements", func(s *Size) *string { return &s.Placements }),
	integer("cached_bytes", func(s *Size) *int64 { return &s.CachedBytes }),
	integer("resource_mib", func(s *Size) *int64 { return &s.ResourceMiB }),
	integer("nvme_mib", func(s *Size) *int64 { return &s.NVMeMiB }),
	integer("nvme_disks", func(s *Size) *int { return &s.NVMeDisks }),
	str("lifecycle", func(s *Size) *string { return &s.Lifecycle }),
	integer("flags", func(s *Size) *Flags { return &s.Flags }),
}

var listingColumns = []column[Listing]{
	integer("size", func(l *Listing) *int { return &l.Size }),
	str("zones", func(l *Listing) *string { return &l.Zones }),
	boolean("restricted", func(l *Listing) *bool { return &l.Restricted }),
	boolean("spot", func(l *Listing) *bool { return &l.Spot }),
	float("on_demand_usd_hour", func(l *Listing) *float64 { return &l.OnDemand }),
	float("spot_usd_hour", func(l *Listing) *float64 { return &l.SpotPrice }),
}

// Encode writes f. Values must not contain tabs or line breaks.
func Encode(w io.Writer, f *File) error {
	zw, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return fmt.Errorf("catalogue: creating the gzip writer: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, header)
	for _, s := range f.Sources {
		fmt.Fprintf(&b, "source\t%s\n", s)
	}
	fmt.Fprintf(&b, "sizes\t%d\n", len(f.Sizes))
	if err := writeColumns(&b, sizeColumns, f.Sizes); err != nil {
		return err
	}
	for _, r := range f.Regions {
		fmt.Fprintf(&b, "region\t%s\t%d\n", r.Name, len(r.Listings))
		if err := writeColumns(&b, listingColumns, r.Listings); err != nil {
			return err
		}
	}
	if _, err := zw.Write(b.Bytes()); err != nil {
		return fmt.Errorf("catalogue: writing: %w", err)
	}
	return zw.Close()
}

func writeColumns[T any](b *bytes.Buffer, cols []column[T], rows []T) error {
	for _, c := range cols {
		b.WriteString(c.name)
		for i := range rows {
			v := c.get(&rows[i])
			if strings.ContainsAny(v, "\t\n\r") {
				return fmt.Errorf("catalogue: column %s, row %d: value %q contains a tab or line break", c.name, i, v)
			}
			b.WriteByte('\t')
			b.WriteString(v)
		}
		b.WriteByte('\n')
	}
	return nil
}

// Decode reads what Encode wrote.
func Decode(r io.Reader) (*File, error) {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("catalogue: not a gzip file: %w", err)
	}
	br := bufio.NewReaderSize(zr, 1<<16)
	var line string
	next := func() error {
		s, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSuffix(s, "\n")
		return nil
	}
	if err := next(); err != nil || line != header {
		return nil, fmt.Errorf("catalogue: the file starts with %q, want %q: run go generate ./catalog", line, header)
	}
	f := &File{}
	for {
		if err := next(); errors.Is(err, io.EOF) {
			return f, nil
		} else if err != nil {
			return nil, fmt.Errorf("catalogue: reading: %w", err)
		}
		p := strings.Split(line, "\t")
		switch {
		case p[0] == "source" && len(p) == 2:
			f.Sources = append(f.Sources, p[1])
		case p[0] == "sizes" && len(p) == 2:
			f.Sizes, err = readColumns(next, &line, sizeColumns, p[1])
		case p[0] == "region" && len(p) == 3:
			reg := Region{Name: p[1]}
			reg.Listings, err = readColumns(next, &line, listingColumns, p[2])
			for _, l := range reg.Listings {
				if l.Size < 0 || l.Size >= len(f.Sizes) {
					return nil, fmt.Errorf("catalogue: region %s lists size index %d of %d sizes", reg.Name, l.Size, len(f.Sizes))
				}
			}
			f.Regions = append(f.Regions, reg)
		default:
			err = fmt.Errorf("unexpected line %.40q", line)
		}
		if err != nil {
			return nil, fmt.Errorf("catalogue: %w", err)
		}
	}
}

func readColumns[T any](next func() error, line *string, cols []column[T], count string) ([]T, error) {
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<20 {
		return nil, fmt.Errorf("row count %q", count)
	}
	rows := make([]T, n)
	for _, c := range cols {
		if err := next(); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		p := strings.Split(*line, "\t")
		if p[0] != c.name || len(p) != n+1 {
			return nil, fmt.Errorf("got column %q with %d values, want %q with %d", p[0], len(p)-1, c.name, n)
		}
		for i := range rows {
			if err := c.set(&rows[i], p[i+1]); err != nil {
				return nil, fmt.Errorf("column %s, row %d: %w", c.name, i, err)
			}
		}
	}
	return rows, nil
}
