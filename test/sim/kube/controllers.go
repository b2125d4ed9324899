// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/tainteviction"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"
	"k8s.io/kubernetes/pkg/controller/volume/persistentvolume"
)

// Workers says how many objects each controller works on at the same time.
type Workers struct {
	Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob, Disruption, TTLAfterFinished int
}

// ControllerOptions are the controllers' rates. Start from LocalControllers or
// StockControllers.
type ControllerOptions struct {
	// QPS and Burst limit the requests a second of each controller: every one has a
	// client of its own. A QPS of 0 is no limit.
	QPS   float32
	Burst int
	// Workers is how many objects are worked on at the same time.
	Workers Workers
	// Resync is how often each object is looked at although it did not change.
	// 0 is never; kube-controller-manager takes 12 to 24 hours.
	Resync time.Duration
	// TerminatedPods is how many finished pods are kept in the cluster.
	TerminatedPods int
	// VolumeSync is how often claims and volumes are looked at although they did not
	// change. It must be positive.
	VolumeSync time.Duration
	// Volumes are the options of dynamic provisioning.
	Volumes VolumeOptions
	// Nodes are the options of tainting unhealthy nodes.
	Nodes NodeOptions
	// Events makes the controllers record events in the API.
	Events bool
	// Logger gets the controllers' log. The zero value drops it.
	Logger logr.Logger
}

// StockControllers returns the defaults of kube-controller-manager.
func StockControllers() ControllerOptions {
	return ControllerOptions{
		QPS: 20, Burst: 30,
		Workers:        Workers{Deployment: 5, ReplicaSet: 5, StatefulSet: 5, DaemonSet: 2, Job: 5, CronJob: 5, Disruption: 5, TTLAfterFinished: 5},
		Resync:         12 * time.Hour,
		TerminatedPods: 12500,
		VolumeSync:     15 * time.Second,
		Volumes:        VolumeOptions{ProvisionTime: 2 * time.Second},
		Nodes:          DefaultNodeOptions(),
	}
}

// LocalControllers returns the options of kube-controller-manager in a local
// cluster.
func LocalControllers() ControllerOptions {
	o := StockControllers()
	o.QPS, o.Burst = 400, 800
	o.Workers.Deployment, o.Workers.ReplicaSet, o.Workers.Job = 10, 20, 10
	o.Volumes.ProvisionTime = time.Second
	return o
}

// controllers is what the constructors share.
type controllers struct {
	ctx     context.Context
	cfg     *rest.Config
	o       ControllerOptions
	factory informers.SharedInformerFactory
	loops   []func(context.Context)
}

// StartControllers starts the controllers of workloads (Deployment, ReplicaSet,
// StatefulSet, DaemonSet, Job, CronJob), of disruption budgets, of finished jobs
// and pods, of volumes, and of taints and their evictions. They run until ctx ends;
// stopped is closed when all have ended. After that they can be started again with
// another context. An error says which controller could not be built.
func StartControllers(ctx context.Context, cfg *rest.Config, o ControllerOptions) (stopped <-chan struct{}, err error) {
	ctx, cancel := context.WithCancel(withLogger(ctx, o.Logger))
	defer func() {
		if err != nil {
			cancel() // ends what the controllers already built have started
		}
	}()
	reader, err := clientFor(ctx, cfg, limits{}, false)
	if err != nil {
		return nil, fmt.Errorf("controllers: %w", err)
	}
	c := &controllers{ctx: ctx, cfg: cfg, o: o, factory: informers.NewSharedInformerFactory(reader, o.Resync)}
	// Shared by the controllers that look for the pods of a node.
	if err := controller.AddPodNodeNameIndexer(c.factory.Core().V1().Pods().Informer()); err != nil {
		return nil, fmt.Errorf("controllers: indexing pods by node: %w", err)
	}
	for _, each := range []struct {
		name  string
		build func(kubernetes.Interface) (func(context.Context), error)
	}{
		{"deployment", c.deployment}, {"replicaset", c.replicaSet}, {"statefulset", c.statefulSet},
		{"daemonset", c.daemonSet}, {"job", c.job}, {"cronjob", c.cronJob},
		{"disruption", c.disruption}, {"podgc", c.podGC}, {"ttl-after-finished", c.ttlAfterFinished},
		{"persistentvolume-binder", c.volumeBinder}, {"volume provisioner", c.volumeProvisioner},
		{"node taints", c.nodeTaints}, {"taint-eviction", c.taintEviction},
	} {
		client, err := clientFor(ctx, cfg, limits{o.QPS, o.Burst}, o.Events)
		if err != nil {
			return nil, fmt.Errorf("%s controller: %w", each.name, err)
		}
		loop, err := each.build(client)
		if err != nil {
			return nil, fmt.Errorf("%s controller: %w", each.name, err)
		}
		c.loops = append(c.loops, loop)
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		c.factory.Start(ctx.Done())
		var wg sync.WaitGroup
		for _, loop := range c.loops {
			wg.Go(func() { loop(ctx) })
		}
		wg.Wait()
		c.factory.Shutdown()
	}()
	return done, nil
}

