// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testSub    = "00000000-0000-0000-0000-000000000001"
	testTenant = "00000000-0000-0000-0000-00000000000f"
)

func testInput() Input {
	return Input{
		Scope: Scope{TenantID: testTenant, SubscriptionID: testSub, SubscriptionName: "Local",
			ResourceGroup: ResourceGroup{Name: "rg", Location: "eastus", Tags: map[string]string{"env": "dev"}}},
		DeploymentName: "nap", DeployerObjectID: "who",
		Now: time.Date(2026, 11, 24, 9, 5, 7, 120_000_000, time.UTC),
	}
}

// evalText evaluates "[...]" outside of any template's resources.
func evalText(t *testing.T, expression string) (string, error) {
	t.Helper()
	tmpl, err := Parse([]byte(`{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0",
	"parameters":{"region":{"type":"string","defaultValue":"westus"}},
	"variables":{"list":[3,1,2],"obj":{"Alpha":{"beta":[10,20]},"gamma":"g"},"text":"abc"},
	"functions":[{"namespace":"my","members":{"twice":{"parameters":[{"name":"s","type":"string"}],"output":{"type":"string","value":"[concat(parameters('s'),parameters('s'))]"}}}}],
	"resources":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: tmpl, in: testInput(), meter: &meter{}, exprs: &sync.Map{}, given: map[string]any{}, params: map[string]any{}, vars: map[string]any{}, busy: map[string]bool{}}
	v, err := (&frame{env: e, inDefault: true}).value(&node{kind: kindString, str: expression})
	if err != nil {
		return "", err
	}
	b, err := e.meter.encode(v)
	return string(b), err
}

func mustExpand(t *testing.T, src string, params map[string]string) *Graph {
	t.Helper()
	g, err := tryExpand(src, params)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func tryExpand(src string, params map[string]string) (*Graph, error) {
	tmpl, err := Parse([]byte(src))
	if err != nil {
		return nil, err
	}
	in := testInput()
	in.Parameters = map[string]json.RawMessage{}
	for k, v := range params {
		in.Parameters[k] = json.RawMessage(v)
	}
	return tmpl.Expand(in)
}

// wrap returns a template with the given sections.
func wrap(sections string) string {
	return `{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0",` + sections + `}`
}

func wantError(t *testing.T, err error, code, text string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an *Error", err, err)
	}
	if e.Code != code || !strings.Contains(e.Message, text) {
		t.Fatalf("got %s: %s\nwant %s with %q", e.Code, e.Message, code, text)
	}
	return e
}

// fakeCloud is a Runtime with resources by ID.
type fakeCloud map[string]string

func (c fakeCloud) Reference(id, apiVersion string) ([]byte, error) {
	for k, v := range c {
		if strings.EqualFold(k, id) {
			return []byte(v), nil
		}
	}
	return nil, fmt.Errorf("ResourceNotFound: %s at %s", id, apiVersion)
}

func (c fakeCloud) List(fn, id, apiVersion string, input []byte) ([]byte, error) {
	return json.Marshal(map[string]any{"fn": fn, "id": id, "version": apiVersion, "input": string(input)})
}

func ids(g *Graph) []string {
	out := []string{}
	for _, r := range g.Resources {
		out = append(out, strings.TrimPrefix(r.ID, "/subscriptions/"+testSub+"/resourceGroups/rg/providers/"))
	}
	return out
}
