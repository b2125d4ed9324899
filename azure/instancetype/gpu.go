// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype

import (
	_ "embed"
	"strings"
)

//go:embed gpus.csv
var gpuCSV string

const (
	manufacturerNVIDIA = "nvidia"
	manufacturerAMD    = "amd"
)

// gpuSize describes the support of AKS for a size with GPUs.
type gpuSize struct {
	manufacturer string
	ubuntu       bool // Ubuntu images have a driver
	azureLinux   bool // AzureLinux images have a driver
	driver       bool // AKS installs the driver
}

// gpuSizes is keyed by the lower-case size name without _promo.
var gpuSizes = func() map[string]gpuSize {
	out := map[string]gpuSize{}
	for _, line := range strings.Split(strings.TrimSpace(gpuCSV), "\n")[1:] {
		f := strings.Split(line, ",")
		out[f[0]] = gpuSize{manufacturer: f[1], ubuntu: f[2] == "1", azureLinux: f[3] == "1", driver: f[4] == "1"}
	}
	return out
}()

// GPUManufacturer returns nvidia or amd for a size whose GPUs AKS supports, else "".
func GPUManufacturer(size string) string { return gpuFor(size).manufacturer }

func gpuFor(size string) gpuSize {
	return gpuSizes[strings.TrimSuffix(strings.ToLower(size), "_promo")]
}
