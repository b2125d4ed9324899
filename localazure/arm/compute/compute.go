// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package compute is Microsoft.Compute of the local Azure, as far as it exists:
// the Resource SKUs API and the usages of a region, both from the embedded
// catalogue, the quota for machines, and the public Retail Prices API.
package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Provider is Microsoft.Compute.
type Provider struct {
	env   *rp.Env
	Quota *Quota

	mu   sync.Mutex
	skus map[string]json.RawMessage // a region's list, encoded
}

// New registers the provider's types.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env, Quota: newQuota(), skus: map[string]json.RawMessage{}}
	versions := []string{"2026-04-01", "2025-04-01", "2024-11-01", "2024-07-01", "2024-03-01", "2023-09-01", "2021-07-01"}
	env.Add(
		&rp.Type{Name: "Microsoft.Compute/skus", Versions: []string{"2021-07-01", "2019-04-01", "2017-09-01"}, Scope: rp.InSubscription, Virtual: true, List: p.listSKUs},
		&rp.Type{Name: "Microsoft.Compute/locations/usages", Versions: versions, Scope: rp.InSubscription, Virtual: true, List: p.listUsages},
		&rp.Type{Name: "Microsoft.Compute/locations/vmSizes", Versions: versions, Scope: rp.InSubscription, Virtual: true, List: p.listSizes},
	)
	env.Add(env.OperationTypes("Microsoft.Compute")...)
	return p
}

// Run keeps the quota's usage current until ctx ends.
func (p *Provider) Run(ctx context.Context, kv *clientv3.Client, log *slog.Logger) {
	p.Quota.Run(ctx, kv, log)
}

var locationFilter = regexp.MustCompile(`(?i)^\s*location\s+eq\s+'([^']*)'\s*$`)

func (p *Provider) regionSKUs(region string) (json.RawMessage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.skus[region]; ok {
		return b, nil
	}
	var parts []json.RawMessage
	for _, s := range catalog.SKUs(region) {
		b, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encoding a SKU of %s: %w", region, err)
		}
		parts = append(parts, b)
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return nil, fmt.Errorf("encoding the SKUs of %s: %w", region, err)
	}
	if parts == nil {
		b = []byte("[]")
	}
	p.skus[region] = b
	return b, nil
}

