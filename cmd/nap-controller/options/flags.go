// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package options

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers"
)

func (c *commandLine) clusterFlags() {
	a := &c.options.Azure
	c.str(&a.ClusterResourceID, "cluster-resource-id", "CLUSTER_RESOURCE_ID", "", "ARM ID of the managed cluster")
	c.str(&c.subscription, "subscription-id", "ARM_SUBSCRIPTION_ID", "", "subscription of the cluster")
	c.str(&c.resourceGroup, "resource-group", "ARM_RESOURCE_GROUP", "", "resource group of the cluster")
	c.str(&c.cluster, "cluster-name", "CLUSTER_NAME", "", "name of the cluster")
	c.str(&a.Location, "location", "LOCATION", "", "region; read from ARM if empty")
	c.str(&a.NodeResourceGroup, "node-resource-group", "AZURE_NODE_RESOURCE_GROUP", "", "resource group of the machines; read from ARM if empty")
	c.str(&a.NetworkPlugin, "network-plugin", "NETWORK_PLUGIN", "", "azure or none; read from ARM if empty")
	c.str(&a.NetworkPluginMode, "network-plugin-mode", "NETWORK_PLUGIN_MODE", "", "overlay or empty; read from ARM if empty")
	c.str(&a.NetworkPolicy, "network-policy", "NETWORK_POLICY", "", "network policy engine; read from ARM if empty")
	c.str(&a.VnetSubnetID, "vnet-subnet-id", "VNET_SUBNET_ID", "", "the cluster's node subnet; read from ARM if empty")
}

func (c *commandLine) azureFlags() {
	a := &c.options.Azure
	c.str(&a.ARMEndpoint, "arm-endpoint", "ARM_ENDPOINT", "", "base URL of Azure Resource Manager; empty for the public cloud")
	c.str(&a.AuthorityHost, "authority-host", "AZURE_AUTHORITY_HOST", "", "base URL of the token authority; empty for the public cloud")
	c.str(&a.TenantID, "tenant-id", "AZURE_TENANT_ID", "", "tenant to sign in to")
	c.str(&a.ClientID, "client-id", "AZURE_CLIENT_ID", "", "client ID to sign in with")
	c.str(&a.CAFile, "arm-ca-file", "ARM_CA_FILE", "", "PEM file of certificates to trust for the ARM endpoint")
	c.str(&a.MachinesPool, "aks-machines-pool-name", "AKS_MACHINES_POOL_NAME", azure.DefaultMachinesPool, "agent pool of mode Machines that holds the machines")
	c.str(&a.PricesEndpoint, "prices-endpoint", "PRICES_ENDPOINT", "https://prices.azure.com", "base URL of the retail price API; - for embedded prices")
	c.str(&a.ImageGallerySubscriptionID, "sig-subscription-id", "SIG_SUBSCRIPTION_ID", "", "subscription of AKS's image galleries")
	c.str(&c.memoryOverhead, "vm-memory-overhead-percent", "VM_MEMORY_OVERHEAD_PERCENT", "0.075", "fraction of a VM's memory that is not available to its guest")
	c.str(&c.tags, "additional-tags", "ADDITIONAL_TAGS", "", "tags for every machine: key=value, comma separated")
}

func (c *commandLine) kubernetesFlags() {
	o := &c.options
	c.str(&o.Kubeconfig, "kubeconfig", "KUBECONFIG", "", "kubeconfig file; in-cluster configuration if empty")
	c.integer(&o.KubeQPS, "kube-client-qps", "KUBE_CLIENT_QPS", 500, "requests per second to the API server")
	c.integer(&o.KubeBurst, "kube-client-burst", "KUBE_CLIENT_BURST", 1000, "burst of requests to the API server")
	c.boolean(&o.DisableLeaderElection, "disable-leader-election", "DISABLE_LEADER_ELECTION", "run without a lease; safe only if no other replica can run")
	c.str(&o.LeaderElectionNamespace, "leader-election-namespace", "LEADER_ELECTION_NAMESPACE", "kube-system", "namespace of the lease")
	c.str(&o.LeaderElectionName, "leader-election-name", "LEADER_ELECTION_NAME", "karpenter-leader-election", "name of the lease")
	c.str(&o.SystemNamespace, "system-namespace", "SYSTEM_NAMESPACE", "", "namespace of the maintenance window's ConfigMap; empty for none")
	c.str(&o.InstallDefaults, "install-defaults", "INSTALL_DEFAULTS", "", "what to install or update in the cluster first: definitions (the CRDs), or pools for AKS's default NodePools too")
}

