package main

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

// enabling is what `nap enable` is told.
type enabling struct {
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
	var e enabling
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Switch node auto-provisioning on, in place of the cluster autoscaler if asked",
		Long: `Without --migrate-from: mode Auto, beside the pools there are.

With --migrate-from cluster-autoscaler the user pools whose autoscaler is on give
way to node auto-provisioning. First it shows the NodePools that would take their
place (save them with --save, edit them, and pass them back with --nodepools),
what of the pools' settings has no counterpart, which pods would go where, which
would have no place and why, and the cost per hour now and afterwards. Then: the
autoscaler goes off and the mode becomes Auto, the NodePools are created, and the
pools are drained node by node under PodDisruptionBudgets, a further node only
while the moved pods have found a place. System pools stay. Ctrl-C, or no progress
for ten minutes, puts everything back: mode, autoscaler, nodes and pods.`,
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
	f.StringVar(&e.from, "migrate-from", "", "what to take the place of: cluster-autoscaler")
	f.StringSliceVar(&e.pools, "pools", nil, "agent pools to replace (default: the user pools whose autoscaler is on)")
	f.StringVar(&e.nodePools, "nodepools", "", "file of NodePools and AKSNodeClasses to create instead of those proposed")
	f.StringVar(&e.save, "save", "", "write the proposed NodePools and AKSNodeClasses to this file")
	f.BoolVar(&e.keepSizes, "keep-sizes", false, "propose NodePools that buy the pools' own VM sizes only, not any of the family")
	f.BoolVar(&e.delete, "delete-pools", false, "delete the pools once they are empty (default: they stay, with 0 nodes)")
	f.StringVar(&e.defaults, "default-node-pools", "None", "Auto also creates the NodePools that AKS creates by default")
	f.IntVar(&e.width, "max-unavailable", 1, "nodes that are drained at a time")
	f.BoolVar(&e.dryRun, "dry-run", false, "show all that, and change nothing")
	f.BoolVar(&e.force, "force", false, "begin even if pods would have no place")
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

func (e *enabling) run(ctx context.Context, w io.Writer) error {
	if e.output != "table" && e.output != "json" || e.output == "json" && !e.dryRun {
		return errors.New("-o: use table, or json with --dry-run")
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
			return fmt.Errorf("the NodePools to create: %w", err)
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
	if err := mayMove(m, e.force, "give the NodePools what they ask for (--save, edit, --nodepools)"); err != nil {
		return err
	}
	body["nodePools"], body["dryRun"] = text, false
	h, err := c.do(ctx, http.MethodPost, id+"/enableNodeProvisioning", body, nil)
	if err != nil {
		return err
	}
	return c.follow(ctx, w, id, h.Get("Azure-AsyncOperation"), fmt.Sprintf("%s: node auto-provisioning is on (mode Auto) in place of the cluster autoscaler; pools %s are empty.", name, strings.Join(p.Pools, ", ")),
		"aborting: the pools, the cluster autoscaler and mode Manual are put back")
}

// show prints what would happen.
func (e *enabling) show(w io.Writer, p *proposal, m *plan.MoveReport) error {
	switch {
	case e.save != "":
		fmt.Fprintf(w, "The NodePools for %s are in %s.\n", strings.Join(p.Pools, ", "), e.save)
	case e.nodePools == "" && e.dryRun:
		fmt.Fprintln(w, p.NodePools)
	}
	for _, n := range p.Notes {
		// Those of the pools that are replaced are in the file's comments.
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
		fmt.Fprintln(w, "in the way:", b)
	}
	fmt.Fprintln(w)
	return m.WriteTable(w)
}

// simulateEnable plans for the cluster without the nodes of some pools and with
// the given NodePools; move says where, and within which quotas.
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
	move.Gone = func(n *corev1.Node) bool { return slices.Contains(pools, n.Labels["kubernetes.azure.com/agentpool"]) }
	return plan.Simulate(src, move, plan.Options{})
}

// switchOn sets the mode to Auto and nothing else.
func (e *enabling) switchOn(ctx context.Context, w io.Writer, c *armClient, id, name string) error {
	if e.dryRun || e.nodePools != "" || e.save != "" || len(e.pools) > 0 {
		return errors.New("--dry-run, --pools, --nodepools and --save belong to --migrate-from cluster-autoscaler")
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
