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

// networks makes virtual networks by name and address space.
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
		t.Errorf("one side alone: %s", b)
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
		t.Errorf("the first side is %q once there are both", s)
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
		t.Errorf("one side without the other it had is %q", s)
	}
	if r := a.Do(http.MethodPut, hubID+"/virtualNetworkPeerings/back", peering(vnetID, nil)); r.Status != 400 || r.Code() != "RemotePeeringIsDisconnected" {
		t.Errorf("the lost side made anew: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, vnetID+"/virtualNetworkPeerings/out", nil))
	put("net", "out", hubID)
	put("hub", "back", vnetID)
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Connected" {
		t.Errorf("made anew on both sides it is %q", s)
	}
	a.MustSucceed(a.Do(http.MethodDelete, hubID, nil))
	if s := state(vnetID + "/virtualNetworkPeerings/out"); s != "Disconnected" {
		t.Errorf("with the other network gone it is %q", s)
	}
}

func TestPeeringsThatCannotBe(t *testing.T) {
	a := azure(t)
	networks(a, map[string]string{"net": "10.1.0.0/16", "hub": "10.2.0.0/16", "twin": "10.1.128.0/17"})
	at := func(name string) string { return group + "/providers/Microsoft.Network/virtualNetworks/" + name }
	a.MustSucceed(a.Do(http.MethodPut, vnetID+"/virtualNetworkPeerings/out", peering(at("hub"), nil)))
	for name, c := range map[string]struct {
		path string
		body any
		code string
	}{
		"no remote":             {"/virtualNetworkPeerings/x", map[string]any{"properties": map[string]any{}}, "InvalidRequestFormat"},
		"a remote that is none": {"/virtualNetworkPeerings/x", peering(vnetID+"/subnets/s", nil), "InvalidRequestFormat"},
		"one that is not there": {"/virtualNetworkPeerings/x", peering(at("nowhere"), nil), "InvalidResourceReference"},
		"itself":                {"/virtualNetworkPeerings/x", peering(vnetID, nil), "InvalidPeering"},
		"overlapping ranges":    {"/virtualNetworkPeerings/x", peering(at("twin"), nil), "VnetAddressSpacesOverlap"},
		"a second one":          {"/virtualNetworkPeerings/x", peering(at("hub"), nil), "AnotherPeeringAlreadyReferencesRemoteVnet"},
		"another remote":        {"/virtualNetworkPeerings/out", peering(at("twin"), nil), "ChangingRemoteVirtualNetworkNotAllowed"},
		"remote gateways":       {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"useRemoteGateways": true}), "RemotePeeringHasNoGateways"},
		"both of gateways":      {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"useRemoteGateways": true, "allowGatewayTransit": true}), "AllowGatewayTransitAndUseRemoteGatewaysCannotBothBeSet"},
		"a flag that is text":   {"/virtualNetworkPeerings/out", peering(at("hub"), map[string]any{"allowForwardedTraffic": "yes"}), "InvalidRequestFormat"},
		"a range of the peer's": {"", vnet("10.2.4.0/24"), "VnetAddressSpacesOverlap"},
	} {
		if r := a.Do(http.MethodPut, vnetID+c.path, c.body); r.Status != 400 || r.Code() != c.code {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
}

// Both sides made at the same moment find each other.
func TestPeeringsMadeAtOnce(t *testing.T) {
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

const zoneID = group + "/providers/Microsoft.Network/privateDnsZones/shop.internal"

func records(prop string, value any) map[string]any {
	return map[string]any{"properties": map[string]any{"ttl": 300, prop: value}}
}

func TestPrivateZones(t *testing.T) {
	a := azure(t)
	networks(a, map[string]string{"net": "10.1.0.0/16"})
	r := a.Do(http.MethodPut, zoneID, map[string]any{"location": "global", "tags": map[string]string{"a": "b"}})
	if r.Status != 201 || !strings.Contains(r.Header.Get("Azure-AsyncOperation"), "/providers/Microsoft.Network/") {
		t.Fatalf("zone: %d %s %s", r.Status, r.Header, r.Body)
	}
	a.MustSucceed(r)
	link := func(name string, registers bool) armtest.Reply {
		return a.Do(http.MethodPut, zoneID+"/virtualNetworkLinks/"+name, map[string]any{"location": "Global", "properties": map[string]any{"virtualNetwork": map[string]any{"id": vnetID}, "registrationEnabled": registers}})
	}
	a.MustSucceed(link("net", true))
	for kind, body := range map[string]any{
		"A/web":       records("aRecords", []any{map[string]any{"ipv4Address": "10.1.0.4"}}),
		"AAAA/web":    records("aaaaRecords", []any{map[string]any{"ipv6Address": "fd00::4"}}),
		"CNAME/www":   records("cnameRecord", map[string]any{"cname": "web.shop.internal"}),
		"MX/@":        records("mxRecords", []any{map[string]any{"preference": 10, "exchange": "mail.shop.internal"}}),
		"PTR/4":       records("ptrRecords", []any{map[string]any{"ptrdname": "web.shop.internal"}}),
		"SRV/_s._tcp": records("srvRecords", []any{map[string]any{"port": 80, "priority": 0, "weight": 5, "target": "web.shop.internal"}}),
		"TXT/*.x":     records("txtRecords", []any{map[string]any{"value": []any{"hello"}}}),
	} {
		if r := a.Do(http.MethodPut, zoneID+"/"+kind, body); r.Status != 201 {
			t.Errorf("%s: %d %s", kind, r.Status, r.Body)
		}
	}
	if r := a.Do(http.MethodGet, zoneID+"/A/web", nil); !strings.Contains(r.Body, `"fqdn":"web.shop.internal."`) || !strings.Contains(r.Body, `"type":"Microsoft.Network/privateDnsZones/A"`) || strings.Contains(r.Body, "provisioningState") {
		t.Errorf("A: %s", r.Body)
	}
	if r := a.Do(http.MethodGet, zoneID+"/ALL", nil); strings.Count(r.Body, `"fqdn"`) != 8 || !strings.Contains(r.Body, "soaRecord") {
		t.Errorf("all record sets: %s", r.Body)
	}
	if r := a.Do(http.MethodGet, zoneID, nil); !strings.Contains(r.Body, `"numberOfRecordSets":8`) || !strings.Contains(r.Body, `"numberOfVirtualNetworkLinksWithRegistration":1`) || !strings.Contains(r.Body, `"location":"global"`) {
		t.Errorf("zone: %s", r.Body)
	}
	if r := a.Do(http.MethodGet, zoneID+"/virtualNetworkLinks/net", nil); !strings.Contains(r.Body, `"virtualNetworkLinkState":"Completed"`) || !strings.Contains(r.Body, `"resolutionPolicy":"Default"`) {
		t.Errorf("link: %s", r.Body)
	}
	if r := a.Do(http.MethodDelete, zoneID, nil); r.Status != 409 || r.Code() != "CannotDeleteResource" {
		t.Errorf("deleting a zone with links: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, zoneID+"/virtualNetworkLinks/net", nil))
	if r := a.Do(http.MethodDelete, zoneID+"/A/web", nil); r.Status != 200 {
		t.Errorf("deleting a record set: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodDelete, zoneID, nil))
	if r := a.Do(http.MethodGet, zoneID+"/CNAME/www", nil); r.Status != 404 {
		t.Errorf("a record set outlives its zone: %d", r.Status)
	}
}

func TestPrivateZonesThatCannotBe(t *testing.T) {
	a := azure(t)
	networks(a, map[string]string{"net": "10.1.0.0/16"})
	a.MustSucceed(a.Do(http.MethodPut, zoneID, map[string]any{"location": "global"}))
	other := group + "/providers/Microsoft.Network/privateDnsZones/other.internal"
	a.MustSucceed(a.Do(http.MethodPut, other, map[string]any{"location": "global"}))
	link := func(registers bool, vnet string) map[string]any {
		return map[string]any{"location": "global", "properties": map[string]any{"virtualNetwork": map[string]any{"id": vnet}, "registrationEnabled": registers}}
	}
	a.MustSucceed(a.Do(http.MethodPut, zoneID+"/virtualNetworkLinks/net", link(true, vnetID)))
	if r := a.Do(http.MethodPut, zoneID+"/CNAME/www", records("cnameRecord", map[string]any{"cname": "x.shop.internal"})); r.Status != 201 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	address := []any{map[string]any{"ipv4Address": "10.1.0.4"}}
	for name, c := range map[string]struct {
		path   string
		body   any
		status int
		want   string
	}{
		"a region":                {group + "/providers/Microsoft.Network/privateDnsZones/x.internal", map[string]any{"location": "eastus"}, 400, "is 'global'"},
		"one label":               {group + "/providers/Microsoft.Network/privateDnsZones/internal", map[string]any{"location": "global"}, 400, "2 to 34 labels"},
		"a link to nothing":       {other + "/virtualNetworkLinks/x", link(false, vnetID+"x"), 400, "was not found"},
		"a second link":           {zoneID + "/virtualNetworkLinks/x", link(false, vnetID), 409, "is linked with the zone"},
		"a second registration":   {other + "/virtualNetworkLinks/x", link(true, vnetID), 409, "in one zone only"},
		"no such zone":            {group + "/providers/Microsoft.Network/privateDnsZones/none.internal/A/x", records("aRecords", address), 404, "not"},
		"no ttl":                  {zoneID + "/A/x", map[string]any{"properties": map[string]any{"aRecords": address}}, 400, "needs a ttl"},
		"no records":              {zoneID + "/A/x", records("aRecords", []any{}), 400, "has no aRecords"},
		"no address":              {zoneID + "/A/x", records("aRecords", []any{map[string]any{"ipv4Address": "fd00::1"}}), 400, "no such address"},
		"records of another type": {zoneID + "/A/x", map[string]any{"properties": map[string]any{"ttl": 1, "aRecords": address, "mxRecords": []any{}}}, 400, "belongs to the type MX"},
		"beside a CNAME":          {zoneID + "/A/www", records("aRecords", address), 409, "a CNAME is alone"},
		"a CNAME of the zone":     {zoneID + "/CNAME/@", records("cnameRecord", map[string]any{"cname": "a.b"}), 400, "cannot have that name"},
		"a bad preference":        {zoneID + "/MX/@", records("mxRecords", []any{map[string]any{"preference": 70000, "exchange": "m.x"}}), 400, "preference"},
		"an empty text":           {zoneID + "/TXT/t", records("txtRecords", []any{map[string]any{"value": []any{}}}), 400, "1 to 1024"},
		"a bad name":              {zoneID + "/A/a..b", records("aRecords", address), 400, "relative to its zone"},
	} {
		if r := a.Do(http.MethodPut, c.path, c.body); r.Status != c.status || !strings.Contains(r.Body, c.want) {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := a.Do(http.MethodDelete, zoneID+"/SOA/@", nil); r.Status != 400 {
		t.Errorf("deleting the SOA: %d %s", r.Status, r.Body)
	}
}
