package v1beta1

// Label keys that instance types and nodes carry and NodePools select on.
const (
	// LabelSKUName is the full size name, as "Standard_D4ds_v5".
	LabelSKUName = Group + "/sku-name"
	// LabelSKUFamily is the size's family letter, as "D".
	LabelSKUFamily = Group + "/sku-family"
	// LabelSKUSeries is family, sub-family, features and version, as "Dads_v6".
	LabelSKUSeries = Group + "/sku-series"
	// LabelSKUVersion is the generation of the series without v; 1 if none.
	LabelSKUVersion = Group + "/sku-version"
	// LabelSKUCPU is the number of vCPUs.
	LabelSKUCPU = Group + "/sku-cpu"
	// LabelSKUMemory is the memory in whole MiB.
	LabelSKUMemory = Group + "/sku-memory"
	// LabelSKUGPUCount is the number of GPUs, 0 for none.
	LabelSKUGPUCount = Group + "/sku-gpu-count"
	// LabelSKUGPUManufacturer is nvidia or amd; absent without GPU.
	LabelSKUGPUManufacturer = Group + "/sku-gpu-manufacturer"
	// LabelSKUGPUName is the accelerator in the size name, as "A100".
	LabelSKUGPUName = Group + "/sku-gpu-name"
	// LabelSKUNetworkingAccelerated tells accelerated networking: true, false.
	LabelSKUNetworkingAccelerated = Group + "/sku-networking-accelerated"
	// LabelSKUStoragePremiumCapable tells premium disk support: true, false.
	LabelSKUStoragePremiumCapable = Group + "/sku-storage-premium-capable"
	// LabelSKUStorageEphemeralOSMaxSize is the largest ephemeral OS disk, GB.
	LabelSKUStorageEphemeralOSMaxSize = Group + "/sku-storage-ephemeralos-maxsize"
	// LabelSKUStorageUltraSSD tells ultra disk support: true, false.
	LabelSKUStorageUltraSSD = Group + "/sku-storage-ultra-ssd"
	// LabelSKUHyperVGeneration is 1 and/or 2. It matches images to sizes and is
	// not meant for users.
	LabelSKUHyperVGeneration = Group + "/sku-hyperv-generation"
	// LabelPlacementScope is zonal or regional.
	LabelPlacementScope = Group + "/placement-scope"

	// AKSLabelDomain is the domain of the labels that AKS itself owns.
	AKSLabelDomain = "kubernetes.azure.com"
	// AKSLabelCluster is the node resource group in label form.
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
	// AKSLabelSKUCPU repeats LabelSKUCPU under AKS's own key.
	AKSLabelSKUCPU = AKSLabelDomain + "/sku-cpu"
	// AKSLabelSKUMemory repeats LabelSKUMemory under AKS's own key.
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
	// RegionalZone is the zone label value of a machine that is in no zone.
	RegionalZone = "0"
)

// Annotations and the finalizer that the provider writes.
const (
	// AnnotationNodeClassHash is AKSNodeClass.Hash, on the class and its claims.
	AnnotationNodeClassHash = Group + "/aksnodeclass-hash"
	// AnnotationNodeClassHashVersion is HashVersion at the time of hashing.
	AnnotationNodeClassHashVersion = Group + "/aksnodeclass-hash-version"
	// AnnotationInPlaceUpdateHash is the hash of what is updated in place (tags).
	AnnotationInPlaceUpdateHash = Group + "/in-place-update-hash"
	// AnnotationMachineResourceID is the ARM ID of the claim's AKS machine.
	AnnotationMachineResourceID = Group + "/aks-machine-resource-id"
	// TerminationFinalizer keeps a class until no NodeClaim uses it.
	TerminationFinalizer = Group + "/termination"
)
