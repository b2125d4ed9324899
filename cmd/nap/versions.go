package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	kubeversion "k8s.io/component-base/version"

	"github.com/nap-aks/nap/localazure/azclient"
	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
	"github.com/nap-aks/nap/plan"
)

// versions names what this binary is made of.
func versions() [][2]string {
	out := [][2]string{{"nap", version}, {"kubernetes", kubeversion.Get().GitVersion}}
	if info, ok := debug.ReadBuildInfo(); ok {
		names := map[string]string{"go.etcd.io/etcd/server/v3": "etcd", "sigs.k8s.io/karpenter": "karpenter", "sigs.k8s.io/kwok": "kwok"}
		for _, m := range info.Deps {
			if name, ok := names[m.Path]; ok {
				out = append(out, [2]string{name, m.Version})
			}
		}
	}
	return append(out, [2]string{"go", runtime.Version()})
}

// rooms are the components that other packages implement.
func rooms() supervisor.Components {
	return supervisor.Components{ARM: runARM, Controller: runController, Azure: func(i home.Instance) (fleet.Azure, error) { return azclient.Connect(i) }}
}

// planCommands are `nap plan` and `nap explain`.
func planCommands() []*cobra.Command {
	return []*cobra.Command{plan.NewPlanCommand(), plan.NewExplainCommand()}
}
