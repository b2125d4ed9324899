// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// setting is a property that a client may leave out, or that has a fixed set of
// values. Values are compared without regard to case and stored as AKS spells
// them.
type setting struct {
	path    string   // from the root of the document, with dots
	allowed []string // nil: any value
	value   any      // the default; nil: none
}

// clusterSettings are the settings of a managed cluster. Names, versions and the
// network profile are computed: see nameCluster, prepareVersion and
// prepareNetwork.
var clusterSettings = []setting{
	{"sku.name", strs(armcontainerservice.PossibleManagedClusterSKUNameValues()), "Base"},
	{"sku.tier", strs(armcontainerservice.PossibleManagedClusterSKUTierValues()), "Free"},
	{"properties.nodeProvisioningProfile.mode", strs(armcontainerservice.PossibleNodeProvisioningModeValues()), modeManual},
	{"properties.nodeProvisioningProfile.defaultNodePools", strs(armcontainerservice.PossibleNodeProvisioningDefaultNodePoolsValues()), "Auto"},
	{"properties.autoUpgradeProfile.upgradeChannel", strs(armcontainerservice.PossibleUpgradeChannelValues()), nil},
	{"properties.autoUpgradeProfile.nodeOSUpgradeChannel", strs(armcontainerservice.PossibleNodeOSUpgradeChannelValues()), "NodeImage"},
	{"properties.supportPlan", strs(armcontainerservice.PossibleKubernetesSupportPlanValues()), "KubernetesOfficial"},
	{"properties.servicePrincipalProfile.clientId", nil, "msi"},
	{"properties.powerState.code", nil, "Running"},
	{"properties.enableRBAC", nil, true},
	{"properties.maxAgentPools", nil, 100.0},
	{"properties.disableLocalAccounts", nil, false},
	{"properties.windowsProfile.adminUsername", nil, "azureuser"},
	{"properties.windowsProfile.enableCSIProxy", nil, true},
	{"properties.oidcIssuerProfile.enabled", nil, false},
	{"properties.securityProfile", nil, map[string]any{}},
	{"properties.workloadAutoScalerProfile", nil, map[string]any{}},
	{"properties.storageProfile.diskCSIDriver.enabled", nil, true},
	{"properties.storageProfile.fileCSIDriver.enabled", nil, true},
	{"properties.storageProfile.snapshotController.enabled", nil, true},
	{"properties.metricsProfile.costAnalysis.enabled", nil, false},
}

// networkValues are the values of the properties of a cluster's network profile,
// whose defaults depend on each other.
var networkValues = []setting{
	{"properties.networkProfile.networkPlugin", []string{"azure", "kubenet", "none"}, nil},
	{"properties.networkProfile.networkPluginMode", []string{"overlay"}, nil},
	{"properties.networkProfile.networkDataplane", []string{"azure", "cilium"}, nil},
	{"properties.networkProfile.networkPolicy", []string{"azure", "calico", "cilium", "none"}, nil},
	{"properties.networkProfile.loadBalancerSku", []string{"standard", "basic"}, nil},
	{"properties.networkProfile.outboundType", []string{"loadBalancer", "userDefinedRouting", "managedNATGateway", "userAssignedNATGateway", "none", "block"}, nil},
}

// networkDefaults come after the network plugin has been chosen.
var networkDefaults = []setting{
	{"properties.networkProfile.networkDataplane", nil, "azure"},
	{"properties.networkProfile.networkPolicy", nil, "none"},
	{"properties.networkProfile.loadBalancerSku", nil, "standard"},
	{"properties.networkProfile.outboundType", nil, "loadBalancer"},
	{"properties.networkProfile.serviceCidr", nil, "10.0.0.0/16"},
	{"properties.networkProfile.dnsServiceIP", nil, "10.0.0.10"},
}

