// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kubeapi

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// creatorAnnotation names the operation that created an object in a cluster.
// Only objects with it are deleted on rollback.
const creatorAnnotation = "node-auto-provisioning.local/made-by"

// Creatable are the kinds that Create accepts.
var Creatable = map[string]schema.GroupVersionResource{"NodePool": nodePools, "AKSNodeClass": nodeClasses}

// OpenNodePools implements Client.
func (l client) OpenNodePools(ctx context.Context) (map[string]string, error) {
	pools, err := l.list(ctx, nodePools, "", "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range pools {
		v, ok, err := unstructured.NestedFieldNoCopy(p.Object, "spec", "limits", "cpu")
		if err != nil || !ok {
			out[p.GetName()] = "none"
			continue
		}
		q, err := resource.ParseQuantity(strings.TrimSpace(fmt.Sprint(v)))
		if err != nil || !q.IsZero() {
			out[p.GetName()] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// EditNodePools implements Client.
func (l client) EditNodePools(ctx context.Context, f func(map[string]any) (bool, error)) error {
	items, err := l.list(ctx, nodePools, "", "")
	if err != nil {
		return err
	}
	for i := range items {
		if err := l.editNodePool(ctx, &items[i], f); err != nil {
			return err
		}
	}
	return nil
}

// editNodePool repeats the change on conflicts. A deleted NodePool needs none.
func (l client) editNodePool(ctx context.Context, pool *unstructured.Unstructured, f func(map[string]any) (bool, error)) error {
	for {
		changed, err := f(pool.Object)
		if err != nil || !changed {
			return err
		}
		_, err = l.c.Resource(nodePools).Update(ctx, pool, metav1.UpdateOptions{FieldManager: fieldManager})
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return fmt.Errorf("updating NodePool %s: %w", pool.GetName(), err)
		}
		fresh, err := l.c.Resource(nodePools).Get(ctx, pool.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading NodePool %s: %w", pool.GetName(), err)
		}
		pool = fresh
	}
}

// Create implements Client.
func (l client) Create(ctx context.Context, object map[string]any, by string) error {
	u := &unstructured.Unstructured{Object: rp.Doc(object).Clone()}
	gvr, ok := Creatable[u.GetKind()]
	if !ok {
		return fmt.Errorf("kind %s is neither NodePool nor AKSNodeClass: %w", u.GetKind(), ErrRefused)
	}
	as := u.GetAnnotations()
	if as == nil {
		as = map[string]string{}
	}
	as[creatorAnnotation] = by
	u.SetAnnotations(as)
	_, err := l.c.Resource(gvr).Create(ctx, u, metav1.CreateOptions{FieldManager: fieldManager})
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		have, err := l.c.Resource(gvr).Get(ctx, u.GetName(), metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading %s %s: %w", u.GetKind(), u.GetName(), err)
		}
		if have.GetAnnotations()[creatorAnnotation] != by {
			return fmt.Errorf("the cluster already has a %s %s; delete it, or give yours another name: %w", u.GetKind(), u.GetName(), ErrRefused)
		}
		return nil
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
		return fmt.Errorf("creating %s %s: %w: %w", u.GetKind(), u.GetName(), err, ErrRefused)
	}
	return fmt.Errorf("creating %s %s: %w", u.GetKind(), u.GetName(), err)
}

// DeleteCreated implements Client.
func (l client) DeleteCreated(ctx context.Context, by string) ([]string, error) {
	var left []string
	for _, gvr := range []schema.GroupVersionResource{nodePools, nodeClasses} {
		items, err := l.list(ctx, gvr, "", "")
		if err != nil {
			return nil, err
		}
		for _, o := range items {
			if o.GetAnnotations()[creatorAnnotation] != by {
				continue
			}
			left = append(left, o.GetKind()+" "+o.GetName())
			if o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := l.c.Resource(gvr).Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return nil, fmt.Errorf("deleting %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
		if len(left) > 0 {
			return left, nil // a class stays until its NodePools and their nodes are gone
		}
	}
	return nil, nil
}

// NotReady implements Client.
func (l client) NotReady(ctx context.Context, names []string) (map[string]string, error) {
	items, err := l.list(ctx, nodePools, "", "")
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, n := range names {
		out[n] = "it does not exist"
	}
	for _, o := range items {
		if _, asked := out[o.GetName()]; !asked {
			continue
		}
		out[o.GetName()] = "the controller has not reconciled it yet"
		conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
		for _, c := range conditions {
			m, _ := c.(map[string]any)
			if m["type"] != "Ready" {
				continue
			}
			if m["status"] == "True" {
				delete(out, o.GetName())
			} else {
				out[o.GetName()] = fmt.Sprint(m["message"])
			}
		}
	}
	return out, nil
}

// NodeClaims implements Client.
func (l client) NodeClaims(ctx context.Context) ([]string, error) {
	claims, err := l.list(ctx, nodeClaims, "", "")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range claims {
		out = append(out, c.GetName())
	}
	return out, nil
}
