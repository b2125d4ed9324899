// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"fmt"
	"sort"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ofDaemonSet reports whether a pod belongs to a DaemonSet: it goes with its
// node and is not drained.
func ofDaemonSet(p *unstructured.Unstructured) bool {
	for _, o := range p.GetOwnerReferences() {
		if o.Controller != nil && *o.Controller && o.Kind == "DaemonSet" {
			return true
		}
	}
	return false
}

// UnscheduledPods implements Client.
func (l client) UnscheduledPods(ctx context.Context, since time.Time) ([]string, error) {
	items, err := l.list(ctx, pods, "", "status.phase=Pending")
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range items {
		p := &items[i]
		if node, _, _ := unstructured.NestedString(p.Object, "spec", "nodeName"); node == "" && !ofDaemonSet(p) && p.GetDeletionTimestamp() == nil && !p.GetCreationTimestamp().Time.Before(since.Truncate(time.Second)) {
			out = append(out, p.GetNamespace()+"/"+p.GetName())
		}
	}
	sort.Strings(out)
	return out, nil
}

// toBudget converts a PodDisruptionBudget.
func toBudget(u *unstructured.Unstructured) (*policyv1.PodDisruptionBudget, error) {
	b := &policyv1.PodDisruptionBudget{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, b); err != nil {
		return nil, fmt.Errorf("reading PodDisruptionBudget %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return b, nil
}

// UnevictablePods implements Client.
func (l client) UnevictablePods(ctx context.Context, names []string) ([]string, error) {
	items, err := l.list(ctx, budgets, "", "")
	if err != nil {
		return nil, err
	}
	type exhausted struct {
		name, namespace string
		selector        labels.Selector
	}
	var full []exhausted
	for i := range items {
		b, err := toBudget(&items[i])
		if err != nil {
			return nil, err
		}
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || b.Status.DisruptionsAllowed > 0 {
			continue // an invalid selector selects nothing
		}
		full = append(full, exhausted{b.Name, b.Namespace, selector})
	}
	var out []string
	for _, node := range names {
		onNode, err := l.list(ctx, pods, "", "spec.nodeName="+node)
		if err != nil {
			return nil, err
		}
		for i := range onNode {
			p := &onNode[i]
			if ofDaemonSet(p) || p.GetDeletionTimestamp() != nil {
				continue
			}
			key := p.GetNamespace() + "/" + p.GetName()
			if p.GetAnnotations()["karpenter.sh/do-not-disrupt"] == "true" {
				out = append(out, "pod "+key+" (annotation karpenter.sh/do-not-disrupt)")
			}
			for _, b := range full {
				if b.namespace == p.GetNamespace() && b.selector.Matches(labels.Set(p.GetLabels())) {
					out = append(out, "pod "+key+" (PodDisruptionBudget "+b.name+")")
				}
			}
		}
	}
	sort.Strings(out)
	return out, nil
}

// BlockingBudgets implements Client.
func (l client) BlockingBudgets(ctx context.Context) ([]string, error) {
	items, err := l.list(ctx, budgets, "", "")
	if err != nil {
		return nil, err
	}
	return blockingBudgets(items)
}

// blockingBudgets returns the budgets with a maxUnavailable of 0. AKS checks for
// these alone: a minAvailable that allows nothing is found when a node is
// drained.
func blockingBudgets(items []unstructured.Unstructured) ([]string, error) {
	var out []string
	for i := range items {
		b, err := toBudget(&items[i])
		if err != nil {
			return nil, err
		}
		if b.Spec.MaxUnavailable == nil {
			continue
		}
		if n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, 100, true); err == nil && n == 0 {
			out = append(out, b.Namespace+"/"+b.Name)
		}
	}
	sort.Strings(out)
	return out, nil
}
