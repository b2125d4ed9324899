// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	sdkarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Credential signs in as a service principal.
func (a *Azure) Credential(clientID, secret string) azcore.TokenCredential {
	a.T.Helper()
	c, err := azidentity.NewClientSecretCredential(Tenant, clientID, secret, &azidentity.ClientSecretCredentialOptions{ClientOptions: a.clientOptions(), DisableInstanceDiscovery: true})
	if err != nil {
		a.T.Fatal(err)
	}
	return c
}

// Owner signs in as the subscription's owner.
func (a *Azure) Owner() azcore.TokenCredential { return a.Credential(ClientID, ClientSecret) }

func (a *Azure) clientOptions() policy.ClientOptions {
	return policy.ClientOptions{
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: a.URL + "/", Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Endpoint: a.URL, Audience: a.URL + "/"}}},
		Transport: a.HTTP, Retry: policy.RetryOptions{MaxRetries: -1},
	}
}

// ClientOptions returns the options for the SDK's clients.
func (a *Azure) ClientOptions() *sdkarm.ClientOptions {
	return &sdkarm.ClientOptions{ClientOptions: a.clientOptions(), DisableRPRegistration: true}
}

// Token returns a bearer token of a service principal for ARM.
func (a *Azure) Token(clientID, secret string) string {
	a.T.Helper()
	tok, why := a.TryToken(clientID, secret)
	if tok == "" {
		a.T.Fatalf("getting a token: %s", why)
	}
	return tok
}

// TryToken is like Token but returns the reason if no token is issued.
func (a *Azure) TryToken(clientID, secret string) (token, why string) {
	a.T.Helper()
	resp, err := a.HTTP.PostForm(a.URL+"/"+Tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {secret}, "scope": {a.URL + "//.default"}})
	if err != nil {
		a.T.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		AccessToken string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		a.T.Fatal(err)
	}
	return body.AccessToken, body.Description
}

// Reply is a response whose body has been read.
type Reply struct {
	Status int
	Header http.Header
	Body   string
	JSON   map[string]any
}

// Code returns the error code in the body, wrapped or flat.
func (r Reply) Code() string {
	if e, ok := r.JSON["error"].(map[string]any); ok {
		s, _ := e["code"].(string)
		return s
	}
	s, _ := r.JSON["code"].(string)
	return s
}

// Message returns the error message in the body.
func (r Reply) Message() string {
	if e, ok := r.JSON["error"].(map[string]any); ok {
		s, _ := e["message"].(string)
		return s
	}
	s, _ := r.JSON["message"].(string)
	return s
}

// Do sends a request as the owner. It adds an api-version to a path without one,
// and encodes a body that is not a string as JSON. extra are pairs of header and
// value.
func (a *Azure) Do(method, path string, body any, extra ...string) Reply {
	a.T.Helper()
	r, err := a.Try(method, path, body, extra...)
	if err != nil {
		a.T.Fatal(err)
	}
	return r
}

// Try is like Do but returns the error.
func (a *Azure) Try(method, path string, body any, extra ...string) (Reply, error) {
	if !strings.Contains(path, "api-version") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=2025-10-01"
	}
	if !strings.HasPrefix(path, "https:") {
		path = a.URL + path
	}
	var rd io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		rd = strings.NewReader(b)
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			return Reply{}, err
		}
		rd = strings.NewReader(string(enc))
	}
	req, err := http.NewRequest(method, path, rd)
	if err != nil {
		return Reply{}, err
	}
	// Every server has its own signing key, even if it gets the port of another.
	a.signIn.Do(func() { a.ownerToken = a.Token(ClientID, ClientSecret) })
	req.Header.Set("Authorization", "Bearer "+a.ownerToken)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(extra); i += 2 {
		req.Header.Set(extra[i], extra[i+1])
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		return Reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return Reply{}, err
	}
	out := Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
	_ = json.Unmarshal(b, &out.JSON)
	return out, nil
}

// Wait polls the operation of a reply until it ends and returns the last reply.
func (a *Azure) Wait(r Reply) Reply {
	a.T.Helper()
	where := r.Header.Get("Azure-AsyncOperation")
	location := where == ""
	if location {
		where = r.Header.Get("Location")
	}
	if where == "" {
		return r
	}
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		p := a.Do(http.MethodGet, where, nil)
		if location && p.Status != http.StatusAccepted {
			return p
		}
		if st, _ := p.JSON["status"].(string); st != "" && st != "InProgress" && st != "Running" && st != "Accepted" {
			return p
		}
		time.Sleep(20 * time.Millisecond)
	}
	a.T.Fatalf("the operation %s did not end", where)
	return Reply{}
}

// MustSucceed fails the test unless the operation of a reply succeeds.
func (a *Azure) MustSucceed(r Reply) {
	a.T.Helper()
	if r.Status >= 300 {
		a.T.Fatalf("status %d: %s", r.Status, r.Body)
	}
	if end := a.Wait(r); end.Status >= 300 || end.JSON["status"] != nil && end.JSON["status"] != "Succeeded" {
		a.T.Fatalf("the operation ended as: %d %s", end.Status, end.Body)
	}
}
