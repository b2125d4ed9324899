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

// Cloud is what garbage collection needs of the provider.
type Cloud interface {
	List(context.Context) ([]*karpv1.NodeClaim, error)
	Delete(context.Context, *karpv1.NodeClaim) error
}

const (
	collectInterval = 30 * time.Second
	// orphanAge is how old a machine must be before it can be an orphan. Its
	// claim is made first and carries its name, so age only has to cover that
	// the API server may answer from the past.
	orphanAge = time.Minute
)

// GarbageCollector removes machines whose NodeClaim does not exist: a claim
// deleted while its machine was being made, or a machine that came up after
// its launch was given up.
type GarbageCollector struct {
	kube     client.Client
	uncached client.Reader
	cloud    Cloud
	clock    clock.Clock
}

// NewGarbageCollector makes the controller. Before a machine is removed its
// claim is looked for once more without the cache.
func NewGarbageCollector(kube client.Client, uncached client.Reader, cloud Cloud, c clock.Clock) *GarbageCollector {
	return &GarbageCollector{kube, uncached, cloud, c}
}

// Register adds the controller to the manager.
func (g *GarbageCollector) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("instance.garbagecollection").
		WatchesRawSource(singleton.Source()).Complete(singleton.AsReconciler(g))
}

// Reconcile removes orphans.
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
		return fmt.Errorf("making sure that NodeClaim %s does not exist: %w", m.Name, err)
	}
	if err := cloudprovider.IgnoreNodeClaimNotFoundError(g.cloud.Delete(ctx, m)); err != nil {
		return fmt.Errorf("removing the machine of NodeClaim %s, which does not exist: %w", m.Name, err)
	}
	log.FromContext(ctx).Info("removed a machine without NodeClaim", "NodeClaim", m.Name, "provider-id", m.Status.ProviderID)
	if m.Status.ProviderID == "" {
		return nil
	}
	nodes := &corev1.NodeList{}
	if err := g.kube.List(ctx, nodes, client.MatchingFields{"spec.providerID": m.Status.ProviderID}); err != nil {
		return fmt.Errorf("looking for the node of %s: %w", m.Status.ProviderID, err)
	}
	for i := range nodes.Items {
		if err := g.kube.Delete(ctx, &nodes.Items[i]); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting node %s, whose machine is gone: %w", nodes.Items[i].Name, err)
		}
	}
	return nil
}
