// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package arm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"

	"github.com/nap-aks/nap/localazure/arm"
	"github.com/nap-aks/nap/localazure/arm/armtest"
	"github.com/nap-aks/nap/localazure/arm/token"
)

// someone creates a service principal with a role, if any, and returns its
// Authorization header.
func someone(a *armtest.Azure, clientID, role, scope string) string {
	a.T.Helper()
	oid := "55555555" + clientID[8:]
	ops := token.PutOps(token.Identity{ObjectID: oid, AppID: clientID, TenantID: armtest.Tenant, DisplayName: "someone", Kind: "Application", Secrets: []string{token.HashSecret("pw")}})
	if _, err := a.Etcd.Txn(context.Background()).Then(ops...).Commit(); err != nil {
		a.T.Fatal(err)
	}
	if role != "" {
		r := a.Do("PUT", scope+"/providers/Microsoft.Authorization/roleAssignments/66666666"+clientID[8:], map[string]any{"properties": map[string]any{
			"principalId": oid, "principalType": "ServicePrincipal", "roleDefinitionId": sub + "/providers/Microsoft.Authorization/roleDefinitions/" + role}})
		if r.Status != 201 {
			a.T.Fatal(r.Body)
		}
	}
	// The server notices soon what was written to etcd directly.
	for range 3000 {
		if tok, _ := a.TryToken(clientID, "pw"); tok != "" {
			return "Bearer " + tok
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.T.Fatal("the new principal gets no token")
	return ""
}

const (
	reader      = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	clusterUser = "4abbcc35-e782-43d8-92c5-2d3f1bd2253f"
)

// The roles of a principal are checked on every request.
func TestRolesDecideWhatAPrincipalMayDo(t *testing.T) {
	a := armtest.New(t)
	a.Machinery()
	newCluster(a, "Manual")
	if r := a.Do("PUT", sub+"/resourceGroups/other", map[string]any{"location": "eastus"}); r.Status != 201 {
		t.Fatal(r.Body)
	}
	nobody := someone(a, "a0000000-0000-4000-8000-000000000001", "", "")
	looks := someone(a, "a0000000-0000-4000-8000-000000000002", reader, sub)
	works := someone(a, "a0000000-0000-4000-8000-000000000003", contributor, group)
	user := someone(a, "a0000000-0000-4000-8000-000000000004", clusterUser, clusterID)
	for _, x := range []struct {
		name, who, method, path string
		body                    any
		want                    int
	}{
		{"nobody reads", nobody, "GET", group, nil, 403},
		{"nobody lists skus", nobody, "GET", sub + "/providers/Microsoft.Compute/skus?$filter=location%20eq%20'eastus'", nil, 403},
		{"reader reads", looks, "GET", clusterID, nil, 200},
		{"reader lists", looks, "GET", sub + "/providers/Microsoft.ContainerService/managedClusters", nil, 200},
		{"reader writes", looks, "PUT", clusterID, clusterBody("Manual"), 403},
		{"reader tags", looks, "PATCH", clusterID, map[string]any{"tags": map[string]any{}}, 403},
		{"reader deletes", looks, "DELETE", clusterID, nil, 403},
		{"reader gets credentials", looks, "POST", clusterID + "/listClusterAdminCredential", nil, 403},
		{"reader deploys", looks, "PUT", deploymentID, azBody(napTemplate, "{}"), 403},
		{"reader validates", looks, "POST", deploymentID + "/validate", azBody(napTemplate, "{}"), 403},
		{"contributor in the group", works, "PATCH", clusterID, map[string]any{"tags": map[string]any{"a": "b"}}, 200},
		{"contributor elsewhere", works, "PUT", sub + "/resourceGroups/other", map[string]any{"location": "eastus"}, 403},
		{"contributor assigns a role", works, "PUT", group + "/providers/Microsoft.Authorization/roleAssignments/77777777-0000-4000-8000-000000000003", map[string]any{"properties": map[string]any{"principalId": "55555555-0000-4000-8000-000000000003", "roleDefinitionId": "/x/" + contributor}}, 403},
		{"user reads its cluster", user, "GET", clusterID, nil, 200},
		{"user gets user credentials", user, "POST", clusterID + "/listClusterUserCredential", nil, 200},
		{"user gets admin credentials", user, "POST", clusterID + "/listClusterAdminCredential", nil, 403},
		{"user reads the group", user, "GET", group, nil, 403},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := a.Do(x.method, x.path, x.body, "Authorization", x.who)
			if r.Status != x.want || x.want == 403 && r.Code() != "AuthorizationFailed" && r.Code() != "InvalidTemplateDeployment" {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		})
	}
	// A template cannot do what its sender may not do.
	r := a.Do("PUT", sub+"/resourceGroups/rg/providers/Microsoft.Resources/deployments/d", `{"properties":{"template":{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","resources":[
		{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"2022-04-01","name":"88888888-0000-4000-8000-000000000001","properties":{"principalId":"55555555-0000-4000-8000-000000000003","principalType":"ServicePrincipal","roleDefinitionId":"/x/`+contributor+`"}}]}}}`, "Authorization", works)
	if r.Status != 403 {
		t.Errorf("a role by template: %d %s", r.Status, r.Body)
	}
	// Deleting a role assignment or a principal takes effect at once.
	id := sub + "/providers/Microsoft.Authorization/roleAssignments/66666666-0000-4000-8000-000000000002"
	if r := a.Do("DELETE", id, nil); r.Status != 200 || len(r.Body) == 0 {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	if r := a.Do("GET", clusterID, nil, "Authorization", looks); r.Status != 403 {
		t.Errorf("after the role assignment was deleted: %d", r.Status)
	}
	if _, err := a.Etcd.Txn(context.Background()).Then(token.DeleteOps("55555555-0000-4000-8000-000000000003", "a0000000-0000-4000-8000-000000000003")...).Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return a.Do("GET", group, nil, "Authorization", works).Status == 401 })
}

