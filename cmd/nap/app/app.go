// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package app has the root command of nap and the commands of every build:
// those that read files or a cluster and need no local Azure. Package
// cmd/nap/local adds the rest.
package app

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/nap-aks/nap/cmd/nap/top"
	"github.com/nap-aks/nap/internal/version"
	"github.com/nap-aks/nap/plan"
)

// Groups of commands in the output of nap help.
const (
	GroupPlan      = "plan"
	GroupLocal     = "local"
	GroupProvision = "provision"
)

// ExitError ends the program with a status and no message.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// NewCommand returns nap with the commands of every build.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nap",
		Short: "Plan the nodes of AKS clusters",
		Long: `nap chooses the cheapest machines for Kubernetes pods that fit on no node, and
explains the choice. It reads manifests, snapshot files or a live cluster.`,
		Example: `  nap plan -f examples/shop.yaml                          # machines, $/h, proven bound
  nap explain pod web-00 -n shop -f examples/shop.yaml    # why this machine?
  nap plan --from-cluster -f new-deployment.yaml          # what if it were applied?`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddGroup(&cobra.Group{ID: GroupPlan, Title: "Plan:"})
	for _, c := range []*cobra.Command{plan.NewPlanCommand(), plan.NewExplainCommand(), top.NewCommand()} {
		c.GroupID = GroupPlan
		cmd.AddCommand(c)
	}
	cmd.AddCommand(versionCommand())
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return cmd
}

// localCommands are the commands of package cmd/nap/local.
var localCommands = []string{
	"up", "down", "reset", "status", "dashboard", "logs", "env", "kubectl", "fault",
	"enable", "disable", "freeze", "resume",
}

// AddPlaceholders adds a command for each one that only a build with the local
// Azure has. It returns an error that says how to get that build.
func AddPlaceholders(cmd *cobra.Command) {
	cmd.Long += `

This build has no local Azure: nap up and the commands that go with it need the
full build, made by "make build".`
	for _, name := range localCommands {
		cmd.AddCommand(&cobra.Command{
			Use:                name,
			Hidden:             true,
			DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return fmt.Errorf("%s: this nap was built without the local Azure; build the full one with: make build", name)
			},
		})
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of nap and of what is built into it",
		Example: "  nap version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, v := range versions() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", v.name, v.version)
			}
			return nil
		},
	}
}

type component struct{ name, version string }

// versions lists nap and the components in this binary.
func versions() []component {
	i := version.Get()
	out := []component{{"nap", i.Version}}
	if i.Commit != "" {
		out = append(out, component{"commit", i.Commit})
	}
	if i.Date != "" {
		out = append(out, component{"date", i.Date})
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		names := map[string]string{
			"k8s.io/kubernetes": "kubernetes", "go.etcd.io/etcd/server/v3": "etcd", "sigs.k8s.io/karpenter": "karpenter", "sigs.k8s.io/kwok": "kwok",
		}
		for _, m := range info.Deps {
			if name, ok := names[m.Path]; ok {
				out = append(out, component{name, m.Version})
			}
		}
	}
	return append(out, component{"go", runtime.Version()})
}
