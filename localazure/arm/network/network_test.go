// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/arm/authorization"
	"github.com/nap-aks/nap/localazure/arm/network"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

const (
	group  = "/subscriptions/" + armtest.Subscription + "/resourceGroups/rg"
	vnetID = group + "/providers/Microsoft.Network/virtualNetworks/net"
)

func azure(t *testing.T) *armtest.Azure {
	t.Helper()
	a := armtest.New(t)
	if r := a.Do(http.MethodPut, group, map[string]any{"location": "eastus"}); r.Status != 201 {
		t.Fatalf("creating the group: %d %s", r.Status, r.Body)
	}
	return a
}

func clients(t *testing.T, a *armtest.Azure) (*armnetwork.VirtualNetworksClient, *armnetwork.SubnetsClient) {
	t.Helper()
	v, err := armnetwork.NewVirtualNetworksClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	s, err := armnetwork.NewSubnetsClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	return v, s
}

func vnet(space string, subnets ...any) map[string]any {
	props := map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{space}}}
	if subnets != nil {
		props["subnets"] = subnets
	}
	return map[string]any{"location": "eastus", "properties": props}
}

func subnet(name, prefix string) map[string]any {
	return map[string]any{"name": name, "properties": map[string]any{"addressPrefix": prefix}}
}

func subnetNames(r armtest.Reply) string {
	props, _ := r.JSON["properties"].(map[string]any)
	list, _ := props["subnets"].([]any)
	var out []string
	for _, x := range list {
		m := x.(map[string]any)
		out = append(out, fmt.Sprintf("%v=%v", m["name"], m["properties"].(map[string]any)["addressPrefix"]))
	}
	return strings.Join(out, " ")
}

