// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apis

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Names of the objects that are created when node auto-provisioning is enabled with
// defaultNodePools Auto.
const (
	DefaultNodeClassName    = "default"
	DefaultNodePoolName     = "default"
	SystemSurgeNodePoolName = "system-surge"
)

const (
	criticalAddonsOnly    = "CriticalAddonsOnly"
	descriptionAnnotation = "kubernetes.io/description"
)

// DefaultNodeClass returns the AKSNodeClass of the default NodePools.
func DefaultNodeClass() *v1beta1.AKSNodeClass {
	family := v1beta1.ImageFamilyUbuntu
	return &v1beta1.AKSNodeClass{
		ObjectMeta: metav1.ObjectMeta{Name: DefaultNodeClassName, Annotations: map[string]string{descriptionAnnotation: "General purpose AKSNodeClass for running Ubuntu nodes"}},
		Spec:       v1beta1.AKSNodeClassSpec{ImageFamily: &family},
	}
}

// DefaultNodePool returns the general-purpose NodePool: on-demand machines of the D
// family with linux and amd64.
func DefaultNodePool() *karpv1.NodePool {
	return nodePool(DefaultNodePoolName, "General purpose NodePool for generic workloads")
}

// SystemSurgeNodePool returns the NodePool for system pods that do not fit on the
// system pool.
func SystemSurgeNodePool() *karpv1.NodePool {
	p := nodePool(SystemSurgeNodePoolName, "Surge capacity for system pods")
	p.Spec.Template.Labels = map[string]string{v1beta1.AKSLabelMode: v1beta1.ModeSystem}
	p.Spec.Template.Spec.Taints = []corev1.Taint{{Key: criticalAddonsOnly, Value: "true", Effect: corev1.TaintEffectNoSchedule}}
	return p
}

// nodePool returns what the default NodePools have in common.
func nodePool(name, description string) *karpv1.NodePool {
	in := func(key, value string) karpv1.NodeSelectorRequirementWithMinValues {
		return karpv1.NodeSelectorRequirementWithMinValues{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}
	}
	zero := time.Duration(0)
	return &karpv1.NodePool{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{descriptionAnnotation: description}},
		Spec: karpv1.NodePoolSpec{
			Disruption: karpv1.Disruption{
				ConsolidationPolicy: karpv1.ConsolidationPolicyWhenEmptyOrUnderutilized,
				ConsolidateAfter:    karpv1.NillableDuration{Duration: &zero},
				Budgets:             []karpv1.Budget{{Nodes: "30%"}},
			},
			Template: karpv1.NodeClaimTemplate{Spec: karpv1.NodeClaimTemplateSpec{
				NodeClassRef: &karpv1.NodeClassReference{Group: v1beta1.Group, Kind: "AKSNodeClass", Name: DefaultNodeClassName},
				ExpireAfter:  karpv1.NillableDuration{}, // Never
				Requirements: []karpv1.NodeSelectorRequirementWithMinValues{
					in(corev1.LabelArchStable, karpv1.ArchitectureAmd64),
					in(corev1.LabelOSStable, string(corev1.Linux)),
					in(karpv1.CapacityTypeLabelKey, karpv1.CapacityTypeOnDemand),
					in(v1beta1.LabelSKUFamily, "D"),
				},
			}},
		},
	}
}
