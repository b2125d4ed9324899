// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const (
	group     = "/subscriptions/" + armtest.Subscription + "/resourceGroups/rg"
	cluster   = group + "/providers/Microsoft.ContainerService/managedClusters/c"
	workspace = group + "/providers/Microsoft.OperationalInsights/workspaces/logs"
	settings  = cluster + "/providers/Microsoft.Insights/diagnosticSettings"
)

type object = map[string]any

func azure(t *testing.T) *armtest.Azure {
	t.Helper()
	a := armtest.New(t)
	a.Machinery()
	if r := a.Do(http.MethodPut, group, object{"location": "eastus"}); r.Status != 201 {
		t.Fatalf("creating the group: %d %s", r.Status, r.Body)
	}
	a.MustSucceed(a.Do(http.MethodPut, workspace, object{"location": "eastus"}))
	return a
}

func newCluster(a *armtest.Azure) {
	a.T.Helper()
	a.MustSucceed(a.Do(http.MethodPut, cluster, object{"location": "eastus", "identity": object{"type": "SystemAssigned"}, "properties": object{
		"dnsPrefix": "nap", "networkProfile": object{"networkPlugin": "azure", "networkPluginMode": "overlay", "networkDataplane": "cilium"},
		"agentPoolProfiles": []any{object{"name": "system", "mode": "System", "count": 1, "vmSize": "standard_d2s_v3"}}}}))
}

func setting(entries ...object) object {
	return object{"properties": object{"workspaceId": workspace, "logs": entries}}
}

func log(category string) object { return object{"category": category, "enabled": true} }

func TestWorkspaceKeepsCustomerIDAndKeys(t *testing.T) {
	a := azure(t)
	first := a.Do(http.MethodGet, workspace, nil)
	props := first.JSON["properties"].(object)
	if len(props["customerId"].(string)) != 36 || props["retentionInDays"] != 30.0 || props["provisioningState"] != "Succeeded" || props["sku"].(object)["name"] != "PerGB2018" {
		t.Errorf("a new workspace reads back as %s", first.Body)
	}
	keys := a.Do(http.MethodPost, workspace+"/sharedKeys", nil)
	a.MustSucceed(a.Do(http.MethodPut, workspace, object{"location": "eastus", "properties": object{"retentionInDays": 60, "sku": object{"name": "pergb2018"}, "customerId": "mine"}}))
	again := a.Do(http.MethodGet, workspace, nil).JSON["properties"].(object)
	if again["customerId"] != props["customerId"] || again["retentionInDays"] != 60.0 {
		t.Errorf("after an update: %v", again)
	}
	if got := a.Do(http.MethodPost, workspace+"/sharedKeys", nil); got.Body != keys.Body || len(keys.JSON["primarySharedKey"].(string)) < 80 {
		t.Errorf("the keys changed with an update or are too short: %s, then %s", keys.Body, got.Body)
	}
	if got := a.Do(http.MethodPost, workspace+"/regenerateSharedKey", nil); got.Status != 200 || got.Body == keys.Body {
		t.Errorf("new keys: %d %s", got.Status, got.Body)
	}
	if r := a.Do(http.MethodGet, workspace, nil); strings.Contains(r.Body, keys.JSON["primarySharedKey"].(string)) {
		t.Error("GET of a workspace returns its keys")
	}
	for _, body := range []object{
		{"location": "eastus", "properties": object{"retentionInDays": 3}},
		{"location": "eastus", "properties": object{"sku": object{"name": "Cheap"}}},
	} {
		if r := a.Do(http.MethodPut, workspace, body); r.Status != 400 || r.Code() != "InvalidParameter" {
			t.Errorf("%v: %d %s", body, r.Status, r.Body)
		}
	}
	a.MustSucceed(a.Do(http.MethodDelete, workspace, nil))
	if r := a.Do(http.MethodGet, workspace, nil); r.Status != 404 {
		t.Errorf("a deleted workspace: %d %s", r.Status, r.Body)
	}
}

