// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	corev1 "k8s.io/api/core/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/catalog"
)

// sku returns a Resource SKU with a name, zones and capabilities.
func sku(name, zones string, capabilities ...string) *armcompute.ResourceSKU {
	r := &armcompute.ResourceSKU{
		Name: to.Ptr(name), ResourceType: to.Ptr("virtualMachines"), Family: to.Ptr("standardTestFamily"),
		LocationInfo: []*armcompute.ResourceSKULocationInfo{{Location: to.Ptr("eastus")}},
	}
	for _, z := range strings.Fields(zones) {
		r.LocationInfo[0].Zones = append(r.LocationInfo[0].Zones, to.Ptr(z))
	}
	for _, c := range capabilities {
		k, v, _ := strings.Cut(c, "=")
		r.Capabilities = append(r.Capabilities, &armcompute.ResourceSKUCapabilities{Name: to.Ptr(k), Value: to.Ptr(v)})
	}
	return r
}

func d4s() *armcompute.ResourceSKU {
	return sku("Standard_D4s_v3", "1 2 3", "vCPUs=4", "MemoryGB=16", "CpuArchitectureType=x64", "HyperVGenerations=V1,V2",
		"LowPriorityCapable=True", "AcceleratedNetworkingEnabled=True", "PremiumIO=True", "EncryptionAtHostSupported=True",
		"EphemeralOSDiskSupported=True", "CachedDiskBytes=107374182400", "MaxResourceVolumeMB=32768", "MaxDataDiskCount=8")
}

