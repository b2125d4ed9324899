// Package intent is the agreement between the local Azure Resource Manager and
// the machinery that makes its promises true: ARM writes what should exist
// (intents), package local makes it so and writes back what is (statuses).
//
// Both sides are level-triggered and share nothing but etcd, so either can be
// killed at any point and goes on from what is written here. ARM owns the keys
// under IntentPrefix, local those under StatusPrefix; neither writes the
// other's.
//
//	/nap/intent/clusters/<uid>                      ClusterIntent
//	/nap/intent/machines/<uid>/<pool>/<machine>     MachineIntent
//	/nap/status/clusters/<uid>                      ClusterStatus
//	/nap/status/machines/<uid>/<pool>/<machine>     MachineStatus
//
// An intent that is gone means that the thing must go; its status is removed
// by local once nothing of it is left. So "deleted" is: no intent, no status.
package intent

import "time"

// Key prefixes in etcd.
const (
	ClusterIntentPrefix = "/nap/intent/clusters/"
	MachineIntentPrefix = "/nap/intent/machines/"
	ClusterStatusPrefix = "/nap/status/clusters/"
	MachineStatusPrefix = "/nap/status/machines/"
)

// MachinesPool is the agent pool, of mode Machines, that holds the machines
// which node auto-provisioning creates. ARM makes it when the mode becomes
// Auto; it is not listed among the cluster's agentPoolProfiles.
const MachinesPool = "aksmanagedap"

// ClusterIntent is one managed cluster as its control plane has to be.
type ClusterIntent struct {
	// UID names the cluster in keys, folders and etcd prefixes: lower-case
	// letters, digits and dashes, unique for ever (a cluster deleted and made
	// again under the same ARM ID gets a new one).
	UID string `json:"uid"`
	// Generation grows with every change of this intent; the status repeats
	// the last one acted upon.
	Generation int64 `json:"generation"`
	// ResourceID is the cluster's ARM ID, in the casing it was created with.
	ResourceID        string `json:"resourceID"`
	SubscriptionID    string `json:"subscriptionID"`
	TenantID          string `json:"tenantID"`
	ResourceGroup     string `json:"resourceGroup"`
	Name              string `json:"name"`
	NodeResourceGroup string `json:"nodeResourceGroup"`
	// Location is the region's programmatic name, such as "eastus".
	Location string `json:"location"`
	// KubernetesVersion has no leading v, such as "1.36.3".
	KubernetesVersion string `json:"kubernetesVersion"`
	FQDN              string `json:"fqdn"`
	PodCIDR           string `json:"podCIDR"`
	ServiceCIDR       string `json:"serviceCIDR"`
	DNSServiceIP      string `json:"dnsServiceIP"`
	NetworkPlugin     string `json:"networkPlugin"`
	NetworkPluginMode string `json:"networkPluginMode"`
	NetworkDataplane  string `json:"networkDataplane"`
	NetworkPolicy     string `json:"networkPolicy"`
	// VnetSubnetID is the cluster's default node subnet; empty when AKS made it.
	VnetSubnetID string `json:"vnetSubnetID,omitempty"`
	// NodeProvisioning is the state of node auto-provisioning to reach.
	NodeProvisioning NodeProvisioning `json:"nodeProvisioning"`
	// Stopped asks for the control plane to be down (az aks stop).
	Stopped bool `json:"stopped,omitempty"`
}

// NodeProvisioning mirrors the cluster's nodeProvisioningProfile, with the
// identity that the controller signs in to ARM with.
type NodeProvisioning struct {
	// Mode is "Auto" or "Manual".
	Mode string `json:"mode"`
	// DefaultNodePools is "Auto" (create them) or "None".
	DefaultNodePools string `json:"defaultNodePools"`
	// ClientID and ClientSecret are the service principal of the controller,
	// issued by ARM; set while Mode is Auto.
	ClientID     string `json:"clientID,omitempty"`
	ClientSecret string `json:"clientSecret,omitempty"`
}

// ClusterPhase is where a control plane is in its life.
type ClusterPhase string

// The phases of a control plane.
const (
	ClusterStarting ClusterPhase = "Starting"
	ClusterReady    ClusterPhase = "Ready"
	ClusterStopped  ClusterPhase = "Stopped"
	ClusterFailed   ClusterPhase = "Failed"
)

// ClusterStatus is what local reports of a control plane.
type ClusterStatus struct {
	UID string `json:"uid"`
	// ObservedGeneration is the intent's generation that Phase and the rest
	// speak of: an intent is fulfilled when it equals the intent's and Phase is
	// Ready (or Stopped, when that was asked).
	ObservedGeneration int64        `json:"observedGeneration"`
	Phase              ClusterPhase `json:"phase"`
	// Message says what is being waited for, or why it failed.
	Message string `json:"message,omitempty"`
	// Endpoint is the API server's URL, https on loopback.
	Endpoint string `json:"endpoint,omitempty"`
	// AdminKubeconfig and UserKubeconfig are whole kubeconfig files (YAML).
	AdminKubeconfig string `json:"adminKubeconfig,omitempty"`
	UserKubeconfig  string `json:"userKubeconfig,omitempty"`
	// KubernetesVersion is the version the API server reports, without v.
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// NodeProvisioningMode is the mode in force: Auto once CRDs and default
	// NodePools are there and the controller runs and is healthy.
	NodeProvisioningMode string    `json:"nodeProvisioningMode,omitempty"`
	UpdatedAt            time.Time `json:"updatedAt"`
}