func (p *Provider) listSKUs(_ context.Context, q *rp.Request) (*rp.Response, error) {
	regions := catalog.Regions()
	if f := q.Query.Get("$filter"); f != "" {
		m := locationFilter.FindStringSubmatch(f)
		if m == nil {
			return nil, rp.BadRequest("InvalidFilter", "The filter '%s' is not supported; use location eq '…'.", f)
		}
		regions = []string{rp.NormalizeLocation(m[1])}
	}
	if len(regions) == 1 {
		b, err := p.regionSKUs(regions[0])
		return &rp.Response{Body: map[string]any{"value": b}}, err
	}
	var all []json.RawMessage
	for _, r := range regions {
		b, err := p.regionSKUs(r)
		if err != nil {
			return nil, err
		}
		var part []json.RawMessage
		if err := json.Unmarshal(b, &part); err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return rp.ListResponse(all, ""), nil
}

func (p *Provider) location(q *rp.Request) (string, error) {
	l := p.env.FindLocation(q.ID.Names[0])
	if l == nil {
		return "", rp.BadRequest("NoRegisteredProviderFound", "No registered resource provider found for location '%s' and API version '%s' for type 'locations/%s'.", q.ID.Names[0], q.APIVersion, q.Type.Path[1])
	}
	return l.Name, nil
}

func (p *Provider) listUsages(_ context.Context, q *rp.Request) (*rp.Response, error) {
	loc, err := p.location(q)
	if err != nil {
		return nil, err
	}
	us, err := p.Quota.usages(loc)
	if err != nil {
		return nil, err
	}
	var ds []rp.Doc
	for _, u := range us {
		ds = append(ds, rp.Doc{"unit": "Count", "currentValue": u.used, "limit": u.limit, "name": map[string]any{"value": u.name, "localizedValue": u.display}})
	}
	return rp.ListResponse(ds, ""), nil
}

func (p *Provider) listSizes(_ context.Context, q *rp.Request) (*rp.Response, error) {
	loc, err := p.location(q)
	if err != nil {
		return nil, err
	}
	sizes, err := catalog.Sizes(loc)
	if err != nil {
		return nil, err
	}
	var ds []rp.Doc
	for _, s := range sizes {
		ds = append(ds, rp.Doc{"name": s.Name, "numberOfCores": s.VCPUsAvailable, "memoryInMB": int(s.MemoryGiB * 1024), "maxDataDiskCount": s.MaxDataDisks, "osDiskSizeInMB": 1047552, "resourceDiskSizeInMB": s.ResourceDiskMiB})
	}
	return rp.ListResponse(ds, ""), nil
}

var priceTerm = regexp.MustCompile(`(?i)^\s*(\w+)\s+eq\s+'([^']*)'\s*$`)

// pricePage is the number of prices on a page of the Retail Prices API.
const pricePage = 1000

// ServePrices serves the Retail Prices API, which is public: it needs neither a
// token nor an api-version.
func (p *Provider) ServePrices(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	want := map[string]string{}
	filter := query.Get("$filter")
	if filter != "" {
		for _, t := range regexp.MustCompile(`(?i)\s+and\s+`).Split(filter, -1) {
			m := priceTerm.FindStringSubmatch(t)
			if m == nil {
				rp.WriteError(w, rp.BadRequest("BadRequest", "Invalid OData parameters supplied: '%s'. Use field eq 'value', joined by and.", t))
				return
			}
			want[strings.ToLower(m[1])] = m[2]
		}
	}
	skip, err := strconv.Atoi(query.Get("$skip"))
	if query.Get("$skip") == "" {
		skip, err = 0, nil
	}
	if err != nil || skip < 0 {
		rp.WriteError(w, rp.BadRequest("BadRequest", "$skip is '%s', not a number of 0 or more.", query.Get("$skip")))
		return
	}
	currency := query.Get("currencyCode")
	currency = strings.Trim(currency, "'")
	if c := want["currencycode"]; c != "" {
		currency = c
	}
	if currency != "" && !strings.EqualFold(currency, "USD") {
		rp.WriteError(w, rp.BadRequest("BadRequest", "The currency '%s' is not supported; prices are in USD.", currency))
		return
	}
	items := []map[string]any{}
	more := false
	regions := catalog.Regions()
	if reg := want["armregionname"]; reg != "" {
		regions = []string{rp.NormalizeLocation(reg)}
	}
	n := 0
	for _, reg := range regions {
		loc := p.env.FindLocation(reg)
		sizes, err := catalog.Sizes(reg)
		if loc == nil || err != nil {
			continue
		}
		sort.Slice(sizes, func(i, j int) bool { return sizes[i].Name < sizes[j].Name })
		for _, s := range sizes {
			for _, it := range prices(loc, &s) {
				if !matches(it, want) {
					continue
				}
				n++
				if n <= skip {
					continue
				}
				if len(items) == pricePage {
					more = true
					break
				}
				items = append(items, it)
			}
		}
	}
	body := map[string]any{"BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail", "Items": items, "NextPageLink": nil, "Count": len(items)}
	if more {
		query.Set("$skip", strconv.Itoa(skip+pricePage))
		body["NextPageLink"] = p.env.BaseURL + "/api/retail/prices?" + query.Encode()
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		p.env.Log.Debug("writing prices failed", "error", err)
	}
}

func prices(loc *rp.Location, s *catalog.Size) []map[string]any {
	if !s.HasPrice {
		return nil
	}
	short := strings.ReplaceAll(strings.TrimPrefix(s.Name, "Standard_"), "_", " ")
	item := func(sku string, price float64) map[string]any {
		return map[string]any{
			"currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "unitPrice": price, "armRegionName": loc.Name, "location": loc.DisplayName,
			"effectiveStartDate": "2026-06-01T00:00:00Z", "meterName": sku, "productName": "Virtual Machines " + s.Series + " Series", "skuName": sku,
			"serviceName": "Virtual Machines", "serviceId": "DZH313Z7MMC8", "serviceFamily": "Compute", "unitOfMeasure": "1 Hour", "type": "Consumption",
			"isPrimaryMeterRegion": true, "armSkuName": s.Name,
		}
	}
	out := []map[string]any{item(short, s.OnDemandUSDPerHour)}
	if s.SpotCapable && s.SpotUSDPerHour > 0 {
		out = append(out, item(short+" Spot", s.SpotUSDPerHour))
	}
	return out
}

func matches(it map[string]any, want map[string]string) bool {
	for k, v := range want {
		if k == "pricetype" {
			k = "type"
		}
		ok := false
		for field, x := range it {
			if strings.EqualFold(field, k) {
				s, isString := x.(string)
				ok = isString && strings.EqualFold(s, v)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}
