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
	"github.com/nap-aks/nap/localazure/fleet"
)

// Rooms are the components that other packages implement. Each runs until ctx
// ends.
type Rooms struct {
	// ARM serves the Azure Resource Manager of an instance. Its certificate is
	// pki/arm.crt with pki/arm.key in the home.
	ARM func(ctx context.Context, h Home, i Instance) error
	// Controller runs node auto-provisioning for one cluster.
	Controller func(ctx context.Context, i Instance, s ControllerSettings) error
	// Azure signs in to the instance's Resource Manager, for the autoscaler of
	// fixed pools. It may be nil: then no pool is autoscaled.
	Azure func(i Instance) (fleet.Azure, error)
}

// RunComponent is the whole life of a child process: `nap component NAME ARGS`.
// It returns when the component ends, with an error unless it was told to.
func RunComponent(name string, args []string, rooms Rooms) error {
	switch name {
	case controlplane.APIServer, controlplane.ControllerManager, controlplane.Scheduler:
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		return controlplane.Run(name, args)
	}
	fs := flag.NewFlagSet("nap component "+name, flag.ContinueOnError)
	home := fs.String("home", "", "the instance's folder")
	cluster := fs.String("cluster", "", "the cluster's UID (controller)")
	bootTime := fs.Duration("boot-time", 0, "mean boot time of machines (fleet)")
	clientPort := fs.Int("client-port", 0, "port for clients (etcd)")
	peerPort := fs.Int("peer-port", 0, "port for peers (etcd)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	h, err := OpenHome(*home)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if name == ComponentEtcd {
		pki := h.Path("pki")
		return RunEtcd(EtcdOptions{
			DataDir: h.Path("etcd"), ClientPort: *clientPort, PeerPort: *peerPort,
			CAFile: filepath.Join(pki, "ca.crt"), CertFile: filepath.Join(pki, "etcd.crt"), KeyFile: filepath.Join(pki, "etcd.key"),
		})
	}
	i, err := ReadInstance(h)
	if err != nil {
		return err
	}
	switch {
	case name == ComponentFleet:
		return runFleet(ctx, h, i, *bootTime, rooms)
	case name == ComponentARM && rooms.ARM != nil:
		err = rooms.ARM(ctx, h, i)
	case name == ComponentController && rooms.Controller != nil:
		var s ControllerSettings
		if s, err = ReadControllerSettings(h, *cluster); err == nil {
			err = rooms.Controller(ctx, i, s)
		}
	default:
		return fmt.Errorf("no component %q in this binary", name)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func runFleet(ctx context.Context, h Home, i Instance, bootTime time.Duration, rooms Rooms) error {
	c, err := DialEtcd(i)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	var azure fleet.Azure
	if rooms.Azure != nil {
		if azure, err = rooms.Azure(i); err != nil {
			return err
		}
	}
	return fleet.Run(ctx, fleet.Options{
		Azure:      azure,
		Etcd:       c,
		Kubeconfig: func(uid string) string { return h.ClusterPath(uid, idFleet+".kubeconfig") },
		Tunnel:     h.tunnelSocket,
		BootTime:   bootTime,
		Logger:     slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
}
