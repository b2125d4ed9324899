// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/snapshot"
)

// ReadCluster reads a live cluster. An empty kubeconfig means the usual files, an
// empty kubecontext the current one. It only lists objects.
func ReadCluster(ctx context.Context, kubeconfig, kubecontext string, now time.Time) (*Source, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubecontext}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("loading the kubeconfig (for the local Azure, run `nap env` first): %w", err)
	}
	config.QPS, config.Burst = 100, 200
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("registering API types: %w", err)
		}
	}
	karpenterTypes(s)
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster at %s: %w", config.Host, err)
	}
	return ListCluster(ctx, c, now)
}

// ListCluster reads a live cluster through a client whose scheme has Karpenter's
// and our types. It only lists objects.
func ListCluster(ctx context.Context, c client.Reader, now time.Time) (*Source, error) {
	src := &Source{Objects: &snapshot.Objects{Now: now, Settings: snapshot.Settings{PricedPreferences: true}}}
	src.note("sizes and prices come from the built-in catalogue: current stockouts and NodeOverlays are not considered")
	for _, list := range []client.ObjectList{
		&corev1.PodList{}, &corev1.NodeList{}, &corev1.NamespaceList{}, &corev1.PersistentVolumeClaimList{}, &corev1.PersistentVolumeList{},
		&corev1.ServiceList{}, &appsv1.DaemonSetList{}, &policyv1.PodDisruptionBudgetList{}, &storagev1.StorageClassList{}, &storagev1.CSINodeList{},
		&karpv1.NodePoolList{}, &karpv1.NodeClaimList{}, &v1beta1.AKSNodeClassList{},
	} {
		if err := c.List(ctx, list); meta.IsNoMatchError(err) {
			src.note("the cluster has no %T: node auto-provisioning is not enabled there", list)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("listing %T: %w", list, err)
		}
		items, err := extractList(list)
		if err != nil {
			return nil, fmt.Errorf("reading %T: %w", list, err)
		}
		for _, o := range items {
			if nc, ok := o.(*v1beta1.AKSNodeClass); ok {
				src.NodeClasses = append(src.NodeClasses, nc)
				continue
			}
			src.Objects.Add(o)
		}
	}
	return src, nil
}
