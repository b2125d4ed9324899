// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"

	"github.com/awslabs/operatorpkg/controller"
	"github.com/awslabs/operatorpkg/serrors"
	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/overlay"
	"sigs.k8s.io/karpenter/pkg/controllers/node/health"
	"sigs.k8s.io/karpenter/pkg/controllers/nodeoverlay"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/events"
	"sigs.k8s.io/karpenter/pkg/operator/logging"
	karpoptions "sigs.k8s.io/karpenter/pkg/operator/options"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/controllers/provisioning"
	"github.com/nap-aks/nap/snapshot"
)

// Run runs the controller of one cluster. It returns nil when the context ends, and an
// error when it cannot continue: wrong configuration, ARM unreachable, definitions
// missing from the cluster, or the lease lost to another controller. Metrics are
// global: a process that calls Run a second time sets Options.Repeated.
func Run(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	k, err := o.karpenter()
	if err != nil {
		return err
	}
	ctx = karpoptions.ToContext(ctx, k)
	var logger logr.Logger
	if o.Logger != nil {
		logger = serrors.NewLogger(*o.Logger)
	} else {
		logger = serrors.NewLogger(zapr.NewLogger(logging.NewLogger(ctx, EventSource)))
	}
	log.SetLogger(logger)
	klog.SetLogger(logger)
	ctx = log.IntoContext(ctx, logger)

	config, err := restConfig(o)
	if err != nil {
		return err
	}
	if o.InstallDefaults != "" {
		if err := InstallDefaults(ctx, config, o.InstallDefaults == InstallPools); err != nil {
			return err
		}
	}
	if err := v1beta1.AddToScheme(scheme.Scheme); err != nil {
		return fmt.Errorf("registering AKSNodeClass: %w", err)
	}
	mgr, err := newManager(ctx, o, config)
	if err != nil {
		return err
	}
	all, err := build(ctx, o, mgr, config)
	if err != nil {
		return err
	}
	for _, c := range all {
		if err := c.Register(ctx, mgr); err != nil {
			return fmt.Errorf("registering controller %T: %w", c, err)
		}
	}
	logger.Info("starting", "cluster", o.Azure.ClusterResourceID, "engine", o.Engine)
	if err := mgr.Start(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("running the controllers: %w", err)
	}
	return nil
}

func restConfig(o Options) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if o.API != nil {
		config = rest.CopyConfig(o.API)
	} else if o.Kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	} else {
		config, err = ctrl.GetConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("loading the configuration of the API server: %w", err)
	}
	config.QPS, config.Burst = float32(o.KubeQPS), o.KubeBurst
	config.UserAgent = EventSource
	return config, nil
}

