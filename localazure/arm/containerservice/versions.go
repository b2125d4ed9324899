package containerservice

import (
	"sort"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// DefaultVersions are the Kubernetes versions that clusters can have, where
// Options name none.
var DefaultVersions = []string{"1.34.9", "1.35.5", "1.35.6", "1.36.2", "1.36.3"}

// imageVersions are the versions of every node image, oldest first.
var imageVersions = []string{"202610.13.0", "202611.03.0"}

// image is a node image definition of a gallery.
type image struct{ os, sku string }

// images are the node images that AKS has.
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

// poolImage is the node image version of a pool with the given OS SKU and
// architecture.
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

// parts gives the numbers of a version; false if it is none. A minor version
// alone has two.
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

// compareVersions is <0, 0 or >0 as a is older than, the same as or newer than b.
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

// versions are the Kubernetes versions of this Azure, oldest first.
type versions []string

func newVersions(list []string) versions {
	v := append(versions(nil), list...)
	sort.Slice(v, func(i, j int) bool { return compareVersions(v[i], v[j]) < 0 })
	return v
}

func (v versions) latest() string { return v[len(v)-1] }

// resolve gives the full version that a client's stands for: nothing means the
// default, a minor version its latest patch.
func (v versions) resolve(asked, location string) (string, error) {
	if asked == "" {
		return v.latest(), nil
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

// upgrades are the versions that a cluster of the given one can go to: newer
// patches and those of the next minor version.
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
	allowed := false
	for _, u := range p.versions.upgrades(was) {
		allowed = allowed || u == full
	}
	if !allowed && full != was {
		return rp.BadRequest("OperationNotAllowed", "Upgrading Kubernetes version %s to %s is not allowed. Available upgrades: %s. Minor versions cannot be skipped. Please see https://aka.ms/aks-supported-k8s-ver for version details.", was, full, strings.Join(p.versions.upgrades(was), ", ")).At("properties.kubernetesVersion")
	}
	d.Set(full, "properties", "currentKubernetesVersion")
	return nil
}
