// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/localazure/intent"
)

// cluster reconciles one managed cluster's control plane with its intent. All its
// work happens in loop; setIntent only stores the newest intent.
type cluster struct {
	s      *supervisor
	uid    string
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}

	mu     sync.Mutex
	intent *intent.ClusterIntent
	known  bool // setIntent has been called

	// Owned by loop.
	name                       string
	apiserver, kcm, sched, ctl *process
	plane                      *controlplane.ControlPlane
	appliedAddons              string // addonInputs of the intent last applied
	controllerSettings         ControllerSettings
	status, written            intent.ClusterStatus // the current one, and the one in etcd
	readyOnce                  bool
}

func newCluster(s *supervisor, uid string) *cluster {
	ctx, cancel := context.WithCancel(context.Background())
	return &cluster{s: s, uid: uid, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
}

// setIntent stores the newest intent; nil means that the cluster was deleted.
func (c *cluster) setIntent(ci *intent.ClusterIntent) {
	c.mu.Lock()
	c.intent, c.known = ci, true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *cluster) latest() (*intent.ClusterIntent, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intent, c.known
}

// loop reconciles at each new intent, and every two seconds because a component
// may have become ready or have exited.
func (c *cluster) loop() {
	defer c.stopProcesses()
	retry := time.NewTicker(2 * time.Second)
	defer retry.Stop()
	for {
		ci, known := c.latest()
		if known {
			if ci == nil {
				if err := c.remove(); err != nil {
					c.s.Logger.Error("removing cluster failed, retrying", "cluster", c.name, "uid", c.uid, "error", err)
				} else if again, _ := c.latest(); again == nil {
					c.s.dropCluster(c.uid)
					return
				}
			} else if err := c.reconcile(*ci); err != nil && c.ctx.Err() == nil {
				c.s.Logger.Error("reconciling cluster failed, retrying", "cluster", ci.Name, "uid", c.uid, "error", err)
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

// superseded reports whether the intent that a long wait works for is outdated.
func (c *cluster) superseded(ci intent.ClusterIntent) bool {
	now, _ := c.latest()
	return now == nil || now.Generation != ci.Generation || now.Stopped != ci.Stopped
}

// reconcile brings the control plane closer to its intent, by one step or more.
func (c *cluster) reconcile(ci intent.ClusterIntent) error {
	c.name = ci.Name
	if c.status.UID == "" {
		// Start from the status in etcd, so that the endpoint and credentials of the
		// last run stay readable.
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
		// The API must stay up until the machines that remain have deleted their Nodes.
		defer c.wakeIn(500 * time.Millisecond)
	}
	if err := controlplane.CheckVersion(ci.KubernetesVersion); err != nil {
		return errors.Join(err, c.report(ci, intent.ClusterFailed, err.Error()))
	}
	if c.apiserver != nil && c.plane.Version != ci.KubernetesVersion {
		// An upgrade restarts the same programs, which then behave as the new version.
		// Clients see a short outage, as with a control plane of one replica.
		c.s.Logger.Info("upgrading cluster", "cluster", ci.Name, "from", c.plane.Version, "to", ci.KubernetesVersion)
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
	if inputs := addonInputs(ci); c.appliedAddons != inputs {
		if !c.readyOnce {
			if err := c.report(ci, intent.ClusterStarting, "applying kube-system"); err != nil {
				return err
			}
		}
		if err := c.applyAddons(ci); err != nil {
			return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), "applying kube-system: "+err.Error()))
		}
		c.appliedAddons = inputs
	}
	if ci.NodeProvisioning.Mode == "Auto" {
		if err := c.startController(ci); err != nil {
			return errors.Join(err, c.report(ci, c.phaseWhileNotReady(), err.Error()))
		}
		// Nodes and clients can use the cluster as soon as its API is up; the
		// intent's generation is only observed once the controller is ready too.
		if c.status.NodeProvisioningMode != "Auto" {
			if err := c.wait(ci, c.ctl, "waiting for node auto-provisioning"); err != nil {
				return err
			}
		}
	} else if c.ctl != nil {
		c.ctl.stop()
		c.ctl = nil
		c.controllerSettings = ControllerSettings{}
	}
	mode := ci.NodeProvisioning.Mode
	if mode == "" {
		mode = "Manual"
	}
	c.status.NodeProvisioningMode = mode
	c.readyOnce = true
	if ci.Stopped {
		return c.report(ci, intent.ClusterReady, "stopping machines")
	}
	return c.report(ci, intent.ClusterReady, "")
}

// machinesLeft returns how many machines the cluster still has.
func (c *cluster) machinesLeft() (int64, error) {
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	resp, err := c.s.etcd.Get(ctx, intent.MachineStatusPrefix+c.uid+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("counting machines of cluster %s: %w", c.name, err)
	}
	return resp.Count, nil
}

// wakeIn makes loop reconcile again after d.
func (c *cluster) wakeIn(d time.Duration) {
	time.AfterFunc(d, func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
}

// phaseWhileNotReady returns Ready for a cluster that was ready before: the
// restart of a component does not make it unready.
func (c *cluster) phaseWhileNotReady() intent.ClusterPhase {
	if c.readyOnce {
		return intent.ClusterReady
	}
	return intent.ClusterStarting
}

// wait waits until a component is ready, and reports in the status what it waits
// for.
func (c *cluster) wait(ci intent.ClusterIntent, p *process, what string) error {
	if p.isReady() {
		return nil
	}
	if c.readyOnce && c.status.ObservedGeneration == ci.Generation {
		return nil // it was ready for this intent and is restarting
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
			return fmt.Errorf("the intent changed while %s", what)
		}
		if time.Since(began) > 5*time.Second {
			if err := c.report(ci, c.phaseWhileNotReady(), what+": "+p.state()); err != nil {
				return err
			}
		}
	}
}

// startPlane starts the API server if it does not run.
func (c *cluster) startPlane(ci intent.ClusterIntent) error {
	if c.apiserver != nil {
		return nil
	}
	port, err := c.s.ports.Get(c.uid+"/apiserver", false)
	if err != nil {
		return err
	}
	pl, err := controlplane.Prepare(c.s.Home, ci, port)
	if err != nil {
		return err
	}
	c.plane = pl
	c.status.Endpoint = pl.Endpoint
	c.status.AdminKubeconfig, c.status.UserKubeconfig = string(pl.AdminKubeconfig), string(pl.UserKubeconfig)
	c.apiserver, err = c.startKube(ci, controlplane.APIServer, pl.APIServerArgs(ci, c.s.inst.Etcd), port,
		kubeProbe(pl.Kubeconfig(controlplane.IdentitySupervisor), "/readyz"), "GOMEMLIMIT=900MiB", "GOGC=50", controlplane.VersionEnv+"=v"+pl.Version)
	return err
}

// startRest starts the API server's clients once it is ready. Earlier it would
// deny them access, because its RBAC rules are missing, and they would back off.
func (c *cluster) startRest(ci intent.ClusterIntent) (err error) {
	if c.kcm == nil {
		if c.kcm, err = c.startKube(ci, controlplane.ControllerManager, c.plane.ControllerManagerArgs(), 0, nil, "GOMEMLIMIT=400MiB", "GOGC=50"); err != nil {
			return err
		}
	}
	if c.sched == nil {
		c.sched, err = c.startKube(ci, controlplane.Scheduler, c.plane.SchedulerArgs(), 0, nil, "GOMEMLIMIT=400MiB", "GOGC=50")
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
		// Nothing is lost if the API server is killed; on SIGTERM it would wait for
		// the end of every open watch.
		grace: 2 * time.Second,
	})
}

// startController starts the cluster's controller, and restarts it if its
// settings have changed.
func (c *cluster) startController(ci intent.ClusterIntent) error {
	metrics, err := c.s.ports.Get(c.uid+"/controller-metrics", c.ctl != nil)
	if err != nil {
		return err
	}
	health, err := c.s.ports.Get(c.uid+"/controller-health", c.ctl != nil)
	if err != nil {
		return err
	}
	board, err := c.s.ports.Get(c.uid+"/controller-dashboard", c.ctl != nil)
	if err != nil {
		return err
	}
	keyFile, err := dashboardKey(c.s.Home, c.uid)
	if err != nil {
		return err
	}
	settled := ci
	settled.Generation = 0 // a change of anything else is no reason to restart
	set := ControllerSettings{
		Kubeconfig: c.plane.Kubeconfig(controlplane.IdentityController), ClusterEndpoint: c.plane.Endpoint,
		ARMEndpoint: c.s.inst.ARMEndpoint, CAFile: c.s.inst.CAFile, Intent: settled,
		Engine: c.s.Engine, MetricsPort: metrics, HealthPort: health,
		DashboardPort: board, DashboardDir: c.s.Home.ClusterPath(c.uid, "dashboard"), DashboardKeyFile: keyFile,
	}
	if c.ctl != nil && reflect.DeepEqual(set, c.controllerSettings) {
		return nil
	}
	if c.ctl != nil {
		c.ctl.stop()
		c.ctl = nil
	}
	if err := home.WriteJSON(c.s.Home.ClusterPath(c.uid, "controller.json"), set, 0o600); err != nil {
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
		port: health, metrics: metrics, dashboard: board, probe: probe, grace: 10 * time.Second,
	}); err != nil {
		return err
	}
	c.controllerSettings = set
	return nil
}

// addonInputs returns the fields of the intent that kube-system depends on.
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
	cfg, err := clientcmd.BuildConfigFromFlags("", c.plane.Kubeconfig(controlplane.IdentitySupervisor))
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.name, err)
	}
	cfg.QPS, cfg.Burst = 200, 400
	return cfg, nil
}

