// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"github.com/nap-aks/nap/azure"
	"github.com/nap-aks/nap/catalog"
)

// Endpoint is the address of the simulated Azure Resource Manager, PricesEndpoint that
// of the Retail Prices API.
const (
	Endpoint       = "https://management.sim"
	PricesEndpoint = "https://prices.sim"
)

// errLost is what a client sees of a broken connection.
var errLost = errors.New("connection reset by peer")

// Config returns the configuration of a provider whose requests go through the
// transport.
func (c *Cloud) Config(transport http.RoundTripper) azure.Config {
	return azure.Config{
		ARMEndpoint: Endpoint, TenantID: Tenant, ClientID: "33333333-3333-3333-3333-333333333333", ClientSecret: "secret",
		ClusterResourceID: ClusterID, PricesEndpoint: PricesEndpoint, HTTPClient: &http.Client{Transport: transport, Timeout: 2 * time.Minute}, VMMemoryOverheadPercent: -1,
	}
}

// Transport returns the transport by which the Azure SDK reaches the cloud.
func (c *Cloud) Transport() http.RoundTripper { return roundTripper(c.roundTrip) }

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	body   any
}

func refuse(status int, code, format string, args ...any) reply {
	return reply{status: status, body: map[string]any{"error": map[string]any{"code": code, "message": fmt.Sprintf(format, args...)}}}
}

func (c *Cloud) roundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	call := callOf(r)
	c.count(call)
	wait := func(d time.Duration) error {
		if d <= 0 {
			return ctx.Err()
		}
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	latency := c.options.Latency.draw(c.options.Rand)
	c.mu.Unlock()
	var f Fault
	if c.options.Intercept != nil {
		f = c.options.Intercept(ctx, &call)
	}
	if f.Hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := wait(f.Before + latency/2); err != nil {
		return nil, err
	}
	var a reply
	if f.Status != 0 {
		a = refuse(f.Status, f.Code, "%s", f.Message)
		if f.RetryAfter > 0 {
			a.header = http.Header{"Retry-After": {strconv.Itoa(seconds(f.RetryAfter))}}
		}
	} else if throttled, ok := c.throttle(call); ok {
		a = throttled
	} else {
		a = c.handle(r, call, body)
	}
	if err := wait(f.After + latency/2); err != nil {
		return nil, err
	}
	if f.Lose {
		return nil, errLost
	}
	text, err := encode(a.body)
	if err != nil {
		return nil, err
	}
	resp := &http.Response{
		StatusCode: a.status, Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Request: r, ContentLength: int64(len(text)), Body: io.NopCloser(bytes.NewReader(text)),
	}
	for k, v := range a.header {
		resp.Header[k] = v
	}
	return resp, nil
}

// encode returns the text of an answer's body.
func encode(body any) ([]byte, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		return b, nil
	}
	return json.Marshal(body)
}

var poolPath = strings.ToLower(ClusterID) + "/agentpools/" + azure.DefaultMachinesPool

// callOf says what a request asks for.
func callOf(r *http.Request) Call {
	call := Call{Method: r.Method}
	path := strings.ToLower(r.URL.Path)
	switch {
	case r.URL.Host == "prices.sim":
		call.Operation = "prices"
	case strings.HasSuffix(path, "/.well-known/openid-configuration"), strings.HasSuffix(path, "/oauth2/v2.0/token"):
		call.Operation = "token"
	case path == strings.ToLower(ClusterID):
		call.Operation = "cluster"
	case strings.HasSuffix(path, "/providers/microsoft.compute/skus"):
		call.Operation = "skus"
	case strings.HasSuffix(path, "/usages"):
		call.Operation = "usages"
	case strings.HasSuffix(path, "/nodeimageversions"):
		call.Operation = "images"
	case path == poolPath+"/machines":
		call.Operation = "machines"
	case strings.HasPrefix(path, poolPath+"/machines/"):
		call.Operation, call.Machine = "machine", r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	case path == poolPath+"/deletemachines":
		call.Operation = "delete"
	case strings.HasPrefix(path, operationsPath), strings.HasPrefix(path, resultsPath):
		call.Operation, call.Machine = "operation", r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	}
	return call
}

