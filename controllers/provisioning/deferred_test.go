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

// withClaim lets a pod ask for a device through a claim of its own.
func withClaim(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	}
}

func TestPodsWithResourceClaimsAreLeftToKarpenter(t *testing.T) {
	w := newWorld(t)
	before := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature))
	w.apply(pods(10, "900m")...)
	w.apply(pod("device", "900m", withClaim("mine")))
	w.pass()
	// Karpenter ignores such pods unless its options say otherwise, and says so.
	if told := w.events.about("device", events.FailedScheduling); len(told) == 0 || !strings.Contains(strings.ToLower(told[0]), "dynamic resource") {
		t.Errorf("the pod with a claim was told %q; want Karpenter's own words about dynamic resources", told)
	}
	if n := len(w.events.about("p-000", events.Nominated)); n != 1 || len(w.claims()) == 0 {
		t.Errorf("%d nominations of a plain pod and %d NodeClaims: the others have to go on as ever", n, len(w.claims()))
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 1 {
		t.Errorf("the metric counts %v pods, want the one", got)
	}
}

func TestKarpenterBuysForResourceClaimsBesideTheEngine(t *testing.T) {
	w := newWorld(t)
	// The option of which the other test has the default; one size has a device.
	o := *karpoptions.FromContext(w.ctx)
	o.IgnoreDRARequests = false
	w.ctx = karpoptions.ToContext(w.ctx, &o)
	for _, it := range w.provider.list {
		if it.Name != "Standard_D4s_v5" {
			continue
		}
		it.DynamicResources.ResourceSliceTemplates = []*cloudprovider.ResourceSliceTemplate{{
			Driver: unique.Make("gpu.nap.test"), Pool: cloudprovider.ResourcePool{Name: unique.Make("devices")}, Devices: []cloudprovider.Device{{Name: unique.Make("gpu-0")}},
		}}
	}
	devices := deviceallocation.NewController(w.kube)
	devices.Hydrate(w.ctx)
	w.p.Karpenter = karpprovisioning.NewProvisioner(w.kube, w.events, w.provider, w.cluster, w.clock, devices, nil)
	if err := w.kube.Create(w.ctx, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}); err != nil {
		t.Fatal(err)
	}
	before := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature))
	for _, name := range []string{"one", "two"} {
		claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		claim.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}
		if err := w.kube.Create(w.ctx, claim); err != nil {
			t.Fatal(err)
		}
		w.apply(pod("device-"+name, "900m", withClaim(name)))
	}
	w.apply(pods(6, "900m")...)
	w.pass()
	withDevice, asked := 0, resource.Quantity{}
	for _, c := range w.claims() {
		for _, r := range c.Spec.Requirements {
			if r.Key == corev1.LabelInstanceTypeStable && len(r.Values) == 1 && r.Values[0] == "Standard_D4s_v5" {
				withDevice++
			}
		}
		asked.Add(c.Spec.Resources.Requests[corev1.ResourceCPU])
	}
	if withDevice != 2 {
		t.Errorf("%d NodeClaims of the size with a device, want one for each of two pods that ask for one", withDevice)
	}
	if asked.MilliValue() < 8*900 {
		t.Errorf("the NodeClaims hold %s of cpu, the pods ask 7.2", asked.String())
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 2 {
		t.Errorf("the metric counts %v pods, want 2", got)
	}
	// They wait for their machines: nothing is bought twice, and the engine's
	// pods are not put where Karpenter's are to go.
	n := len(w.claims())
	w.apply(pod("late", "3"))
	for range 3 {
		w.clock.Step(10 * time.Second)
		w.pass()
	}
	if after := len(w.claims()); after != n+1 {
		t.Errorf("%d NodeClaims after more passes and one more pod of 3 cpus, %d before: want one more", after, n)
	}
	if got := testutil.ToFloat64(deferredTotal.WithLabelValues(deferredFeature)) - before; got != 2 {
		t.Errorf("the metric counts %v pods after more passes, want 2", got)
	}
}
