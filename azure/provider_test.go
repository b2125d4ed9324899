// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/node/health"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure/instancetype"
)

// readyClass returns a class with the status that its controller sets.
func readyClass() *v1beta1.AKSNodeClass {
	nc := &v1beta1.AKSNodeClass{ObjectMeta: metav1.ObjectMeta{Name: "default", Generation: 1}}
	nc.Status.KubernetesVersion = to.Ptr("1.36.3")
	image := func(definition, arch, generation string) v1beta1.NodeImage {
		return v1beta1.NodeImage{ID: "/subscriptions/s/resourceGroups/AKS-Ubuntu/providers/Microsoft.Compute/galleries/AKSUbuntu/images/" + definition + "/versions/202611.2.0",
			Requirements: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelArchStable, Operator: corev1.NodeSelectorOpIn, Values: []string{arch}},
				{Key: v1beta1.LabelSKUHyperVGeneration, Operator: corev1.NodeSelectorOpIn, Values: []string{generation}},
			}}
	}
	nc.Status.Images = []v1beta1.NodeImage{image("2404gen2containerd", "amd64", "2"), image("2404containerd", "amd64", "1"), image("2404gen2arm64containerd", "arm64", "2")}
	for _, c := range []string{v1beta1.ConditionImagesReady, v1beta1.ConditionKubernetesVersionReady, v1beta1.ConditionLocalDNSReady, v1beta1.ConditionSubnetsReady, v1beta1.ConditionValidationSucceeded} {
		nc.StatusConditions().SetTrue(c)
	}
	return nc
}

func requirement(key string, values ...string) karpv1.NodeSelectorRequirementWithMinValues {
	return karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
}

func newClaim(name string, requirements ...karpv1.NodeSelectorRequirementWithMinValues) *karpv1.NodeClaim {
	return &karpv1.NodeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{karpv1.NodePoolLabelKey: "default", "team": "shop"}},
		Spec: karpv1.NodeClaimSpec{
			NodeClassRef: &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"},
			Requirements: append([]karpv1.NodeSelectorRequirementWithMinValues{requirement(karpv1.CapacityTypeLabelKey, karpv1.CapacityTypeOnDemand)}, requirements...),
			Resources:    karpv1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourcePods: resource.MustParse("3")}},
		},
	}
}

