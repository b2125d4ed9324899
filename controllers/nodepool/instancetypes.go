// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodepool

import (
	"context"
	"fmt"
	"time"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
	"github.com/nap-aks/nap/snapshot"
)

const (
	// ConditionInstanceTypes is the condition of a NodePool that tells whether any
	// instance type meets its requirements. Ready does not depend on it.
	ConditionInstanceTypes = "InstanceTypesAvailable"
	// ReasonNoInstanceType is the reason of the condition, and of the event, if none does.
	ReasonNoInstanceType = "NoInstanceTypeMatches"

	// checkInterval is how often a NodePool is checked without an event: the sizes that a
	// region offers change.
	checkInterval = 10 * time.Minute
	retryInterval = 30 * time.Second
)

// Catalogue is the part of the provider that the controller uses.
type Catalogue interface {
	GetInstanceTypes(context.Context, *karpv1.NodePool) ([]*cloudprovider.InstanceType, error)
}

// InstanceTypes writes the condition ConditionInstanceTypes, with the requirement that
// leaves no instance type and the values nearest to those it asks for, and an event.
type InstanceTypes struct {
	kube      client.Client
	catalogue Catalogue
	recorder  events.Recorder
	clock     clock.Clock
}

// NewInstanceTypes returns the controller.
func NewInstanceTypes(kube client.Client, catalogue Catalogue, recorder events.Recorder, c clock.Clock) *InstanceTypes {
	return &InstanceTypes{kube, catalogue, recorder, c}
}

// Register adds the controller to the manager.
func (c *InstanceTypes) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodepool.instancetypes").
		For(&karpv1.NodePool{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1beta1.AKSNodeClass{}, handler.EnqueueRequestsFromMapFunc(c.poolsOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// poolsOf returns a request for each NodePool of a class.
func (c *InstanceTypes) poolsOf(ctx context.Context, class client.Object) []reconcile.Request {
	pools := &karpv1.NodePoolList{}
	if err := c.kube.List(ctx, pools, client.MatchingFields{"spec.template.spec.nodeClassRef.name": class.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "listing nodepools failed", "aksNodeClass", class.GetName())
		return nil
	}
	var out []reconcile.Request
	for i := range pools.Items {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: pools.Items[i].Name}})
	}
	return out
}

// Reconcile checks a NodePool. While its instance types are not known, for example
// because its AKSNodeClass is not ready, the condition stays as it is.
func (c *InstanceTypes) Reconcile(ctx context.Context, pool *karpv1.NodePool) (reconcile.Result, error) {
	if !pool.DeletionTimestamp.IsZero() || pool.Spec.Template.Spec.NodeClassRef == nil || pool.Spec.Template.Spec.NodeClassRef.Kind != "AKSNodeClass" {
		return reconcile.Result{}, nil
	}
	list, err := c.catalogue.GetInstanceTypes(ctx, pool)
	if err != nil || len(list) == 0 {
		if err != nil {
			log.FromContext(ctx).V(1).Info("getting instance types failed", "nodePool", pool.Name, "error", err.Error())
		}
		return reconcile.Result{RequeueAfter: retryInterval}, nil
	}
	stored := pool.DeepCopy()
	conditions := pool.StatusConditions(status.WithClock(c.clock))
	unmet := snapshot.Unmet(pool, list)
	if unmet == "" {
		conditions.SetTrue(ConditionInstanceTypes)
	} else {
		conditions.SetFalse(ConditionInstanceTypes, ReasonNoInstanceType, unmet)
		c.recorder.Publish(events.Event{
			InvolvedObject: pool, Type: corev1.EventTypeWarning, Reason: ReasonNoInstanceType,
			Message: "The NodePool can create no machine: " + unmet, DedupeValues: []string{string(pool.UID), unmet}, DedupeTimeout: time.Hour,
		})
	}
	if !equality.Semantic.DeepEqual(stored, pool) {
		// The lock is needed because a patch of conditions replaces the whole list.
		err := c.kube.Status().Patch(ctx, pool, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
		if apierrors.IsConflict(err) {
			return reconcile.Result{RequeueAfter: time.Second}, nil
		}
		if client.IgnoreNotFound(err) != nil {
			return reconcile.Result{}, fmt.Errorf("writing the conditions of NodePool %s: %w", pool.Name, err)
		}
	}
	return reconcile.Result{RequeueAfter: checkInterval}, nil
}

// Empty returns a sentence for each of the NodePools that can create no machine.
func Empty(pools []karpv1.NodePool) []string {
	var out []string
	for i := range pools {
		cond := pools[i].StatusConditions(status.WithObservedOnly()).Get(ConditionInstanceTypes)
		if cond.IsFalse() && cond.ObservedGeneration == pools[i].Generation {
			out = append(out, fmt.Sprintf("NodePool %s can create no machine: %s", pools[i].Name, cond.Message))
		}
	}
	return out
}
