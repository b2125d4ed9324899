// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	"fmt"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
)

// Conditions of an AKSNodeClass. Ready is true when all of them are.
const (
	ConditionImagesReady            = "ImagesReady"
	ConditionKubernetesVersionReady = "KubernetesVersionReady"
	ConditionSubnetsReady           = "SubnetsReady"
	ConditionValidationSucceeded    = "ValidationSucceeded"
	ConditionLocalDNSReady          = "LocalDNSReady"
)

// AKSNodeClassStatus holds what the controller resolved for the class.
type AKSNodeClassStatus struct {
	// images are the node images in order of preference.
	// +optional
	Images []NodeImage `json:"images,omitempty"`
	// kubernetesVersion is the version of new nodes, without a leading v.
	// +optional
	KubernetesVersion *string `json:"kubernetesVersion,omitempty"`
	// localDNSState says whether new machines run the DNS proxy.
	// +kubebuilder:validation:Enum={Enabled,Disabled}
	// +optional
	LocalDNSState *string `json:"localDNSState,omitempty"`
	// conditions of the class. Ready is true when ImagesReady, KubernetesVersionReady,
	// SubnetsReady, ValidationSucceeded and LocalDNSReady are.
	// +optional
	Conditions []status.Condition `json:"conditions,omitempty"`
}

// NodeImage is an image version with the sizes that can boot it.
type NodeImage struct {
	// id is the ARM ID of the gallery image version.
	ID string `json:"id"`
	// requirements that a size must meet: architecture and Hyper-V generation.
	Requirements []corev1.NodeSelectorRequirement `json:"requirements"`
}

// StatusConditions returns the condition set.
func (n *AKSNodeClass) StatusConditions(o ...status.ForOption) status.ConditionSet {
	return status.NewReadyConditions(
		ConditionImagesReady,
		ConditionKubernetesVersionReady,
		ConditionSubnetsReady,
		ConditionValidationSucceeded,
		ConditionLocalDNSReady,
	).For(n, o...)
}

// GetConditions returns the conditions.
func (n *AKSNodeClass) GetConditions() []status.Condition { return n.Status.Conditions }

// SetConditions replaces the conditions.
func (n *AKSNodeClass) SetConditions(c []status.Condition) { n.Status.Conditions = c }

// ResolvedKubernetesVersion returns the version of new nodes. It returns an error
// unless the condition is true for the current generation of the class.
func (n *AKSNodeClass) ResolvedKubernetesVersion() (string, error) {
	if err := n.current(ConditionKubernetesVersionReady); err != nil {
		return "", err
	}
	if n.Status.KubernetesVersion == nil || *n.Status.KubernetesVersion == "" {
		return "", fmt.Errorf("AKSNodeClass %s has no Kubernetes version in its status", n.Name)
	}
	return *n.Status.KubernetesVersion, nil
}

// ResolvedImages returns the images in order of preference. It returns an error
// unless the condition is true for the current generation of the class.
func (n *AKSNodeClass) ResolvedImages() ([]NodeImage, error) {
	if err := n.current(ConditionImagesReady); err != nil {
		return nil, err
	}
	return n.Status.Images, nil
}

// current returns an error unless the condition is true for the current generation.
func (n *AKSNodeClass) current(condition string) error {
	c := n.StatusConditions().Get(condition)
	switch {
	case c == nil || !c.IsTrue():
		return fmt.Errorf("condition %s of AKSNodeClass %s is not true", condition, n.Name)
	case c.ObservedGeneration != n.Generation:
		return fmt.Errorf("condition %s of AKSNodeClass %s was observed at generation %d, want %d", condition, n.Name, c.ObservedGeneration, n.Generation)
	}
	return nil
}
