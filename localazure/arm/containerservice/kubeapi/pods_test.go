// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestBlockingBudgetsHaveMaxUnavailableZero(t *testing.T) {
	var items []unstructured.Unstructured
	for name, spec := range map[string]map[string]any{
		"none":         {"maxUnavailable": int64(0)},
		"none-percent": {"maxUnavailable": "0%"},
		"one":          {"maxUnavailable": int64(1)},
		"a-percent":    {"maxUnavailable": "1%"}, // rounds up
		"all-there":    {"minAvailable": "100%"}, // AKS finds these when it drains
		"unset":        {},
	} {
		items = append(items, unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": map[string]any{"namespace": "shop", "name": name}, "spec": spec,
		}})
	}
	got, err := blockingBudgets(items)
	if want := []string{"shop/none", "shop/none-percent"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v (%v), want %v", got, err, want)
	}
}
