// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apis

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Labels of the two Azure domains that users may set and select on. Admission
// rejects all other labels in these domains and the unqualified labels that AKS
// sets, so that a typing error is an error and not a NodePool that never matches.
var (
	allowedKarpenterAzure = []string{
		v1beta1.Group + "/aksnodeclass",
		v1beta1.LabelSKUName, v1beta1.LabelSKUFamily, v1beta1.LabelSKUSeries, v1beta1.LabelSKUVersion,
		v1beta1.LabelSKUCPU, v1beta1.LabelSKUMemory,
		v1beta1.LabelSKUNetworkingAccelerated, v1beta1.LabelSKUStoragePremiumCapable,
		v1beta1.LabelSKUStorageEphemeralOSMaxSize, v1beta1.LabelSKUStorageUltraSSD,
		v1beta1.LabelSKUGPUCount, v1beta1.LabelSKUGPUManufacturer, v1beta1.LabelSKUGPUName,
		v1beta1.LabelPlacementScope,
	}
	allowedAKS = []string{
		v1beta1.AKSLabelMode, v1beta1.AKSLabelScaleSetPriority, v1beta1.AKSLabelPriority,
		v1beta1.AKSLabelFIPSEnabled, v1beta1.AKSLabelOSSKU, v1beta1.AKSLabelCluster,
		v1beta1.AKSLabelSKUCPU, v1beta1.AKSLabelSKUMemory,
		v1beta1.AKSLabelDomain + "/ebpf-dataplane", v1beta1.AKSLabelDomain + "/ebpf-host-routing",
		v1beta1.AKSLabelDomain + "/network-policy", v1beta1.AKSLabelDomain + "/hostedvm",
	}
	reservedKeys = []string{"agentpool", "storageprofile", "storagetier", "accelerator"}
)

// restrictLabels adds the admission rules for labels to a NodePool or NodeClaim
// definition.
func restrictLabels(crd *apiextensionsv1.CustomResourceDefinition) {
	for i := range crd.Spec.Versions {
		spec := crd.Spec.Versions[i].Schema.OpenAPIV3Schema.Properties["spec"]
		if template, ok := spec.Properties["template"]; ok { // NodePool
			edit(template.Properties, func(metadata *apiextensionsv1.JSONSchemaProps) {
				edit(metadata.Properties, func(labels *apiextensionsv1.JSONSchemaProps) {
					labels.XValidations = append(labels.XValidations, rules("self.all(x, %s)", "x")...)
				}, "labels")
			}, "metadata")
			edit(template.Properties, restrictRequirements, "spec")
			spec.Properties["template"] = template
		} else {
			restrictRequirements(&spec)
		}
		crd.Spec.Versions[i].Schema.OpenAPIV3Schema.Properties["spec"] = spec
	}
}

func restrictRequirements(spec *apiextensionsv1.JSONSchemaProps) {
	edit(spec.Properties, func(requirements *apiextensionsv1.JSONSchemaProps) {
		edit(requirements.Items.Schema.Properties, func(key *apiextensionsv1.JSONSchemaProps) {
			key.XValidations = append(key.XValidations, rules("%s", "self")...)
		}, "key")
	}, "requirements")
}

// edit changes one property in place. It panics if the property does not exist:
// this version of Karpenter has a different schema.
func edit(properties map[string]apiextensionsv1.JSONSchemaProps, change func(*apiextensionsv1.JSONSchemaProps), name string) {
	p, ok := properties[name]
	if !ok {
		panic(fmt.Sprintf("Karpenter's definition has no property %q to add label rules to", name))
	}
	change(&p)
	properties[name] = p
}

// rules returns the validation rules for a label key. form is the CEL expression
// that wraps the condition on the variable.
func rules(form, variable string) apiextensionsv1.ValidationRules {
	list := func(keys []string) string { return `["` + strings.Join(keys, `", "`) + `"]` }
	domain := func(name string, allowed []string) apiextensionsv1.ValidationRule {
		return apiextensionsv1.ValidationRule{
			Message: fmt.Sprintf("label domain %q is restricted to: %s", name, strings.Join(allowed, ", ")),
			Rule:    fmt.Sprintf(form, fmt.Sprintf(`%[1]s in %[2]s || !%[1]s.find("^([^/]+)").endsWith(%[3]q)`, variable, list(allowed), name)),
		}
	}
	return apiextensionsv1.ValidationRules{
		domain(v1beta1.Group, allowedKarpenterAzure),
		domain(v1beta1.AKSLabelDomain, allowedAKS),
		{
			Message: "labels " + strings.Join(reservedKeys, ", ") + " are set by AKS and cannot be chosen",
			Rule:    fmt.Sprintf(form, fmt.Sprintf(`!(%s in %s)`, variable, list(reservedKeys))),
		},
	}
}
