// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/catalog/internal/table"
)

// row is one line of a CSV file, keyed by column name.
type row map[string]string

func (r row) int(col string) (int, error) {
	if r[col] == "" {
		return 0, nil
	}
	v, err := strconv.Atoi(r[col])
	if err != nil {
		return 0, fmt.Errorf("column %s: %q is not a number", col, r[col])
	}
	return v, nil
}

func (r row) float(col string) (float64, error) {
	if r[col] == "" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(r[col], 64)
	if err != nil {
		return 0, fmt.Errorf("column %s: %q is not a number", col, r[col])
	}
	return v, nil
}

// readCSV calls each for every row of a gzip-compressed CSV file with a header.
func readCSV(path string, each func(row) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the catalogue's inputs: %w", err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	records, err := csv.NewReader(unzipped).ReadAll()
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if len(records) < 2 {
		return fmt.Errorf("reading %s: no rows", path)
	}
	for n, rec := range records[1:] {
		r := row{}
		for i, name := range records[0] {
			r[name] = rec[i]
		}
		if err := each(r); err != nil {
			return fmt.Errorf("%s, line %d: %w", path, n+2, err)
		}
	}
	return nil
}

// readGPUs returns the GPU manufacturer of each size that AKS has a driver for,
// by lower-case name.
func readGPUs(path string) (map[string]string, error) {
	out := map[string]string{}
	err := readCSV(path, func(r row) error {
		out[r["sku_lower"]] = r["manufacturer"]
		return nil
	})
	return out, err
}

// readInputs builds the catalogue from the CSV files in dir. README.md of
// package catalog describes them.
func readInputs(dir string) (*table.File, error) {
	f := &table.File{Sources: []string{
		"sizes and quota families: Resource SKUs API of 2026-08-01; network, disk throughput and GPU models: public documentation",
		"zones, restrictions, spot capability: Resource SKUs API of 2026-08-01, as one subscription saw it",
		"on-demand prices: Linux list prices of 2026-06-18 in USD per hour, from the Retail Prices API",
		"GPU driver registry: sizes that AKS has a driver for, 2026-06",
		"modelled by rule: spot prices, cache, temporary and NVMe disk sizes, ephemeral placements, trusted launch, ultra disk, RTX PRO 6000 GPU counts",
	}}
	gpus, err := readGPUs(filepath.Join(dir, "gpus.csv.gz"))
	if err != nil {
		return nil, err
	}
	index := map[string]int{} // by size name
	if err := readCSV(filepath.Join(dir, "sizes.csv.gz"), func(r row) error {
		s, err := newSize(r, gpus)
		if err != nil {
			return fmt.Errorf("size %s: %w", r["name"], err)
		}
		index[s.Name] = len(f.Sizes)
		f.Sizes = append(f.Sizes, s)
		return nil
	}); err != nil {
		return nil, err
	}
	regions := map[string]int{} // by region name
	if err := readCSV(filepath.Join(dir, "listings.csv.gz"), func(r row) error {
		size, ok := index[r["size"]]
		if !ok {
			return fmt.Errorf("size %s is not in sizes.csv.gz", r["size"])
		}
		at, ok := regions[r["region"]]
		if !ok {
			at = len(f.Regions)
			regions[r["region"]] = at
			f.Regions = append(f.Regions, table.Region{Name: r["region"]})
		}
		price, err := r.float("on_demand_usd_hour")
		if err != nil {
			return err
		}
		l := table.Listing{
			Size: size, Zones: strings.ReplaceAll(r["zones"], ";", ""), Spot: r["spot_eligible"] == "true",
			Restricted: strings.Contains(r["restrictions"], "NotAvailableForSubscription"),
			OnDemand:   price,
		}
		if l.Spot {
			l.SpotPrice = spotPrice(&f.Sizes[size], r["region"], l.OnDemand)
		}
		f.Regions[at].Listings = append(f.Regions[at].Listings, l)
		return nil
	}); err != nil {
		return nil, err
	}
	return f, nil
}

// newSize reads one row of sizes.csv.gz and adds what the rules model.
func newSize(r row, gpus map[string]string) (table.Size, error) {
	s := table.Size{
		Name: r["name"], Family: r["family"], QuotaFamily: r["sku_family"], Series: r["series"], Arch: r["cpu_arch"],
		Parent: r["constrained_parent"], GPUModel: r["gpu_model"], HyperV: strings.ReplaceAll(r["hyperv_generations"], ";", ","),
		Lifecycle: r["lifecycle"],
	}
	if s.Arch != "amd64" && s.Arch != "arm64" {
		return s, fmt.Errorf("architecture %q", s.Arch)
	}
	for _, c := range []struct {
		to  *int
		col string
	}{
		{&s.VCPUs, "vcpus"}, {&s.VCPUsAvail, "vcpus_available"}, {&s.MaxDataDisks, "max_data_disks"}, {&s.MaxNICs, "max_nics"},
		{&s.NetworkMbps, "network_mbps"}, {&s.UncachedIOPS, "uncached_iops"}, {&s.UncachedMBps, "uncached_mbps"},
		{&s.GPUs, "gpu_count"}, {&s.NVMeDisks, "nvme_disks"},
	} {
		v, err := r.int(c.col)
		if err != nil {
			return s, err
		}
		*c.to = v
	}
	var err error
	if s.MemoryGiB, err = r.float("memory_gib"); err != nil {
		return s, err
	}
	if s.GPUMemoryGiB, err = r.float("gpu_memory_gib"); err != nil {
		return s, err
	}
	version, err := r.int("version")
	if err != nil {
		return s, err
	}
	if s.VCPUsAvail == 0 {
		s.VCPUsAvail = s.VCPUs
	}
	switch r["confidential"] {
	case "cvm":
		s.Confidential = "CVM"
	case "sgx":
		s.Confidential = "SGX"
	case "cc-parent":
		s.Confidential = "CC-Parent"
	}
	if r["accelerator_kind"] == "fpga" {
		s.GPUs = 0
	}
	modelGPUs(&s, r["gpu_count"] == "" && r["accelerator_kind"] == "gpu")
	if maker, ok := gpus[strings.ToLower(s.Name)]; ok {
		s.GPUMaker, s.GPURegistered = maker, true
	}
	for _, c := range []struct {
		flag table.Flags
		on   bool
	}{
		{table.PremiumIO, r["premium_io"] == "true"},
		{table.AcceleratedNetworking, r["accelerated_networking"] == "true"},
		{table.EphemeralOSDisk, r["ephemeral_os_disk"] == "true"},
		{table.EncryptionAtHost, r["encryption_at_host"] == "true"},
	} {
		if c.on {
			s.Flags |= c.flag
		}
	}
	modelFeatures(&s, version)
	modelDisks(&s, version)
	return s, nil
}
