// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/plugin"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/nap-aks/nap/cmd/nap/app"
	"github.com/nap-aks/nap/localazure/home"
)

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl [--cluster-name NAME] ARGS…",
		Short: "Run kubectl in a cluster of this instance",
		Long: `Kubectl runs the kubectl built into nap with the credentials of this instance's
clusters. Its kubeconfig has a context NAME-admin for each cluster; the first
cluster is the current one, and --cluster-name selects another.`,
		Example: `  nap kubectl get nodes
  nap kubectl get nodeclaims -o wide
  nap kubectl --cluster-name two get pods -A`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			args, cluster, err := ownFlags(args)
			if err != nil {
				return err
			}
			h := home.Home{Dir: homeDir()}
			file := h.Path("kubeconfig")
			if _, err := os.Stat(file); err != nil {
				return fmt.Errorf("no cluster in %s yet; `nap up` creates one: %w", h.Dir, err)
			}
			if err := os.Setenv("KUBECONFIG", file); err != nil {
				return err
			}
			if cluster != "" {
				args = append([]string{"--context=" + cluster + "-admin"}, args...)
			}
			return runKubectl(args)
		},
	}
}

// ownFlags splits nap's own flags from kubectl's arguments.
func ownFlags(args []string) (rest []string, cluster string, err error) {
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(args[i], "=")
		if args[i] == "--" {
			return append(rest, args[i:]...), cluster, nil
		}
		if name != "--cluster-name" && name != "--home" {
			rest = append(rest, args[i])
			continue
		}
		if !joined {
			if i+1 >= len(args) {
				return nil, "", fmt.Errorf("%s needs a value", name)
			}
			i++
			value = args[i]
		}
		if name == "--home" {
			homeFlag = value
		} else {
			cluster = value
		}
	}
	return rest, cluster, nil
}

// runKubectl runs kubectl in this process. If kubectl fails it exits the process
// with kubectl's status.
func runKubectl(args []string) error {
	full := append([]string{"kubectl"}, args...)
	os.Args = full
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	k := kubectl.NewDefaultKubectlCommandWithArgs(kubectl.KubectlOptions{
		PluginHandler: kubectl.NewDefaultPluginHandler(plugin.ValidPluginFilenamePrefixes),
		Arguments:     full,
		ConfigFlags:   genericclioptions.NewConfigFlags(true).WithDiscoveryBurst(300).WithDiscoveryQPS(50),
		IOStreams:     streams,
	})
	k.SetArgs(slices.Clone(args))
	if err := k.Execute(); err != nil {
		kubectlutil.CheckErr(err)
		return app.ExitError{Code: 1}
	}
	return nil
}
