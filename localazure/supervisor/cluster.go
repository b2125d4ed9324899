package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/addons"
	"github.com/nap-aks/nap/localazure/controlplane"
	"github.com/nap-aks/nap/localazure/intent"
)

// cluster makes one managed cluster's control plane what its intent says. All
// its work happens in loop; want only leaves the newest intent there.
type cluster struct {
	s      *supervisor
	uid    string
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}

	mu     sync.Mutex
	intent *intent.ClusterIntent
	told   bool // an intent, or its absence, has been told at all

	// Owned by loop.
	name                       string
	apiserver, kcm, sched, ctl *process
	plane                      *plane
	addonsFor                  string // the intent's addon inputs last applied
	controllerFor              ControllerSettings
	status, written            intent.ClusterStatus // as it should be told, and as it is in etcd
	readyOnce                  bool
}

func newCluster(s *supervisor, uid string) *cluster {
	ctx, cancel := context.WithCancel(context.Background())
	return &cluster{s: s, uid: uid, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
}

// want leaves the newest intent; nil means that the cluster must go.
func (c *cluster) want(ci *intent.ClusterIntent) {
	c.mu.Lock()
	c.intent, c.told = ci, true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *cluster) latest() (*intent.ClusterIntent, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intent, c.told
}

// loop reconciles at each new intent, and every few seconds: a component may
// have become ready, or died.
func (c *cluster) loop() {
	defer c.stopProcesses()
	retry := time.NewTicker(2 * time.Second)
	defer retry.Stop()
	for {
		ci, told := c.latest()
		if told {
			if ci == nil {
				if err := c.remove(); err != nil {
					c.s.Logger.Error("removing cluster, will try again", "cluster", c.name, "uid", c.uid, "error", err)
				} else if again, _ := c.latest(); again == nil {
					c.s.dropCluster(c.uid)
					return
				}
			} else if err := c.reconcile(*ci); err != nil && c.ctx.Err() == nil {
				c.s.Logger.Error("cluster is not as it should be, will try again", "cluster", ci.Name, "uid", c.uid, "error", err)
			}
		}
		select {
		case <-c.ctx.Done():
			return
		case <-c.wake:
		case <-retry.C:
		}
	}
}

// superseded tells a long wait that the intent it works for is outdated.
func (c *cluster) superseded(ci intent.ClusterIntent) bool {
	now, _ := c.latest()
	return now == nil || now.Generation != ci.Generation || now.Stopped != ci.Stopped
}

// reconcile takes the control plane one or more steps towards its intent.
func (c *cluster) reconcile(ci intent.ClusterIntent) error {
	c.name = ci.Name
	if c.status.UID == "" {
		// The endpoint and credentials of the last run stay readable meanwhile.
		st, _, err := intent.Get[intent.ClusterStatus](c.ctx, c.s.etcd, intent.ClusterStatusKey(c.uid))
		if err != nil {
			return err
		}
		c.status, c.written = st, st
		c.status.UID = c.uid
	}
	if ci.Stopped {
		left, err := c.machinesLeft()
		if err != nil {
			return err
		}
		if left == 0 {
			c.stopProcesses()
			return c.report(ci, intent.ClusterStopped, "")
		}
		// Machines take their Nodes with them, for which the API has to be there.
		defer c.wakeIn(500 * time.Millisecond)
	}
	if err := controlplane.CheckVersion(ci.KubernetesVersion); err != nil {
		return errors.Join(err, c.report(ci, intent.ClusterFailed, err.Error()))
	}
	if c.apiserver != nil && c.plane.version != ci.KubernetesVersion {
		// An upgrade: the same programs start again and behave as the new version.
		// Clients see a short outage, as with a control plane of one replica.
		c.s.Logger.Info("cluster is upgraded", "name", ci.Name, "from", c.plane.version, "to", ci.KubernetesVersion)
		c.stopPlane()
	}
	if err := c.startPlane(ci); err != nil {
		return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), err.Error()))
	}
	if err := c.wait(ci, c.apiserver, "waiting for kube-apiserver"); err != nil {
		return err
	}
	if err := c.startRest(ci); err != nil {
		return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), err.Error()))
	}
	if want := addonInputs(ci); c.addonsFor != want {
		if !c.readyOnce {
			if err := c.report(ci, intent.ClusterStarting, "applying kube-system"); err != nil {
				return err
			}
		}
		if err := c.applyAddons(ci); err != nil {
			return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), "applying kube-system: "+err.Error()))
		}
		c.addonsFor = want
	}
	if ci.NodeProvisioning.Mode == "Auto" {
		if err := c.startController(ci); err != nil {
			return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), err.Error()))
		}
		// A cluster whose API is up is Ready for its nodes and clients already;
		// the intent's generation is fulfilled once the controller is too.
		if c.status.NodeProvisioningMode != "Auto" {
			if err := c.wait(ci, c.ctl, "waiting for node auto-provisioning"); err != nil {
				return err
			}
		}
	} else if c.ctl != nil {
		c.ctl.stop()
		c.ctl = nil
		c.controllerFor = ControllerSettings{}
	}
	mode := ci.NodeProvisioning.Mode
	if mode == "" {
		mode = "Manual"
	}
	c.status.NodeProvisioningMode = mode
	c.readyOnce = true
	if ci.Stopped {
		return c.report(ci, intent.ClusterReady, "machines are being switched off")
	}
	return c.report(ci, intent.ClusterReady, "")
}

