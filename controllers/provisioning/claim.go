// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package provisioning

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	karpsched "sigs.k8s.io/karpenter/pkg/controllers/provisioning/scheduling"
	"sigs.k8s.io/karpenter/pkg/scheduling"

	"github.com/nap-aks/nap/engine"
)

// claimFor returns the NodeClaim of a planned machine: the template of its NodePool,
// restricted to what the pods need and to the offerings that hold them all.
func claimFor(pool *karpv1.NodePool, types map[string]*cloudprovider.InstanceType, m *engine.Machine) (*karpv1.NodeClaim, error) {
	template := karpsched.NewNodeClaimTemplate(pool)
	template.Requirements.Add(requirements(m.Requirements).Values()...)

	seen := map[string]bool{}
	values := map[string]map[string]bool{}
	add := func(key, value string) {
		if value == "" {
			return
		}
		if values[key] == nil {
			values[key] = map[string]bool{}
		}
		values[key][value] = true
	}
	for _, o := range m.Offerings {
		add(corev1.LabelTopologyZone, o.Zone)
		add(karpv1.CapacityTypeLabelKey, o.CapacityType)
		if it := types[o.InstanceType]; it != nil && !seen[o.InstanceType] {
			seen[o.InstanceType] = true
			template.InstanceTypeOptions = append(template.InstanceTypeOptions, it)
		}
	}
	if len(template.InstanceTypeOptions) == 0 {
		return nil, fmt.Errorf("the NodePool no longer has any instance type of the plan's %d offerings", len(m.Offerings))
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		template.Requirements.Add(scheduling.NewRequirement(key, corev1.NodeSelectorOpIn, slices.Sorted(maps.Keys(values[key]))...))
	}
	template.Spec.Resources.Requests = resourceList(m.Requests, count(m.Pods))
	claim := template.ToNodeClaim()
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[karpv1.NodeClaimMinValuesRelaxedAnnotationKey] = "false"
	return claim, nil
}

func minValuesRelaxed(claim *karpv1.NodeClaim) string {
	if v := claim.Annotations[karpv1.NodeClaimMinValuesRelaxedAnnotationKey]; v != "" {
		return v
	}
	return "false"
}

// requirements converts requirements of the engine to Karpenter's.
func requirements(list []engine.Requirement) scheduling.Requirements {
	out := scheduling.NewRequirements()
	for _, r := range list {
		var minValues *int
		if r.MinValues > 0 {
			n := r.MinValues
			minValues = &n
		}
		out.Add(scheduling.NewRequirementWithFlexibility(r.Key, corev1.NodeSelectorOperator(r.Operator), minValues, slices.Clone(r.Values)...))
	}
	return out
}

// resourceList converts amounts of the engine (cpu in millicores, the rest in units)
// to quantities, and adds the number of pods unless the amounts have one.
func resourceList(r engine.Resources, pods int) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, amount := range r {
		switch name {
		case engine.ResourceCPU:
			out[corev1.ResourceCPU] = *resource.NewMilliQuantity(amount, resource.DecimalSI)
		case engine.ResourceMemory:
			out[corev1.ResourceMemory] = *resource.NewQuantity(amount, resource.BinarySI)
		default:
			out[corev1.ResourceName(name)] = *resource.NewQuantity(amount, resource.DecimalSI)
		}
	}
	if _, ok := out[corev1.ResourcePods]; !ok {
		out[corev1.ResourcePods] = *resource.NewQuantity(int64(pods), resource.DecimalSI)
	}
	return out
}
