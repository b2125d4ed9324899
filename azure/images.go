// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// imageDefinition is an image of an AKS gallery, with the sizes that can boot it.
type imageDefinition struct {
	name       string // gallery image definition; the SKU in nodeImageVersions
	arch       string
	generation string // Hyper-V generation
}

// gallery holds the images of a family.
type gallery struct {
	os            string // name in nodeImageVersions, and of the gallery
	resourceGroup string
}

var (
	ubuntuGallery     = gallery{os: "AKSUbuntu", resourceGroup: "AKS-Ubuntu"}
	azureLinuxGallery = gallery{os: "AKSAzureLinux", resourceGroup: "AKS-AzureLinux"}
)

const (
	amd64, arm64 = karpv1.ArchitectureAmd64, karpv1.ArchitectureArm64

	// imageCacheTime is how long the list of versions is cached.
	imageCacheTime = 3 * 24 * time.Hour
)

// ErrNoImages is wrapped by the error if no image matches the settings of a class.
var ErrNoImages = errors.New("no node image")

// effectiveFamily resolves the image family of a class for a Kubernetes version to
// 2004, 2204, 2404, azurelinux2 or azurelinux3. The family Ubuntu follows AKS's
// default.
func effectiveFamily(nc *v1beta1.AKSNodeClass, kubernetesVersion string) string {
	minor := minorVersion(kubernetesVersion)
	switch nc.ImageFamilyOrDefault() {
	case v1beta1.ImageFamilyUbuntu2204:
		return "2204"
	case v1beta1.ImageFamilyUbuntu2404:
		return "2404"
	case v1beta1.ImageFamilyAzureLinux:
		if minor >= 32 {
			return "azurelinux3"
		}
		return "azurelinux2"
	}
	switch {
	case nc.FIPS() && !nc.TrustedLaunchOn():
		return "2004"
	case nc.FIPS(), nc.TrustedLaunchOn():
		return "2204"
	case minor >= 34:
		return "2404"
	}
	return "2204"
}

// definitionsFor returns the images of a class in order of preference.
func definitionsFor(nc *v1beta1.AKSNodeClass, kubernetesVersion string) (gallery, []imageDefinition) {
	family := effectiveFamily(nc, kubernetesVersion)
	fips, trusted := nc.FIPS(), nc.TrustedLaunchOn()
	switch family {
	case "azurelinux2", "azurelinux3":
		v := "V" + strings.TrimPrefix(family, "azurelinux")
		switch {
		case trusted:
			return azureLinuxGallery, []imageDefinition{{v + "gen2TL", amd64, "2"}}
		case fips:
			list := []imageDefinition{{v + "gen2fips", amd64, "2"}, {v + "fips", amd64, "1"}}
			if v == "V3" {
				list = append(list, imageDefinition{"V3gen2arm64fips", arm64, "2"})
			}
			return azureLinuxGallery, list
		}
		return azureLinuxGallery, []imageDefinition{{v + "gen2", amd64, "2"}, {v, amd64, "1"}, {v + "gen2arm64", arm64, "2"}}
	}
	switch {
	case fips && trusted && family == "2204":
		return ubuntuGallery, []imageDefinition{{"2204gen2fipsTLcontainerd", amd64, "2"}}
	case fips && family == "2004":
		return ubuntuGallery, []imageDefinition{{"2004gen2fipscontainerd", amd64, "2"}, {"2004fipscontainerd", amd64, "1"}}
	case fips:
		return ubuntuGallery, nil
	case trusted:
		return ubuntuGallery, []imageDefinition{{family + "gen2TLcontainerd", amd64, "2"}}
	}
	return ubuntuGallery, []imageDefinition{
		{family + "gen2containerd", amd64, "2"}, {family + "containerd", amd64, "1"}, {family + "gen2arm64containerd", arm64, "2"},
	}
}

// images reads and caches the node image versions of a region.
type images struct {
	fetch        func(context.Context) ([]imageVersion, error)
	subscription string // of the galleries
	now          func() time.Time

	mu       sync.Mutex
	versions map[string]string // os/definition → newest version
	read     time.Time
	forKey   string
}

type imageVersion struct{ os, sku, version string }

