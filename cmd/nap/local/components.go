// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers"
	"github.com/nap-aks/nap/localazure/azclient"
	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
)

// components returns the components of an instance that the supervisor does not
// implement itself.
func components() supervisor.Components {
	return supervisor.Components{ARM: runARM, Controller: runController, Azure: func(i home.Instance) (fleet.Azure, error) { return azclient.Connect(i) }}
}

// runController installs the CRDs and default NodePools in one cluster, then runs
// the node auto-provisioning controller for it.
func runController(ctx context.Context, i home.Instance, s supervisor.ControllerSettings) error {
	ci := s.Intent
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the credentials of cluster %s: %w", ci.Name, err)
	}
	if err := controllers.InstallDefaults(ctx, cfg, ci.NodeProvisioning.DefaultNodePools != "None"); err != nil {
		return fmt.Errorf("installing the definitions in cluster %s: %w", ci.Name, err)
	}
	return controllers.Run(ctx, controllers.Options{
		Kubeconfig: s.Kubeconfig,
		Azure: azure.Config{
			ARMEndpoint:             s.ARMEndpoint,
			TenantID:                i.TenantID,
			ClientID:                ci.NodeProvisioning.ClientID,
			ClientSecret:            ci.NodeProvisioning.ClientSecret,
			CAFile:                  s.CAFile,
			ClusterResourceID:       ci.ResourceID,
			Location:                ci.Location,
			NodeResourceGroup:       ci.NodeResourceGroup,
			NetworkPlugin:           ci.NetworkPlugin,
			NetworkPluginMode:       ci.NetworkPluginMode,
			NetworkPolicy:           ci.NetworkPolicy,
			VnetSubnetID:            ci.VnetSubnetID,
			VMMemoryOverheadPercent: -1,
			PollInterval:            500 * time.Millisecond,
		},
		Engine:      s.Engine,
		MetricsPort: s.MetricsPort,
		HealthPort:  s.HealthPort,
		Dashboard:   controllers.Dashboard{Port: s.DashboardPort, Dir: s.DashboardDir, KeyFile: s.DashboardKeyFile},
		// The supervisor runs exactly one. With a lease, the successor of a killed
		// controller would have to wait until it expires.
		DisableLeaderElection: true,
		KubeQPS:               400, KubeBurst: 800,
		CPUMillicores: 2000,
	})
}
