// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/version"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	basecompatibility "k8s.io/component-base/compatibility"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// VersionEnv is the environment variable with the version that the API server
// reports, such as "v1.35.6"; if it is empty it reports its own.
const VersionEnv = "NAP_KUBERNETES_VERSION"

// emulates is the number of earlier minor versions that a binary can emulate.
const emulates = 3

// Minors returns the minor versions that control planes of this binary support, oldest
// first, such as "1.35".
func Minors() []string {
	own := compatibility.DefaultBuildEffectiveVersion().BinaryVersion()
	var out []string
	for back := emulates; back >= 0; back-- {
		v := own.SubtractMinor(uint(back))
		out = append(out, fmt.Sprintf("%d.%d", v.Major(), v.Minor()))
	}
	return out
}

// CheckVersion returns an error unless a control plane can be of version v, such as
// "1.35.6".
func CheckVersion(v string) error {
	parsed, err := version.ParseSemantic(v)
	if err != nil {
		return fmt.Errorf("kubernetes version %q: %w", v, err)
	}
	if minor := fmt.Sprintf("%d.%d", parsed.Major(), parsed.Minor()); !slices.Contains(Minors(), minor) {
		return fmt.Errorf("kubernetes version %s is not supported: the control planes of this build support %s", v, strings.Join(Minors(), ", "))
	}
	return nil
}

// EmulationArgs returns the flags that make any of the programs emulate the minor
// version of v.
func EmulationArgs(v string) ([]string, error) {
	if err := CheckVersion(v); err != nil {
		return nil, err
	}
	parsed := version.MustParseSemantic(v)
	return []string{fmt.Sprintf("--emulated-version=%d.%d", parsed.Major(), parsed.Minor())}, nil
}

// reportedVersion is an effective version that reports another release.
type reportedVersion struct {
	basecompatibility.EffectiveVersion
	git string
}

// Info returns what clients read at /version.
func (t reportedVersion) Info() *apimachineryversion.Info {
	info := t.EffectiveVersion.Info()
	v, err := version.ParseSemantic(t.git)
	if info == nil || err != nil {
		return info
	}
	info.GitVersion = t.git
	info.Major, info.Minor = fmt.Sprint(v.Major()), fmt.Sprint(v.Minor())
	return info
}

// newAPIServer returns the kube-apiserver's command, built from the program's parts so
// that the version it reports can be set between its configuration and its start. Its
// behaviour follows from the emulated version.
func newAPIServer() *cobra.Command {
	ctx := genericapiserver.SetupSignalContext()
	opts := options.NewServerRunOptions()
	registry := opts.GenericServerRunOptions.ComponentGlobalsRegistry
	cmd := &cobra.Command{
		Use: APIServer, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := registry.Set(); err != nil {
				return err
			}
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			if err := logsapi.ValidateAndApply(opts.Logs, registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)); err != nil {
				return err
			}
			cliflag.PrintFlags(cmd.Flags())
			completed, err := opts.Complete(ctx)
			if err != nil {
				return err
			}
			if errs := completed.Validate(); len(errs) > 0 {
				return utilerrors.NewAggregate(errs)
			}
			registry.AddMetrics()
			return serve(ctx, completed, os.Getenv(VersionEnv))
		},
	}
	cmd.SetContext(ctx)
	for _, fs := range opts.Flags().FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	return cmd
}

func serve(ctx context.Context, opts options.CompletedOptions, git string) error {
	config, err := apiserver.NewConfig(opts)
	if err != nil {
		return err
	}
	if git != "" {
		for _, g := range []*genericapiserver.Config{config.KubeAPIs.ControlPlane.Generic, &config.ApiExtensions.GenericConfig.Config, &config.Aggregator.GenericConfig.Config} {
			g.EffectiveVersion = reportedVersion{g.EffectiveVersion, git}
		}
	}
	completed, err := config.Complete()
	if err != nil {
		return err
	}
	chain, err := apiserver.CreateServerChain(completed)
	if err != nil {
		return err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}