func setUp(t *testing.T, objects ...client.Object) (*fakeARM, *Provider) {
	t.Helper()
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	f := newFakeARM(t)
	kube := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).WithStatusSubresource(&v1beta1.AKSNodeClass{}).Build()
	for _, o := range objects {
		if nc, ok := o.(*v1beta1.AKSNodeClass); ok {
			stored := nc.DeepCopy()
			stored.ResourceVersion = ""
			fresh := &v1beta1.AKSNodeClass{}
			if err := kube.Get(t.Context(), client.ObjectKeyFromObject(nc), fresh); err != nil {
				t.Fatal(err)
			}
			fresh.Status = nc.Status
			if err := kube.Status().Update(t.Context(), fresh); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := New(t.Context(), f.config(), kube)
	if err != nil {
		t.Fatal(err)
	}
	p.tracker.interval = time.Millisecond
	return f, p
}

func TestCreateLaunchesCheapestOffering(t *testing.T) {
	f, p := setUp(t, readyClass())
	claim := newClaim("default-abcde", requirement(corev1.LabelArchStable, "amd64"), requirement(v1beta1.LabelSKUFamily, "D"), requirement(corev1.LabelTopologyZone, "eastus-2"))
	claim.Spec.Taints = []corev1.Taint{{Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule}}
	claim.Spec.StartupTaints = []corev1.Taint{{Key: "starting", Effect: corev1.TaintEffectNoExecute}}
	got, err := p.Create(t.Context(), claim)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		corev1.LabelInstanceTypeStable: "", corev1.LabelTopologyZone: "eastus-2", karpv1.CapacityTypeLabelKey: "on-demand",
		v1beta1.LabelSKUFamily: "D", v1beta1.LabelPlacementScope: "zonal", v1beta1.AKSLabelPriority: "regular", karpv1.NodePoolLabelKey: "default",
	} {
		if key == corev1.LabelInstanceTypeStable {
			if got.Labels[key] != cheapest(t, p, "eastus-2") {
				t.Errorf("size = %s, want the cheapest, %s", got.Labels[key], cheapest(t, p, "eastus-2"))
			}
			continue
		}
		if got.Labels[key] != want {
			t.Errorf("label %s = %q, want %q", key, got.Labels[key], want)
		}
	}
	if want := "azure:///subscriptions/" + testSubscription + "/resourceGroups/mc_rg_napcluster_eastus/providers/Microsoft.Compute/virtualMachines/aks-aksmanagedap-default-abcde-12345678-vm"; got.Status.ProviderID != want {
		t.Errorf("provider ID = %s, want %s", got.Status.ProviderID, want)
	}
	if got.Status.ImageID != "AKSUbuntu-2404gen2containerd-202611.2.0" {
		t.Errorf("image = %s", got.Status.ImageID)
	}
	if got.Annotations[v1beta1.AnnotationMachineResourceID] == "" || got.Annotations[v1beta1.AnnotationNodeClassHash] == "" || got.Annotations[v1beta1.AnnotationInPlaceUpdateHash] == "" {
		t.Errorf("annotations = %v", got.Annotations)
	}
	if _, ok := got.Status.Allocatable["nvidia.com/gpu"]; ok || got.Status.Allocatable.Cpu().IsZero() {
		t.Errorf("allocatable = %v, want cpu and no zero-valued resource", got.Status.Allocatable)
	}

	body := f.bodies[0].Properties
	if f.headers[0].Get("AllowSpotVMSystemNode") != "true" {
		t.Error("header AllowSpotVMSystemNode is missing")
	}
	var taints []string
	for _, s := range body.Kubernetes.NodeInitializationTaints {
		taints = append(taints, *s)
	}
	if want := []string{"a=b:NoSchedule", "starting:NoExecute", "karpenter.sh/unregistered:NoExecute"}; !slices.Equal(taints, want) {
		t.Errorf("initialization taints = %v, want %v", taints, want)
	}
	labels := body.Kubernetes.NodeLabels
	for _, key := range []string{"team", karpv1.NodeDoNotSyncTaintsLabelKey, karpv1.NodePoolLabelKey, karpv1.CapacityTypeLabelKey, v1beta1.LabelSKUFamily, v1beta1.LabelPlacementScope, v1beta1.LabelSKUStorageUltraSSD} {
		if labels[key] == nil {
			t.Errorf("node label %s is missing in the request: %v", key, labels)
		}
	}
	for key := range labels {
		if strings.HasPrefix(key, "kubernetes.azure.com/") || strings.Contains(key, "kubernetes.io/") || key == v1beta1.LabelSKUHyperVGeneration {
			t.Errorf("node label %s must not be in the request", key)
		}
	}
	if *body.OperatingSystem.OSSKU != armcontainerservice.OSSKUUbuntu2404 || *body.Kubernetes.OrchestratorVersion != "1.36.3" || *body.Mode != armcontainerservice.AgentPoolModeUser {
		t.Errorf("os %s, kubernetes %s, mode %s", *body.OperatingSystem.OSSKU, *body.Kubernetes.OrchestratorVersion, *body.Mode)
	}
	if *body.Tags[tagNodeClaim] != "default-abcde" || *body.Tags[tagNodePool] != "default" || *body.Tags[tagCluster] != "napcluster" {
		t.Errorf("tags = %v", body.Tags)
	}
}

