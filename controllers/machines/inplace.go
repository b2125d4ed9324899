// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package machines

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Updater updates machines in place.
type Updater interface {
	InPlaceHash(*v1beta1.AKSNodeClass) string
	UpdateInPlace(context.Context, *v1beta1.AKSNodeClass, *karpv1.NodeClaim) error
}

// InPlaceUpdate applies the tags of an AKSNodeClass to its machines.
type InPlaceUpdate struct {
	kube  client.Client
	cloud Updater
}

// NewInPlaceUpdate returns the controller.
func NewInPlaceUpdate(kube client.Client, cloud Updater) *InPlaceUpdate {
	return &InPlaceUpdate{kube, cloud}
}

// Register adds the controller to the manager.
func (c *InPlaceUpdate) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodeclaim.inplaceupdate").
		For(&karpv1.NodeClaim{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.NewPredicateFuncs(func(o client.Object) bool {
			return o.GetAnnotations()[v1beta1.AnnotationInPlaceUpdateHash] != ""
		})))).
		Watches(&v1beta1.AKSNodeClass{}, handler.EnqueueRequestsFromMapFunc(c.claimsOf), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// claimsOf returns a request for each NodeClaim of a class.
func (c *InPlaceUpdate) claimsOf(ctx context.Context, class client.Object) []reconcile.Request {
	claims := &karpv1.NodeClaimList{}
	if err := c.kube.List(ctx, claims, client.MatchingFields{"spec.nodeClassRef.name": class.GetName()}); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "listing nodeclaims failed", "aksNodeClass", class.GetName())
		return nil
	}
	var out []reconcile.Request
	for i := range claims.Items {
		out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: claims.Items[i].Name}})
	}
	return out
}

// Reconcile updates the machine of a claim if the tags of its class have changed since
// the last update.
func (c *InPlaceUpdate) Reconcile(ctx context.Context, claim *karpv1.NodeClaim) (reconcile.Result, error) {
	if !claim.DeletionTimestamp.IsZero() || claim.Spec.NodeClassRef == nil || claim.Spec.NodeClassRef.Kind != "AKSNodeClass" {
		return reconcile.Result{}, nil
	}
	nc := &v1beta1.AKSNodeClass{}
	if err := c.kube.Get(ctx, client.ObjectKey{Name: claim.Spec.NodeClassRef.Name}, nc); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	want := c.cloud.InPlaceHash(nc)
	if claim.Annotations[v1beta1.AnnotationInPlaceUpdateHash] == want {
		return reconcile.Result{}, nil
	}
	if claim.Status.ProviderID == "" {
		return reconcile.Result{RequeueAfter: time.Minute}, nil // the launch sets the tags and writes the hash
	}
	if err := c.cloud.UpdateInPlace(ctx, nc, claim); err != nil {
		return reconcile.Result{}, fmt.Errorf("updating the machine of NodeClaim %s in place: %w", claim.Name, err)
	}
	stored := claim.DeepCopy()
	if claim.Annotations == nil {
		claim.Annotations = map[string]string{}
	}
	claim.Annotations[v1beta1.AnnotationInPlaceUpdateHash] = want
	if err := c.kube.Patch(ctx, claim, client.MergeFrom(stored)); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("writing the in-place update hash of NodeClaim %s: %w", claim.Name, err))
	}
	return reconcile.Result{}, nil
}
