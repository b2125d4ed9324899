// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	// closedAnnotation and frozenAnnotation keep on a NodePool the fields that
	// closing or freezing overwrote, as JSON, so that they can be restored after
	// a restart.
	closedAnnotation = "node-auto-provisioning.local/before-disable"
	frozenAnnotation = "node-auto-provisioning.local/before-freeze"

	disableTaintKey = "karpenter.azure.com/disable"
)

var (
	limitsPath  = []string{"spec", "limits"}
	taintsPath  = []string{"spec", "template", "spec", "taints"}
	budgetsPath = []string{"spec", "disruption", "budgets"}
)

func annotation(pool map[string]any, key string) string {
	s, _, _ := unstructured.NestedString(pool, "metadata", "annotations", key)
	return s
}

func setAnnotation(pool map[string]any, key, value string) error {
	return unstructured.SetNestedField(pool, value, "metadata", "annotations", key)
}

func removeAnnotation(pool map[string]any, key string) {
	unstructured.RemoveNestedField(pool, "metadata", "annotations", key)
	if as, ok, err := unstructured.NestedMap(pool, "metadata", "annotations"); err == nil && ok && len(as) == 0 {
		unstructured.RemoveNestedField(pool, "metadata", "annotations")
	}
}

// saveFields stores fields of a NodePool in an annotation.
func saveFields(pool map[string]any, key string, paths ...[]string) error {
	before := map[string]any{}
	for _, p := range paths {
		if v, ok, err := unstructured.NestedFieldCopy(pool, p...); err == nil && ok {
			before[strings.Join(p, ".")] = v
		}
	}
	b, err := json.Marshal(before)
	if err != nil {
		return fmt.Errorf("encoding annotation %s: %w", key, err)
	}
	return setAnnotation(pool, key, string(b))
}

// restoreFields restores what saveFields stored and removes the annotation. It
// reports whether there was one.
func restoreFields(pool map[string]any, key string, paths ...[]string) (bool, error) {
	text := annotation(pool, key)
	if text == "" {
		return false, nil
	}
	before := map[string]any{}
	if err := json.Unmarshal([]byte(text), &before); err != nil {
		return false, fmt.Errorf("decoding annotation %s: %w", key, err)
	}
	for _, p := range paths {
		v, ok := before[strings.Join(p, ".")]
		if !ok {
			unstructured.RemoveNestedField(pool, p...)
			continue
		}
		if err := unstructured.SetNestedField(pool, v, p...); err != nil {
			return false, fmt.Errorf("restoring %s: %w", strings.Join(p, "."), err)
		}
	}
	removeAnnotation(pool, key)
	return true, nil
}

// closePool sets a NodePool's CPU limit to 0, so that no node is created, and
// adds a taint that makes the existing nodes drift.
func closePool(pool map[string]any) (bool, error) {
	if annotation(pool, closedAnnotation) != "" {
		return false, nil
	}
	if err := saveFields(pool, closedAnnotation, limitsPath, taintsPath); err != nil {
		return false, err
	}
	if err := unstructured.SetNestedField(pool, "0", append(limitsPath, "cpu")...); err != nil {
		return false, err
	}
	taints, _, err := unstructured.NestedSlice(pool, taintsPath...)
	if err != nil {
		return false, err
	}
	for _, t := range taints {
		if m, ok := t.(map[string]any); ok && m["key"] == disableTaintKey {
			return true, nil
		}
	}
	taints = append(taints, map[string]any{"key": disableTaintKey, "effect": "NoSchedule"})
	return true, unstructured.SetNestedSlice(pool, taints, taintsPath...)
}

// closeAgain closes a NodePool that was reopened or created after closePool.
func closeAgain(pool map[string]any) (bool, error) {
	removeAnnotation(pool, closedAnnotation)
	return closePool(pool)
}

// reopenPool undoes closePool.
func reopenPool(pool map[string]any) (bool, error) {
	return restoreFields(pool, closedAnnotation, limitsPath, taintsPath)
}

// freezePool stops voluntary disruption of a NodePool's nodes, and with all the
// creation of nodes as well.
func freezePool(all bool) func(map[string]any) (bool, error) {
	return func(pool map[string]any) (bool, error) {
		if annotation(pool, frozenAnnotation) == "" {
			if err := saveFields(pool, frozenAnnotation, limitsPath, budgetsPath); err != nil {
				return false, err
			}
		}
		if err := unstructured.SetNestedSlice(pool, []any{map[string]any{"nodes": "0"}}, budgetsPath...); err != nil {
			return false, err
		}
		if !all {
			return true, nil
		}
		return true, unstructured.SetNestedField(pool, "0", append(limitsPath, "cpu")...)
	}
}

// resumePool undoes freezePool.
func resumePool(pool map[string]any) (bool, error) {
	return restoreFields(pool, frozenAnnotation, limitsPath, budgetsPath)
}