// machinesLeft is how many of the cluster's machines are still there.
func (c *cluster) machinesLeft() (int64, error) {
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	resp, err := c.s.etcd.Get(ctx, intent.MachineStatusPrefix+c.uid+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("counting its machines: %w", err)
	}
	return resp.Count, nil
}

// wakeIn has loop look again after a time.
func (c *cluster) wakeIn(d time.Duration) {
	time.AfterFunc(d, func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
}

// phaseWhileNotReady does not take Ready back from a cluster that was: a
// component that is being restarted is not a failed cluster.
func (c *cluster) phaseWhileNotReady() intent.ClusterPhase {
	if c.readyOnce {
		return intent.ClusterReady
	}
	return intent.ClusterStarting
}

// wait waits for a component, and tells in the status what for.
func (c *cluster) wait(ci intent.ClusterIntent, p *process, what string) error {
	if p.isReady() {
		return nil
	}
	if c.readyOnce && c.status.ObservedGeneration == ci.Generation {
		return nil // it was up for this intent and is being restarted
	}
	if err := c.report(ci, c.phaseWhileNotReady(), what); err != nil {
		return err
	}
	began := time.Now()
	for {
		ctx, cancel := context.WithTimeoutCause(c.ctx, time.Second, errStopped)
		err := p.waitReady(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		if c.superseded(ci) {
			return fmt.Errorf("a newer intent came while %s", what)
		}
		if time.Since(began) > 5*time.Second {
			if err := c.report(ci, c.phaseWhileNotReady(), what+": "+p.state()); err != nil {
				return err
			}
		}
	}
}

// startPlane starts the three programs of the control plane if they do not run.
func (c *cluster) startPlane(ci intent.ClusterIntent) error {
	if c.apiserver != nil {
		return nil
	}
	port, err := c.s.ports.get(c.uid+"/apiserver", false)
	if err != nil {
		return err
	}
	pl, err := preparePlane(c.s.Home, ci, port)
	if err != nil {
		return err
	}
	c.plane = pl
	c.status.Endpoint = pl.endpoint
	c.status.AdminKubeconfig, c.status.UserKubeconfig = string(pl.adminConfig), string(pl.userConfig)
	if c.apiserver, err = c.startKube(ci, controlplane.APIServer, pl.apiserverArgs(ci, c.s.inst), port,
		kubeProbe(pl.componentFiles[idSupervisor], "/readyz"), "GOMEMLIMIT=900MiB", "GOGC=50", controlplane.VersionEnv+"=v"+pl.version); err != nil {
		return err
	}
	return nil
}

// startRest starts what works through the API server, once that is ready: one
// that asks too early is refused for lack of RBAC rules and backs off.
func (c *cluster) startRest(ci intent.ClusterIntent) (err error) {
	if c.kcm == nil {
		if c.kcm, err = c.startKube(ci, controlplane.ControllerManager, c.plane.controllerManagerArgs(), 0, nil, "GOMEMLIMIT=400MiB", "GOGC=50"); err != nil {
			return err
		}
	}
	if c.sched == nil {
		c.sched, err = c.startKube(ci, controlplane.Scheduler, schedulerArgs(c.plane), 0, nil, "GOMEMLIMIT=400MiB", "GOGC=50")
	}
	return err
}

func (c *cluster) startKube(ci intent.ClusterIntent, name string, args []string, port int, probe func(context.Context) error, env ...string) (*process, error) {
	return c.s.group.start(processSpec{
		name: name, cluster: ci.Name, uid: c.uid,
		args:  append([]string{"component", name, "--"}, args...),
		env:   env,
		log:   c.s.Home.LogFile(name, c.uid),
		port:  port,
		probe: probe,
		// Nothing is lost when the API server is killed, and it would wait for
		// the end of every open watch.
		grace: 2 * time.Second,
	})
}

// startController starts the cluster's controller, or again when what it is
// told has changed.
func (c *cluster) startController(ci intent.ClusterIntent) error {
	metrics, err := c.s.ports.get(c.uid+"/controller-metrics", c.ctl != nil)
	if err != nil {
		return err
	}
	health, err := c.s.ports.get(c.uid+"/controller-health", c.ctl != nil)
	if err != nil {
		return err
	}
	told := ci
	told.Generation = 0 // a change of something else is no reason to restart
	set := ControllerSettings{
		Kubeconfig: c.plane.componentFiles[idController], ClusterEndpoint: c.plane.endpoint,
		ARMEndpoint: c.s.inst.ARMEndpoint, CAFile: c.s.inst.CAFile, Intent: told,
		Engine: c.s.Engine, MetricsPort: metrics, HealthPort: health,
	}
	if c.ctl != nil && reflect.DeepEqual(set, c.controllerFor) {
		return nil
	}
	if c.ctl != nil {
		c.ctl.stop()
		c.ctl = nil
	}
	if err := writeJSON(c.s.Home.ClusterPath(c.uid, "controller.json"), set, 0o600); err != nil {
		return err
	}
	probe := func(ctx context.Context) error {
		return get(ctx, http.DefaultClient, "http://127.0.0.1:"+strconv.Itoa(health)+"/readyz")
	}
	if c.ctl, err = c.s.group.start(processSpec{
		name: ComponentController, cluster: ci.Name, uid: c.uid,
		args: []string{"component", ComponentController, "--home", c.s.Home.Dir, "--cluster", c.uid},
		env:  []string{"GOMEMLIMIT=700MiB", "GOGC=60"},
		log:  c.s.Home.LogFile(ComponentController, c.uid),
		port: health, metrics: metrics, probe: probe, grace: 10 * time.Second,
	}); err != nil {
		return err
	}
	c.controllerFor = set
	return nil
}

// addonInputs is what decides the contents of kube-system.
func addonInputs(ci intent.ClusterIntent) string {
	return strings.Join([]string{ci.NetworkPlugin, ci.NetworkPluginMode, ci.NetworkDataplane, ci.NetworkPolicy, ci.DNSServiceIP, ci.ServiceCIDR, ci.NodeResourceGroup}, "|")
}

func (c *cluster) applyAddons(ci intent.ClusterIntent) error {
	cfg, err := c.restConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	version, err := addons.Apply(ctx, cfg, ci)
	if err != nil {
		return err
	}
	c.status.KubernetesVersion = version
	return nil
}

func (c *cluster) restConfig() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.plane.componentFiles[idSupervisor])
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.name, err)
	}
	cfg.QPS, cfg.Burst = 200, 400
	return cfg, nil
}

