// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"

	"github.com/nap-aks/nap/catalog/internal/table"
)

var defaultRegions = []string{"australiaeast", "eastus", "eastus2", "japaneast", "northeurope", "southcentralus",
	"southeastasia", "swedencentral", "uksouth", "westeurope", "westus2", "westus3"}

const retailPrices = "https://prices.azure.com/api/retail/prices"

// readLive builds the catalogue from the Resource SKUs API and the Retail
// Prices API. Neither API says which GPU sizes AKS has a driver for: that comes
// from gpusCSV, or from the catalogue in oldFile, which is about to be replaced.
func readLive(ctx context.Context, subscription string, regions []string, gpusCSV, oldFile string) (*table.File, error) {
	drivers := map[string]string{}
	models := map[string]table.Size{}
	if old, err := readFile(oldFile); err == nil {
		for _, s := range old.Sizes {
			models[s.Name] = s
			if s.GPURegistered {
				drivers[strings.ToLower(s.Name)] = s.GPUMaker
			}
		}
	} else if gpusCSV == "" {
		return nil, fmt.Errorf("reading the GPU drivers from catalogue %s (set -gpus to name another source): %w", oldFile, err)
	}
	if gpusCSV != "" {
		var err error
		if drivers, err = readGPUs(gpusCSV); err != nil {
			return nil, err
		}
	}
	cred, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, fmt.Errorf("finding an Azure credential (try az login): %w", err)
	}
	client, err := armcompute.NewResourceSKUsClient(subscription, cred, nil)
	if err != nil {
		return nil, fmt.Errorf("creating the Resource SKUs client: %w", err)
	}
	today := time.Now().UTC().Format(time.DateOnly)
	f := &table.File{Sources: []string{
		"sizes, zones, restrictions, spot capability, local disks: Resource SKUs API of " + today + ", as one subscription saw it",
		"on-demand and spot prices: Retail Prices API of " + today + ", Linux, USD per hour",
		"GPU models and the driver registry: taken from the previous catalogue",
	}}
	index := map[string]int{}
	for _, region := range regions {
		region = strings.TrimSpace(region)
		onDemand, spot, err := livePrices(ctx, region)
		if err != nil {
			return nil, err
		}
		out := table.Region{Name: region}
		filter := fmt.Sprintf("location eq '%s'", region)
		pager := client.NewListPager(&armcompute.ResourceSKUsClientListOptions{Filter: &filter})
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("listing the SKUs of region %s: %w", region, err)
			}
			for _, sku := range page.Value {
				if sku.ResourceType == nil || *sku.ResourceType != "virtualMachines" || sku.Name == nil {
					continue
				}
				at, ok := index[*sku.Name]
				if !ok {
					s, err := sizeFromSKU(sku, models[*sku.Name], drivers)
					if err != nil {
						return nil, fmt.Errorf("size %s in region %s: %w", *sku.Name, region, err)
					}
					at = len(f.Sizes)
					index[s.Name] = at
					f.Sizes = append(f.Sizes, s)
				}
				out.Listings = append(out.Listings, listingFromSKU(sku, at, onDemand, spot))
			}
		}
		f.Regions = append(f.Regions, out)
	}
	return f, nil
}

func readFile(path string) (*table.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return table.Decode(file)
}

func listingFromSKU(sku *armcompute.ResourceSKU, size int, onDemand, spot map[string]float64) table.Listing {
	l := table.Listing{Size: size, OnDemand: onDemand[*sku.Name]}
	var zones []string
	for _, info := range sku.LocationInfo {
		for _, z := range info.Zones {
			zones = append(zones, *z)
		}
	}
	sort.Strings(zones)
	l.Zones = strings.Join(zones, "")
	for _, r := range sku.Restrictions {
		if r.Type != nil && *r.Type == armcompute.ResourceSKURestrictionsTypeLocation {
			l.Restricted = true
		}
	}
	if caps(sku)["LowPriorityCapable"] == "True" {
		l.Spot, l.SpotPrice = true, spot[*sku.Name]
	}
	return l
}

func caps(sku *armcompute.ResourceSKU) map[string]string {
	out := map[string]string{}
	for _, c := range sku.Capabilities {
		if c.Name != nil && c.Value != nil {
			out[*c.Name] = *c.Value
		}
	}
	return out
}

