package main

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/catalog/internal/table"
)

// row is one line of a CSV file by column name.
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

func readCSV(path string, each func(row) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the facts: %w", err)
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
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

// readGPUs returns the manufacturer of each size with a driver, by lower-cased name.
func readGPUs(path string) (map[string]string, error) {
	out := map[string]string{}
	err := readCSV(path, func(r row) error {
		out[r["sku_lower"]] = r["manufacturer"]
		return nil
	})
	return out, err
}

func readFacts(dir string) (*table.File, error) {
	f := &table.File{Sources: []string{
		"sizes: vm-sizes.csv, mostly the Resource SKUs API of 2026-08-01; quota families from the same",
		"zones, restrictions, spot capability: region-sku-api.csv, the Resource SKUs API of 2026-08-01 as one subscription saw it",
		"on-demand prices: region-sizes.csv, Linux list prices of 2026-06-18 in USD per hour",
		"GPU driver registry: gpus.csv",
		"modelled by rule: spot prices, cache, temporary and NVMe disk sizes, ephemeral placements, trusted launch, ultra disk, RTX PRO 6000 GPU counts",
	}}
	gpus, err := readGPUs(filepath.Join(dir, "gpus.csv"))
	if err != nil {
		return nil, err
	}
	index := map[string]int{}
	if err := readCSV(filepath.Join(dir, "vm-sizes.csv"), func(r row) error {
		s, err := sizeFromFacts(r, gpus)
		if err != nil {
			return fmt.Errorf("size %s: %w", r["name"], err)
		}
		index[s.Name] = len(f.Sizes)
		f.Sizes = append(f.Sizes, s)
		return nil
	}); err != nil {
		return nil, err
	}
	prices := map[[2]string]float64{}
	if err := readCSV(filepath.Join(dir, "region-sizes.csv"), func(r row) error {
		p, err := r.float("on_demand_usd_hour")
		prices[[2]string{r["region"], r["size"]}] = p
		return err
	}); err != nil {
		return nil, err
	}
	regions := map[string]int{}
	listed := map[int]bool{}
	if err := readCSV(filepath.Join(dir, "region-sku-api.csv"), func(r row) error {
		size, ok := index[r["size"]]
		if !ok {
			return fmt.Errorf("size %s is not in vm-sizes.csv", r["size"])
		}
		at, ok := regions[r["region"]]
		if !ok {
			at = len(f.Regions)
			regions[r["region"]] = at
			f.Regions = append(f.Regions, table.Region{Name: r["region"]})
		}
		l := table.Listing{
			Size: size, Zones: strings.ReplaceAll(r["zones"], ";", ""), Spot: r["spot_eligible"] == "true",
			Restricted: strings.Contains(r["restrictions"], "NotAvailableForSubscription"),
			OnDemand:   prices[[2]string{r["region"], r["size"]}],
		}
		if l.Spot {
			l.SpotPrice = spotPrice(&f.Sizes[size], r["region"], l.OnDemand)
		}
		listed[size] = true
		f.Regions[at].Listings = append(f.Regions[at].Listings, l)
		return nil
	}); err != nil {
		return nil, err
	}
	dropUnlisted(f, listed)
	return f, nil
}

// dropUnlisted leaves out the sizes that no region lists.
func dropUnlisted(f *table.File, listed map[int]bool) {
	var kept []table.Size
	at := make([]int, len(f.Sizes))
	for i := range f.Sizes {
		if listed[i] {
			at[i] = len(kept)
			kept = append(kept, f.Sizes[i])
		}
	}
	for _, r := range f.Regions {
		for i := range r.Listings {
			r.Listings[i].Size = at[r.Listings[i].Size]
		}
	}
	f.Sizes = kept
}

func sizeFromFacts(r row, gpus map[string]string) (table.Size, error) {
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
