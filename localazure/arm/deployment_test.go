// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const deploymentID = group + "/providers/Microsoft.Resources/deployments/nap"

// azBody returns the body that az sends: the template file, with its comments,
// under a key without quotes.
func azBody(template, parameters string) string {
	return `{"properties": {"parameters": ` + parameters + `, "mode": "Incremental", template:` + template + `}}`
}

const napTemplate = `{
  // the template of the documentation, in short
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "contentVersion": "1.0.0.0",
  "parameters": {"name": {"type": "string", "defaultValue": "c"}, "mode": {"type": "string", "allowedValues": ["Auto", "Manual"], "defaultValue": "Auto"}, "secret": {"type": "securestring", "defaultValue": "hush"}},
  "resources": [
    {
      "type": "Microsoft.ContainerService/managedClusters", "apiVersion": "2025-05-01", "name": "[parameters('name')]", "location": "[resourceGroup().location]",
      "sku": {"name": "Base", "tier": "Standard"}, "identity": {"type": "SystemAssigned"},
      "properties": {
        "dnsPrefix": "[concat(parameters('name'), '-dns')]", /* overlay and Cilium, as recommended */
        "nodeProvisioningProfile": {"mode": "[parameters('mode')]"},
        "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay", "networkPolicy": "cilium", "networkDataplane": "cilium", "loadBalancerSku": "Standard"},
        "agentPoolProfiles": [{"name": "agentpool", "count": 3, "vmSize": "standard_d2s_v3", "osType": "Linux", "mode": "System"}]
      }
    }
  ],
  "outputs": {"fqdn": {"type": "string", "value": "[reference(resourceId('Microsoft.ContainerService/managedClusters', parameters('name'))).fqdn]"}}
}`

func TestDocumentedTemplateAsAzSendsIt(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	if r := a.Do(http.MethodPost, deploymentID+"/validate", azBody(napTemplate, "{}")); r.Status != 200 || !strings.Contains(r.Body, "validatedResources") {
		t.Fatalf("validate: %d %s", r.Status, r.Body)
	}
	if g := a.Do(http.MethodGet, clusterID, nil); g.Status != 404 {
		t.Fatalf("validate created a resource: %d", g.Status)
	}
	r := a.Do(http.MethodPut, deploymentID, azBody(napTemplate, "{}"))
	if r.Status != 201 || !strings.Contains(r.Header.Get("Azure-AsyncOperation"), "/operationStatuses/") {
		t.Fatalf("PUT: %d %s %s", r.Status, r.Header, r.Body)
	}
	a.MustSucceed(r)
	d := a.Do(http.MethodGet, deploymentID, nil)
	props := d.JSON["properties"].(map[string]any)
	out := props["outputs"].(map[string]any)["fqdn"].(map[string]any)["value"].(string)
	if !strings.HasPrefix(out, "c-dns-") || !strings.HasSuffix(out, ".hcp.eastus.azmk8s.io") {
		t.Errorf("the output is %q", out)
	}
	if strings.Contains(d.Body, "hush") {
		t.Error("the secure parameter's value is shown")
	}
	if len(props["outputResources"].([]any)) != 1 {
		t.Errorf("outputResources: %v", props["outputResources"])
	}
	// Both forms of the operations' path.
	for _, path := range []string{deploymentID + "/operations", "/subscriptions/" + armtest.Subscription + "/resourcegroups/rg/deployments/nap/operations"} {
		ops := a.Do(http.MethodGet, path, nil)
		if ops.Status != 200 || !strings.Contains(ops.Body, `"resourceName":"c"`) || !strings.Contains(ops.Body, "EvaluateDeploymentOutput") {
			t.Errorf("%s: %d %s", path, ops.Status, ops.Body)
		}
	}
	// Deploying it again with mode Manual while a node exists is refused, by
	// validate as well as by the deployment.
	a.Live.Set([]string{"aks-default-abcde"}, map[string]string{"default": "none"})
	manual := azBody(napTemplate, `{"mode": {"value": "Manual"}}`)
	for _, x := range []struct{ method, path string }{{http.MethodPost, deploymentID + "/validate"}, {http.MethodPut, deploymentID}} {
		r := a.Do(x.method, x.path, manual)
		if r.Status != 400 || r.Code() != "InvalidTemplateDeployment" || !strings.Contains(r.Body, "aks-default-abcde") || !strings.Contains(r.Body, "OperationNotAllowed") {
			t.Errorf("%s %s: %d %s", x.method, x.path, r.Status, r.Body)
		}
	}
	a.Live.Set(nil, nil)
	a.MustSucceed(a.Do(http.MethodPut, deploymentID, manual))
	if c := a.Do(http.MethodGet, clusterID, nil); !strings.Contains(c.Body, `"mode":"Manual"`) {
		t.Errorf("after the redeployment: %s", c.Body)
	}
	// What-if: nothing would change.
	w := a.Wait(a.Do(http.MethodPost, deploymentID+"/whatIf", manual))
	if !strings.Contains(w.Body, `"changeType":"NoChange"`) {
		t.Errorf("what-if: %s", w.Body)
	}
	w = a.Wait(a.Do(http.MethodPost, deploymentID+"/whatIf", azBody(napTemplate, `{"mode": {"value": "Auto"}}`)))
	if !strings.Contains(w.Body, `"changeType":"Modify"`) || !strings.Contains(w.Body, `"path":"mode"`) {
		t.Errorf("what-if: %s", w.Body)
	}
	if r := a.Do(http.MethodDelete, deploymentID, nil); r.Status != 202 {
		t.Errorf("delete: %d %s", r.Status, r.Body)
	} else {
		a.MustSucceed(r)
	}
	if r := a.Do(http.MethodHead, deploymentID, nil); r.Status != 404 {
		t.Errorf("HEAD of the deleted deployment: %d", r.Status)
	}
}

func TestFailedDeploymentNamesTheResource(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newGroup(a)
	bad := strings.Replace(napTemplate, `"networkPluginMode": "overlay", `, "", 1)
	r := a.Do(http.MethodPut, deploymentID, azBody(bad, "{}"))
	if r.Status != 400 || !strings.Contains(r.Message(), "Cilium dataplane requires") {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	for name, body := range map[string]string{
		"a cycle":         azBody(`{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"a","dependsOn":["b"],"properties":{"mode":"Incremental","template":{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[]}}},{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"b","dependsOn":["a"],"properties":{"mode":"Incremental","template":{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[]}}}]}`, "{}"),
		"an unknown type": azBody(`{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[{"type":"Microsoft.Nothing/here","apiVersion":"2021-04-01","name":"a"}]}`, "{}"),
		"no template":     `{"properties":{"mode":"Incremental"}}`,
		"not JSON":        `{"properties":`,
	} {
		if r := a.Do(http.MethodPut, deploymentID, body); r.Status != 400 {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
	}
	if r := a.Do(http.MethodPut, deploymentID, strings.Repeat("x", 5<<20)); r.Status != 400 || r.Code() != "RequestContentTooLarge" {
		t.Errorf("5 MiB: %d %s", r.Status, r.Body)
	}
}
