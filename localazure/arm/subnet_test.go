// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// Clusters and pools are refused in subnets that cannot hold their nodes.
func TestSubnetsOfPoolsAreChecked(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	vnet := func(name, location string, subnets ...map[string]any) string {
		id := group + "/providers/Microsoft.Network/virtualNetworks/" + name
		list := []any{}
		for i, s := range subnets {
			props := map[string]any{"addressPrefix": []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"}[i]}
			for k, v := range s {
				props[k] = v
			}
			list = append(list, map[string]any{"name": string(rune('a' + i)), "properties": props})
		}
		a.MustSucceed(a.Do("PUT", id, map[string]any{"location": location, "properties": map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{"10.0.0.0/8"}}, "subnets": list}}))
		return id + "/subnets/"
	}
	here := vnet("here", "eastus", nil, map[string]any{"delegations": []any{map[string]any{"name": "d", "properties": map[string]any{"serviceName": "Microsoft.Web/serverFarms"}}}})
	there := vnet("there", "westus2", nil)
	other := vnet("other", "eastus", nil)
	body := func(subnet, outbound string) map[string]any {
		b := clusterBody("Manual")
		change(b, "properties.networkProfile.serviceCidr", "172.16.0.0/16")
		change(b, "properties.networkProfile.dnsServiceIP", "172.16.0.10")
		change(b, "properties.networkProfile.podCidr", "192.168.0.0/16")
		change(b, "properties.networkProfile.outboundType", outbound)
		b["properties"].(map[string]any)["agentPoolProfiles"].([]any)[0].(map[string]any)["vnetSubnetID"] = subnet
		return b
	}
	for name, x := range map[string]struct{ subnet, outbound, want string }{
		"in another region": {there + "a", "loadBalancer", "is in westus2 and the cluster in eastus"},
		"delegated":         {here + "b", "loadBalancer", "delegated to Microsoft.Web/serverFarms"},
		"without a route":   {here + "a", "userDefinedRouting", "needs a route table"},
		"without a NAT":     {here + "a", "userAssignedNATGateway", "needs a NAT gateway"},
		"missing":           {here + "z", "loadBalancer", "could not be found"},
		"not a subnet":      {strings.TrimSuffix(here, "/subnets/"), "loadBalancer", "is not the ID of a subnet"},
	} {
		if r := a.Do("PUT", clusterID, body(x.subnet, x.outbound)); r.Status != 400 || !strings.Contains(r.Message(), x.want) {
			t.Errorf("%s: %d %s, want %q", name, r.Status, r.Body, x.want)
		}
	}
	a.MustSucceed(a.Do("PUT", clusterID, body(here+"a", "loadBalancer")))
	for subnet, want := range map[string]string{here + "z": "could not be found", other + "a": "same virtual network", here + "b": "delegated"} {
		r := a.Do("PUT", userPool, map[string]any{"properties": map[string]any{"count": 1, "vmSize": "Standard_D4s_v5", "vnetSubnetID": subnet}})
		if r.Status != 400 || !strings.Contains(r.Message(), want) {
			t.Errorf("a pool in %s: %d %s, want %q", subnet, r.Status, r.Body, want)
		}
	}
	a.MustSucceed(a.Do("PUT", userPool, map[string]any{"properties": map[string]any{"count": 1, "vmSize": "Standard_D4s_v5", "vnetSubnetID": here + "a"}}))
}
