package main

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/supervisor"
)

// runController runs node auto-provisioning for one cluster: the definitions
// and default NodePools first, then the controller itself.
func runController(ctx context.Context, i home.Instance, s supervisor.ControllerSettings) error {
	ci := s.Intent
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return fmt.Errorf("credentials of cluster %s: %w", ci.Name, err)
	}
	if err := controllers.InstallDefaults(ctx, cfg, ci.NodeProvisioning.DefaultNodePools != "None"); err != nil {
		return fmt.Errorf("cluster %s: %w", ci.Name, err)
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
		// The supervisor sees to it that there is one; with a lease, a killed
		// controller's successor would wait for it to run out.
		DisableLeaderElection: true,
		KubeQPS:               400, KubeBurst: 800,
		CPUMillicores: 2000,
	})
}
