// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nap-aks/nap/localazure/tunnel"
)

// serveTunnel serves the kubelets and metrics-server to the cluster's API server
// until ctx ends.
func (c *clusterFleet) serveTunnel(ctx context.Context, log *slog.Logger) {
	if c.f.Tunnel == nil {
		return
	}
	socket := c.f.Tunnel(c.uid)
	if err := tunnel.CheckSocket(socket); err != nil {
		log.Warn("tunnel disabled", "error", err)
		return
	}
	for ctx.Err() == nil {
		_, err := os.Stat(filepath.Dir(socket)) // the supervisor creates the cluster's folder
		if err == nil {
			err = tunnel.Serve(ctx, socket, tunnel.Cluster{
				Client: func(ctx context.Context) (kubernetes.Interface, error) {
					client, _, err := c.api(ctx)
					return client, err
				},
				Simulated: c.simulatesKubelet,
				Logger:    log,
			})
		}
		if err != nil && ctx.Err() == nil {
			log.Debug("serving tunnel failed, retrying", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// simulatesKubelet reports whether the kubelet of a node is currently simulated.
func (c *clusterFleet) simulatesKubelet(node string) bool {
	c.mu.Lock()
	simulated := c.simulated
	c.mu.Unlock()
	return simulated != nil && simulated(node)
}

// installMetrics registers the tunnel's metrics API in the cluster.
func (c *clusterFleet) installMetrics(ctx context.Context, cfg *rest.Config, log *slog.Logger) {
	if c.f.Tunnel == nil || tunnel.CheckSocket(c.f.Tunnel(c.uid)) != nil {
		return
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		log.Error("metrics API disabled", "error", err)
		return
	}
	for ctx.Err() == nil {
		err := tunnel.Install(ctx, client)
		if err == nil {
			return
		}
		log.Debug("installing metrics API failed, retrying", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