func TestLocksRefuseChanges(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	lock := group + "/providers/Microsoft.Authorization/locks/keep"
	if r := a.Do("PUT", lock, map[string]any{"properties": map[string]any{"level": "CanNotDelete"}}); r.Status != 201 {
		t.Fatal(r.Body)
	}
	if r := a.Do("DELETE", group, nil); r.Status != 409 || r.Code() != "ScopeLocked" {
		t.Errorf("deleting a locked group: %d %s", r.Status, r.Body)
	}
	id := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/abc"
	if r := a.Do("PUT", id, map[string]any{"location": "eastus"}); r.Status != 201 {
		t.Errorf("creating in it: %d", r.Status)
	}
	if r := a.Do("PUT", lock, map[string]any{"properties": map[string]any{"level": "ReadOnly"}}); r.Status != 200 {
		t.Fatal(r.Body)
	}
	if r := a.Do("PUT", id, map[string]any{"location": "eastus"}); r.Status != 409 {
		t.Errorf("writing under a ReadOnly lock: %d", r.Status)
	}
	if r := a.Do("DELETE", lock, nil); r.Status != 200 {
		t.Fatal(r.Body)
	}
	a.MustSucceed(a.Do("DELETE", group, nil))
}

func TestTokensExpire(t *testing.T) {
	a := armtest.New(t)
	newGroup(a)
	tok := a.Token(armtest.ClientID, armtest.ClientSecret)
	a.Advance(59 * time.Minute)
	if r := a.Do("GET", group, nil, "Authorization", "Bearer "+tok); r.Status != 200 {
		t.Errorf("after 59 minutes: %d %s", r.Status, r.Body)
	}
	a.Advance(2 * time.Minute)
	if r := a.Do("GET", group, nil, "Authorization", "Bearer "+tok); r.Status != 401 || r.Code() != "ExpiredAuthenticationToken" {
		t.Errorf("after 61 minutes: %d %s", r.Status, r.Body)
	}
	// Also if the server has not validated the token before.
	a.Stop()
	a.Start()
	if r := a.Do("GET", group, nil, "Authorization", "Bearer "+tok); r.Status != 401 || r.Code() != "ExpiredAuthenticationToken" {
		t.Errorf("after a restart: %d %s", r.Status, r.Body)
	}
}

