// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/plan"
)

// enableOptions are the flags of nap enable.
type enableOptions struct {
	cluster   string
	from      string
	pools     []string
	nodePools string
	save      string
	output    string
	keepSizes bool
	delete    bool
	defaults  string
	width     int
	dryRun    bool
	force     bool
}

func enableCommand(cluster *string) *cobra.Command {
	var e enableOptions
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Switch node auto-provisioning on, or migrate from the cluster autoscaler",
		Long: `Enable sets mode Auto and leaves the existing pools as they are.

With --migrate-from cluster-autoscaler it replaces the user pools whose autoscaler
is on. First it shows the NodePools that would replace them (save them with --save,
edit them, and pass them back with --nodepools), the settings that have no
counterpart, where each pod would go, which would have no place and why, and the
cost per hour now and afterwards. Then it switches the autoscaler off and the mode
to Auto, creates the NodePools, and drains the pools node by node under
PodDisruptionBudgets; it starts on the next node only when the evicted pods are
scheduled again. System pools stay. Ctrl-C, or ten minutes without progress, rolls
everything back: mode, autoscaler, nodes and pods.`,
		Example: `  nap enable --cluster shop
  nap enable --cluster shop --migrate-from cluster-autoscaler --dry-run --save nodepools.yaml
  nap enable --cluster shop --migrate-from cluster-autoscaler --nodepools nodepools.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e.cluster = *cluster
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return e.run(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.from, "migrate-from", "", "what to replace: cluster-autoscaler")
	f.StringSliceVar(&e.pools, "pools", nil, "agent pools to replace (default: the user pools whose autoscaler is on)")
	f.StringVar(&e.nodePools, "nodepools", "", "file with NodePools and AKSNodeClasses to create instead of the proposed ones")
	f.StringVar(&e.save, "save", "", "write the proposed NodePools and AKSNodeClasses to this file")
	f.BoolVar(&e.keepSizes, "keep-sizes", false, "propose NodePools with only the VM sizes of the pools, not their whole families")
	f.BoolVar(&e.delete, "delete-pools", false, "delete the pools when they are empty (default: keep them with 0 nodes)")
	f.StringVar(&e.defaults, "default-node-pools", "None", "Auto or None: Auto also creates the NodePools that AKS creates by default")
	f.IntVar(&e.width, "max-unavailable", 1, "number of nodes to drain at the same time")
	f.BoolVar(&e.dryRun, "dry-run", false, "show the plan and change nothing")
	f.BoolVar(&e.force, "force", false, "start even if pods would have no place")
	f.StringVarP(&e.output, "output", "o", "table", "with --dry-run: table or json")
	return cmd
}

// proposal is ARM's answer to a dry run.
type proposal struct {
	Pools     []string `json:"pools"`
	NodePools string   `json:"nodePools"`
	Notes     []struct {
		Pool    string `json:"pool,omitempty"`
		Setting string `json:"setting"`
		Value   string `json:"value,omitempty"`
		Effect  string `json:"effect"`
		Text    string `json:"text"`
	} `json:"notes"`
	BlockedBy []string `json:"blockedBy"`
}

func (e *enableOptions) run(ctx context.Context, w io.Writer) error {
	if e.output != "table" && e.output != "json" || e.output == "json" && !e.dryRun {
		return errors.New("--output: use table, or json together with --dry-run")
	}
	c, err := dialARM(ctx)
	if err != nil {
		return err
	}
	id, name, err := c.cluster(ctx, e.cluster)
	if err != nil {
		return err
	}
	if e.from == "" {
		return e.switchOn(ctx, w, c, id, name)
	}
	body := map[string]any{"migrateFrom": e.from, "dryRun": true, "keepSizes": e.keepSizes, "defaultNodePools": e.defaults, "maxUnavailable": e.width}
	if len(e.pools) > 0 {
		body["pools"] = e.pools
	}
	if e.delete {
		body["emptied"] = "Delete"
	}
	if e.nodePools != "" {
		b, err := os.ReadFile(e.nodePools)
		if err != nil {
			return fmt.Errorf("reading the NodePools to create: %w", err)
		}
		body["nodePools"] = string(b)
	}
	var p proposal
	if _, err := c.do(ctx, http.MethodPost, id+"/enableNodeProvisioning", body, &p); err != nil {
		return err
	}
	if e.save != "" {
		if err := os.WriteFile(e.save, []byte(p.NodePools), 0o644); err != nil {
			return fmt.Errorf("saving the proposed NodePools: %w", err)
		}
	}
	text := p.NodePools
	if given, ok := body["nodePools"].(string); ok {
		text = given
	}
	region, usages, err := c.usages(ctx, id)
	if err != nil {
		return err
	}
	m, err := simulateEnable(ctx, name, p.Pools, text, plan.Move{Region: region, Usages: usages})
	if err != nil {
		return err
	}
	if e.output == "json" {
		return plan.WriteJSON(w, map[string]any{"version": plan.ReportVersion, "proposal": p, "move": m})
	}
	if err := e.show(w, &p, m); err != nil {
		return err
	}
	if e.dryRun {
		return nil
	}
	if len(p.BlockedBy) > 0 {
		return fmt.Errorf("node auto-provisioning cannot be on in %s: %s", name, strings.Join(p.BlockedBy, " "))
	}
	if err := mayMove(m, e.force, "change the NodePools to allow them (--save, edit, --nodepools)"); err != nil {
		return err
	}
	body["nodePools"], body["dryRun"] = text, false
	h, err := c.do(ctx, http.MethodPost, id+"/enableNodeProvisioning", body, nil)
	if err != nil {
		return err
	}
	return c.follow(ctx, w, id, h.Get("Azure-AsyncOperation"), fmt.Sprintf("%s: node auto-provisioning is on (mode Auto) in place of the cluster autoscaler; pools %s are empty.", name, strings.Join(p.Pools, ", ")),
		"aborting: restoring the pools, the cluster autoscaler and mode Manual")
}

// show prints the plan of the migration.
func (e *enableOptions) show(w io.Writer, p *proposal, m *plan.MoveReport) error {
	switch {
	case e.save != "":
		fmt.Fprintf(w, "The NodePools for %s are in %s.\n", strings.Join(p.Pools, ", "), e.save)
	case e.nodePools == "" && e.dryRun:
		fmt.Fprintln(w, p.NodePools)
	}
	for _, n := range p.Notes {
		// The notes of replaced pools are in the comments of the NodePools.
		if e.save == "" && e.nodePools == "" && e.dryRun && (n.Pool == "" || slices.Contains(p.Pools, n.Pool)) {
			continue
		}
		where := "profile"
		if n.Pool != "" {
			where = "pool " + n.Pool
		}
		value := ""
		if n.Value != "" {
			value = " (" + n.Value + ")"
		}
		fmt.Fprintf(w, "%s, %s%s: %s: %s\n", where, n.Setting, value, strings.ToLower(n.Effect), n.Text)
	}
	for _, b := range p.BlockedBy {
		fmt.Fprintln(w, "blocked by:", b)
	}
	fmt.Fprintln(w)
	return m.WriteTable(w)
}

// simulateEnable plans for the cluster with the given NodePools and without the
// nodes of the given pools. move has the region and its quotas.
func simulateEnable(ctx context.Context, cluster string, pools []string, nodePools string, move plan.Move) (*plan.MoveReport, error) {
	src, err := readCluster(ctx, cluster)
	if err != nil {
		return nil, err
	}
	src.Notes = nil
	more, err := plan.ReadManifestText("NodePools", []byte(nodePools), time.Now())
	if err != nil {
		return nil, err
	}
	src.With(more)
	move.Provision = true
	move.Remove = func(n *corev1.Node) bool { return slices.Contains(pools, n.Labels["kubernetes.azure.com/agentpool"]) }
	return plan.Simulate(src, move, plan.Options{})
}

// switchOn sets the mode to Auto.
func (e *enableOptions) switchOn(ctx context.Context, w io.Writer, c *armClient, id, name string) error {
	if e.dryRun || e.nodePools != "" || e.save != "" || len(e.pools) > 0 {
		return errors.New("--dry-run, --pools, --nodepools and --save need --migrate-from cluster-autoscaler")
	}
	var have struct{ Location string }
	if _, err := c.do(ctx, http.MethodGet, id, nil, &have); err != nil {
		return err
	}
	h, err := c.do(ctx, http.MethodPut, id, map[string]any{"location": have.Location, "properties": map[string]any{"nodeProvisioningProfile": map[string]any{"mode": "Auto"}}}, nil)
	if err != nil {
		return err
	}
	return c.follow(ctx, w, id, h.Get("Azure-AsyncOperation"), name+": node auto-provisioning is on (mode Auto).", "aborting")
}
