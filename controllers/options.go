// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers/machines"
)

// EventSource is the source component of all events of the controller:
// kubectl get events --field-selector source=node-auto-provisioning.
const EventSource = "node-auto-provisioning"

// Engines that decide where pending pods go.
const (
	EngineNAP       = "nap"
	EngineKarpenter = "karpenter"
)

// PreferencesPriced is the preference policy that honours preferences of pods where
// that raises the cost of the machines by little, see engine.PreferencesPriced.
const PreferencesPriced = "Priced"

// Values of Options.InstallDefaults; see the function InstallDefaults.
const (
	InstallDefinitions = "definitions"
	InstallPools       = "pools"
)

// Options configure Run. The zero value of everything but Azure is usable.
type Options struct {
	// Kubeconfig is a path; empty means in-cluster configuration, or the usual
	// kubeconfig rules outside of one.
	Kubeconfig string
	// API is the client configuration of the API server; nil means the one of
	// Kubeconfig. Its rate limits are replaced by KubeQPS and KubeBurst.
	API *rest.Config
	// Azure has the ARM endpoint and the cluster.
	Azure azure.Config

	// BindAddress is the IP address of the metrics and health ports; empty means
	// 127.0.0.1. Use 0.0.0.0 in a container.
	BindAddress string
	// MetricsPort serves /metrics, HealthPort /healthz and /readyz. Zero means
	// 8080 and 8081; a negative port disables the listener.
	MetricsPort int
	HealthPort  int
	// EnableProfiling serves /debug/pprof on the metrics port.
	EnableProfiling bool

	// Dashboard is the live view of the cluster; its zero value serves none.
	Dashboard Dashboard

	// DisableLeaderElection is for a controller that has no other replicas.
	DisableLeaderElection bool
	// LeaderElectionNamespace is the namespace of the lease; empty means kube-system.
	LeaderElectionNamespace string
	// LeaderElectionName is the name of the lease; empty means
	// karpenter-leader-election, which excludes a second Karpenter in the cluster.
	LeaderElectionName string

	// BatchIdle and BatchMax control the batching of pending pods: a pass starts after
	// BatchIdle without new pods, at the latest after BatchMax. Zero means 1 s and
	// 10 s.
	BatchIdle time.Duration
	BatchMax  time.Duration
	// LaunchTimeout, RegistrationTimeout and InitializationTimeout are the deadlines for
	// the steps of a machine's start; one that misses a deadline is replaced. Zero means
	// 5, 9 and 15 minutes, a negative InitializationTimeout no deadline. The first two
	// cannot be longer than 14 minutes together.
	LaunchTimeout         time.Duration
	RegistrationTimeout   time.Duration
	InitializationTimeout time.Duration
	// Engine is EngineNAP or EngineKarpenter; empty means EngineNAP.
	Engine string
	// DecisionDir is the folder where the provisioner keeps the snapshots of its latest
	// passes, to be replayed with nap plan; empty keeps none. EngineNAP only.
	DecisionDir string
	// FeatureGates are Karpenter's, for example "NodeRepair=true,StaticCapacity=true".
	FeatureGates string
	// PreferencePolicy is PreferencesPriced (default) or one of Karpenter's, Respect
	// and Ignore. EngineKarpenter takes PreferencesPriced for Respect. MinValuesPolicy
	// is Strict (default) or BestEffort.
	PreferencePolicy string
	MinValuesPolicy  string

	// LogLevel is debug, info (default) or error.
	LogLevel string
	// LogFile is the path of the JSON log; empty means standard output.
	LogFile string
	// Logger takes the log in place of LogFile; nil means LogFile.
	Logger *logr.Logger

	// WithoutStateMetrics leaves out the controllers that only export metrics of pods,
	// nodes and NodePools. They go over all objects every few seconds.
	WithoutStateMetrics bool
	// Repeated allows a second Run in the process, after the first has returned: the
	// names of controllers, by which metrics are told apart, are then not unique.
	Repeated bool

	// KubeQPS and KubeBurst limit requests to the API server; zero means 500 and 1000.
	KubeQPS   int
	KubeBurst int
	// CPUMillicores is the cpu of the controller; its concurrency scales with it. Zero
	// means 1000.
	CPUMillicores int64

	// InstallDefaults is what Run installs first: InstallDefinitions, InstallPools (with
	// definitions), or nothing if empty.
	InstallDefaults string
	// SystemNamespace is the namespace of the ConfigMap with the next maintenance
	// window; empty means that node images may change at any time.
	SystemNamespace string
}

