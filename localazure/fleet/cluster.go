// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/autoscaler"
	"github.com/nap-aks/nap/localazure/intent"
)

// clusterFleet holds the machines of one cluster and the client of its API.
type clusterFleet struct {
	f      *fleet
	uid    string
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	intent    *intent.ClusterIntent
	endpoint  string
	changed   chan struct{} // closed and replaced when intent or client change
	client    kubernetes.Interface
	simulated func(node string) bool // reports whether a node's kubelet is simulated; nil without a client
	stopKwok  context.CancelFunc
	machines  map[string]*machine
}

func newClusterFleet(ctx context.Context, f *fleet, uid string) *clusterFleet {
	ctx, cancel := context.WithCancel(ctx)
	return &clusterFleet{f: f, uid: uid, ctx: ctx, cancel: cancel, changed: make(chan struct{}), machines: map[string]*machine{}}
}

func (c *clusterFleet) setIntent(ci *intent.ClusterIntent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intent = ci
	if ci == nil {
		c.disconnect()
	}
	c.signal()
}

// setStatus connects once the control plane is up, and again if its endpoint
// changes.
func (c *clusterFleet) setStatus(st *intent.ClusterStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endpoint := ""
	if st != nil && st.Phase != intent.ClusterStopped {
		endpoint = st.Endpoint
	}
	if endpoint == c.endpoint {
		return
	}
	c.disconnect()
	c.endpoint = endpoint
	if endpoint == "" {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.stopKwok = cancel
	go c.connect(ctx, endpoint)
}

// disconnect stops the kubelets; the caller holds mu.
func (c *clusterFleet) disconnect() {
	if c.stopKwok != nil {
		c.stopKwok()
		c.stopKwok = nil
	}
	c.client, c.simulated, c.endpoint = nil, nil, ""
	c.signal()
}

func (c *clusterFleet) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// connect creates the client and starts the kubelets once the API is ready.
func (c *clusterFleet) connect(ctx context.Context, endpoint string) {
	log := c.f.Logger.With("cluster", c.uid)
	go c.serveTunnel(ctx, log)
	for ctx.Err() == nil {
		err := func() error {
			file := c.f.Kubeconfig(c.uid)
			if err := waitForFile(ctx, file); err != nil {
				return err
			}
			cfg, err := clientcmd.BuildConfigFromFlags("", file)
			if err != nil {
				return fmt.Errorf("credentials: %w", err)
			}
			if cfg.Host != endpoint {
				return fmt.Errorf("kubeconfig is for %s, not yet for %s", cfg.Host, endpoint)
			}
			cfg.QPS, cfg.Burst = 500, 1000
			client, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				return fmt.Errorf("client: %w", err)
			}
			if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
				return fmt.Errorf("not ready: %w", err)
			}
			simulated, err := startKubelets(ctx, cfg, client, c, log)
			if err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if ctx.Err() == nil {
				c.client, c.simulated = client, simulated
				c.signal()
			}
			go c.installMetrics(ctx, cfg, log)
			if c.f.Azure != nil {
				go autoscaler.Run(ctx, client, &poolCloud{c: c}, log)
			}
			log.Info("kubelets started", "endpoint", endpoint)
			return nil
		}()
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			log.Debug("cluster unreachable, retrying", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// api waits for the cluster's client and intent. It returns an error if ctx ends
// first.
func (c *clusterFleet) api(ctx context.Context) (client kubernetes.Interface, ci intent.ClusterIntent, err error) {
	for {
		c.mu.Lock()
		client, known, changed := c.client, c.intent, c.changed
		c.mu.Unlock()
		if client != nil && known != nil {
			return client, *known, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ci, ctx.Err()
		}
	}
}

// alive reports whether the cluster has an intent.
func (c *clusterFleet) alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intent != nil
}

// currentIntent returns the cluster's intent, or one with nothing but the UID after
// its deletion.
func (c *clusterFleet) currentIntent() intent.ClusterIntent {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intent == nil {
		return intent.ClusterIntent{UID: c.uid}
	}
	return *c.intent
}

func (c *clusterFleet) podCIDR() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intent != nil && c.intent.PodCIDR != "" {
		return c.intent.PodCIDR
	}
	return "10.244.0.0/16"
}

func (c *clusterFleet) machine(pool, name string) *machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := pool + "/" + name
	m, ok := c.machines[key]
	if !ok {
		m = &machine{c: c, pool: pool, name: name, wake: make(chan struct{}, 1)}
		c.machines[key] = m
		go m.loop(c.ctx)
	}
	return m
}

// wakeAll makes every machine reconcile with its intent and the faults.
func (c *clusterFleet) wakeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.machines {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

func (c *clusterFleet) drop(m *machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := m.pool + "/" + m.name
	if c.machines[key] == m {
		delete(c.machines, key)
	}
}

func sameMachine(a, b *intent.MachineIntent) bool {
	return a != nil && b != nil && reflect.DeepEqual(*a, *b)
}
