// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

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
		t.Errorf("the record set of a deleted zone still exists: %d", r.Status)
	}
}

func TestInvalidPrivateZones(t *testing.T) {
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
		"a missing network":       {other + "/virtualNetworkLinks/x", link(false, vnetID+"x"), 400, "was not found"},
		"a second link":           {zoneID + "/virtualNetworkLinks/x", link(false, vnetID), 409, "is linked with the zone"},
		"a second registration":   {other + "/virtualNetworkLinks/x", link(true, vnetID), 409, "in one zone only"},
		"a missing zone":          {group + "/providers/Microsoft.Network/privateDnsZones/none.internal/A/x", records("aRecords", address), 404, "not"},
		"no ttl":                  {zoneID + "/A/x", map[string]any{"properties": map[string]any{"aRecords": address}}, 400, "needs a ttl"},
		"no records":              {zoneID + "/A/x", records("aRecords", []any{}), 400, "has no aRecords"},
		"an IPv6 address":         {zoneID + "/A/x", records("aRecords", []any{map[string]any{"ipv4Address": "fd00::1"}}), 400, "not such an address"},
		"records of another type": {zoneID + "/A/x", map[string]any{"properties": map[string]any{"ttl": 1, "aRecords": address, "mxRecords": []any{}}}, 400, "belongs to the type MX"},
		"a name with a CNAME":     {zoneID + "/A/www", records("aRecords", address), 409, "a name with a CNAME has no other"},
		"a CNAME at the apex":     {zoneID + "/CNAME/@", records("cnameRecord", map[string]any{"cname": "a.b"}), 400, "cannot have that name"},
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
