// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nap-aks/nap/localazure/controlplane"
	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/fleet"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
)

// Names of the components that all clusters share or that this package does not
// implement; see the package comment.
const (
	ComponentEtcd       = "etcd"
	ComponentARM        = "arm"
	ComponentFleet      = "fleet"
	ComponentController = "controller"
)

// Components are the components that other packages implement. Each runs until
// ctx ends.
type Components struct {
	// ARM serves the Azure Resource Manager of an instance. Its certificate is
	// pki/arm.crt with pki/arm.key in the home.
	ARM func(ctx context.Context, h home.Home, i home.Instance) error
	// Controller runs node auto-provisioning for one cluster.
	Controller func(ctx context.Context, i home.Instance, s ControllerSettings) error
	// Azure returns a client of the instance's Resource Manager, for the autoscaler
	// of fixed pools. Without it no pool is autoscaled.
	Azure func(i home.Instance) (fleet.Azure, error)
}

// ControllerSettings is clusters/<uid>/controller.json (0600): the settings of a
// cluster's controller component.
type ControllerSettings struct {
	// Kubeconfig is the file with the controller's own credentials.
	Kubeconfig string `json:"kubeconfig"`
	// ClusterEndpoint is the API server's URL.
	ClusterEndpoint string               `json:"clusterEndpoint"`
	ARMEndpoint     string               `json:"armEndpoint"`
	CAFile          string               `json:"caFile"`
	Intent          intent.ClusterIntent `json:"intent"`
	Engine          string               `json:"engine,omitempty"`
	MetricsPort     int                  `json:"metricsPort"`
	HealthPort      int                  `json:"healthPort"`
	// DashboardPort serves the dashboard, whose history is in DashboardDir and whose key
	// in DashboardKeyFile (0600).
	DashboardPort    int    `json:"dashboardPort"`
	DashboardDir     string `json:"dashboardDir"`
	DashboardKeyFile string `json:"dashboardKeyFile"`
}

// ReadControllerSettings reads the settings of a cluster's controller.
func ReadControllerSettings(h home.Home, uid string) (ControllerSettings, error) {
	var s ControllerSettings
	if err := home.ReadJSON(h.ClusterPath(uid, "controller.json"), &s); err != nil {
		return s, fmt.Errorf("settings of the controller: %w", err)
	}
	return s, nil
}

// RunComponent is the main function of a child process: `nap component NAME ARGS`.
// It returns when the component ends, with an error unless it ended on a signal.
func RunComponent(name string, args []string, components Components) error {
	switch name {
	case controlplane.APIServer, controlplane.ControllerManager, controlplane.Scheduler:
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		return controlplane.Run(name, args)
	}
	fs := flag.NewFlagSet("nap component "+name, flag.ContinueOnError)
	dir := fs.String("home", "", "the instance's folder")
	cluster := fs.String("cluster", "", "the cluster's UID (controller)")
	bootTime := fs.Duration("boot-time", 0, "mean boot time of machines (fleet)")
	clientPort := fs.Int("client-port", 0, "port for clients (etcd)")
	peerPort := fs.Int("peer-port", 0, "port for peers (etcd)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	h, err := home.Open(*dir)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if name == ComponentEtcd {
		pki := h.Path("pki")
		return etcd.Run(etcd.ServerOptions{
			DataDir: h.Path("etcd"), ClientPort: *clientPort, PeerPort: *peerPort,
			CAFile: filepath.Join(pki, "ca.crt"), CertFile: filepath.Join(pki, "etcd.crt"), KeyFile: filepath.Join(pki, "etcd.key"),
		})
	}
	i, err := home.ReadInstance(h)
	if err != nil {
		return err
	}
	switch {
	case name == ComponentFleet:
		return runFleet(ctx, h, i, *bootTime, components)
	case name == ComponentARM && components.ARM != nil:
		err = components.ARM(ctx, h, i)
	case name == ComponentController && components.Controller != nil:
		var s ControllerSettings
		if s, err = ReadControllerSettings(h, *cluster); err == nil {
			err = components.Controller(ctx, i, s)
		}
	default:
		return fmt.Errorf("this binary has no component %q", name)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func runFleet(ctx context.Context, h home.Home, i home.Instance, bootTime time.Duration, components Components) error {
	c, err := etcd.Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	var azure fleet.Azure
	if components.Azure != nil {
		if azure, err = components.Azure(i); err != nil {
			return err
		}
	}
	return fleet.Run(ctx, fleet.Options{
		Azure:      azure,
		Etcd:       c,
		Kubeconfig: func(uid string) string { return controlplane.KubeconfigFile(h, uid, controlplane.IdentityFleet) },
		Tunnel:     h.TunnelSocket,
		BootTime:   bootTime,
		Logger:     slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
}
