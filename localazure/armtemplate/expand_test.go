// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDeploymentBodyOfAz(t *testing.T) {
	body := []byte("{\"properties\": {\"parameters\": {\"n\": {\"value\": 3}}, \"mode\": \"Incremental\", template:{\n  // a comment\n  \"$schema\": \"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#\",\n  \"contentVersion\": \"1.0.0.0\", /* block */\n  \"parameters\": {\"n\": {\"type\": \"int\"}},\n  \"resources\": [],\n  \"outputs\": {\"o\": {\"type\": \"string\", \"value\": \"two\nlines\"}, \"n\": {\"type\":\"int\",\"value\":\"[parameters('n')]\"}}\n}}}")
	d, err := DecodeDeploymentBody(body)
	if err != nil {
		t.Fatal(err)
	}
	if d.Mode != "Incremental" || string(d.Parameters["n"]) != "3" {
		t.Errorf("mode %q, parameters %s", d.Mode, d.Parameters)
	}
	tmpl, err := Parse(d.Template)
	if err != nil {
		t.Fatal(err)
	}
	in := testInput()
	in.Parameters = d.Parameters
	g, err := tmpl.Expand(in)
	if err != nil {
		t.Fatal(err)
	}
	outs, err := g.Outputs(nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(outs[0].Value) != `"two\nlines"` || string(outs[1].Value) != "3" || outs[1].Type != "Int" {
		t.Errorf("outputs %s", outs)
	}
}

func TestInvalidDeploymentBodies(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{``, "a value is missing at the end of input"},
		{`[]`, "must be an object"},
		{`{"properties":{"mode":"Sideways","template":{}}}`, "deployment mode must be"},
		{`{"properties":{"parameters":{"a":1}}}`, "parameter 'a' must be an object with a 'value'"},
		{`{"properties":{"parameters":{"a":{"reference":{"keyVault":{}}}}}}`, "is a Key Vault reference"},
		{`{"properties":{`, "is not closed, line 1, position 16"},
		{`{"properties":{"template":{"a":1,}}}`, "where a property name should be"},
		{`{}`, "required property 'properties'"},
		{strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested deeper than 100"},
		{`{"properties":{"template":{"a":tru}}}`, "unexpected 't'"},
		{"{\"properties\":{/* ", "not closed"},
	} {
		_, err := DecodeDeploymentBody([]byte(c.body))
		wantError(t, err, CodeInvalidRequestContent, c.want)
	}
	d, err := DecodeDeploymentBody([]byte(`{"location":"eastus","properties":{"template":{}}}`))
	if err != nil || d.Mode != "Incremental" || d.Location != "eastus" {
		t.Errorf("mode absent: %+v, %v", d, err)
	}
}

func TestTemplateStructure(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{`{"contentVersion":"1.0.0.0","resources":[]}`, "no '$schema'"},
		{`{"$schema":"https://example.com/x.json","contentVersion":"1.0.0.0","resources":[]}`, "is not one of a deployment template"},
		{wrap(`"resources":{}`), "need \"languageVersion\": \"2.0\""},
		{wrap(`"languageVersion":"2.0","resources":[]`), "an object of symbolic names"},
		{wrap(`"languageVersion":"3.0","resources":[]`), "Language version '3.0' is not supported"},
		{wrap(`"parameters":{}`), "Required property 'resources' not found"},
		{wrap(`"resources":[],"stuff":1`), "unknown property 'stuff'"},
		{wrap(`"resources":[],"parameters":{"a":{"type":"strng"}}`), "has type 'strng'"},
		{wrap(`"resources":[],"parameters":{"a":{}}`), "has no 'type'"},
		{wrap(`"resources":[],"parameters":{"a":{"type":"int"},"A":{"type":"int"}}`), "is defined twice"},
		{wrap(`"resources":[],"outputs":{"a":{"type":"int"}}`), "must be an object with 'type' and 'value'"},
		{wrap(`"resources":[],"functions":[{"members":{}}]`), "must have a 'namespace'"},
		{`"text"`, "must be an object"},
	} {
		_, err := Parse([]byte(c.src))
		wantError(t, err, CodeInvalidTemplate, c.want)
	}
	_, err := Parse([]byte("{\n  \"a\": nope\n}"))
	if e := wantError(t, err, CodeInvalidRequestContent, "unexpected 'n'"); e.Line != 2 || e.Column != 8 {
		t.Errorf("position %d:%d, want 2:8", e.Line, e.Column)
	}
}