func (o *Options) setDefaults() error {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	num := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	set(&o.BindAddress, "127.0.0.1")
	set(&o.LeaderElectionNamespace, "kube-system")
	set(&o.LeaderElectionName, "karpenter-leader-election")
	set(&o.Engine, EngineNAP)
	set(&o.PreferencePolicy, PreferencesPriced)
	set(&o.MinValuesPolicy, string(karpoptions.MinValuesPolicyStrict))
	set(&o.LogLevel, "info")
	set(&o.LogFile, "stdout")
	num(&o.MetricsPort, 8080)
	num(&o.HealthPort, 8081)
	num(&o.KubeQPS, 500)
	num(&o.KubeBurst, 1000)
	if o.BatchIdle == 0 {
		o.BatchIdle = time.Second
	}
	if o.BatchMax == 0 {
		o.BatchMax = 10 * time.Second
	}
	if o.CPUMillicores == 0 {
		o.CPUMillicores = 1000
	}
	if err := o.setDeadlines(); err != nil {
		return err
	}
	if o.Engine != EngineNAP && o.Engine != EngineKarpenter {
		return fmt.Errorf("unknown engine %q: use %s or %s", o.Engine, EngineNAP, EngineKarpenter)
	}
	switch o.PreferencePolicy {
	case PreferencesPriced, string(karpoptions.PreferencePolicyRespect), string(karpoptions.PreferencePolicyIgnore):
	default:
		return fmt.Errorf("unknown preference policy %q: use %s, %s or %s", o.PreferencePolicy, PreferencesPriced, karpoptions.PreferencePolicyRespect, karpoptions.PreferencePolicyIgnore)
	}
	switch o.InstallDefaults {
	case "", InstallDefinitions, InstallPools:
	default:
		return fmt.Errorf("unknown install-defaults %q: use %s or %s", o.InstallDefaults, InstallDefinitions, InstallPools)
	}
	if o.Azure.ClusterResourceID == "" {
		return errors.New("no cluster resource ID: set the resource ID of the managed cluster")
	}
	if err := o.Dashboard.check(); err != nil {
		return err
	}
	if o.BatchMax < o.BatchIdle {
		return fmt.Errorf("batch max duration %s is shorter than the idle duration %s", o.BatchMax, o.BatchIdle)
	}
	return nil
}

// longestStart is the longest time for launch and registration together. Karpenter
// deletes a NodeClaim that has not registered after 15 minutes, without an event.
const longestStart = 14 * time.Minute

func (o *Options) setDeadlines() error {
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&o.LaunchTimeout, machines.LaunchDeadline}, {&o.RegistrationTimeout, machines.RegistrationDeadline}, {&o.InitializationTimeout, machines.InitializationDeadline}} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	switch {
	case o.LaunchTimeout < 0 || o.RegistrationTimeout < 0:
		return fmt.Errorf("launch timeout %s and registration timeout %s must be positive", o.LaunchTimeout, o.RegistrationTimeout)
	case o.LaunchTimeout+o.RegistrationTimeout > longestStart:
		return fmt.Errorf("launch timeout %s and registration timeout %s are longer than %s together: shorten one of them", o.LaunchTimeout, o.RegistrationTimeout, longestStart)
	}
	return nil
}

// karpenter returns Karpenter's options. They are parsed from flags because some of
// them cannot be set in another way.
func (o *Options) karpenter() (*karpoptions.Options, error) {
	preferences := o.PreferencePolicy
	if preferences == PreferencesPriced { // not one of Karpenter's
		preferences = string(karpoptions.PreferencePolicyRespect)
	}
	fs := &karpoptions.FlagSet{FlagSet: flag.NewFlagSet("karpenter", flag.ContinueOnError)}
	k := &karpoptions.Options{}
	k.AddFlags(fs)
	args := []string{
		"--metrics-port=" + strconv.Itoa(max(o.MetricsPort, 0)),
		"--health-probe-port=" + strconv.Itoa(max(o.HealthPort, 0)),
		"--kube-client-qps=" + strconv.Itoa(o.KubeQPS),
		"--kube-client-burst=" + strconv.Itoa(o.KubeBurst),
		"--disable-leader-election=" + strconv.FormatBool(o.DisableLeaderElection),
		"--cpu-requests=" + strconv.FormatInt(o.CPUMillicores, 10),
		"--log-level=" + o.LogLevel,
		"--log-output-paths=" + o.LogFile,
		"--batch-max-duration=" + o.BatchMax.String(),
		"--batch-idle-duration=" + o.BatchIdle.String(),
		"--preference-policy=" + preferences,
		"--min-values-policy=" + o.MinValuesPolicy,
		"--disable-cluster-state-observability=" + strconv.FormatBool(o.WithoutStateMetrics),
	}
	if o.FeatureGates != "" {
		args = append(args, "--feature-gates="+o.FeatureGates)
	}
	if err := k.Parse(fs, args...); err != nil {
		return nil, fmt.Errorf("parsing the options of Karpenter's controllers: %w", err)
	}
	return k, nil
}
