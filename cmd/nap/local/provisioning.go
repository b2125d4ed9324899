// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/plan"
)

// nodePoolLabel is on every node that node auto-provisioning created.
const nodePoolLabel = "karpenter.sh/nodepool"

// provisioningCommands returns the commands that switch node auto-provisioning of
// a cluster on and off, or pause it.
func provisioningCommands() []*cobra.Command {
	var cluster string
	var pools []string
	var dryRun, force bool
	disable := &cobra.Command{
		Use:   "disable",
		Short: "Switch node auto-provisioning off and move its pods to fixed nodes",
		Long: `Disable does in one call the steps that the AKS documentation describes. First it
shows where each pod would go, which would have no place and why, and the cost per
hour now and afterwards. Then it creates or scales the given fixed pools, prevents
new nodes (CPU limit 0), adds a taint that makes the existing nodes drift, waits
while they drain under PodDisruptionBudgets and disruption budgets, and sets mode
Manual. Ctrl-C, or ten minutes in which no node is removed, rolls everything back:
mode Auto, limits, taints and fixed pools.`,
		Example: `  nap disable --cluster shop --dry-run
  nap disable --cluster shop --fixed-pool name=fixed,size=Standard_D8s_v5,count=4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fixed, err := fixedPools(pools)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return disableProvisioning(ctx, cmd.OutOrStdout(), cluster, fixed, dryRun, force)
		},
	}
	disable.Flags().StringArrayVar(&pools, "fixed-pool", nil, "pool to create or scale first: name=NAME,size=SIZE,count=N[,zones=1 2 3]; may be repeated")
	disable.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan and change nothing")
	disable.Flags().BoolVar(&force, "force", false, "start even if pods would have no place")

	var all bool
	freeze := &cobra.Command{
		Use:   "freeze",
		Short: "Stop voluntary disruption of nodes until nap resume",
		Example: `  nap freeze --cluster shop
  nap freeze --cluster shop --all   # no new nodes either`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scope := "Disruption"
			if all {
				scope = "All"
			}
			return poolAction(cmd, cluster, "freezeNodeProvisioning", map[string]any{"scope": scope}, "frozen")
		},
	}
	freeze.Flags().BoolVar(&all, "all", false, "also stop provisioning: no new nodes")
	resume := &cobra.Command{
		Use:     "resume",
		Short:   "Undo nap freeze",
		Example: "  nap resume --cluster shop",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return poolAction(cmd, cluster, "resumeNodeProvisioning", nil, "as before")
		},
	}
	out := []*cobra.Command{enableCommand(&cluster), disable, freeze, resume}
	for _, c := range out {
		c.Flags().StringVar(&cluster, "cluster", "", "name or resource ID of the cluster (default: the only one)")
	}
	return out
}

// fixedPools parses the values of --fixed-pool.
func fixedPools(args []string) ([]plan.FixedNodes, error) {
	var out []plan.FixedNodes
	for _, s := range args {
		f := plan.FixedNodes{Count: -1}
		for _, kv := range strings.Split(s, ",") {
			k, v, ok := strings.Cut(kv, "=")
			switch {
			case ok && k == "name":
				f.Pool = v
			case ok && k == "size":
				f.Size = v
			case ok && k == "zones":
				f.Zones = strings.Fields(v)
			case ok && k == "count":
				n, err := strconv.Atoi(v)
				if err != nil || n < 0 {
					return nil, fmt.Errorf("--fixed-pool: count is %q, not a number of nodes", v)
				}
				f.Count = n
			default:
				return nil, fmt.Errorf("--fixed-pool: %q is not one of name=…, size=…, count=…, zones=…", kv)
			}
		}
		if f.Pool == "" || f.Size == "" || f.Count < 0 {
			return nil, fmt.Errorf("--fixed-pool %s: name, size and count are required", s)
		}
		out = append(out, f)
	}
	return out, nil
}

func poolAction(cmd *cobra.Command, cluster, action string, body any, done string) error {
	c, err := dialARM(cmd.Context())
	if err != nil {
		return err
	}
	id, name, err := c.cluster(cmd.Context(), cluster)
	if err != nil {
		return err
	}
	var r struct{ NodePools []string }
	if _, err := c.do(cmd.Context(), http.MethodPost, id+"/"+action, body, &r); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: NodePools %s are %s.\n", name, strings.Join(r.NodePools, ", "), done)
	return nil
}

func disableProvisioning(ctx context.Context, w io.Writer, cluster string, fixed []plan.FixedNodes, dryRun, force bool) error {
	c, err := dialARM(ctx)
	if err != nil {
		return err
	}
	id, name, err := c.cluster(ctx, cluster)
	if err != nil {
		return err
	}
	src, err := readCluster(ctx, name)
	if err != nil {
		return err
	}
	region, usages, err := c.usages(ctx, id)
	if err != nil {
		return err
	}
	m, err := plan.Simulate(src, plan.Move{Remove: func(n *corev1.Node) bool { _, ok := n.Labels[nodePoolLabel]; return ok }, Fixed: fixed, Region: region, Usages: usages}, plan.Options{Quick: true})
	if err != nil {
		return err
	}
	if err := m.WriteTable(w); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	if err := mayMove(m, force, "add capacity: --fixed-pool name=fixed,size=Standard_D8s_v5,count=…"); err != nil {
		return err
	}
	body := map[string]any{}
	if len(fixed) > 0 {
		pools := []map[string]any{}
		for _, f := range fixed {
			p := map[string]any{"name": f.Pool, "vmSize": f.Size, "count": f.Count}
			if len(f.Zones) > 0 {
				p["availabilityZones"] = f.Zones
			}
			pools = append(pools, p)
		}
		body["fixedPools"] = pools
	}
	h, err := c.do(ctx, http.MethodPost, id+"/disableNodeProvisioning", body, nil)
	if err != nil {
		return err
	}
	return c.follow(ctx, w, id, h.Get("Azure-AsyncOperation"), name+": node auto-provisioning is off (mode Manual).", "aborting: restoring mode Auto and the NodePools")
}

// mayMove returns an error if the move would leave pods without a place or quotas
// do not let it start, unless force is set.
func mayMove(m *plan.MoveReport, force bool, hint string) error {
	if short := m.BlockedByQuota(); short != "" && !force {
		return fmt.Errorf("%s; --force starts anyway", short)
	}
	on := map[string]bool{}
	for _, g := range m.RemovedNodes {
		for _, p := range g.Pods {
			on[p] = true
		}
	}
	n := 0
	for _, r := range m.Plan.Refused {
		for _, p := range r.Pods {
			if on[p] {
				n++
			}
		}
	}
	if n == 0 || force {
		return nil
	}
	return fmt.Errorf("%d pods that run now would have no place (the table above has the reasons); %s, or start anyway with --force", n, hint)
}

// readCluster reads a cluster of this instance to plan for.
func readCluster(ctx context.Context, name string) (*plan.Source, error) {
	h, err := openHome()
	if err != nil {
		return nil, err
	}
	return plan.ReadCluster(ctx, h.Path("kubeconfig"), name+"-admin", time.Now())
}
