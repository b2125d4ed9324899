// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v9"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

func peering(remote string, more map[string]any) map[string]any {
	props := map[string]any{"remoteVirtualNetwork": map[string]any{"id": remote}}
	for k, v := range more {
		props[k] = v
	}
	return map[string]any{"properties": props}
}

// networks creates virtual networks by name and address space.
func networks(a *armtest.Azure, spaces map[string]string) {
	for name, space := range spaces {
		a.MustSucceed(a.Do(http.MethodPut, group+"/providers/Microsoft.Network/virtualNetworks/"+name, vnet(space)))
	}
}

func TestPeeringsWithTheSDK(t *testing.T) {
	a := azure(t)
	ctx := context.Background()
	networks(a, map[string]string{"net": "10.1.0.0/16", "hub": "10.2.0.0/16"})
	hubID := group + "/providers/Microsoft.Network/virtualNetworks/hub"
	c, err := armnetwork.NewVirtualNetworkPeeringsClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	put := func(from, name, to1 string) armnetwork.VirtualNetworkPeering {
		t.Helper()
		p, err := c.BeginCreateOrUpdate(ctx, "rg", from, name, armnetwork.VirtualNetworkPeering{Properties: &armnetwork.VirtualNetworkPeeringPropertiesFormat{
			RemoteVirtualNetwork: &armnetwork.SubResource{ID: to.Ptr(to1)}, AllowForwardedTraffic: to.Ptr(true)}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.PollUntilDone(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.VirtualNetworkPeering
	}
	one := put("net", "out", hubID)
	if *one.Properties.PeeringState != armnetwork.VirtualNetworkPeeringStateInitiated || !*one.Properties.AllowVirtualNetworkAccess || *one.Properties.UseRemoteGateways || *one.Properties.RemoteAddressSpace.AddressPrefixes[0] != "10.2.0.0/16" {
		b, _ := one.MarshalJSON()
		t.Errorf("the first side before the second exists: %s", b)
	}
	if back := put("hub", "back", vnetID); *back.Properties.PeeringState != armnetwork.VirtualNetworkPeeringStateConnected {
		t.Errorf("the second side is %s", *back.Properties.PeeringState)
	}
	state := func(id string) string {
		t.Helper()
		r := a.Do(http.MethodGet, id, nil)
		props, _ := r.JSON["properties"].(map[string]any)
		s, _ := props["peeringState"].(string)
		return s
	}
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Connected" {
		t.Errorf("the first side is %q after the second was created", s)
	}
	if r := a.Do(http.MethodGet, vnetID, nil); !strings.Contains(r.Body, `"peeringSyncLevel":"FullyInSync"`) || !strings.Contains(r.Body, vnetID+"/virtualNetworkPeerings/out") {
		t.Errorf("the network does not show its peering: %s", r.Body)
	}
	d, err := c.BeginDelete(ctx, "rg", "hub", "back", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Disconnected" {
		t.Errorf("the first side is %q after the second was deleted", s)
	}
	if r := a.Do(http.MethodPut, hubID+"/virtualNetworkPeerings/back", peering(vnetID, nil)); r.Status != 400 || r.Code() != "RemotePeeringIsDisconnected" {
		t.Errorf("creating the deleted side again: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, vnetID+"/virtualNetworkPeerings/out", nil))
	put("net", "out", hubID)
	put("hub", "back", vnetID)
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Connected" {
		t.Errorf("after both sides were created again the first is %q", s)
	}
	a.MustSucceed(a.Do(http.MethodDelete, hubID, nil))
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Disconnected" {
		t.Errorf("after the other network was deleted it is %q", s)
	}
}

func TestInvalidPeerings(t *testing.T) {
	a := azure(t)
	networks(a, map[string]string{"net": "10.1.0.0/16", "hub": "10.2.0.0/16", "twin": "10.1.128.0/17"})
	at := func(name string) string { return group + "/providers/Microsoft.Network/virtualNetworks/" + name }
	a.MustSucceed(a.Do(http.MethodPut, vnetID+"/virtualNetworkPeerings/out", peering(at("hub"), nil)))
	for name, c := range map[string]struct {
		path string
		body any
		code string
	}{
		"no remote":                         {"/virtualNetworkPeerings/x", map[string]any{"properties": map[string]any{}}, "InvalidRequestFormat"},
		"a remote of a wrong type":          {"/virtualNetworkPeerings/x", peering(vnetID+"/subnets/s", nil), "InvalidRequestFormat"},
		"a missing remote":                  {"/virtualNetworkPeerings/x", peering(at("nowhere"), nil), "InvalidResourceReference"},
		"itself":                            {"/virtualNetworkPeerings/x", peering(vnetID, nil), "InvalidPeering"},
		"overlapping ranges":                {"/virtualNetworkPeerings/x", peering(at("twin"), nil), "VnetAddressSpacesOverlap"},
		"a second one":                      {"/virtualNetworkPeerings/x", peering(at("hub"), nil), "AnotherPeeringAlreadyReferencesRemoteVnet"},
		"another remote":                    {"/virtualNetworkPeerings/out", peering(at("twin"), nil), "ChangingRemoteVirtualNetworkNotAllowed"},
		"remote gateways":                   {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"useRemoteGateways": true}), "RemotePeeringHasNoGateways"},
		"both gateway flags":                {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"useRemoteGateways": true, "allowGatewayTransit": true}), "AllowGatewayTransitAndUseRemoteGatewaysCannotBothBeSet"},
		"a flag that is a string":           {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"allowForwardedTraffic": "yes"}), "InvalidRequestFormat"},
		"a network range that the peer has": {"", vnet("10.2.4.0/24"), "VnetAddressSpacesOverlap"},
	} {
		if r := a.Do(http.MethodPut, vnetID+c.path, c.body); r.Status != 400 || r.Code() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
}

// Two sides that are created at the same time connect.
func TestConcurrentPeeringsConnect(t *testing.T) {
	a := azure(t)
	networks(a, map[string]string{"net": "10.1.0.0/16", "hub": "10.2.0.0/16"})
	hubID := group + "/providers/Microsoft.Network/virtualNetworks/hub"
	var wg sync.WaitGroup
	replies := make([]armtest.Reply, 2)
	for i, x := range [][2]string{{vnetID, hubID}, {hubID, vnetID}} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			replies[i] = a.Do(http.MethodPut, x[0]+"/virtualNetworkPeerings/p", peering(x[1], nil))
		}()
	}
	wg.Wait()
	for _, r := range replies {
		a.MustSucceed(r)
	}
	for _, id := range []string{vnetID, hubID} {
		if r := a.Do(http.MethodGet, id+"/virtualNetworkPeerings/p", nil); !strings.Contains(r.Body, `"peeringState":"Connected"`) {
			t.Errorf("%s: %s", id, r.Body)
		}
	}
}
