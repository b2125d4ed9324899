// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/intent"
)

// Machinery fulfils intents, in place of the processes that run clusters and
// machines.
type Machinery struct {
	// Fail returns the error of a machine that fails to start.
	Fail func(m intent.MachineIntent) (code, message string)
	// Boot is how long machines take to start.
	Boot time.Duration
	// Blocked returns the reason for which the drain of a machine fails, if any.
	Blocked func(m intent.MachineIntent) string
	mu      sync.Mutex
	hold    bool
}

// Hold pauses or resumes the machinery. When it returns, no earlier round is
// running.
func (m *Machinery) Hold(on bool) {
	m.mu.Lock()
	m.hold = on
	m.mu.Unlock()
}

// Machinery starts a Machinery that stops at the end of the test.
func (a *Azure) Machinery() *Machinery {
	m := &Machinery{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		m.run(ctx, a.Etcd)
	}()
	a.T.Cleanup(func() { cancel(); wg.Wait() })
	return m
}

func (m *Machinery) run(ctx context.Context, kv *clientv3.Client) {
	watch := kv.Watch(ctx, "/nap/intent/", clientv3.WithPrefix())
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watch:
		case <-tick.C:
		}
		m.mu.Lock()
		var err error
		if !m.hold {
			err = m.round(ctx, kv)
		}
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "armtest machinery:", err)
		}
	}
}

func (m *Machinery) round(ctx context.Context, kv *clientv3.Client) error {
	cs, _, err := intent.List[intent.ClusterIntent](ctx, kv, intent.ClusterIntentPrefix)
	if err != nil {
		return err
	}
	sts, _, err := intent.List[intent.ClusterStatus](ctx, kv, intent.ClusterStatusPrefix)
	if err != nil {
		return err
	}
	have := map[string]intent.ClusterStatus{}
	for _, s := range sts {
		have[s.UID] = s
	}
	for _, c := range cs {
		s, ok := have[c.UID]
		delete(have, c.UID)
		if ok && s.ObservedGeneration == c.Generation {
			continue
		}
		s = intent.ClusterStatus{UID: c.UID, ObservedGeneration: c.Generation, Phase: intent.ClusterReady, NodeProvisioningMode: c.NodeProvisioning.Mode, KubernetesVersion: c.KubernetesVersion,
			AdminKubeconfig: "apiVersion: v1\nkind: Config\n", UserKubeconfig: "apiVersion: v1\nkind: Config\n", UpdatedAt: time.Now()}
		if c.Stopped {
			s.Phase = intent.ClusterStopped
		}
		if err := intent.Put(ctx, kv, intent.ClusterStatusKey(c.UID), s); err != nil {
			return err
		}
	}
	ms, _, err := intent.List[intent.MachineIntent](ctx, kv, intent.MachineIntentPrefix)
	if err != nil {
		return err
	}
	mst, _, err := intent.List[intent.MachineStatus](ctx, kv, intent.MachineStatusPrefix)
	if err != nil {
		return err
	}
	mhave := map[string]intent.MachineStatus{}
	for _, s := range mst {
		mhave[intent.MachineStatusKey(s.ClusterUID, s.Pool, s.Name)] = s
	}
	for _, x := range ms {
		key := intent.MachineStatusKey(x.ClusterUID, x.Pool, x.Name)
		s, ok := mhave[key]
		delete(mhave, key)
		if x.Drain != nil && ok && (s.Drain == nil || !s.Drain.Since.Equal(x.Drain.Since)) {
			s.Drain = &intent.DrainStatus{Since: x.Drain.Since, State: intent.Drained, At: time.Now()}
			if m.Blocked != nil && !x.Drain.IgnorePDBs {
				if why := m.Blocked(x); why != "" {
					s.Drain.State, s.Drain.Message = intent.DrainFailed, why
				}
			}
			if err := intent.Put(ctx, kv, key, s); err != nil {
				return err
			}
		}
		if ok && s.Phase != intent.MachineBooting && s.Image == x.Image() || time.Since(x.CreatedAt) < m.Boot {
			continue
		}
		s = intent.MachineStatus{ClusterUID: x.ClusterUID, Pool: x.Pool, Name: x.Name, Phase: intent.MachineRunning, Image: x.Image(), Registered: true, UpdatedAt: time.Now()}
		if m.Fail != nil {
			if code, msg := m.Fail(x); code != "" {
				s.Phase, s.Code, s.Message = intent.MachineFailed, code, msg
			}
		}
		if err := intent.Put(ctx, kv, key, s); err != nil {
			return err
		}
	}
	for key := range mhave {
		if err := intent.Delete(ctx, kv, key); err != nil {
			return err
		}
	}
	for uid := range have {
		if err := intent.Delete(ctx, kv, intent.ClusterStatusKey(uid)); err != nil {
			return err
		}
	}
	return nil
}

// Fulfil runs a Machinery until ctx ends.
func Fulfil(ctx context.Context, kv *clientv3.Client) { (&Machinery{}).run(ctx, kv) }
