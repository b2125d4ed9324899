// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package resources is Microsoft.Resources: subscriptions, locations, providers
// and features, resource groups, lists of resources, and template deployments.
package resources

import (
	"context"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

// Provider is Microsoft.Resources.
type Provider struct {
	env    *rp.Env
	graphs graphs
}

const groupType = "Microsoft.Resources/resourceGroups"

var groupVersions = []string{"2025-04-01", "2024-11-01", "2024-03-01", "2023-07-01", "2022-09-01", "2021-04-01", "2020-06-01", "2019-05-01", "2018-05-01"}

// New registers the provider's types.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env, graphs: graphs{m: map[string]*armtemplate.Graph{}}}
	sub := func(name string, get, list func(context.Context, *rp.Request) (*rp.Response, error)) *rp.Type {
		return &rp.Type{Name: "Microsoft.Resources/" + name, Versions: groupVersions, Scope: rp.Anywhere, Hidden: true, Virtual: true, Get: get, List: list}
	}
	// own is sub for what every principal may see, or sees its own part of.
	own := func(name string, get, list func(context.Context, *rp.Request) (*rp.Response, error)) *rp.Type {
		t := sub(name, get, list)
		t.OwnRights = true
		return t
	}
	providers := sub("providers", p.getProvider, p.listProviders)
	providers.Actions = map[string]rp.Action{
		"register":   {Permission: "Microsoft.Resources/subscriptions/providers/register/action", Do: p.register("Registered")},
		"unregister": {Permission: "Microsoft.Resources/subscriptions/providers/unregister/action", Do: p.register("Unregistered")},
	}
	group := &rp.Type{Name: groupType, Versions: groupVersions, Scope: rp.Anywhere, Delete: p.deleteGroup, Prepare: p.prepareGroup,
		NameRule: regexp.MustCompile(`^[-\w\._\(\)]{0,89}[-\w_\(\)]$`), NameHelp: "A resource group's name has at most 90 letters, digits, dots, dashes, underscores and parentheses, and does not end in a dot.",
		Filter: filterGroups}
	group.Actions = map[string]rp.Action{"exporttemplate": {Do: p.exportTemplate}}
	groups := sub("resourcegroups", nil, func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
		rs, err := env.Store.ListPrefix(ctx, rp.ResourcePrefix+"resourcegroups:/"+strings.ToLower(env.SubscriptionID)+"/")
		if err != nil {
			return nil, err
		}
		if rs, err = filterGroups(q, env.Readable(ctx, q.Caller, rs)); err != nil {
			return nil, err
		}
		page, next, err := rp.Page(q, rs)
		if err != nil {
			return nil, err
		}
		q.ID = rp.ID{Subscription: env.SubscriptionID}
		ds, err := env.RenderAll(ctx, group, page, q.APIVersion)
		return rp.ListResponse(ds, next), err
	})
	group.List = groups.List
	env.Add(group,
		own("subscriptions", p.getSubscription, p.listSubscriptions),
		own("tenants", nil, p.listTenants),
		sub("locations", nil, p.listLocations),
		sub("resources", nil, p.listResources),
		sub("tagnames", nil, func(context.Context, *rp.Request) (*rp.Response, error) { return rp.ListResponse[any](nil, ""), nil }),
		providers,
		own("operationresults", func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
			op, err := env.Engine.Get(ctx, q.ID.Name())
			if err != nil {
				return nil, err
			}
			if op == nil || !env.MayPoll(ctx, q.Caller, op) {
				return nil, rp.Errorf(404, "OperationNotFound", "There is no operation '%s'.", q.ID.Name())
			}
			return env.ResultResponse(ctx, q, op)
		}, nil),
	)
	env.Add(env.OperationTypes("Microsoft.Resources")...)
	env.Engine.Register("DeleteGroup", rp.Kind{Step: p.stepDeleteGroup, Failed: p.groupNotDeleted})
	p.addFeatures()
	p.addDeployments()
	p.addSpecs()
	return p
}

func (p *Provider) prepareGroup(_ context.Context, c *rp.Change) error {
	for k := range c.Doc {
		switch strings.ToLower(k) {
		case "location", "tags", "properties", "managedby":
		default:
			c.Doc.Drop(k)
		}
	}
	if c.Old != nil && c.Old.State == "Deleting" {
		return rp.Conflict("ResourceGroupBeingDeleted", "The resource group '%s' is in deprovisioning state and cannot perform this operation.", c.ID.Name())
	}
	return nil
}

