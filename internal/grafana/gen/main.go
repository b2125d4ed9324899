// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Command gen writes Grafana's dashboards and Prometheus' rules into the chart given as
// its argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/nap-aks/nap/internal/grafana"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(chart string) error {
	boards, err := grafana.Dashboards()
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	for name, b := range boards {
		files[filepath.Join("dashboards", name)] = b
	}
	if files[filepath.Join("rules", "nap.yaml")], err = grafana.Rules(); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(chart, name), b, 0o644); err != nil { //nolint:gosec // files of the repository
			return fmt.Errorf("writing the chart: %w", err)
		}
	}
	return nil
}
