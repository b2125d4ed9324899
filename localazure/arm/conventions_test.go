// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const sub = "/subscriptions/" + armtest.Subscription

// Errors of the front door are ARM's.
func TestFrontDoorErrors(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	for _, x := range []struct {
		name, method, path string
		body               any
		status             int
		code               string
	}{
		{"no api-version", "GET", sub + "?api-versio=x", nil, 400, "MissingApiVersionParameter"},
		{"odd api-version", "GET", sub + "?api-version=latest", nil, 400, "InvalidApiVersionParameter"},
		{"any date is an api-version", "GET", group + "?api-version=1999-12-31", nil, 200, ""},
		{"another subscription", "GET", "/subscriptions/99999999-2222-4222-8222-222222222222/resourceGroups/rg", nil, 404, "SubscriptionNotFound"},
		{"no such group", "GET", sub + "/resourcegroups/nothere", nil, 404, "ResourceGroupNotFound"},
		{"no such group, deeper", "GET", sub + "/resourcegroups/nothere/providers/Microsoft.ContainerService/managedClusters/c", nil, 404, "ResourceGroupNotFound"},
		{"no such cluster", "GET", clusterID, nil, 404, "ResourceNotFound"},
		{"no such namespace", "GET", group + "/providers/Microsoft.Nothing/things/x", nil, 404, "InvalidResourceNamespace"},
		{"no such type", "GET", group + "/providers/Microsoft.ContainerService/things/x", nil, 404, "InvalidResourceType"},
		{"no parent", "PUT", clusterID + "/agentPools/p", map[string]any{"properties": map[string]any{"count": 1}}, 404, "ParentResourceNotFound"},
		{"no location", "PUT", clusterID, map[string]any{"properties": map[string]any{}}, 400, "LocationRequired"},
		{"no such location", "PUT", clusterID, map[string]any{"location": "atlantis"}, 400, "LocationNotAvailableForResourceType"},
		{"not JSON", "PUT", clusterID, `{"location":`, 400, "InvalidRequestContent"},
		{"an array", "PUT", clusterID, `[]`, 400, "InvalidRequestContent"},
		{"over 4 MiB", "PUT", clusterID, `{"location":"` + strings.Repeat("x", 5<<20) + `"}`, 400, "RequestContentTooLarge"},
		{"bad name", "PUT", group + "/providers/Microsoft.ContainerService/managedClusters/-c", map[string]any{"location": "eastus"}, 400, "InvalidResourceName"},
		{"no such action", "POST", clusterID + "/explode", map[string]any{}, 404, "InvalidResourceAction"},
		{"wrong method", "DELETE", sub + "/providers/Microsoft.Compute/skus", nil, 405, "HttpMethodNotAllowed"},
	} {
		t.Run(x.name, func(t *testing.T) {
			path := x.path
			if strings.Contains(path, "api-versio=x") {
				path = a.URL + path
				req, _ := http.NewRequest(x.method, path, nil)
				req.Header.Set("Authorization", "Bearer "+a.Token(armtest.ClientID, armtest.ClientSecret))
				resp, err := a.HTTP.Do(req)
				if err != nil || resp.StatusCode != x.status {
					t.Fatalf("%v %v", resp, err)
				}
				return
			}
			r := a.Do(x.method, path, x.body)
			if r.Status != x.status || r.Code() != x.code {
				t.Errorf("%d %s, want %d %s: %s", r.Status, r.Code(), x.status, x.code, r.Body)
			}
		})
	}
}

