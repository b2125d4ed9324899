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

	"github.com/nap-aks/nap/localazure/intent"
	"github.com/nap-aks/nap/localazure/mirror"
)

// Options of Supervise.
type Options struct {
	Home Home
	// Binary is the program that is run for each component, as
	// `Binary component NAME --home DIR …`; the running one if empty.
	Binary string
	// Version of the binary, for instance.json.
	Version string
	// Location is the region of the examples, such as "eastus".
	Location string
	// BootTime is the mean time a virtual machine takes to boot; it is passed to
	// the fleet. Zero keeps the fleet's default.
	BootTime time.Duration
	// Etcd is an etcd that somebody else runs, to hold the state in place of the
	// instance's own; without endpoints it is what it was in the last run. It
	// cannot change once there is state.
	Etcd EtcdClient
	// Engine is what decides in the controllers, handed to them as it is; empty
	// for their default.
	Engine string
	// Logger receives what the supervisor does; never nil.
	Logger *slog.Logger
	// Step is told what is being waited for while the instance starts. It may
	// be nil.
	Step func(text string)
	// Started is called once etcd, ARM and the fleet answer. It may be nil.
	Started func(Instance)
}

// Names of the components that other rooms implement; see the package comment.
const (
	ComponentEtcd       = "etcd"
	ComponentARM        = "arm"
	ComponentFleet      = "fleet"
	ComponentController = "controller"
)

// ControllerSettings is clusters/<uid>/controller.json (0600): what the
// controller component is told about the cluster it works for.
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
}

// ReadControllerSettings reads the settings of a cluster's controller.
func ReadControllerSettings(h Home, uid string) (ControllerSettings, error) {
	var s ControllerSettings
	if err := readJSON(h.ClusterPath(uid, "controller.json"), &s); err != nil {
		return s, fmt.Errorf("settings of the controller: %w", err)
	}
	return s, nil
}

// supervisor is a running instance.
type supervisor struct {
	Options
	ports *ports
	group *processGroup
	inst  Instance
	etcd  *clientv3.Client

	publishMu sync.Mutex

	mu       sync.Mutex
	clusters map[string]*cluster
	wg       sync.WaitGroup
}

