// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/snapshot"
)

// input holds the flags that say which cluster to plan for.
type input struct {
	files       []string
	region      string
	snapshot    string
	fromCluster bool
	kubeconfig  string
	kubecontext string
	save        string
	usage       string
	// defaultPools is Auto if manifests get the NodePool that AKS creates in
	// every cluster, else None.
	defaultPools string
	// cronJobs adds one run of each CronJob of the manifests.
	cronJobs bool
}

func (i *input) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&i.files, "filename", "f", nil, "manifest file or directory to plan for, - for standard input; may be repeated")
	f.StringVar(&i.region, "region", "", "Azure region for sizes and prices (default: the region of the cluster's nodes, else "+DefaultRegion+")")
	f.StringVar(&i.snapshot, "snapshot", "", "snapshot file to plan for (written by --save)")
	f.BoolVar(&i.fromCluster, "from-cluster", false, "plan for the cluster of the current kubeconfig (read only)")
	f.StringVar(&i.kubeconfig, "kubeconfig", "", "kubeconfig file for --from-cluster (default: $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&i.kubecontext, "context", "", "kubeconfig context for --from-cluster")
	f.StringVar(&i.defaultPools, "default-node-pools", "Auto", "Auto or None, for manifests alone: Auto adds the NodePool that AKS creates (defaultNodePools), None plans with the given ones only")
	f.BoolVar(&i.cronJobs, "cron-jobs", false, "plan one run of each CronJob of the manifests, at the same time")
	f.StringVar(&i.usage, "usage", "", "file with the subscription's vCPU quotas, written by az vm list-usage -l REGION -o json; the plan stays within them")
	f.StringVar(&i.save, "save", "", "write the cluster to this snapshot file, to replay it or attach it to a bug report")
}

var errNoInput = errors.New("nothing to plan for: use -f FILE|DIR, --snapshot FILE or --from-cluster")

// load reads the cluster and its instance types. It adds manifests to a cluster or
// snapshot as if they were applied there.
func (i *input) load(ctx context.Context) (*Source, string, error) {
	if len(i.files) == 0 && i.snapshot == "" && !i.fromCluster {
		return nil, "", errNoInput
	}
	if i.snapshot != "" && i.fromCluster {
		return nil, "", errors.New("--snapshot and --from-cluster cannot be combined: each is a whole cluster")
	}
	now := time.Now().UTC().Truncate(time.Second)
	src := &Source{Objects: &snapshot.Objects{Now: now, Settings: snapshot.Settings{PricedPreferences: true}}}
	var err error
	switch {
	case i.snapshot != "":
		if src.Objects, err = snapshot.ReadFile(i.snapshot); err != nil {
			return nil, "", err
		}
	case i.fromCluster:
		if src, err = ReadCluster(ctx, i.kubeconfig, i.kubecontext, now); err != nil {
			return nil, "", err
		}
	}
	if len(i.files) > 0 {
		more, err := readManifests(i.files, src.Objects.Now, i.cronJobs)
		if err != nil {
			return nil, "", err
		}
		src.merge(more)
	}
	switch i.defaultPools {
	case "Auto":
		if i.snapshot == "" && !i.fromCluster {
			src.addDefaultNodePool()
		}
	case "None":
	default:
		return nil, "", fmt.Errorf("--default-node-pools %s: use Auto or None", i.defaultPools)
	}
	region := strings.ToLower(strings.ReplaceAll(i.region, " ", ""))
	if region == "" {
		region = regionOf(src.Objects)
	}
	if region == "" {
		region = DefaultRegion
	}
	// A snapshot file has its own instance types; --region replaces them.
	if len(src.Objects.InstanceTypes) == 0 || i.region != "" {
		if err := src.AddInstanceTypes(region); err != nil {
			return nil, "", err
		}
	}
	if i.usage != "" {
		if err := src.addQuotas(i.usage, region); err != nil {
			return nil, "", err
		}
	} else if i.fromCluster {
		src.note("vCPU quotas are not considered; --usage adds them")
	}
	if i.save != "" {
		if err := snapshot.WriteFile(i.save, src.Objects); err != nil {
			return nil, "", err
		}
		src.note("the cluster was saved in %s", i.save)
	}
	return src, region, nil
}