func TestParameters(t *testing.T) {
	src := wrap(`"parameters":{
		"name":{"type":"string","minLength":2,"maxLength":5},
		"count":{"type":"int","defaultValue":"[add(length(parameters('name')), 1)]","minValue":1,"maxValue":9},
		"mode":{"type":"string","defaultValue":"Auto","allowedValues":["Auto","Manual"]},
		"secret":{"type":"securestring","defaultValue":""},
		"zones":{"type":"array","defaultValue":["1"],"allowedValues":["1","2","3"]},
		"cfg":{"type":"object","defaultValue":{}},
		"on":{"type":"bool","defaultValue":false}},"resources":[],
		"outputs":{"count":{"type":"int","value":"[parameters('count')]"},"secret":{"type":"secureString","value":"[parameters('secret')]"}}`)
	g := mustExpand(t, src, map[string]string{"NAME": `"abc"`, "secret": `"pssst"`, "zones": `["1","3"]`})
	if string(g.Parameters["count"].Value) != "4" || g.Parameters["count"].Type != "Int" {
		t.Errorf("count %s", g.Parameters["count"].Value)
	}
	if g.Parameters["secret"].Value != nil || g.Parameters["secret"].Type != "SecureString" {
		t.Errorf("a secure parameter has a value: %+v", g.Parameters["secret"])
	}
	outs, err := g.Outputs(nil)
	if err != nil || outs[1].Value != nil {
		t.Errorf("a secure output has a value: %s, %v", outs, err)
	}
	for _, c := range []struct {
		params map[string]string
		want   string
	}{
		{nil, "The value for the template parameter 'name' at line '2' and column '10' is not provided"},
		{map[string]string{"name": `"abc"`, "nope": `1`}, "The template parameters 'nope' in the parameters file are not valid; they are not present in the original template and can therefore not be provided at deployment time. The only supported parameters for this template are 'name, count, mode"},
		{map[string]string{"name": `1`}, "Expected 'String'. Actual 'Integer'"},
		{map[string]string{"name": `"a"`}, "length 1, less than the minimum 2"},
		{map[string]string{"name": `"abcdef"`}, "length 6, more than the maximum 5"},
		{map[string]string{"name": `"abc"`, "count": `10`}, "is 10, more than the maximum 9"},
		{map[string]string{"name": `"abc"`, "count": `"3"`}, "Expected 'Int'. Actual 'String'"},
		{map[string]string{"name": `"abc"`, "mode": `"Off"`}, "The value 'Off' is not part of the allowed value(s): 'Auto,Manual'"},
		{map[string]string{"name": `"abc"`, "zones": `["4"]`}, "not part of the allowed value(s)"},
		{map[string]string{"name": `"abc"`, "on": `null`}, "Expected 'Bool'. Actual 'Null'"},
	} {
		_, err := tryExpand(src, c.params)
		wantError(t, err, CodeInvalidTemplate, c.want)
	}
	_, err = tryExpand(wrap(`"parameters":{"p":{"type":"securestring","allowedValues":["a"]}},"resources":[]`), map[string]string{"p": `"topsecret"`})
	if wantError(t, err, CodeInvalidTemplate, "not one of the allowed values"); strings.Contains(err.Error(), "topsecret") {
		t.Errorf("the error has the secret: %v", err)
	}
	_, err = tryExpand(wrap(`"parameters":{"a":{"type":"int","defaultValue":"[parameters('b')]"},"b":{"type":"int","defaultValue":"[parameters('a')]"}},"resources":[]`), nil)
	wantError(t, err, CodeInvalidTemplate, "refers to itself")
}

