// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/etcd"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/pki"
	"github.com/nap-aks/nap/localazure/reflector"
)

// Options of Supervise.
type Options struct {
	Home home.Home
	// Binary is the program that runs each component, as
	// `Binary component NAME --home DIR …`; the running one if empty.
	Binary string
	// Version of the binary, for instance.json.
	Version string
	// Location is the region of the examples, such as "eastus".
	Location string
	// BootTime is the mean boot time of the fleet's virtual machines; zero means
	// the fleet's default.
	BootTime time.Duration
	// Etcd is an external etcd that holds the state instead of the embedded one.
	// Without endpoints the choice of the last run stays. It cannot change once
	// there is state.
	Etcd home.EtcdClient
	// Engine is passed on to the controllers; empty for their default.
	Engine string
	// Logger must not be nil.
	Logger *slog.Logger
	// Step is called with what the start waits for. It may be nil.
	Step func(text string)
	// Started is called once etcd, ARM and the fleet answer. It may be nil.
	Started func(home.Instance)
}

// supervisor is a running instance.
type supervisor struct {
	Options
	ports *home.Ports
	group *processGroup
	inst  home.Instance
	etcd  *clientv3.Client

	publishMu sync.Mutex

	mu       sync.Mutex
	clusters map[string]*cluster
	wg       sync.WaitGroup
}

// Supervise runs the instance until ctx ends, then stops every component in
// order. It returns an error if the instance cannot start; after the start it
// restarts components that exit and only ctx ends it. The caller must hold the
// lock of the home.
func Supervise(ctx context.Context, o Options) error {
	if o.Binary == "" {
		bin, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding the running program: %w", err)
		}
		o.Binary = bin
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if err := o.Home.CheckDisk(); err != nil {
		return err
	}
	s := &supervisor{Options: o, clusters: map[string]*cluster{}}
	s.group = newProcessGroup(o.Binary, o.Logger, s.publish)
	var err error
	if s.ports, err = home.OpenPorts(o.Home); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	var shared []*process
	defer func() {
		// Controllers and API servers first, then ARM and the fleet, etcd last.
		s.stopClusters()
		for _, p := range slices.Backward(shared) {
			p.stop()
		}
		if s.etcd != nil {
			_ = s.etcd.Close()
		}
		s.inst.Ready = false
		if err := home.WriteJSON(o.Home.Path("instance.json"), s.inst, 0o600); err != nil {
			o.Logger.Warn("writing instance.json failed", "error", err)
		}
	}()
	start := func(spec processSpec) (*process, error) {
		p, err := s.group.start(spec)
		if err != nil {
			return nil, err
		}
		shared = append(shared, p)
		return p, nil
	}

	if s.etcd, err = etcd.Dial(s.inst.Etcd); err != nil {
		return err
	}
	o.Step("etcd")
	if !s.inst.Etcd.External {
		server, err := start(s.etcdSpec())
		if err != nil {
			return err
		}
		if err := waitStart(ctx, server); err != nil {
			return err
		}
	}
	if err := etcd.Claim(ctx, s.etcd, s.inst.Etcd, etcd.Owner{ID: s.inst.SubscriptionID, Home: s.inst.Home}); err != nil {
		return err
	}
	o.Step("Azure Resource Manager")
	arm, err := start(s.armSpec())
	if err != nil {
		return err
	}
	fleet, err := start(s.spec(ComponentFleet, []string{"--boot-time", o.BootTime.String()}, []string{"GOMEMLIMIT=400MiB", "GOGC=60"}))
	if err != nil {
		return err
	}
	if err := waitStart(ctx, arm); err != nil {
		return err
	}
	if err := waitStart(ctx, fleet); err != nil {
		return err
	}
	s.inst.Ready = true
	if err := home.WriteJSON(o.Home.Path("instance.json"), s.inst, 0o600); err != nil {
		return err
	}
	if o.Started != nil {
		o.Started(s.inst)
	}
	reflector.Run(ctx, s.etcd, intent.ClusterIntentPrefix, o.Logger, reflector.Handler[intent.ClusterIntent]{
		Set:     func(key string, ci intent.ClusterIntent) { s.cluster(path.Base(key)).setIntent(&ci) },
		Deleted: func(key string) { s.cluster(path.Base(key)).setIntent(nil) },
		Synced:  s.removeOrphans,
	})
	return nil
}