// poolSettings are the settings of an agent pool. The size, count, disk, number
// of pods and versions are computed: see completePool.
var poolSettings = []setting{
	{"properties.mode", []string{"System", "User", "Gateway"}, "User"},
	{"properties.osType", []string{"Linux", "Windows"}, "Linux"},
	{"properties.osSKU", strs(armcontainerservice.PossibleOSSKUValues()), "Ubuntu"},
	{"properties.type", []string{"VirtualMachineScaleSets", "VirtualMachines", "AvailabilitySet"}, "VirtualMachineScaleSets"},
	{"properties.scaleSetPriority", []string{"Regular", "Spot"}, "Regular"},
	{"properties.scaleSetEvictionPolicy", []string{"Delete", "Deallocate"}, nil},
	{"properties.scaleDownMode", []string{"Delete", "Deallocate"}, "Delete"},
	{"properties.osDiskType", []string{"Managed", "Ephemeral"}, nil},
	{"properties.kubeletDiskType", strs(armcontainerservice.PossibleKubeletDiskTypeValues()), "OS"},
	{"properties.powerState.code", nil, "Running"},
	{"properties.enableAutoScaling", nil, false},
	{"properties.enableNodePublicIP", nil, false},
	{"properties.enableFIPS", nil, false},
	{"properties.enableEncryptionAtHost", nil, false},
	{"properties.enableUltraSSD", nil, false},
	{"properties.securityProfile", nil, map[string]any{"enableVTPM": false, "enableSecureBoot": false}},
	{"properties.upgradeSettings.maxSurge", nil, "10%"},
	{"properties.upgradeSettings.maxUnavailable", nil, "0"},
	{"properties.upgradeSettings.undrainableNodeBehavior", strs(armcontainerservice.PossibleUndrainableNodeBehaviorValues()), nil},
}

// machineSettings are the settings of a machine.
var machineSettings = []setting{
	{"properties.mode", []string{"System", "User"}, "User"},
	{"properties.priority", []string{"Regular", "Spot"}, "Regular"},
	{"properties.operatingSystem.osType", []string{"Linux", "Windows"}, "Linux"},
	{"properties.operatingSystem.osSKU", strs(armcontainerservice.PossibleOSSKUValues()), "Ubuntu"},
}

// What cannot be changed after the creation of a cluster, a pool and a machine.
var (
	clusterImmutable = []string{"properties.dnsPrefix", "properties.nodeResourceGroup", "properties.enableRBAC", "properties.networkProfile.networkPlugin", "properties.networkProfile.podCidr", "properties.networkProfile.serviceCidr",
		"properties.networkProfile.dnsServiceIP", "properties.networkProfile.loadBalancerSku", "properties.fqdn", "properties.linuxProfile.adminUsername"}
	poolImmutable = []string{"properties.vmSize", "properties.osType", "properties.type", "properties.osDiskSizeGB", "properties.osDiskType", "properties.maxPods", "properties.scaleSetPriority", "properties.vnetSubnetID",
		"properties.podSubnetID"}
	machineImmutable = []string{"properties.hardware.vmSize", "zones", "properties.priority", "properties.mode", "properties.nodeImageVersion", "properties.kubernetes.orchestratorVersion",
		"properties.operatingSystem.osDiskSizeGB", "properties.operatingSystem.osSKU"}
)

// complete checks and fills settings of a document.
func complete(d rp.Doc, settings []setting) error {
	for _, s := range settings {
		path := strings.Split(s.path, ".")
		if s.allowed != nil {
			if err := oneOf(d, s.allowed, path...); err != nil {
				return err
			}
		}
		switch v := s.value.(type) {
		case nil:
		case map[string]any:
			d.Default(map[string]any(rp.Doc(v).Clone()), path...)
		default:
			d.Default(v, path...)
		}
	}
	return nil
}

// oneOf checks that a property, if it is set, has one of the allowed values.
func oneOf(d rp.Doc, allowed []string, path ...string) error {
	v, ok := d.Lookup(path...)
	if !ok || v == nil || v == "" || d.Canonicalize(allowed, path...) {
		return nil
	}
	return rp.BadRequest("InvalidParameter", "The value of parameter %s is invalid: '%v' is none of %s. Please see https://aka.ms/aks-naming-rules for more details.", path[len(path)-1], v, strings.Join(allowed, ", ")).At(strings.Join(path, "."))
}

func strs[T ~string](vs []T) []string {
	var out []string
	for _, v := range vs {
		out = append(out, string(v))
	}
	return out
}

// changedProperty returns the first of the paths whose value differs, and the old
// value; "" if none does. A property that was not set may be set if addable.
func changedProperty(d, old rp.Doc, paths []string, addable bool) (path string, was any) {
	for _, p := range paths {
		keys := strings.Split(p, ".")
		before, had := old.Lookup(keys...)
		after, _ := d.Lookup(keys...)
		if (had || !addable) && !strings.EqualFold(fmt.Sprint(before), fmt.Sprint(after)) {
			return p, before
		}
	}
	return "", nil
}

// defaultSizes are the sizes of a pool without vmSize: the first that the region
// has.
var defaultSizes = []string{"Standard_D4ds_v5", "Standard_D4d_v4", "Standard_D4s_v5", "Standard_D4as_v5", "Standard_D4s_v3"}

