// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const ownerRole = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

// role returns the body of a custom role that allows everything at a scope.
func role(name, scope string) map[string]any {
	return map[string]any{"properties": map[string]any{"roleName": name, "assignableScopes": []string{scope},
		"permissions": []any{map[string]any{"actions": []string{"*"}}}}}
}

func assignmentOf(definition string) map[string]any {
	return map[string]any{"properties": map[string]any{"principalId": "55555555-0000-4000-8000-000000000012", "principalType": "ServicePrincipal", "roleDefinitionId": definition}}
}

// What a path names must not decide what its sender may do: a request without a
// subscription reaches the same records.
func TestTenantPathsGiveNoRights(t *testing.T) {
	a := armtest.New(t)
	if r := a.Do("PUT", group, map[string]any{"location": "eastus"}); r.Status >= 300 {
		t.Fatal(r.Body)
	}
	works := someone(a, "a0000000-0000-4000-8000-000000000011", contributor, group)
	owns := someone(a, "a0000000-0000-4000-8000-000000000012", ownerRole, group)
	nobody := someone(a, "a0000000-0000-4000-8000-000000000013", "", "")
	const definitions, assignments = "/providers/Microsoft.Authorization/roleDefinitions/", "/providers/Microsoft.Authorization/roleAssignments/"
	const one, two = "99999999-0000-4000-8000-000000000001", "99999999-0000-4000-8000-000000000002"
	feature := "/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/NodeAutoProvisioningPreview/register"
	for _, x := range []struct {
		name, who, method, path string
		body                    any
		want                    int
	}{
		{"a contributor defines a role of the tenant", works, "PUT", definitions + one, role("mine", sub), 403},
		{"a contributor defines a role", works, "PUT", sub + definitions + one, role("mine", sub), 403},
		{"a group's owner defines a role of the tenant", owns, "PUT", definitions + one, role("mine", group), 403},
		{"a group's owner defines a role for the subscription", owns, "PUT", group + definitions + one, role("mine", sub), 403},
		{"a group's owner defines a role for the group", owns, "PUT", group + definitions + one, role("mine", group), 201},
		{"a group's owner widens the role", owns, "PUT", group + definitions + one, role("mine", sub), 403},
		{"a contributor deletes the role", works, "DELETE", definitions + one, nil, 403},
		{"a role for another tenant's scope", "", "PUT", sub + definitions + two, role("far", "/subscriptions/00000000-0000-0000-0000-00000000dead"), 400},
		{"the role outside of its scopes", "", "PUT", sub + assignments + one, assignmentOf(sub + definitions + one), 400},
		{"the role within its scopes", "", "PUT", group + assignments + one, assignmentOf(sub + definitions + one), 201},
		{"an assignment for the tenant", "", "PUT", assignments + two, assignmentOf(sub + definitions + ownerRole), 404},
		{"an assignment for the tenant by a group's owner", owns, "PUT", assignments + two, assignmentOf(sub + definitions + ownerRole), 403},
		{"nobody registers a feature", nobody, "POST", sub + feature, nil, 403},
		{"nobody locks the tenant", nobody, "PUT", "/providers/Microsoft.Authorization/locks/l", map[string]any{"properties": map[string]any{"level": "ReadOnly"}}, 403},
		{"a contributor locks an invented group", works, "PUT", sub + "/resourceGroups/nowhere/providers/Microsoft.Authorization/locks/l", map[string]any{"properties": map[string]any{"level": "ReadOnly"}}, 403},
	} {
		t.Run(x.name, func(t *testing.T) {
			var header []string
			if x.who != "" {
				header = []string{"Authorization", x.who}
			}
			if r := a.Do(x.method, x.path, x.body, header...); r.Status != x.want {
				t.Errorf("%d %s, want %d", r.Status, r.Body, x.want)
			}
		})
	}
}

// Lists hold what the caller may read, wherever they are asked for.
func TestListsHoldWhatTheCallerMayRead(t *testing.T) {
	a := armtest.New(t)
	for _, g := range []string{group, sub + "/resourceGroups/other"} {
		if r := a.Do("PUT", g, map[string]any{"location": "eastus"}); r.Status >= 300 {
			t.Fatal(r.Body)
		}
		identity := g + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one-id"
		if r := a.Do("PUT", identity, map[string]any{"location": "eastus"}); r.Status >= 300 {
			t.Fatal(r.Body)
		}
	}
	works := someone(a, "a0000000-0000-4000-8000-000000000021", contributor, group)
	nobody := someone(a, "a0000000-0000-4000-8000-000000000022", "", "")
	someone(a, "a0000000-0000-4000-8000-000000000023", reader, sub)
	for _, path := range []string{sub + "/resourcegroups", sub + "/resources", "/providers/Microsoft.Authorization/roleAssignments", sub + "/providers/Microsoft.Authorization/roleAssignments"} {
		r := a.Do("GET", path, nil, "Authorization", works)
		var list struct {
			Value []struct {
				ID string `json:"id"`
			} `json:"value"`
		}
		if err := json.Unmarshal([]byte(r.Body), &list); err != nil || r.Status != 200 || len(list.Value) == 0 {
			t.Errorf("%s: %d %s", path, r.Status, r.Body)
		}
		for _, v := range list.Value {
			if !strings.HasPrefix(strings.ToLower(v.ID), strings.ToLower(group)) {
				t.Errorf("%s shows %s to a contributor of %s", path, v.ID, group)
			}
		}
		if r := a.Do("GET", path, nil, "Authorization", nobody); r.Status == 200 && !strings.Contains(strings.ReplaceAll(string(r.Body), " ", ""), `"value":[]`) {
			t.Errorf("%s shows to somebody without a role: %s", path, r.Body)
		}
	}
}

// Who starts an operation can follow it; others see it only if they may read its target.
func TestOperationsAreNotForEverybody(t *testing.T) {
	a := armtest.New(t)
	for _, g := range []string{group, sub + "/resourceGroups/other"} {
		if r := a.Do("PUT", g, map[string]any{"location": "eastus"}); r.Status >= 300 {
			t.Fatal(r.Body)
		}
	}
	works := someone(a, "a0000000-0000-4000-8000-000000000031", contributor, group)
	elsewhere := someone(a, "a0000000-0000-4000-8000-000000000032", contributor, sub+"/resourceGroups/other")
	r := a.Do("DELETE", group, nil, "Authorization", works)
	at := r.Header.Get("Location")
	if r.Status != 202 || at == "" {
		t.Fatalf("%d %s, Location %q", r.Status, r.Body, at)
	}
	path := at[strings.Index(at, "/subscriptions/"):]
	if r := a.Do("GET", path, nil, "Authorization", works); r.Status != 202 && r.Status != 200 {
		t.Errorf("the one who deletes polls: %d %s", r.Status, r.Body)
	}
	if r := a.Do("GET", path, nil, "Authorization", elsewhere); r.Status != 404 {
		t.Errorf("a contributor of another group polls: %d %s", r.Status, r.Body)
	}
}
