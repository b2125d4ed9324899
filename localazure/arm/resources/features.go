// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// features are the subscription features that change what is allowed.
var features = []string{"Microsoft.ContainerService/AllowClusterAutoscalerAndNAP", "Microsoft.ContainerService/NodeAutoProvisioningPreview"}

// addFeatures registers Microsoft.Features. Its paths have a second "providers"
// segment, which the router reads as the type featureProviders.
func (p *Provider) addFeatures() {
	p.env.Add(
		&rp.Type{Name: "Microsoft.Features/featureProviders/features", Versions: []string{"2021-07-01"}, Scope: rp.InSubscription, Virtual: true,
			Get: func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
				return p.feature(ctx, q, "")
			},
			List: func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
				var ds []any
				for _, f := range features {
					ns, name, _ := strings.Cut(f, "/")
					if len(q.ID.Names) > 0 && !strings.EqualFold(q.ID.Names[0], ns) {
						continue
					}
					one := *q
					one.ID = rp.ID{Subscription: p.env.SubscriptionID, Namespace: "Microsoft.Features", Types: []string{"featureProviders", "features"}, Names: []string{ns, name}}
					r, err := p.feature(ctx, &one, "")
					if err != nil {
						return nil, err
					}
					ds = append(ds, r.Body)
				}
				return rp.ListResponse(ds, ""), nil
			},
			Actions: map[string]rp.Action{
				"register": {Do: func(ctx context.Context, q *rp.Request) (*rp.Response, error) { return p.feature(ctx, q, "Registered") }},
				"unregister": {Do: func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
					return p.feature(ctx, q, "Unregistered")
				}},
			}},
	)
}

// FeatureRegistered reports whether a subscription feature, "Namespace/name", is
// registered.
func FeatureRegistered(ctx context.Context, env *rp.Env, feature string) (bool, error) {
	resp, err := env.Store.KV.Get(ctx, rp.FeaturePrefix+strings.ToLower(feature))
	if err != nil {
		return false, err
	}
	return len(resp.Kvs) > 0 && string(resp.Kvs[0].Value) == "Registered", nil
}

func (p *Provider) feature(ctx context.Context, q *rp.Request, set string) (*rp.Response, error) {
	full := q.ID.Names[0] + "/" + q.ID.Names[1]
	known := false
	for _, f := range features {
		if strings.EqualFold(f, full) {
			full, known = f, true
		}
	}
	if !known {
		return nil, rp.Errorf(404, "FeatureNotFound", "The feature '%s' could not be found. This local Azure has: %s.", full, strings.Join(features, ", "))
	}
	key := rp.FeaturePrefix + strings.ToLower(full)
	if set != "" {
		if _, err := p.env.Store.KV.Put(ctx, key, set); err != nil {
			return nil, err
		}
	}
	state := "NotRegistered"
	resp, err := p.env.Store.KV.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) > 0 {
		state = string(resp.Kvs[0].Value)
	}
	ns, name, _ := strings.Cut(full, "/")
	return &rp.Response{Body: rp.Doc{"id": "/subscriptions/" + p.env.SubscriptionID + "/providers/Microsoft.Features/providers/" + ns + "/features/" + name,
		"name": full, "type": "Microsoft.Features/providers/features", "properties": map[string]any{"state": state}}}, nil
}