// waitStart waits until a component is ready for the first time. It gives up after
// five restarts or three minutes.
func waitStart(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not ready within 3 minutes"))
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			p.mu.Lock()
			tooOften := p.restarts >= 5 && !p.ready
			p.mu.Unlock()
			if tooOften {
				cancel()
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	if err := p.waitReady(ctx); err != nil {
		if tail := logTail(p.spec.log); tail != "" {
			return fmt.Errorf("%w\nthe end of its log:\n%s", err, tail)
		}
		return err
	}
	return nil
}

// logTail returns the last five lines of a log, indented.
func logTail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-5):]
	for i, l := range lines {
		if len(l) > 400 {
			l = l[:400] + "…"
		}
		lines[i] = "  " + l
	}
	return strings.Join(lines, "\n")
}

// prepare writes the instance's files and fills in s.inst.
func (s *supervisor) prepare(ctx context.Context) error {
	h := s.Home
	ca, err := pki.OpenAuthority(h.Path("pki"), "nap local Azure")
	if err != nil {
		return err
	}
	if _, err := ca.Server("arm", "localhost", "127.0.0.1"); err != nil {
		return err
	}
	pem, err := os.ReadFile(ca.CAFile())
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := home.WriteFile(h.Path("ca.pem"), pem, 0o644); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	var old home.Instance
	if err := home.ReadJSON(h.Path("instance.json"), &old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Logger.Warn("instance.json is unreadable, replacing it; `az` has to log in again", "error", err)
	}
	armPort, err := s.ports.Get("arm", false)
	if err != nil {
		return err
	}
	orNew := func(v string) string {
		if v == "" {
			return uuid.NewString()
		}
		return v
	}
	subscription := orNew(old.SubscriptionID)
	db, err := s.chooseEtcd(ctx, ca, old.Etcd, etcd.Owner{ID: subscription, Home: h.Dir})
	if err != nil {
		return err
	}
	s.inst = home.Instance{
		ARMEndpoint:      fmt.Sprintf("https://localhost:%d", armPort),
		CAFile:           h.Path("ca.pem"),
		TenantID:         orNew(old.TenantID),
		SubscriptionID:   subscription,
		ClientID:         orNew(old.ClientID),
		ClientSecretFile: h.Path("client-secret"),
		Location:         s.Location,
		Kubeconfig:       h.Path("kubeconfig"),
		Etcd:             db,
		PID:              os.Getpid(),
		StartedAt:        time.Now().UTC(),
		Home:             h.Dir,
		Version:          s.Version,
	}
	if old.Location != "" && s.Location == "" {
		s.inst.Location = old.Location
	}
	if s.inst.Location == "" {
		s.inst.Location = "eastus"
	}
	if _, err := os.Stat(s.inst.ClientSecretFile); errors.Is(err, fs.ErrNotExist) {
		raw := make([]byte, 24)
		if _, err := rand.Read(raw); err != nil {
			return fmt.Errorf("client secret: %w", err)
		}
		if err := home.WriteFile(s.inst.ClientSecretFile, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
			return fmt.Errorf("client secret: %w", err)
		}
	}
	return home.WriteJSON(h.Path("instance.json"), s.inst, 0o600)
}

// chooseEtcd returns the etcd that the options ask for, that of the last run, or
// the embedded one.
func (s *supervisor) chooseEtcd(ctx context.Context, ca *pki.Authority, last home.EtcdClient, me etcd.Owner) (home.EtcdClient, error) {
	asked := s.Options.Etcd
	hasOwn := false
	if _, err := os.Stat(s.Home.Path("etcd", "member")); err == nil {
		hasOwn = true
	}
	switch {
	case len(asked.Endpoints) > 0 && hasOwn:
		return asked, fmt.Errorf("--etcd-endpoints: the state of %s is in its embedded etcd and cannot move to another: choose a new folder with --home", s.Home.Dir)
	case len(asked.Endpoints) > 0:
		asked.External = true
	case last.External:
		asked = last
	}
	if asked.External {
		if err := asked.Check(); err != nil {
			return asked, err
		}
		c, err := etcd.Dial(asked)
		if err != nil {
			return asked, err
		}
		defer func() { _ = c.Close() }()
		return asked, etcd.CheckUsable(ctx, c, asked, me)
	}
	port, err := s.ports.Get("etcd", false)
	if err != nil {
		return asked, err
	}
	if _, err := ca.Server("etcd", "localhost", "127.0.0.1"); err != nil {
		return asked, err
	}
	client, err := ca.Client("etcd-client", "nap")
	if err != nil {
		return asked, err
	}
	return home.EtcdClient{Endpoints: []string{fmt.Sprintf("https://127.0.0.1:%d", port)}, CAFile: ca.CAFile(), CertFile: client.CertFile, KeyFile: client.KeyFile}, nil
}

