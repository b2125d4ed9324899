// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"strings"
	"testing"
	"time"
	"unique"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/controllers/dynamicresources/deviceallocation"
	karpprovisioning "sigs.k8s.io/karpenter/pkg/controllers/provisioning"
	"sigs.k8s.io/karpenter/pkg/events"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"
)

const deferredFeature = "dynamic resource claims"

// withClaim gives a pod a ResourceClaim for a device.
func withClaim(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	}
}

func TestPodsWithResourceClaimsAreHandedToKarpenter(t *testing.T) {
	env := newEnv(t)
	before := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature))
	env.apply(pods(10, "900m")...)
	env.apply(pod("device", "900m", withClaim("mine")))
	env.pass()
	// By default, Karpenter ignores such pods and reports that.
	if messages := env.events.about("device", events.FailedScheduling); len(messages) == 0 || !strings.Contains(strings.ToLower(messages[0]), "dynamic resource") {
		t.Errorf("events of the pod with a claim are %q, want Karpenter's about dynamic resources", messages)
	}
	if n := len(env.events.about("p-000", events.Nominated)); n != 1 || len(env.claims()) == 0 {
		t.Errorf("%d nominations of a pod without claim and %d NodeClaims, want it placed as usual", n, len(env.claims()))
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 1 {
		t.Errorf("the metric counts %v pods, want 1", got)
	}
}

func TestKarpenterCreatesNodeClaimsForResourceClaims(t *testing.T) {
	env := newEnv(t)
	// Karpenter handles resource claims, and one size has a device.
	o := *karpoptions.FromContext(env.ctx)
	o.IgnoreDRARequests = false
	env.ctx = karpoptions.ToContext(env.ctx, &o)
	for _, it := range env.provider.list {
		if it.Name != "Standard_D4s_v5" {
			continue
		}
		it.DynamicResources.ResourceSliceTemplates = []*cloudprovider.ResourceSliceTemplate{{
			Driver: unique.Make("gpu.nap.test"), Pool: cloudprovider.ResourcePool{Name: unique.Make("devices")}, Devices: []cloudprovider.Device{{Name: unique.Make("gpu-0")}},
		}}
	}
	devices := deviceallocation.NewController(env.kube)
	devices.Hydrate(env.ctx)
	env.p.Karpenter = karpprovisioning.NewProvisioner(env.kube, env.events, env.provider, env.cluster, env.clock, devices, nil)
	if err := env.kube.Create(env.ctx, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}); err != nil {
		t.Fatal(err)
	}
	before := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature))
	for _, name := range []string{"one", "two"} {
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		claim.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}
		if err := env.kube.Create(env.ctx, claim); err != nil {
			t.Fatal(err)
		}
		env.apply(pod("device-"+name, "900m", withClaim(name)))
	}
	env.apply(pods(6, "900m")...)
	env.pass()
	withDevice, asked := 0, resource.Quantity{}
	for _, c := range env.claims() {
		for _, r := range c.Spec.Requirements {
			if r.Key == corev1.LabelInstanceTypeStable && len(r.Values) == 1 && r.Values[0] == "Standard_D4s_v5" {
				withDevice++
			}
		}
		asked.Add(c.Spec.Resources.Requests[corev1.ResourceCPU])
	}
	if withDevice != 2 {
		t.Errorf("%d NodeClaims of the size with a device, want one for each of two pods", withDevice)
	}
	if asked.MilliValue() < 8*900 {
		t.Errorf("the NodeClaims request %s of cpu, the pods 7.2", asked.String())
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 2 {
		t.Errorf("the metric counts %v pods, want 2", got)
	}
	// While they wait for their machines, nothing is bought twice, and the engine does
	// not use the capacity of Karpenter's pods.
	n := len(env.claims())
	env.clock.Step(firstBoot / 2) // so that they are not revised
	env.apply(pod("late", "3"))
	for range 3 {
		env.clock.Step(10 * time.Second)
		env.pass()
	}
	if after := len(env.claims()); after != n+1 {
		t.Errorf("%d NodeClaims after more passes and one more pod of 3 cpus, %d before: want one more", after, n)
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 2 {
		t.Errorf("the metric counts %v pods after more passes, want 2", got)
	}
}