func table(t *testing.T, skus ...*armcompute.ResourceSKU) *instancetype.Table {
	t.Helper()
	table, err := instancetype.NewTable("eastus", skus)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func price(string, bool) (float64, bool) { return 0.2, true }

func settings(edit ...func(*v1beta1.AKSNodeClass)) instancetype.Settings {
	nc := &v1beta1.AKSNodeClass{}
	for _, e := range edit {
		e(nc)
	}
	return instancetype.SettingsFor(nc, instancetype.Cluster{
		NetworkPlugin: "azure", NetworkPluginMode: "overlay", NodeResourceGroup: "MC_rg_(one)_eastus",
		VMMemoryOverheadPercent: instancetype.DefaultVMMemoryOverheadPercent,
	})
}

func TestCapacityAndAllocatable(t *testing.T) {
	it := table(t, d4s()).Build(settings(), price, nil)[0]
	for name, want := range map[corev1.ResourceName]string{
		"cpu": "4", "memory": "15891378995", "ephemeral-storage": "128G", "pods": "250", "nvidia.com/gpu": "0",
	} {
		got := it.Capacity[name]
		if got.AsDec().String() != quantity(want) {
			t.Errorf("capacity %s = %s, want %s", name, got.String(), want)
		}
	}
	allocatable := it.Allocatable()
	if got := allocatable.Cpu().MilliValue(); got != 3860 {
		t.Errorf("allocatable cpu = %dm, want 3860m", got)
	}
	if got := float64(allocatable.Memory().Value()) / (1 << 20); fmt.Sprintf("%.1f", got) != "11743.2" {
		t.Errorf("allocatable memory = %.1f MiB, want 11743.2 MiB", got)
	}
	if got := it.VolumeAttachmentLimits[instancetype.DiskCSIDriver]; got != 8 {
		t.Errorf("disks = %d, want 8", got)
	}
}

func quantity(s string) string {
	if n, ok := strings.CutSuffix(s, "G"); ok {
		return n + "000000000"
	}
	return s
}

func TestKubeReserved(t *testing.T) {
	for _, c := range []struct {
		cpu, gib         int
		milliCPU, memMiB int64
	}{
		{2, 8, 100, 1843}, {4, 16, 140, 2662}, {8, 32, 180, 3645}, {16, 256, 260, 12165}, {32, 16, 420, 2662}, {64, 16, 740, 2662},
	} {
		s := sku("Standard_D4s_v3", "", fmt.Sprintf("vCPUs=%d", c.cpu), fmt.Sprintf("MemoryGB=%d", c.gib), "CpuArchitectureType=x64", "HyperVGenerations=V2")
		it := table(t, s).Build(settings(), price, nil)[0]
		if got := it.Overhead.KubeReserved.Cpu().MilliValue(); got != c.milliCPU {
			t.Errorf("%d cores: reserved %dm, want %dm", c.cpu, got, c.milliCPU)
		}
		if got := it.Overhead.KubeReserved.Memory().Value() >> 20; got != c.memMiB {
			t.Errorf("%d GiB: reserved %d MiB, want %d MiB", c.gib, got, c.memMiB)
		}
	}
}

func TestLabels(t *testing.T) {
	gpu := sku("Standard_NC24ads_A100_v4", "2", "vCPUs=24", "MemoryGB=220", "CpuArchitectureType=x64", "HyperVGenerations=V2", "GPUs=1")
	its := table(t, d4s(), gpu).Build(settings(), price, nil)
	for i, want := range []map[string]string{
		{
			corev1.LabelInstanceTypeStable: "Standard_D4s_v3", v1beta1.LabelSKUFamily: "D", v1beta1.LabelSKUSeries: "Ds_v3", v1beta1.LabelSKUVersion: "3",
			v1beta1.LabelSKUCPU: "4", v1beta1.AKSLabelSKUMemory: "16384", v1beta1.LabelSKUGPUCount: "0", v1beta1.LabelSKUGPUName: "", v1beta1.LabelSKUGPUManufacturer: "",
			v1beta1.LabelSKUStorageEphemeralOSMaxSize: "107", v1beta1.AKSLabelCluster: "MC_rg_-one-_eastus",
			corev1.LabelTopologyZone: "0,eastus-1,eastus-2,eastus-3", karpv1.CapacityTypeLabelKey: "on-demand,spot", v1beta1.LabelPlacementScope: "regional,zonal",
			v1beta1.AKSLabelMode: "system,user", v1beta1.AKSLabelOSSKU: "Ubuntu", v1beta1.AKSLabelFIPSEnabled: "",
		},
		{
			v1beta1.LabelSKUSeries: "NCads_v4", v1beta1.LabelSKUGPUName: "A100", v1beta1.LabelSKUGPUManufacturer: "nvidia", v1beta1.LabelSKUGPUCount: "1",
			corev1.LabelTopologyZone: "0,eastus-2", karpv1.CapacityTypeLabelKey: "on-demand", v1beta1.LabelSKUStorageEphemeralOSMaxSize: "",
		},
	} {
		for key, value := range want {
			r := its[i].Requirements.Get(key)
			if got := strings.Join(slices.Sorted(slices.Values(r.Values())), ","); got != value || r.Operator() == corev1.NodeSelectorOpExists {
				t.Errorf("%s: label %s = %s %q, want %q", its[i].Name, key, r.Operator(), got, value)
			}
		}
		for key := range karpv1.WellKnownLabels {
			if key == karpv1.NodePoolLabelKey {
				continue
			}
			if !its[i].Requirements.Has(key) {
				t.Errorf("%s: well-known label %s is not defined", its[i].Name, key)
			}
		}
	}
}

func TestOfferings(t *testing.T) {
	noSpot := sku("Standard_D2s_v3", "1", "vCPUs=2", "MemoryGB=8", "CpuArchitectureType=x64", "HyperVGenerations=V2")
	noSpot.Restrictions = []*armcompute.ResourceSKURestrictions{{
		Type: to.Ptr(armcompute.ResourceSKURestrictionsTypeZone), RestrictionInfo: &armcompute.ResourceSKURestrictionInfo{Zones: []*string{to.Ptr("1")}},
	}}
	its := table(t, d4s(), noSpot).Build(settings(),
		func(size string, spot bool) (float64, bool) {
			if spot {
				return 0.05, true
			}
			return 0.2, size == "Standard_D4s_v3"
		},
		func(s *instancetype.SKU, zone string, spot bool) bool { return !(zone == "2" && !spot) })
	show := func(it *cloudprovider.InstanceType) string {
		var out []string
		for _, o := range it.Offerings {
			out = append(out, fmt.Sprintf("%s/%s=%g/%t", o.Zone(), o.CapacityType(), o.Price, o.Available))
		}
		return strings.Join(out, " ")
	}
	if got, want := show(its[0]), "0/on-demand=999/true 0/spot=0.05/false"; got != want {
		t.Errorf("D2s_v3:\n got %s\nwant %s", got, want)
	}
	if got, want := show(its[1]), "eastus-1/on-demand=0.2/true eastus-1/spot=0.05/true eastus-2/on-demand=0.2/false eastus-2/spot=0.05/true eastus-3/on-demand=0.2/true eastus-3/spot=0.05/true 0/on-demand=0.2/true 0/spot=0.05/true"; got != want {
		t.Errorf("D4s_v3:\n got %s\nwant %s", got, want)
	}
	zonal := scheduling.NewRequirements(scheduling.NewRequirement(v1beta1.LabelPlacementScope, corev1.NodeSelectorOpIn, v1beta1.PlacementZonal))
	if got := len(its[1].Offerings.Available().Compatible(zonal)); got != 5 {
		t.Errorf("available zonal offerings = %d, want 5", got)
	}
}

func TestUnusableSizesAreRejected(t *testing.T) {
	restricted := d4s()
	restricted.Name = to.Ptr("Standard_D8s_v3")
	restricted.Restrictions = []*armcompute.ResourceSKURestrictions{{Type: to.Ptr(armcompute.ResourceSKURestrictionsTypeLocation), Values: []*string{to.Ptr("eastus")}}}
	basics := []string{"vCPUs=4", "MemoryGB=16", "CpuArchitectureType=x64", "HyperVGenerations=V2"}
	skus := []*armcompute.ResourceSKU{
		restricted,
		sku("Standard_B1s", "", basics...),
		sku("Standard_DC4s_v3", "", basics...),
		sku("Standard_M8-2ms", "", basics...),
		sku("Standard_D1_v2", "", "vCPUs=1", "MemoryGB=3.5", "CpuArchitectureType=x64"),
		sku("Standard_F2", "", "vCPUs=2", "MemoryGB=3", "CpuArchitectureType=x64"),
		sku("Standard_NV6s_v2", "", append(basics, "GPUs=1")...),
		sku("Standard_D4s_v9", "", "vCPUs=4", "MemoryGB=16"),
		sku("D4s", "", basics...),
	}
	got := table(t, append(skus, d4s())...)
	if len(got.SKUs) != 1 || len(got.Rejected) != len(skus) {
		t.Errorf("kept %d sizes and rejected %v, want only Standard_D4s_v3", len(got.SKUs), got.Rejected)
	}
	if _, err := instancetype.NewTable("eastus", skus); err == nil {
		t.Error("no error for a region without usable sizes")
	}
}

func TestNodeClassSettingsExcludeSizes(t *testing.T) {
	arm := sku("Standard_D4ps_v5", "", "vCPUs=4", "MemoryGB=16", "CpuArchitectureType=Arm64", "HyperVGenerations=V2")
	gen1 := sku("Standard_D4_v2", "", "vCPUs=4", "MemoryGB=16", "CpuArchitectureType=x64", "HyperVGenerations=V1")
	small := sku("Standard_D2s_v3", "", "vCPUs=2", "MemoryGB=8", "CpuArchitectureType=x64", "HyperVGenerations=V2", "TrustedLaunchDisabled=True")
	amd := sku("Standard_ND96isr_MI300X_v5", "", "vCPUs=96", "MemoryGB=1850", "CpuArchitectureType=x64", "HyperVGenerations=V2", "GPUs=8")
	tab := table(t, d4s(), arm, gen1, small, amd)
	for _, c := range []struct {
		name string
		edit func(*v1beta1.AKSNodeClass)
		want string
	}{
		{"default: no AMD GPU, as AKS installs no driver", func(*v1beta1.AKSNodeClass) {}, "D2s_v3 D4_v2 D4ps_v5 D4s_v3"},
		{"gpu mode None", func(n *v1beta1.AKSNodeClass) { n.Spec.GPU = &v1beta1.GPU{Mode: to.Ptr("None")} }, "D2s_v3 D4_v2 D4ps_v5 D4s_v3 ND96isr_MI300X_v5"},
		{"encryption at host", func(n *v1beta1.AKSNodeClass) {
			n.Spec.Security = &v1beta1.Security{EncryptionAtHost: to.Ptr(true)}
		}, "D4s_v3"},
		{"trusted launch", func(n *v1beta1.AKSNodeClass) {
			n.Spec.Security = &v1beta1.Security{TrustedLaunch: &v1beta1.TrustedLaunch{VTPM: to.Ptr(true)}}
		}, "D4s_v3"},
		{"artifact streaming", func(n *v1beta1.AKSNodeClass) {
			n.Spec.ArtifactStreaming = &v1beta1.ArtifactStreaming{Enabled: to.Ptr(true)}
		}, "D2s_v3 D4_v2 D4s_v3"},
		{"local DNS", func(n *v1beta1.AKSNodeClass) { n.Status.LocalDNSState = to.Ptr("Enabled") }, "D4_v2 D4ps_v5 D4s_v3"},
	} {
		var got []string
		for _, it := range tab.Build(settings(c.edit), price, nil) {
			got = append(got, strings.TrimPrefix(it.Name, "Standard_"))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

func TestEphemeralOSDisk(t *testing.T) {
	for _, c := range []struct {
		name         string
		capabilities []string
		gb           int64
		placement    instancetype.DiskPlacement
	}{
		{"D128ds_v6", []string{"NvmeDiskSizeInMiB=7208960", "SupportedEphemeralOSDiskPlacements=NvmeDisk"}, 7559, instancetype.PlacementNVMe},
		{"B20ms", []string{"CachedDiskBytes=32212254720", "MaxResourceVolumeMB=163840"}, 32, instancetype.PlacementCache},
		{"resource disk", []string{"MaxResourceVolumeMB=163840"}, 171, instancetype.PlacementResource},
		{"none", nil, 0, instancetype.PlacementNone},
	} {
		s := table(t, sku("Standard_D4s_v3", "", append(c.capabilities, "vCPUs=4", "MemoryGB=16", "CpuArchitectureType=x64", "EphemeralOSDiskSupported=True")...)).SKU("Standard_D4s_v3")
		if s.EphemeralOSDiskGB != c.gb || s.EphemeralPlacement != c.placement {
			t.Errorf("%s: %d GB on %q, want %d GB on %q", c.name, s.EphemeralOSDiskGB, s.EphemeralPlacement, c.gb, c.placement)
		}
	}
}

func TestParseName(t *testing.T) {
	for full, want := range map[string]string{
		"Standard_D4s_v3":                      "D Ds_v3 3 - false",
		"Standard_M416s_8_v2":                  "M Ms_v2 2 - false",
		"Standard_M8-2ms":                      "M Mms  - true",
		"Standard_NC24ads_A100_v4":             "N NCads_v4 4 A100 false",
		"Standard_NC144ds_xl_RTXPRO6000BSE_v6": "N NCds_v6 6 RTXPRO6000BSE false",
		"Standard_ND96isr_MI300X_v5":           "N NDisr_v5 5 MI300X false",
		"Standard_ND128isr_NDR_GB200_v6":       "N NDisr_v6 6 GB200 false",
		"Standard_NC6_Promo":                   "N NC  - false",
		"Standard_D4s_v12":                     "D Ds_v12 12 - false",
		"Standard_E96as_cc_v5":                 "E Eas_v5 5 - false",
	} {
		n, err := instancetype.ParseName(full)
		acc := n.Accelerator
		if acc == "" {
			acc = "-"
		}
		if got := fmt.Sprintf("%s %s %s %s %t", n.Family, n.Series(), n.Version, acc, n.Constrained); err != nil || got != want {
			t.Errorf("%s: got %q (%v), want %q", full, got, err, want)
		}
	}
	if _, err := instancetype.ParseName("Standard_D4s_v3_what?"); err == nil {
		t.Error("no error for an unknown part")
	}
}

func TestCatalogueSizesAreUsable(t *testing.T) {
	for _, region := range catalog.Regions() {
		table, err := instancetype.NewTable(region, catalog.SKUs(region))
		if err != nil {
			t.Fatal(err)
		}
		its := table.Build(settings(), price, nil)
		if len(its) < 100 {
			t.Errorf("%s: only %d sizes", region, len(its))
		}
		for _, it := range its {
			left := it.Allocatable()
			if left.Cpu().MilliValue() < 1000 || left.Memory().Value() < 512<<20 {
				t.Errorf("%s %s has %s allocatable cpu and %s memory", region, it.Name, left.Cpu(), left.Memory())
			}
			if len(table.SKU(it.Name).HyperVGenerations) == 0 {
				t.Errorf("%s %s boots no image: it has no Hyper-V generation", region, it.Name)
			}
			for key := range it.Requirements {
				if !karpv1.WellKnownLabels.Has(key) {
					t.Errorf("%s %s has the label %s, which is not well known: Karpenter treats it as incompatible with every NodePool", region, it.Name, key)
				}
			}
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	table, err := instancetype.NewTable("eastus", catalog.SKUs("eastus"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		table.Build(settings(), price, nil)
	}
}
