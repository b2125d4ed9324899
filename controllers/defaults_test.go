// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
)

// newCluster returns a fake API server that establishes definitions at once.
func newCluster(t *testing.T) client.Client {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensionsv1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	karpenterTypes(s)
	return fake.NewClientBuilder().WithScheme(s).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
				crd.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue}}
			}
			return c.Create(ctx, obj, opts...)
		},
	}).Build()
}

func TestDefaultsAreCreatedOnceAndNotOverwritten(t *testing.T) {
	kube := newCluster(t)
	if err := installDefaults(t.Context(), kube, true); err != nil {
		t.Fatal(err)
	}
	for _, crd := range apis.CRDs() {
		if err := kube.Get(t.Context(), client.ObjectKeyFromObject(crd), &apiextensionsv1.CustomResourceDefinition{}); err != nil {
			t.Errorf("definition %s: %v", crd.Name, err)
		}
	}
	surge := &karpv1.NodePool{}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: apis.SystemSurgeNodePoolName}, surge); err != nil {
		t.Fatal(err)
	}
	if surge.Spec.Template.Labels[v1beta1.AKSLabelMode] != "system" || len(surge.Spec.Template.Spec.Taints) != 1 || surge.Spec.Template.Spec.Taints[0].Key != "CriticalAddonsOnly" {
		t.Errorf("system-surge has labels %v and taints %v", surge.Spec.Template.Labels, surge.Spec.Template.Spec.Taints)
	}
	pool := &karpv1.NodePool{}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: apis.DefaultNodePoolName}, pool); err != nil {
		t.Fatal(err)
	}
	if pool.Spec.Disruption.ConsolidateAfter.Duration == nil || *pool.Spec.Disruption.ConsolidateAfter.Duration != 0 || pool.Spec.Template.Spec.ExpireAfter.Duration != nil {
		t.Errorf("consolidateAfter %v and expireAfter %v, want 0s and Never", pool.Spec.Disruption.ConsolidateAfter, pool.Spec.Template.Spec.ExpireAfter)
	}
	// A change by the user is kept.
	pool.Spec.Template.Spec.Requirements[3].Values = []string{"E"}
	if err := kube.Update(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if err := installDefaults(t.Context(), kube, true); err != nil {
		t.Fatal(err)
	}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: apis.DefaultNodePoolName}, pool); err != nil || pool.Spec.Template.Spec.Requirements[3].Values[0] != "E" {
		t.Errorf("the change by the user was overwritten: %v, %v", pool.Spec.Template.Spec.Requirements, err)
	}
}

func TestDefinitionsAreUpdated(t *testing.T) {
	kube := newCluster(t)
	old := apis.CRDs()[0].DeepCopy()
	old.Spec.Versions[0].Schema.OpenAPIV3Schema.Description = "of an earlier release"
	if err := kube.Create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := installDefaults(t.Context(), kube, false); err != nil {
		t.Fatal(err)
	}
	got := &apiextensionsv1.CustomResourceDefinition{}
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(old), got); err != nil {
		t.Fatal(err)
	}
	if got.Spec.Versions[0].Schema.OpenAPIV3Schema.Description == "of an earlier release" {
		t.Error("the definition was not updated")
	}
	pools := &karpv1.NodePoolList{}
	if err := kube.List(t.Context(), pools); err != nil || len(pools.Items) != 0 {
		t.Errorf("%d NodePools, %v; want none", len(pools.Items), err)
	}
}

func TestOptionsAreCheckedAndDefaulted(t *testing.T) {
	o := Options{}
	o.Azure.ClusterResourceID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"
	o.FeatureGates = "NodeRepair=true"
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	k, err := o.karpenter()
	if err != nil {
		t.Fatal(err)
	}
	if o.BindAddress != "127.0.0.1" || o.Engine != EngineNAP || k.BatchIdleDuration != time.Second || k.BatchMaxDuration != 10*time.Second || !k.FeatureGates.NodeRepair || !k.FeatureGates.ReservedCapacity {
		t.Errorf("options %+v, Karpenter's %+v", o, k)
	}
	for name, bad := range map[string]Options{
		"no cluster": {}, "unknown engine": {Azure: o.Azure, Engine: "fast"}, "batch": {Azure: o.Azure, BatchIdle: time.Minute, BatchMax: time.Second}, "install": {Azure: o.Azure, InstallDefaults: "all"},
	} {
		if err := bad.setDefaults(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := (&Options{LogLevel: "loud"}).karpenter(); err == nil {
		t.Error("no error for an unknown log level")
	}
}
