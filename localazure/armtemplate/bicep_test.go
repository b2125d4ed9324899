// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"slices"
	"strings"
	"testing"
)

// A resource that depends on an existing one also depends on its dependencies.
func TestDependenciesThroughExistingResources(t *testing.T) {
	g := mustExpand(t, wrap(`"languageVersion":"2.0","resources":{
		"vnet":{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2024-05-01","name":"v"},
		"subnet":{"existing":true,"type":"Microsoft.Network/virtualNetworks/subnets","apiVersion":"2024-05-01","name":"v/s","dependsOn":["vnet"]},
		"again":{"existing":true,"type":"Microsoft.Network/virtualNetworks/subnets","apiVersion":"2024-05-01","name":"v/s2","dependsOn":["subnet"]},
		"off":{"condition":false,"type":"A.B/c","apiVersion":"1","name":"off","dependsOn":["vnet"]},
		"explicit":{"type":"A.B/c","apiVersion":"1","name":"x","dependsOn":["again"]},
		"implicit":{"type":"A.B/c","apiVersion":"1","name":"i","properties":{"range":"[reference('subnet').addressPrefix]"}},
		"free":{"type":"A.B/c","apiVersion":"1","name":"f","dependsOn":["off"]}}`), nil)
	for i, want := range map[int][]int{0: nil, 1: nil, 2: nil, 4: {0}, 5: {0}, 6: nil} {
		if got := g.Resources[i].DependsOn; !slices.Equal(got, want) {
			t.Errorf("%s depends on %v, want %v", g.Resources[i].Symbol, got, want)
		}
	}
	// Two existing resources may name each other; nobody waits for them.
	mustExpand(t, wrap(`"languageVersion":"2.0","resources":{
		"a":{"existing":true,"type":"A.B/c","apiVersion":"1","name":"a","dependsOn":["b"]},
		"b":{"existing":true,"type":"A.B/c","apiVersion":"1","name":"b","dependsOn":["a"]},
		"c":{"type":"A.B/c","apiVersion":"1","name":"c","dependsOn":["a"]}}`), nil)
	_, err := tryExpand(wrap(`"languageVersion":"2.0","resources":{
		"a":{"existing":true,"type":"A.B/c","apiVersion":"1","name":"a","dependsOn":["b"]},
		"b":{"type":"A.B/c","apiVersion":"1","name":"b","dependsOn":["d"]},
		"d":{"type":"A.B/c","apiVersion":"1","name":"d","dependsOn":["a"]}}`), nil)
	wantError(t, err, CodeInvalidTemplate, "Circular dependency")
}

func TestAsserts(t *testing.T) {
	src := wrap(`"languageVersion":"2.1-experimental","parameters":{"n":{"type":"int"}},"resources":{"a":{"type":"A.B/c","apiVersion":"1","name":"a"}},
		"asserts":{"enough":"[greater(parameters('n'), 2)]","few":"[less(parameters('n'), 10)]","made":"[equals(reference('a').state, 'ok')]"}`)
	g := mustExpand(t, src, map[string]string{"n": "5"})
	if _, err := g.Outputs(fakeCloud{g.Resources[0].ID: `{"properties":{"state":"ok"}}`}); err != nil {
		t.Error(err)
	}
	_, err := g.Outputs(fakeCloud{g.Resources[0].ID: `{"properties":{"state":"bad"}}`})
	wantError(t, err, CodeInvalidTemplate, "'made' evaluated to false")
	_, err = tryExpand(src, map[string]string{"n": "1"})
	if e := wantError(t, err, CodeInvalidTemplate, "Assertions of the template failed: 'enough' evaluated to false"); e.Line == 0 {
		t.Error("the error has no position")
	}
	_, err = tryExpand(wrap(`"resources":[],"asserts":{"a":"yes"}`), nil)
	wantError(t, err, CodeInvalidTemplate, "must be a Boolean, not String")
}

func TestTaggedUnions(t *testing.T) {
	src := wrap(`"languageVersion":"2.0","definitions":{
		"auto":{"type":"object","properties":{"kind":{"type":"string","allowedValues":["auto"]},"max":{"type":"int"}},"additionalProperties":false},
		"manual":{"type":"object","properties":{"kind":{"type":"string","allowedValues":["manual"]},"count":{"type":"int"}}},
		"scale":{"type":"object","discriminator":{"propertyName":"kind","mapping":{"auto":{"$ref":"#/definitions/auto"},"manual":{"$ref":"#/definitions/manual"}}}}},
		"parameters":{"scale":{"$ref":"#/definitions/scale"}},"resources":{},
		"outputs":{"back":{"$ref":"#/definitions/scale","value":"[parameters('scale')]"}}`)
	mustExpand(t, src, map[string]string{"scale": `{"kind":"auto","max":5}`})
	mustExpand(t, src, map[string]string{"scale": `{"kind":"manual","count":1}`})
	for given, want := range map[string]string{
		`{"kind":"auto"}`: "has no property 'max'", `{"kind":"auto","max":1,"x":2}`: "unknown property 'x'", `{"max":1}`: "has no property 'kind', which must name its type: one of 'auto,manual'",
		`{"kind":"none"}`: "value 'none' for property 'kind'", `{"kind":"manual","count":"1"}`: "Expected 'Int'", `5`: "Expected 'Object'",
	} {
		_, err := tryExpand(src, map[string]string{"scale": given})
		wantError(t, err, CodeInvalidTemplate, want)
	}
}