// merge adds the objects of another source. They replace objects of the same kind
// and name.
func (s *Source) merge(more *Source) {
	o, m := s.Objects, more.Objects
	o.Pods = replace(o.Pods, m.Pods)
	o.Nodes = replace(o.Nodes, m.Nodes)
	o.NodePools = replace(o.NodePools, m.NodePools)
	o.NodeClaims = replace(o.NodeClaims, m.NodeClaims)
	o.DaemonSets = replace(o.DaemonSets, m.DaemonSets)
	o.PDBs = replace(o.PDBs, m.PDBs)
	o.PVCs = replace(o.PVCs, m.PVCs)
	o.PVs = replace(o.PVs, m.PVs)
	o.CSINodes = replace(o.CSINodes, m.CSINodes)
	o.Services = replace(o.Services, m.Services)
	o.ReplicaSets = replace(o.ReplicaSets, m.ReplicaSets)
	o.StatefulSets = replace(o.StatefulSets, m.StatefulSets)
	o.RCs = replace(o.RCs, m.RCs)
	// Manifests get generated namespaces and storage classes: those of the cluster
	// take precedence.
	o.Namespaces = replace(m.Namespaces, o.Namespaces)
	o.Classes = replace(m.Classes, o.Classes)
	s.NodeClasses = replace(s.NodeClasses, more.NodeClasses)
	s.Notes = append(s.Notes, more.Notes...)
	s.Unread = append(s.Unread, more.Unread...)
}

// complete returns an error if files are missing from the plan.
func (s *Source) complete() error {
	if len(s.Unread) == 0 {
		return nil
	}
	return fmt.Errorf("the plan is not complete (see the notes): %s", strings.Join(s.Unread, ", "))
}

type named interface {
	GetNamespace() string
	GetName() string
}

func replace[T named](list, with []T) []T {
	at := map[string]int{}
	out := append([]T(nil), list...)
	for i, o := range out {
		at[o.GetNamespace()+"/"+o.GetName()] = i
	}
	for _, o := range with {
		if i, ok := at[o.GetNamespace()+"/"+o.GetName()]; ok {
			out[i] = o
		} else {
			out = append(out, o)
		}
	}
	return out
}

// NewPlanCommand returns the command nap plan.
func NewPlanCommand() *cobra.Command {
	var in input
	var opt Options
	var output, engineName string
	var compare, all bool
	cmd := &cobra.Command{
		Use:   "plan -f FILE|DIR | --snapshot FILE | --from-cluster",
		Short: "Show the machines pods would get, their cost and a proven lower bound",
		Long: `Plan shows where pods would go without changing anything: the machines to buy, the
pods that fit on existing nodes, the cost per hour with a proven lower bound, and
the reason for each pod without a place.

It needs neither a cluster nor a network: sizes and prices come from the built-in
catalogue (` + strings.Join(catalog.Regions(), ", ") + `).
Manifests may have NodePools, AKSNodeClasses, Nodes, Pods, Deployments,
StatefulSets, ReplicaSets, ReplicationControllers, Jobs, CronJobs,
DaemonSets, HorizontalPodAutoscalers, PodDisruptionBudgets,
PersistentVolumeClaims, PersistentVolumes and StorageClasses in any mix. The
NodePool "default" that AKS creates is added unless one of that name is given.
With --snapshot or --from-cluster, manifests are planned as if they were applied
there.`,
		Example: `  nap plan -f examples/shop.yaml
  nap plan -f examples/ --region westeurope --compare
  nap plan --from-cluster -f new-deployment.yaml
  nap plan --from-cluster --save bug.nap && nap plan --snapshot bug.nap -o json`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %s: use table or json", output)
			}
			if engineName != EngineNap && engineName != EngineKarpenter {
				return fmt.Errorf("--engine %s: use %s or %s", engineName, EngineNap, EngineKarpenter)
			}
			if all {
				opt.MaxAlternatives = -1
			}
			src, region, err := in.load(cmd.Context())
			if err != nil {
				return err
			}
			if err := runPlan(cmd.Context(), cmd.OutOrStdout(), src, region, opt, engineName, compare, output); err != nil {
				return err
			}
			return src.complete()
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "table", "table or json (docs/plan.md has the schema)")
	f.StringVar(&engineName, "engine", EngineNap, "nap, or karpenter to plan with Karpenter's own scheduler")
	f.BoolVar(&compare, "compare", false, "plan with both engines and print the results side by side")
	f.BoolVar(&opt.Quick, "quick", false, "use only the quick path: a plan in milliseconds that may cost a little more")
	f.BoolVar(&all, "all-alternatives", false, "with -o json: list every offering of each machine")
	f.DurationVar(&opt.Timeout, "karpenter-timeout", time.Minute, "time limit for Karpenter's scheduler (its own is one minute)")
	return cmd
}