// report writes the status if it says anything new.
func (c *cluster) report(ci intent.ClusterIntent, phase intent.ClusterPhase, message string) error {
	st := c.status
	st.Phase, st.Message = phase, message
	if phase == intent.ClusterReady && message == "" || phase == intent.ClusterStopped || phase == intent.ClusterFailed {
		st.ObservedGeneration = ci.Generation
	}
	st.UpdatedAt = c.written.UpdatedAt
	if st == c.written && !st.UpdatedAt.IsZero() {
		return nil
	}
	st.UpdatedAt = time.Now().UTC()
	if err := intent.Put(c.ctx, c.s.etcd, intent.ClusterStatusKey(c.uid), st); err != nil {
		return err
	}
	c.status, c.written = st, st
	if phase == intent.ClusterReady && c.plane != nil {
		if err := mergeKubeconfig(c.s.Home.Path("kubeconfig"), c.plane.adminConfig, ""); err != nil {
			c.s.Logger.Warn("kubeconfig not written", "cluster", ci.Name, "error", err)
		}
	}
	c.s.Logger.Info("cluster", "name", ci.Name, "phase", phase, "message", message, "nodeProvisioning", st.NodeProvisioningMode)
	return nil
}

func (c *cluster) stopProcesses() {
	if c.ctl != nil {
		c.ctl.stop()
	}
	c.ctl, c.controllerFor = nil, ControllerSettings{}
	c.stopPlane()
	c.readyOnce = false
}