// report writes the status if it has changed.
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
		if err := controlplane.AddToKubeconfig(c.s.Home.Path("kubeconfig"), c.plane.AdminKubeconfig); err != nil {
			c.s.Logger.Warn("writing kubeconfig failed", "cluster", ci.Name, "error", err)
		}
	}
	c.s.Logger.Info("cluster status changed", "cluster", ci.Name, "phase", phase, "message", message, "nodeProvisioning", st.NodeProvisioningMode)
	return nil
}

func (c *cluster) stopProcesses() {
	if c.ctl != nil {
		c.ctl.stop()
	}
	c.ctl, c.controllerSettings = nil, ControllerSettings{}
	c.stopPlane()
	c.readyOnce = false
}

// stopPlane stops the control plane's own programs. The addons are applied again
// once they are back.
func (c *cluster) stopPlane() {
	stopAll(c.kcm, c.sched)
	if c.apiserver != nil {
		c.apiserver.stop()
	}
	c.kcm, c.sched, c.apiserver = nil, nil, nil
	c.appliedAddons = ""
}

// remove deletes all of a cluster whose intent was deleted: processes, objects in
// etcd, files, ports, and last the status.
func (c *cluster) remove() error {
	c.stopProcesses()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	if _, err := c.s.etcd.Delete(ctx, controlplane.EtcdPrefix(c.uid)+"/", clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("deleting objects of cluster %s: %w", c.uid, err)
	}
	if err := os.RemoveAll(c.s.Home.ClusterPath(c.uid)); err != nil {
		return fmt.Errorf("deleting files of cluster %s: %w", c.uid, err)
	}
	if err := c.s.ports.Release(c.uid + "/"); err != nil {
		return fmt.Errorf("releasing ports of cluster %s: %w", c.uid, err)
	}
	if c.name != "" {
		if err := controlplane.RemoveFromKubeconfig(c.s.Home.Path("kubeconfig"), c.name); err != nil {
			return fmt.Errorf("removing cluster %s from the kubeconfig: %w", c.name, err)
		}
	}
	if err := intent.Delete(ctx, c.s.etcd, intent.ClusterStatusKey(c.uid)); err != nil {
		return err
	}
	c.s.Logger.Info("cluster removed", "cluster", c.name, "uid", c.uid)
	return nil
}