func TestUserDefinedTypes(t *testing.T) {
	src := wrap(`"languageVersion":"2.0","definitions":{"pool":{"type":"object","properties":{"name":{"type":"string"},"count":{"type":"int","nullable":true,"minValue":1}},"additionalProperties":false}},
		"parameters":{"pools":{"type":"array","items":{"$ref":"#/definitions/pool"}},"one":{"$ref":"#/definitions/pool","nullable":true}},"resources":{}`)
	mustExpand(t, src, map[string]string{"pools": `[{"name":"a"},{"name":"b","count":2}]`})
	for given, want := range map[string]string{
		`[{"count":2}]`: "has no property 'name'", `[{"name":"a","x":1}]`: "unknown property 'x'", `[{"name":"a","count":0}]`: "less than the minimum 1", `[{"name":5}]`: "Expected 'String'",
	} {
		_, err := tryExpand(src, map[string]string{"pools": given})
		wantError(t, err, CodeInvalidTemplate, want)
	}
}

func TestVariables(t *testing.T) {
	g := mustExpand(t, wrap(`"variables":{
		"copy":[{"name":"disks","count":2,"input":{"name":"[concat('d', copyIndex('disks', 1))]"}}],
		"inside":{"fixed":1,"copy":[{"name":"list","count":3,"input":"[mul(copyIndex('list'),10)]"}]},
		"a":"[variables('b')]","b":"x","[[odd":1},
		"resources":[],"outputs":{"d":{"type":"array","value":"[variables('disks')]"},"i":{"type":"object","value":"[variables('inside')]"},"a":{"type":"string","value":"[variables('a')]"}}`), nil)
	outs, err := g.Outputs(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`[{"name":"d1"},{"name":"d2"}]`, `{"fixed":1,"list":[0,10,20]}`, `"x"`} {
		if string(outs[i].Value) != want {
			t.Errorf("output %s = %s, want %s", outs[i].Name, outs[i].Value, want)
		}
	}
	_, err = tryExpand(wrap(`"variables":{"a":"[variables('b')]","b":"[variables('a')]"},"resources":[]`), nil)
	wantError(t, err, CodeInvalidTemplate, "refers to itself")
	_, err = tryExpand(wrap(`"variables":{"a":"[reference('/x','1').y]"},"resources":[]`), nil)
	wantError(t, err, CodeInvalidTemplate, "which variables cannot")
}

const vnetAndCluster = `"resources":[
	{"type":"Microsoft.ContainerService/managedClusters","apiVersion":"2025-05-01","name":"aks","location":"[resourceGroup().location]",
	 "dependsOn":["[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities','id')]"],
	 "identity":{"type":"UserAssigned","userAssignedIdentities":{"[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities','id')]":{}}},
	 "properties":{"dnsPrefix":"[concat('p-', uniqueString(resourceGroup().id))]","vnet":"[reference(resourceId('Microsoft.Network/virtualNetworks','vnet')).subnets[0].id]",
	   "nodeProvisioningProfile":{"mode":"Auto"}}},
	{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"vnet","location":"East US","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/8"]}},
	 "resources":[{"type":"subnets","apiVersion":"2024-05-01","name":"nodes","dependsOn":["vnet"],"properties":{"addressPrefix":"10.240.0.0/16"}}]},
	{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"id","location":"eastus"},
	{"type":"Microsoft.Network/virtualNetworks/subnets/providers/roleAssignments","apiVersion":"2022-04-01","name":"[concat('vnet/nodes/Microsoft.Authorization/', guid('a'))]",
	 "dependsOn":["[resourceId('Microsoft.Network/virtualNetworks/subnets','vnet','nodes')]"],"properties":{"principalId":"[reference('id').principalId]"}}],
	"outputs":{"fqdn":{"type":"string","value":"[reference('aks').fqdn]"},"keys":{"type":"object","value":"[listClusterUserCredential('aks')]"},"where":{"type":"string","value":"[reference('aks','2025-05-01','Full').location]"}}`