func (c *controllers) deployment(client kubernetes.Interface) (func(context.Context), error) {
	apps := c.factory.Apps().V1()
	d, err := deployment.NewDeploymentController(c.ctx, apps.Deployments(), apps.ReplicaSets(), c.factory.Core().V1().Pods(), client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { d.Run(ctx, c.o.Workers.Deployment) }, nil
}

func (c *controllers) replicaSet(client kubernetes.Interface) (func(context.Context), error) {
	rs := replicaset.NewReplicaSetController(c.ctx, c.factory.Apps().V1().ReplicaSets(), c.factory.Core().V1().Pods(), client, replicaset.BurstReplicas)
	return func(ctx context.Context) { rs.Run(ctx, c.o.Workers.ReplicaSet) }, nil
}

func (c *controllers) statefulSet(client kubernetes.Interface) (func(context.Context), error) {
	apps, core := c.factory.Apps().V1(), c.factory.Core().V1()
	s := statefulset.NewStatefulSetController(c.ctx, core.Pods(), apps.StatefulSets(), core.PersistentVolumeClaims(), apps.ControllerRevisions(), client)
	return func(ctx context.Context) { s.Run(ctx, c.o.Workers.StatefulSet) }, nil
}

func (c *controllers) daemonSet(client kubernetes.Interface) (func(context.Context), error) {
	apps, core := c.factory.Apps().V1(), c.factory.Core().V1()
	d, err := daemon.NewDaemonSetsController(c.ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(), client,
		flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { d.Run(ctx, c.o.Workers.DaemonSet) }, nil
}

func (c *controllers) job(client kubernetes.Interface) (func(context.Context), error) {
	j, err := job.NewController(c.ctx, client, c.factory.Core().V1().Pods(), c.factory.Batch().V1().Jobs(), nil, nil)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { j.Run(ctx, c.o.Workers.Job) }, nil
}

func (c *controllers) cronJob(client kubernetes.Interface) (func(context.Context), error) {
	j, err := cronjob.NewControllerV2(c.ctx, c.factory.Batch().V1().Jobs(), c.factory.Batch().V1().CronJobs(), client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { j.Run(ctx, c.o.Workers.CronJob) }, nil
}

func (c *controllers) disruption(client kubernetes.Interface) (func(context.Context), error) {
	// Only budgets of custom workloads need the discovered scale subresources.
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	scales, err := scale.NewForConfig(configFor(c.ctx, c.cfg, limits{c.o.QPS, c.o.Burst}), mapper,
		dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(client.Discovery()))
	if err != nil {
		return nil, fmt.Errorf("making a client of scale subresources: %w", err)
	}
	apps, core := c.factory.Apps().V1(), c.factory.Core().V1()
	d := disruption.NewDisruptionController(c.ctx, core.Pods(), c.factory.Policy().V1().PodDisruptionBudgets(), core.ReplicationControllers(),
		apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(), client, mapper, scales, client.Discovery())
	return func(ctx context.Context) { d.Run(ctx, c.o.Workers.Disruption) }, nil
}

func (c *controllers) ttlAfterFinished(client kubernetes.Interface) (func(context.Context), error) {
	t := ttlafterfinished.New(c.ctx, c.factory.Batch().V1().Jobs(), client)
	return func(ctx context.Context) { t.Run(ctx, c.o.Workers.TTLAfterFinished) }, nil
}

func (c *controllers) volumeBinder(client kubernetes.Interface) (func(context.Context), error) {
	core := c.factory.Core().V1()
	b, err := persistentvolume.NewController(c.ctx, persistentvolume.ControllerParameters{
		KubeClient:                client,
		SyncPeriod:                c.o.VolumeSync,
		VolumeInformer:            core.PersistentVolumes(),
		ClaimInformer:             core.PersistentVolumeClaims(),
		ClassInformer:             c.factory.Storage().V1().StorageClasses(),
		PodInformer:               core.Pods(),
		NodeInformer:              core.Nodes(),
		EnableDynamicProvisioning: true,
	})
	if err != nil {
		return nil, err
	}
	return b.Run, nil
}

func (c *controllers) taintEviction(client kubernetes.Interface) (func(context.Context), error) {
	t, err := tainteviction.New(c.ctx, client, c.factory.Core().V1().Pods(), c.factory.Core().V1().Nodes(), "taint-eviction-controller")
	if err != nil {
		return nil, err
	}
	return t.Run, nil
}
