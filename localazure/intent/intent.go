// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package intent defines the records through which the local Azure Resource Manager
// and the processes that run clusters and machines communicate: ARM writes what should
// exist (intents), the supervisor and the fleet reconcile it and write back what
// exists (statuses).
//
// Both sides are level-triggered and share nothing but etcd, so either can be killed
// at any point and continues from what is written here. ARM owns the intents; the
// supervisor owns the statuses of clusters, the fleet those of machines. Neither side
// writes the other's keys.
//
//	/nap/intent/clusters/<uid>                      ClusterIntent
//	/nap/intent/machines/<uid>/<pool>/<machine>     MachineIntent
//	/nap/status/clusters/<uid>                      ClusterStatus
//	/nap/status/machines/<uid>/<pool>/<machine>     MachineStatus
//
// A deleted intent means that the object must be deleted; its status is removed once
// nothing of it is left. An object without intent and status is deleted.
package intent

import "time"

// Key prefixes in etcd.
const (
	ClusterIntentPrefix = "/nap/intent/clusters/"
	MachineIntentPrefix = "/nap/intent/machines/"
	ClusterStatusPrefix = "/nap/status/clusters/"
	MachineStatusPrefix = "/nap/status/machines/"
)

// MachinesPool is the agent pool, of mode Machines, of the machines that node
// auto-provisioning creates. ARM creates it when the mode becomes Auto; it is not
// listed among the cluster's agentPoolProfiles.
const MachinesPool = "aksmanagedap"

// ClusterIntent is the desired state of a managed cluster's control plane.
type ClusterIntent struct {
	// UID identifies the cluster in keys, folders and etcd prefixes: lower-case
	// letters, digits and dashes, never reused (a cluster that is deleted and created
	// again under the same ARM ID gets a new one).
	UID string `json:"uid"`
	// Generation increases with every change of this intent; the status contains the
	// last one that was reconciled.
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
	// VnetSubnetID is the cluster's default node subnet; empty if AKS created it.
	VnetSubnetID string `json:"vnetSubnetID,omitempty"`
	// NodeProvisioning is the desired state of node auto-provisioning.
	NodeProvisioning NodeProvisioning `json:"nodeProvisioning"`
	// Stopped asks for the control plane to be down (az aks stop).
	Stopped bool `json:"stopped,omitempty"`
}

// NodeProvisioning is the cluster's nodeProvisioningProfile, with the identity with
// which the controller authenticates to ARM.
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

// ClusterPhase is the phase of a control plane's life cycle.
type ClusterPhase string

// The phases of a control plane.
const (
	ClusterStarting ClusterPhase = "Starting"
	ClusterReady    ClusterPhase = "Ready"
	ClusterStopped  ClusterPhase = "Stopped"
	ClusterFailed   ClusterPhase = "Failed"
)

// ClusterStatus is the state of a control plane, reported by the supervisor.
type ClusterStatus struct {
	UID string `json:"uid"`
	// ObservedGeneration is the intent's generation that this status refers to: an
	// intent is fulfilled once it equals the intent's and Phase is Ready (or Stopped,
	// if the intent says so).
	ObservedGeneration int64        `json:"observedGeneration"`
	Phase              ClusterPhase `json:"phase"`
	// Message is what the supervisor waits for, or why it failed.
	Message string `json:"message,omitempty"`
	// Endpoint is the API server's URL, https on loopback.
	Endpoint string `json:"endpoint,omitempty"`
	// AdminKubeconfig and UserKubeconfig are whole kubeconfig files (YAML).
	AdminKubeconfig string `json:"adminKubeconfig,omitempty"`
	UserKubeconfig  string `json:"userKubeconfig,omitempty"`
	// KubernetesVersion is the version the API server reports, without v.
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	// NodeProvisioningMode is the current mode: Auto once CRDs and default NodePools
	// exist and the controller is healthy.
	NodeProvisioningMode string    `json:"nodeProvisioningMode,omitempty"`
	UpdatedAt            time.Time `json:"updatedAt"`
}

// MachineIntent is one virtual machine that should exist and, once booted, be a Node
// of its cluster: a machine of node auto-provisioning or an instance of a scale set
// (system and user pools).
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
	// Spot is the priority: Spot if true, else Regular.
	Spot bool `json:"spot,omitempty"`
	// Mode is "System" or "User".
	Mode string `json:"mode"`
	// Labels are the node labels of the machine or pool, without those that AKS puts
	// on every node, which the fleet adds.
	Labels map[string]string `json:"labels,omitempty"`
	// Taints are the taints, "key=value:Effect", that the node registers with,
	// including the initialization taints of the machine API.
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
	// Drain asks for the node to be cordoned and its pods to be evicted. Without it
	// the node is schedulable.
	Drain *Drain `json:"drain,omitempty"`
}

// Image returns what a machine boots from: the version of its kubelet and that of its
// node image.
func (m MachineIntent) Image() string { return m.KubernetesVersion + "/" + m.NodeImageVersion }

// Drain is a request to drain a node.
type Drain struct {
	// Since is the time of the request. It also identifies the request.
	Since time.Time `json:"since"`
	// Timeout is how long evictions and terminations may take, from Since.
	Timeout time.Duration `json:"timeout"`
	// IgnorePDBs deletes pods instead of evicting them, so that no PodDisruptionBudget
	// prevents it.
	IgnorePDBs bool `json:"ignorePDBs,omitempty"`
}

// DrainState is the progress of a drain.
type DrainState string

// The states of a drain.
const (
	Draining    DrainState = "Draining"
	Drained     DrainState = "Drained"
	DrainFailed DrainState = "Failed" // the timeout has passed, see Message
)

// DrainStatus is the state of a drain, reported by the fleet.
type DrainStatus struct {
	// Since is that of the request that this status refers to.
	Since time.Time  `json:"since"`
	State DrainState `json:"state"`
	// Message says which pods are left and why.
	Message string `json:"message,omitempty"`
	// At is when State last changed.
	At time.Time `json:"at"`
}

// MachinePhase is the phase of a machine's life cycle.
type MachinePhase string

// The phases of a machine.
const (
	MachineBooting  MachinePhase = "Booting"  // VM allocated, not yet running
	MachineRunning  MachinePhase = "Running"  // VM running: its kubelet registers the Node
	MachineFailed   MachinePhase = "Failed"   // allocation failed: see Code, Message
	MachineDeleting MachinePhase = "Deleting" // intent deleted, VM being deleted
)

// MachineStatus is the state of a machine, reported by the fleet.
type MachineStatus struct {
	ClusterUID string       `json:"clusterUID"`
	Pool       string       `json:"pool"`
	Name       string       `json:"name"`
	Phase      MachinePhase `json:"phase"`
	// Code and Message are set if Phase is Failed: an Azure allocation error such as
	// "ZonalAllocationFailed", and its text.
	Code     string    `json:"code,omitempty"`
	Message  string    `json:"message,omitempty"`
	BootedAt time.Time `json:"bootedAt"`
	// Image is the MachineIntent.Image that the machine boots or runs.
	Image string `json:"image,omitempty"`
	// Registered is set once the kubelet has registered its Node since the last boot.
	// It is only maintained for instances of scale sets.
	Registered bool `json:"registered,omitempty"`
	// Drain is the state of the last drain that was requested.
	Drain     *DrainStatus `json:"drain,omitempty"`
	UpdatedAt time.Time    `json:"updatedAt"`
}