// latest resolves the images of a class to their newest versions, in order of
// preference. A new refreshKey (a Kubernetes upgrade) makes it read the versions
// again. The error wraps ErrNoImages if no image matches.
func (i *images) latest(ctx context.Context, nc *v1beta1.AKSNodeClass, kubernetesVersion, refreshKey string) ([]v1beta1.NodeImage, error) {
	versions, err := i.newest(ctx, refreshKey)
	if err != nil {
		return nil, err
	}
	g, definitions := definitionsFor(nc, kubernetesVersion)
	var out []v1beta1.NodeImage
	for _, d := range definitions {
		version, ok := versions[g.os+"/"+d.name]
		if !ok {
			continue
		}
		out = append(out, v1beta1.NodeImage{
			ID: fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Compute/galleries/%s/images/%s/versions/%s", i.subscription, g.resourceGroup, g.os, d.name, version),
			Requirements: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelArchStable, Operator: corev1.NodeSelectorOpIn, Values: []string{d.arch}},
				{Key: v1beta1.LabelSKUHyperVGeneration, Operator: corev1.NodeSelectorOpIn, Values: []string{d.generation}},
			},
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w for image family %s with FIPS %t and trusted launch %t on Kubernetes %s among %d versions of the region",
			ErrNoImages, nc.ImageFamilyOrDefault(), nc.FIPS(), nc.TrustedLaunchOn(), kubernetesVersion, len(versions))
	}
	return out, nil
}

func (i *images) newest(ctx context.Context, key string) (map[string]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.versions != nil && key == i.forKey && i.now().Sub(i.read) < imageCacheTime {
		return i.versions, nil
	}
	list, err := i.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing node image versions: %w", err)
	}
	versions := map[string]string{}
	for _, v := range list {
		if v.os != ubuntuGallery.os && v.os != azureLinuxGallery.os {
			continue
		}
		k := v.os + "/" + v.sku
		if have, ok := versions[k]; !ok || compareVersions(v.version, have) > 0 {
			versions[k] = v.version
		}
	}
	i.versions, i.read, i.forKey = versions, i.now(), key
	return versions, nil
}

// compareVersions compares dotted numbers. If one is a prefix of the other, the
// longer is newer; a part that is not a number is older.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		switch {
		case errX != nil && errY != nil:
			return 0
		case errX != nil:
			return -1
		case errY != nil:
			return 1
		case x != y:
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(as), len(bs))
}

// imageFor returns the first image that a size can boot. The Hyper-V generations of
// the size are added here: they are not requirements of the instance type, because
// Karpenter treats a type with a label that NodePools do not know as incompatible
// with all of them.
func imageFor(list []v1beta1.NodeImage, o launchOption) (string, error) {
	requirements := scheduling.NewRequirements(o.instanceType.Requirements.Values()...)
	requirements.Add(scheduling.NewRequirement(v1beta1.LabelSKUHyperVGeneration, corev1.NodeSelectorOpIn, o.sku.HyperVGenerations...))
	for _, image := range list {
		if requirements.Intersects(scheduling.NewNodeSelectorRequirements(image.Requirements...)) == nil {
			return image.ID, nil
		}
	}
	return "", fmt.Errorf("none of the class's %d images boots on size %s", len(list), o.sku.Name.Full)
}

// NodeImageVersion converts an image ID to the machine API's form
// <gallery>-<definition>-<version>.
func NodeImageVersion(imageID string) (string, error) {
	parts := strings.Split(imageID, "/")
	// /subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/G/images/D/versions/V
	if len(parts) != 13 || parts[7] != "galleries" || parts[9] != "images" || parts[11] != "versions" {
		return "", fmt.Errorf("image %q is not a version in a shared gallery", imageID)
	}
	return parts[8] + "-" + parts[10] + "-" + parts[12], nil
}

// KeepRecorded returns the images to use while the maintenance window is closed:
// the latest images, where definitions that are already recorded keep the recorded
// version.
func KeepRecorded(recorded, latest []v1beta1.NodeImage) []v1beta1.NodeImage {
	definition := func(id string) string { return id[:strings.LastIndex(id, "/")+1] }
	out := slices.Clone(latest)
	for i := range out {
		for _, r := range recorded {
			if strings.EqualFold(definition(r.ID), definition(out[i].ID)) {
				out[i].ID = r.ID
			}
		}
	}
	return out
}

// minorVersion returns 36 for "1.36.3", and 0 if the version cannot be parsed.
func minorVersion(version string) int {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return 0
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return n
}
