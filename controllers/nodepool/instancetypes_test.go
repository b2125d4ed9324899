// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodepool

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/test/clustergen"
)

type catalogue struct {
	list []*cloudprovider.InstanceType
	err  error
}

func (c *catalogue) GetInstanceTypes(context.Context, *karpv1.NodePool) ([]*cloudprovider.InstanceType, error) {
	return c.list, c.err
}

type recorded struct{ list []events.Event }

func (r *recorded) Publish(e ...events.Event) { r.list = append(r.list, e...) }

func TestNodePoolThatNoSizeMeetsIsNamedWithTheRequirement(t *testing.T) {
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	pool := clustergen.NodePool("p")
	pool.UID = "p"
	pool.Spec.Template.Spec.NodeClassRef = &karpv1.NodeClassReference{Group: "karpenter.azure.com", Kind: "AKSNodeClass", Name: "default"}
	pool.Spec.Template.Spec.Requirements = []karpv1.NodeSelectorRequirementWithMinValues{{Key: karpv1.CapacityTypeLabelKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"Spot"}}}
	kube := fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(pool).WithStatusSubresource(pool).Build()
	types := &catalogue{list: []*cloudprovider.InstanceType{clustergen.InstanceType("m4", 4, 16, 0, "amd64", clustergen.Zones, 0.2, 0.05)}}
	published := &recorded{}
	c := NewInstanceTypes(kube, types, published, testingclock.NewFakeClock(time.Now()))
	check := func() *status.Condition {
		t.Helper()
		got := &karpv1.NodePool{}
		if err := kube.Get(t.Context(), client.ObjectKey{Name: "p"}, got); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Reconcile(t.Context(), got); err != nil {
			t.Fatal(err)
		}
		if err := kube.Get(t.Context(), client.ObjectKey{Name: "p"}, got); err != nil {
			t.Fatal(err)
		}
		if e := Empty([]karpv1.NodePool{*got}); (len(e) == 1) != got.StatusConditions().Get(ConditionInstanceTypes).IsFalse() {
			t.Errorf("Empty tells %v", e)
		}
		return got.StatusConditions(status.WithObservedOnly()).Get(ConditionInstanceTypes)
	}
	types.err = errors.New("the AKSNodeClass is not ready")
	if cond := check(); cond != nil {
		t.Errorf("a condition without knowing the sizes: %+v", cond)
	}
	types.err = nil
	cond := check()
	if !cond.IsFalse() || cond.Reason != ReasonNoInstanceType || !strings.Contains(cond.Message, karpv1.CapacityTypeLabelKey) || !strings.Contains(cond.Message, `"spot"`) {
		t.Errorf("the condition does not name requirement and nearest value: %+v", cond)
	}
	if len(published.list) != 1 || !strings.Contains(published.list[0].Message, `"spot"`) {
		t.Errorf("events %v", published.list)
	}

	got := &karpv1.NodePool{}
	if err := kube.Get(t.Context(), client.ObjectKey{Name: "p"}, got); err != nil {
		t.Fatal(err)
	}
	got.Spec.Template.Spec.Requirements[0].Values = []string{"spot"}
	if err := kube.Update(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if cond := check(); !cond.IsTrue() || len(published.list) != 1 {
		t.Errorf("after the correction: %+v, %d events", cond, len(published.list))
	}
}
