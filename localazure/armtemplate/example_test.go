// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate_test

import (
	"encoding/json"
	"fmt"

	"github.com/nap-aks/nap/localazure/armtemplate"
)

// cloud is a Runtime in which all resources are alike.
type cloud struct{}

func (cloud) Reference(id, apiVersion string) ([]byte, error) {
	return []byte(`{"properties": {"fqdn": "nap.example.com"}}`), nil
}

func (cloud) List(function, id, apiVersion string, input []byte) ([]byte, error) {
	return []byte(`{}`), nil
}

func ExampleTemplate_Expand() {
	t, err := armtemplate.Parse([]byte(`{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
		"contentVersion": "1.0.0.0",
		"parameters": {"prefix": {"type": "string"}},
		"resources": [
			{
				"type": "Microsoft.Network/dnsZones/CNAME", "apiVersion": "2018-05-01",
				"name": "[format('{0}.example.com/www', parameters('prefix'))]",
				"properties": {"cname": "[reference('cluster').fqdn]"}
			},
			{
				"type": "Microsoft.ContainerService/managedClusters", "apiVersion": "2025-05-01",
				"name": "cluster", "location": "[resourceGroup().location]",
				"properties": {"dnsPrefix": "[parameters('prefix')]"}
			}
		]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := t.Expand(armtemplate.Input{
		Parameters: map[string]json.RawMessage{"prefix": json.RawMessage(`"nap"`)},
		Scope: armtemplate.Scope{
			SubscriptionID: "sub",
			ResourceGroup:  armtemplate.ResourceGroup{Name: "rg", Location: "eastus"},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, r := range g.Resources {
		body, err := g.Resolve(i, cloud{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(r.ID)
		fmt.Println("  depends on", r.DependsOn)
		fmt.Println(" ", string(body))
	}
	// Output:
	// /subscriptions/sub/resourceGroups/rg/providers/Microsoft.Network/dnsZones/nap.example.com/CNAME/www
	//   depends on [1]
	//   {"properties":{"cname":"nap.example.com"}}
	// /subscriptions/sub/resourceGroups/rg/providers/Microsoft.ContainerService/managedClusters/cluster
	//   depends on []
	//   {"location":"eastus","properties":{"dnsPrefix":"nap"}}
}
