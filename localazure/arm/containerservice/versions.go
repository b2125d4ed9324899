// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"slices"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// DefaultVersions are the Kubernetes versions that clusters can have: those of the
// minor versions that AKS supports.
var DefaultVersions = []string{"1.35.5", "1.35.6", "1.36.2", "1.36.3", "1.37.1", "1.37.2"}

// imageVersions are the versions of the node images, oldest first.
var imageVersions = []string{"202610.13.0", "202611.03.0"}

// image is a node image.
type image struct{ os, sku string }

// images are AKS's node images.
var images = func() []image {
	var out []image
	for _, s := range []string{"2204containerd", "2204gen2TLcontainerd", "2204gen2arm64containerd", "2204gen2containerd", "2204gen2fipsTLcontainerd",
		"2004fipscontainerd", "2004gen2fipscontainerd", "2404containerd", "2404gen2TLcontainerd", "2404gen2arm64containerd", "2404gen2containerd"} {
		out = append(out, image{"AKSUbuntu", s})
	}
	for _, v := range []string{"V2", "V3"} {
		for _, s := range []string{"", "gen2", "gen2TL", "gen2arm64", "gen2fips", "fips"} {
			out = append(out, image{"AKSAzureLinux", v + s})
		}
	}
	return append(out, image{"AKSAzureLinux", "V3gen2arm64fips"})
}()

func latestImage() string { return imageVersions[len(imageVersions)-1] }

// poolImage returns the latest node image version for an OS SKU and architecture.
func poolImage(osSKU, arch string) string {
	def := "AKSUbuntu-2404gen2containerd"
	switch {
	case strings.HasPrefix(strings.ToLower(osSKU), "azurelinux"):
		def = "AKSAzureLinux-V3gen2"
		if arch == "arm64" {
			def += "arm64"
		}
	case strings.EqualFold(osSKU, "Ubuntu2204"):
		def = "AKSUbuntu-2204gen2containerd"
	case arch == "arm64":
		def = "AKSUbuntu-2404gen2arm64containerd"
	}
	return def + "-" + latestImage()
}

// parts returns the numbers of a version, three or, for a minor version, two; false
// if it is invalid.
func parts(v string) ([]int, bool) {
	var out []int
	for _, p := range strings.Split(v, ".") {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return nil, false
		}
		out = append(out, n)
	}
	return out, len(out) == 2 || len(out) == 3
}

// compareVersions returns <0, 0 or >0 if a is older than, the same as or newer
// than b.
func compareVersions(a, b string) int {
	x, _ := parts(a)
	y, _ := parts(b)
	for i := 0; i < len(x) && i < len(y); i++ {
		if x[i] != y[i] {
			return x[i] - y[i]
		}
	}
	return len(x) - len(y)
}

func minor(v string) string {
	x := strings.SplitN(v, ".", 3)
	if len(x) < 2 {
		return v
	}
	return x[0] + "." + x[1]
}

// versions are the Kubernetes versions that clusters can have, oldest first.
type versions []string

func newVersions(list []string) versions {
	v := append(versions(nil), list...)
	slices.SortFunc(v, compareVersions)
	return v
}

// preselected returns the version of a cluster that asks for none: as on AKS, the
// newest patch of the minor version before the newest one.
func (v versions) preselected() string {
	newest := v[len(v)-1]
	for i := len(v) - 1; i >= 0; i-- {
		if minor(v[i]) != minor(newest) {
			return v[i]
		}
	}
	return newest
}

// resolve returns the full version for what a client asks for: the default for
// nothing, the newest patch for a minor version.
func (v versions) resolve(asked, location string) (string, error) {
	if asked == "" {
		return v.preselected(), nil
	}
	p, ok := parts(strings.TrimPrefix(asked, "v"))
	best := ""
	if ok {
		for _, x := range v {
			if x == asked || len(p) == 2 && minor(x) == asked {
				best = x
			}
		}
	}
	if best == "" {
		return "", rp.BadRequest("K8sVersionNotSupported", "Managed cluster version %s is not supported in this region. Please use [az aks get-versions] command to get the supported version list in this region. Versions in %s: %s.", asked, location, strings.Join(v, ", ")).At("properties.kubernetesVersion")
	}
	return best, nil
}

// upgrades returns the versions that a cluster can be upgraded to: newer patches
// and the next minor version.
func (v versions) upgrades(from string) []string {
	var out []string
	f, _ := parts(from)
	for _, x := range v {
		p, _ := parts(x)
		if len(f) == 3 && len(p) == 3 && compareVersions(x, from) > 0 && p[0] == f[0] && p[1] <= f[1]+1 {
			out = append(out, x)
		}
	}
	return out
}

// prepareVersion sets a cluster's Kubernetes version, or upgrades it.
func (p *Provider) prepareVersion(c *rp.Change) error {
	d := c.Doc
	asked, loc := d.Str("properties", "kubernetesVersion"), d.Str("location")
	if c.Old == nil {
		full, err := p.versions.resolve(asked, loc)
		if err != nil {
			return err
		}
		if asked == "" {
			asked = minor(full)
		}
		d.Set(asked, "properties", "kubernetesVersion")
		d.Set(full, "properties", "currentKubernetesVersion")
		return nil
	}
	was := c.Old.Doc.Str("properties", "currentKubernetesVersion")
	d.Set(was, "properties", "currentKubernetesVersion")
	if asked == "" {
		d.Set(c.Old.Doc.Str("properties", "kubernetesVersion"), "properties", "kubernetesVersion")
		return nil
	}
	if asked == was || asked == minor(was) || asked == c.Old.Doc.Str("properties", "kubernetesVersion") {
		return nil
	}
	full, err := p.versions.resolve(asked, loc)
	if err != nil {
		return err
	}
	if compareVersions(full, was) < 0 {
		return rp.BadRequest("OperationNotAllowed", "Downgrading Kubernetes from version %s to %s is not allowed. Available upgrades: %s.", was, full, strings.Join(p.versions.upgrades(was), ", ")).At("properties.kubernetesVersion")
	}
	if full != was && !slices.Contains(p.versions.upgrades(was), full) {
		return rp.BadRequest("OperationNotAllowed", "Upgrading Kubernetes version %s to %s is not allowed. Available upgrades: %s. Minor versions cannot be skipped. Please see https://aka.ms/aks-supported-k8s-ver for version details.", was, full, strings.Join(p.versions.upgrades(was), ", ")).At("properties.kubernetesVersion")
	}
	d.Set(full, "properties", "currentKubernetesVersion")
	return nil
}