func TestIDsAreCaseInsensitive(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	if r := a.Do("PUT", strings.Replace(group, "/rg", "/MyGroup", 1), map[string]any{"location": "East US"}); r.Status != 201 {
		t.Fatal(r.Body)
	}
	r := a.Do("GET", strings.ToUpper(sub)+"/RESOURCEGROUPS/mygroup", nil)
	if r.Status != 200 || r.JSON["name"] != "MyGroup" || r.JSON["location"] != "eastus" {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	vnet := sub + "/resourcegroups/MYGROUP/providers/microsoft.network/VIRTUALNETWORKS/VNet"
	r = a.Do("PUT", vnet, map[string]any{"location": "eastus", "properties": map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{"10.0.0.0/8"}}}})
	a.MustSucceed(r)
	if want := sub + "/resourceGroups/MyGroup/providers/Microsoft.Network/virtualNetworks/VNet"; r.JSON["id"] != want {
		t.Errorf("id %v, want %s", r.JSON["id"], want)
	}
	r = a.Do("GET", strings.ToLower(vnet), nil)
	if r.JSON["name"] != "VNet" || r.JSON["type"] != "Microsoft.Network/virtualNetworks" {
		t.Errorf("%s", r.Body)
	}
	if r := a.Do("PUT", strings.ToLower(vnet), map[string]any{"location": "uksouth"}); r.Status != 409 || r.Code() != "InvalidResourceLocation" {
		t.Errorf("changing the location: %d %s", r.Status, r.Body)
	}
}

func TestOldAPIVersionsKeepUnknownProperties(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Auto")
	// az 2.45 reads and writes the whole cluster with an API version that lacks the property.
	old := a.Do("GET", clusterID+"?api-version=2022-11-01", nil)
	props := old.JSON["properties"].(map[string]any)
	if _, there := props["nodeProvisioningProfile"]; there {
		t.Error("2022-11-01 has no nodeProvisioningProfile")
	}
	old.JSON["tags"] = map[string]any{"a": "b"}
	props["somethingNew"] = map[string]any{"x": 1}
	a.MustSucceed(a.Do("PUT", clusterID+"?api-version=2022-11-01", old.JSON))
	now := a.Do("GET", clusterID, nil)
	p := now.JSON["properties"].(map[string]any)
	if p["nodeProvisioningProfile"].(map[string]any)["mode"] != "Auto" {
		t.Errorf("the mode was lost: %v", p["nodeProvisioningProfile"])
	}
	if fmt.Sprint(p["somethingNew"]) != "map[x:1]" || fmt.Sprint(now.JSON["tags"]) != "map[a:b]" {
		t.Errorf("unknown property %v, tags %v", p["somethingNew"], now.JSON["tags"])
	}
	if r := a.Do("PATCH", clusterID, map[string]any{"tags": map[string]any{"c": "d"}}); r.Status != 200 || fmt.Sprint(r.JSON["tags"]) != "map[c:d]" {
		t.Errorf("PATCH: %d %s", r.Status, r.Body)
	}
	if r := a.Do("PATCH", clusterID, map[string]any{"properties": map[string]any{"dnsPrefix": "x"}}); r.Status != 400 {
		t.Errorf("PATCH of properties: %d", r.Status)
	}
}

func TestPaging(t *testing.T) {
	a := armtest.New(t)
	for i := 0; i < 7; i++ {
		a.Do("PUT", fmt.Sprintf("%s/resourceGroups/g%d", sub, i), map[string]any{"location": "eastus"})
	}
	seen, next := 0, sub+"/resourcegroups?$top=3"
	for pages := 0; next != ""; pages++ {
		r := a.Do("GET", next, nil)
		seen += len(r.JSON["value"].([]any))
		next, _ = r.JSON["nextLink"].(string)
		if next != "" && !strings.HasPrefix(next, "https://") || pages > 3 {
			t.Fatalf("nextLink %q", next)
		}
	}
	if seen != 7 {
		t.Errorf("saw %d of 7", seen)
	}
}

