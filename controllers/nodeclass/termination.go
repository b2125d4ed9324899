// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeclass

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"
	"sigs.k8s.io/karpenter/pkg/events"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Termination removes the finalizer of a deleted AKSNodeClass once no NodeClaim uses it.
type Termination struct {
	kube     client.Client
	recorder events.Recorder
}

// NewTermination returns the controller.
func NewTermination(kube client.Client, recorder events.Recorder) *Termination {
	return &Termination{kube, recorder}
}

// Register adds the controller to the manager.
func (c *Termination) Register(_ context.Context, m manager.Manager) error {
	claimGone := predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: func(event.UpdateEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false }, DeleteFunc: func(event.DeleteEvent) bool { return true },
	}
	return ctrl.NewControllerManagedBy(m).Named("nodeclass.termination").For(&v1beta1.AKSNodeClass{}).
		Watches(&karpv1.NodeClaim{}, handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
			ref := o.(*karpv1.NodeClaim).Spec.NodeClassRef
			if ref == nil {
				return nil
			}
			return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: ref.Name}}}
		}), builder.WithPredicates(claimGone)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// Reconcile removes the finalizer of a class that is being deleted and not in use.
func (c *Termination) Reconcile(ctx context.Context, nc *v1beta1.AKSNodeClass) (reconcile.Result, error) {
	if nc.DeletionTimestamp.IsZero() || !controllerutil.ContainsFinalizer(nc, v1beta1.TerminationFinalizer) {
		return reconcile.Result{}, nil
	}
	claims, err := claimsOf(ctx, c.kube, nc)
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(claims) > 0 {
		c.recorder.Publish(waitingEvent(nc, claims))
		return reconcile.Result{RequeueAfter: 10 * time.Minute}, nil // the deletion of a NodeClaim reconciles earlier
	}
	stored := nc.DeepCopy()
	controllerutil.RemoveFinalizer(nc, v1beta1.TerminationFinalizer)
	err = c.kube.Patch(ctx, nc, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("removing the finalizer of AKSNodeClass %s: %w", nc.Name, err)
	}
	return reconcile.Result{}, nil
}

// waitingEvent returns the event that names the NodeClaims using a class.
func waitingEvent(nc *v1beta1.AKSNodeClass, claims []karpv1.NodeClaim) events.Event {
	var names []string
	for i := range min(len(claims), 5) {
		names = append(names, claims[i].Name)
	}
	list := strings.Join(names, ", ")
	if more := len(claims) - len(names); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return events.Event{
		InvolvedObject: nc, Type: corev1.EventTypeNormal, Reason: "WaitingOnNodeClaimTermination",
		Message: "Waiting for NodeClaims to terminate: " + list, DedupeValues: []string{nc.Name, list},
	}
}