// spec returns the process of a component; args follow the common arguments.
func (s *supervisor) spec(name string, args, env []string) processSpec {
	return processSpec{
		name: name,
		args: append([]string{"component", name, "--home", s.Home.Dir}, args...),
		env:  env,
		log:  s.Home.LogFile(name, ""),
	}
}

func (s *supervisor) etcdSpec() processSpec {
	peer, err := s.ports.Get("etcd-peer", false)
	if err != nil {
		s.Logger.Error("no port for etcd's peer address", "error", err)
	}
	port := s.inst.Etcd.Endpoints[0][strings.LastIndex(s.inst.Etcd.Endpoints[0], ":")+1:]
	spec := s.spec(ComponentEtcd, []string{"--client-port", port, "--peer-port", strconv.Itoa(peer)}, []string{"GOMEMLIMIT=400MiB", "GOGC=50"})
	spec.port, _ = strconv.Atoi(port)
	spec.probe = func(ctx context.Context) error { return etcd.Ready(ctx, s.etcd) }
	spec.grace = 15 * time.Second
	return spec
}

func (s *supervisor) armSpec() processSpec {
	// With a thousand concurrent requests, frequent garbage collection would take a
	// fifth of the CPU time.
	spec := s.spec(ComponentARM, nil, []string{"GOMEMLIMIT=300MiB", "GOGC=200"})
	spec.port, _ = strconv.Atoi(s.inst.ARMEndpoint[strings.LastIndex(s.inst.ARMEndpoint, ":")+1:])
	spec.probe = httpsProbe(s.inst.ARMEndpoint+"/metadata/endpoints?api-version=2022-09-01", s.inst.CAFile)
	return spec
}

// publish writes components.json.
func (s *supervisor) publish() {
	s.publishMu.Lock()
	defer s.publishMu.Unlock()
	list := s.group.list()
	order := []string{ComponentEtcd, ComponentARM, ComponentFleet}
	rank := func(c home.ComponentInfo) int {
		if i := slices.Index(order, c.Name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(list, func(a, b home.ComponentInfo) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := strings.Compare(a.Cluster, b.Cluster); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	if err := home.WriteJSON(s.Home.Path("components.json"), list, 0o600); err != nil {
		s.Logger.Warn("writing components.json failed", "error", err)
	}
}

// cluster returns the reconciler of a cluster, and starts it if necessary.
func (s *supervisor) cluster(uid string) *cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clusters[uid]
	if !ok {
		c = newCluster(s, uid)
		s.clusters[uid] = c
		s.wg.Go(c.loop)
	}
	return c
}

func (s *supervisor) dropCluster(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clusters, uid)
}

// stopClusters stops the processes of all clusters and waits.
func (s *supervisor) stopClusters() {
	s.mu.Lock()
	for _, c := range s.clusters {
		c.cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// removeOrphans removes clusters whose intent was deleted while the supervisor did
// not run: their status still exists.
func (s *supervisor) removeOrphans() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	statuses, _, err := intent.List[intent.ClusterStatus](ctx, s.etcd, intent.ClusterStatusPrefix)
	if err != nil {
		s.Logger.Warn("listing cluster statuses failed", "error", err)
		return
	}
	for _, st := range statuses {
		if _, found, err := intent.Get[intent.ClusterIntent](ctx, s.etcd, intent.ClusterIntentKey(st.UID)); err == nil && !found {
			s.cluster(st.UID).setIntent(nil)
		}
	}
}