func TestResourcesAndOrder(t *testing.T) {
	g := mustExpand(t, wrap(vnetAndCluster), nil)
	want := []string{
		"Microsoft.ContainerService/managedClusters/aks", "Microsoft.Network/virtualNetworks/vnet", "Microsoft.Network/virtualNetworks/vnet/subnets/nodes",
		"Microsoft.ManagedIdentity/userAssignedIdentities/id",
		"Microsoft.Network/virtualNetworks/vnet/subnets/nodes/providers/Microsoft.Authorization/roleAssignments/" + NameUUID("a"),
	}
	if got := ids(g); !slices.Equal(got, want) {
		t.Errorf("ids %q\nwant %q", got, want)
	}
	for i, deps := range [][]int{{1, 3}, nil, {1}, nil, {2, 3}} {
		if !slices.Equal(g.Resources[i].DependsOn, deps) {
			t.Errorf("%s depends on %v, want %v", g.Resources[i].Name, g.Resources[i].DependsOn, deps)
		}
	}
	aks := g.Resources[0]
	if !aks.Deferred || aks.Location != "eastus" || aks.Line != 2 {
		t.Errorf("cluster: deferred %v, location %q, line %d", aks.Deferred, aks.Location, aks.Line)
	}
	if !strings.Contains(string(aks.Body), `"vnet":"[reference(`) || strings.Contains(string(aks.Body), "apiVersion") {
		t.Errorf("body before deployment: %s", aks.Body)
	}
	if g.Resources[1].Deferred || strings.Contains(string(g.Resources[1].Body), "subnets") {
		t.Errorf("a nested resource is part of its parent's body: %s", g.Resources[1].Body)
	}
	if ra := g.Resources[4]; ra.Type != "Microsoft.Authorization/roleAssignments" || ra.Name != NameUUID("a") {
		t.Errorf("extension resource: type %q, name %q", ra.Type, ra.Name)
	}
	pre := "/subscriptions/" + testSub + "/resourceGroups/rg/providers/"
	cloud := fakeCloud{
		pre + "Microsoft.Network/virtualNetworks/vnet":              `{"properties":{"subnets":[{"id":"/the/subnet"}]}}`,
		pre + "Microsoft.ManagedIdentity/userAssignedIdentities/id": `{"properties":{"principalId":"p1"}}`,
		pre + "Microsoft.ContainerService/managedClusters/aks":      `{"location":"eastus","properties":{"fqdn":"f.example"}}`,
	}
	body, err := g.Resolve(0, cloud)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Identity   struct{ UserAssignedIdentities map[string]any }
		Properties struct{ VNet string }
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Properties.VNet != "/the/subnet" || got.Identity.UserAssignedIdentities[pre+"Microsoft.ManagedIdentity/userAssignedIdentities/id"] == nil {
		t.Errorf("resolved body %s, %v", body, err)
	}
	outs, err := g.Outputs(cloud)
	if err != nil {
		t.Fatal(err)
	}
	if string(outs[0].Value) != `"f.example"` || !strings.Contains(string(outs[1].Value), `"fn":"listClusterUserCredential"`) || !strings.Contains(string(outs[1].Value), `"version":"2025-05-01"`) || string(outs[2].Value) != `"eastus"` {
		t.Errorf("outputs %s", outs)
	}
	if _, err = g.Resolve(4, fakeCloud{}); err == nil || !strings.Contains(err.Error(), "ResourceNotFound") {
		t.Errorf("the runtime's error is lost: %v", err)
	}
	wantError(t, err, CodeInvalidTemplate, "resource '"+NameUUID("a")+"'")
}