func (c *Cloud) handle(r *http.Request, call Call, body []byte) reply {
	switch call.Operation {
	case "token":
		return c.token(r)
	case "prices":
		return c.retailPrices(r.URL.Query())
	}
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return refuse(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	}
	if r.URL.Query().Get("api-version") == "" {
		return refuse(http.StatusBadRequest, "MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	switch call.Operation {
	case "cluster":
		network := map[string]any{"networkPlugin": "azure", "networkPluginMode": "overlay"}
		if c.options.Dataplane != "" {
			network["networkDataplane"], network["networkPolicy"] = c.options.Dataplane, c.options.Dataplane
		}
		return reply{status: 200, body: map[string]any{"id": ClusterID, "name": "sim", "location": c.options.Location, "properties": map[string]any{
			"nodeResourceGroup": NodeGroup, "networkProfile": network,
			"kubernetesVersion": c.options.Kubernetes, "currentKubernetesVersion": c.options.Kubernetes,
		}}}
	case "skus":
		return c.skus()
	case "usages":
		return c.usages()
	case "images":
		return images()
	case "machines":
		return c.listMachines()
	case "machine":
		switch r.Method {
		case http.MethodGet:
			return c.getMachine(call.Machine)
		case http.MethodPut:
			return c.putMachine(r, call.Machine, body)
		}
	case "delete":
		return c.deleteMachines(body)
	case "operation":
		return c.poll(call.Machine, strings.HasPrefix(strings.ToLower(r.URL.Path), resultsPath))
	}
	return refuse(http.StatusNotFound, "ResourceNotFound", "%s %s was not found.", r.Method, r.URL.Path)
}

func (c *Cloud) token(r *http.Request) reply {
	base := Endpoint + "/" + Tenant
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		return reply{status: 200, body: map[string]string{"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token"}}
	}
	return reply{status: 200, body: map[string]any{"token_type": "Bearer", "expires_in": 86399, "access_token": "token"}}
}

func images() reply {
	var list armcontainerservice.NodeImageVersionsListResult
	for _, sku := range []string{"2404gen2containerd", "2404containerd", "2404gen2arm64containerd", "2204gen2containerd", "2204containerd", "2204gen2arm64containerd"} {
		list.Value = append(list.Value, &armcontainerservice.NodeImageVersion{OS: to.Ptr("AKSUbuntu"), SKU: to.Ptr(sku), Version: to.Ptr("202611.2.0")})
	}
	return reply{status: 200, body: list}
}

// skus answers the sizes of the location.
func (c *Cloud) skus() reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skuList == nil {
		text, err := json.Marshal(armcompute.ResourceSKUsResult{Value: catalog.SKUs(c.options.Location)})
		if err != nil {
			return refuse(http.StatusInternalServerError, "InternalServerError", "%v", err)
		}
		c.skuList = text
	}
	return reply{status: 200, body: json.RawMessage(c.skuList)}
}

// pricesPerPage is how many prices a page of the Retail Prices API has.
const pricesPerPage = 1000

// retailPrices answers a page of the Retail Prices API: of the sizes of the location,
// at what they cost now.
func (c *Cloud) retailPrices(query url.Values) reply {
	type item struct {
		ArmSKUName    string  `json:"armSkuName"`
		SKUName       string  `json:"skuName"`
		ProductName   string  `json:"productName"`
		MeterName     string  `json:"meterName"`
		ArmRegionName string  `json:"armRegionName"`
		RetailPrice   float64 `json:"retailPrice"`
		UnitOfMeasure string  `json:"unitOfMeasure"`
		CurrencyCode  string  `json:"currencyCode"`
	}
	items := []item{}
	if strings.Contains(query.Get("$filter"), "armRegionName eq '"+c.options.Location+"'") {
		c.mu.Lock()
		for _, name := range slices.Sorted(maps.Keys(c.sizes)) {
			s := c.sizes[name]
			meter := strings.ReplaceAll(strings.TrimPrefix(s.Name, "Standard_"), "_", " ")
			for _, spot := range []bool{false, true} {
				usd, suffix := c.price(s, spot), ""
				if spot {
					suffix = " Spot"
				}
				if usd > 0 {
					items = append(items, item{s.Name, meter + suffix, "Virtual Machines " + s.Series + " Series", meter + suffix, c.options.Location, usd, "1 Hour", "USD"})
				}
			}
		}
		c.mu.Unlock()
	}
	skip, err := strconv.Atoi(query.Get("$skip"))
	if err != nil || skip < 0 {
		skip = 0
	}
	page := items[min(skip, len(items)):min(skip+pricesPerPage, len(items))]
	next := ""
	if skip+pricesPerPage < len(items) {
		query.Set("$skip", strconv.Itoa(skip+pricesPerPage))
		next = PricesEndpoint + "/api/retail/prices?" + query.Encode()
	}
	return reply{status: 200, body: map[string]any{"BillingCurrency": "USD", "Items": page, "NextPageLink": next, "Count": len(page)}}
}
