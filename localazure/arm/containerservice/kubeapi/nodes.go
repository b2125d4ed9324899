// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// cordonAnnotation names the operation that cordoned a node. Only nodes with it
// are uncordoned on rollback.
const cordonAnnotation = "node-auto-provisioning.local/cordoned-by"

// ProvisionedNodes implements Client.
func (l client) ProvisionedNodes(ctx context.Context) ([]string, error) {
	items, err := l.list(ctx, nodes, "karpenter.sh/nodepool", "")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, n := range items {
		out = append(out, n.GetName())
	}
	return out, nil
}

// editNode updates a node until f reports no change. A deleted node needs none.
func (l client) editNode(ctx context.Context, name string, f func(*unstructured.Unstructured) bool) error {
	for {
		n, err := l.c.Resource(nodes).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading node %s: %w", name, err)
		}
		if !f(n) {
			return nil
		}
		_, err = l.c.Resource(nodes).Update(ctx, n, metav1.UpdateOptions{FieldManager: fieldManager})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("updating node %s: %w", name, err)
		}
		return nil
	}
}

func unschedulable(n *unstructured.Unstructured) bool {
	b, _, _ := unstructured.NestedBool(n.Object, "spec", "unschedulable")
	return b
}

// Cordon implements Client.
func (l client) Cordon(ctx context.Context, names []string, by string) error {
	for _, name := range names {
		if err := l.editNode(ctx, name, func(n *unstructured.Unstructured) bool {
			if unschedulable(n) {
				return false // somebody else cordoned it and wants it to stay so
			}
			as := n.GetAnnotations()
			if as == nil {
				as = map[string]string{}
			}
			as[cordonAnnotation] = by
			n.SetAnnotations(as)
			return unstructured.SetNestedField(n.Object, true, "spec", "unschedulable") == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Uncordon implements Client.
func (l client) Uncordon(ctx context.Context, by string) error {
	items, err := l.list(ctx, nodes, "", "")
	if err != nil {
		return err
	}
	for _, o := range items {
		if o.GetAnnotations()[cordonAnnotation] != by {
			continue
		}
		if err := l.editNode(ctx, o.GetName(), func(n *unstructured.Unstructured) bool {
			as := n.GetAnnotations()
			if as[cordonAnnotation] != by {
				return false
			}
			delete(as, cordonAnnotation)
			n.SetAnnotations(as)
			unstructured.RemoveNestedField(n.Object, "spec", "unschedulable")
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}

// DeleteNodeClaim implements Client.
func (l client) DeleteNodeClaim(ctx context.Context, node string) error {
	claims, err := l.list(ctx, nodeClaims, "", "")
	if err != nil {
		return err
	}
	for _, c := range claims {
		if name, _, _ := unstructured.NestedString(c.Object, "status", "nodeName"); name != node || c.GetDeletionTimestamp() != nil {
			continue
		}
		if err := l.c.Resource(nodeClaims).Delete(ctx, c.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting NodeClaim %s: %w", c.GetName(), err)
		}
	}
	return nil
}
