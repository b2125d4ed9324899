// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const (
	subscription  = "/subscriptions/" + armtest.Subscription
	subDeployment = subscription + "/providers/Microsoft.Resources/deployments/all"
	schemaLine    = `"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0",`
)

// module returns a nested deployment with inner scope, as Bicep generates it for a
// module.
func module(name, group, more, sections string) string {
	if group != "" {
		group = `"resourceGroup":"` + group + `",`
	}
	return `{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"` + name + `",` + group + more +
		`"properties":{"mode":"Incremental","expressionEvaluationOptions":{"scope":"inner"},` + sections + `}}`
}

// whatIf returns the types of change by resource ID, and the whole result.
func whatIf(t *testing.T, a *armtest.Azure, deployment, body string) (map[string]string, string) {
	t.Helper()
	w := a.Wait(a.Do(http.MethodPost, deployment+"/whatIf", body))
	var got struct {
		Properties struct {
			Changes []struct{ ResourceID, ChangeType string }
		}
	}
	if err := json.Unmarshal([]byte(w.Body), &got); err != nil || len(got.Properties.Changes) == 0 {
		t.Fatalf("what-if: %v %s", err, w.Body)
	}
	out := map[string]string{}
	for _, c := range got.Properties.Changes {
		out[strings.TrimPrefix(c.ResourceID, subscription)] = c.ChangeType
	}
	return out, w.Body
}