// Requests without a valid token are refused.
func TestRequestsNeedAValidToken(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	good := a.Token(armtest.ClientID, armtest.ClientSecret)
	forge := func(mod func(jwt.MapClaims)) string {
		c := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(good, c); err != nil {
			t.Fatal(err)
		}
		mod(c)
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		s, err := jwt.NewWithClaims(jwt.SigningMethodRS256, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	unsigned := func() string {
		c := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(good, c); err != nil {
			t.Fatal(err)
		}
		s, err := jwt.NewWithClaims(jwt.SigningMethodNone, c).SignedString(jwt.UnsafeAllowNoneSignatureType)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	post := func(path string, f url.Values) (int, string) {
		resp, err := a.HTTP.PostForm(a.URL+path, f)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 4096)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode, string(b[:n])
	}
	for name, auth := range map[string]string{
		"none": "", "not bearer": "Basic " + good, "garbage": "Bearer x.y.z", "another key": "Bearer " + forge(func(jwt.MapClaims) {}), "unsigned": "Bearer " + unsigned(),
		"another key, in the future": "Bearer " + forge(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(1000 * time.Hour).Unix() }),
	} {
		for _, path := range []string{group, sub, "/subscriptions", clusterID, sub + "/providers/Microsoft.Compute/skus"} {
			r := a.Do("GET", path, nil, "Authorization", auth)
			if r.Status != 401 || r.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s at %s: %d", name, path, r.Status)
			}
		}
	}
	creds := url.Values{"grant_type": {"client_credentials"}, "client_id": {armtest.ClientID}, "client_secret": {armtest.ClientSecret}, "scope": {a.URL + "/.default"}}
	with := func(k, v string) url.Values {
		c := url.Values{}
		for x, y := range creds {
			c[x] = y
		}
		c.Set(k, v)
		return c
	}
	token := "/" + armtest.Tenant + "/oauth2/v2.0/token"
	for name, x := range map[string]struct {
		path string
		form url.Values
		want string
	}{
		"wrong secret":    {token, with("client_secret", "x"), "AADSTS7000215"},
		"unknown client":  {token, with("client_id", "x"), "AADSTS700016"},
		"another grant":   {token, with("grant_type", "password"), "AADSTS70003"},
		"another tenant":  {"/99999999-0000-4000-8000-000000000000/oauth2/v2.0/token", creds, "AADSTS90002"},
		"foreign service": {token, with("scope", "https://vault.azure.net/.default"), "AADSTS500011"},
	} {
		if st, body := post(x.path, x.form); st < 400 || !strings.Contains(body, x.want) {
			t.Errorf("%s: %d %s", name, st, body)
		}
	}
	// ARM refuses a token for another service.
	resp, err := a.HTTP.PostForm(a.URL+token, with("scope", "https://api.loganalytics.io/.default"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := decode(resp.Body, &body); err != nil {
		t.Fatal(err)
	}
	if r := a.Do("GET", group, nil, "Authorization", "Bearer "+body.AccessToken); r.Status != 401 || r.Code() != "InvalidAuthenticationTokenAudience" {
		t.Errorf("a token for Log Analytics at ARM: %d %s", r.Status, r.Body)
	}
	if st, b := post("/adfs/oauth2/token", creds); st != 200 || !strings.Contains(b, "access_token") {
		t.Errorf("the AD FS endpoint: %d %s", st, b)
	}
}

func TestCloudMetadataByAPIVersion(t *testing.T) {
	a := armtest.New(t)
	get := func(v string) string {
		resp, err := a.HTTP.Get(a.URL + "/metadata/endpoints?api-version=" + v)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 16384)
		n := 0
		for {
			m, err := resp.Body.Read(b[n:])
			n += m
			if err != nil {
				break
			}
		}
		return string(b[:n])
	}
	if s := get("2015-01-01"); !strings.Contains(s, "galleryEndpoint") || !strings.Contains(s, "/adfs") {
		t.Error(s)
	}
	if s := get("2019-05-01"); !strings.HasPrefix(s, "[{") || !strings.Contains(s, "logAnalyticslogAnalyticsResourceId") {
		t.Error(s)
	}
	if s := get("2022-09-01"); !strings.HasPrefix(s, "{") || !strings.Contains(s, `"microsoftGraphResourceId"`) {
		t.Error(s)
	}
}