func TestCopyLoops(t *testing.T) {
	g := mustExpand(t, wrap(`"parameters":{"n":{"type":"int"}},"resources":[
		{"type":"A.B/pools","apiVersion":"1","name":"[format('p{0}', copyIndex(1))]","copy":{"name":"pools","count":"[parameters('n')]","mode":"serial","batchSize":2},
		 "properties":{"i":"[copyIndex()]","copy":[{"name":"disks","count":2,"input":{"lun":"[copyIndex('disks')]","of":"[copyIndex()]","loop":"[copyIndex('pools')]"}}]}},
		{"type":"A.B/after","apiVersion":"1","name":"z","dependsOn":["pools"]}],
		"outputs":{"names":{"type":"array","copy":{"count":"[parameters('n')]","input":"[format('p{0}', copyIndex())]"}}}`), map[string]string{"n": "5"})
	if len(g.Resources) != 6 {
		t.Fatalf("%d resources", len(g.Resources))
	}
	for i, deps := range [][]int{nil, nil, {0, 1}, {0, 1}, {2, 3}, {0, 1, 2, 3, 4}} {
		if !slices.Equal(g.Resources[i].DependsOn, deps) {
			t.Errorf("resource %d depends on %v, want %v", i, g.Resources[i].DependsOn, deps)
		}
	}
	if want := `{"properties":{"i":3,"disks":[{"lun":0,"of":3,"loop":3},{"lun":1,"of":3,"loop":3}]}}`; string(g.Resources[3].Body) != want {
		t.Errorf("body %s, want %s", g.Resources[3].Body, want)
	}
	outs, err := g.Outputs(nil)
	if err != nil || string(outs[0].Value) != `["p0","p1","p2","p3","p4"]` {
		t.Errorf("outputs %s, %v", outs, err)
	}
	empty := mustExpand(t, wrap(`"resources":[{"type":"A.B/c","apiVersion":"1","name":"x","copy":{"name":"l","count":0}},{"type":"A.B/c","apiVersion":"1","name":"y","dependsOn":["l"]}]`), nil)
	if len(empty.Resources) != 1 {
		t.Errorf("an empty loop makes %d resources", len(empty.Resources))
	}
	for count, want := range map[string]string{"801": "it must be from 0 to 800", "-1": "it must be from 0 to 800", `"x"`: "must be an integer, not String"} {
		_, err := tryExpand(wrap(`"resources":[{"type":"A.B/c","apiVersion":"1","name":"[concat('x',copyIndex())]","copy":{"name":"l","count":`+count+`}}]`), nil)
		wantError(t, err, CodeInvalidTemplate, want)
	}
}

func TestConditions(t *testing.T) {
	src := wrap(`"parameters":{"on":{"type":"bool"}},"resources":[
		{"condition":"[parameters('on')]","type":"A.B/c","apiVersion":"1","name":"maybe","properties":{"bad":"[if(parameters('on'),'x',div(1,0))]"}},
		{"type":"A.B/c","apiVersion":"1","name":"after","dependsOn":["maybe"],"properties":{"x":"[if(parameters('on'), reference('maybe').x, 'none')]"}}],
		"outputs":{"o":{"condition":"[parameters('on')]","type":"string","value":"[reference('maybe').x]"}}`)
	off := mustExpand(t, src, map[string]string{"on": "false"})
	if off.Resources[0].Condition || off.Resources[0].Body != nil || len(off.Resources[1].DependsOn) != 0 || string(off.Resources[1].Body) != `{"properties":{"x":"none"}}` {
		t.Errorf("off: %+v", off.Resources)
	}
	if outs, err := off.Outputs(fakeCloud{}); err != nil || len(outs) != 0 {
		t.Errorf("an output whose condition is false: %s, %v", outs, err)
	}
	on := mustExpand(t, src, map[string]string{"on": "true"})
	if !slices.Equal(on.Resources[1].DependsOn, []int{0}) || !on.Resources[1].Deferred {
		t.Errorf("on: %+v", on.Resources[1])
	}
}

