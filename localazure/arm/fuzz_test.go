// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// A path that parses is the same after it is formatted and parsed again.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{group, clusterID, clusterID + "/agentPools/p/machines/m", group + "/providers/A.B/c/d/providers/E.F/g/h", "/subscriptions", "//", "/providers/x", "/SUBSCRIPTIONS/s/RESOURCEGROUPS/g/PROVIDERS/n/t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := rp.ParseID(s)
		if err != nil {
			return
		}
		again, err := rp.ParseID(id.String())
		if err != nil || again.Key() != id.Key() || again.Type() != id.Type() || again.Name() != id.Name() {
			t.Errorf("%q is %q, which is %q (%v)", s, id, again, err)
		}
		if !id.Within(id) {
			t.Errorf("%q is not within itself", s)
		}
	})
}

// The router neither panics nor answers any request with a 5xx, and refuses
// requests without a token.
func FuzzRouter(f *testing.F) {
	a := armtest.New(f)
	a.Machinery()
	if r := a.Do("PUT", group, map[string]any{"location": "eastus"}); r.Status != 201 {
		f.Fatal(r.Body)
	}
	token := a.Token(armtest.ClientID, armtest.ClientSecret)
	for _, s := range [][3]string{
		{"GET", clusterID + "?api-version=2025-10-01", ""}, {"PUT", clusterID + "?api-version=2025-10-01", `{"location":"eastus","properties":{"dnsPrefix":"x","agentPoolProfiles":[{"name":"a","mode":"System","count":1}]}}`},
		{"PUT", clusterID + "?api-version=2025-10-01", `{"location":["eastus"],"properties":[]}`}, {"PUT", clusterID + "?api-version=2025-10-01", `{"location":"eastus","tags":{"a":1},"properties":{"networkProfile":"x","agentPoolProfiles":[{},1,null]}}`},
		{"PATCH", clusterID + "?api-version=2025-10-01", `{"tags":null}`}, {"POST", clusterID + "/runCommand?api-version=2025-10-01", `{"command":"kubectl \"x"}`},
		{"PUT", deploymentID + "?api-version=2025-10-01", azBody(napTemplate, "{}")}, {"PUT", deploymentID + "?api-version=2025-10-01", `{"properties":{"template":{"resources":{}}}}`},
		{"GET", sub + "/resources?api-version=2025-10-01&$filter=x%20eq%20'y'&$top=0", ""}, {"DELETE", "/subscriptions?api-version=2025-10-01", ""}, {"GET", "/providers/a/b?api-version=2025-10-01", ""},
		{"GET", group + "/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=atScope()", ""}, {"POST", "/v1.0/directoryObjects/getByIds", `{"ids":[1]}`},
		{"PUT", group + "/providers/Microsoft.Network/virtualNetworks/v?api-version=2024-05-01", `{"location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/8"]},"subnets":[{"name":"s","properties":{"addressPrefix":"x"}}]}}`},
		{"GET", "/api/retail/prices?$filter=armRegionName%20eq%20'eastus'", ""}, {"GET", "/metadata/endpoints?api-version=1", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	handler := a.Server().Handler()
	f.Fuzz(func(t *testing.T, method, path, body string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || !strings.HasPrefix(path, "/") {
			return
		}
		switch method {
		case "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE":
		default:
			method = "GET"
		}
		send := func(auth string) int {
			req := httptest.NewRequest(method, "https://x/", strings.NewReader(body))
			req.URL.Path, req.URL.RawQuery = u.Path, u.RawQuery
			if auth != "" {
				req.Header.Set("Authorization", auth)
			}
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, req)
			if rec.Code >= 500 && rec.Code != http.StatusNotImplemented {
				t.Errorf("%s %s: %d %s", method, path, rec.Code, rec.Body)
			}
			return rec.Code
		}
		if strings.HasPrefix(strings.ToLower(u.Path), "/subscriptions") {
			if code := send(""); code != http.StatusUnauthorized && code != http.StatusNotFound && !strings.Contains(u.Path, "oauth2") && !strings.Contains(u.Path, ".well-known") && !strings.Contains(u.Path, "discovery") {
				t.Errorf("%s %s without a token: %d", method, path, code)
			}
		}
		send("Bearer " + token)
	})
}
