package apis

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/nap-aks/nap/apis/v1beta1"
)

// Labels of the two Azure domains that users may select on; every other label
// there, and the bare keys that AKS sets itself, is refused at admission, so
// that a typing error shows at once and not as a pool that never matches.
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
	refusedBare = []string{"agentpool", "storageprofile", "storagetier", "accelerator"}
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

// edit changes one property in place; a definition without it is a Karpenter
// whose schema this code does not know.
func edit(properties map[string]apiextensionsv1.JSONSchemaProps, change func(*apiextensionsv1.JSONSchemaProps), name string) {
	p, ok := properties[name]
	if !ok {
		panic(fmt.Sprintf("Karpenter's definition has no property %q where label rules belong", name))
	}
	change(&p)
	properties[name] = p
}

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
			Message: "labels " + strings.Join(refusedBare, ", ") + " are set by AKS and cannot be chosen",
			Rule:    fmt.Sprintf(form, fmt.Sprintf(`!(%s in %s)`, variable, list(refusedBare))),
		},
	}
}
