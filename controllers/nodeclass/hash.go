// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeclass

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Hash writes the static hash of an AKSNodeClass into its annotations.
type Hash struct{ kube client.Client }

// NewHash returns the controller.
func NewHash(kube client.Client) *Hash { return &Hash{kube} }

// Register adds the controller to the manager.
func (c *Hash) Register(_ context.Context, m manager.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodeclass.hash").For(&v1beta1.AKSNodeClass{}).
		WithOptions(controller.Options{MaxConcurrentReconciles: 10}).
		Complete(reconcile.AsReconciler(m.GetClient(), c))
}

// Reconcile writes the hash. If the version of the hash has changed, it first writes the
// new hash to the NodeClaims of the class, so that they do not all drift. A claim that
// had drifted before stays drifted.
func (c *Hash) Reconcile(ctx context.Context, nc *v1beta1.AKSNodeClass) (reconcile.Result, error) {
	stored := nc.DeepCopy()
	if old := nc.Annotations[v1beta1.AnnotationNodeClassHashVersion]; old != "" && old != v1beta1.HashVersion {
		if err := c.rehashClaims(ctx, nc); err != nil {
			return reconcile.Result{}, err
		}
	}
	nc.Annotations = with(nc.Annotations, map[string]string{
		v1beta1.AnnotationNodeClassHash: nc.Hash(), v1beta1.AnnotationNodeClassHashVersion: v1beta1.HashVersion,
	})
	if equality.Semantic.DeepEqual(stored, nc) {
		return reconcile.Result{}, nil
	}
	if err := c.kube.Patch(ctx, nc, client.MergeFrom(stored)); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(fmt.Errorf("writing the hash of AKSNodeClass %s: %w", nc.Name, err))
	}
	return reconcile.Result{}, nil
}

// rehashClaims writes the current hash version to the NodeClaims of a class.
func (c *Hash) rehashClaims(ctx context.Context, nc *v1beta1.AKSNodeClass) error {
	claims, err := claimsOf(ctx, c.kube, nc)
	if err != nil {
		return err
	}
	var errs []error
	for i := range claims {
		claim := &claims[i]
		stored := claim.DeepCopy()
		add := map[string]string{v1beta1.AnnotationNodeClassHashVersion: v1beta1.HashVersion}
		if claim.StatusConditions().Get(karpv1.ConditionTypeDrifted) == nil {
			add[v1beta1.AnnotationNodeClassHash] = nc.Hash()
		}
		claim.Annotations = with(claim.Annotations, add)
		if equality.Semantic.DeepEqual(stored, claim) {
			continue
		}
		if err := c.kube.Patch(ctx, claim, client.MergeFrom(stored)); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("rehashing NodeClaim %s: %w", claim.Name, err))
		}
	}
	return errors.Join(errs...)
}

// claimsOf lists the NodeClaims that use a class.
func claimsOf(ctx context.Context, kube client.Client, nc *v1beta1.AKSNodeClass) ([]karpv1.NodeClaim, error) {
	list := &karpv1.NodeClaimList{}
	if err := kube.List(ctx, list, client.MatchingFields{"spec.nodeClassRef.name": nc.Name}); err != nil {
		return nil, fmt.Errorf("listing the NodeClaims of AKSNodeClass %s: %w", nc.Name, err)
	}
	return list.Items, nil
}

// with returns a copy of m with the entries of add.
func with(m, add map[string]string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, add)
	return out
}