// az monitor diagnostic-settings create, list, show and delete.
func TestDiagnosticSettingsOfACluster(t *testing.T) {
	a := azure(t)
	newCluster(a)
	const version = "?api-version=2021-05-01-preview"
	r := a.Do(http.MethodPut, settings+"/nap"+version, setting(log("node-auto-provisioning"), log("karpenter-events"), object{"category": "kube-audit", "enabled": false}))
	if r.Status != 200 || r.JSON["name"] != "nap" || !strings.EqualFold(r.JSON["type"].(string), "Microsoft.Insights/diagnosticSettings") {
		t.Fatalf("create: %d %s", r.Status, r.Body)
	}
	if list := a.Do(http.MethodGet, settings+version, nil); len(list.JSON["value"].([]any)) != 1 {
		t.Errorf("list: %s", list.Body)
	}
	if r := a.Do(http.MethodPut, settings+"/other"+version, setting(log("Karpenter-Events"))); r.Status != 409 || !strings.Contains(r.Message(), "karpenter-events") {
		t.Errorf("one category twice to one workspace: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodPut, settings+"/other"+version, setting(object{"categoryGroup": "audit", "enabled": true})); r.Status != 200 {
		t.Errorf("another category: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodDelete, settings+"/nap"+version, nil); r.Status != 200 {
		t.Errorf("delete: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodDelete, settings+"/nap"+version, nil); r.Status != 204 {
		t.Errorf("delete again: %d %s", r.Status, r.Body)
	}
	cs := a.Do(http.MethodGet, cluster+"/providers/Microsoft.Insights/diagnosticSettingsCategories"+version, nil)
	for _, want := range []string{`"name":"node-auto-provisioning"`, `"name":"karpenter-events"`, `"name":"AllMetrics"`, `"categoryType":"Logs"`} {
		if !strings.Contains(cs.Body, want) {
			t.Errorf("the categories lack %s: %s", want, cs.Body)
		}
	}
}

func TestInvalidDiagnosticSettings(t *testing.T) {
	a := azure(t)
	newCluster(a)
	for _, c := range []struct {
		what, at string
		body     object
		status   int
		says     string
	}{
		{"an unknown category", settings, setting(log("nap")), 400, "node-auto-provisioning"},
		{"nothing enabled", settings, setting(object{"category": "kube-audit", "enabled": false}), 400, "At least one"},
		{"no destination", settings, object{"properties": object{"logs": []any{log("kube-audit")}}}, 400, "workspaceId"},
		{"a destination that is not supported", settings, object{"properties": object{"storageAccountId": group + "/providers/Microsoft.Storage/storageAccounts/s", "logs": []any{log("kube-audit")}}}, 400, "workspaceId"},
		{"a workspace that is not there", settings, object{"properties": object{"workspaceId": workspace + "x", "logs": []any{log("kube-audit")}}}, 404, "logsx"},
		{"a category twice", settings, setting(log("kube-audit"), log("Kube-Audit")), 400, "twice"},
		{"both category and group", settings, setting(object{"category": "kube-audit", "categoryGroup": "audit", "enabled": true}), 400, "one of"},
		{"a cluster that is not there", cluster + "x/providers/Microsoft.Insights/diagnosticSettings", setting(log("kube-audit")), 404, "cx"},
		{"a resource without logs", workspace + "/providers/Microsoft.Insights/diagnosticSettings", setting(log("kube-audit")), 400, "does not support"},
	} {
		if r := a.Do(http.MethodPut, c.at+"/x", c.body); r.Status != c.status || !strings.Contains(r.Message(), c.says) {
			t.Errorf("%s: %d %s, want %d with %q", c.what, r.Status, r.Body, c.status, c.says)
		}
	}
	if list := a.Do(http.MethodGet, settings, nil); len(list.JSON["value"].([]any)) != 0 {
		t.Errorf("invalid requests created %s", list.Body)
	}
}
