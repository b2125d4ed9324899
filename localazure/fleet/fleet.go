// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package fleet simulates virtual machines and their kubelets. It watches the
// machine intents in etcd and boots a machine for each; the machine's kubelet
// registers a Node with the labels, capacity and taints that AKS gives that size.
// kwok's controllers simulate the kubelets: heartbeats, and pods that start, run,
// complete and end. When an intent is deleted, the fleet does what the cloud does:
// it stops the machine and deletes its Node and pods, and last its status.
//
// One process serves all clusters. It has no state of its own: intents and
// statuses are in etcd, Nodes in the clusters.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/reflector"
)

// DefaultBootTime is the mean boot time if Options set none. It is short, so that
// people see something happen; a real machine takes a minute or more.
const DefaultBootTime = 1500 * time.Millisecond

// Options of Run.
type Options struct {
	Etcd *clientv3.Client
	// Kubeconfig returns the file with the fleet's credentials for a cluster.
	Kubeconfig func(uid string) string
	// Tunnel returns the socket through which a cluster's API server reaches the
	// kubelets and metrics-server. If it is nil they do not answer.
	Tunnel func(uid string) string
	// BootTime is the mean time from a machine's allocation until its kubelet
	// registers; each machine takes 60% to 140% of it.
	BootTime time.Duration
	// Seed makes the boot times reproducible: they follow from it and the machines'
	// names.
	Seed   int64
	Logger *slog.Logger
	// Azure scales the fixed pools. If it is nil no pool is autoscaled.
	Azure Azure
}

// Run serves all clusters until ctx ends.
func Run(ctx context.Context, o Options) error {
	if o.BootTime <= 0 {
		o.BootTime = DefaultBootTime
	}
	f := &fleet{Options: o, clusters: map[string]*clusterFleet{}, faults: map[string]Fault{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		reflector.Run(ctx, o.Etcd, FaultsPrefix, o.Logger, reflector.Handler[Fault]{
			Set:     func(key string, fault Fault) { f.setFault(filepath.Base(key), &fault) },
			Deleted: func(key string) { f.setFault(filepath.Base(key), nil) },
		})
	})
	wg.Go(func() {
		reflector.Run(ctx, o.Etcd, intent.ClusterIntentPrefix, o.Logger, reflector.Handler[intent.ClusterIntent]{
			Set:     func(_ string, ci intent.ClusterIntent) { f.cluster(ctx, ci.UID).setIntent(&ci) },
			Deleted: func(key string) { f.cluster(ctx, filepath.Base(key)).setIntent(nil) },
		})
	})
	wg.Go(func() {
		reflector.Run(ctx, o.Etcd, intent.ClusterStatusPrefix, o.Logger, reflector.Handler[intent.ClusterStatus]{
			Set:     func(_ string, st intent.ClusterStatus) { f.cluster(ctx, st.UID).setStatus(&st) },
			Deleted: func(key string) { f.cluster(ctx, filepath.Base(key)).setStatus(nil) },
		})
	})
	wg.Go(func() {
		reflector.Run(ctx, o.Etcd, intent.MachineIntentPrefix, o.Logger, reflector.Handler[intent.MachineIntent]{
			Set: func(key string, m intent.MachineIntent) {
				uid, pool, name := splitKey(key, intent.MachineIntentPrefix)
				f.cluster(ctx, uid).machine(pool, name).setIntent(&m)
			},
			Deleted: func(key string) {
				uid, pool, name := splitKey(key, intent.MachineIntentPrefix)
				f.cluster(ctx, uid).machine(pool, name).setIntent(nil)
			},
			Synced: func() { f.removeOrphans(ctx) },
		})
	})
	wg.Wait()
	return nil
}

type fleet struct {
	Options
	mu       sync.Mutex
	clusters map[string]*clusterFleet
	faults   map[string]Fault
}

func splitKey(key, prefix string) (uid, pool, machine string) {
	uid, rest, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	pool, machine, _ = strings.Cut(rest, "/")
	return uid, pool, machine
}

func (f *fleet) cluster(ctx context.Context, uid string) *clusterFleet {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.clusters[uid]
	if !ok {
		c = newClusterFleet(ctx, f, uid)
		f.clusters[uid] = c
	}
	return c
}

// removeOrphans removes machines whose intent was deleted while the fleet did not
// run: their status still exists.
func (f *fleet) removeOrphans(ctx context.Context) {
	listCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	statuses, _, err := intent.List[intent.MachineStatus](listCtx, f.Etcd, intent.MachineStatusPrefix)
	if err != nil {
		f.Logger.Warn("listing machine statuses failed", "error", err)
		return
	}
	for _, st := range statuses {
		if _, found, err := intent.Get[intent.MachineIntent](listCtx, f.Etcd, intent.MachineIntentKey(st.ClusterUID, st.Pool, st.Name)); err == nil && !found {
			f.cluster(ctx, st.ClusterUID).machine(st.Pool, st.Name).setIntent(nil)
		}
	}
}

// bootDelay returns how long a machine takes to boot.
func (f *fleet) bootDelay(m intent.MachineIntent) time.Duration {
	if slow, ok := f.fault(SlowBoot, m); ok {
		return slow.BootTime
	}
	h := hash(fmt.Sprintf("%d/%s/%s", f.Seed, m.Pool, m.Name))
	return time.Duration(float64(f.BootTime) * (0.6 + 0.8*float64(h%1000)/1000))
}

// waitForFile waits until a file exists, such as the kubeconfig of a new cluster.
func waitForFile(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