func TestSymbolicNames(t *testing.T) {
	g := mustExpand(t, wrap(`"languageVersion":"2.0","resources":{
		"vnet":{"existing":true,"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"v","subscriptionId":"s2","resourceGroup":"net"},
		"pools":{"copy":{"name":"pools","count":2},"type":"A.B/pools","apiVersion":"2","name":"[format('p{0}',copyIndex())]"},
		"aks":{"type":"A.B/clusters","apiVersion":"3","name":"c","dependsOn":["pools"],"properties":{"subnet":"[reference('vnet').id0]","first":"[reference('pools[0]','2','full').name]","all":"[map(references('pools'), lambda('p', lambdaVariables('p').n))]","info":"[resourceInfo('vnet').id]"}},
		"lock":{"type":"Microsoft.Authorization/locks","apiVersion":"4","name":"l","scope":"[format('A.B/clusters/{0}','c')]","dependsOn":["aks","pools[1]"]}},
		"outputs":{"id":{"type":"string","value":"[resourceInfo('aks').id]"},"mg":{"type":"string","value":"[managementGroupResourceId('g','A.B/c','n')]"}}`), nil)
	pre := "/subscriptions/" + testSub + "/resourceGroups/rg/providers/"
	cloud := fakeCloud{
		"/subscriptions/s2/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v": `{"properties":{"id0":"sub"}}`,
		pre + "A.B/pools/p0": `{"name":"zero","properties":{"n":0}}`, pre + "A.B/pools/p1": `{"name":"one","properties":{"n":1}}`,
	}
	body, err := g.Resolve(3, cloud)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"properties":{"subnet":"sub","first":"zero","all":[0,1],"info":"/subscriptions/s2/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/v"}}`; string(body) != want {
		t.Errorf("body %s\nwant %s", body, want)
	}
	if !g.Resources[0].Existing || g.Resources[0].Body != nil || !slices.Equal(g.Resources[3].DependsOn, []int{1, 2}) || !slices.Equal(g.Resources[4].DependsOn, []int{2, 3}) {
		t.Errorf("dependencies %v %v", g.Resources[3].DependsOn, g.Resources[4].DependsOn)
	}
	if g.Resources[4].ID != pre+"A.B/clusters/c/providers/Microsoft.Authorization/locks/l" {
		t.Errorf("extension resource %s", g.Resources[4].ID)
	}
}

func TestNestedDeployments(t *testing.T) {
	g := mustExpand(t, wrap(`"parameters":{"p":{"type":"string","defaultValue":"outer"}},"variables":{"pre":"[[literal]"},"resources":[
		{"type":"A.B/c","apiVersion":"1","name":"first"},
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"inner","resourceGroup":"other","properties":{"mode":"Incremental","expressionEvaluationOptions":{"scope":"inner"},
		 "parameters":{"p":{"value":"[reference('first').v]"}},
		 "template":{"$schema":"x","contentVersion":"1.0.0.0","parameters":{"p":{"type":"string"}},"resources":[],"outputs":{"o":{"type":"string","value":"[parameters('p')]"}}}}},
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"outer","properties":{"mode":"Incremental",
		 "template":{"$schema":"x","contentVersion":"1.0.0.0","variables":{"gone":"[variables('missing')]"},"resources":[
		   {"type":"A.B/c","apiVersion":"1","name":"[concat('n',copyIndex())]","copy":{"name":"l","count":2},"properties":{"p":"[parameters('p')]","esc":"[variables('pre')]","lit":"[[kept]"}},
		   {"type":"A.B/d","apiVersion":"1","name":"z","dependsOn":["l"],"properties":{"v":"[reference('first').v]"}}]}}},
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"sub","location":"eastus","subscriptionId":"[subscription().subscriptionId]","properties":{"mode":"Incremental","template":{"resources":[]}}}]`), nil)
	if got := g.Resources[1].ID; !strings.HasPrefix(got, "/subscriptions/"+testSub+"/resourceGroups/other/") {
		t.Errorf("resource group of inner: %s", got)
	}
	if got := g.Resources[3].ID; got != "/subscriptions/"+testSub+"/providers/Microsoft.Resources/deployments/sub" {
		t.Errorf("subscription of sub: %s", got)
	}
	for i := 1; i <= 2; i++ {
		if !slices.Equal(g.Resources[i].DependsOn, []int{0}) {
			t.Errorf("%s depends on %v", g.Resources[i].Name, g.Resources[i].DependsOn)
		}
	}
	cloud := fakeCloud{g.Resources[0].ID: `{"properties":{"v":"seen"}}`}
	inner, err := g.Resolve(1, cloud)
	if err != nil || !strings.Contains(string(inner), `"parameters":{"p":{"value":"seen"}}`) || !strings.Contains(string(inner), `"value":"[parameters('p')]"`) {
		t.Errorf("inner: %s, %v", inner, err)
	}
	outer, err := g.Resolve(2, cloud)
	want := `"resources":[{"type":"A.B/c","apiVersion":"1","name":"n0","properties":{"p":"outer","esc":"[[literal]","lit":"[[kept]"}},{"type":"A.B/c","apiVersion":"1","name":"n1","properties":{"p":"outer","esc":"[[literal]","lit":"[[kept]"}},{"type":"A.B/d","apiVersion":"1","name":"z","dependsOn":["n0","n1"],"properties":{"v":"seen"}}]`
	if err != nil || !strings.Contains(string(outer), want) || strings.Contains(string(outer), "gone") {
		t.Errorf("outer: %s, %v\nwant %s", outer, err, want)
	}
}

func TestInvalidResources(t *testing.T) {
	a := func(name, more string) string {
		return `{"type":"A.B/c","apiVersion":"1","name":"` + name + `"` + more + `}`
	}
	for _, c := range []struct{ resources, want string }{
		{a("x", `,"dependsOn":["nope"]`), "The resource 'nope', on which resource 'x' depends, is not defined in the template"},
		{a("x", `,"dependsOn":["y"]`) + "," + a("y", `,"dependsOn":["x"]`), "Circular dependency detected on resource: '"},
		{a("x", `,"properties":{"a":"[reference('y').b]"}`) + "," + a("y", `,"dependsOn":["x"]`), "Circular dependency"},
		{a("x", "") + "," + a("X", ""), "defined multiple times"},
		{`{"type":"A.B/c","name":"x"}`, "has no 'apiVersion'"},
		{`{"type":"A.B/c","apiVersion":"1","name":""}`, "it is empty"},
		{`{"type":"A.B/c/d","apiVersion":"1","name":"x"}`, "the type 'A.B/c/d' and the name 'x' do not match"},
		{a("x", `,"condition":"yes"`), "must be a Boolean, not String"},
		{a("x", `,"condition":"[reference('/y','1').b]"`), "a condition cannot depend on reference"},
		{a("x", `,"properties":{"deep":[{"a":"[nope()]"}]}`), "path '.properties.deep[0].a'"},
		{a("[reference('/y','1').b]", ""), "a resource's name cannot depend on reference"},
		{a("x", `,"properties":{"a":"[reference('nowhere').b]"}`), "'nowhere' is not defined in the template"},
		{a("x", `,"properties":{"a":"[reference('/subscriptions/s/x/y').b]"}`), "needs an API version"},
		{`5`, "A resource must be an object"},
	} {
		_, err := tryExpand(wrap(`"resources":[`+c.resources+`]`), nil)
		wantError(t, err, CodeInvalidTemplate, c.want)
	}
}

func TestHostileTemplatesFailFast(t *testing.T) {
	doubling := []string{`"v0":["aaaaaaaaaaaaaaaa"]`}
	for i := 1; i < 60; i++ {
		doubling = append(doubling, fmt.Sprintf(`"v%d":"[createArray(variables('v%d'),variables('v%d'))]"`, i, i-1, i-1))
	}
	text := []string{`"v0":"aaaaaaaaaaaaaaaa"`}
	for i := 1; i < 60; i++ {
		text = append(text, fmt.Sprintf(`"v%d":"[concat(variables('v%d'),variables('v%d'))]"`, i, i-1, i-1))
	}
	out := `,"resources":[],"outputs":{"o":{"type":"array","value":"[variables('v59')]"}}`
	for name, src := range map[string]string{
		"shared arrays":    wrap(`"variables":{` + strings.Join(doubling, ",") + `}` + out),
		"compared arrays":  wrap(`"variables":{` + strings.Join(doubling, ",") + `,"e":"[equals(variables('v59'),json(string(variables('v58'))))]"}` + out),
		"doubling text":    wrap(`"variables":{` + strings.Join(text, ",") + `}` + out),
		"nested maps":      wrap(`"variables":{"r":"[range(0,10000)]","x":"[map(variables('r'), lambda('a', map(variables('r'), lambda('b', map(variables('r'), lambda('c', 1))))))]"},"resources":[]`),
		"deep values":      wrap(`"variables":{"x":"[reduce(range(0,10000), 1, lambda('a','b', createArray(lambdaVariables('a'))))]","s":"[string(variables('x'))]"},"resources":[]`),
		"deep expression":  wrap(`"variables":{"x":"[` + strings.Repeat("not(", 5000) + strings.Repeat(")", 5000) + `]"},"resources":[]`),
		"long expression":  wrap(`"variables":{"x":"['` + strings.Repeat("a", 30000) + `']"},"resources":[]`),
		"loops in loops":   wrap(`"resources":[{"type":"A.B/c","apiVersion":"1","name":"[string(copyIndex())]","copy":{"name":"l","count":800},"properties":{"copy":[{"name":"a","count":800,"input":{"copy":[{"name":"b","count":800,"input":"x"}]}}]}}]`),
		"self function":    wrap(`"functions":[{"namespace":"n","members":{"f":{"output":{"type":"int","value":"[n.f()]"}}}}],"variables":{"x":"[n.f()]"},"resources":[]`),
		"self type":        wrap(`"languageVersion":"2.0","definitions":{"a":{"$ref":"#/definitions/a"}},"parameters":{"p":{"$ref":"#/definitions/a","defaultValue":1}},"resources":{}`),
		"deep document":    wrap(`"resources":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000)),
		"huge document":    wrap(`"resources":[` + strings.Repeat(" ", 5<<20) + `]`),
		"format amplifier": wrap(`"variables":{"a":"[padLeft('',20000,'x')]","b":"[format('` + strings.Repeat("{0}", 5000) + `', variables('a'))]"},"resources":[]`),
		"join amplifier":   wrap(`"variables":{"a":"[padLeft('',20000,'x')]","b":"[join(map(range(0,10000), lambda('i', variables('a'))),'')]"},"resources":[]`),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := tryExpand(src, nil)
			if err == nil {
				t.Fatal("no error")
			}
			var e *Error
			if !errors.As(err, &e) || len(e.Message) > 4096 {
				t.Errorf("error %T of %d bytes", err, len(err.Error()))
			}
			if took := time.Since(start); took > time.Minute { // well under one second on an idle machine
				t.Errorf("took %v: %v", took, err)
			}
		})
	}
}

