// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package managedidentity_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"

	"github.com/nap-aks/nap/localazure/arm/armtest"
)

const (
	group    = "/subscriptions/" + armtest.Subscription + "/resourceGroups/rg"
	identity = group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/nap-identity"
	network  = "/providers/Microsoft.Authorization/roleDefinitions/4d97b98b-1d4f-4787-a291-c67834d212e7"
)

type object = map[string]any

func azure(t *testing.T) *armtest.Azure {
	t.Helper()
	a := armtest.New(t)
	if r := a.Do(http.MethodPut, group, object{"location": "eastus"}); r.Status != 201 {
		t.Fatalf("creating the group: %d %s", r.Status, r.Body)
	}
	return a
}

func value(t *testing.T, r armtest.Reply) []object {
	t.Helper()
	list, ok := r.JSON["value"].([]any)
	if r.Status != 200 || !ok {
		t.Fatalf("no list: %d %s", r.Status, r.Body)
	}
	out := []object{}
	for _, x := range list {
		out = append(out, x.(object))
	}
	return out
}

func TestIdentityWithTheSDK(t *testing.T) {
	a := azure(t)
	ctx := context.Background()
	c, err := armmsi.NewUserAssignedIdentitiesClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.CreateOrUpdate(ctx, "rg", "nap-identity", armmsi.Identity{Location: to.Ptr("eastus")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateOrUpdate(ctx, "rg", "nap-identity", armmsi.Identity{Location: to.Ptr("East US"), Tags: map[string]*string{"a": to.Ptr("b")},
		Properties: &armmsi.UserAssignedIdentityProperties{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if *first.Properties.PrincipalID == *first.Properties.ClientID || len(*first.Properties.PrincipalID) != 36 || *first.Properties.TenantID != armtest.Tenant ||
		*first.Properties.PrincipalID != *again.Properties.PrincipalID || *first.Properties.ClientID != *again.Properties.ClientID {
		t.Errorf("the identity is %+v, then %+v", first.Properties, again.Properties)
	}
	if _, err := c.Update(ctx, "rg", "nap-identity", armmsi.IdentityUpdate{Tags: map[string]*string{"x": to.Ptr("y")}}, nil); err != nil {
		t.Errorf("new tags: %v", err)
	}
	n := 0
	for pager := c.NewListByResourceGroupPager("rg", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(page.Value)
	}
	if n != 1 {
		t.Errorf("the group lists %d identities, want 1", n)
	}
	fed, err := armmsi.NewFederatedIdentityCredentialsClient(armtest.Subscription, a.Owner(), a.ClientOptions())
	if err != nil {
		t.Fatal(err)
	}
	props := &armmsi.FederatedIdentityCredentialProperties{Issuer: to.Ptr("https://issuer.example/"), Subject: to.Ptr("system:serviceaccount:ns:sa"), Audiences: []*string{to.Ptr("api://AzureADTokenExchange")}}
	got, err := fed.CreateOrUpdate(ctx, "rg", "nap-identity", "pod", armmsi.FederatedIdentityCredential{Properties: props}, nil)
	if err != nil || *got.Properties.Subject != *props.Subject || *got.ID != identity+"/federatedIdentityCredentials/pod" {
		t.Errorf("the federated credential is %+v, %v", got, err)
	}
	var re *azcore.ResponseError
	if _, err := fed.CreateOrUpdate(ctx, "rg", "nap-identity", "twin", armmsi.FederatedIdentityCredential{Properties: props}, nil); !errors.As(err, &re) || re.StatusCode != 409 {
		t.Errorf("the same issuer and subject twice: %v", err)
	}
	if _, err := c.Delete(ctx, "rg", "nap-identity", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := fed.Get(ctx, "rg", "nap-identity", "pod", nil); !errors.As(err, &re) || re.StatusCode != 404 {
		t.Errorf("the credential of a deleted identity still exists: %v", err)
	}
}

// The requests of `az identity create`, `az identity show --query principalId`
// and `az role assignment create --assignee $principalId --role "Network
// Contributor" --scope $subnet`, in this order.
func TestRoleAssignmentByAssignee(t *testing.T) {
	a := azure(t)
	vnet := group + "/providers/Microsoft.Network/virtualNetworks/net"
	a.MustSucceed(a.Do(http.MethodPut, vnet, object{"location": "eastus", "properties": object{"addressSpace": object{"addressPrefixes": []string{"10.0.0.0/16"}},
		"subnets": []any{object{"name": "nodes", "properties": object{"addressPrefix": "10.0.0.0/24"}}}}}))
	scope := vnet + "/subnets/nodes"

	created := a.Do(http.MethodPut, identity+"?api-version=2025-05-31-preview", object{"location": "eastus"})
	if created.Status != 201 || created.Header.Get("Azure-AsyncOperation")+created.Header.Get("Location") != "" {
		t.Fatalf("creating an identity must not be a long-running operation: %d %v %s", created.Status, created.Header, created.Body)
	}
	if again := a.Do(http.MethodPut, identity+"?api-version=2023-01-31", object{"location": "eastus"}); again.Status != 200 {
		t.Errorf("a second PUT: %d", again.Status)
	}
	principal := created.JSON["properties"].(object)["principalId"].(string)
	client := created.JSON["properties"].(object)["clientId"].(string)

	graph := func(q string) armtest.Reply { return a.Do(http.MethodGet, "/v1.0/servicePrincipals?$filter="+q, nil) }
	byName := func(x string) string {
		return strings.ReplaceAll("servicePrincipalNames/any(c:c eq '"+x+"')", " ", "%20")
	}
	if got := value(t, graph(byName(principal))); len(got) != 0 {
		t.Errorf("a principal ID is not a service principal name, but returns %v", got)
	}
	if got := value(t, graph(byName(client))); len(got) != 1 || got[0]["id"] != principal {
		t.Errorf("the client ID returns %v", got)
	}
	byIDs := value(t, a.Do(http.MethodPost, "/v1.0/directoryObjects/getByIds", object{"ids": []string{principal}, "types": []string{"user", "group", "servicePrincipal"}}))
	if len(byIDs) != 1 || byIDs[0]["@odata.type"] != "#microsoft.graph.servicePrincipal" || byIDs[0]["id"] != principal {
		t.Fatalf("getByIds returns %v", byIDs)
	}
	defs := value(t, a.Do(http.MethodGet, scope+"/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'Network%20Contributor'&api-version=2022-05-01-preview", nil))
	if len(defs) != 1 || !strings.HasSuffix(defs[0]["id"].(string), network) {
		t.Fatalf("the role definitions are %v", defs)
	}
	at := scope + "/providers/Microsoft.Authorization/roleAssignments/"
	body := object{"properties": object{"roleDefinitionId": defs[0]["id"], "principalId": principal, "principalType": "ServicePrincipal"}}
	first := a.Do(http.MethodPut, at+"55555555-5555-4555-8555-555555555555?api-version=2022-04-01", body)
	if first.Status != 201 || first.JSON["properties"].(object)["scope"] != scope {
		t.Fatalf("the assignment: %d %s", first.Status, first.Body)
	}
	if r := a.Do(http.MethodPut, at+"66666666-6666-4666-8666-666666666666?api-version=2022-04-01", body); r.Status != 409 || r.Code() != "RoleAssignmentExists" {
		t.Errorf("the same assignment again: %d %s", r.Status, r.Body)
	}
	list := value(t, a.Do(http.MethodGet, scope+"/providers/Microsoft.Authorization/roleAssignments?$filter=atScope()%20and%20assignedTo('"+principal+"')&api-version=2022-04-01", nil))
	if len(list) != 1 {
		t.Errorf("the list is %v", list)
	}
	if r := a.Do(http.MethodDelete, list[0]["id"].(string)+"?api-version=2022-04-01", nil); r.Status != 200 || r.JSON["name"] != "55555555-5555-4555-8555-555555555555" {
		t.Errorf("az reads the body of a deleted assignment: %d %s", r.Status, r.Body)
	}
}

func TestDirectoryObjects(t *testing.T) {
	a := azure(t)
	for _, c := range []struct {
		what, path string
		status, n  int
	}{
		{"the owner by its application ID", "/v1.0/servicePrincipals?$filter=appId%20eq%20'" + armtest.ClientID + "'", 200, 1},
		{"the owner by name", "/v1.0/servicePrincipals?$filter=displayName%20eq%20'nap-owner'", 200, 1},
		{"the owner by the start of its name", "/v1.0/servicePrincipals?$filter=startswith(displayName,'nap')", 200, 1},
		{"users by name", "/v1.0/users?$filter=userPrincipalName%20eq%20'a@b.c'", 200, 0},
		{"groups", "/v1.0/groups", 200, 0},
		{"an unsupported filter", "/v1.0/servicePrincipals?$filter=accountEnabled%20eq%20true", 400, 0},
		{"me, as a service principal", "/v1.0/me", 400, 0},
		{"an unknown principal", "/v1.0/servicePrincipals/77777777-7777-4777-8777-777777777777", 404, 0},
		{"the owner by its key", "/v1.0/servicePrincipals(appId='" + armtest.ClientID + "')", 200, -1},
		{"an unsupported resource", "/v1.0/chats", 400, 0},
	} {
		r := a.Do(http.MethodGet, c.path, nil)
		list, _ := r.JSON["value"].([]any)
		if r.Status != c.status || c.n >= 0 && len(list) != c.n || c.n < 0 && r.JSON["appId"] != armtest.ClientID {
			t.Errorf("%s: %d %s, want %d and %d elements", c.what, r.Status, r.Body, c.status, c.n)
		}
	}
	if r := a.Do(http.MethodGet, "/v1.0/users", nil, "Authorization", "Bearer forged"); r.Status != 401 {
		t.Errorf("a forged token: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodPost, "/v1.0/directoryObjects/getByIds", "no JSON"); r.Status != 400 {
		t.Errorf("a body that is not JSON: %d %s", r.Status, r.Body)
	}
}

// Deleting an identity deletes its principal and its role assignments.
func TestDeletedIdentityLosesItsRoles(t *testing.T) {
	a := azure(t)
	p := a.Do(http.MethodPut, identity, object{"location": "eastus"}).JSON["properties"].(object)["principalId"].(string)
	at := group + "/providers/Microsoft.Authorization/roleAssignments"
	if r := a.Do(http.MethodPut, at+"/88888888-8888-4888-8888-888888888888", object{"properties": object{"principalId": p, "roleDefinitionId": "/subscriptions/" + armtest.Subscription + network}}); r.Status != 201 {
		t.Fatalf("assigning: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodDelete, identity, nil); r.Status != 200 {
		t.Fatalf("deleting: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, "/v1.0/servicePrincipals/"+p, nil); r.Status != 404 {
		t.Errorf("the principal still exists: %d %s", r.Status, r.Body)
	}
	if r := a.Do(http.MethodGet, at+"?$filter=principalId%20eq%20'"+p+"'", nil); len(value(t, r)) != 0 {
		t.Errorf("the assignment still exists: %s", r.Body)
	}
}
