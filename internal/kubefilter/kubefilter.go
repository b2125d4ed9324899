// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kubefilter builds a kube-scheduler framework that only filters: it
// reports whether a pod can run on a node, with the scheduler's own plugins in
// their default configuration, for nodes and pods that need not exist.
package kubefilter

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// withoutPreFilter are the filter plugins that need no PreFilter step.
var withoutPreFilter = []string{names.NodeUnschedulable, names.NodeName, names.TaintToleration}

// New returns a framework with the given filter plugins, which run in that order.
// They read the cluster from lister, and the rest from the informers of factory,
// which the caller starts afterwards.
func New(ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory, lister fwk.SharedLister, csi fwk.CSIManager, filters []string) (framework.Framework, error) {
	metrics.Register()
	// The plugin arguments are those of the default configuration: plugins refuse
	// arguments whose defaults are not filled in.
	defaults, err := latest.Default()
	if err != nil {
		return nil, fmt.Errorf("default configuration of the kube-scheduler: %w", err)
	}
	set := func(list ...string) config.PluginSet {
		var out config.PluginSet
		for _, n := range list {
			out.Enabled = append(out.Enabled, config.Plugin{Name: n})
		}
		return out
	}
	preFilters := slices.DeleteFunc(slices.Clone(filters), func(n string) bool { return slices.Contains(withoutPreFilter, n) })
	profile := &config.KubeSchedulerProfile{
		SchedulerName: corev1.DefaultSchedulerName,
		Plugins: &config.Plugins{
			QueueSort: set(names.PrioritySort), Bind: set(names.DefaultBinder),
			PreFilter: set(preFilters...), Filter: set(filters...),
		},
		PluginConfig: defaults.Profiles[0].PluginConfig,
	}
	fw, err := frameworkruntime.NewFramework(ctx, plugins.NewInTreeRegistry(), profile,
		frameworkruntime.WithClientSet(client), frameworkruntime.WithInformerFactory(factory),
		frameworkruntime.WithSnapshotSharedLister(lister), frameworkruntime.WithSharedCSIManager(csi), frameworkruntime.WithLogger(klog.Logger{}))
	if err != nil {
		return nil, fmt.Errorf("building the kube-scheduler's framework: %w", err)
	}
	return fw, nil
}