// A deployment at subscription scope creates a group and deploys two modules into
// it, the second of which uses an output of the first.
func TestWhatIfSeesNestedDeployments(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	made := subscription + "/resourceGroups/made"
	inner := `"template":{` + schemaLine + `"resources":[{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"first","location":"[resourceGroup().location]"}],
		"outputs":{"place":{"type":"string","value":"[reference('first','2023-01-31','Full').location]"}}}`
	second := `"parameters":{"tag":{"value":"[reference(extensionResourceId('` + made + `','Microsoft.Resources/deployments','one'),'2022-09-01').outputs.place.value]"}},
		"template":{` + schemaLine + `"parameters":{"tag":{"type":"string"}},"resources":[{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"second","location":"[resourceGroup().location]","tags":{"place":"[parameters('tag')]"}}]}`
	body := func(more string) string {
		return `{"location":"eastus","properties":{"mode":"Incremental",` + more + `"template":{` + schemaLine + `"resources":[
			{"type":"Microsoft.Resources/resourceGroups","apiVersion":"2024-03-01","name":"made","location":"westus2"},` +
			module("one", "made", `"dependsOn":["[subscriptionResourceId('Microsoft.Resources/resourceGroups','made')]"],`, inner) + "," +
			module("two", "made", "", second) + `]}}}`
	}
	pre := "/resourceGroups/made/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	got, all := whatIf(t, a, subDeployment, body(""))
	for id, want := range map[string]string{"/resourceGroups/made": "Create", pre + "first": "Create", "/resourceGroups/made/providers/Microsoft.Resources/deployments/two": "Unsupported"} {
		if got[id] != want {
			t.Errorf("before: %s is %q, want %s", id, got[id], want)
		}
	}
	if len(got) != 3 || !strings.Contains(all, `"location":"westus2"`) || !strings.Contains(all, "unsupportedReason") {
		t.Errorf("before: %s", all)
	}
	if r := a.Do(http.MethodGet, made, nil); r.Status != 404 {
		t.Fatalf("what-if created a resource: %d", r.Status)
	}
	a.MustSucceed(a.Do(http.MethodPut, subDeployment, body("")))
	got, all = whatIf(t, a, subDeployment, body(""))
	for _, id := range []string{"/resourceGroups/made", pre + "first", pre + "second"} {
		if got[id] != "NoChange" {
			t.Errorf("after: %s is %q, want NoChange: %s", id, got[id], all)
		}
	}
	got, all = whatIf(t, a, subDeployment, body(`"whatIfSettings":{"resultFormat":"ResourceIdOnly"},`))
	if got[pre+"second"] != "Deploy" || strings.Contains(all, `"before"`) || strings.Contains(all, `"after"`) {
		t.Errorf("IDs only: %s", all)
	}
	// Modules are validated before anything is written, also in a group that does
	// not exist yet.
	bad := strings.ReplaceAll(strings.ReplaceAll(body(""), "made", "other"), "first", "x")
	if r := a.Do(http.MethodPut, subDeployment, bad); r.Status != 400 || r.Code() != "InvalidTemplateDeployment" || !strings.Contains(r.Body, "3 to 128") {
		t.Errorf("a bad name in a module: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, subscription+"/resourceGroups/other", nil); r.Status != 404 {
		t.Errorf("a refused deployment created a group: %d", r.Status)
	}
}

func TestUnsupportedReferencesAreRefused(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	for name, c := range map[string]struct{ body, code, want string }{
		"a link":                {`{"properties":{"mode":"Incremental","templateLink":{"uri":"https://example.com/x.json"}}}`, "InvalidTemplateLink", "fetches no templates from the network, and the templateLink is to 'https://example.com/x.json'"},
		"a relative link":       {`{"properties":{"mode":"Incremental","template":{` + schemaLine + `"resources":[{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"n","properties":{"mode":"Incremental","templateLink":{"relativePath":"x/y.json"}}}]}}}`, "InvalidTemplateDeployment", "has the relativePath 'x/y.json'"},
		"both":                  {`{"properties":{"mode":"Incremental","templateLink":{"uri":"https://example.com/x.json"},"template":{` + schemaLine + `"resources":[]}}}`, "InvalidDeployment", "only one of them can be meant"},
		"an ID of another type": {`{"properties":{"mode":"Incremental","templateLink":{"id":"` + clusterID + `"}}}`, "InvalidTemplateLink", "is not the ID of a version of a template spec"},
		"a secret":              {`{"properties":{"mode":"Incremental","parameters":{"password":{"reference":{"keyVault":{"id":"/x"},"secretName":"s"}}},"template":{` + schemaLine + `"parameters":{"password":{"type":"securestring"}},"resources":[]}}}`, "InvalidRequestContent", "parameter 'password' is a Key Vault reference"},
		"an extension":          {`{"properties":{"mode":"Incremental","template":{` + schemaLine + `"languageVersion":"2.0","imports":{"kubernetes":{"provider":"Kubernetes"}},"resources":{}}}}`, "InvalidTemplate", "no template extensions"},
	} {
		for _, x := range []struct{ method, path string }{{http.MethodPut, deploymentID}, {http.MethodPost, deploymentID + "/validate"}} {
			if r := a.Do(x.method, x.path, c.body); r.Status != 400 || r.Code() != c.code || !strings.Contains(r.Body, c.want) {
				t.Errorf("%s (%s): %d %s", name, x.method, r.Status, r.Body)
			}
		}
	}
}

func TestTemplateSpecs(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	spec := group + "/providers/Microsoft.Resources/templateSpecs/shop"
	version := spec + "/versions/1.0"
	if r := a.Do(http.MethodPut, version, `{"location":"eastus","properties":{"mainTemplate":{}}}`); r.Status != 404 {
		t.Errorf("a version without its spec: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodPut, spec, `{"location":"eastus","properties":{"description":"a shop"}}`); r.Status != 201 {
		t.Fatalf("spec: %d %s", r.Status, r.Body)
	}
	identity := func(name string) string {
		return `{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":` + name + `,"location":"[resourceGroup().location]"}`
	}
	linked := `{` + schemaLine + `"parameters":{"name":{"type":"string","nullable":true,"defaultValue":null}},"resources":[` + identity(`"[coalesce(parameters('name'),'byDefault')]"`) + `,
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"deep","properties":{"mode":"Incremental","templateLink":{"relativePath":"deep.json"}}}]}`
	body := func(main string) string {
		return `{"location":"eastus","properties":{"mainTemplate":` + main + `,"linkedTemplates":[{"path":"parts/one.json","template":` + linked + `},{"path":"parts/deep.json","template":{` + schemaLine + `"resources":[` + identity(`"deeper"`) + `]}}]}}`
	}
	for name, c := range map[string]struct{ body, want string }{
		"no template":   {`{"location":"eastus","properties":{}}`, "mainTemplate"},
		"a bad one":     {body(`{"resources":[]}`), "$schema"},
		"no properties": {`{"location":"eastus"}`, "has no properties"},
		"too large":     {body(`{` + schemaLine + `"metadata":{"x":"` + strings.Repeat("x", 1<<20) + `"},"resources":[]}`), "can be kept in one version"},
		"a path twice":  {strings.Replace(body(`{`+schemaLine+`"resources":[]}`), "parts/deep.json", "./parts/one.json", 1), "each there once"},
	} {
		if r := a.Do(http.MethodPut, version, c.body); r.Status != 400 || !strings.Contains(r.Body, c.want) {
			t.Errorf("%s: %d %.300s", name, r.Status, r.Body)
		}
	}
	main := `{` + schemaLine + `"parameters":{"name":{"type":"string"}},"resources":[{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"one","properties":{"mode":"Incremental","templateLink":{"relativePath":"parts/one.json"},"parameters":{"name":{"value":"[parameters('name')]"}}}}]}`
	if r := a.Do(http.MethodPut, version, body(main)); r.Status != 201 {
		t.Fatalf("version: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, version, nil); !strings.Contains(r.Body, `"mainTemplate"`) || !strings.Contains(r.Body, `"defaultValue":null`) {
		t.Errorf("the version differs from what was sent: %s", r.Body)
	}
	byID := `{"properties":{"mode":"Incremental","templateLink":{"id":"` + version + `"},"parameters":{"name":{"value":"given"}}}}`
	got, all := whatIf(t, a, deploymentID, byID)
	pre := "/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	if got[pre+"given"] != "Create" || got[pre+"deeper"] != "Create" {
		t.Errorf("what-if: %s", all)
	}
	a.MustSucceed(a.Do(http.MethodPut, deploymentID, byID))
	for _, name := range []string{"given", "deeper"} {
		if r := a.Do(http.MethodGet, subscription+pre+name, nil); r.Status != 200 {
			t.Errorf("%s: %d", name, r.Status)
		}
	}
	if r := a.Do(http.MethodGet, deploymentID, nil); !strings.Contains(r.Body, `"templateLink":{"id":"`+version) {
		t.Errorf("the deployment does not show its link: %s", r.Body)
	}
	if r := a.Do(http.MethodPut, deploymentID, strings.Replace(byID, "versions/1.0", "versions/2.0", 1)); r.Status != 404 || r.Code() != "TemplateSpecVersionNotFound" {
		t.Errorf("a missing version: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodDelete, spec, nil); r.Status != 200 && r.Status != 204 {
		t.Errorf("delete: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, version, nil); r.Status != 404 {
		t.Errorf("a version of a deleted spec still exists: %d", r.Status)
	}
}

// A reference to an existing resource waits for the resource of the template that
// creates it.
func TestExistingResourcesWaitForTheirCreation(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	a.MustSucceed(a.Do(http.MethodPut, deploymentID, `{"properties":{"mode":"Incremental","template":{`+schemaLine+`"languageVersion":"2.0","resources":{
		"vnet":{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"vv","location":"eastus","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"s","properties":{"addressPrefix":"10.0.1.0/24"}}]}},
		"subnet":{"existing":true,"type":"Microsoft.Network/virtualNetworks/subnets","apiVersion":"2024-05-01","name":"vv/s","dependsOn":["vnet"]},
		"id":{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"reader","location":"eastus","tags":{"range":"[reference('subnet').addressPrefix]"}}},
		"asserts":{"inside":"[startsWith(reference('subnet').addressPrefix, '10.0.')]"}}}}`))
	if r := a.Do(http.MethodGet, group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/reader", nil); !strings.Contains(r.Body, `"range":"10.0.1.0/24"`) {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}

// A typical Bicep template: a group, a network in one module, and in another the
// cluster in its subnet, with an identity and its role on the network.
func TestTemplateCreatesGroupNetworkAndCluster(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	made := subscription + "/resourceGroups/made"
	net := `"template":{` + schemaLine + `"resources":[
		{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"net","location":"[resourceGroup().location]","properties":{"addressSpace":{"addressPrefixes":["10.224.0.0/12"]},"subnets":[{"name":"nodes","properties":{"addressPrefix":"10.224.0.0/16"}}]}},
		{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"who","location":"[resourceGroup().location]"},
		{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"2022-04-01","name":"[guid('net')]","scope":"Microsoft.Network/virtualNetworks/net","dependsOn":["net"],
		 "properties":{"roleDefinitionId":"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions','4d97b98b-1d4f-4787-a291-c67834d212e7')]","principalType":"ServicePrincipal","principalId":"[reference('who').principalId]"}}],
		"outputs":{"subnet":{"type":"string","value":"[resourceId('Microsoft.Network/virtualNetworks/subnets','net','nodes')]"},"identity":{"type":"string","value":"[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities','who')]"}}}`
	cluster := func(subnet string) string {
		return `"parameters":{"subnet":{"value":"` + subnet + `"}},"template":{` + schemaLine + `"parameters":{"subnet":{"type":"string"}},"resources":[{
			"type":"Microsoft.ContainerService/managedClusters","apiVersion":"2025-05-01","name":"c","location":"[resourceGroup().location]","sku":{"name":"Base","tier":"Standard"},
			"identity":{"type":"UserAssigned","userAssignedIdentities":{"[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities','who')]":{}}},
			"properties":{"dnsPrefix":"c","nodeProvisioningProfile":{"mode":"Auto"},"networkProfile":{"networkPlugin":"azure","networkPluginMode":"overlay","networkDataplane":"cilium","loadBalancerSku":"standard"},
			"agentPoolProfiles":[{"name":"agentpool","count":1,"vmSize":"standard_d2s_v3","osType":"Linux","mode":"System","vnetSubnetID":"[parameters('subnet')]"}]}}]}`
	}
	body := func(subnet string) string {
		return `{"location":"eastus","properties":{"mode":"Incremental","template":{` + schemaLine + `"resources":[
			{"type":"Microsoft.Resources/resourceGroups","apiVersion":"2024-03-01","name":"made","location":"eastus"},` +
			module("net", "made", `"dependsOn":["[subscriptionResourceId('Microsoft.Resources/resourceGroups','made')]"],`, net) + "," +
			module("aks", "made", `"dependsOn":["net"],`, cluster(subnet)) + `]}}}`
	}
	// A literal ID is checked as far as possible before the network exists; an
	// output of the other module is known only later. Both can be deployed.
	for _, subnet := range []string{made + "/providers/Microsoft.Network/virtualNetworks/net/subnets/nodes", "[reference(extensionResourceId('" + made + "','Microsoft.Resources/deployments','net'),'2022-09-01').outputs.subnet.value]"} {
		a.MustSucceed(a.Do(http.MethodPut, subDeployment, body(subnet)))
		if r := a.Do(http.MethodGet, made+"/providers/Microsoft.ContainerService/managedClusters/c", nil); !strings.Contains(r.Body, `"mode":"Auto"`) || !strings.Contains(r.Body, "/subnets/nodes") {
			t.Fatalf("the cluster: %d %s", r.Status, r.Body)
		}
		got, all := whatIf(t, a, subDeployment, body(subnet))
		if got["/resourceGroups/made/providers/Microsoft.ContainerService/managedClusters/c"] != "NoChange" {
			t.Errorf("what-if after the deployment: %.2000s", all)
		}
	}
}
