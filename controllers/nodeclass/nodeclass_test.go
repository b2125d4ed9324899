// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeclass

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure"
)

// cloud is a fake of the provider.
type cloud struct {
	version string // of every image
	images  error
	subnet  error
}

func (c *cloud) LatestImages(context.Context, *v1beta1.AKSNodeClass, string) ([]v1beta1.NodeImage, error) {
	if c.images != nil {
		return nil, c.images
	}
	return []v1beta1.NodeImage{{ID: "/g/images/d/versions/" + c.version, Requirements: []corev1.NodeSelectorRequirement{}}}, nil
}
func (c *cloud) CheckSubnet(context.Context, string) error { return c.subnet }

type server struct{ version string }

func (s *server) ServerVersion() (*apiversion.Info, error) {
	return &apiversion.Info{GitVersion: s.version}, nil
}

type recorded struct{ list []events.Event }

func (r *recorded) Publish(e ...events.Event) { r.list = append(r.list, e...) }

func newKube(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).WithStatusSubresource(&v1beta1.AKSNodeClass{}).
		WithIndex(&karpv1.NodeClaim{}, "spec.nodeClassRef.name", func(o client.Object) []string {
			return []string{o.(*karpv1.NodeClaim).Spec.NodeClassRef.Name}
		}).Build()
}

func class() *v1beta1.AKSNodeClass {
	return &v1beta1.AKSNodeClass{ObjectMeta: metav1.ObjectMeta{Name: "default", Generation: 1}}
}

func claim(name string, annotations map[string]string) *karpv1.NodeClaim {
	return &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec: karpv1.NodeClaimSpec{NodeClassRef: &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: "default"}}}
}