// maxPoolCount is the maximum number of nodes of a pool.
const maxPoolCount = 1000

// completePool fills a pool's defaults and checks it against its cluster's
// document and the pool's document before (nil if new).
func (p *Provider) completePool(cluster, d, old rp.Doc, name string) error {
	var model armcontainerservice.AgentPool
	if err := d.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The agent pool '%s' does not have the shape of one: %v", name, err).At("agentPoolProfile")
	}
	if equal(d.Str("properties", "osType"), "Windows") {
		d.Default("Windows2022", "properties", "osSKU")
	}
	if err := complete(d, poolSettings); err != nil {
		return err
	}
	size, err := completePoolSize(cluster.Str("location"), d)
	if err != nil {
		return err
	}
	if err := completePoolCount(d, old); err != nil {
		return err
	}
	if err := checkUpgradeSettings(d, name); err != nil {
		return err
	}
	if err := completeMaxPods(cluster, d); err != nil {
		return err
	}
	completeDisk(d, size)
	if err := checkAutoScaling(d, name); err != nil {
		return err
	}
	if err := checkPlacement(d, size, name, cluster.Str("location")); err != nil {
		return err
	}
	if err := checkTaints(d.Strings("properties", "nodeTaints")); err != nil {
		return err
	}
	if err := p.completePoolVersion(cluster, d, old, name, size); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	if path, _ := changedProperty(d, old, poolImmutable, true); path != "" {
		return rp.BadRequest("PropertyChangeNotAllowed", "Changing property '%s' is not allowed.", path).At(path)
	}
	return nil
}

func completePoolSize(location string, d rp.Doc) (catalog.Size, error) {
	if d.Str("properties", "vmSize") == "" {
		for _, s := range defaultSizes {
			if _, err := catalog.Lookup(location, s); err == nil {
				d.Set(s, "properties", "vmSize")
				break
			}
		}
	}
	size, err := catalog.Lookup(location, d.Str("properties", "vmSize"))
	if err != nil {
		return catalog.Size{}, rp.BadRequest("VMSizeNotSupported", "The VM size of %s is not supported in location %s. Sizes: az vm list-skus -l %s --resource-type virtualMachines.", d.Str("properties", "vmSize"), location, location).At("agentPoolProfile.vmSize")
	}
	d.Set(size.Name, "properties", "vmSize")
	return size, nil
}

func completePoolCount(d, old rp.Doc) error {
	if old.Bool("properties", "enableAutoScaling") && d.Bool("properties", "enableAutoScaling") {
		// The cluster autoscaler owns the count. Clients send the one that they
		// have read, which may be outdated.
		n, _ := old.Int("properties", "count")
		lo, _ := d.Int("properties", "minCount")
		hi, ok := d.Int("properties", "maxCount")
		if ok && lo <= hi {
			n = min(max(n, lo), hi)
		}
		d.Set(float64(n), "properties", "count")
	}
	count, ok := d.Int("properties", "count")
	if v, there := d.Lookup("properties", "count"); there && v != nil && !ok || ok && (count < 0 || count > maxPoolCount) {
		return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.count is invalid: a pool has 0 to %d nodes.", maxPoolCount).At("agentPoolProfile.count")
	}
	if !ok {
		d.Set(1.0, "properties", "count")
	}
	return nil
}

func completeMaxPods(cluster, d rp.Doc) error {
	if n, ok := d.Int("properties", "maxPods"); !ok || n == 0 {
		def := 250
		switch {
		case equal(cluster.Str("properties", "networkProfile", "networkPlugin"), "kubenet"):
			def = 110
		case cluster.Str("properties", "networkProfile", "networkPluginMode") != "overlay":
			def = 30
		}
		d.Set(float64(def), "properties", "maxPods")
	}
	if n, _ := d.Int("properties", "maxPods"); n < 10 || n > 250 {
		return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.kubernetesConfig.maxPods is invalid: %d is not between 10 and 250.", n).At("agentPoolProfile.maxPods")
	}
	return nil
}

// completeDisk chooses an ephemeral OS disk if the size's local disk is large
// enough.
func completeDisk(d rp.Doc, size catalog.Size) {
	if n, ok := d.Int("properties", "osDiskSizeGB"); !ok || n == 0 {
		gb := 128
		if size.EphemeralOSDisk && size.ResourceDiskMiB > 0 && d.Str("properties", "osDiskType") != "Managed" {
			if r := int(size.ResourceDiskMiB / 1024); r >= 30 {
				gb = r
				d.Default("Ephemeral", "properties", "osDiskType")
			}
		}
		d.Set(float64(gb), "properties", "osDiskSizeGB")
	}
	d.Default("Managed", "properties", "osDiskType")
}

