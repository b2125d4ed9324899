// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// inlineChildren replaces the child resources by those of an array in the
// parent's body. Without the array the existing ones stay.
func inlineChildren(ctx context.Context, c *rp.Change, prop string, check func(string, rp.Doc) error) error {
	v, has := c.Doc.Lookup("properties", prop)
	list := c.Doc.List("properties", prop)
	c.Doc.Drop("properties", prop)
	if !has {
		return nil
	}
	if _, ok := v.([]any); !ok {
		return rp.BadRequest("InvalidRequestFormat", "%s of %s is not an array.", prop, c.ID).At("properties." + prop)
	}
	if len(list) > maxInlineSubnets {
		return rp.BadRequest("InvalidRequestFormat", "%s of %s has %d elements; at most %d can be written at once. Write the others one by one.", prop, c.ID, len(list), maxInlineSubnets).At("properties." + prop)
	}
	now := c.Env.Now().UTC()
	keep := map[string]bool{}
	for i, x := range list {
		m, ok := x.(map[string]any)
		d := rp.MergePut(nil, m)
		name := d.Str("name")
		if !ok || !nameRule.MatchString(name) {
			return rp.BadRequest("InvalidResourceName", "Element %d of %s of %s has the name '%s'. %s", i, prop, c.ID, name, nameHelp).At("properties." + prop)
		}
		if keep[strings.ToLower(name)] {
			return rp.BadRequest("DuplicateResourceName", "%s of %s has two elements with the name %s.", prop, c.ID, name).At("properties." + prop)
		}
		keep[strings.ToLower(name)] = true
		for _, ro := range []string{"id", "name", "type", "etag"} {
			d.Drop(ro)
		}
		d.Drop("properties", "provisioningState")
		if err := check(name, d); err != nil {
			return err
		}
		c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: c.ID.Child(prop, name).String(), Doc: d, State: rp.Succeeded, UID: rp.NewGUID(), ETag: rp.NewGUID(), Internal: rp.Doc{},
			CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, ChangedBy: c.Caller.ObjectID}))
	}
	if c.Old == nil {
		return nil
	}
	old, err := childrenOf(ctx, c.Env.Store, c.ID, prop)
	if err != nil {
		return err
	}
	for _, r := range old {
		if !keep[strings.ToLower(r.ParsedID().Name())] {
			c.Ops = append(c.Ops, rp.DeleteOp(r.ParsedID()))
		}
	}
	return nil
}

func childrenOf(ctx context.Context, s *rp.Store, parent rp.ID, typ string) ([]*rp.Record, error) {
	parent.Types = append(append([]string(nil), parent.Types...), typ)
	return s.List(ctx, parent)
}

// setChildren renders a parent's children as an array in the parent.
func (p *Provider) setChildren(ctx context.Context, r *rp.Record, d rp.Doc, prop, typ string) error {
	rs, err := childrenOf(ctx, p.env.Store, r.ParsedID(), prop)
	if err != nil {
		return err
	}
	list := []any{}
	for _, x := range rs {
		k := x.Doc.Clone()
		k["id"], k["name"], k["type"] = x.ID, x.ParsedID().Name(), typ
		k.Set(x.State, "properties", "provisioningState")
		etag(k, x)
		list = append(list, map[string]any(k))
	}
	d.Set(list, "properties", prop)
	return nil
}
