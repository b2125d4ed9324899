// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package apis_test

import (
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/nap-aks/nap/apis"
)

// validator applies defaulting, the schema and the CEL rules as the API server
// does.
type validator struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	cel        *cel.Validator
}

func newValidator(t *testing.T, kind, version string) validator {
	t.Helper()
	for _, crd := range apis.CRDs() {
		if crd.Spec.Names.Kind != kind {
			continue
		}
		for _, v := range crd.Spec.Versions {
			if v.Name != version {
				continue
			}
			var internal apiextensions.CustomResourceValidation
			if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(v.Schema, &internal, nil); err != nil {
				t.Fatal(err)
			}
			structural, err := structuralschema.NewStructural(internal.OpenAPIV3Schema)
			if err != nil {
				t.Fatal(err)
			}
			schema, _, err := validation.NewSchemaValidator(internal.OpenAPIV3Schema)
			if err != nil {
				t.Fatal(err)
			}
			return validator{structural, schema, cel.NewValidator(structural, true, celconfig.PerCallLimit)}
		}
	}
	t.Fatalf("no definition of %s %s", kind, version)
	return validator{}
}

func (v validator) errors(t *testing.T, manifest string) field.ErrorList {
	t.Helper()
	var obj map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &obj); err != nil {
		t.Fatal(err)
	}
	defaulting.Default(obj, v.structural)
	errs := validation.ValidateCustomResource(nil, obj, v.schema)
	celErrs, _ := v.cel.Validate(t.Context(), nil, v.structural, obj, nil, celconfig.RuntimeCELCostBudget)
	return append(errs, celErrs...)
}

func TestAKSNodeClassAdmission(t *testing.T) {
	zones := `[{zone: ".", queryLogging: Error, protocol: PreferUDP, forwardDestination: VnetDNS, forwardPolicy: Random, maxConcurrent: 10, cacheDuration: 1h, serveStaleDuration: 1h30m, serveStale: Verify},
	 {zone: cluster.local, queryLogging: Error, protocol: PreferUDP, forwardDestination: ClusterCoreDNS, forwardPolicy: Random, maxConcurrent: 10, cacheDuration: 1h, serveStaleDuration: 1h, serveStale: Disable}]`
	for _, c := range []struct {
		name, spec string
		ok         bool
	}{
		{"empty", `{}`, true},
		{"disk too small", `{osDiskSizeGB: 29}`, false},
		{"unknown family", `{imageFamily: Flatcar}`, false},
		{"subnet", `{vnetSubnetID: "/subscriptions/s/resourceGroups/rg/providers/microsoft.network/virtualNetworks/v/subnets/n"}`, true},
		{"subnet in a group ending in a dot", `{vnetSubnetID: "/subscriptions/s/resourceGroups/rg./providers/Microsoft.Network/virtualNetworks/v/subnets/n"}`, false},
		{"tag with <", `{tags: {"a<b": c}}`, false},
		{"tag with backslash", `{tags: {"a\\b": c}}`, false},
		{"plain tag", `{tags: {team/a: c}}`, true},
		{"FIPS without family defaults to Ubuntu", `{fipsMode: FIPS}`, true},
		{"FIPS on 24.04", `{fipsMode: FIPS, imageFamily: Ubuntu2404}`, false},
		{"FIPS on 22.04 needs trusted launch", `{fipsMode: FIPS, imageFamily: Ubuntu2204}`, false},
		{"FIPS on 22.04 with vtpm", `{fipsMode: FIPS, imageFamily: Ubuntu2204, security: {trustedLaunch: {vtpm: true}}}`, true},
		{"FIPS on AzureLinux with trusted launch", `{fipsMode: FIPS, imageFamily: AzureLinux, security: {trustedLaunch: {secureBoot: true}}}`, false},
		{"swap without failSwapOn", `{linuxOSConfig: {swapFileSize: 1Gi}}`, false},
		{"swap with failSwapOn false", `{linuxOSConfig: {swapFileSize: 1Gi}, kubelet: {failSwapOn: false}}`, true},
		{"image GC thresholds in the wrong order", `{kubelet: {imageGCHighThresholdPercent: 50, imageGCLowThresholdPercent: 60}}`, false},
		{"rmem default above max", `{linuxOSConfig: {sysctls: {netCoreRmemDefault: 300000, netCoreRmemMax: 250000}}}`, false},
		{"port range", `{linuxOSConfig: {sysctls: {netIPv4IPLocalPortRange: "1024 65535"}}}`, true},
		{"port range starts too low", `{linuxOSConfig: {sysctls: {netIPv4IPLocalPortRange: "1000 65535"}}}`, false},
		{"localDNS", `{localDNS: {mode: Required, vnetDNSOverrides: ` + zones + `, kubeDNSOverrides: ` + zones + `}}`, true},
		{"localDNS without overrides", `{localDNS: {mode: Disabled}}`, false},
		{"gpu mode in lower case", `{gpu: {mode: none}}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, version := range []string{"v1beta1", "v1alpha2"} {
				errs := newValidator(t, "AKSNodeClass", version).errors(t, "{apiVersion: karpenter.azure.com/"+version+", kind: AKSNodeClass, metadata: {name: x}, spec: "+c.spec+"}")
				if c.ok != (len(errs) == 0) {
					t.Errorf("%s: accepted = %t, want %t: %v", version, !c.ok, c.ok, errs)
				}
			}
		})
	}
}

func TestNodePoolLabelAdmission(t *testing.T) {
	pool := func(labels, key string) string {
		return `{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: x}, spec: {template: {metadata: {labels: ` + labels + `},
		 spec: {nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}, requirements: [{key: ` + key + `, operator: Exists}]}}}}`
	}
	for _, c := range []struct {
		labels, key string
		ok          bool
	}{
		{`{kubernetes.azure.com/mode: system}`, "karpenter.azure.com/sku-family", true},
		{`{kubernetes.azure.com/agentpool: x}`, "karpenter.azure.com/sku-family", false},
		{`{team: a}`, "karpenter.azure.com/sku-hyperv-generation", false},
		{`{team: a}`, "kubernetes.azure.com/storageprofile", false},
		{`{agentpool: a}`, "kubernetes.io/arch", false},
		{`{team: a}`, "example.com/anything", true},
	} {
		errs := newValidator(t, "NodePool", "v1").errors(t, pool(c.labels, c.key))
		if c.ok != (len(errs) == 0) {
			t.Errorf("labels %s, requirement %s: accepted = %t, want %t: %v", c.labels, c.key, !c.ok, c.ok, errs)
		}
	}
}
