// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package top is nap top: the nodes of a cluster in the terminal, with what they cost,
// how full they are and why they stay. It works on any cluster with NodePools, from its
// objects and the built-in catalogue alone; nap need not run there.
package top

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/plan"
	"github.com/nap-aks/nap/snapshot"
)

// flags are those of nap top.
type flags struct {
	kubeconfig, kubecontext, region, sort, group, filter string
	once, reverse                                        bool
	interval                                             time.Duration
	width                                                int
}

// NewCommand returns the command nap top.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch nodes, their cost and why they stay, in the terminal",
		Long: `Top shows the nodes of a cluster: price, CPU and memory requested, age, and what keeps
each node. It needs a cluster with NodePools of Karpenter or node auto-provisioning and
rights to list objects; it changes nothing. Prices come from the built-in catalogue.

Keys: arrows move, Enter opens a node or a group of pods, / filters, g groups, w shows
pods that wait, e what happened, c m p a n z sort (again: the other way round), q quits.`,
		Example: `  nap top
  nap top --sort price --group size
  nap top --once --filter spot      # one table, for scripts`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd, f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	fs.StringVar(&f.kubecontext, "context", "", "kubeconfig context")
	fs.StringVar(&f.region, "region", "", "Azure region for prices (default: that of the nodes)")
	fs.StringVar(&f.sort, "sort", "price", "order of nodes: "+strings.Join(sortNames(), ", "))
	fs.BoolVar(&f.reverse, "reverse", false, "the other way round")
	fs.StringVar(&f.group, "group", "none", "group nodes by: "+strings.Join(groupNames, ", "))
	fs.StringVar(&f.filter, "filter", "", "only nodes with this text in their name, pool, size, zone, capacity type or phase")
	fs.BoolVar(&f.once, "once", false, "print one table and end; the default if the output is no terminal")
	fs.DurationVar(&f.interval, "interval", 3*time.Second, "time between readings; longer if reading takes long")
	fs.IntVar(&f.width, "width", 0, "width of the table with --once (default: 120)")
	return cmd
}

func (f *flags) check() error {
	switch {
	case !slices.Contains(sortNames(), f.sort):
		return fmt.Errorf("--sort %s: use %s", f.sort, strings.Join(sortNames(), ", "))
	case !slices.Contains(groupNames, f.group):
		return fmt.Errorf("--group %s: use %s", f.group, strings.Join(groupNames, ", "))
	case f.interval < time.Second:
		return fmt.Errorf("--interval %s: use at least 1s", f.interval)
	case f.width != 0 && (f.width < 40 || f.width > 1000):
		return fmt.Errorf("--width %d: use 40 to 1000", f.width)
	}
	return nil
}

func run(cmd *cobra.Command, f flags) error {
	if err := f.check(); err != nil {
		return err
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	live, err := dashboard.NewLive(dashboard.Config{Log: logr.Discard(), Objects: func(ctx context.Context) (*snapshot.Objects, error) { return read(ctx, f) }})
	if err != nil {
		return err
	}
	if err := live.Update(ctx); err != nil {
		return err
	}
	m := newModel(ctx, live, f)
	if f.once || !term.IsTerminal(int(os.Stdout.Fd())) {
		m.width, m.height, m.plain = 120, 1<<20, true
		if f.width != 0 {
			m.width = f.width
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), m.once())
		return err
	}
	_, err = tea.NewProgram(m, tea.WithContext(ctx)).Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// read lists the cluster and adds prices.
func read(ctx context.Context, f flags) (*snapshot.Objects, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	src, err := plan.ReadCluster(ctx, f.kubeconfig, f.kubecontext, time.Now())
	if err != nil {
		return nil, err
	}
	region := strings.ToLower(strings.ReplaceAll(f.region, " ", ""))
	for _, n := range src.Objects.Nodes {
		if region == "" {
			region = strings.ToLower(n.Labels[corev1.LabelTopologyRegion])
		}
	}
	if region == "" {
		region = plan.DefaultRegion
	}
	if err := src.AddInstanceTypes(region); err != nil {
		if f.region != "" {
			return nil, err
		}
		src.Objects.InstanceTypes = nil // a region that the catalogue does not have: no prices
	}
	return src.Objects, nil
}
