// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/nap-aks/nap/catalog"
)

// prices are the list prices of the sizes in a region, in USD per hour. They come
// from the embedded catalogue until the Retail Prices API, if configured, is read.
type prices struct {
	endpoint string // empty: embedded prices only
	region   string
	http     *http.Client

	mu       sync.Mutex
	onDemand map[string]float64
	spot     map[string]float64
	seq      uint64
}

func newPrices(endpoint, region string, client *http.Client) *prices {
	p := &prices{endpoint: strings.TrimSuffix(endpoint, "/"), region: region, http: client, onDemand: map[string]float64{}, spot: map[string]float64{}}
	sizes, err := catalog.Sizes(region)
	if err != nil {
		return p // region not in the catalogue: sizes have the penalty price until prices are read
	}
	for _, s := range sizes {
		if s.HasPrice {
			p.onDemand[s.Name] = s.OnDemandUSDPerHour
			if s.SpotUSDPerHour > 0 {
				p.spot[s.Name] = s.SpotUSDPerHour
			}
		}
	}
	return p
}

// price is an instancetype.PriceFunc.
func (p *prices) price(size string, spot bool) (float64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if spot {
		v, ok := p.spot[size]
		return v, ok
	}
	v, ok := p.onDemand[size]
	return v, ok
}

func (p *prices) version() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq
}

type pricePage struct {
	Items []struct {
		ArmSKUName  string  `json:"armSkuName"`
		SKUName     string  `json:"skuName"`
		ProductName string  `json:"productName"`
		MeterName   string  `json:"meterName"`
		RetailPrice float64 `json:"retailPrice"`
	} `json:"Items"`
	NextPageLink string `json:"NextPageLink"`
}

// errNoPrices is wrapped by the error if the Retail Prices API returns no price.
var errNoPrices = errors.New("the Retail Prices API lists no price")

// refresh reads the Retail Prices API. Sizes that it does not list keep their
// price; after an error all do.
func (p *prices) refresh(ctx context.Context) error {
	if p.endpoint == "" {
		return nil
	}
	onDemand, spot := map[string]float64{}, map[string]float64{}
	filter := fmt.Sprintf("priceType eq 'Consumption' and currencyCode eq 'USD' and serviceFamily eq 'Compute' and serviceName eq 'Virtual Machines' and armRegionName eq '%s'", p.region)
	next := p.endpoint + "/api/retail/prices?" + url.Values{"api-version": {"2023-01-01-preview"}, "$filter": {filter}}.Encode()
	for next != "" {
		page, err := p.page(ctx, next)
		if err != nil {
			return fmt.Errorf("reading retail prices of region %s: %w", p.region, err)
		}
		for _, item := range page.Items {
			if item.ArmSKUName == "" || item.RetailPrice <= 0 || strings.HasSuffix(item.ProductName, " Windows") || strings.HasSuffix(item.MeterName, " Low Priority") {
				continue
			}
			into := onDemand
			if strings.HasSuffix(item.SKUName, " Spot") {
				into = spot
			}
			// A size may have several meters. The highest price is the unconditional one.
			into[item.ArmSKUName] = max(into[item.ArmSKUName], item.RetailPrice)
		}
		next = page.NextPageLink
	}
	if len(onDemand)+len(spot) == 0 {
		return fmt.Errorf("reading retail prices of region %s: %w", p.region, errNoPrices)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, m := range []struct{ have, read map[string]float64 }{{p.onDemand, onDemand}, {p.spot, spot}} {
		for size, v := range m.read {
			if m.have[size] != v {
				m.have[size], changed = v, true
			}
		}
	}
	if changed {
		p.seq++
	}
	return nil
}

func (p *prices) page(ctx context.Context, address string) (pricePage, error) {
	var page pricePage
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return page, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return page, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return page, fmt.Errorf("%s answered %s: %s", req.URL.Host, resp.Status, body)
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return page, fmt.Errorf("decoding a page of prices: %w", err)
	}
	return page, nil
}
