// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// tracked returns a type of tracked resources whose PUT replaces the whole
// resource and settles as a long-running operation.
func tracked(name string, prepare func(context.Context, *rp.Change) error) *rp.Type {
	return &rp.Type{Name: name, Versions: versions, Tracked: true, PatchTagsOnly: true, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
		Prepare: func(ctx context.Context, c *rp.Change) error {
			replace(c)
			if c.Doc.Map("properties") == nil {
				c.Doc.Set(map[string]any{}, "properties")
			}
			c.Doc.Drop("properties", "resourceGuid")
			return prepare(ctx, c)
		},
		Commit: func(_ context.Context, c *rp.Change) error {
			if c.Creating() {
				c.Rec.Internal.Set(rp.NewGUID(), "resourceGuid")
			}
			settle(c)
			return nil
		}}
}

// child returns a type of resources below a tracked one.
func child(name string, prepare func(*rp.Change) error) *rp.Type {
	return &rp.Type{Name: name, Versions: versions, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
		Prepare: func(_ context.Context, c *rp.Change) error { replace(c); return prepare(c) },
		Commit:  func(_ context.Context, c *rp.Change) error { settle(c); return nil },
		Delete:  func(_ context.Context, c *rp.Change) error { removal(c); return nil },
		Render:  func(_ context.Context, r *rp.Record, d rp.Doc, _ string) error { etag(d, r); return nil }}
}

// deleteUnused returns a Delete function that refuses while a resource of the
// types refers to the resource.
func (p *Provider) deleteUnused(code string, types ...string) func(context.Context, *rp.Change) error {
	return func(ctx context.Context, c *rp.Change) error {
		if c.Old.State == "Deleting" {
			return busy(c.ID, "Deleting")
		}
		users, err := p.referrers(ctx, c.ID, types...)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return inUse(code, c.ID, users)
		}
		removal(c)
		return nil
	}
}

// renderWith returns a RenderList function that sets etag and resourceGuid, and
// the resources of the types that refer to the resource: the first as an object
// in property one, all as an array in property many.
func (p *Provider) renderWith(one, many string, types ...string) func(context.Context, []*rp.Record, []rp.Doc, string) error {
	return func(ctx context.Context, rs []*rp.Record, ds []rp.Doc, _ string) error {
		for i, r := range rs {
			etag(ds[i], r)
			ds[i].Set(r.Internal.Str("resourceGuid"), "properties", "resourceGuid")
			if len(types) == 0 {
				continue
			}
			users, err := p.referrers(ctx, r.ParsedID(), types...)
			if err != nil {
				return err
			}
			if len(users) == 0 {
				continue
			}
			if one != "" {
				ds[i].Set(map[string]any{"id": users[0]}, "properties", one)
			}
			if many != "" {
				list := []any{}
				for _, u := range users {
					list = append(list, map[string]any{"id": u})
				}
				ds[i].Set(list, "properties", many)
			}
		}
		return nil
	}
}

// oneOf checks an enumeration property, which is fallback by default, and
// corrects its case.
func oneOf(d rp.Doc, fallback string, allowed []string, path ...string) error {
	d.Default(fallback, path...)
	if d.Canonicalize(allowed, path...) {
		return nil
	}
	return rp.BadRequest("InvalidRequestFormat", "%s is '%s', which is none of %s.", strings.Join(path, "."), d.Str(path...), strings.Join(allowed, ", ")).At(strings.Join(path, "."))
}
