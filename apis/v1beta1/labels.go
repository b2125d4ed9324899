// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

// Labels of instance types and nodes, which NodePools can select on.
const (
	// LabelSKUName is the full size name, e.g. "Standard_D4ds_v5".
	LabelSKUName = Group + "/sku-name"
	// LabelSKUFamily is the family in the size name, e.g. "D".
	LabelSKUFamily = Group + "/sku-family"
	// LabelSKUSeries is family, sub-family, features and version, e.g. "Dads_v6".
	LabelSKUSeries = Group + "/sku-series"
	// LabelSKUVersion is the version of the series without v; 1 if the name has none.
	LabelSKUVersion = Group + "/sku-version"
	// LabelSKUCPU is the number of vCPUs.
	LabelSKUCPU = Group + "/sku-cpu"
	// LabelSKUMemory is the memory in MiB.
	LabelSKUMemory = Group + "/sku-memory"
	// LabelSKUGPUCount is the number of GPUs, 0 if there are none.
	LabelSKUGPUCount = Group + "/sku-gpu-count"
	// LabelSKUGPUManufacturer is nvidia or amd; absent without GPUs.
	LabelSKUGPUManufacturer = Group + "/sku-gpu-manufacturer"
	// LabelSKUGPUName is the accelerator in the size name, e.g. "A100".
	LabelSKUGPUName = Group + "/sku-gpu-name"
	// LabelSKUNetworkingAccelerated is true with accelerated networking, else false.
	LabelSKUNetworkingAccelerated = Group + "/sku-networking-accelerated"
	// LabelSKUStoragePremiumCapable is true with premium disk support, else false.
	LabelSKUStoragePremiumCapable = Group + "/sku-storage-premium-capable"
	// LabelSKUStorageEphemeralOSMaxSize is the largest ephemeral OS disk in GB.
	LabelSKUStorageEphemeralOSMaxSize = Group + "/sku-storage-ephemeralos-maxsize"
	// LabelSKUStorageUltraSSD is true with ultra disk support, else false.
	LabelSKUStorageUltraSSD = Group + "/sku-storage-ultra-ssd"
	// LabelSKUHyperVGeneration is 1, 2 or both. It matches images to sizes and is
	// internal.
	LabelSKUHyperVGeneration = Group + "/sku-hyperv-generation"
	// LabelPlacementScope is zonal or regional.
	LabelPlacementScope = Group + "/placement-scope"

	// AKSLabelDomain is the domain of the labels that AKS owns.
	AKSLabelDomain = "kubernetes.azure.com"
	// AKSLabelCluster is the node resource group as a label value.
	AKSLabelCluster = AKSLabelDomain + "/cluster"
	// AKSLabelMode is system or user.
	AKSLabelMode = AKSLabelDomain + "/mode"
	// AKSLabelScaleSetPriority is regular or spot.
	AKSLabelScaleSetPriority = AKSLabelDomain + "/scalesetpriority"
	// AKSLabelPriority is regular or spot.
	AKSLabelPriority = AKSLabelDomain + "/priority"
	// AKSLabelOSSKU is Ubuntu or AzureLinux.
	AKSLabelOSSKU = AKSLabelDomain + "/os-sku"
	// AKSLabelFIPSEnabled is true on FIPS nodes, else absent.
	AKSLabelFIPSEnabled = AKSLabelDomain + "/fips_enabled"
	// AKSLabelSKUCPU has the value of LabelSKUCPU.
	AKSLabelSKUCPU = AKSLabelDomain + "/sku-cpu"
	// AKSLabelSKUMemory has the value of LabelSKUMemory.
	AKSLabelSKUMemory = AKSLabelDomain + "/sku-memory"
)

// Values of LabelPlacementScope, AKSLabelMode and the priority labels.
const (
	PlacementZonal    = "zonal"
	PlacementRegional = "regional"
	ModeSystem        = "system"
	ModeUser          = "user"
	PriorityRegular   = "regular"
	PrioritySpot      = "spot"
	// RegionalZone is the zone label of a machine without a zone.
	RegionalZone = "0"
)

// Annotations and the finalizer that the provider sets.
const (
	// AnnotationNodeClassHash is AKSNodeClass.Hash, on the class and its NodeClaims.
	AnnotationNodeClassHash = Group + "/aksnodeclass-hash"
	// AnnotationNodeClassHashVersion is the HashVersion of that hash.
	AnnotationNodeClassHashVersion = Group + "/aksnodeclass-hash-version"
	// AnnotationInPlaceUpdateHash is the hash of the fields updated in place (tags).
	AnnotationInPlaceUpdateHash = Group + "/in-place-update-hash"
	// AnnotationMachineResourceID is the ARM ID of the NodeClaim's AKS machine.
	AnnotationMachineResourceID = Group + "/aks-machine-resource-id"
	// TerminationFinalizer blocks deletion of a class while a NodeClaim uses it.
	TerminationFinalizer = Group + "/termination"
)
