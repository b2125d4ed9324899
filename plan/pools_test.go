// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"
	"testing"
)

func TestNodePoolsWithoutSizesAreExplained(t *testing.T) {
	for requirement, want := range map[string]string{
		"key: topology.kubernetes.io/zone, operator: In, values: ['1']":                                                                   `for "1" write "eastus-1"`,
		"key: karpenter.sh/capacity-type, operator: In, values: [Spot]":                                                                   `for "Spot" write "spot"`,
		"key: node.kubernetes.io/instance-type, operator: In, values: [standard_d4s_v5]":                                                  `for "standard_d4s_v5" write "Standard_D4s_v5"`,
		"key: karpenter.azure.com/sku-family, operator: In, values: [NCas_T4_v3]":                                                         `for "NCas_T4_v3" write "N"`,
		"key: karpenter.azure.com/sku-family, operator: In, values: [D]}, {key: karpenter.sh/capacity-type, operator: In, values: [Spot]": `karpenter.sh/capacity-type In [Spot]`,
	} {
		_, r := planText(t, `
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: z}
spec: {template: {spec: {nodeClassRef: {group: karpenter.azure.com, kind: AKSNodeClass, name: default}, requirements: [{`+requirement+`}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: w}
spec: {nodeSelector: {karpenter.sh/nodepool: z}, containers: [{name: c, image: x, resources: {requests: {cpu: "1"}}}]}
`)
		if len(r.Refused) != 1 || !strings.Contains(r.Refused[0].Reason, "NodePool z can create no machine: ") || !strings.Contains(r.Refused[0].Reason, want) {
			t.Errorf("%s: refused %+v, want %s", requirement, r.Refused, want)
		}
	}
	if _, r := planText(t, boxPod); len(r.Notes) != 0 {
		t.Errorf("notes %q about a NodePool with sizes", r.Notes)
	}
}
