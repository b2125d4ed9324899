// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

// The requests of the azurerm provider of Terraform and OpenTofu, according to its
// source: metadata of the environment, a Graph token whose claims it reads, then
// group, network and a cluster with node_provisioning_profile.
func TestTerraformRequests(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	resp, err := a.HTTP.Get(a.URL + "/metadata/endpoints?api-version=2022-09-01")
	if err != nil {
		t.Fatal(err)
	}
	var env struct {
		Name, ResourceManager, MicrosoftGraphResourceID string
		Authentication                                  struct{ LoginEndpoint string }
	}
	err = decode(resp.Body, &env)
	_ = resp.Body.Close()
	if err != nil || env.Name == "" || env.ResourceManager == "" || env.MicrosoftGraphResourceID == "" || strings.HasSuffix(env.Authentication.LoginEndpoint, "/adfs") {
		t.Fatalf("%+v (%v)", env, err)
	}
	// It uses the token endpoint without discovery, and Graph first.
	form := "grant_type=client_credentials&client_id=" + armtest.ClientID + "&client_secret=" + armtest.ClientSecret + "&scope=" + env.MicrosoftGraphResourceID + "/.default"
	resp, err = a.HTTP.Post(env.Authentication.LoginEndpoint+"/"+armtest.Tenant+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	var tok struct {
		AccessToken string `json:"access_token"`
	}
	err = decode(resp.Body, &tok)
	_ = resp.Body.Close()
	claims := jwt.MapClaims{}
	if err == nil {
		_, _, err = jwt.NewParser().ParseUnverified(tok.AccessToken, claims)
	}
	if err != nil || claims["oid"] == "" || claims["tid"] != armtest.Tenant || claims["appid"] != armtest.ClientID {
		t.Fatalf("claims %v (%v)", claims, err)
	}
	if aud, one := claims["aud"].(string); !one || aud == "" {
		t.Errorf("aud is %v, but the provider expects one string", claims["aud"])
	}
	tf := func(method, path, version string, body any) armtest.Reply {
		t.Helper()
		return a.Do(method, path+"?api-version="+version, body, "User-Agent", "Go/go1.25 HashiCorp/go-azure-sdk terraform-provider-azurerm")
	}
	done := func(r armtest.Reply) {
		t.Helper()
		if r.Header.Get("Azure-AsyncOperation") != "" && r.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q; without it the provider waits ten seconds", r.Header.Get("Retry-After"))
		}
		a.MustSucceed(r)
	}
	if r := tf("GET", sub+"/providers", "2022-09-01", nil); r.Status != 200 || !strings.Contains(r.Body, "Microsoft.ContainerService") {
		t.Errorf("providers: %d", r.Status)
	}
	if r := tf("GET", group, "2023-07-01", nil); r.Status != 404 {
		t.Errorf("the group before: %d", r.Status)
	}
	done(tf("PUT", group, "2023-07-01", map[string]any{"location": "eastus", "tags": map[string]any{}}))
	vnet := group + "/providers/Microsoft.Network/virtualNetworks/vnet"
	done(tf("PUT", vnet, "2024-05-01", map[string]any{"location": "eastus", "properties": map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{"10.0.0.0/8"}}, "subnets": []any{}}}))
	done(tf("PUT", vnet+"/subnets/s", "2025-01-01", map[string]any{"properties": map[string]any{"addressPrefixes": []string{"10.1.0.0/16"}, "serviceEndpoints": []any{}}}))
	if r := tf("GET", clusterID, "2025-10-01", nil); r.Status != 404 {
		t.Errorf("the cluster before: %d", r.Status)
	}
	body := clusterBody("Auto")
	change(body, "properties.nodeProvisioningProfile.defaultNodePools", "Auto")
	done(tf("PUT", clusterID, "2025-10-01", body))
	got := tf("GET", clusterID, "2025-10-01", nil)
	if !strings.Contains(got.Body, `"defaultNodePools":"Auto"`) {
		t.Errorf("the cluster: %s", got.Body)
	}
	for _, c := range []string{"User", "Admin"} {
		if r := tf("POST", clusterID+"/listCluster"+c+"Credential", "2025-10-01", nil); r.Status != 200 {
			t.Errorf("credentials: %d %s", r.Status, r.Body)
		}
	}
	for _, m := range []string{"default", "aksManagedAutoUpgradeSchedule", "aksManagedNodeOSUpgradeSchedule"} {
		if r := tf("GET", clusterID+"/maintenanceConfigurations/"+m, "2025-10-01", nil); r.Status != 404 {
			t.Errorf("maintenance %s: %d", m, r.Status)
		}
		if r := tf("DELETE", clusterID+"/maintenanceConfigurations/"+m, "2025-10-01", nil); r.Status != 204 {
			t.Errorf("deleting maintenance %s: %d", m, r.Status)
		}
	}
	// An update reads and writes back the whole cluster.
	done(tf("PUT", clusterID, "2025-10-01", got.JSON))
	// After a DELETE it reads the resource until it is gone.
	if r := tf("DELETE", clusterID, "2025-10-01", nil); r.Status != http.StatusAccepted {
		t.Errorf("delete: %d %s", r.Status, r.Body)
	}
	eventually(t, func() bool { return tf("GET", clusterID, "2025-10-01", nil).Status == 404 })
	done(tf("DELETE", group, "2023-07-01", nil))
}
