// Command nap-controller is the node auto-provisioning controller for a real
// cluster: the same code that a local nap runs, without the local Azure.
//
// Every flag can be given as an environment variable too; a flag wins.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	options, err := parse(os.Args[1:], os.LookupEnv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = controllers.Run(ctx, options)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nap-controller:", err)
		os.Exit(1)
	}
}

// parse reads flags, with environment variables as their defaults.
func parse(args []string, env func(string) (string, bool), out *os.File) (controllers.Options, error) {
	o := controllers.Options{Azure: azure.Config{VMMemoryOverheadPercent: -1}}
	fs := flag.NewFlagSet("nap-controller", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprintln(out, "nap-controller provisions the nodes of one AKS cluster.")
		fmt.Fprintln(out, "\nIt needs to know the cluster (--cluster-resource-id, or --subscription-id, --resource-group and")
		fmt.Fprintln(out, "--cluster-name) and finds credentials as Azure tools do. Flags, and the variables they default to:")
		fs.PrintDefaults()
	}
	var envErr error
	str := func(p *string, name, variable, value, usage string) {
		if v, ok := env(variable); ok && v != "" {
			value = v
		}
		fs.StringVar(p, name, value, usage+" ["+variable+"]")
	}
	note := func(variable, v string, err error) {
		if err != nil && envErr == nil {
			envErr = fmt.Errorf("environment variable %s=%q: %w", variable, v, err)
		}
	}
	num := func(p *int, name, variable string, value int, usage string) {
		if v, ok := env(variable); ok && v != "" {
			n, err := strconv.Atoi(v)
			note(variable, v, err)
			value = n
		}
		fs.IntVar(p, name, value, usage+" ["+variable+"]")
	}
	yes := func(p *bool, name, variable, usage string) {
		value := false
		if v, ok := env(variable); ok && v != "" {
			b, err := strconv.ParseBool(v)
			note(variable, v, err)
			value = b
		}
		fs.BoolVar(p, name, value, usage+" ["+variable+"]")
	}
	dur := func(p *time.Duration, name, variable string, value time.Duration, usage string) {
		if v, ok := env(variable); ok && v != "" {
			d, err := time.ParseDuration(v)
			note(variable, v, err)
			value = d
		}
		fs.DurationVar(p, name, value, usage+" ["+variable+"]")
	}

	var subscription, group, cluster, overhead, tags string
	var memoryLimit string
	a := &o.Azure
	str(&a.ClusterResourceID, "cluster-resource-id", "CLUSTER_RESOURCE_ID", "", "ARM ID of the managed cluster")
	str(&subscription, "subscription-id", "ARM_SUBSCRIPTION_ID", "", "subscription of the cluster")
	str(&group, "resource-group", "ARM_RESOURCE_GROUP", "", "resource group of the cluster")
	str(&cluster, "cluster-name", "CLUSTER_NAME", "", "name of the cluster")
	str(&a.Location, "location", "LOCATION", "", "region; asked of ARM when empty")
	str(&a.NodeResourceGroup, "node-resource-group", "AZURE_NODE_RESOURCE_GROUP", "", "resource group of the machines; asked of ARM when empty")
	str(&a.ARMEndpoint, "arm-endpoint", "ARM_ENDPOINT", "", "base URL of Azure Resource Manager; empty for the public cloud")
	str(&a.AuthorityHost, "authority-host", "AZURE_AUTHORITY_HOST", "", "base URL of the token authority; empty for the public cloud")
	str(&a.TenantID, "tenant-id", "AZURE_TENANT_ID", "", "tenant to sign in to")
	str(&a.ClientID, "client-id", "AZURE_CLIENT_ID", "", "client ID to sign in with")
	if v, ok := env("AZURE_CLIENT_SECRET"); ok {
		a.ClientSecret = v // no flag: arguments are seen by everyone
	}
	str(&a.CAFile, "arm-ca-file", "ARM_CA_FILE", "", "PEM file of certificates to trust for the ARM endpoint")
	str(&a.MachinesPool, "aks-machines-pool-name", "AKS_MACHINES_POOL_NAME", azure.DefaultMachinesPool, "agent pool of mode Machines that holds the machines")
	str(&a.NetworkPlugin, "network-plugin", "NETWORK_PLUGIN", "", "azure or none; asked of ARM when empty")
	str(&a.NetworkPluginMode, "network-plugin-mode", "NETWORK_PLUGIN_MODE", "", "overlay or empty; asked of ARM when empty")
	str(&a.NetworkPolicy, "network-policy", "NETWORK_POLICY", "", "asked of ARM when empty")
	str(&a.VnetSubnetID, "vnet-subnet-id", "VNET_SUBNET_ID", "", "the cluster's node subnet; asked of ARM when empty")
	str(&a.PricesEndpoint, "prices-endpoint", "PRICES_ENDPOINT", "https://prices.azure.com", "base URL of the retail price API; - for embedded prices")
	str(&a.ImageGallerySubscriptionID, "sig-subscription-id", "SIG_SUBSCRIPTION_ID", "", "subscription of AKS's image galleries")
	str(&overhead, "vm-memory-overhead-percent", "VM_MEMORY_OVERHEAD_PERCENT", "0.075", "share of a VM's memory that its guest does not see")
	str(&tags, "additional-tags", "ADDITIONAL_TAGS", "", "tags for every machine: key=value, comma separated")

	str(&o.Kubeconfig, "kubeconfig", "KUBECONFIG", "", "kubeconfig file; in-cluster configuration when empty")
	str(&o.BindAddress, "bind-address", "BIND_ADDRESS", "127.0.0.1", "address that metrics and health listen on")
	num(&o.MetricsPort, "metrics-port", "METRICS_PORT", 8080, "port of /metrics; negative for none")
	num(&o.HealthPort, "health-probe-port", "HEALTH_PROBE_PORT", 8081, "port of /healthz and /readyz; negative for none")
	yes(&o.EnableProfiling, "enable-profiling", "ENABLE_PROFILING", "serve /debug/pprof on the metrics port")
	yes(&o.DisableLeaderElection, "disable-leader-election", "DISABLE_LEADER_ELECTION", "for a controller that is alone for sure")
	str(&o.LeaderElectionNamespace, "leader-election-namespace", "LEADER_ELECTION_NAMESPACE", "kube-system", "namespace of the lease")
	str(&o.LeaderElectionName, "leader-election-name", "LEADER_ELECTION_NAME", "karpenter-leader-election", "name of the lease")
	dur(&o.BatchIdle, "batch-idle-duration", "BATCH_IDLE_DURATION", time.Second, "a pass starts when no new pod came for so long")
	dur(&o.BatchMax, "batch-max-duration", "BATCH_MAX_DURATION", 10*time.Second, "a pass starts at the latest after so long")
	str(&o.Engine, "engine", "ENGINE", controllers.EngineNAP, "what decides where pods go: nap or karpenter")
	str(&o.DecisionDir, "decision-dir", "DECISION_DIR", "", "folder for snapshots of the last decisions, to replay with nap plan")
	str(&o.FeatureGates, "feature-gates", "FEATURE_GATES", "", "Karpenter's feature gates: Name=true, comma separated")
	str(&o.PreferencePolicy, "preference-policy", "PREFERENCE_POLICY", "Respect", "what becomes of pods' preferences: Respect or Ignore")
	str(&o.MinValuesPolicy, "min-values-policy", "MIN_VALUES_POLICY", "Strict", "Strict or BestEffort")
	str(&o.LogLevel, "log-level", "LOG_LEVEL", "info", "debug, info or error")
	str(&o.LogFile, "log-file", "LOG_FILE", "stdout", "where JSON logs go")
	num(&o.KubeQPS, "kube-client-qps", "KUBE_CLIENT_QPS", 200, "requests per second to the API server")
	num(&o.KubeBurst, "kube-client-burst", "KUBE_CLIENT_BURST", 300, "requests at once to the API server")
	str(&o.SystemNamespace, "system-namespace", "SYSTEM_NAMESPACE", "", "namespace of the maintenance window's ConfigMap; empty for none")
	str(&o.InstallDefaults, "install-defaults", "INSTALL_DEFAULTS", "", "bring the cluster's definitions up to date first: definitions, or pools to create AKS's default NodePools too")
	str(&memoryLimit, "memory-limit", "MEMORY_LIMIT", "", "memory limit of the container in bytes; the collector keeps to 90% of it")
	cpu := 1000
	num(&cpu, "cpu-requests", "CPU_REQUESTS", 1000, "CPU of the container in millicores")

	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if envErr != nil {
		return o, envErr
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see --help", fs.Arg(0))
	}
	o.CPUMillicores = int64(cpu)
	if a.PricesEndpoint == "-" {
		a.PricesEndpoint = ""
	}
	if a.ClusterResourceID == "" {
		if subscription == "" || group == "" || cluster == "" {
			return o, fmt.Errorf("which cluster? Give --cluster-resource-id, or --subscription-id, --resource-group and --cluster-name")
		}
		a.ClusterResourceID = fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.ContainerService/managedClusters/%s", subscription, group, cluster)
	}
	var err error
	if a.VMMemoryOverheadPercent, err = strconv.ParseFloat(overhead, 64); err != nil || a.VMMemoryOverheadPercent < 0 || a.VMMemoryOverheadPercent >= 1 {
		return o, fmt.Errorf("--vm-memory-overhead-percent %q is not a share from 0 to 1", overhead)
	}
	if a.AdditionalTags, err = parseTags(tags); err != nil {
		return o, err
	}
	if memoryLimit != "" {
		bytes, err := strconv.ParseInt(memoryLimit, 10, 64)
		if err != nil {
			return o, fmt.Errorf("--memory-limit %q is not a number of bytes", memoryLimit)
		}
		if bytes > 0 {
			debug.SetMemoryLimit(bytes / 10 * 9)
		}
	}
	return o, nil
}

// parseTags reads key=value pairs. Keys are unique without regard to case, as
// Azure sees them.
func parseTags(list string) (map[string]string, error) {
	if list == "" {
		return nil, nil
	}
	out, seen := map[string]string{}, map[string]bool{}
	for _, pair := range strings.Split(list, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
		switch {
		case !ok || k == "":
			return nil, fmt.Errorf("additional tag %q is not key=value", pair)
		case len(k) > 512 || strings.ContainsAny(k, `<>%&\?/`):
			return nil, fmt.Errorf("additional tag key %q is longer than 512 characters or has one of < > %% & \\ ? /", k)
		case len(v) > 256:
			return nil, fmt.Errorf("the value of additional tag %q is longer than 256 characters", k)
		case seen[strings.ToLower(k)]:
			return nil, fmt.Errorf("additional tag %q is given twice", k)
		}
		out[k], seen[strings.ToLower(k)] = v, true
	}
	return out, nil
}