func runPlan(ctx context.Context, w io.Writer, src *Source, region string, opt Options, engineName string, compare bool, output string) error {
	var n, k *Report
	var err error
	if compare || engineName == EngineNap {
		if n, err = Nap(src.Objects, opt); err != nil {
			return err
		}
		n.Region, n.Notes = region, append(src.Notes, n.Notes...)
	}
	if compare || engineName == EngineKarpenter {
		if k, err = Karpenter(ctx, src.Objects, opt); err != nil {
			return err
		}
		k.Region = region
		if !compare {
			k.Notes = append(src.Notes, k.Notes...)
		}
	}
	if compare {
		c := &Comparison{Version: ReportVersion, Nap: n, Karpenter: k}
		if output == "json" {
			return WriteJSON(w, c)
		}
		return c.WriteTable(w)
	}
	r := n
	if r == nil {
		r = k
	}
	if output == "json" {
		return WriteJSON(w, r)
	}
	return r.WriteTable(w)
}

// NewExplainCommand returns the command nap explain.
func NewExplainCommand() *cobra.Command {
	var in input
	var opt Options
	var output, namespace string
	cmd := &cobra.Command{
		Use:   "explain pod NAME [-n NAMESPACE]",
		Short: "Explain where a pod goes, or which constraints leave it without a place",
		Long: `Explain plans for the whole cluster, because pods compete for capacity, and follows
one pod through the constraints. It shows how many offerings and nodes each one
leaves, and the machine or node the pod goes to, or the nearest misses. Without -f
or --snapshot it reads the cluster of the current kubeconfig.`,
		Example: `  nap explain pod web-5d4f8 -n shop
  nap explain pod trainer-0 -f job.yaml --region westeurope`,
		Args:          cobra.RangeArgs(1, 2),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[len(args)-1]
			if kind, rest, ok := strings.Cut(name, "/"); ok && len(args) == 1 && (kind == "pod" || kind == "pods" || kind == "po") {
				name = rest
			} else if len(args) == 2 && args[0] != "pod" && args[0] != "pods" && args[0] != "po" {
				return fmt.Errorf("cannot explain %s: use nap explain pod NAME", args[0])
			}
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %s: use table or json", output)
			}
			if len(in.files) == 0 && in.snapshot == "" {
				in.fromCluster = true
			}
			src, _, err := in.load(cmd.Context())
			if err != nil {
				return err
			}
			e, err := Explain(src.Objects, namespace+"/"+name, opt)
			if err != nil {
				return err
			}
			if output == "json" {
				err = WriteJSON(cmd.OutOrStdout(), e)
			} else {
				err = e.WriteTable(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return src.complete()
		},
	}
	in.flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&namespace, "namespace", "n", "default", "namespace of the pod")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	f.BoolVar(&opt.Quick, "quick", false, "use only the quick path")
	return cmd
}