func TestNetworkAndSubnetsWithTheSDK(t *testing.T) {
	a := azure(t)
	ctx := context.Background()
	nets, subs := clients(t, a)
	np, err := nets.BeginCreateOrUpdate(ctx, "rg", "net", armnetwork.VirtualNetwork{Location: to.Ptr("eastus"), Tags: map[string]*string{"a": to.Ptr("b")}, Properties: &armnetwork.VirtualNetworkPropertiesFormat{
		AddressSpace: &armnetwork.AddressSpace{AddressPrefixes: []*string{to.Ptr("10.1.0.0/16")}},
		Subnets:      []*armnetwork.Subnet{{Name: to.Ptr("inline"), Properties: &armnetwork.SubnetPropertiesFormat{AddressPrefix: to.Ptr("10.1.0.0/24")}}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := np.PollUntilDone(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Properties.ResourceGUID == nil || len(got.Properties.Subnets) != 1 || *got.Properties.Subnets[0].ID != vnetID+"/subnets/inline" || *got.Properties.ProvisioningState != armnetwork.ProvisioningStateSucceeded {
		b, _ := got.MarshalJSON()
		t.Errorf("the network reads back as %s", b)
	}
	sp, err := subs.BeginCreateOrUpdate(ctx, "rg", "net", "nodes", armnetwork.Subnet{Properties: &armnetwork.SubnetPropertiesFormat{AddressPrefixes: []*string{to.Ptr("10.1.4.0/22")},
		Delegations: []*armnetwork.Delegation{{Name: to.Ptr("0"), Properties: &armnetwork.ServiceDelegationPropertiesFormat{ServiceName: to.Ptr("Microsoft.ContainerService/managedClusters")}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sp.PollUntilDone(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Properties.Delegations; len(d) != 1 || *d[0].Properties.ServiceName != "Microsoft.ContainerService/managedClusters" || *d[0].Properties.ProvisioningState != armnetwork.ProvisioningStateSucceeded {
		t.Errorf("delegations read back as %+v", d)
	}
	usages := map[string]float64{}
	for pager := nets.NewListUsagePager("rg", "net", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Value {
			usages[*u.ID] = *u.Limit
		}
	}
	if usages[vnetID+"/subnets/inline"] != 251 || usages[vnetID+"/subnets/nodes"] != 1019 {
		t.Errorf("usable addresses are %v, want 251 and 1019", usages)
	}
	found, err := network.FindSubnet(ctx, &rp.Store{KV: a.Etcd}, strings.ToUpper(vnetID+"/subnets/nodes"))
	if err != nil || found == nil || found.Usable != 1019 || found.Location != "eastus" || len(found.Delegations) != 1 {
		t.Errorf("FindSubnet returns %+v, %v", found, err)
	}
	dp, err := subs.BeginDelete(ctx, "rg", "net", "nodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dp.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if found, err := network.FindSubnet(ctx, &rp.Store{KV: a.Etcd}, vnetID+"/subnets/nodes"); err != nil || found != nil {
		t.Errorf("after its deletion FindSubnet returns %+v, %v", found, err)
	}
	vp, err := nets.BeginDelete(ctx, "rg", "net", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vp.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	var re *azcore.ResponseError
	if _, err := subs.Get(ctx, "rg", "net", "inline", nil); !errors.As(err, &re) || re.StatusCode != 404 {
		t.Errorf("the subnet of a deleted network still exists: %v", err)
	}
}

func TestInlineSubnetsReplaceAllOthers(t *testing.T) {
	a := azure(t)
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16", subnet("a", "10.0.0.0/24"), subnet("b", "10.0.1.0/24"))))
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/15")))
	if got := subnetNames(a.Do(http.MethodGet, vnetID, nil)); got != "a=10.0.0.0/24 b=10.0.1.0/24" {
		t.Errorf("a PUT without subnets left %q", got)
	}
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/15", subnet("B", "10.1.0.0/24"), subnet("c", "10.0.2.0/24"))))
	if got := subnetNames(a.Do(http.MethodGet, vnetID, nil)); got != "b=10.1.0.0/24 c=10.0.2.0/24" {
		t.Errorf("a PUT with two subnets left %q", got)
	}
	body := vnet("10.0.0.0/15")
	body["properties"].(map[string]any)["subnets"] = []any{}
	a.MustSucceed(a.Do(http.MethodPut, vnetID, body))
	if got := subnetNames(a.Do(http.MethodGet, vnetID, nil)); got != "" {
		t.Errorf("a PUT with no subnets left %q", got)
	}
}

// A PUT in this namespace replaces the whole resource: az removes a property by
// sending the subnet without it.
func TestPutRemovesOmittedProperties(t *testing.T) {
	a := azure(t)
	nsg := group + "/providers/Microsoft.Network/networkSecurityGroups/n"
	a.MustSucceed(a.Do(http.MethodPut, nsg, map[string]any{"location": "eastus"}))
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16")))
	with := subnet("a", "10.0.0.0/24")
	with["properties"].(map[string]any)["networkSecurityGroup"] = map[string]any{"id": nsg}
	a.MustSucceed(a.Do(http.MethodPut, vnetID+"/subnets/a", with))
	if r := a.Do(http.MethodDelete, nsg, nil); r.Code() != "InUseNetworkSecurityGroupCannotBeDeleted" || !strings.Contains(r.Message(), vnetID+"/subnets/a") {
		t.Errorf("deleting a group in use: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodPut, vnetID+"/subnets/a", subnet("a", "10.0.0.0/24")))
	if got := a.Do(http.MethodGet, vnetID+"/subnets/a", nil); strings.Contains(got.Body, "networkSecurityGroup\"") {
		t.Errorf("the security group is still there: %s", got.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, nsg, nil))
}

func TestInvalidRanges(t *testing.T) {
	a := azure(t)
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16", subnet("a", "10.0.0.0/24"))))
	for _, c := range []struct {
		what, path string
		body       any
		code       string
		says       string
	}{
		{"a subnet outside its network", "/subnets/x", subnet("x", "10.1.0.0/24"), "NetcfgInvalidSubnet", "10.0.0.0/16"},
		{"a subnet larger than its network", "/subnets/x", subnet("x", "10.0.0.0/8"), "NetcfgInvalidSubnet", "outside"},
		{"overlapping subnets", "/subnets/x", subnet("x", "10.0.0.128/25"), "NetcfgSubnetRangesOverlap", "'a' has 10.0.0.0/24"},
		{"host bits", "/subnets/x", subnet("x", "10.0.1.1/24"), "InvalidCIDRNotation", "10.0.1.0/24"},
		{"no CIDR", "/subnets/x", subnet("x", "10.0.1.0"), "InvalidAddressPrefixFormat", "CIDR"},
		{"too small", "/subnets/x", subnet("x", "10.0.1.0/30"), "NetcfgInvalidSubnet", "/29"},
		{"no range", "/subnets/x", map[string]any{"properties": map[string]any{}}, "MissingAddressPrefix", "addressPrefix"},
		{"a missing security group", "/subnets/x", map[string]any{"properties": map[string]any{"addressPrefix": "10.0.1.0/24",
			"networkSecurityGroup": map[string]any{"id": group + "/providers/Microsoft.Network/networkSecurityGroups/none"}}}, "InvalidResourceReference", "none"},
		{"a network without space", "", map[string]any{"location": "eastus", "properties": map[string]any{}}, "MissingAddressSpace", "addressPrefixes"},
		{"a network that leaves its subnets outside", "", vnet("10.9.0.0/16"), "NetcfgInvalidSubnet", "'a'"},
		{"two inline subnets that overlap", "", vnet("10.0.0.0/16", subnet("a", "10.0.0.0/24"), subnet("b", "10.0.0.0/25")), "NetcfgSubnetRangesOverlap", "'b'"},
		{"loopback addresses", "", vnet("127.0.0.0/16"), "AddressPrefixReserved", "127.0.0.0/8"},
		{"a name twice", "", vnet("10.0.0.0/16", subnet("a", "10.0.0.0/24"), subnet("A", "10.0.1.0/24")), "DuplicateResourceName", "A"},
	} {
		r := a.Do(http.MethodPut, vnetID+c.path, c.body)
		if r.Status != 400 || r.Code() != c.code || !strings.Contains(r.Message(), c.says) {
			t.Errorf("%s: %d %s, want 400 %s that says %q", c.what, r.Status, r.Body, c.code, c.says)
		}
	}
	if got := subnetNames(a.Do(http.MethodGet, vnetID, nil)); got != "a=10.0.0.0/24" {
		t.Errorf("the refused requests left %q", got)
	}
	if r := a.Do(http.MethodPut, group+"/providers/Microsoft.Network/virtualNetworks/none/subnets/x", subnet("x", "10.0.0.0/24")); r.Status != 404 {
		t.Errorf("a subnet of a missing network: %d %s", r.Status, r.Body)
	}
}

// Of twenty clients that request the same range concurrently, one gets it.
func TestConcurrentSubnetsNeverOverlap(t *testing.T) {
	a := azure(t)
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16")))
	var wg sync.WaitGroup
	codes := make([]string, 20)
	for i := range codes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := a.Try(http.MethodPut, fmt.Sprintf("%s/subnets/s%d", vnetID, i), subnet("", "10.0.0.0/24"))
			switch {
			case err != nil:
				codes[i] = err.Error()
			case r.Status == 201:
				codes[i] = "created"
			default:
				codes[i] = r.Code()
			}
		}()
	}
	wg.Wait()
	count := map[string]int{}
	for _, c := range codes {
		count[c]++
	}
	if count["created"] != 1 || count["NetcfgSubnetRangesOverlap"] != 19 {
		t.Errorf("the answers are %v, want one created and 19 NetcfgSubnetRangesOverlap", count)
	}
}

func TestSubnetInUseCannotBeDeleted(t *testing.T) {
	a := azure(t)
	a.Machinery()
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16", subnet("nodes", "10.0.0.0/24"))))
	id := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/cluster"
	principal := a.Do(http.MethodPut, id, map[string]any{"location": "eastus"}).JSON["properties"].(map[string]any)["principalId"]
	if r := a.Do(http.MethodPut, vnetID+"/subnets/nodes/providers/Microsoft.Authorization/roleAssignments/44444444-4444-4444-8444-444444444444", map[string]any{"properties": map[string]any{
		"principalId": principal, "roleDefinitionId": "/subscriptions/" + armtest.Subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + authorization.NetworkContributor}}); r.Status != 201 {
		t.Fatalf("giving the identity its role: %d %s", r.Status, r.Body)
	}
	identity := map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{id: map[string]any{}}}
	cluster := group + "/providers/Microsoft.ContainerService/managedClusters/c"
	a.MustSucceed(a.Do(http.MethodPut, cluster, map[string]any{"location": "eastus", "identity": identity, "properties": map[string]any{
		"dnsPrefix":         "nap",
		"networkProfile":    map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkDataplane": "cilium"},
		"agentPoolProfiles": []any{map[string]any{"name": "system", "mode": "System", "count": 3, "vmSize": "standard_d2s_v3", "vnetSubnetID": vnetID + "/subnets/nodes"}}}}))
	for what, r := range map[string]armtest.Reply{
		"deleting the subnet":  a.Do(http.MethodDelete, vnetID+"/subnets/nodes", nil),
		"deleting the network": a.Do(http.MethodDelete, vnetID, nil),
	} {
		if r.Status != 400 || r.Code() != "InUseSubnetCannotBeDeleted" || !strings.Contains(strings.ToLower(r.Message()), strings.ToLower(cluster)) {
			t.Errorf("%s: %d %s", what, r.Status, r.Body)
		}
	}
	if r := a.Do(http.MethodPut, vnetID+"/subnets/nodes", subnet("", "10.0.2.0/24")); r.Code() != "InUsePrefixCannotBeDeleted" {
		t.Errorf("moving the range of a subnet in use: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, vnetID+"/usages", nil); !strings.Contains(r.Body, `"currentValue":3`) || !strings.Contains(r.Body, `"limit":251`) {
		t.Errorf("with 3 nodes the usages are %s", r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, cluster, nil))
	a.MustSucceed(a.Do(http.MethodDelete, vnetID, nil))
}

func TestNetworkETagsAndTags(t *testing.T) {
	a := azure(t)
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16")))
	before := a.Do(http.MethodGet, vnetID, nil).JSON["etag"].(string)
	a.MustSucceed(a.Do(http.MethodPut, vnetID+"/subnets/a", subnet("a", "10.0.0.0/24")))
	after := a.Do(http.MethodGet, vnetID, nil).JSON["etag"].(string)
	if before == after {
		t.Error("a new subnet did not change the network's etag")
	}
	if r := a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16"), "If-Match", before); r.Status != 412 {
		t.Errorf("a PUT with an old etag: %d %s", r.Status, r.Body)
	}
	r := a.Do(http.MethodPatch, vnetID, map[string]any{"tags": map[string]any{"x": "y"}}, "If-Match", after)
	a.MustSucceed(r)
	if got := a.Do(http.MethodGet, vnetID, nil); subnetNames(got) != "a=10.0.0.0/24" || got.JSON["tags"].(map[string]any)["x"] != "y" {
		t.Errorf("after a PATCH of the tags: %s", got.Body)
	}
}

func TestReferencedResourcesCannotBeDeleted(t *testing.T) {
	a := azure(t)
	const ns = group + "/providers/Microsoft.Network/"
	a.MustSucceed(a.Do(http.MethodPut, ns+"publicIPAddresses/ip", map[string]any{"location": "eastus", "sku": map[string]any{"name": "Standard"}}))
	a.MustSucceed(a.Do(http.MethodPut, ns+"publicIPAddresses/ip2", map[string]any{"location": "eastus"}))
	address := func(name string) string {
		return a.Do(http.MethodGet, ns+"publicIPAddresses/"+name, nil).JSON["properties"].(map[string]any)["ipAddress"].(string)
	}
	if x, y := address("ip"), address("ip2"); x == "" || x == y {
		t.Errorf("the addresses are %s and %s", x, y)
	}
	a.MustSucceed(a.Do(http.MethodPut, ns+"natGateways/gw", map[string]any{"location": "eastus", "properties": map[string]any{"publicIpAddresses": []any{map[string]any{"id": ns + "publicIPAddresses/ip"}}}}))
	a.MustSucceed(a.Do(http.MethodPut, ns+"routeTables/rt", map[string]any{"location": "eastus", "properties": map[string]any{"routes": []any{
		map[string]any{"name": "out", "properties": map[string]any{"addressPrefix": "0.0.0.0/0", "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.0.0.4"}}}}}))
	s := subnet("a", "10.0.0.0/24")
	s["properties"].(map[string]any)["natGateway"] = map[string]any{"id": ns + "natGateways/gw"}
	s["properties"].(map[string]any)["routeTable"] = map[string]any{"id": ns + "routeTables/rt"}
	a.MustSucceed(a.Do(http.MethodPut, vnetID, vnet("10.0.0.0/16", s)))
	for path, want := range map[string]string{"natGateways/gw": vnetID + "/subnets/a", "routeTables/rt": `"nextHopIpAddress":"10.0.0.4"`, "publicIPAddresses/ip": ns + "natGateways/gw"} {
		if r := a.Do(http.MethodGet, ns+path, nil); !strings.Contains(r.Body, want) {
			t.Errorf("%s lacks %s: %s", path, want, r.Body)
		}
	}
	for path, code := range map[string]string{"natGateways/gw": "NatGatewayInUseBySubnet", "routeTables/rt": "InUseRouteTableCannotBeDeleted", "publicIPAddresses/ip": "PublicIPAddressCannotBeDeleted"} {
		if r := a.Do(http.MethodDelete, ns+path, nil); r.Code() != code {
			t.Errorf("deleting %s: %d %s, want %s", path, r.Status, r.Body, code)
		}
	}
	found, err := network.FindSubnet(context.Background(), &rp.Store{KV: a.Etcd}, vnetID+"/subnets/a")
	if err != nil || !strings.EqualFold(found.NATGateway, ns+"natGateways/gw") || !strings.EqualFold(found.RouteTable, ns+"routeTables/rt") {
		t.Errorf("FindSubnet returns %+v, %v", found, err)
	}
	// Deleting the group deletes its resources in the right order.
	a.MustSucceed(a.Do(http.MethodDelete, group, nil))
}

func TestSecurityGroupRules(t *testing.T) {
	a := azure(t)
	nsg := group + "/providers/Microsoft.Network/networkSecurityGroups/n"
	rule := func(priority int) map[string]any {
		return map[string]any{"properties": map[string]any{"priority": priority, "access": "allow", "direction": "Inbound", "protocol": "tcp", "sourceAddressPrefix": "*", "destinationPortRange": "443"}}
	}
	a.MustSucceed(a.Do(http.MethodPut, nsg, map[string]any{"location": "eastus"}))
	a.MustSucceed(a.Do(http.MethodPut, nsg+"/securityRules/https", rule(100)))
	if r := a.Do(http.MethodPut, nsg+"/securityRules/bad", rule(10)); r.Code() != "SecurityRuleInvalidPriority" {
		t.Errorf("a priority of 10: %d %s", r.Status, r.Body)
	}
	got := a.Do(http.MethodGet, nsg, nil)
	for _, want := range []string{`"https"`, `"access":"Allow"`, "DenyAllInBound"} {
		if !strings.Contains(got.Body, want) {
			t.Errorf("the group lacks %s: %s", want, got.Body)
		}
	}
}