func sizeFromSKU(sku *armcompute.ResourceSKU, known table.Size, drivers map[string]string) (table.Size, error) {
	c := caps(sku)
	var bad error
	number := func(name string) int64 {
		if c[name] == "" {
			return 0
		}
		v, err := strconv.ParseFloat(c[name], 64)
		if err != nil && bad == nil {
			bad = fmt.Errorf("capability %s: %q is not a number", name, c[name])
		}
		return int64(v)
	}
	memory, err := strconv.ParseFloat(c["MemoryGB"], 64)
	if err != nil {
		return table.Size{}, fmt.Errorf("capability MemoryGB: %q is not a number", c["MemoryGB"])
	}
	short := strings.TrimPrefix(*sku.Name, "Standard_")
	s := table.Size{
		Name: *sku.Name, Family: short[:max(0, strings.IndexAny(short, "0123456789"))], Series: known.Series,
		Arch:   map[string]string{"x64": "amd64", "Arm64": "arm64"}[c["CpuArchitectureType"]],
		Parent: c["ParentSize"], VCPUs: int(number("vCPUs")), VCPUsAvail: int(number("vCPUsAvailable")), MemoryGiB: memory,
		MaxDataDisks: int(number("MaxDataDiskCount")), MaxNICs: int(number("MaxNetworkInterfaces")), NetworkMbps: known.NetworkMbps,
		UncachedIOPS: int(number("UncachedDiskIOPS")), UncachedMBps: int(number("UncachedDiskBytesPerSecond") / 1_000_000),
		GPUs: int(number("GPUs")), GPUModel: known.GPUModel, GPUMaker: known.GPUMaker, GPUMemoryGiB: known.GPUMemoryGiB,
		HyperV: c["HyperVGenerations"], Confidential: c["ConfidentialComputingType"], Placements: c["SupportedEphemeralOSDiskPlacements"],
		CachedBytes: number("CachedDiskBytes"), ResourceMiB: number("MaxResourceVolumeMB"), NVMeMiB: number("NvmeDiskSizeInMiB"),
		Lifecycle: known.Lifecycle,
	}
	if s.Arch == "" {
		s.Arch = "amd64" // older sizes lack the capability
	}
	if per := number("NvmeSizePerDiskInMiB"); per > 0 {
		s.NVMeDisks = int(s.NVMeMiB / per)
	}
	if sku.Family != nil {
		s.QuotaFamily = *sku.Family
	}
	if s.VCPUsAvail == 0 {
		s.VCPUsAvail = s.VCPUs
	}
	if maker, ok := drivers[strings.ToLower(s.Name)]; ok {
		s.GPUMaker, s.GPURegistered = maker, true
	}
	for name, flag := range map[string]table.Flags{
		"PremiumIO": table.PremiumIO, "AcceleratedNetworkingEnabled": table.AcceleratedNetworking,
		"EphemeralOSDiskSupported": table.EphemeralOSDisk, "EncryptionAtHostSupported": table.EncryptionAtHost,
		"TrustedLaunchDisabled": table.TrustedLaunchDisabled, "UltraSSDAvailable": table.UltraSSD, "RdmaEnabled": table.RDMA,
	} {
		if c[name] == "True" {
			s.Flags |= flag
		}
	}
	for _, info := range sku.LocationInfo {
		for _, d := range info.ZoneDetails {
			for _, z := range d.Capabilities {
				if z.Name != nil && *z.Name == "UltraSSDAvailable" && z.Value != nil && *z.Value == "True" {
					s.Flags |= table.UltraSSD
				}
			}
		}
	}
	return s, bad
}

// livePrices returns the on-demand and spot prices of Linux machines in a region,
// in USD per hour by size.
func livePrices(ctx context.Context, region string) (onDemand, spot map[string]float64, err error) {
	onDemand, spot = map[string]float64{}, map[string]float64{}
	q := url.Values{}
	q.Set("api-version", "2023-01-01-preview")
	q.Set("currencyCode", "USD")
	q.Set("$filter", fmt.Sprintf("serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '%s'", region))
	next := retailPrices + "?" + q.Encode()
	for next != "" {
		var page struct {
			Items []struct {
				ArmSkuName, SkuName, ProductName, MeterName string
				RetailPrice                                 float64
			}
			NextPageLink string
		}
		if err := getJSON(ctx, next, &page); err != nil {
			return nil, nil, fmt.Errorf("reading the prices of region %s: %w", region, err)
		}
		for _, i := range page.Items {
			if strings.HasSuffix(i.ProductName, " Windows") || strings.HasSuffix(i.MeterName, " Low Priority") || i.ArmSkuName == "" || i.RetailPrice <= 0 {
				continue
			}
			to := onDemand
			if strings.HasSuffix(i.SkuName, " Spot") {
				to = spot
			}
			// A size may have several meters: use the lowest price.
			if old, ok := to[i.ArmSkuName]; !ok || i.RetailPrice < old {
				to[i.ArmSkuName] = i.RetailPrice
			}
		}
		next = page.NextPageLink
	}
	if len(onDemand) == 0 {
		return nil, nil, fmt.Errorf("no prices for region %q (is it an ARM region name?)", region)
	}
	return onDemand, spot, nil
}

func getJSON(ctx context.Context, u string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", u, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