// stopPlane stops the control plane's own programs. What is in kube-system is
// applied again once they are back.
func (c *cluster) stopPlane() {
	stopAll(c.kcm, c.sched)
	if c.apiserver != nil {
		c.apiserver.stop()
	}
	c.kcm, c.sched, c.apiserver = nil, nil, nil
	c.addonsFor = ""
}

// remove takes a cluster whose intent is gone out of the world: processes,
// objects in etcd, files, ports, and at last the status.
func (c *cluster) remove() error {
	c.stopProcesses()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	if _, err := c.s.etcd.Delete(ctx, etcdPrefix(c.uid)+"/", clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("deleting its objects: %w", err)
	}
	if err := os.RemoveAll(c.s.Home.ClusterPath(c.uid)); err != nil {
		return fmt.Errorf("deleting its files: %w", err)
	}
	if err := c.s.ports.forget(c.uid + "/"); err != nil {
		return fmt.Errorf("giving its ports back: %w", err)
	}
	if c.name != "" {
		if err := mergeKubeconfig(c.s.Home.Path("kubeconfig"), nil, c.name); err != nil {
			return fmt.Errorf("taking it out of the kubeconfig: %w", err)
		}
	}
	if err := intent.Delete(ctx, c.s.etcd, intent.ClusterStatusKey(c.uid)); err != nil {
		return err
	}
	c.s.Logger.Info("cluster removed", "name", c.name, "uid", c.uid)
	return nil
}

// httpsProbe asks a URL for any answer below 500, trusting one authority.
func httpsProbe(url, caFile, token string) func(context.Context) error {
	var once sync.Once
	var client *http.Client
	var initErr error
	return func(ctx context.Context) error {
		once.Do(func() {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				initErr = err
				return
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(pem) {
				initErr = fmt.Errorf("no certificate in %s", caFile)
				return
			}
			client = &http.Client{Transport: &http.Transport{
				TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				MaxIdleConnsPerHost: 1,
			}}
		})
		if initErr != nil {
			return initErr
		}
		return get(ctx, client, url)
	}
}

// kubeProbe asks an API server's health endpoint with a kubeconfig's identity.
func kubeProbe(kubeconfig, path string) func(context.Context) error {
	var once sync.Once
	var client *http.Client
	var host string
	var initErr error
	return func(ctx context.Context) error {
		once.Do(func() {
			cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				initErr = err
				return
			}
			host = cfg.Host
			client, initErr = rest.HTTPClientFor(cfg)
		})
		if initErr != nil {
			return initErr
		}
		return get(ctx, client, host+path)
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
