// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// maxInlineSubnets is the number of subnets that one PUT of a network may change:
// as many as fit in a transaction.
const maxInlineSubnets = 100

func (p *Provider) addVNets() {
	p.env.Add(
		&rp.Type{Name: VNetType, Versions: versions, Tracked: true, PatchTagsOnly: true, NameRule: vnetRule,
			NameHelp: "A virtual network's name has 2 to 64 characters: letters, digits, underscores, dots and dashes; it begins with a letter or digit and ends with a letter, digit or underscore.",
			Prepare:  p.prepareVNet, Commit: commitVNet, Delete: p.deleteVNet, RenderList: p.renderVNets, ETagPath: []string{"etag"}},
		&rp.Type{Name: SubnetType, Versions: versions, NameRule: nameRule, NameHelp: nameHelp,
			Prepare: p.prepareSubnet, Commit: commitSubnet, Delete: p.deleteSubnet, Render: renderSubnet, ETagPath: []string{"etag"}},
		&rp.Type{Name: VNetType + "/usages", Versions: versions, Hidden: true, Virtual: true, List: p.listUsages},
	)
}

// space returns the address ranges of a network's document.
func space(id rp.ID, d rp.Doc) ([]netip.Prefix, error) {
	const target = "properties.addressSpace.addressPrefixes"
	var out []netip.Prefix
	for _, s := range d.Strings("properties", "addressSpace", "addressPrefixes") {
		x, err := parsePrefix(s, "virtual network "+id.Name(), target)
		if err != nil {
			return nil, err
		}
		if other, ok := firstOverlap(x, out); ok {
			return nil, rp.BadRequest("OverlappingAddressPrefixes", "The address prefixes %s and %s of virtual network %s overlap.", other, x, id.Name()).At(target)
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, rp.BadRequest("MissingAddressSpace", "The virtual network %s has no address space; give at least one range in addressSpace.addressPrefixes, such as 10.0.0.0/16.", id.Name()).At(target)
	}
	return out, nil
}

func (p *Provider) prepareVNet(ctx context.Context, c *rp.Change) error {
	replace(c)
	for _, ro := range []string{"resourceGuid", "virtualNetworkPeerings"} {
		c.Doc.Drop("properties", ro)
	}
	in, err := space(c.ID, c.Doc)
	if err != nil {
		return err
	}
	if err := p.checkPeers(ctx, c, in); err != nil {
		return err
	}
	c.Doc.Default(false, "properties", "enableDdosProtection")
	inline, has := c.Doc.Lookup("properties", "subnets")
	c.Doc.Drop("properties", "subnets")

	var old []*rp.Record
	if c.Old != nil {
		if old, err = p.subnetsOf(ctx, c.ID); err != nil {
			return err
		}
	}
	byName := map[string]*rp.Record{}
	subnets, order := map[string]rp.Doc{}, []string{}
	for _, r := range old {
		byName[strings.ToLower(r.ParsedID().Name())] = r
		if !has {
			subnets[r.ParsedID().Name()] = r.Doc
			order = append(order, r.ParsedID().Name())
		}
	}
	if !has {
		return layout(c.ID, in, subnets, order)
	}
	list, ok := inline.([]any)
	if !ok {
		return rp.BadRequest("InvalidRequestFormat", "The subnets of virtual network %s are not an array.", c.ID.Name()).At("properties.subnets")
	}
	var changed []*rp.Record
	seen := map[string]bool{}
	for i, x := range list {
		m, ok := x.(map[string]any)
		if !ok {
			return rp.BadRequest("InvalidRequestFormat", "Element %d of the subnets of virtual network %s is not an object.", i, c.ID.Name()).At("properties.subnets")
		}
		d := rp.MergePut(nil, m)
		name := d.Str("name")
		if name == "" {
			return rp.BadRequest("InvalidRequestFormat", "Element %d of the subnets of virtual network %s has no name.", i, c.ID.Name()).At("properties.subnets")
		}
		if !nameRule.MatchString(name) {
			return rp.BadRequest("InvalidResourceName", "Resource name '%s' is invalid. %s", name, nameHelp).At("properties.subnets")
		}
		if seen[strings.ToLower(name)] {
			return rp.BadRequest("DuplicateResourceName", "The virtual network %s has two subnets with the name %s.", c.ID.Name(), name).At("properties.subnets")
		}
		seen[strings.ToLower(name)] = true
		if err := p.prepareSubnetDoc(ctx, c, name, d); err != nil {
			return err
		}
		subnets[name] = d
		order = append(order, name)
		r := byName[strings.ToLower(name)]
		switch {
		case r == nil:
			changed = append(changed, p.newSubnet(c, name, d))
		case r.State == "Deleting":
			return busy(r.ParsedID(), "Deleting")
		case !same(r.Doc, d):
			if err := p.checkRangeChange(ctx, r, d); err != nil {
				return err
			}
			r = r.Clone()
			r.Doc, r.ChangedBy = d, c.Caller.ObjectID
			r.Touch(p.env.Now())
			changed = append(changed, r)
		}
	}
	if err := layout(c.ID, in, subnets, order); err != nil {
		return err
	}
	removed := 0
	for name, r := range byName {
		if seen[name] {
			continue
		}
		if err := p.subnetFree(ctx, r.ParsedID()); err != nil {
			return err
		}
		removed++
		c.Ops = append(c.Ops, rp.DeleteOp(r.ParsedID()))
	}
	if n := len(changed) + removed; n > maxInlineSubnets {
		return rp.BadRequest("TooManySubnetsInRequest", "The request changes %d subnets of virtual network %s; at most %d can be changed at once. Leave the subnets that stay as they are, or write some of them one by one.", n, c.ID.Name(), maxInlineSubnets).At("properties.subnets")
	}
	for _, r := range changed {
		c.Ops = append(c.Ops, rp.PutOp(r))
	}
	return nil
}

func same(a, b rp.Doc) bool {
	x, y := clone(a), clone(b)
	return fmt.Sprint(x) == fmt.Sprint(y) // maps print in the order of their keys
}

func clone(d rp.Doc) map[string]any { return map[string]any(d.Clone()) }

func busy(id rp.ID, verb string) error {
	return rp.Conflict("AnotherOperationInProgress", "Another operation on this or dependent resource is in progress: %s is %s. Wait for it to finish and try again.", id, verb)
}

func commitVNet(_ context.Context, c *rp.Change) error {
	if c.Creating() {
		c.Rec.Internal.Set(rp.NewGUID(), "resourceGuid")
	}
	settle(c)
	return nil
}

func (p *Provider) renderVNets(ctx context.Context, rs []*rp.Record, ds []rp.Doc, _ string) error {
	for i, r := range rs {
		subnets, err := p.subnetsOf(ctx, r.ParsedID())
		if err != nil {
			return err
		}
		list := []any{}
		for _, s := range subnets {
			d := s.Doc.Clone()
			d["id"], d["name"], d["type"] = s.ID, s.ParsedID().Name(), SubnetType
			d.Set(s.State, "properties", "provisioningState")
			if err := renderSubnet(ctx, s, d, ""); err != nil {
				return err
			}
			list = append(list, map[string]any(d))
		}
		ds[i].Set(list, "properties", "subnets")
		peerings, err := p.peeringDocs(ctx, r.ParsedID())
		if err != nil {
			return err
		}
		ds[i].Set(peerings, "properties", "virtualNetworkPeerings")
		ds[i].Set(r.Internal.Str("resourceGuid"), "properties", "resourceGuid")
		etag(ds[i], r)
	}
	return nil
}

func (p *Provider) deleteVNet(ctx context.Context, c *rp.Change) error {
	if c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	subnets, err := p.subnetsOf(ctx, c.ID)
	if err != nil {
		return err
	}
	for _, s := range subnets {
		if err := p.subnetFree(ctx, s.ParsedID()); err != nil {
			return err
		}
	}
	removal(c)
	return nil
}

// listUsages returns, per subnet, the usable addresses and those that nodes of
// clusters have.
func (p *Provider) listUsages(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	vnet, err := p.env.Store.Get(ctx, q.ID.Parent())
	if err != nil {
		return nil, err
	}
	if vnet == nil {
		return nil, rp.NotFound(q.ID.Parent())
	}
	subnets, err := p.subnetsOf(ctx, vnet.ParsedID())
	if err != nil {
		return nil, err
	}
	used, err := p.nodesPerSubnet(ctx)
	if err != nil {
		return nil, err
	}
	out := []rp.Doc{}
	for _, s := range subnets {
		x, err := subnetOf(s, vnet)
		if err != nil {
			return nil, err
		}
		out = append(out, rp.Doc{"id": s.ID, "unit": "Count", "currentValue": used[s.ParsedID().Key()], "limit": x.Usable,
			"name": map[string]any{"value": "SubnetSpace", "localizedValue": "Subnet size and usage"}})
	}
	return rp.ListResponse(out, ""), nil
}