// Functions of the template with parameters of built-in and user-defined types,
// and functions that call functions.
func TestUserDefinedFunctions(t *testing.T) {
	src := func(call string) string {
		return wrap(`"languageVersion":"2.0","definitions":{"pool":{"type":"object","properties":{"name":{"type":"string"},"size":{"type":"int","minValue":1}}}},
		"functions":[{"namespace":"__bicep","members":{
			"label":{"parameters":[{"type":"string","name":"prefix"},{"$ref":"#/definitions/pool","name":"pool"}],"output":{"type":"string","value":"[format('{0}-{1}-{2}', parameters('prefix'), parameters('pool').name, parameters('pool').size)]"}},
			"loud":{"parameters":[{"type":"string","name":"s"}],"output":{"type":"string","value":"[toUpper(__bicep.label(parameters('s'), createObject('name','p','size',1)))]"}}}}],
		"resources":{},"outputs":{"o":{"type":"string","value":"[` + call + `]"}}`)
	}
	for call, want := range map[string]string{
		"__bicep.label('a', createObject('name','n','size',3))": `"a-n-3"`,
		"__bicep.loud('x')": `"X-P-1"`,
	} {
		outs, err := mustExpand(t, src(call), nil).Outputs(nil)
		if err != nil || string(outs[0].Value) != want {
			t.Errorf("%s = %s, %v; want %s", call, outs, err, want)
		}
	}
	for call, want := range map[string]string{
		"__bicep.label('a', createObject('name','n','size',0))": "less than the minimum 1",
		"__bicep.label(1, createObject('name','n','size',3))":   "Expected 'String'",
		"__bicep.label('a')": "2",
		"__bicep.other('a')": "'__bicep.other'",
	} {
		_, err := tryExpand(src(call), nil)
		wantError(t, err, CodeInvalidTemplate, want)
	}
}

// A template of Bicep modules in a subscription: a group, and a nested deployment
// in it with inner scope, whose outputs another one uses.
func TestModulesInASubscription(t *testing.T) {
	tmpl, err := Parse([]byte(strings.Replace(wrap(`"parameters":{"rg":{"type":"string","defaultValue":"made"}},
		"resources":[
		{"type":"Microsoft.Resources/resourceGroups","apiVersion":"2024-03-01","name":"[parameters('rg')]","location":"[deployment().location]"},
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"net","resourceGroup":"[parameters('rg')]","properties":{"expressionEvaluationOptions":{"scope":"inner"},"mode":"Incremental","template":{"resources":[]}},
		 "dependsOn":["[subscriptionResourceId('Microsoft.Resources/resourceGroups', parameters('rg'))]"]},
		{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"aks","resourceGroup":"[parameters('rg')]","properties":{"expressionEvaluationOptions":{"scope":"inner"},"mode":"Incremental",
		  "parameters":{"subnet":{"value":"[reference(extensionResourceId(format('/subscriptions/{0}/resourceGroups/{1}', subscription().subscriptionId, parameters('rg')), 'Microsoft.Resources/deployments', 'net'), '2022-09-01').outputs.subnet.value]"}},"template":{"resources":[]}},
		 "dependsOn":["[extensionResourceId(format('/subscriptions/{0}/resourceGroups/{1}', subscription().subscriptionId, parameters('rg')), 'Microsoft.Resources/deployments', 'net')]"]}],
		"outputs":{"cloud":{"type":"string","value":"[environment().name]"},"name":{"type":"string","value":"[deployment().name]"}}`), "deploymentTemplate", "subscriptionDeploymentTemplate", 1)))
	if err != nil {
		t.Fatal(err)
	}
	in := testInput()
	in.Scope.ResourceGroup = ResourceGroup{}
	in.DeploymentLocation = "eastus"
	g, err := tmpl.Expand(in)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]int{nil, {0}, {1}} {
		if got := g.Resources[i].DependsOn; !slices.Equal(got, want) {
			t.Errorf("%s depends on %v, want %v", g.Resources[i].ID, got, want)
		}
	}
	if g.Resources[0].Location != "eastus" || g.Resources[2].ResourceGroup != "made" || !g.Resources[2].Deferred {
		t.Errorf("%+v", g.Resources)
	}
	body, err := g.Resolve(2, fakeCloud{g.Resources[1].ID: `{"properties":{"outputs":{"subnet":{"type":"String","value":"/s"}}}}`})
	if err != nil || !strings.Contains(string(body), `"subnet":{"value":"/s"}`) {
		t.Errorf("%s, %v", body, err)
	}
}

// A serial loop stays serial if its template is evaluated in the outer scope.
func TestSerialLoopsOfNestedTemplates(t *testing.T) {
	src := func(copyLoop string) string {
		return wrap(`"resources":[{"type":"Microsoft.Resources/deployments","apiVersion":"2022-09-01","name":"outer","properties":{"mode":"Incremental",
		"template":{` + strings.TrimPrefix(strings.TrimSuffix(wrap(`"resources":[{"type":"A.B/c","apiVersion":"1","name":"[concat('n',copyIndex())]","copy":`+copyLoop+`,"dependsOn":["first"]},{"type":"A.B/d","apiVersion":"1","name":"first"}]`), "}"), "{") + `}}}]`)
	}
	body, err := mustExpand(t, src(`{"name":"l","count":4,"mode":"serial","batchSize":2}`), nil).Resolve(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := DecodeDeploymentBody(body)
	if err != nil {
		t.Fatal(err)
	}
	g := mustExpand(t, string(inner.Template), nil)
	for i, want := range [][]int{{4}, {4}, {0, 1, 4}, {0, 1, 4}, nil} {
		if got := g.Resources[i].DependsOn; !slices.Equal(got, want) {
			t.Errorf("%s depends on %v, want %v", g.Resources[i].Name, got, want)
		}
	}
	_, err = tryExpand(src(`{"name":"l","count":4,"mode":"serial","batchSize":0}`), nil)
	wantError(t, err, CodeInvalidTemplate, "must be an integer of at least 1")
}