func TestTwoHundredResourcesExpandFast(t *testing.T) {
	var rs []string
	for i := range 200 {
		dep := ""
		if i > 0 {
			dep = fmt.Sprintf(`,"dependsOn":["[resourceId('A.B/c','r%d')]"]`, i-1)
		}
		rs = append(rs, fmt.Sprintf(`{"type":"A.B/c","apiVersion":"1","name":"r%d"%s,"properties":{"x":"[concat(uniqueString(resourceGroup().id), '%d')]"}}`, i, dep, i))
	}
	start := time.Now()
	g := mustExpand(t, wrap(`"resources":[`+strings.Join(rs, ",")+`]`), nil)
	if took := time.Since(start); len(g.Resources) != 200 || took > time.Minute {
		t.Errorf("%d resources in %v", len(g.Resources), took)
	}
}

func FuzzExpression(f *testing.F) {
	for _, rows := range functionCases {
		for _, row := range rows {
			f.Add(row[0])
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		if isExpression(s) {
			_, _ = evalText(t, s)
		} else if s2 := unescape(escapeLiteral(s)); s2 != s {
			t.Errorf("escape and unescape turn %q into %q", s, s2)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add(wrap(vnetAndCluster))
	files, err := filepath.Glob("../../test/docs/templates/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no templates to begin with", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, src string) {
		g, err := tryExpand(src, nil)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		for i, r := range g.Resources {
			if r.Body != nil && !json.Valid(r.Body) {
				t.Fatalf("body of %d is not JSON: %s", i, r.Body)
			}
			_, _ = g.Resolve(i, fakeCloud{})
			for _, d := range r.DependsOn {
				if d < 0 || d >= len(g.Resources) || d == i {
					t.Fatalf("resource %d depends on %d", i, d)
				}
			}
		}
		_, _ = g.Outputs(fakeCloud{})
	})
}

func FuzzDeploymentBody(f *testing.F) {
	f.Add([]byte(`{"properties": {"parameters": {"n":{"value":1}}, "mode": "Incremental", template:{"a": "b` + "\n" + `c" /* d */}}}`))
	f.Add([]byte("{\"properties\":{\"template\":\"{}\"}} // end"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDeploymentBody(b)
		if err != nil {
			return
		}
		for k, v := range d.Parameters {
			if !json.Valid(v) {
				t.Fatalf("parameter %s is not JSON: %s", k, v)
			}
		}
	})
}