// newManager returns a manager like that of Karpenter's operator, but listening on one
// address, configured by options instead of process arguments, and with errors
// returned.
func newManager(ctx context.Context, o Options, config *rest.Config) (manager.Manager, error) {
	address := func(port int) string {
		if port < 0 {
			return "0" // disables the listener
		}
		return net.JoinHostPort(o.BindAddress, strconv.Itoa(port))
	}
	metrics := metricsserver.Options{BindAddress: address(o.MetricsPort)}
	if o.EnableProfiling {
		metrics.ExtraHandlers = map[string]http.Handler{
			"/debug/pprof/":        http.HandlerFunc(pprof.Index),
			"/debug/pprof/cmdline": http.HandlerFunc(pprof.Cmdline),
			"/debug/pprof/profile": http.HandlerFunc(pprof.Profile),
			"/debug/pprof/symbol":  http.HandlerFunc(pprof.Symbol),
			"/debug/pprof/trace":   http.HandlerFunc(pprof.Trace),
		}
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Logger:                        logging.IgnoreDebugEvents(log.FromContext(ctx)),
		Scheme:                        scheme.Scheme,
		LeaderElection:                !o.DisableLeaderElection,
		LeaderElectionID:              o.LeaderElectionName,
		LeaderElectionNamespace:       o.LeaderElectionNamespace,
		LeaderElectionResourceLock:    resourcelock.LeasesResourceLock,
		LeaderElectionReleaseOnCancel: true,
		// A separate client, because the rate limit of the controllers must not cost the
		// lease.
		LeaderElectionConfig:   rest.CopyConfig(config),
		Metrics:                metrics,
		HealthProbeBindAddress: address(o.HealthPort),
		Controller:             ctrlconfig.Controller{SkipNameValidation: &o.Repeated},
		// Reconcilers read Karpenter's options and the logger from their context.
		BaseContext: func() context.Context { return context.WithoutCancel(ctx) },
		Cache: cache.Options{DefaultTransform: strip, ByObject: map[client.Object]cache.ByObject{
			&coordinationv1.Lease{}: {Field: fields.OneTermEqualSelector("metadata.namespace", corev1.NamespaceNodeLease)},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("setting up the manager: %w", err)
	}
	if err := index(ctx, mgr.GetFieldIndexer()); err != nil {
		return nil, err
	}
	checks := []error{
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("caches", func(r *http.Request) error {
			if !mgr.GetCache().WaitForCacheSync(r.Context()) {
				return errors.New("informer caches are not synced")
			}
			return nil
		}),
		mgr.AddReadyzCheck("definitions", func(*http.Request) error { return definitionsInstalled(mgr) }),
	}
	if err := errors.Join(checks...); err != nil {
		return nil, fmt.Errorf("adding health checks: %w", err)
	}
	return mgr, nil
}

// definitionsInstalled returns an error if the cluster does not serve a type that the
// controllers need.
func definitionsInstalled(mgr manager.Manager) error {
	for _, obj := range []client.Object{&karpv1.NodePool{}, &karpv1.NodeClaim{}, &v1beta1.AKSNodeClass{}} {
		gvk, err := apiutil.GVKForObject(obj, mgr.GetScheme())
		if err != nil {
			return err
		}
		if _, err := mgr.GetRESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
			return fmt.Errorf("finding %s in the API of the cluster: %w", gvk.Kind, err)
		}
	}
	return nil
}

// indexer is the part of a field indexer that index needs.
type indexer interface {
	IndexField(ctx context.Context, obj client.Object, field string, extract client.IndexerFunc) error
}

// index adds the field indexes that Karpenter's controllers and ours use.
func index(ctx context.Context, in indexer) error {
	one := func(f func(client.Object) string) client.IndexerFunc {
		return func(o client.Object) []string { return []string{f(o)} }
	}
	claimClass := func(f func(*karpv1.NodeClassReference) string) client.IndexerFunc {
		return one(func(o client.Object) string { return f(o.(*karpv1.NodeClaim).Spec.NodeClassRef) })
	}
	poolClass := func(f func(*karpv1.NodeClassReference) string) client.IndexerFunc {
		return one(func(o client.Object) string { return f(o.(*karpv1.NodePool).Spec.Template.Spec.NodeClassRef) })
	}
	group := func(r *karpv1.NodeClassReference) string { return r.Group }
	kind := func(r *karpv1.NodeClassReference) string { return r.Kind }
	name := func(r *karpv1.NodeClassReference) string { return r.Name }
	for _, i := range []struct {
		obj     client.Object
		field   string
		extract client.IndexerFunc
	}{
		{&corev1.Pod{}, "spec.nodeName", one(func(o client.Object) string { return o.(*corev1.Pod).Spec.NodeName })},
		{&corev1.Node{}, "spec.providerID", one(func(o client.Object) string { return o.(*corev1.Node).Spec.ProviderID })},
		{&storagev1.VolumeAttachment{}, "spec.nodeName", one(func(o client.Object) string { return o.(*storagev1.VolumeAttachment).Spec.NodeName })},
		{&karpv1.NodeClaim{}, "status.providerID", one(func(o client.Object) string { return o.(*karpv1.NodeClaim).Status.ProviderID })},
		{&karpv1.NodeClaim{}, "spec.nodeClassRef.group", claimClass(group)},
		{&karpv1.NodeClaim{}, "spec.nodeClassRef.kind", claimClass(kind)},
		{&karpv1.NodeClaim{}, "spec.nodeClassRef.name", claimClass(name)},
		{&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.group", poolClass(group)},
		{&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.kind", poolClass(kind)},
		{&karpv1.NodePool{}, "spec.template.spec.nodeClassRef.name", poolClass(name)},
	} {
		if err := in.IndexField(ctx, i.obj, i.field, i.extract); err != nil {
			return fmt.Errorf("indexing %T by %s: %w", i.obj, i.field, err)
		}
	}
	return nil
}

// build returns all controllers, with a new provider.
func build(ctx context.Context, o Options, mgr manager.Manager, config *rest.Config) ([]controller.Controller, error) {
	provider, err := azure.New(ctx, o.Azure, mgr.GetClient())
	if err != nil {
		return nil, err
	}
	overlays := nodeoverlay.NewInstanceTypeStore()
	decorated := overlay.Decorate(provider, mgr.GetClient(), overlays)
	repair, err := health.NewRepairPolicyMatcher(ctx, decorated)
	if err != nil {
		return nil, fmt.Errorf("setting up node repair: %w", err)
	}
	realClock := clock.RealClock{}
	cluster := state.NewCluster(realClock, mgr.GetClient(), decorated, state.WithRepairPolicyMatcher(repair))
	recorder := events.NewRecorder(mgr.GetEventRecorderFor(EventSource)) //nolint:staticcheck // Karpenter's recorder speaks core/v1 events

	api, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a discovery client: %w", err)
	}
	nominate, err := honoursNominations(api)
	if err != nil {
		return nil, err
	}
	parts := karpenterParts{
		clock: realClock, recorder: recorder, provider: decorated, undecorated: provider, cluster: cluster, overlays: overlays, nominate: nominate,
		quotas: func() []snapshot.Quota { return measureQuotas(quotasOf(provider.Quotas())) },
	}
	if o.Dashboard.Port != 0 {
		d, err := newDashboard(o, mgr, config, parts)
		if err != nil {
			return nil, err
		}
		if err := mgr.Add(d); err != nil {
			return nil, fmt.Errorf("adding the dashboard: %w", err)
		}
		parts.observe = d.observe
	}
	all := karpenterControllers(ctx, o, mgr, parts)
	return append(all, ownControllers(o, mgr, api, provider, recorder)...), nil
}

// honoursNominations reports whether the scheduler of the cluster honours nominated
// nodes that the provisioner writes.
func honoursNominations(api discovery.ServerVersionInterface) (bool, error) {
	info, err := api.ServerVersion()
	if err != nil {
		return false, fmt.Errorf("getting the version of the API server: %w", err)
	}
	minor, err := strconv.Atoi(strings.TrimRight(info.Minor, "+"))
	if err != nil {
		return false, nil // a build without a version: do not nominate
	}
	return info.Major == "1" && minor >= provisioning.NominationVersion, nil
}
