// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// change sets a property, such as "properties.networkProfile.networkPlugin", in a body.
func change(body map[string]any, path string, v any) {
	parts := strings.Split(path, ".")
	m := body
	for _, p := range parts[:len(parts)-1] {
		next, ok := m[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	m[parts[len(parts)-1]] = v
}

func pool(name string, extra map[string]any) map[string]any {
	p := map[string]any{"name": name, "mode": "User", "count": 1, "vmSize": "Standard_D4s_v5"}
	for k, v := range extra {
		p[k] = v
	}
	return p
}

// Configurations that node auto-provisioning does not support are refused when a
// cluster is created with them and when it is enabled on a cluster that has them;
// the error names the property.
func TestUnsupportedWithNodeAutoProvisioning(t *testing.T) {
	system := pool("system", map[string]any{"mode": "System", "count": 2})
	rows := []struct {
		name string
		set  map[string]any
		want string
	}{
		{"cluster autoscaler", map[string]any{"properties.agentPoolProfiles": []any{system, pool("auto", map[string]any{"enableAutoScaling": true, "minCount": 1, "maxCount": 3})}}, "unless all AgentPools have property .properties.enableAutoScaling set to one of [false]"},
		{"kubenet", map[string]any{"properties.networkProfile": map[string]any{"networkPlugin": "kubenet"}}, ".properties.networkProfile.networkPlugin set to one of [azure,none]"},
		{"Calico", map[string]any{"properties.networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "calico"}}, ".properties.networkProfile.networkPolicy set to one of"},
		{"IPv6", map[string]any{"properties.networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "ipFamilies": []any{"IPv4", "IPv6"}}}, ".properties.networkProfile.ipFamilies set to one of [IPv4]"},
		{"Windows pool", map[string]any{"properties.agentPoolProfiles": []any{system, pool("win", map[string]any{"osType": "Windows"})}}, ".properties.osType set to one of [Linux]"},
		{"service principal", map[string]any{"identity": nil, "properties.servicePrincipalProfile": map[string]any{"clientId": "44444444-4444-4444-8444-444444444444", "secret": "s"}}, ".properties.servicePrincipalProfile.clientId set to one of [msi]"},
		{"basic load balancer", map[string]any{"properties.networkProfile": map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "loadBalancerSku": "Basic"}}, ".properties.networkProfile.loadBalancerSku set to one of [standard]"},
		{"dynamic pod IPs", map[string]any{"properties.networkProfile": map[string]any{"networkPlugin": "azure"}, "properties.agentPoolProfiles": []any{system, pool("pods", map[string]any{"vnetSubnetID": group + "/providers/Microsoft.Network/virtualNetworks/vnet/subnets/s", "podSubnetID": group + "/providers/Microsoft.Network/virtualNetworks/vnet/subnets/p"})}}, "podSubnetID is specified"},
		{"node public IP", map[string]any{"properties.agentPoolProfiles": []any{system, pool("ip", map[string]any{"enableNodePublicIP": true})}}, ".properties.enableNodePublicIP set to one of [false]"},
		{"Flatcar", map[string]any{"properties.agentPoolProfiles": []any{system, pool("flat", map[string]any{"osSKU": "Flatcar"})}}, ".properties.osSKU set to one of"},
		{"stopped pool", map[string]any{"properties.agentPoolProfiles": []any{system, pool("off", map[string]any{"powerState": map[string]any{"code": "Stopped"}})}}, ".properties.powerState.code set to one of [Running]"},
	}
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	a.MustSucceed(a.Do("PUT", group+"/providers/Microsoft.Network/virtualNetworks/vnet", map[string]any{"location": "eastus", "properties": map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{"10.0.0.0/8"}},
		"subnets": []any{map[string]any{"name": "s", "properties": map[string]any{"addressPrefix": "10.1.0.0/16"}}, map[string]any{"name": "p", "properties": map[string]any{"addressPrefix": "10.2.0.0/16"}}}}}))
	for i, x := range rows {
		t.Run(x.name, func(t *testing.T) {
			id := fmt.Sprintf("%s/providers/Microsoft.ContainerService/managedClusters/c%d", group, i)
			body := clusterBody("Auto")
			for k, v := range x.set {
				change(body, k, v)
			}
			check := func(what string, r armtest.Reply) {
				t.Helper()
				if r.Status != 400 || r.Code() != "OperationNotAllowed" || !strings.Contains(r.Message(), x.want) || !strings.Contains(r.Message(), ".properties.nodeProvisioningProfile.mode cannot be Auto ") {
					t.Errorf("%s: %d %s", what, r.Status, r.Body)
				}
			}
			check("creating with Auto", a.Do("PUT", id, body))
			if r := a.Do("GET", id, nil); r.Status != 404 {
				t.Fatalf("the refused cluster exists: %d", r.Status)
			}
			change(body, "properties.nodeProvisioningProfile.mode", "Manual")
			a.MustSucceed(a.Do("PUT", id, body))
			before := a.Do("GET", id, nil)
			check("enabling", a.Do("PUT", id, map[string]any{"location": "eastus", "properties": map[string]any{"nodeProvisioningProfile": map[string]any{"mode": "Auto"}}}))
			if after := a.Do("GET", id, nil); after.Body != before.Body {
				t.Error("the refused request changed the cluster")
			}
		})
	}
}

// Requests that are refused while node auto-provisioning is enabled.
func TestRefusedWhileNodeAutoProvisioningIsOn(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	for name, x := range map[string]struct {
		method, path string
		body         any
		want         string
	}{
		"stop":              {"POST", "/stop", nil, "cannot be stopped"},
		"egress change":     {"PUT", "", map[string]any{"location": "eastus", "properties": map[string]any{"networkProfile": map[string]any{"outboundType": "managedNATGateway"}}}, "outboundType is changed"},
		"dataplane change":  {"PUT", "", map[string]any{"location": "eastus", "properties": map[string]any{"networkProfile": map[string]any{"networkDataplane": "azure", "networkPolicy": "none"}}}, "networkDataplane is changed"},
		"autoscaled pool":   {"PUT", "/agentPools/p", map[string]any{"properties": map[string]any{"count": 1, "enableAutoScaling": true, "minCount": 1, "maxCount": 2}}, "enableAutoScaling"},
		"Windows pool":      {"PUT", "/agentPools/win", map[string]any{"properties": map[string]any{"count": 1, "osType": "Windows"}}, "osType"},
		"the machines pool": {"DELETE", "/agentPools/aksmanagedap", nil, "belongs to node auto-provisioning"},
	} {
		t.Run(name, func(t *testing.T) {
			r := a.Do(x.method, clusterID+x.path, x.body)
			if r.Status != 400 || r.Code() != "OperationNotAllowed" || !strings.Contains(r.Message(), x.want) {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	// With the feature registered, autoscaled pools are allowed.
	f := sub + "/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/AllowClusterAutoscalerAndNAP"
	if r := a.Do("POST", f+"/register", nil); r.Status != 200 {
		t.Fatal(r.Body)
	}
	a.MustSucceed(a.Do("PUT", clusterID+"/agentPools/p", map[string]any{"properties": map[string]any{"count": 1, "enableAutoScaling": true, "minCount": 1, "maxCount": 2}}))
}

// Disabling checks the cluster: the refusal names every provisioned node and every
// NodePool without a limit of 0, and changes nothing.
func TestDisablingIsRefusedWhileNodesExist(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	off := map[string]any{"location": "eastus", "properties": map[string]any{"nodeProvisioningProfile": map[string]any{"mode": "Manual"}}}
	refused := func(want ...string) {
		t.Helper()
		before := a.Do("GET", clusterID, nil).Body
		r := a.Do("PUT", clusterID, off)
		if r.Status != 400 || r.Code() != "OperationNotAllowed" {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		for _, w := range want {
			if !strings.Contains(r.Message(), w) {
				t.Errorf("%q is not named: %s", w, r.Message())
			}
		}
		if a.Do("GET", clusterID, nil).Body != before {
			t.Error("the refused request changed the cluster")
		}
	}
	a.Live.Set([]string{"aks-a", "aks-b"}, map[string]string{"default": "1000", "system-surge": "none"})
	refused("aks-a", "aks-b", "default (cpu limit 1000)", "system-surge (cpu limit none)")
	a.Live.Set(nil, map[string]string{"default": "1"})
	refused("default (cpu limit 1)")
	// A machine that has no node yet prevents it as well.
	a.Live.Set(nil, nil)
	m := clusterID + "/agentPools/aksmanagedap/machines/default-x1"
	a.MustSucceed(a.Do("PUT", m, map[string]any{"properties": map[string]any{"hardware": map[string]any{"vmSize": "Standard_D4s_v5"}}}))
	refused("aks-aksmanagedap-default-x1-")
	a.MustSucceed(a.Do("DELETE", m, nil))
	a.MustSucceed(a.Do("PUT", clusterID, off))
	if r := a.Do("PUT", m, map[string]any{"properties": map[string]any{"hardware": map[string]any{"vmSize": "Standard_D4s_v5"}}}); r.Status != 404 {
		t.Errorf("a machine in a cluster without the pool: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do("PUT", clusterID, clusterBody("Auto")))
}