func get[T client.Object](t *testing.T, kube client.Client, name string, into T) T {
	t.Helper()
	if err := kube.Get(t.Context(), client.ObjectKey{Name: name}, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func TestStatusResolvesAllParts(t *testing.T) {
	kube := newKube(t, class())
	c, s, clk := &cloud{version: "1"}, &server{"v1.36.3"}, testingclock.NewFakeClock(time.Now())
	reconciler := NewStatus(kube, kube, s, c, clk, "kube-system")
	reconcile := func() (*v1beta1.AKSNodeClass, error) {
		t.Helper()
		_, err := reconciler.Reconcile(t.Context(), get(t, kube, "default", &v1beta1.AKSNodeClass{}))
		return get(t, kube, "default", &v1beta1.AKSNodeClass{}), err
	}
	image := func(nc *v1beta1.AKSNodeClass) string {
		return nc.Status.Images[0].ID[strings.LastIndex(nc.Status.Images[0].ID, "/")+1:]
	}
	nc, err := reconcile()
	if err != nil || !nc.StatusConditions().IsTrue(status.ConditionReady) {
		t.Fatalf("a new class should become ready: %v, %v", err, nc.Status.Conditions)
	}
	if v, err := nc.ResolvedKubernetesVersion(); err != nil || v != "1.36.3" {
		t.Errorf("version %q, %v", v, err)
	}
	if len(nc.Finalizers) != 1 {
		t.Errorf("finalizers = %v", nc.Finalizers)
	}

	// Images change at once without a maintenance window, else only within it.
	c.version = "2"
	if nc, err = reconcile(); err != nil || image(nc) != "2" {
		t.Errorf("image %s, %v; want 2: no window is announced", image(nc), err)
	}
	window := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: maintenanceConfigMap}, Data: map[string]string{
		maintenanceStart: clk.Now().Add(time.Hour).Format(time.RFC3339), maintenanceEnd: clk.Now().Add(5 * time.Hour).Format(time.RFC3339)}}
	if err := kube.Create(t.Context(), window); err != nil {
		t.Fatal(err)
	}
	c.version = "3"
	if nc, err = reconcile(); err != nil || image(nc) != "2" {
		t.Errorf("image %s, %v; want 2: the window is not open yet", image(nc), err)
	}
	// An upgrade of Kubernetes changes them outside of the window, too.
	s.version = "v1.37.0"
	if nc, err = reconcile(); err != nil || image(nc) != "3" || *nc.Status.KubernetesVersion != "1.37.0" {
		t.Errorf("image %s on %s, %v; want 3 on 1.37.0", image(nc), *nc.Status.KubernetesVersion, err)
	}
	s.version, c.version = "v1.36.3", "4"
	if nc, _ = reconcile(); *nc.Status.KubernetesVersion != "1.37.0" || image(nc) != "3" {
		t.Errorf("version %s, image %s; want both unchanged by an older server", *nc.Status.KubernetesVersion, image(nc))
	}
	clk.Step(2 * time.Hour)
	if nc, err = reconcile(); err != nil || image(nc) != "4" {
		t.Errorf("image %s, %v; want 4: the window is open", image(nc), err)
	}

	// A failure sets its condition, and the class is not ready.
	for _, bad := range []struct {
		condition, reason string
		set               func()
	}{
		{v1beta1.ConditionImagesReady, "ImagesNotFound", func() { c.images = fmt.Errorf("%w: none", azure.ErrNoImages) }},
		{v1beta1.ConditionSubnetsReady, "SubnetIDInvalid", func() { c.subnet = fmt.Errorf("%w: x", azure.ErrSubnetInvalid) }},
		{v1beta1.ConditionSubnetsReady, "SubnetNotFound", func() { c.subnet = fmt.Errorf("%w: x", azure.ErrSubnetNotFound) }},
		{v1beta1.ConditionSubnetsReady, "SubnetUnknownError", func() { c.subnet = errors.New("ARM is unavailable") }},
		{v1beta1.ConditionLocalDNSReady, "LocalDNSUnsupported", func() {
			nc := get(t, kube, "default", &v1beta1.AKSNodeClass{})
			nc.Spec.LocalDNS = &v1beta1.LocalDNS{Mode: v1beta1.LocalDNSRequired}
			if err := kube.Update(t.Context(), nc); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		c.images, c.subnet = nil, nil
		bad.set()
		nc, _ = reconcile()
		if got := nc.StatusConditions().Get(bad.condition); !got.IsFalse() || got.Reason != bad.reason || nc.StatusConditions().IsTrue(status.ConditionReady) {
			t.Errorf("%s = %s %s, want False %s, and the class not ready", bad.condition, got.Status, got.Reason, bad.reason)
		}
	}
}

func TestHashFollowsSpecAndHashVersion(t *testing.T) {
	drifted := claim("drifted", map[string]string{v1beta1.AnnotationNodeClassHash: "old", v1beta1.AnnotationNodeClassHashVersion: "v1"})
	drifted.StatusConditions().SetTrue(karpv1.ConditionTypeDrifted)
	nc := class()
	nc.Annotations = map[string]string{v1beta1.AnnotationNodeClassHash: "old", v1beta1.AnnotationNodeClassHashVersion: "v1"}
	kube := newKube(t, nc, drifted, claim("fresh", map[string]string{v1beta1.AnnotationNodeClassHash: "old", v1beta1.AnnotationNodeClassHashVersion: "v1"}))
	if _, err := NewHash(kube).Reconcile(t.Context(), get(t, kube, "default", &v1beta1.AKSNodeClass{})); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"drifted": "old", "fresh": nc.Hash()} {
		got := get(t, kube, name, &karpv1.NodeClaim{}).Annotations
		if got[v1beta1.AnnotationNodeClassHash] != want || got[v1beta1.AnnotationNodeClassHashVersion] != v1beta1.HashVersion {
			t.Errorf("claim %s: %v, want hash %s of version %s", name, got, want, v1beta1.HashVersion)
		}
	}
	got := get(t, kube, "default", &v1beta1.AKSNodeClass{})
	if got.Annotations[v1beta1.AnnotationNodeClassHash] != nc.Hash() {
		t.Errorf("class annotations = %v", got.Annotations)
	}
	// A changed spec changes the hash of the class, but not that of its claims: they drift.
	size := int32(256)
	got.Spec.OSDiskSizeGB = &size
	if err := kube.Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if _, err := NewHash(kube).Reconcile(t.Context(), get(t, kube, "default", &v1beta1.AKSNodeClass{})); err != nil {
		t.Fatal(err)
	}
	if h := get(t, kube, "default", &v1beta1.AKSNodeClass{}).Annotations[v1beta1.AnnotationNodeClassHash]; h == nc.Hash() {
		t.Error("the hash does not change with the disk size")
	}
	if h := get(t, kube, "fresh", &karpv1.NodeClaim{}).Annotations[v1beta1.AnnotationNodeClassHash]; h != nc.Hash() {
		t.Error("the hash of the claim has changed")
	}
}

func TestFinalizerIsRemovedWhenNoNodeClaimUsesTheClass(t *testing.T) {
	nc := class()
	nc.Finalizers = []string{v1beta1.TerminationFinalizer}
	kube := newKube(t, nc, claim("user", nil))
	rec := &recorded{}
	c := NewTermination(kube, rec)
	if err := kube.Delete(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reconcile(t.Context(), get(t, kube, "default", &v1beta1.AKSNodeClass{})); err != nil {
		t.Fatal(err)
	}
	if len(rec.list) != 1 || !strings.Contains(rec.list[0].Message, "user") {
		t.Fatalf("events = %v, want one that names the claim", rec.list)
	}
	if err := kube.Delete(t.Context(), claim("user", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reconcile(t.Context(), get(t, kube, "default", &v1beta1.AKSNodeClass{})); err != nil {
		t.Fatal(err)
	}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: "default"}, &v1beta1.AKSNodeClass{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the class was not deleted: %v", err)
	}
}