var tagFilter = regexp.MustCompile(`(?i)tagName eq '([^']*)'(?:\s+and\s+tagValue eq '([^']*)')?`)

func filterGroups(q *rp.Request, rs []*rp.Record) ([]*rp.Record, error) {
	f := q.Query.Get("$filter")
	if f == "" {
		return rs, nil
	}
	m := tagFilter.FindStringSubmatch(f)
	if m == nil {
		return nil, rp.BadRequest("InvalidFilterInQueryString", "The filter '%s' is not supported for resource groups; use tagName eq '…' and tagValue eq '…'.", f)
	}
	var out []*rp.Record
	for _, r := range rs {
		if v, ok := r.Doc.Map("tags").Lookup(m[1]); ok && (m[2] == "" || v == m[2]) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (p *Provider) deleteGroup(_ context.Context, c *rp.Change) error {
	if c.Old.State == "Deleting" {
		if id := c.Old.Internal.Str("deletion"); id != "" {
			return rp.Conflict("ResourceGroupBeingDeleted", "The resource group '%s' is already being deleted, by operation %s.", c.ID.Name(), id)
		}
	}
	if owner := c.Old.Doc.Str("managedBy"); owner != "" && c.Caller != rp.System {
		return rp.Conflict("ResourceGroupManaged", "The resource group '%s' is managed by '%s' and is deleted with it; delete that instead.", c.ID.Name(), owner)
	}
	c.Op = &rp.Operation{ID: rp.NewGUID(), Kind: "DeleteGroup", Verb: "Deleting"}
	c.Rec.Internal = rp.Doc{"deletion": c.Op.ID}
	return nil
}

// stepDeleteGroup deletes the group's resources in rounds, since some cannot be
// deleted before those that use them.
func (p *Provider) stepDeleteGroup(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	rs, err := p.env.InGroup(ctx, id, false)
	if err != nil {
		return rp.Step{}, err
	}
	var left, blocked int
	var last error
	for _, r := range rs {
		left++
		if r.State == "Deleting" {
			continue
		}
		res, err := p.env.Delete(ctx, rp.System, r.ParsedID(), groupVersions[0], nil, nil)
		switch {
		case err != nil && rp.AsError(err).Status >= 500:
			return rp.Step{}, err
		case err != nil:
			blocked++
			last = err
		case res.Op == nil:
			left--
		}
	}
	if left > 0 {
		if blocked == left {
			fails, _ := op.Data.Int("fails")
			if fails >= 5 {
				return rp.Step{}, rp.Conflict("ResourceGroupDeletionBlocked", "Deletion of resource group '%s' failed as resources in it could not be deleted: %v", id.Name(), last)
			}
			op.Data = rp.Doc{"fails": fails + 1}
			if _, err := p.env.Store.KV.Txn(ctx).Then(rp.JSONOp(rp.OperationPrefix+op.ID, op)).Commit(); err != nil {
				return rp.Step{}, err
			}
		}
		return rp.Step{After: 300 * time.Millisecond}, nil
	}
	ops := []clientv3.Op{rp.DeleteOp(id)}
	as, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
	if err != nil {
		return rp.Step{}, err
	}
	for _, a := range as {
		if a.ParsedID().Within(id) && len(ops) < 100 {
			ops = append(ops, rp.DeleteOp(a.ParsedID()))
		}
	}
	return rp.Step{Done: true, Ops: ops}, nil
}

func (p *Provider) groupNotDeleted(ctx context.Context, op *rp.Operation, _ *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil || r == nil {
		return nil, err
	}
	r.State, r.Internal = rp.Succeeded, rp.Doc{}
	return []clientv3.Op{rp.PutOp(r)}, nil
}

func (p *Provider) subscription() rp.Doc {
	id := p.env.SubscriptionID
	return rp.Doc{"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": p.env.TenantID, "displayName": p.env.SubscriptionName, "state": "Enabled",
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Internal_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
		"authorizationSource":  "RoleBased", "managedByTenants": []any{}}
}

func (p *Provider) getSubscription(_ context.Context, _ *rp.Request) (*rp.Response, error) {
	return &rp.Response{Body: p.subscription()}, nil
}

func (p *Provider) listSubscriptions(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	// A principal without any role sees no subscription.
	if err := p.env.Authorize(ctx, q.Caller, "Microsoft.Resources/subscriptions/read", rp.ID{Subscription: p.env.SubscriptionID}); err != nil {
		if rp.AsError(err).Status == http.StatusForbidden {
			return rp.ListResponse[any](nil, ""), nil
		}
		return nil, err
	}
	return rp.ListResponse([]rp.Doc{p.subscription()}, ""), nil
}

func (p *Provider) listTenants(context.Context, *rp.Request) (*rp.Response, error) {
	return rp.ListResponse([]rp.Doc{{"id": "/tenants/" + p.env.TenantID, "tenantId": p.env.TenantID, "tenantCategory": "Home", "displayName": "nap", "tenantType": "AAD"}}, ""), nil
}

func (p *Provider) listLocations(context.Context, *rp.Request) (*rp.Response, error) {
	ds := []rp.Doc{}
	for _, l := range p.env.Locations {
		d := rp.Doc{"id": "/subscriptions/" + p.env.SubscriptionID + "/locations/" + l.Name, "name": l.Name, "type": "Region", "displayName": l.DisplayName, "regionalDisplayName": "(" + l.Geography + ") " + l.DisplayName,
			"metadata": map[string]any{"regionType": "Physical", "regionCategory": "Recommended", "geography": l.Geography, "geographyGroup": l.Geography, "latitude": l.Latitude, "longitude": l.Longitude, "physicalLocation": "", "pairedRegion": []any{}}}
		if l.Zoned {
			var zones []any
			for _, z := range []string{"1", "2", "3"} {
				zones = append(zones, map[string]any{"logicalZone": z, "physicalZone": l.Name + "-az" + z})
			}
			d["availabilityZoneMappings"] = zones
		}
		ds = append(ds, d)
	}
	return rp.ListResponse(ds, ""), nil
}

func (p *Provider) registration(ctx context.Context, ns string) (string, error) {
	resp, err := p.env.Store.KV.Get(ctx, rp.ProviderPrefix+strings.ToLower(ns))
	if err != nil {
		return "", err
	}
	if len(resp.Kvs) > 0 {
		return string(resp.Kvs[0].Value), nil
	}
	return "Registered", nil
}

func (p *Provider) providerDoc(ctx context.Context, n *rp.Namespace) (rp.Doc, error) {
	state, err := p.registration(ctx, n.Name)
	if err != nil {
		return nil, err
	}
	var locs []string
	for _, l := range p.env.Locations {
		locs = append(locs, l.DisplayName)
	}
	types := []any{}
	for _, t := range n.Types {
		if t.Hidden {
			continue
		}
		d := map[string]any{"resourceType": strings.Join(t.Path, "/"), "locations": locs, "apiVersions": t.Versions, "defaultApiVersion": "", "capabilities": "None"}
		if len(t.Versions) > 0 {
			d["defaultApiVersion"] = t.Versions[0]
		}
		if t.Tracked {
			d["capabilities"] = "CrossResourceGroupResourceMove, CrossSubscriptionResourceMove, SupportsTags, SupportsLocation"
		}
		types = append(types, d)
	}
	if strings.EqualFold(n.Name, "Microsoft.Resources") {
		for _, t := range []string{"resourceGroups", "subscriptions"} {
			types = append(types, map[string]any{"resourceType": t, "locations": []string{}, "apiVersions": groupVersions, "capabilities": "None"})
		}
	}
	return rp.Doc{"id": "/subscriptions/" + p.env.SubscriptionID + "/providers/" + n.Name, "namespace": n.Name, "resourceTypes": types,
		"registrationState": state, "registrationPolicy": "RegistrationRequired"}, nil
}

func (p *Provider) findProvider(q *rp.Request) (*rp.Namespace, error) {
	n := p.env.FindNamespace(q.ID.Name())
	if n == nil {
		return nil, rp.Errorf(404, "InvalidResourceNamespace", "The resource namespace '%s' is invalid.", q.ID.Name())
	}
	return n, nil
}

func (p *Provider) getProvider(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	n, err := p.findProvider(q)
	if err != nil {
		return nil, err
	}
	d, err := p.providerDoc(ctx, n)
	return &rp.Response{Body: d}, err
}

func (p *Provider) listProviders(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	var ds []rp.Doc
	for _, n := range p.env.Namespaces() {
		d, err := p.providerDoc(ctx, n)
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	page, next, err := rp.Page(q, ds)
	return rp.ListResponse(page, next), err
}

func (p *Provider) register(state string) func(context.Context, *rp.Request) (*rp.Response, error) {
	return func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
		n, err := p.findProvider(q)
		if err != nil {
			return nil, err
		}
		if _, err := p.env.Store.KV.Put(ctx, rp.ProviderPrefix+strings.ToLower(n.Name), state); err != nil {
			return nil, err
		}
		d, err := p.providerDoc(ctx, n)
		return &rp.Response{Body: d}, err
	}
}

var resourceFilter = regexp.MustCompile(`(?i)^\s*(resourceGroup|resourceType|name|location|tagName|tagValue)\s+eq\s+'([^']*)'\s*$`)

// listResources lists tracked resources of a group or the subscription.
func (p *Provider) listResources(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	want := map[string]string{}
	if f := q.Query.Get("$filter"); f != "" {
		for _, t := range regexp.MustCompile(`(?i)\s+and\s+`).Split(f, -1) {
			m := resourceFilter.FindStringSubmatch(t)
			if m == nil {
				return nil, rp.BadRequest("InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string. Use resourceGroup, resourceType, name, location, tagName or tagValue eq '…', joined by and.", t)
			}
			want[strings.ToLower(m[1])] = m[2]
		}
	}
	var out []rp.Doc
	for _, n := range p.env.Namespaces() {
		for _, t := range n.Types {
			if !t.Tracked || t.Virtual || want["resourcetype"] != "" && !strings.EqualFold(want["resourcetype"], t.Name) {
				continue
			}
			rs, err := p.env.Store.ListPrefix(ctx, rp.ResourcePrefix+strings.ToLower(t.Name)+":/"+strings.ToLower(p.env.SubscriptionID)+"/")
			if err != nil {
				return nil, err
			}
			for _, r := range p.env.Readable(ctx, q.Caller, rs) {
				id := r.ParsedID()
				if g := want["resourcegroup"]; g != "" && !strings.EqualFold(g, id.ResourceGroup) || q.ID.ResourceGroup != "" && !strings.EqualFold(q.ID.ResourceGroup, id.ResourceGroup) {
					continue
				}
				if w := want["name"]; w != "" && !strings.EqualFold(w, id.Name()) {
					continue
				}
				if w := want["location"]; w != "" && rp.NormalizeLocation(w) != r.Doc.Str("location") {
					continue
				}
				if w := want["tagname"]; w != "" {
					v, ok := r.Doc.Map("tags").Lookup(w)
					if val, has := want["tagvalue"]; !ok || has && v != val {
						continue
					}
				}
				d := rp.Doc{"id": r.ID, "name": id.Name(), "type": t.Name}
				for _, k := range []string{"location", "tags", "sku", "kind", "identity", "zones", "managedBy"} {
					if v, ok := r.Doc.Lookup(k); ok {
						d[k] = v
					}
				}
				if x := strings.ToLower(q.Query.Get("$expand")); x != "" {
					if strings.Contains(x, "createdtime") {
						d["createdTime"] = r.CreatedAt.Format(time.RFC3339Nano)
					}
					if strings.Contains(x, "changedtime") {
						d["changedTime"] = r.ChangedAt.Format(time.RFC3339Nano)
					}
					if strings.Contains(x, "provisioningstate") {
						d["provisioningState"] = r.State
					}
				}
				out = append(out, d)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Str("id") < out[j].Str("id") })
	page, next, err := rp.Page(q, out)
	return rp.ListResponse(page, next), err
}

func (p *Provider) exportTemplate(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	rs, err := p.env.InGroup(ctx, q.ID, true)
	if err != nil {
		return nil, err
	}
	list := []any{}
	for _, r := range rs {
		id := r.ParsedID()
		t, err := p.env.TypeOf(id)
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(t.Namespace, "Microsoft.Resources") || len(t.Versions) == 0 {
			continue
		}
		d := r.Doc.Clone()
		d["type"], d["apiVersion"], d["name"] = t.Name, t.Versions[0], strings.Join(id.Names, "/")
		if len(id.Types) > 1 {
			d["dependsOn"] = []any{id.Parent().String()}
		}
		list = append(list, d)
	}
	return &rp.Response{Body: rp.Doc{"template": map[string]any{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
		"parameters": map[string]any{}, "variables": map[string]any{}, "resources": list}}}, nil
}
