// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/test/sim/cloud"
)

// rig is a cloud with the real provider on it.
type rig struct {
	t        *testing.T
	cloud    *cloud.Cloud
	provider *azure.Provider
	start    time.Time
	faults   []cloud.Fault // of the next PUTs
}

// span is a range of durations of one.
func span(d time.Duration) cloud.Span { return cloud.Span{Min: d, Max: d} }

func options() cloud.Options {
	return cloud.Options{
		Rand: rand.New(rand.NewPCG(1, 2)), Location: "eastus", Kubernetes: "1.36.3",
		Latency: cloud.Span{Min: 10 * time.Millisecond, Max: 30 * time.Millisecond},
		Create:  cloud.Span{Min: 10 * time.Second, Max: 20 * time.Second}, Boot: span(30 * time.Second),
	}
}

// withProvider runs f in a bubble with a cloud and the provider.
func withProvider(t *testing.T, o cloud.Options, f func(ctx context.Context, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, start: time.Now()}
		o.Intercept = func(_ context.Context, c *cloud.Call) cloud.Fault {
			if c.Method != "PUT" || len(r.faults) == 0 {
				return cloud.Fault{}
			}
			next := r.faults[0]
			r.faults = r.faults[1:]
			return next
		}
		var err error
		if r.cloud, err = cloud.New(o); err != nil {
			t.Fatal(err)
		}
		scheme := runtime.NewScheme()
		if err := v1beta1.AddToScheme(scheme); err != nil {
			t.Fatal(err)
		}
		class := nodeClass()
		kube := fake.NewClientBuilder().WithScheme(scheme).WithObjects(class).WithStatusSubresource(class).Build()
		if err := kube.Get(t.Context(), client.ObjectKeyFromObject(class), class); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if r.provider, err = azure.New(ctx, r.cloud.Config(r.cloud.Transport()), kube); err != nil {
			t.Fatal(err)
		}
		f(ctx, r)
	})
}

func nodeClass() *v1beta1.AKSNodeClass {
	nc := &v1beta1.AKSNodeClass{ObjectMeta: metav1.ObjectMeta{Name: "default", UID: "class"}}
	version := "1.36.3"
	nc.Status.KubernetesVersion = &version
	for definition, arch := range map[string]string{"2404gen2containerd": "amd64", "2404gen2arm64containerd": "arm64"} {
		nc.Status.Images = append(nc.Status.Images, v1beta1.NodeImage{
			ID: "/subscriptions/s/resourceGroups/AKS-Ubuntu/providers/Microsoft.Compute/galleries/AKSUbuntu/images/" + definition + "/versions/202611.2.0",
			Requirements: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelArchStable, Operator: corev1.NodeSelectorOpIn, Values: []string{arch}},
				{Key: v1beta1.LabelSKUHyperVGeneration, Operator: corev1.NodeSelectorOpIn, Values: []string{"2"}},
			},
		})
	}
	for _, c := range []string{v1beta1.ConditionImagesReady, v1beta1.ConditionKubernetesVersionReady, v1beta1.ConditionLocalDNSReady, v1beta1.ConditionSubnetsReady, v1beta1.ConditionValidationSucceeded} {
		nc.StatusConditions().SetTrue(c)
	}
	return nc
}

// claim returns a NodeClaim that any of the sizes serves, on demand unless capacity
// types are given.
func claim(name string, sizes []string, capacityTypes ...string) *karpv1.NodeClaim {
	if capacityTypes == nil {
		capacityTypes = []string{"on-demand"}
	}
	in := func(key string, values ...string) karpv1.NodeSelectorRequirementWithMinValues {
		return karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
	}
	return &karpv1.NodeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{karpv1.NodePoolLabelKey: "default", "team": "shop"}},
		Spec: karpv1.NodeClaimSpec{
			NodeClassRef:  &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"},
			Requirements:  []karpv1.NodeSelectorRequirementWithMinValues{in(karpv1.CapacityTypeLabelKey, capacityTypes...), in(corev1.LabelInstanceTypeStable, sizes...)},
			StartupTaints: []corev1.Taint{{Key: "example.com/starting", Effect: corev1.TaintEffectNoSchedule}},
			Resources:     karpv1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourcePods: resource.MustParse("3")}},
		},
	}
}

// create launches a NodeClaim that must launch.
func (r *rig) create(ctx context.Context, c *karpv1.NodeClaim) *karpv1.NodeClaim {
	r.t.Helper()
	out, err := r.provider.Create(ctx, c)
	if err != nil {
		r.t.Fatalf("creating %s: %v", c.Name, err)
	}
	return out
}

// machines returns the machines, of which there must be n.
func (r *rig) machines(n int) []*cloud.Machine {
	r.t.Helper()
	list := r.cloud.Machines()
	if len(list) != n {
		r.t.Fatalf("%d machines exist, want %d", len(list), n)
	}
	return list
}
