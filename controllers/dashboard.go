// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	nodepoolutils "sigs.k8s.io/karpenter/pkg/utils/nodepool"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/engine"
	"github.com/nap-aks/nap/snapshot"
)

// Dashboard configures the live view of the cluster, a page on a port of its own. The
// replica that leads serves it. It shows everything to those who present a token of the
// cluster that may list nodes, or the key.
type Dashboard struct {
	// Port is the port; 0 means no dashboard.
	Port int
	// BindAddress is an IP address; empty means 127.0.0.1, which kubectl port-forward
	// reaches.
	BindAddress string
	// Dir keeps the history: 7 days, at most 64 MB. Empty keeps only the last decisions,
	// in memory.
	Dir string
	// KeyFile has a key of at least 32 characters that gives access like a token. It is
	// for a controller on the loopback interface of its user.
	KeyFile string
	// Hosts are host names by which the page may be addressed besides localhost.
	Hosts []string
}

func (d *Dashboard) check() error {
	if d.Port == 0 {
		return nil
	}
	if d.BindAddress == "" {
		d.BindAddress = "127.0.0.1"
	}
	ip := net.ParseIP(d.BindAddress)
	switch {
	case d.Port < 0 || d.Port > 65535:
		return fmt.Errorf("dashboard port %d is not a port: use 1 to 65535, or 0 for no dashboard", d.Port)
	case ip == nil:
		return fmt.Errorf("dashboard address %q is not an IP address", d.BindAddress)
	case d.KeyFile != "" && !ip.IsLoopback():
		return fmt.Errorf("a dashboard key may only be used on loopback, not on %s: leave the key out and use tokens of the cluster", d.BindAddress)
	}
	return nil
}

// dashboardServer runs the dashboard on the leading replica.
type dashboardServer struct {
	o      Dashboard
	mgr    manager.Manager
	parts  karpenterParts
	live   *dashboard.Live
	serve  func(context.Context, net.Listener) error
	stores map[string]toolscache.Store
}

func newDashboard(o Options, mgr manager.Manager, config *rest.Config, parts karpenterParts) (*dashboardServer, error) {
	s := &dashboardServer{o: o.Dashboard, mgr: mgr, parts: parts, stores: map[string]toolscache.Store{}}
	c := dashboard.Config{Objects: s.objects, Cluster: path.Base(o.Azure.ClusterResourceID), Clock: parts.clock, Log: mgr.GetLogger().WithName("dashboard"), Updated: measureCluster}
	if s.o.Dir != "" {
		var err error
		if c.Recorder, err = dashboard.OpenRecorder(s.o.Dir); err != nil {
			return nil, err
		}
	}
	key := ""
	if s.o.KeyFile != "" {
		b, err := os.ReadFile(s.o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the key of the dashboard: %w", err)
		}
		key = strings.TrimSpace(string(b))
		if key == "" {
			return nil, fmt.Errorf("the dashboard's key file %s is empty", s.o.KeyFile)
		}
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("creating a client for the dashboard: %w", err)
	}
	if s.live, err = dashboard.NewLive(c); err != nil {
		return nil, err
	}
	h, err := dashboard.NewServer(dashboard.ServerConfig{Live: s.live, Key: key, Review: dashboard.KubeReviewer(kube), Hosts: s.o.Hosts})
	if err != nil {
		return nil, err
	}
	s.serve = func(ctx context.Context, l net.Listener) error { return dashboard.Serve(ctx, l, h) }
	return s, nil
}

// NeedLeaderElection reports true: only the leader knows what is decided.
func (s *dashboardServer) NeedLeaderElection() bool { return true }

// Start serves the dashboard until the context ends. A port that is taken is an error.
func (s *dashboardServer) Start(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(s.o.BindAddress, strconv.Itoa(s.o.Port)))
	if err != nil {
		return fmt.Errorf("listening for the dashboard: %w", err)
	}
	for _, kind := range dashboardKinds {
		informer, err := s.mgr.GetCache().GetInformer(ctx, kind)
		if err != nil {
			_ = l.Close()
			return fmt.Errorf("watching %T for the dashboard: %w", kind, err)
		}
		shared, ok := informer.(interface{ GetStore() toolscache.Store })
		if !ok {
			_ = l.Close()
			return fmt.Errorf("the informer of %T has no store", kind)
		}
		s.stores[fmt.Sprintf("%T", kind)] = shared.GetStore()
		if _, ok := kind.(*karpv1.NodeClaim); ok {
			if _, err := informer.AddEventHandler(s.claimHandler()); err != nil {
				_ = l.Close()
				return fmt.Errorf("watching NodeClaims for the dashboard: %w", err)
			}
		}
	}
	go s.live.Run(ctx)
	log.FromContext(ctx).Info("serving the dashboard", "address", l.Addr().String())
	if err := s.serve(ctx, l); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *dashboardServer) claimHandler() toolscache.ResourceEventHandlerFuncs {
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.live.Wake() },
		UpdateFunc: func(_, obj any) {
			if c, ok := obj.(*karpv1.NodeClaim); ok {
				s.live.ObserveClaim(c)
			}
		},
		DeleteFunc: func(any) { s.live.Wake() },
	}
}

// dashboardKinds are the kinds that the provisioner watches anyway.
var dashboardKinds = []client.Object{
	&corev1.Pod{}, &corev1.Node{}, &karpv1.NodePool{}, &karpv1.NodeClaim{}, &appsv1.DaemonSet{}, &corev1.Namespace{}, &policyv1.PodDisruptionBudget{},
	&corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}, &storagev1.StorageClass{}, &storagev1.CSINode{},
}

// objects lists the cluster from the informers' stores, without copying objects.
func (s *dashboardServer) objects(ctx context.Context) (*snapshot.Objects, error) {
	if !s.mgr.GetCache().WaitForCacheSync(ctx) {
		return nil, errors.New("the informers are not synced")
	}
	o := &snapshot.Objects{Now: s.parts.clock.Now(), InstanceTypes: map[string][]*cloudprovider.InstanceType{}}
	for _, store := range s.stores {
		for _, obj := range store.List() {
			if obj, ok := obj.(client.Object); ok {
				o.Add(obj)
			}
		}
	}
	pools, err := nodepoolutils.ListManaged(ctx, s.mgr.GetClient(), s.parts.provider)
	if err != nil {
		return nil, fmt.Errorf("listing NodePools: %w", err)
	}
	for _, pool := range pools {
		// Without its sizes, a pool's nodes have no price; the page says so.
		if list, err := s.parts.provider.GetInstanceTypes(ctx, pool); err == nil {
			o.InstanceTypes[pool.Name] = list
		}
	}
	if s.parts.quotas != nil {
		o.Quotas = s.parts.quotas()
	}
	return o, nil
}

// measureCluster sets the gauges of the cluster's cost.
func measureCluster(s *dashboard.State) {
	clusterCost.Set(s.USDPerHour)
	if s.Bound != nil {
		clusterBound.Set(s.Bound.USDPerHour)
		clusterGap.Set(s.Bound.Gap)
	}
}

// observe passes on what a provisioning pass decided.
func (s *dashboardServer) observe(in *snapshot.Input, plan *engine.Plan, created []*karpv1.NodeClaim) {
	p := dashboard.Pass{Time: time.Now(), Plan: plan, Invalid: in.Invalid, Claims: make([]string, len(plan.Machines))}
	for i, c := range created {
		if c != nil && i < len(p.Claims) {
			p.Claims[i] = c.Name
		}
	}
	s.live.ObservePass(p)
}
