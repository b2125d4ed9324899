// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command gen writes the embedded catalogue of VM sizes (package catalog).
//
// Without flags it reads the inputs in gen/inputs, as go generate does in the
// directory of package catalog. With -live it reads the Azure APIs with the
// credential of the environment (az login, workload identity, …):
//
//	go run ./catalog/gen -live -subscription ID [-regions eastus,westeurope] -out catalog/catalog.tsv.gz
//
// Live data has real local disk sizes and spot prices. From the inputs, both
// follow the rules in the documentation of package catalog.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nap-aks/nap/catalog/internal/table"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "catalog/gen:", err)
		os.Exit(1)
	}
}

func run() error {
	inputs := flag.String("inputs", "gen/inputs", "directory with sizes.csv.gz, listings.csv.gz and gpus.csv.gz")
	live := flag.Bool("live", false, "read the Resource SKUs API and the Retail Prices API instead of -inputs")
	subscription := flag.String("subscription", "", "with -live: the subscription whose SKUs to list")
	regions := flag.String("regions", strings.Join(defaultRegions, ","), "with -live: the regions, comma separated")
	gpus := flag.String("gpus", "", "with -live: a gpus.csv.gz that names the GPU sizes AKS has a driver for (default: take them from the catalogue in -out)")
	out := flag.String("out", "catalog.tsv.gz", "file to write")
	flag.Parse()

	var f *table.File
	var err error
	switch {
	case *live && *subscription == "":
		return fmt.Errorf("-live needs -subscription ID: the Resource SKUs API lists sizes for one subscription")
	case *live:
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
		defer cancel()
		f, err = readLive(ctx, *subscription, strings.Split(*regions, ","), *gpus, *out)
	default:
		f, err = readInputs(*inputs)
	}
	if err != nil {
		return err
	}
	f.Sort()
	var b bytes.Buffer
	if err := table.Encode(&b, f); err != nil {
		return err
	}
	if err := os.WriteFile(*out, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the catalogue: %w", err)
	}
	listed := 0
	for _, r := range f.Regions {
		listed += len(r.Listings)
	}
	fmt.Printf("%s: %d sizes, %d regions, %d listings, %d bytes\n", *out, len(f.Sizes), len(f.Regions), listed, b.Len())
	return nil
}
