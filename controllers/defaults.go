// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	karpenterapis "sigs.k8s.io/karpenter/pkg/apis"
	karpv1 "sigs.k8s.io/karpenter/pkg/apis/v1"

	"github.com/nap-aks/nap/apis"
	"github.com/nap-aks/nap/apis/v1beta1"
)

// definitionTimeout is how long the API server may take to serve a new type.
const definitionTimeout = time.Minute

// InstallDefaults prepares a cluster. It creates or updates the custom resource
// definitions and waits until the API server serves them. If pools is true, it then
// creates the NodePools default and system-surge and the AKSNodeClass default, unless
// they exist.
func InstallDefaults(ctx context.Context, config *rest.Config, pools bool) error {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensionsv1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			return fmt.Errorf("registering API types: %w", err)
		}
	}
	karpenterTypes(s)
	kube, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return fmt.Errorf("creating a client for the cluster: %w", err)
	}
	return installDefaults(ctx, kube, pools)
}

// karpenterTypes registers Karpenter's types. Karpenter itself registers them only in
// the global scheme.
func karpenterTypes(s *runtime.Scheme) {
	group := schema.GroupVersion{Group: karpenterapis.Group, Version: "v1"}
	s.AddKnownTypes(group, &karpv1.NodePool{}, &karpv1.NodePoolList{}, &karpv1.NodeClaim{}, &karpv1.NodeClaimList{})
	metav1.AddToGroupVersion(s, group)
}

func installDefaults(ctx context.Context, kube client.Client, pools bool) error {
	for _, crd := range apis.CRDs() {
		if err := applyCRD(ctx, kube, crd); err != nil {
			return err
		}
	}
	for _, crd := range apis.CRDs() {
		if err := established(ctx, kube, crd.Name); err != nil {
			return err
		}
	}
	if !pools {
		return nil
	}
	for _, obj := range []client.Object{apis.DefaultNodeClass(), apis.DefaultNodePool(), apis.SystemSurgeNodePool()} {
		if err := createOnce(ctx, kube, obj); err != nil {
			return err
		}
	}
	return nil
}

// applyCRD creates a definition or updates its spec.
func applyCRD(ctx context.Context, kube client.Client, want *apiextensionsv1.CustomResourceDefinition) error {
	for {
		have := &apiextensionsv1.CustomResourceDefinition{}
		err := kube.Get(ctx, client.ObjectKeyFromObject(want), have)
		switch {
		case apierrors.IsNotFound(err):
			err = kube.Create(ctx, want.DeepCopy())
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			if err != nil {
				return fmt.Errorf("creating CustomResourceDefinition %s: %w", want.Name, err)
			}
			return nil
		case err != nil:
			return fmt.Errorf("getting CustomResourceDefinition %s: %w", want.Name, err)
		}
		if equality.Semantic.DeepDerivative(want.Spec, have.Spec) {
			return nil
		}
		have.Spec = want.Spec
		for k, v := range want.Annotations {
			metav1.SetMetaDataAnnotation(&have.ObjectMeta, k, v)
		}
		if err := kube.Update(ctx, have); apierrors.IsConflict(err) {
			continue
		} else if err != nil {
			return fmt.Errorf("updating CustomResourceDefinition %s: %w", want.Name, err)
		}
		return nil
	}
}

// established waits until the API server serves the definition.
func established(ctx context.Context, kube client.Client, name string) error {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, definitionTimeout, true, func(ctx context.Context) (bool, error) {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := kube.Get(ctx, client.ObjectKey{Name: name}, crd); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		for _, c := range crd.Status.Conditions {
			if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting until CustomResourceDefinition %s is served: %w", name, err)
	}
	return nil
}

// createOnce creates an object unless it exists. It retries, because the API server may
// not find a type whose definition is new.
func createOnce(ctx context.Context, kube client.Client, obj client.Object) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, definitionTimeout, true, func(ctx context.Context) (bool, error) {
		last = kube.Create(ctx, obj.DeepCopyObject().(client.Object))
		switch {
		case last == nil, apierrors.IsAlreadyExists(last):
			last = nil
			return true, nil
		case apierrors.IsNotFound(last), meta.IsNoMatchError(last), apierrors.IsServiceUnavailable(last):
			return false, nil
		}
		return false, last
	})
	if err != nil {
		if last != nil {
			err = last
		}
		return fmt.Errorf("creating %T %s: %w", obj, obj.GetName(), err)
	}
	return nil
}
