// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

type cloud struct {
	machines []*karpv1.NodeClaim
	deleted  []string
	updated  []string
}

func (c *cloud) List(context.Context) ([]*karpv1.NodeClaim, error) { return c.machines, nil }
func (c *cloud) Delete(_ context.Context, m *karpv1.NodeClaim) error {
	c.deleted = append(c.deleted, m.Name)
	return nil
}
func (c *cloud) InPlaceHash(nc *v1beta1.AKSNodeClass) string { return v1beta1.TagsHash(nc.Spec.Tags) }
func (c *cloud) UpdateInPlace(_ context.Context, _ *v1beta1.AKSNodeClass, claim *karpv1.NodeClaim) error {
	c.updated = append(c.updated, claim.Name)
	return nil
}

func newKube(t *testing.T, objects ...client.Object) client.Client {
	t.Helper()
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).
		WithIndex(&corev1.Node{}, "spec.providerID", func(o client.Object) []string { return []string{o.(*corev1.Node).Spec.ProviderID} }).Build()
}

func TestMachinesWithoutNodeClaimAreDeleted(t *testing.T) {
	clk := testingclock.NewFakeClock(time.Now())
	machine := func(name string, age time.Duration, deleting bool) *karpv1.NodeClaim {
		m := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(clk.Now().Add(-age))}, Status: karpv1.NodeClaimStatus{ProviderID: "azure:///" + name}}
		if deleting {
			m.DeletionTimestamp = &metav1.Time{Time: clk.Now()}
		}
		return m
	}
	c := &cloud{machines: []*karpv1.NodeClaim{
		machine("owned", time.Hour, false), machine("orphan", time.Hour, false), machine("young", 10*time.Second, false), machine("leaving", time.Hour, true), machine("late", time.Hour, false),
	}}
	owned := &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "owned"}} // not launched yet: no provider ID
	kube := newKube(t, owned, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n-orphan"}, Spec: corev1.NodeSpec{ProviderID: "azure:///orphan"}})
	// The API server has a claim that the cache does not have yet.
	uncached := newKube(t, owned.DeepCopy(), &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: "late"}})
	if _, err := NewGarbageCollector(kube, uncached, c, clk).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.deleted, []string{"orphan"}) {
		t.Errorf("deleted %v, want only the orphan", c.deleted)
	}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: "n-orphan"}, &corev1.Node{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the node of the orphan was not deleted: %v", err)
	}
}

func TestChangedTagsAreAppliedInPlace(t *testing.T) {
	nc := &v1beta1.AKSNodeClass{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: v1beta1.AKSNodeClassSpec{Tags: map[string]string{"a": "b"}}}
	claim := func(name, hash, providerID string) *karpv1.NodeClaim {
		return &karpv1.NodeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1beta1.AnnotationInPlaceUpdateHash: hash}},
			Spec: karpv1.NodeClaimSpec{NodeClassRef: &karpv1.NodeClassReference{Kind: "AKSNodeClass", Name: "default"}}, Status: karpv1.NodeClaimStatus{ProviderID: providerID}}
	}
	c := &cloud{}
	want := c.InPlaceHash(nc)
	claims := []client.Object{claim("old", "1", "azure:///x"), claim("current", want, "azure:///y"), claim("launching", "", "")}
	kube := newKube(t, append(claims, nc)...)
	for _, o := range claims {
		if _, err := NewInPlaceUpdate(kube, c).Reconcile(t.Context(), o.(*karpv1.NodeClaim)); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(c.updated, []string{"old"}) {
		t.Errorf("updated %v, want only the claim with another hash", c.updated)
	}
	got := &karpv1.NodeClaim{}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: "old"}, got); err != nil || got.Annotations[v1beta1.AnnotationInPlaceUpdateHash] != want {
		t.Errorf("hash = %v, %v; want %s", got.Annotations, err, want)
	}
}

func TestFailedRefreshIsRetriedSoon(t *testing.T) {
	fail := errors.New("ARM is unavailable")
	r := NewRefresh("sizes", SizesInterval, func(context.Context) error { return fail })
	if res, err := r.Reconcile(t.Context()); err != nil || res.RequeueAfter != retryInterval {
		t.Errorf("after a failure: %v, %v; want a retry in %s", res, err, retryInterval)
	}
	fail = nil
	if res, err := r.Reconcile(t.Context()); err != nil || res.RequeueAfter != SizesInterval {
		t.Errorf("after success: %v, %v", res, err)
	}
}
