// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1beta1 holds the API types of group karpenter.azure.com: AKSNodeClass,
// which configures the machines of a NodePool on AKS.
//
// The package defines the type with its validation and hash, and the label keys.
// It does not access a cluster or Azure.
//
// +kubebuilder:object:generate=true
// +groupName=karpenter.azure.com
package v1beta1

//go:generate go run sigs.k8s.io/controller-tools/cmd/controller-gen@v0.21.0 object crd paths=. output:crd:artifacts:config=../crds
//go:generate go run ../../internal/docgen/crds -out ../../docs/reference/crds.md

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group is the API group of the types in this package.
const Group = "karpenter.azure.com"

// GroupVersion is the storage version.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1beta1"}

// AddToScheme registers the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &AKSNodeClass{}, &AKSNodeClassList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