func checkAutoScaling(d rp.Doc, name string) error {
	if !d.Bool("properties", "enableAutoScaling") {
		d.Drop("properties", "minCount")
		d.Drop("properties", "maxCount")
		return nil
	}
	count, _ := d.Int("properties", "count")
	lo, ok1 := d.Int("properties", "minCount")
	hi, ok2 := d.Int("properties", "maxCount")
	if !ok1 || !ok2 || lo > hi || count < lo || count > hi {
		return rp.BadRequest("InvalidParameter", "Autoscaling of pool '%s' needs minCount <= count <= maxCount; they are %d, %d, %d.", name, lo, count, hi).At("agentPoolProfile.minCount")
	}
	return nil
}

// checkPlacement checks a pool's zones and priority against its size.
func checkPlacement(d rp.Doc, size catalog.Size, name, location string) error {
	for _, z := range d.Strings("properties", "availabilityZones") {
		if !slices.Contains(size.Zones, z) {
			return rp.BadRequest("AvailabilityZoneNotSupported", "The zone(s) '%s' for resource '%s' is not supported. The supported zones for location '%s' are '%s'.", z, name, location, strings.Join(size.Zones, ",")).At("agentPoolProfile.availabilityZones")
		}
	}
	if !equal(d.Str("properties", "scaleSetPriority"), "Spot") {
		return nil
	}
	if equal(d.Str("properties", "mode"), "System") {
		return rp.BadRequest("InvalidParameter", "A system agent pool cannot be of priority Spot.").At("agentPoolProfile.scaleSetPriority")
	}
	if !size.SpotCapable {
		return rp.BadRequest("VMSizeNotSupported", "The VM size %s is not available as Spot in %s.", size.Name, location).At("agentPoolProfile.vmSize")
	}
	return nil
}

// completePoolVersion sets the Kubernetes and node image versions of a pool. They
// change only when the client asks for another Kubernetes version.
func (p *Provider) completePoolVersion(cluster, d, old rp.Doc, name string, size catalog.Size) error {
	current := cluster.Str("properties", "currentKubernetesVersion")
	asked := d.Str("properties", "orchestratorVersion")
	full := current
	if old != nil {
		full = old.Str("properties", "currentOrchestratorVersion")
	}
	if asked != "" && asked != full && !(old != nil && asked == old.Str("properties", "orchestratorVersion")) {
		if asked == minor(current) {
			full = current
		} else {
			var err error
			if full, err = p.versions.resolve(asked, cluster.Str("location")); err != nil {
				return err
			}
		}
		if compareVersions(full, current) > 0 {
			return rp.BadRequest("NodePoolMcVersionIncompatible", "Node pool version %s and control plane version %s are incompatible. The node pool's version cannot be newer than the control plane's.", full, current).At("agentPoolProfile.orchestratorVersion")
		}
		if old != nil && compareVersions(full, old.Str("properties", "currentOrchestratorVersion")) < 0 {
			return rp.BadRequest("OperationNotAllowed", "Downgrading agent pool '%s' from version %s to %s is not allowed.", name, old.Str("properties", "currentOrchestratorVersion"), full).At("agentPoolProfile.orchestratorVersion")
		}
	}
	if asked == "" {
		d.Set(cluster.Str("properties", "kubernetesVersion"), "properties", "orchestratorVersion")
		if old != nil {
			d.Set(old.Str("properties", "orchestratorVersion"), "properties", "orchestratorVersion")
		}
	}
	d.Set(full, "properties", "currentOrchestratorVersion")
	img := poolImage(d.Str("properties", "osSKU"), size.Arch)
	if old != nil && full == old.Str("properties", "currentOrchestratorVersion") && old.Str("properties", "nodeImageVersion") != "" {
		img = old.Str("properties", "nodeImageVersion")
	}
	d.Set(img, "properties", "nodeImageVersion")
	return nil
}

var taintRule = regexp.MustCompile(`^([A-Za-z0-9./_-]+)(=[A-Za-z0-9._-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$`)

func checkTaints(taints []string) error {
	for _, t := range taints {
		if !taintRule.MatchString(t) {
			return rp.BadRequest("InvalidParameter", "The taint '%s' is not of the form key=value:effect with effect NoSchedule, PreferNoSchedule or NoExecute.", t).At("nodeTaints")
		}
	}
	return nil
}
