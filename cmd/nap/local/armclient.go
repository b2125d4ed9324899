// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nap-aks/nap/azure/instancetype"
	"github.com/nap-aks/nap/localazure/home"
	"github.com/nap-aks/nap/plan"
)

// armClient sends requests to the instance's Resource Manager with the owner's
// credentials.
type armClient struct {
	base  string
	token string
	http  *http.Client
	sub   string
}

const armVersion = "2025-10-01"

func dialARM(ctx context.Context) (*armClient, error) {
	h, err := openHome()
	if err != nil {
		return nil, err
	}
	i, err := home.ReadInstance(h)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA certificate of the local Azure: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", i.CAFile)
	}
	secret, err := i.ClientSecret()
	if err != nil {
		return nil, err
	}
	c := &armClient{base: i.ARMEndpoint, sub: i.SubscriptionID, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {i.ClientID}, "client_secret": {secret}, "scope": {i.ARMEndpoint + "/.default"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, i.ARMEndpoint+"/"+i.TenantID+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var t struct {
		AccessToken string `json:"access_token"`
	}
	if _, err := c.send(req, &t); err != nil {
		return nil, fmt.Errorf("signing in to the local Azure (is it up? nap status): %w", err)
	}
	c.token = t.AccessToken
	return c, nil
}

func (c *armClient) do(ctx context.Context, method, path string, body, into any) (http.Header, error) {
	if !strings.HasPrefix(path, "https:") {
		path = c.base + path + "?api-version=" + armVersion
	}
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, rd)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	return c.send(req, into)
}

func (c *armClient) send(req *http.Request, into any) (http.Header, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		var e struct {
			Code, Message string
			Error         json.RawMessage
		}
		_ = json.Unmarshal(b, &e) // other bodies have no code and message
		var inner struct{ Code, Message string }
		if json.Unmarshal(e.Error, &inner) == nil && inner.Code != "" {
			e.Code, e.Message = inner.Code, inner.Message
		}
		return nil, fmt.Errorf("%s (%s)", e.Message, e.Code)
	}
	if into != nil && len(b) > 0 {
		if err := json.Unmarshal(b, into); err != nil {
			return nil, fmt.Errorf("decoding the response of %s: %w", req.URL.Path, err)
		}
	}
	return resp.Header, nil
}

// cluster finds a cluster by name or resource ID, or the only one if name is empty.
func (c *armClient) cluster(ctx context.Context, name string) (id, short string, err error) {
	var list struct {
		Value []struct{ ID, Name string }
	}
	if _, err := c.do(ctx, http.MethodGet, "/subscriptions/"+c.sub+"/providers/Microsoft.ContainerService/managedClusters", nil, &list); err != nil {
		return "", "", err
	}
	var found []string
	for _, x := range list.Value {
		if name == "" || strings.EqualFold(name, x.Name) || strings.EqualFold(name, x.ID) {
			id, short = x.ID, x.Name
			found = append(found, x.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("no cluster %q; nap status lists the clusters", name)
	case 1:
		return id, short, nil
	}
	return "", "", fmt.Errorf("more than one cluster; choose one with --cluster: %s", strings.Join(found, ", "))
}

// follow prints the progress of an operation on a cluster until it ends. When ctx
// is done, follow aborts the operation and waits for its end.
func (c *armClient) follow(ctx context.Context, w io.Writer, id, poll, done, aborting string) error {
	last, aborted, failures := "", false, 0
	bg := context.WithoutCancel(ctx)
	for {
		var s struct {
			Status     string
			Properties struct{ Progress string }
			Error      *struct{ Code, Message string }
		}
		if _, err := c.do(bg, http.MethodGet, poll, nil, &s); err != nil {
			// The operation survives a restart of the Resource Manager: retry.
			if failures++; failures > 60 {
				return err
			}
		} else {
			failures = 0
		}
		if p := s.Properties.Progress; p != "" && p != last {
			fmt.Fprintln(w, p)
			last = p
		}
		switch s.Status {
		case "Succeeded":
			fmt.Fprintln(w, done)
			return nil
		case "Failed", "Canceled":
			if s.Error == nil {
				return fmt.Errorf("the operation ended with status %s", s.Status)
			}
			return fmt.Errorf("%s (%s)", s.Error.Message, s.Error.Code)
		}
		stop := ctx.Done()
		if aborted {
			stop = nil
		}
		select {
		case <-time.After(time.Second):
		case <-stop:
			aborted = true
			fmt.Fprintln(w, aborting)
			if _, err := c.do(bg, http.MethodPost, id+"/abort", nil, nil); err != nil {
				return err
			}
		}
	}
}

// usages returns the subscription's usage of its compute quotas in the region of a
// cluster.
func (c *armClient) usages(ctx context.Context, cluster string) (region string, list []instancetype.Usage, err error) {
	var have struct{ Location string }
	if _, err := c.do(ctx, http.MethodGet, cluster, nil, &have); err != nil {
		return "", nil, err
	}
	path := "/subscriptions/" + c.sub + "/providers/Microsoft.Compute/locations/" + have.Location + "/usages"
	var body json.RawMessage
	if _, err := c.do(ctx, http.MethodGet, path, nil, &body); err != nil {
		return "", nil, fmt.Errorf("reading the subscription's compute usages: %w", err)
	}
	list, err = plan.ParseUsage(path, body)
	return have.Location, list, err
}
