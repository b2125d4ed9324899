package controllers

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/azure"
)

// EventSource is the component that all events of the controller carry:
// kubectl get events --field-selector source=node-auto-provisioning.
const EventSource = "node-auto-provisioning"

// Engines that decide where pending pods go.
const (
	EngineNAP       = "nap"
	EngineKarpenter = "karpenter"
)

// What InstallDefaults of Options can ask for; see the function of that name.
const (
	InstallDefinitions = "definitions"
	InstallPools       = "pools"
)

// Options configure Run. The zero value of everything but Azure is usable.
type Options struct {
	// Kubeconfig is a path; empty means in-cluster configuration, or the usual
	// kubeconfig rules outside of one.
	Kubeconfig string
	// Azure says where ARM is and which cluster is served.
	Azure azure.Config

	// BindAddress is the IP that metrics and health listen on; empty means
	// 127.0.0.1. Give 0.0.0.0 in a container.
	BindAddress string
	// MetricsPort serves /metrics, HealthPort /healthz and /readyz. Zero means
	// 8080 and 8081; a negative port switches the listener off.
	MetricsPort int
	HealthPort  int
	// EnableProfiling serves /debug/pprof on the metrics port.
	EnableProfiling bool

	// DisableLeaderElection is for a controller that is alone for sure.
	DisableLeaderElection bool
	// LeaderElectionNamespace holds the lease; empty means kube-system.
	LeaderElectionNamespace string
	// LeaderElectionName is the lease; empty means karpenter-leader-election,
	// so that no second Karpenter runs beside this one.
	LeaderElectionName string

	// BatchIdle and BatchMax shape the batching of pending pods: a pass starts
	// once no new pod came for BatchIdle, at the latest after BatchMax. Zero
	// means 1 s and 10 s.
	BatchIdle time.Duration
	BatchMax  time.Duration
	// Engine is EngineNAP or EngineKarpenter; empty means EngineNAP.
	Engine string
	// DecisionDir is a folder where the engine's provisioner keeps snapshots of
	// its last decisions, to be replayed with nap plan; empty means none are kept.
	DecisionDir string
	// FeatureGates as Karpenter writes them, "NodeRepair=true,StaticCapacity=true".
	FeatureGates string
	// PreferencePolicy is Respect (default) or Ignore; MinValuesPolicy is Strict
	// (default) or BestEffort.
	PreferencePolicy string
	MinValuesPolicy  string

	// LogLevel is debug, info (default) or error.
	LogLevel string
	// LogFile is where JSON logs go; empty means standard output.
	LogFile string

	// KubeQPS and KubeBurst limit requests to the API server; zero means 200
	// and 300.
	KubeQPS   int
	KubeBurst int
	// CPUMillicores is what the controller may use; it scales how much it does
	// at once. Zero means 1000.
	CPUMillicores int64

	// InstallDefaults prepares the cluster first: InstallDefinitions or
	// InstallPools; empty leaves it as it is.
	InstallDefaults string
	// SystemNamespace holds the ConfigMap with the next maintenance window;
	// empty means that node images may move at any time.
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
	set(&o.PreferencePolicy, string(karpoptions.PreferencePolicyRespect))
	set(&o.MinValuesPolicy, string(karpoptions.MinValuesPolicyStrict))
	set(&o.LogLevel, "info")
	set(&o.LogFile, "stdout")
	num(&o.MetricsPort, 8080)
	num(&o.HealthPort, 8081)
	num(&o.KubeQPS, 200)
	num(&o.KubeBurst, 300)
	if o.BatchIdle == 0 {
		o.BatchIdle = time.Second
	}
	if o.BatchMax == 0 {
		o.BatchMax = 10 * time.Second
	}
	if o.CPUMillicores == 0 {
		o.CPUMillicores = 1000
	}
	if o.Engine != EngineNAP && o.Engine != EngineKarpenter {
		return fmt.Errorf("engine %q is not known: use %s or %s", o.Engine, EngineNAP, EngineKarpenter)
	}
	switch o.InstallDefaults {
	case "", InstallDefinitions, InstallPools:
	default:
		return fmt.Errorf("install-defaults %q is not known: use %s or %s", o.InstallDefaults, InstallDefinitions, InstallPools)
	}
	if o.Azure.ClusterResourceID == "" {
		return errors.New("no cluster resource ID: say which managed cluster is served")
	}
	if o.BatchMax < o.BatchIdle {
		return fmt.Errorf("batch max duration %s is below the idle duration %s", o.BatchMax, o.BatchIdle)
	}
	return nil
}

// karpenter translates to Karpenter's own options. They are parsed as flags
// because some of them can be set no other way.
func (o *Options) karpenter() (*karpoptions.Options, error) {
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
		"--preference-policy=" + o.PreferencePolicy,
		"--min-values-policy=" + o.MinValuesPolicy,
	}
	if o.FeatureGates != "" {
		args = append(args, "--feature-gates="+o.FeatureGates)
	}
	if err := k.Parse(fs, args...); err != nil {
		return nil, fmt.Errorf("options for Karpenter's controllers: %w", err)
	}
	return k, nil
}