// MachineIntent is one virtual machine that should exist and, once booted, be
// a Node of its cluster. Machines of node auto-provisioning and instances of
// scale sets (system and user pools) are told alike.
type MachineIntent struct {
	ClusterUID string `json:"clusterUID"`
	Pool       string `json:"pool"`
	// Name is the machine's name in ARM (agentPools/{pool}/machines/{name}).
	Name string `json:"name"`
	// NodeName is the name of the Node (and the host name of the VM).
	NodeName string `json:"nodeName"`
	// ProviderID is the Node's spec.providerID: "azure://" and the ARM ID of
	// the VM, the resource group in lower case.
	ProviderID string `json:"providerID"`
	// VMSize is the full size name, such as "Standard_D4ds_v5".
	VMSize   string `json:"vmSize"`
	Location string `json:"location"`
	// Zone is the availability zone's number ("1".."3"), or empty for a
	// regional machine.
	Zone string `json:"zone,omitempty"`
	// Spot tells the priority: Spot if true, else Regular.
	Spot bool `json:"spot,omitempty"`
	// Mode is "System" or "User".
	Mode string `json:"mode"`
	// Labels are the node labels asked for by the machine or pool (those that
	// AKS itself puts on every node are added by local).
	Labels map[string]string `json:"labels,omitempty"`
	// Taints are the taints, "key=value:Effect", that the node registers with;
	// initialization taints of the machine API are among them.
	Taints           []string `json:"taints,omitempty"`
	MaxPods          int      `json:"maxPods"`
	OSDiskSizeGB     int      `json:"osDiskSizeGB"`
	OSSKU            string   `json:"osSKU"`
	NodeImageVersion string   `json:"nodeImageVersion"`
	// KubernetesVersion is the kubelet's version, without v.
	KubernetesVersion string `json:"kubernetesVersion"`
	// NodeResourceGroup of the cluster (AKS labels nodes with it).
	NodeResourceGroup string    `json:"nodeResourceGroup"`
	CreatedAt         time.Time `json:"createdAt"`
	// ReimagedAt is when KubernetesVersion or NodeImageVersion were last
	// changed: the machine boots again, and its Node is a new one.
	ReimagedAt time.Time `json:"reimagedAt,omitzero"`
	// Drain asks for the node to be cordoned and its pods to be evicted. Once it
	// is nil (again) the node takes pods.
	Drain *Drain `json:"drain,omitempty"`
}

// Image is what a machine boots from: the version of its kubelet and that of
// its node image.
func (m MachineIntent) Image() string { return m.KubernetesVersion + "/" + m.NodeImageVersion }

// Drain is a request to empty a node.
type Drain struct {
	// Since is when it was asked for. It also tells one request from the next.
	Since time.Time `json:"since"`
	// Timeout is how long evictions and terminations may take, from Since.
	Timeout time.Duration `json:"timeout"`
	// IgnorePDBs has pods deleted rather than evicted, so that no
	// PodDisruptionBudget keeps them.
	IgnorePDBs bool `json:"ignorePDBs,omitempty"`
}

// DrainState is how far a drain is.
type DrainState string

// The states of a drain.
const (
	Draining    DrainState = "Draining"
	Drained     DrainState = "Drained"
	DrainFailed DrainState = "Failed" // the timeout is over, see Message
)

// DrainStatus is what local reports of a drain.
type DrainStatus struct {
	// Since is that of the request that this speaks of.
	Since time.Time  `json:"since"`
	State DrainState `json:"state"`
	// Message says which pods are left and what keeps them.
	Message string `json:"message,omitempty"`
	// At is when State became what it is.
	At time.Time `json:"at"`
}

// MachinePhase is where a machine is in its life.
type MachinePhase string

// The phases of a machine.
const (
	MachineBooting  MachinePhase = "Booting"  // VM allocated, not yet up
	MachineRunning  MachinePhase = "Running"  // VM up: its kubelet registers the Node
	MachineFailed   MachinePhase = "Failed"   // never came up: see Code, Message
	MachineDeleting MachinePhase = "Deleting" // intent gone, VM going away
)

// MachineStatus is what local reports of a machine.
type MachineStatus struct {
	ClusterUID string       `json:"clusterUID"`
	Pool       string       `json:"pool"`
	Name       string       `json:"name"`
	Phase      MachinePhase `json:"phase"`
	// Code and Message are set when Phase is Failed: an Azure allocation error
	// such as "ZonalAllocationFailed", and its text.
	Code     string    `json:"code,omitempty"`
	Message  string    `json:"message,omitempty"`
	BootedAt time.Time `json:"bootedAt"`
	// Image is the MachineIntent.Image that the machine boots or runs.
	Image string `json:"image,omitempty"`
	// Registered tells that the kubelet has registered its Node since the last
	// boot. It is told of the instances of scale sets only.
	Registered bool `json:"registered,omitempty"`
	// Drain is the state of the drain that was asked for last.
	Drain     *DrainStatus `json:"drain,omitempty"`
	UpdatedAt time.Time    `json:"updatedAt"`
}
