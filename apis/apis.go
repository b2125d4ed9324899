// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apis holds the custom resource definitions that node auto-provisioning
// needs in a cluster: Karpenter's and AKSNodeClass. Package controllers installs
// them.
package apis

import (
	_ "embed"
	"fmt"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	karpenterapis "sigs.k8s.io/karpenter/pkg/apis"
	"sigs.k8s.io/yaml"
)

// AKSNodeClassCRD is the generated definition of AKSNodeClass, in YAML.
//
//go:embed crds/karpenter.azure.com_aksnodeclasses.yaml
var AKSNodeClassCRD []byte

// CRDs returns copies of all definitions: NodePool, NodeClaim, NodeOverlay,
// CapacityBuffer and AKSNodeClass. AKSNodeClass is stored as v1beta1. It is also
// served as v1alpha2 with a deprecation warning; the schema is the same, so no
// conversion is needed.
func CRDs() []*apiextensionsv1.CustomResourceDefinition {
	out := make([]*apiextensionsv1.CustomResourceDefinition, 0, len(karpenterapis.CRDs)+1)
	for _, crd := range karpenterapis.CRDs {
		crd = crd.DeepCopy()
		switch crd.Spec.Names.Kind {
		case "NodePool", "NodeClaim":
			restrictLabels(crd)
		}
		out = append(out, crd)
	}
	nodeClass := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(AKSNodeClassCRD, nodeClass); err != nil {
		panic(fmt.Sprintf("parsing the embedded AKSNodeClass definition: %v", err)) // a broken build
	}
	old := *nodeClass.Spec.Versions[0].DeepCopy()
	warning := "karpenter.azure.com/v1alpha2 AKSNodeClass is deprecated; use karpenter.azure.com/v1beta1 AKSNodeClass"
	old.Name, old.Storage, old.Deprecated, old.DeprecationWarning = "v1alpha2", false, true, &warning
	nodeClass.Spec.Versions = slices.Insert(nodeClass.Spec.Versions, 0, old)
	return append(out, nodeClass)
}