// cheapest returns the cheapest on-demand size of family D in a zone, found by
// comparing all offerings.
func cheapest(t *testing.T, p *Provider, zone string) string {
	t.Helper()
	its, err := p.GetInstanceTypes(t.Context(), &karpv1.NodePool{Spec: karpv1.NodePoolSpec{Template: karpv1.NodeClaimTemplate{Spec: karpv1.NodeClaimTemplateSpec{NodeClassRef: &karpv1.NodeClassReference{Name: "default"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	best, name := 1e9, ""
	for _, it := range its {
		for _, o := range it.Offerings {
			if it.Requirements.Get(v1beta1.LabelSKUFamily).Has("D") && it.Requirements.Get(corev1.LabelArchStable).Has("amd64") && o.Zone() == zone && o.CapacityType() == "on-demand" && o.Available && o.Price < best {
				best, name = o.Price, it.Name
			}
		}
	}
	return name
}

// where returns the size and zone of a machine as "D2s_v5/1".
func where(m *armcontainerservice.Machine) string {
	zone := "0"
	if len(m.Zones) > 0 {
		zone = *m.Zones[0]
	}
	return strings.TrimPrefix(*m.Properties.Hardware.VMSize, "Standard_") + "/" + zone
}

func TestStockOutTriesNextOfferingInSameCreate(t *testing.T) {
	f, p := setUp(t, readyClass())
	first := ""
	f.failure = func(m *armcontainerservice.Machine) (string, string) {
		if first == "" {
			first = where(m)
		}
		if where(m) == first {
			return "ZonalAllocationFailed", "no capacity here"
		}
		return "", ""
	}
	got, err := p.Create(t.Context(), newClaim("a-1", requirement(v1beta1.LabelPlacementScope, "zonal")))
	if err != nil {
		t.Fatal(err)
	}
	if f.count("PUT") != 2 || len(f.machines) != 1 {
		t.Errorf("%d PUTs and %d machines, want 2 and 1", f.count("PUT"), len(f.machines))
	}
	size, zone, _ := strings.Cut(first, "/")
	if got.Labels[corev1.LabelInstanceTypeStable] != "Standard_"+size || got.Labels[corev1.LabelTopologyZone] == "eastus-"+zone {
		t.Errorf("launched %s in %s; want the same size in another zone than %s", got.Labels[corev1.LabelInstanceTypeStable], got.Labels[corev1.LabelTopologyZone], zone)
	}
	// Later launches skip the failed offering and need one PUT each.
	f.failure = func(m *armcontainerservice.Machine) (string, string) {
		if where(m) == first {
			t.Error("requested an unavailable offering again")
		}
		return "", ""
	}
	for i := range 6 {
		if _, err := p.Create(t.Context(), newClaim(fmt.Sprint("b-", i), requirement(v1beta1.LabelPlacementScope, "zonal"))); err != nil {
			t.Fatal(err)
		}
	}
	if f.count("PUT") != 8 {
		t.Errorf("%d PUTs, want 8", f.count("PUT"))
	}
}

func TestNoOfferingLeftIsInsufficientCapacity(t *testing.T) {
	f, p := setUp(t, readyClass())
	f.putError = func(*armcontainerservice.Machine) (int, string, string) {
		return 400, "VMSizeNotSupported", "not in this subscription"
	}
	_, err := p.Create(t.Context(), newClaim("a", requirement(corev1.LabelInstanceTypeStable, "Standard_D2s_v5", "Standard_D4s_v5")))
	if !cloudprovider.IsInsufficientCapacityError(err) {
		t.Fatalf("got %v, want an InsufficientCapacityError", err)
	}
	// A rejected size marks every zone of both sizes (the larger one by family).
	if n := f.count("PUT"); n != 1 {
		t.Errorf("%d PUTs, want 1: the smaller size makes the larger one of its family unavailable", n)
	}
	if len(f.machines) != 0 {
		t.Errorf("%d machines left", len(f.machines))
	}
}

func TestOtherErrorsAreRetriedAndDeleteTheMachine(t *testing.T) {
	f, p := setUp(t, readyClass())
	f.failure = func(*armcontainerservice.Machine) (string, string) {
		return "InternalOperationError", "something broke"
	}
	_, err := p.Create(t.Context(), newClaim("a"))
	var create *cloudprovider.CreateError
	if !asCreateError(err, &create) || create.ConditionReason != reasonCreateFailed || cloudprovider.IsInsufficientCapacityError(err) {
		t.Fatalf("got %v, want a CreateError with reason %s", err, reasonCreateFailed)
	}
	if len(f.machines) != 0 {
		t.Error("the failed machine was not deleted")
	}
}

func TestCreateAdoptsInFlightMachineAfterRestart(t *testing.T) {
	f, p := setUp(t, readyClass())
	f.slow = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := p.Create(ctx, newClaim("a")); err == nil {
		t.Fatal("the launch succeeded, want it interrupted")
	}
	f.mu.Lock()
	f.slow = 0
	f.mu.Unlock()
	again, err := New(t.Context(), f.config(), p.kube)
	if err != nil {
		t.Fatal(err)
	}
	again.tracker.interval = time.Millisecond
	got, err := again.Create(t.Context(), newClaim("a"))
	if err != nil {
		t.Fatal(err)
	}
	if f.count("PUT") != 1 || got.Status.ProviderID == "" {
		t.Errorf("%d PUTs, provider ID %q: want the existing machine", f.count("PUT"), got.Status.ProviderID)
	}
}

func TestCreateRequiresReadyNodeClass(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*v1beta1.AKSNodeClass)
		check func(error) bool
	}{
		"not ready": {func(nc *v1beta1.AKSNodeClass) {
			nc.StatusConditions().SetFalse(v1beta1.ConditionSubnetsReady, "SubnetNotFound", "x")
		}, cloudprovider.IsNodeClassNotReadyError},
		"unknown": {func(nc *v1beta1.AKSNodeClass) { nc.Status.Conditions = nil }, func(err error) bool {
			var c *cloudprovider.CreateError
			return asCreateError(err, &c) && c.ConditionReason == reasonClassUnknown
		}},
		"missing": {func(nc *v1beta1.AKSNodeClass) { nc.Name = "other" }, cloudprovider.IsInsufficientCapacityError},
	} {
		nc := readyClass()
		c.edit(nc)
		f, p := setUp(t, nc)
		if _, err := p.Create(t.Context(), newClaim("a")); !c.check(err) {
			t.Errorf("%s: got %v", name, err)
		}
		if f.count("PUT") != 0 {
			t.Errorf("%s: a machine was requested", name)
		}
	}
}

func TestQuotaCountsInFlightMachines(t *testing.T) {
	f, p := setUp(t, readyClass())
	family := p.skus.table().SKU("Standard_D2s_v5").QuotaFamily
	f.usages = []usageRow{{family, 4, 10}}
	if err := p.RefreshQuota(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 5)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = p.Create(t.Context(), newClaim(fmt.Sprint("c-", i), requirement(corev1.LabelInstanceTypeStable, "Standard_D2s_v5")))
		})
	}
	wg.Wait()
	launched := 0
	for _, err := range errs {
		switch {
		case err == nil:
			launched++
		case !cloudprovider.IsInsufficientCapacityError(err):
			t.Errorf("got %v, want an InsufficientCapacityError", err)
		}
	}
	if launched != 3 || f.count("PUT") != 3 {
		t.Errorf("%d machines of 2 vCPUs launched with %d PUTs; 6 vCPUs were left, so 3", launched, f.count("PUT"))
	}
	// Azure reports usage late; until then the machines stay counted. The new report
	// has two machines less, so that one more fits.
	f.usages = []usageRow{{family, 6, 10}}
	time.Sleep(2 * time.Millisecond)
	if err := p.RefreshQuota(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(t.Context(), newClaim("d", requirement(corev1.LabelInstanceTypeStable, "Standard_D2s_v5"))); err != nil {
		t.Errorf("after usages went down: %v", err)
	}
}

func TestQuotasIncludeSizesAndInFlightMachines(t *testing.T) {
	f, p := setUp(t, readyClass())
	family := p.skus.table().SKU("Standard_D2s_v5").QuotaFamily
	f.usages = []usageRow{{family, 4, 10}, {"cores", 20, 100}, {"lowPriorityCores", 0, 3}, {"PublicIPAddresses", 1, 2}}
	if err := p.RefreshQuota(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(t.Context(), newClaim("c", requirement(corev1.LabelInstanceTypeStable, "Standard_D2s_v5"))); err != nil {
		t.Fatal(err)
	}
	got := map[string]instancetype.Quota{}
	for _, q := range p.Quotas() {
		got[q.Name] = q
	}
	if len(got) != 3 {
		t.Fatalf("quotas %v, want the family's, the region's and spot's", slices.Sorted(maps.Keys(got)))
	}
	// The machine was confirmed after the usages were read.
	if q := got[family]; q.Used != 6 || q.Limit != 10 || q.Spot || q.VCPUs["Standard_D2s_v5"] != 2 || q.VCPUs["Standard_E2s_v5"] != 0 {
		t.Errorf("family quota: %d of %d used, spot %v, D2s counts %d and E2s %d", q.Used, q.Limit, q.Spot, q.VCPUs["Standard_D2s_v5"], q.VCPUs["Standard_E2s_v5"])
	}
	if !strings.Contains(got[family].Advice, family) {
		t.Errorf("the advice %q does not name the quota to raise", got[family].Advice)
	}
	if q := got["cores"]; q.Used != 22 || q.VCPUs["Standard_D2s_v5"] != 2 {
		t.Errorf("regional quota: %d used", q.Used)
	}
	if q := got["lowPriorityCores"]; q.Used != 0 || !q.Spot || q.VCPUs["Standard_D2s_v5"] != 2 {
		t.Errorf("spot quota: %+v", q.Usage)
	}
}

func TestDeleteReturnsNotFoundOnceMachineIsDeleted(t *testing.T) {
	f, p := setUp(t, readyClass())
	claim, err := p.Create(t.Context(), newClaim("a"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Get(t.Context(), claim.Status.ProviderID); err != nil || got.Name != "a" {
		t.Errorf("Get = %v, %v", got, err)
	}
	if list, err := p.List(t.Context()); err != nil || len(list) != 1 || list[0].Status.ProviderID != claim.Status.ProviderID {
		t.Errorf("List = %v, %v", list, err)
	}
	if err := p.Delete(t.Context(), claim); !cloudprovider.IsNodeClaimNotFoundError(err) {
		t.Errorf("Delete = %v, want NodeClaimNotFoundError once the machine is deleted", err)
	}
	if len(f.machines) != 0 {
		t.Error("the machine still exists")
	}
	if _, err := p.Get(t.Context(), claim.Status.ProviderID); !cloudprovider.IsNodeClaimNotFoundError(err) {
		t.Errorf("Get = %v, want NodeClaimNotFoundError", err)
	}
	if err := p.Delete(t.Context(), claim); !cloudprovider.IsNodeClaimNotFoundError(err) {
		t.Errorf("second Delete = %v, want NodeClaimNotFoundError", err)
	}
	for _, id := range []string{"azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/x/virtualMachines/0", "kwok://x"} {
		if _, err := p.Get(t.Context(), id); !cloudprovider.IsNodeClaimNotFoundError(err) {
			t.Errorf("Get(%s) = %v, want NodeClaimNotFoundError", id, err)
		}
	}
}

func TestDrift(t *testing.T) {
	class := readyClass()
	class.Annotations = map[string]string{v1beta1.AnnotationNodeClassHash: class.Hash(), v1beta1.AnnotationNodeClassHashVersion: v1beta1.HashVersion}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	node.Status.NodeInfo.KubeletVersion = "v1.36.1" // a different patch is not drift
	f, p := setUp(t, class, node)
	claim := newClaim("a")
	launched, err := p.Create(t.Context(), claim)
	if err != nil {
		t.Fatal(err)
	}
	claim.Annotations, claim.Status.ProviderID, claim.Status.ImageID, claim.Status.NodeName = launched.Annotations, launched.Status.ProviderID, launched.Status.ImageID, "n"
	check := func(what string, want cloudprovider.DriftReason) {
		t.Helper()
		if got, err := p.IsDrifted(t.Context(), claim); err != nil || got != want {
			t.Errorf("%s: drift = %q, %v; want %q", what, got, err, want)
		}
	}
	check("fresh", "")
	f.mu.Lock()
	f.machines["a"].Properties.Status.DriftAction = to.Ptr(armcontainerservice.DriftActionRecreate)
	f.mu.Unlock()
	check("AKS asks to recreate", DriftClusterConfig)
	claim.Status.ImageID = "AKSUbuntu-2404gen2containerd-202609.1.0"
	check("old image", DriftImage)
	node.Status.NodeInfo.KubeletVersion = "v1.35.4"
	if err := p.kube.Status().Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	check("old Kubernetes", DriftKubernetes)
	claim.Annotations[v1beta1.AnnotationNodeClassHash] = "1"
	check("changed class", DriftNodeClass)
}

func TestTagsAreUpdatedInPlace(t *testing.T) {
	class := readyClass()
	f, p := setUp(t, class)
	claim, err := p.Create(t.Context(), newClaim("a"))
	if err != nil {
		t.Fatal(err)
	}
	old := p.InPlaceHash(class)
	class.Spec.Tags = map[string]string{"cost/center": "42"}
	if p.InPlaceHash(class) == old {
		t.Error("new tags do not change the in-place hash")
	}
	if class.Hash() != readyClass().Hash() {
		t.Error("new tags change the static hash")
	}
	for range 2 {
		if err := p.UpdateInPlace(t.Context(), class, claim); err != nil {
			t.Fatal(err)
		}
	}
	if got := deref(f.machines["a"].Properties.Tags["cost_center"]); got != "42" {
		t.Errorf("tag cost_center = %q, want 42", got)
	}
	if f.count("PUT") != 2 {
		t.Errorf("%d PUTs, want 2: the second update has nothing to change", f.count("PUT"))
	}
}

func TestLatestImages(t *testing.T) {
	_, p := setUp(t, readyClass())
	list, err := p.LatestImages(t.Context(), readyClass(), "1.36.3")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list {
		v, err := NodeImageVersion(i.ID)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if want := []string{"AKSUbuntu-2404gen2containerd-202611.2.0", "AKSUbuntu-2404containerd-202611.2.0", "AKSUbuntu-2404gen2arm64containerd-202611.2.0"}; !slices.Equal(got, want) {
		t.Errorf("images = %v, want %v", got, want)
	}
	old := slices.Clone(list)
	old[0].ID = strings.Replace(old[0].ID, "202611.2.0", "202601.1.0", 1)
	kept := KeepRecorded(old[:1], list)
	if kept[0].ID != old[0].ID || kept[1].ID != list[1].ID {
		t.Errorf("KeepRecorded = %v, want the recorded version and the new definitions", kept)
	}
	fips := readyClass()
	fips.Spec.ImageFamily, fips.Spec.FIPSMode = to.Ptr("AzureLinux"), to.Ptr("FIPS")
	if _, err := p.LatestImages(t.Context(), fips, "1.36.3"); err == nil {
		t.Error("no error, although the region has no AzureLinux image")
	}
}

func TestCheckSubnet(t *testing.T) {
	_, p := setUp(t, readyClass())
	for id, ok := range map[string]bool{"": true, "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/n": false, "nonsense": false} {
		if err := p.CheckSubnet(t.Context(), id); ok != (err == nil) {
			t.Errorf("subnet %q: %v", id, err)
		}
	}
}

func TestMachineNames(t *testing.T) {
	long := "a-node-pool-with-a-very-long-name-indeed"
	a, b := MachineName(long+"-abcde"), MachineName(long+"2-abcde")
	if len(a) > 34 || len(b) > 34 || a == b || !strings.HasSuffix(a, "-abcde") {
		t.Errorf("%q and %q: want at most 34 characters, the suffix kept, and different names", a, b)
	}
	if MachineName("default-abcde") != "default-abcde" {
		t.Error("a short name was changed")
	}
	_, p := setUp(t, readyClass())
	if got, err := p.machineNameOf("azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/aks-aksmanagedap-" + a + "-12345678-vm"); err != nil || got != a {
		t.Errorf("machine of the VM = %q, %v; want %q", got, err, a)
	}
}

func TestKarpenterAcceptsRepairPolicies(t *testing.T) {
	_, p := setUp(t, readyClass())
	ctx := karpoptions.ToContext(t.Context(), &karpoptions.Options{FeatureGates: karpoptions.FeatureGates{NodeRepair: true}})
	matcher, err := health.NewRepairPolicyMatcher(ctx, p)
	if err != nil || matcher == nil {
		t.Fatalf("Karpenter rejects the policies: %v", err)
	}
	for condition, want := range map[corev1.NodeCondition]bool{
		{Type: corev1.NodeReady, Status: corev1.ConditionFalse}:                        true,
		{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}:                      true,
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue}:                         false,
		{Type: "PreemptionScheduled", Status: corev1.ConditionTrue, Reason: "Preempt"}: true,
		{Type: "kubernetes.azure.com/NodeHealthy", Status: corev1.ConditionTrue}:       false,
		{Type: "kubernetes.azure.com/NodeHealthy", Status: corev1.ConditionFalse}:      true,
	} {
		if got := matcher.Matches(condition); got != want {
			t.Errorf("%s=%s is repaired: %t, want %t", condition.Type, condition.Status, got, want)
		}
	}
}