func (c *commandLine) provisioningFlags() {
	o := &c.options
	c.str(&o.Engine, "engine", "ENGINE", controllers.EngineNAP, "what decides where pods go: nap or karpenter")
	c.duration(&o.BatchIdle, "batch-idle-duration", "BATCH_IDLE_DURATION", time.Second, "a pass starts when no new pod has arrived for this long")
	c.duration(&o.BatchMax, "batch-max-duration", "BATCH_MAX_DURATION", 10*time.Second, "a pass starts at the latest this long after the first new pod")
	c.duration(&o.LaunchTimeout, "launch-timeout", "LAUNCH_TIMEOUT", 5*time.Minute, "a machine that does not run this long after its NodeClaim was created is replaced")
	c.duration(&o.RegistrationTimeout, "registration-timeout", "REGISTRATION_TIMEOUT", 9*time.Minute, "a machine whose node has not registered after running for this long is replaced; with the launch at most 14m")
	c.duration(&o.InitializationTimeout, "initialization-timeout", "INITIALIZATION_TIMEOUT", 15*time.Minute, "a node that is not ready, or has startup taints, this long after its registration is replaced; negative for never")
	c.str(&o.DecisionDir, "decision-dir", "DECISION_DIR", "", "folder for snapshots of the latest decisions, for nap plan --snapshot")
	c.str(&o.FeatureGates, "feature-gates", "FEATURE_GATES", "", "Karpenter's feature gates: Name=true, comma separated")
	c.str(&o.PreferencePolicy, "preference-policy", "PREFERENCE_POLICY", controllers.PreferencesPriced, "how to treat preferences of pods: Priced (give up those that raise the cost by more than a tenth), Respect or Ignore")
	c.str(&o.MinValuesPolicy, "min-values-policy", "MIN_VALUES_POLICY", "Strict", "how to treat minValues of NodePools: Strict or BestEffort")
}

func (c *commandLine) dashboardFlags() {
	d := &c.options.Dashboard
	c.integer(&d.Port, "dashboard-port", "DASHBOARD_PORT", 0, "port of the dashboard; 0 for none")
	c.str(&d.BindAddress, "dashboard-bind-address", "DASHBOARD_BIND_ADDRESS", "127.0.0.1", "address of the dashboard; kubectl port-forward reaches 127.0.0.1")
	c.str(&d.Dir, "dashboard-dir", "DASHBOARD_DIR", "", "folder that keeps the dashboard's history (7 days, 64 MB); empty: the last decisions, in memory")
	c.str(&d.KeyFile, "dashboard-key-file", "DASHBOARD_KEY_FILE", "", "file with a key that gives access besides tokens of the cluster; loopback only")
	c.str(&c.dashboardHosts, "dashboard-hosts", "DASHBOARD_HOSTS", "", "host names of the dashboard besides localhost, such as that of an ingress, comma separated")
}

func (c *commandLine) processFlags() {
	o := &c.options
	c.str(&o.BindAddress, "bind-address", "BIND_ADDRESS", "127.0.0.1", "address for metrics and health probes")
	c.integer(&o.MetricsPort, "metrics-port", "METRICS_PORT", 8080, "port of /metrics; negative for none")
	c.integer(&o.HealthPort, "health-probe-port", "HEALTH_PROBE_PORT", 8081, "port of /healthz and /readyz; negative for none")
	c.boolean(&o.EnableProfiling, "enable-profiling", "ENABLE_PROFILING", "serve /debug/pprof on the metrics port")
	c.str(&o.LogLevel, "log-level", "LOG_LEVEL", "info", "debug, info or error")
	c.str(&o.LogFile, "log-file", "LOG_FILE", "stdout", "where JSON logs are written")
	c.str(&c.memoryLimit, "memory-limit", "MEMORY_LIMIT", "", "memory limit of the container in bytes; the Go heap is limited to 90% of it")
	c.integer(&c.cpuMillicores, "cpu-requests", "CPU_REQUESTS", 1000, "CPU of the container in millicores")
	c.BoolVar(&c.version, "version", false, "print the version and exit")
}

// str defines a string flag whose default is the environment variable, if that
// is set and not empty.
func (c *commandLine) str(p *string, name, variable, value, usage string) {
	c.fromEnv(variable, func(s string) error { value = s; return nil })
	c.StringVar(p, name, value, withVariable(usage, variable))
}

func (c *commandLine) integer(p *int, name, variable string, value int, usage string) {
	c.fromEnv(variable, func(s string) (err error) { value, err = strconv.Atoi(s); return err })
	c.IntVar(p, name, value, withVariable(usage, variable))
}

func (c *commandLine) boolean(p *bool, name, variable, usage string) {
	value := false
	c.fromEnv(variable, func(s string) (err error) { value, err = strconv.ParseBool(s); return err })
	c.BoolVar(p, name, value, withVariable(usage, variable))
}

func (c *commandLine) duration(p *time.Duration, name, variable string, value time.Duration, usage string) {
	c.fromEnv(variable, func(s string) (err error) { value, err = time.ParseDuration(s); return err })
	c.DurationVar(p, name, value, withVariable(usage, variable))
}

// fromEnv passes the value of a variable that is set and not empty to read. It
// keeps the first error for Parse: help works in any environment.
func (c *commandLine) fromEnv(variable string, read func(string) error) {
	v, ok := c.env(variable)
	if !ok || v == "" {
		return
	}
	if err := read(v); err != nil && c.envErr == nil {
		c.envErr = fmt.Errorf("environment variable %s=%q: %w", variable, v, err)
	}
}

// withVariable appends the variable to a usage text.
func withVariable(usage, variable string) string { return usage + " [" + variable + "]" }