// A client can sign in with a certificate instead of a secret.
func TestSignInWithCertificate(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nap"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := armtest.New(t, func(o *arm.Options) {
		o.Owner.CertificatePEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	})
	newGroup(a)
	opts := a.ClientOptions()
	cred, err := azidentity.NewClientCertificateCredential(armtest.Tenant, armtest.ClientID, []*x509.Certificate{cert}, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: opts.ClientOptions, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	groups, err := armresources.NewResourceGroupsClient(armtest.Subscription, cred, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups.Get(t.Context(), "rg", nil); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	wrong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber = big.NewInt(2)
	der2, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &wrong.PublicKey, wrong)
	if err != nil {
		t.Fatal(err)
	}
	cert2, err := x509.ParseCertificate(der2)
	if err != nil {
		t.Fatal(err)
	}
	cred2, err := azidentity.NewClientCertificateCredential(armtest.Tenant, armtest.ClientID, []*x509.Certificate{cert2}, wrong, &azidentity.ClientCertificateCredentialOptions{ClientOptions: opts.ClientOptions, DisableInstanceDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	groups2, err := armresources.NewResourceGroupsClient(armtest.Subscription, cred2, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := groups2.Get(t.Context(), "rg", nil); err == nil || !strings.Contains(err.Error(), "AADSTS700027") {
		t.Errorf("with another certificate: %v", err)
	}
}

// Secrets are not logged, and the server's files are readable by their owner only.
func TestSecretsAreNeitherLoggedNorReadable(t *testing.T) {
	var log bytes.Buffer
	a := armtest.New(t, armtest.LogTo(&log))
	a.Machinery()
	newCluster(a, "Auto")
	tok := a.Token(armtest.ClientID, armtest.ClientSecret)
	a.Do("GET", clusterID, nil, "Authorization", "Bearer "+tok)
	secretBody := azBody(napTemplate, `{"name": {"value": "d"}, "secret": {"value": "do-not-tell-1234"}}`)
	a.MustSucceed(a.Do("PUT", deploymentID, secretBody))
	resp, err := a.Etcd.Get(t.Context(), "/nap/intent/clusters/", withPrefix)
	if err != nil || len(resp.Kvs) != 2 {
		t.Fatal(err, len(resp.Kvs))
	}
	_, rest, _ := strings.Cut(string(resp.Kvs[0].Value), `"clientSecret":"`)
	controllerSecret, _, _ := strings.Cut(rest, `"`)
	if len(controllerSecret) < 32 {
		t.Fatalf("no secret in the intent: %s", resp.Kvs[0].Value)
	}
	a.Stop()
	for name, s := range map[string]string{"the owner's secret": armtest.ClientSecret, "a token": tok, "the controller's secret": controllerSecret, "a secure parameter": "do-not-tell-1234"} {
		if bytes.Contains(log.Bytes(), []byte(s)) {
			t.Errorf("%s is in the log", name)
		}
	}
	if log.Len() == 0 {
		t.Error("the log is empty")
	}
	all, err := a.Etcd.Get(t.Context(), "/nap/arm/", withPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		for name, s := range map[string]string{"the owner's secret": armtest.ClientSecret, "the controller's secret": controllerSecret, "a secure parameter": "do-not-tell-1234"} {
			if bytes.Contains(kv.Value, []byte(s)) {
				t.Errorf("%s is in clear text in %s", name, kv.Key)
			}
		}
	}
	err = filepath.WalkDir(a.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := os.Stat(path)
		if err == nil && i.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, i.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
