// Command gen writes the embedded size catalogue (package catalog).
//
// It reads either a directory of facts:
//
//	go run ./catalog/gen -facts DIR
//
// with vm-sizes.csv (one row per size), region-sku-api.csv (which region lists
// which size, zones, restrictions, spot), region-sizes.csv (on-demand prices)
// and gpus.csv (GPU sizes that AKS has a driver for); or the live Azure APIs,
// with the credential of the environment (az login, workload identity, …):
//
//	go run ./catalog/gen -live -subscription ID [-regions eastus,westeurope]
//
// Live data has real local disk sizes and spot prices; from facts both follow
// the rules in the documentation of package catalog.
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
	facts := flag.String("facts", "", "directory with vm-sizes.csv, region-sku-api.csv, region-sizes.csv and gpus.csv")
	live := flag.Bool("live", false, "read the Resource SKUs API and the Retail Prices API instead of facts")
	subscription := flag.String("subscription", "", "with -live: the subscription whose SKUs to list")
	regions := flag.String("regions", strings.Join(defaultRegions, ","), "with -live: the regions, comma separated")
	gpus := flag.String("gpus", "", "with -live: a gpus.csv that names the GPU sizes AKS has a driver for (default: those of the catalogue that is replaced)")
	out := flag.String("out", "catalog/catalog.tsv.gz", "file to write")
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
	case *facts != "":
		f, err = readFacts(*facts)
	default:
		return fmt.Errorf("say where to read from: -facts DIR, or -live -subscription ID")
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
