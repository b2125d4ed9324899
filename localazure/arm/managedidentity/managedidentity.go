// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package managedidentity is Microsoft.ManagedIdentity: user-assigned
// identities, each with a principal, and their federated credentials.
package managedidentity

import (
	"context"
	"regexp"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
)

// Type is the type of user-assigned identities.
const Type = "Microsoft.ManagedIdentity/userAssignedIdentities"

var apiVersions = []string{"2025-05-31-preview", "2025-01-31-preview", "2024-11-30", "2023-01-31", "2022-01-31-preview", "2018-11-30"}

// New registers the provider's types.
func New(env *rp.Env) {
	rule := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{2,127}$`)
	env.Add(
		&rp.Type{Name: Type, Versions: apiVersions, Scope: rp.InGroup, Tracked: true, NoState: true, NameRule: rule,
			NameHelp: "An identity's name has 3 to 128 letters, digits, dashes and underscores and starts with a letter or digit.",
			Prepare: func(_ context.Context, c *rp.Change) error {
				for _, k := range []string{"principalId", "clientId", "tenantId"} {
					c.Doc.Drop("properties", k)
					if c.Old != nil {
						c.Doc.Set(c.Old.Doc.Str("properties", k), "properties", k)
					}
				}
				return nil
			},
			Commit: func(_ context.Context, c *rp.Change) error {
				if c.Old != nil {
					return nil
				}
				ops := Fill(c.Doc, c.ID, env.TenantID)
				c.Ops = append(c.Ops, ops...)
				return nil
			},
			Delete: func(ctx context.Context, c *rp.Change) error {
				oid := c.Old.Doc.Str("properties", "principalId")
				c.Ops = append(c.Ops, token.DeleteOps(oid, c.Old.Doc.Str("properties", "clientId"))...)
				as, err := env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
				if err != nil {
					return err
				}
				for _, a := range as {
					if strings.EqualFold(a.Doc.Str("properties", "principalId"), oid) && len(c.Ops) < 80 {
						c.Ops = append(c.Ops, rp.DeleteOp(a.ParsedID()))
					}
				}
				return nil
			}},
		&rp.Type{Name: Type + "/federatedIdentityCredentials", Versions: apiVersions, Scope: rp.InGroup, NoState: true, NameRule: rule,
			NameHelp: "A federated credential's name has 3 to 120 letters, digits, dashes and underscores and starts with a letter or digit.",
			Prepare:  prepareCredential},
	)
	env.Add(env.OperationTypes("Microsoft.ManagedIdentity")...)
}

// maxCredentials is the largest number of federated credentials of an identity.
const maxCredentials = 20

func prepareCredential(ctx context.Context, c *rp.Change) error {
	for _, k := range []string{"issuer", "subject"} {
		if c.Doc.Str("properties", k) == "" {
			return rp.BadRequest("BadRequest", "The federated identity credential '%s' lacks %s.", c.ID.Name(), k).At("properties." + k)
		}
	}
	if len(c.Doc.Strings("properties", "audiences")) != 1 {
		return rp.BadRequest("BadRequest", "The federated identity credential '%s' must have exactly one audience.", c.ID.Name()).At("properties.audiences")
	}
	if c.Preflight {
		return nil
	}
	at := c.ID
	at.Names = at.Names[:len(at.Names)-1]
	all, err := c.Env.Store.List(ctx, at)
	if err != nil {
		return err
	}
	others := 0
	for _, r := range all {
		if strings.EqualFold(r.ParsedID().Name(), c.ID.Name()) {
			continue
		}
		others++
		if r.Doc.Str("properties", "issuer") == c.Doc.Str("properties", "issuer") && r.Doc.Str("properties", "subject") == c.Doc.Str("properties", "subject") {
			return rp.Conflict("Conflict", "Issuer and subject combination already exists for this Managed Identity: the federated identity credential '%s' has it.", r.ParsedID().Name()).At("properties.subject")
		}
	}
	if others >= maxCredentials {
		return rp.BadRequest("BadRequest", "The identity '%s' has %d federated identity credentials already, which is the most there can be.", c.ID.Parent().Name(), maxCredentials)
	}
	// Writing the identity's record in the same transaction prevents that two
	// clients both add the same combination, or the twenty-first credential.
	parent, err := c.Env.Store.Get(ctx, c.ID.Parent())
	if err != nil {
		return err
	}
	if parent == nil {
		return rp.NotFound(c.ID.Parent())
	}
	next := parent.Clone()
	next.ETag = rp.NewGUID()
	c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(parent)), append(c.Ops, rp.PutOp(next))
	return nil
}

// Fill sets the IDs in the document of a new identity and returns the writes of
// its principal.
func Fill(d rp.Doc, id rp.ID, tenant string) []clientv3.Op {
	p := token.Identity{ObjectID: rp.NewGUID(), AppID: rp.NewGUID(), TenantID: tenant, DisplayName: id.Name(), Kind: "ManagedIdentity", Resource: id.String()}
	d.Set(tenant, "properties", "tenantId")
	d.Set(p.ObjectID, "properties", "principalId")
	d.Set(p.AppID, "properties", "clientId")
	return token.PutOps(p)
}
