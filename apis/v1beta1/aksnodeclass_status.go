package v1beta1

import (
	"fmt"

	"github.com/awslabs/operatorpkg/status"
	corev1 "k8s.io/api/core/v1"
)

// Conditions of an AKSNodeClass; Ready is true when all of them are.
const (
	ConditionImagesReady            = "ImagesReady"
	ConditionKubernetesVersionReady = "KubernetesVersionReady"
	ConditionSubnetsReady           = "SubnetsReady"
	ConditionValidationSucceeded    = "ValidationSucceeded"
	ConditionLocalDNSReady          = "LocalDNSReady"
)

// AKSNodeClassStatus is what the controller resolved for the class.
type AKSNodeClassStatus struct {
	// images are the node images in order of preference.
	// +optional
	Images []NodeImage `json:"images,omitempty"`
	// kubernetesVersion is the version of new nodes, without v.
	// +optional
	KubernetesVersion *string `json:"kubernetesVersion,omitempty"`
	// localDNSState is the resolved decision: Enabled or Disabled.
	// +kubebuilder:validation:Enum={Enabled,Disabled}
	// +optional
	LocalDNSState *string `json:"localDNSState,omitempty"`
	// conditions of the class.
	// +optional
	Conditions []status.Condition `json:"conditions,omitempty"`
}

// NodeImage is an image version and the sizes that can boot it.
type NodeImage struct {
	// id is the gallery image version's ARM ID.
	ID string `json:"id"`
	// requirements a size must meet: architecture and hypervisor generation.
	Requirements []corev1.NodeSelectorRequirement `json:"requirements"`
}

// StatusConditions gives access to the conditions.
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

// ResolvedKubernetesVersion is the version new nodes must have. It is an error
// as long as the condition is not true for the class's present generation.
func (n *AKSNodeClass) ResolvedKubernetesVersion() (string, error) {
	if err := n.current(ConditionKubernetesVersionReady); err != nil {
		return "", err
	}
	if n.Status.KubernetesVersion == nil || *n.Status.KubernetesVersion == "" {
		return "", fmt.Errorf("AKSNodeClass %s has no Kubernetes version in its status", n.Name)
	}
	return *n.Status.KubernetesVersion, nil
}

// ResolvedImages are the images in order of preference, under the same rule as
// ResolvedKubernetesVersion.
func (n *AKSNodeClass) ResolvedImages() ([]NodeImage, error) {
	if err := n.current(ConditionImagesReady); err != nil {
		return nil, err
	}
	return n.Status.Images, nil
}

func (n *AKSNodeClass) current(condition string) error {
	c := n.StatusConditions().Get(condition)
	switch {
	case c == nil || !c.IsTrue():
		return fmt.Errorf("condition %s of AKSNodeClass %s is not true", condition, n.Name)
	case c.ObservedGeneration != n.Generation:
		return fmt.Errorf("condition %s of AKSNodeClass %s is of generation %d, the class is at %d", condition, n.Name, c.ObservedGeneration, n.Generation)
	}
	return nil
}
