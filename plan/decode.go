// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errNotAnObject is the error for a document that is no Kubernetes object.
var errNotAnObject = errors.New("not a Kubernetes object: it needs apiVersion and kind")

// decode adds the object, or the objects of the list, in a JSON text.
func (m *manifests) decode(decoder runtime.Decoder, text []byte) error {
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &u.Object); err != nil {
		return fmt.Errorf("%w (%w)", errNotAnObject, err)
	}
	if u.GetKind() == "" || u.GetAPIVersion() == "" {
		return errNotAnObject
	}
	if items, ok := u.Object["items"].([]any); ok && strings.HasSuffix(u.GetKind(), "List") {
		return m.decodeList(decoder, u, items)
	}
	if err := m.current(u); err != nil {
		return err
	}
	text, err := json.Marshal(u.Object)
	if err != nil {
		return fmt.Errorf("%s: %w", describe(u), err)
	}
	obj, _, err := decoder.Decode(text, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		m.foreign(u, text)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", describe(u), err)
	}
	o, ok := obj.(client.Object)
	if !ok { // a list without items, or a kind that clusters do not keep
		return nil
	}
	if o.GetName() == "" && o.GetGenerateName() == "" {
		return fmt.Errorf("%s: it has no name", u.GetKind())
	}
	m.add(o, u.GroupVersionKind())
	return nil
}

// decodeList adds the items of a list. Items of typed lists have the version and the
// kind of the list.
func (m *manifests) decodeList(decoder runtime.Decoder, list *unstructured.Unstructured, items []any) error {
	for i, item := range items {
		o, ok := item.(map[string]any)
		if !ok {
			return fmt.Errorf("item %d of the list: %w", i+1, errNotAnObject)
		}
		if kind := strings.TrimSuffix(list.GetKind(), "List"); kind != "" && o["kind"] == nil {
			o["kind"], o["apiVersion"] = kind, list.GetAPIVersion()
		}
		text, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("item %d of the list: %w", i+1, err)
		}
		if err := m.decode(decoder, text); err != nil {
			return fmt.Errorf("item %d of the list: %w", i+1, err)
		}
	}
	return nil
}

// describe names an object for messages: Deployment shop/web.
func describe(o client.Object) string {
	name := o.GetName()
	if name == "" {
		name = o.GetGenerateName()
	}
	if ns := o.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return strings.TrimSpace(o.GetObjectKind().GroupVersionKind().Kind + " " + name)
}

// deciding are the kinds on which plans depend, with their current version and the
// older versions that have the same fields. Other versions of them are errors: an
// object that decides is never left out.
var deciding = map[schema.GroupKind]struct {
	version string
	same    []string // GROUP/VERSION
}{
	{Group: "apps", Kind: "Deployment"}:                     {"v1", []string{"apps/v1beta1", "apps/v1beta2", "extensions/v1beta1"}},
	{Group: "apps", Kind: "ReplicaSet"}:                     {"v1", []string{"apps/v1beta2", "extensions/v1beta1"}},
	{Group: "apps", Kind: "DaemonSet"}:                      {"v1", []string{"apps/v1beta2", "extensions/v1beta1"}},
	{Group: "apps", Kind: "StatefulSet"}:                    {"v1", []string{"apps/v1beta1", "apps/v1beta2"}},
	{Group: "batch", Kind: "CronJob"}:                       {"v1", []string{"batch/v1beta1", "batch/v2alpha1"}},
	{Group: "batch", Kind: "Job"}:                           {"v1", nil},
	{Group: "policy", Kind: "PodDisruptionBudget"}:          {"v1", []string{"policy/v1beta1"}},
	{Group: "storage.k8s.io", Kind: "StorageClass"}:         {"v1", []string{"storage.k8s.io/v1beta1"}},
	{Group: "storage.k8s.io", Kind: "CSINode"}:              {"v1", []string{"storage.k8s.io/v1beta1"}},
	{Group: "scheduling.k8s.io", Kind: "PriorityClass"}:     {"v1", []string{"scheduling.k8s.io/v1beta1", "scheduling.k8s.io/v1alpha1"}},
	{Group: "node.k8s.io", Kind: "RuntimeClass"}:            {"v1", []string{"node.k8s.io/v1beta1"}},
	{Group: "autoscaling", Kind: "HorizontalPodAutoscaler"}: {"v2", []string{"autoscaling/v1", "autoscaling/v2beta1", "autoscaling/v2beta2"}},
	{Group: "karpenter.sh", Kind: "NodePool"}:               {"v1", nil},
	{Group: "karpenter.sh", Kind: "NodeClaim"}:              {"v1", nil},
	{Group: "karpenter.sh", Kind: "Provisioner"}:            {"", nil},
	{Group: "karpenter.sh", Kind: "Machine"}:                {"", nil},
	{Group: "karpenter.azure.com", Kind: "AKSNodeClass"}:    {"v1beta1", []string{"karpenter.azure.com/v1alpha2"}},
}

