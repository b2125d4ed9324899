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

// serveTunnel answers the cluster's API server as kubelets and metrics-server
// until ctx ends.
func (c *clusterFleet) serveTunnel(ctx context.Context, log *slog.Logger) {
	if c.f.Tunnel == nil {
		return
	}
	socket := c.f.Tunnel(c.uid)
	if err := tunnel.CheckSocket(socket); err != nil {
		log.Warn("no tunnel", "error", err)
		return
	}
	for ctx.Err() == nil {
		_, err := os.Stat(filepath.Dir(socket)) // the supervisor makes the cluster's folder
		if err == nil {
			err = tunnel.Serve(ctx, socket, tunnel.Cluster{
				Client: func(ctx context.Context) (kubernetes.Interface, error) {
					client, _, err := c.api(ctx)
					return client, err
				},
				Plays:  c.playsKubelet,
				Logger: log,
			})
		}
		if err != nil && ctx.Err() == nil {
			log.Debug("the tunnel does not answer, will try again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// playsKubelet tells whether the kubelet of a node is played at the moment.
func (c *clusterFleet) playsKubelet(node string) bool {
	c.mu.Lock()
	plays := c.plays
	c.mu.Unlock()
	return plays != nil && plays(node)
}

// installMetrics makes the cluster's API serve what the tunnel measures.
func (c *clusterFleet) installMetrics(ctx context.Context, cfg *rest.Config, log *slog.Logger) {
	if c.f.Tunnel == nil || tunnel.CheckSocket(c.f.Tunnel(c.uid)) != nil {
		return
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		log.Error("no metrics API", "error", err)
		return
	}
	for ctx.Err() == nil {
		err := tunnel.Install(ctx, client)
		if err == nil {
			return
		}
		log.Debug("the metrics API is not there, will try again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
