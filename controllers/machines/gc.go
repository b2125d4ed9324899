// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/awslabs/operatorpkg/reconciler"
	"github.com/awslabs/operatorpkg/singleton"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
)

// Cloud is the part of the provider that garbage collection uses.
type Cloud interface {
	List(context.Context) ([]*karpv1.NodeClaim, error)
	Delete(context.Context, *karpv1.NodeClaim) error
}

const (
	collectInterval = 30 * time.Second
	// orphanAge is the age from which a machine without NodeClaim is an orphan. The claim
	// is created before its machine and has the same name, so the age only has to cover
	// stale reads from the API server.
	orphanAge = time.Minute
)

// GarbageCollector deletes machines whose NodeClaim does not exist: the claim was
// deleted during the launch, or the machine started after the launch had failed.
type GarbageCollector struct {
	kube     client.Client
	uncached client.Reader
	cloud    Cloud
	clock    clock.Clock
}

// NewGarbageCollector returns the controller. It reads the NodeClaim of a machine from
// uncached before it deletes the machine.
func NewGarbageCollector(kube client.Client, uncached client.Reader, cloud Cloud, c clock.Clock) *GarbageCollector {
	return &GarbageCollector{kube, uncached, cloud, c}
}

// Register adds the controller to the manager.
func (g *GarbageCollector) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("instance.garbagecollection").
		WatchesRawSource(singleton.Source()).Complete(singleton.AsReconciler(g))
}

// Reconcile deletes orphans and their nodes.
func (g *GarbageCollector) Reconcile(ctx context.Context) (reconciler.Result, error) {
	machines, err := g.cloud.List(ctx)
	if err != nil {
		return reconciler.Result{}, err
	}
	claims := &karpv1.NodeClaimList{}
	if err := g.kube.List(ctx, claims); err != nil {
		return reconciler.Result{}, fmt.Errorf("listing NodeClaims: %w", err)
	}
	known := map[string]bool{}
	for i := range claims.Items {
		known[claims.Items[i].Name] = true
	}
	var orphans []*karpv1.NodeClaim
	for _, m := range machines {
		if !known[m.Name] && m.DeletionTimestamp.IsZero() && g.clock.Since(m.CreationTimestamp.Time) > orphanAge {
			orphans = append(orphans, m)
		}
	}
	var mu sync.Mutex
	var errs []error
	workqueue.ParallelizeUntil(ctx, 20, len(orphans), func(i int) {
		if err := g.collect(ctx, orphans[i]); err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		}
	})
	if err := errors.Join(errs...); err != nil {
		return reconciler.Result{}, err
	}
	return reconciler.Result{RequeueAfter: collectInterval}, nil
}

func (g *GarbageCollector) collect(ctx context.Context, m *karpv1.NodeClaim) error {
	err := g.uncached.Get(ctx, client.ObjectKey{Name: m.Name}, &karpv1.NodeClaim{})
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("checking that NodeClaim %s does not exist: %w", m.Name, err)
	}
	if err := cloudprovider.IgnoreNodeClaimNotFoundError(g.cloud.Delete(ctx, m)); err != nil {
		return fmt.Errorf("deleting the machine of NodeClaim %s, which does not exist: %w", m.Name, err)
	}
	log.FromContext(ctx).Info("deleted machine without nodeclaim", "nodeClaim", m.Name, "providerID", m.Status.ProviderID)
	if m.Status.ProviderID == "" {
		return nil
	}
	nodes := &corev1.NodeList{}
	if err := g.kube.List(ctx, nodes, client.MatchingFields{"spec.providerID": m.Status.ProviderID}); err != nil {
		return fmt.Errorf("listing the nodes of machine %s: %w", m.Status.ProviderID, err)
	}
	for i := range nodes.Items {
		if err := g.kube.Delete(ctx, &nodes.Items[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting node %s, whose machine was deleted: %w", nodes.Items[i].Name, err)
		}
	}
	return nil
}
