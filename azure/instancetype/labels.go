// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package instancetype

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// init adds the provider's labels to Karpenter's package variables, before anything is
// scheduled.
func init() {
	karpv1.RestrictedLabelDomains.Insert(v1beta1.Group)
	karpv1.WellKnownLabels.Insert(
		v1beta1.LabelSKUName, v1beta1.LabelSKUFamily, v1beta1.LabelSKUSeries, v1beta1.LabelSKUVersion,
		v1beta1.LabelSKUCPU, v1beta1.LabelSKUMemory, v1beta1.AKSLabelSKUCPU, v1beta1.AKSLabelSKUMemory,
		v1beta1.LabelSKUNetworkingAccelerated, v1beta1.LabelSKUStoragePremiumCapable,
		v1beta1.LabelSKUStorageEphemeralOSMaxSize, v1beta1.LabelSKUStorageUltraSSD,
		v1beta1.LabelSKUGPUCount, v1beta1.LabelSKUGPUManufacturer, v1beta1.LabelSKUGPUName,
		v1beta1.LabelPlacementScope,
		v1beta1.AKSLabelCluster, v1beta1.AKSLabelMode, v1beta1.AKSLabelScaleSetPriority,
		v1beta1.AKSLabelPriority, v1beta1.AKSLabelOSSKU, v1beta1.AKSLabelFIPSEnabled,
	)
	karpv1.WellKnownLabelsForOfferings.Insert(
		v1beta1.LabelPlacementScope, v1beta1.AKSLabelScaleSetPriority, v1beta1.AKSLabelPriority, v1beta1.LabelSKUStorageUltraSSD,
	)
	booleans := sets.New("true", "false")
	for key, values := range map[string]sets.Set[string]{
		karpv1.CapacityTypeLabelKey:           sets.New(karpv1.CapacityTypeOnDemand, karpv1.CapacityTypeSpot),
		v1beta1.LabelSKUNetworkingAccelerated: booleans,
		v1beta1.LabelSKUStoragePremiumCapable: booleans,
		v1beta1.LabelSKUStorageUltraSSD:       booleans,
		v1beta1.LabelSKUGPUManufacturer:       sets.New(manufacturerNVIDIA, manufacturerAMD),
		v1beta1.LabelPlacementScope:           sets.New(v1beta1.PlacementZonal, v1beta1.PlacementRegional),
		v1beta1.AKSLabelMode:                  sets.New(v1beta1.ModeSystem, v1beta1.ModeUser),
		v1beta1.AKSLabelScaleSetPriority:      sets.New(v1beta1.PriorityRegular, v1beta1.PrioritySpot),
		v1beta1.AKSLabelPriority:              sets.New(v1beta1.PriorityRegular, v1beta1.PrioritySpot),
		v1beta1.AKSLabelOSSKU:                 sets.New(v1beta1.ImageFamilyUbuntu, v1beta1.ImageFamilyAzureLinux),
		v1beta1.AKSLabelFIPSEnabled:           sets.New("true"),
	} {
		karpv1.WellKnownValuesForRequirements[key] = values
	}
	// The topology key of the disk CSI driver is a zone. Its empty value is the zone
	// label's 0.
	karpv1.NormalizedLabels["topology.disk.csi.azure.com/zone"] = corev1.LabelTopologyZone
	karpv1.NormalizedLabelValues[corev1.LabelTopologyZone] = map[string]string{"": v1beta1.RegionalZone}
}
