// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	kwok "sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
)

// startKubelets simulates the kubelets of a cluster's nodes until ctx ends. The
// function it returns reports whether the kubelet of a node is among them.
func startKubelets(ctx context.Context, cfg *rest.Config, client kubernetes.Interface, c *clusterFleet, log *slog.Logger) (simulated func(node string) bool, err error) {
	st, err := stages()
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	ctr, err := kwok.NewController(kwok.Config{
		Clock:                             clock.RealClock{},
		DynamicClient:                     dyn,
		RESTClient:                        client.CoreV1().RESTClient(),
		TypedClient:                       client,
		ManageNodesWithAnnotationSelector: managedAnnotation + "=fake",
		CIDR:                              c.podCIDR(),
		LocalStages:                       st,
		PodPlayStageParallelism:           16,
		NodePlayStageParallelism:          8,
		// The machines renew the leases themselves (heartbeat): kwok needs ten seconds
		// to take over the leases of its last run, and pods would wait for that.
		PodsOnNodeSyncParallelism: 8,
		ID:                        "nap-fleet",
	})
	if err != nil {
		return nil, fmt.Errorf("kubelets: %w", err)
	}
	if err := ctr.Start(kwoklog.NewContext(ctx, kwoklog.NewLogger(newStageLog(log, c.tellFailing(ctx, log)), kwoklog.LevelInfo))); err != nil {
		return nil, fmt.Errorf("kubelets: %w", err)
	}
	go simulateCSI(ctx, client, c.currentIntent, ctr.GetNodeCache().Get, log)
	go watchCilium(ctx, client, func(name string) bool {
		n, ok := ctr.GetNodeCache().Get(name)
		return ok && hasTaint(n, ciliumTaint)
	}, log)
	return func(node string) bool {
		_, ok := ctr.GetNodeCache().Get(node)
		return ok
	}, nil
}

// watchCilium removes the agent-not-ready taint from nodes whose agent runs, as
// Cilium's operator does: when the agent starts, and again whenever such a node
// has the taint.
func watchCilium(ctx context.Context, client kubernetes.Interface, tainted func(node string) bool, log *slog.Logger) {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace("kube-system"),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "k8s-app=cilium" }))
	pods := factory.Core().V1().Pods().Informer()
	clear := func(obj any) {
		p, ok := obj.(*corev1.Pod)
		if !ok || p.Status.Phase != corev1.PodRunning || p.Spec.NodeName == "" {
			return
		}
		if err := untaint(ctx, client, p.Spec.NodeName); err != nil && ctx.Err() == nil {
			log.Debug("removing Cilium's taint failed, retrying", "node", p.Spec.NodeName, "error", err)
		}
	}
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(old, now any) {
			if old.(*corev1.Pod).Status.Phase != now.(*corev1.Pod).Status.Phase {
				go clear(now)
			}
		},
	}); err != nil {
		log.Error("watching Cilium's agents", "error", err)
		return
	}
	factory.Start(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		for _, obj := range pods.GetStore().List() {
			if p := obj.(*corev1.Pod); p.Spec.NodeName != "" && tainted(p.Spec.NodeName) {
				clear(p)
			}
		}
	}
}

func hasTaint(n *corev1.Node, key string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key })
}

// withoutTaint returns a copy of the taints without those of a key.
func withoutTaint(taints []corev1.Taint, key string) []corev1.Taint {
	return slices.DeleteFunc(append([]corev1.Taint{}, taints...), func(t corev1.Taint) bool { return t.Key == key })
}

// untaint removes Cilium's taint from a node.
func untaint(ctx context.Context, client kubernetes.Interface, node string) error {
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := withoutTaint(n.Spec.Taints, ciliumTaint)
	if len(kept) == len(n.Spec.Taints) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion},
		"spec":     map[string]any{"taints": kept},
	})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