// Supervise runs the instance until ctx ends, then stops every component in
// order. It returns an error when the instance cannot start; afterwards
// components that die are restarted and nothing short of ctx ends it. The home
// must be locked by the caller.
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
	if err := diskFree(o.Home); err != nil {
		return err
	}
	s := &supervisor{Options: o, clusters: map[string]*cluster{}}
	s.group = newProcessGroup(o.Binary, o.Logger, s.publish)
	var err error
	if s.ports, err = openPorts(o.Home); err != nil {
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
		if err := writeJSON(o.Home.Path("instance.json"), s.inst, 0o600); err != nil {
			o.Logger.Warn("instance.json not written", "error", err)
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

	if s.etcd, err = s.inst.Etcd.dial(); err != nil {
		return err
	}
	o.Step("etcd")
	if !s.inst.Etcd.External {
		etcd, err := start(s.etcdSpec())
		if err != nil {
			return err
		}
		if err := waitStart(ctx, etcd); err != nil {
			return err
		}
	}
	if err := claimEtcd(ctx, s.etcd, s.inst.Etcd, owner{s.inst.SubscriptionID, s.inst.Home}); err != nil {
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
	if err := writeJSON(o.Home.Path("instance.json"), s.inst, 0o600); err != nil {
		return err
	}
	if o.Started != nil {
		o.Started(s.inst)
	}
	mirror.Follow(ctx, s.etcd, intent.ClusterIntentPrefix, o.Logger, mirror.Handler[intent.ClusterIntent]{
		Set:    func(key string, ci intent.ClusterIntent) { s.cluster(path.Base(key)).want(&ci) },
		Gone:   func(key string) { s.cluster(path.Base(key)).want(nil) },
		Synced: s.sweepStatuses,
	})
	return nil
}

// waitStart waits for a component's first answer; it gives up when it died
// several times or takes minutes.
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

// logTail is the last few lines of a log, indented.
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

// prepare makes the instance's files and fills in what clients need.
func (s *supervisor) prepare(ctx context.Context) error {
	h := s.Home
	ca, err := openAuthority(h.Path("pki"), "nap local Azure")
	if err != nil {
		return err
	}
	if _, err := ca.server("arm", "localhost", "127.0.0.1"); err != nil {
		return err
	}
	pem, err := os.ReadFile(ca.caFile())
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := writeFile(h.Path("ca.pem"), pem, 0o644); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	var old Instance
	if err := readJSON(h.Path("instance.json"), &old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Logger.Warn("instance.json is not readable, writing it anew; `az` has to log in again", "error", err)
	}
	armPort, err := s.ports.get("arm", false)
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
	etcd, err := s.chooseEtcd(ctx, ca, old.Etcd, owner{subscription, h.Dir})
	if err != nil {
		return err
	}
	s.inst = Instance{
		ARMEndpoint:      fmt.Sprintf("https://localhost:%d", armPort),
		CAFile:           h.Path("ca.pem"),
		TenantID:         orNew(old.TenantID),
		SubscriptionID:   subscription,
		ClientID:         orNew(old.ClientID),
		ClientSecretFile: h.Path("client-secret"),
		Location:         s.Location,
		Kubeconfig:       h.Path("kubeconfig"),
		Etcd:             etcd,
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
		if err := writeFile(s.inst.ClientSecretFile, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
			return fmt.Errorf("client secret: %w", err)
		}
	}
	return writeJSON(h.Path("instance.json"), s.inst, 0o600)
}

// chooseEtcd is the etcd asked for, that of the last run, or the instance's own.
func (s *supervisor) chooseEtcd(ctx context.Context, ca *authority, last EtcdClient, me owner) (EtcdClient, error) {
	asked := s.Options.Etcd
	hasOwn := false
	if _, err := os.Stat(s.Home.Path("etcd", "member")); err == nil {
		hasOwn = true
	}
	switch {
	case len(asked.Endpoints) > 0 && hasOwn:
		return asked, fmt.Errorf("--etcd-endpoints: the state of %s is in an etcd of its own; it cannot move to another: choose a new folder with --home", s.Home.Dir)
	case len(asked.Endpoints) > 0:
		asked.External = true
	case last.External:
		asked = last
	}
	if asked.External {
		if err := asked.Check(); err != nil {
			return asked, err
		}
		c, err := asked.dial()
		if err != nil {
			return asked, err
		}
		defer func() { _ = c.Close() }()
		return asked, checkEtcd(ctx, c, asked, me)
	}
	port, err := s.ports.get("etcd", false)
	if err != nil {
		return asked, err
	}
	if _, err := ca.server("etcd", "localhost", "127.0.0.1"); err != nil {
		return asked, err
	}
	client, err := ca.client("etcd-client", "nap")
	if err != nil {
		return asked, err
	}
	return EtcdClient{Endpoints: []string{fmt.Sprintf("https://127.0.0.1:%d", port)}, CAFile: ca.caFile(), CertFile: client.certFile, KeyFile: client.keyFile}, nil
}

// spec is a component's process; its extra arguments follow the common ones.
func (s *supervisor) spec(name string, args, env []string) processSpec {
	return processSpec{
		name: name,
		args: append([]string{"component", name, "--home", s.Home.Dir}, args...),
		env:  env,
		log:  s.Home.LogFile(name, ""),
	}
}

func (s *supervisor) etcdSpec() processSpec {
	peer, err := s.ports.get("etcd-peer", false)
	if err != nil {
		s.Logger.Error("no port for etcd's peer address", "error", err)
	}
	port := s.inst.Etcd.Endpoints[0][strings.LastIndex(s.inst.Etcd.Endpoints[0], ":")+1:]
	spec := s.spec(ComponentEtcd, []string{"--client-port", port, "--peer-port", strconv.Itoa(peer)}, []string{"GOMEMLIMIT=400MiB", "GOGC=50"})
	spec.port, _ = strconv.Atoi(port)
	spec.probe = func(ctx context.Context) error { return etcdAnswers(ctx, s.etcd) }
	spec.grace = 15 * time.Second
	return spec
}

func (s *supervisor) armSpec() processSpec {
	// A thousand requests at once make so much garbage that collecting it often
	// would cost them a fifth of their time.
	spec := s.spec(ComponentARM, nil, []string{"GOMEMLIMIT=300MiB", "GOGC=200"})
	spec.port, _ = strconv.Atoi(s.inst.ARMEndpoint[strings.LastIndex(s.inst.ARMEndpoint, ":")+1:])
	spec.probe = httpsProbe(s.inst.ARMEndpoint+"/metadata/endpoints?api-version=2022-09-01", s.inst.CAFile, "")
	return spec
}

// publish writes components.json.
func (s *supervisor) publish() {
	s.publishMu.Lock()
	defer s.publishMu.Unlock()
	list := s.group.list()
	order := []string{ComponentEtcd, ComponentARM, ComponentFleet}
	rank := func(c ComponentInfo) int {
		if i := slices.Index(order, c.Name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(list, func(a, b ComponentInfo) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		if d := strings.Compare(a.Cluster, b.Cluster); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	if err := writeJSON(s.Home.Path("components.json"), list, 0o600); err != nil {
		s.Logger.Warn("components.json not written", "error", err)
	}
}

// cluster returns the reconciler of a cluster, started if need be.
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

// sweepStatuses makes sure that clusters whose intent vanished while nobody
// looked are cleaned up: their status is still there.
func (s *supervisor) sweepStatuses() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	statuses, _, err := intent.List[intent.ClusterStatus](ctx, s.etcd, intent.ClusterStatusPrefix)
	if err != nil {
		s.Logger.Warn("looking for clusters to clean up", "error", err)
		return
	}
	for _, st := range statuses {
		if _, found, err := intent.Get[intent.ClusterIntent](ctx, s.etcd, intent.ClusterIntentKey(st.UID)); err == nil && !found {
			s.cluster(st.UID).want(nil)
		}
	}
}