// current converts an object of a kind that decides to its current version. It
// returns an error for a version that it cannot convert.
func (m *manifests) current(u *unstructured.Unstructured) error {
	given := u.GroupVersionKind()
	kind := given.GroupKind()
	if kind.Group == "extensions" {
		kind.Group = "apps"
	}
	want, ok := deciding[kind]
	if !ok || kind == given.GroupKind() && given.Version == want.version {
		return nil
	}
	old := given.GroupVersion().String()
	now := schema.GroupVersion{Group: kind.Group, Version: want.version}.String()
	switch {
	case want.version == "":
		return fmt.Errorf("%s: %s is Karpenter's API before NodePools: write it as a NodePool of karpenter.sh/v1", describe(u), old)
	case kind.Group == "karpenter.sh" && given.Version == "v1beta1":
		if err := m.karpenterV1(u); err != nil {
			return fmt.Errorf("%s: %w", describe(u), err)
		}
	case slices.Contains(want.same, old):
		if kind.Kind == "HorizontalPodAutoscaler" {
			// What to scale and the bounds are the same in all versions, metrics are not.
			unstructured.RemoveNestedField(u.Object, "spec", "metrics")
			unstructured.RemoveNestedField(u.Object, "spec", "behavior")
			unstructured.RemoveNestedField(u.Object, "spec", "targetCPUUtilizationPercentage")
			unstructured.RemoveNestedField(u.Object, "status")
		}
		if kind.Group == "apps" {
			defaultSelector(u)
		}
		if old != "autoscaling/v1" && old != "karpenter.azure.com/v1alpha2" { // these are served
			m.note("%s has the version %s, which clusters no longer serve: planned as %s", describe(u), old, now)
		}
	default:
		return fmt.Errorf("%s: version %s of this kind is not known: write it as %s", describe(u), old, now)
	}
	u.SetAPIVersion(now)
	return nil
}

// defaultSelector sets the selector that old versions took from the template.
func defaultSelector(u *unstructured.Unstructured) {
	if _, ok, _ := unstructured.NestedMap(u.Object, "spec", "selector"); ok {
		return
	}
	if labels, ok, err := unstructured.NestedMap(u.Object, "spec", "template", "metadata", "labels"); ok && err == nil {
		_ = unstructured.SetNestedMap(u.Object, labels, "spec", "selector", "matchLabels")
	}
}

// karpenterV1 converts a NodePool or NodeClaim of v1beta1.
func (m *manifests) karpenterV1(u *unstructured.Unstructured) error {
	spec, ok := u.Object["spec"].(map[string]any)
	if !ok {
		return errors.New("spec is missing")
	}
	if u.GetKind() == "NodeClaim" {
		m.nodeClassRef(u, spec)
		return nil
	}
	template, ok, err := unstructured.NestedMap(spec, "template", "spec")
	if err != nil || !ok {
		return errors.New("spec.template.spec is missing")
	}
	m.nodeClassRef(u, template)
	delete(template, "resources")
	disruption, ok := spec["disruption"].(map[string]any)
	if !ok {
		disruption = map[string]any{"consolidationPolicy": "WhenUnderutilized"} // v1beta1's default
	}
	if v, ok := disruption["expireAfter"]; ok {
		template["expireAfter"] = v
		delete(disruption, "expireAfter")
	}
	if p, _ := disruption["consolidationPolicy"].(string); p == "WhenUnderutilized" || p == "" {
		disruption["consolidationPolicy"] = "WhenEmptyOrUnderutilized"
	}
	if disruption["consolidateAfter"] == nil {
		disruption["consolidateAfter"] = "0s" // v1 requires it
	}
	spec["disruption"] = disruption
	if err := unstructured.SetNestedMap(spec, template, "template", "spec"); err != nil {
		return fmt.Errorf("spec.template: %w", err)
	}
	m.note("%s has the version karpenter.sh/v1beta1, which clusters no longer serve: planned as karpenter.sh/v1", describe(u))
	return nil
}

// nodeClassRef converts the reference to the node class, and removes the kubelet's
// settings, which v1 has in the node class.
func (m *manifests) nodeClassRef(u *unstructured.Unstructured, spec map[string]any) {
	if ref, ok := spec["nodeClassRef"].(map[string]any); ok {
		group, _, _ := strings.Cut(fmt.Sprint(ref["apiVersion"]), "/")
		if ref["apiVersion"] == nil {
			group = "karpenter.azure.com"
		}
		if ref["kind"] == nil {
			ref["kind"] = "AKSNodeClass"
		}
		ref["group"] = group
		delete(ref, "apiVersion")
	}
	if spec["kubelet"] != nil {
		delete(spec, "kubelet")
		m.note("%s: spec.kubelet of v1beta1 is not planned with; v1 has the kubelet's settings in the AKSNodeClass", describe(u))
	}
}
