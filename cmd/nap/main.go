// Command nap is a local Azure whose AKS clusters provision their own nodes:
// one binary that holds etcd, Kubernetes' control plane, kubectl, an Azure
// Resource Manager, simulated machines and the node auto-provisioning
// controller. `nap up` starts it; see package local for the home folder and
// the files in it that tools may read.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
)

// version is set by the build.
var version = "dev"

func main() {
	// A child's command line is not for people: no command tree, no parsing
	// but its own.
	if len(os.Args) > 2 && os.Args[1] == "component" && os.Args[2] != supervisorComponent {
		if err := supervisor.RunComponent(os.Args[2], os.Args[3:], rooms()); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	if err := root().Execute(); err != nil {
		var quiet exitError
		if errors.As(err, &quiet) {
			os.Exit(quiet.code)
		}
		fmt.Fprintln(os.Stderr, "nap:", err)
		os.Exit(1)
	}
}

// exitError ends the program with a status and without another word.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// homeFlag is --home, which every command has.
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

// openHome opens the folder of the instance that the command is about.
func openHome() (home.Home, error) { return home.Open(homeDir()) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nap",
		Short: "A local Azure whose AKS clusters provision their own nodes",
		Long: `nap runs a whole Azure on this machine: the Resource Manager, AKS clusters with
a real Kubernetes control plane, simulated machines, and the controller that
buys the cheapest machines for pods that do not fit and gives them back.`,
		Example: `  nap up                      # start it: the next step, and the one to begin with
  nap status                  # processes, clusters, machines, dollars per hour
  eval "$(nap env)"           # let kubectl, az and Azure SDKs use it
  nap kubectl get nodes       # kubectl is built in
  nap down                    # stop it; the state stays for the next nap up`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
		},
	}
	cmd.PersistentFlags().StringVar(&homeFlag, "home", "", "folder of the instance (default $NAP_HOME, else ./.nap)")
	cmd.AddCommand(upCommand(), downCommand(), statusCommand(), logsCommand(), envCommand(), kubectlCommand(), faultCommand(), resetCommand(), versionCommand(), componentCommand())
	cmd.AddCommand(planCommands()...)
	cmd.AddCommand(provisioningCommands()...)
	// Libraries of Kubernetes register flags of their own for every program.
	pflag.CommandLine.VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	cmd.CompletionOptions.HiddenDefaultCmd = true
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions in this binary",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, v := range versions() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", v[0], v[1])
			}
			return nil
		},
	}
}
