// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// Full names of the resource types.
const (
	VNetType           = "Microsoft.Network/virtualNetworks"
	SubnetType         = "Microsoft.Network/virtualNetworks/subnets"
	PublicIPType       = "Microsoft.Network/publicIPAddresses"
	PublicIPPrefixType = "Microsoft.Network/publicIPPrefixes"
	NATGatewayType     = "Microsoft.Network/natGateways"
	SecurityGroupType  = "Microsoft.Network/networkSecurityGroups"
	SecurityRuleType   = "Microsoft.Network/networkSecurityGroups/securityRules"
	RouteTableType     = "Microsoft.Network/routeTables"
	RouteType          = "Microsoft.Network/routeTables/routes"
	LoadBalancerType   = "Microsoft.Network/loadBalancers"
	PeeringType        = "Microsoft.Network/virtualNetworks/virtualNetworkPeerings"
	PrivateZoneType    = "Microsoft.Network/privateDnsZones"
	ZoneLinkType       = "Microsoft.Network/privateDnsZones/virtualNetworkLinks"
)

// versions are the API versions, newest first.
var versions = []string{"2025-07-01", "2025-05-01", "2025-03-01", "2025-01-01", "2024-10-01", "2024-07-01", "2024-05-01", "2024-03-01", "2024-01-01", "2023-11-01", "2023-09-01", "2023-06-01", "2023-04-01", "2023-02-01", "2022-07-01", "2022-01-01", "2021-08-01", "2020-11-01"}

var (
	nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?$`)
	vnetRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}[A-Za-z0-9_]$`)
)

const nameHelp = "A name begins with a letter or digit, ends with a letter, digit or underscore, and has letters, digits, underscores, dots and dashes between; at most 80 characters."

// Kinds of operation.
const (
	settleKind = "NetworkSettle"
	deleteKind = "NetworkDelete"
)

// deleteBatch is the number of records that one transaction deletes.
const deleteBatch = 100

// Provider is Microsoft.Network.
type Provider struct{ env *rp.Env }

// New registers the provider's types and kinds of operation with env.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env}
	env.Engine.Register(settleKind, rp.Kind{Step: p.stepSettle})
	env.Engine.Register(deleteKind, rp.Kind{Step: p.stepDelete})
	env.Add(env.OperationTypes("Microsoft.Network")...)
	p.addVNets()
	p.addPeerings()
	p.addPublicIPs()
	p.addNATGateways()
	p.addSecurityGroups()
	p.addRouteTables()
	p.addLoadBalancers()
	p.addZones()
	return p
}

// settle makes a change a long-running operation, as in Azure: the record is
// Updating until the operation's step sets it to Succeeded.
func settle(c *rp.Change) {
	verb := "Updating"
	c.Op = &rp.Operation{ID: rp.NewGUID(), Kind: settleKind, Verb: verb}
	c.Rec.State = verb
	c.Rec.Internal.Set(c.Op.ID, "operation")
}

func (p *Provider) stepSettle(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil {
		return rp.Step{}, err
	}
	// A later change of the same resource has another operation.
	if r == nil || r.State != "Updating" || r.Internal.Str("operation") != op.ID {
		return rp.Step{Done: true}, nil
	}
	r.State = rp.Succeeded
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
}

// removal makes a deletion a long-running operation.
func removal(c *rp.Change) {
	c.Op = &rp.Operation{Kind: deleteKind, Verb: "Deleting"}
}

func (p *Provider) stepDelete(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil || r == nil {
		return rp.Step{Done: err == nil}, err
	}
	if r.State != "Deleting" {
		return rp.Step{Done: true}, nil // created again since
	}
	children, err := p.env.Children(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	var ops []clientv3.Op
	for _, ch := range children {
		if len(ops) == deleteBatch {
			return rp.Step{Save: true, Ops: ops}, nil
		}
		ops = append(ops, rp.DeleteOp(ch.ParsedID()))
	}
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: append(ops, rp.DeleteOp(id))}, nil
}

// replace gives a PUT its meaning in this namespace: the body is the whole
// resource, and what it omits (a security group, say) is removed.
func replace(c *rp.Change) {
	if c.Patch {
		return
	}
	location := c.Doc.Str("location")
	c.Doc = rp.MergePut(nil, c.Sent)
	if location != "" {
		c.Doc.Set(location, "location")
	}
}

// etag sets the etag in the form of this namespace.
func etag(d rp.Doc, r *rp.Record) { d["etag"] = `W/"` + r.ETag + `"` }

// checkReference checks that the resource that a property refers to has the type
// and exists. It accepts an absent property, and does not check existence in a
// template's preflight.
func (p *Provider) checkReference(ctx context.Context, c *rp.Change, d rp.Doc, typ string, path ...string) error {
	ref := d.Str(append(append([]string(nil), path...), "id")...)
	if ref == "" {
		return nil
	}
	target := strings.Join(path, ".") + ".id"
	id, err := rp.ParseID(ref)
	if err != nil || !strings.EqualFold(id.Type(), typ) || id.IsCollection() {
		return rp.BadRequest("InvalidRequestFormat", "'%s' is not the ID of a resource of type %s, which %s of '%s' must be.", ref, typ, target, c.ID).At(target)
	}
	if c.Preflight {
		return nil
	}
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	if r == nil {
		return rp.BadRequest("InvalidResourceReference", "Resource %s referenced by resource %s was not found. Please make sure that the referenced resource exists, and that both resources are in the same region.", ref, c.ID).At(target)
	}
	if r.State == "Deleting" {
		return rp.BadRequest("ReferencedResourceNotProvisioned", "Resource %s referenced by resource %s is being deleted.", ref, c.ID).At(target)
	}
	if loc := c.Doc.Str("location"); loc != "" && r.Doc.Str("location") != "" && loc != r.Doc.Str("location") {
		return rp.BadRequest("InvalidResourceReference", "Resource %s referenced by resource %s is in region %s, not in %s. Please make sure that both resources are in the same region.", ref, c.ID, r.Doc.Str("location"), loc).At(target)
	}
	c.Cmps = append(c.Cmps, rp.Exists(id))
	return nil
}

// referrers returns the IDs of the records of the types whose documents contain
// id anywhere as a string.
func (p *Provider) referrers(ctx context.Context, id rp.ID, types ...string) ([]string, error) {
	var out []string
	key := id.Key()
	for _, t := range types {
		rs, err := p.env.Store.ListType(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("listing the %s that may use %s: %w", t, id, err)
		}
		for _, r := range rs {
			if mentions(map[string]any(r.Doc), key) {
				out = append(out, r.ID)
			}
		}
	}
	return out, nil
}

// mentions reports whether a string in the JSON value v equals key.
func mentions(v any, key string) bool {
	switch t := v.(type) {
	case string:
		return strings.EqualFold(t, key)
	case map[string]any:
		for _, x := range t {
			if mentions(x, key) {
				return true
			}
		}
	case []any:
		for _, x := range t {
			if mentions(x, key) {
				return true
			}
		}
	}
	return false
}

// inUse returns the error of deleting a resource that others refer to.
func inUse(code string, id rp.ID, users []string) error {
	return rp.BadRequest(code, "%s cannot be deleted because it is in use by %s. Remove the reference or the resource that holds it first.", id, listed(users)).At(id.String())
}

// listed joins the first few of s.
func listed(s []string) string {
	const some = 5
	if len(s) > some {
		return strings.Join(s[:some], ", ") + fmt.Sprintf(" and %d more", len(s)-some)
	}
	return strings.Join(s, ", ")
}
