// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package local has the commands of nap that run, watch and change a local
// Azure. Package localazure/supervisor documents the home folder they share and
// the files in it that tools may read.
package local

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
)

// RunComponent runs a process of an instance if args, the arguments of the
// program, name one. The supervisor starts them as nap component NAME; they do
// not use the command tree, which is for people.
func RunComponent(args []string) (handled bool, err error) {
	if len(args) < 2 || args[0] != "component" || args[1] == supervisorComponent {
		return false, nil
	}
	return true, supervisor.RunComponent(args[1], args[2:], components())
}

// homeFlag is the value of --home.
var homeFlag string

func homeDir() string {
	if homeFlag != "" {
		return homeFlag
	}
	if env := os.Getenv("NAP_HOME"); env != "" {
		return env
	}
	return ".nap"
}

// openHome opens the folder of the selected instance.
func openHome() (home.Home, error) { return home.Open(homeDir()) }

// AddTo adds the commands to nap's root command, which then introduces the
// local Azure.
func AddTo(root *cobra.Command) {
	root.Short = "A local Azure whose AKS clusters provision their own nodes"
	root.Long = `nap runs a whole Azure on this machine: the Resource Manager, AKS clusters with
a real Kubernetes control plane, simulated machines, and the controller that
buys the cheapest machines for pods that do not fit and removes them when they
are not needed. It also plans and explains without any cluster.`
	root.Example = `  nap up                          # start it: begin here
  nap dashboard                   # see it in the browser
  nap status                      # processes, clusters, machines, dollars per hour
  eval "$(nap env)"               # let kubectl, az and Azure SDKs use it
  nap kubectl get nodes           # kubectl is built in
  nap down                        # stop it; its state is kept for the next nap up
  nap plan -f examples/shop.yaml  # machines for these pods, without a cluster`
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.Help(); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout())
		h := home.Home{Dir: homeDir()}
		if info, err := home.ReadLock(h); err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "An instance runs in %s (pid %d). Next: nap status\n", h.Dir, info.PID)
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "Nothing runs in %s yet. Next: nap up\n", h.Dir)
		}
		return nil
	}
	root.PersistentFlags().StringVar(&homeFlag, "home", "", "folder of the instance (default $NAP_HOME, else ./.nap)")
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
		}
		root.AddCommand(commands...)
	}
	root.AddGroup(&cobra.Group{ID: app.GroupLocal, Title: "Local Azure:"}, &cobra.Group{ID: app.GroupProvision, Title: "Node auto-provisioning of a cluster:"})
	add(app.GroupLocal, upCommand(), downCommand(), resetCommand(), statusCommand(), dashboardCommand(), logsCommand(), envCommand(), kubectlCommand(), faultCommand())
	add(app.GroupProvision, provisioningCommands()...)
	root.AddCommand(componentCommand())
	// Kubernetes' libraries register flags of their own for every program.
	pflag.CommandLine.VisitAll(func(f *pflag.Flag) { f.Hidden = true })
}
