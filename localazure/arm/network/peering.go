// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// States of a peering.
const (
	peeringInitiated    = "Initiated"
	peeringConnected    = "Connected"
	peeringDisconnected = "Disconnected"
)

func (p *Provider) addPeerings() {
	p.env.Add(&rp.Type{Name: PeeringType, Versions: versions, NameRule: nameRule, NameHelp: nameHelp, ETagPath: []string{"etag"},
		Prepare: p.preparePeering, Commit: p.commitPeering,
		Delete: func(_ context.Context, c *rp.Change) error {
			if c.Old.State == "Deleting" {
				return busy(c.ID, "Deleting")
			}
			removal(c)
			return nil
		},
		Render: p.renderPeering})
}

func remoteOf(d rp.Doc) string { return d.Str("properties", "remoteVirtualNetwork", "id") }

// peeringsOf returns the peerings of a network that are not being deleted.
func (p *Provider) peeringsOf(ctx context.Context, vnet rp.ID) ([]*rp.Record, error) {
	id := vnet
	id.Types = append(append([]string(nil), vnet.Types...), "virtualNetworkPeerings")
	rs, err := p.env.Store.List(ctx, id)
	out := rs[:0:0]
	for _, r := range rs {
		if r.State != "Deleting" {
			out = append(out, r)
		}
	}
	return out, err
}

// counterpart returns the peering from the remote network back to this one, or
// nil.
func (p *Provider) counterpart(ctx context.Context, id rp.ID, d rp.Doc) (*rp.Record, error) {
	remote, err := rp.ParseID(remoteOf(d))
	if err != nil {
		return nil, nil //nolint:nilerr // checked when it was written
	}
	rs, err := p.peeringsOf(ctx, remote)
	if err != nil {
		return nil, err
	}
	for _, r := range rs {
		if strings.EqualFold(remoteOf(r.Doc), id.Parent().String()) {
			return r, nil
		}
	}
	return nil, nil
}

// stateOf returns a peering's state. A peering is connected while both sides
// exist; one that has lost the other side stays disconnected until it is deleted
// and created again.
func (p *Provider) stateOf(ctx context.Context, r *rp.Record) (string, error) {
	back, err := p.counterpart(ctx, r.ParsedID(), r.Doc)
	switch {
	case err != nil:
		return "", err
	case back != nil && r.Internal.Str("peer") == back.UID:
		return peeringConnected, nil
	case r.Internal.Str("peer") != "":
		return peeringDisconnected, nil
	}
	return peeringInitiated, nil
}

func (p *Provider) preparePeering(ctx context.Context, c *rp.Change) error {
	replace(c)
	if c.Old != nil && c.Old.State == "Deleting" {
		return busy(c.ID, "Deleting")
	}
	d := c.Doc
	for _, ro := range []string{"peeringState", "peeringSyncLevel", "resourceGuid", "remoteAddressSpace", "remoteVirtualNetworkAddressSpace", "remoteBgpCommunities"} {
		d.Drop("properties", ro)
	}
	remote := remoteOf(d)
	if remote == "" {
		return rp.BadRequest("InvalidRequestFormat", "The peering %s has no remoteVirtualNetwork.id.", c.ID).At("properties.remoteVirtualNetwork.id")
	}
	rid, err := rp.ParseID(remote)
	if err != nil || !strings.EqualFold(rid.Type(), VNetType) || rid.IsCollection() {
		return rp.BadRequest("InvalidRequestFormat", "'%s' is not the ID of a virtual network, which remoteVirtualNetwork.id of '%s' must be.", remote, c.ID).At("properties.remoteVirtualNetwork.id")
	}
	if strings.EqualFold(rid.Key(), c.ID.Parent().Key()) {
		return rp.BadRequest("InvalidPeering", "The virtual network %s cannot be peered with itself.", c.ID.Parent()).At("properties.remoteVirtualNetwork.id")
	}
	for name, def := range map[string]bool{"allowVirtualNetworkAccess": true, "allowForwardedTraffic": false, "allowGatewayTransit": false, "useRemoteGateways": false, "doNotVerifyRemoteGateways": false, "peerCompleteVnets": true} {
		d.Default(def, "properties", name)
		if v, _ := d.Lookup("properties", name); v != true && v != false {
			return rp.BadRequest("InvalidRequestFormat", "%s of '%s' must be true or false.", name, c.ID).At("properties." + name)
		}
	}
	if d.Bool("properties", "useRemoteGateways") {
		if d.Bool("properties", "allowGatewayTransit") {
			return rp.BadRequest("AllowGatewayTransitAndUseRemoteGatewaysCannotBothBeSet", "allowGatewayTransit and useRemoteGateways of '%s' cannot both be true.", c.ID).At("properties.useRemoteGateways")
		}
		return rp.BadRequest("RemotePeeringHasNoGateways", "'%s' has useRemoteGateways, but the remote virtual network has no gateway: the local Azure has no virtual network gateways.", c.ID).At("properties.useRemoteGateways")
	}
	if c.Old != nil && !strings.EqualFold(remoteOf(c.Old.Doc), remote) {
		return rp.BadRequest("ChangingRemoteVirtualNetworkNotAllowed", "The remote virtual network of peering '%s' cannot be changed; delete the peering and create another.", c.ID).At("properties.remoteVirtualNetwork.id")
	}
	return p.checkPair(ctx, c, rid)
}

// checkPair checks a peering against its two networks and their peerings.
func (p *Provider) checkPair(ctx context.Context, c *rp.Change, rid rp.ID) error {
	local, err := p.touch(ctx, c)
	if err != nil || local == nil {
		return err
	}
	if err := p.checkReference(ctx, &rp.Change{Env: c.Env, ID: c.ID, Doc: rp.Doc{}, Preflight: c.Preflight}, c.Doc, VNetType, "properties", "remoteVirtualNetwork"); err != nil {
		return err
	}
	remote, err := p.env.Store.Get(ctx, rid)
	if err != nil || remote == nil { // in a preflight
		return err
	}
	c.Cmps = append(c.Cmps, rp.Unchanged(remote)) // the other side may be created concurrently
	here, err := space(local.ParsedID(), local.Doc)
	if err != nil {
		return err
	}
	if err := apart(local, here, remote); err != nil {
		return err
	}
	others, err := p.peeringsOf(ctx, c.ID.Parent())
	if err != nil {
		return err
	}
	for _, r := range others {
		if strings.EqualFold(remoteOf(r.Doc), remoteOf(c.Doc)) && r.ParsedID().Key() != c.ID.Key() {
			return rp.BadRequest("AnotherPeeringAlreadyReferencesRemoteVnet", "The peering %s already references the remote virtual network %s; a network can have only one peering with another.", r.ID, rid).At("properties.remoteVirtualNetwork.id")
		}
	}
	back, err := p.counterpart(ctx, c.ID, c.Doc)
	if err != nil || back == nil {
		return err
	}
	if state, err := p.stateOf(ctx, back); err != nil {
		return err
	} else if state == peeringDisconnected && c.Old == nil {
		return rp.BadRequest("RemotePeeringIsDisconnected", "Cannot create or update peering %s because remote peering %s referencing parent virtual network is in Disconnected state. Delete the remote peering first, then create both.", c.ID, back.ID).At("properties.remoteVirtualNetwork.id")
	}
	c.Companions = []rp.Companion{{Record: back}}
	return nil
}

// apart refuses networks whose address ranges overlap.
func apart(local *rp.Record, here []netip.Prefix, remote *rp.Record) error {
	there, err := space(remote.ParsedID(), remote.Doc)
	if err != nil {
		return err
	}
	for _, x := range here {
		if other, ok := firstOverlap(x, there); ok {
			return rp.BadRequest("VnetAddressSpacesOverlap", "Cannot create or update peering: the address space of virtual network %s (%s) overlaps with that of %s (%s).", local.ParsedID(), x, remote.ParsedID(), other).At("properties.remoteVirtualNetwork.id")
		}
	}
	return nil
}

// checkPeers checks a network's new address space against those of its peers.
func (p *Provider) checkPeers(ctx context.Context, c *rp.Change, in []netip.Prefix) error {
	if c.Old == nil {
		return nil
	}
	rs, err := p.peeringsOf(ctx, c.ID)
	if err != nil {
		return err
	}
	for _, r := range rs {
		rid, err := rp.ParseID(remoteOf(r.Doc))
		if err != nil {
			continue
		}
		remote, err := p.env.Store.Get(ctx, rid)
		if err != nil {
			return err
		}
		if remote == nil {
			continue
		}
		if err := apart(c.Old, in, remote); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) commitPeering(_ context.Context, c *rp.Change) error {
	if c.Creating() {
		c.Rec.Internal.Set(rp.NewGUID(), "resourceGuid")
	}
	if len(c.Companions) > 0 {
		back := c.Companions[0].Record
		if c.Rec.Internal.Str("peer") == "" && back.Internal.Str("peer") == "" { // both sides exist now
			c.Rec.Internal.Set(back.UID, "peer")
			next := back.Clone()
			next.Internal.Set(c.Rec.UID, "peer")
			c.Cmps = append(c.Cmps, rp.Unchanged(back))
			c.Ops = append(c.Ops, rp.PutOp(next))
		}
	}
	settle(c)
	return nil
}

func (p *Provider) renderPeering(ctx context.Context, r *rp.Record, d rp.Doc, _ string) error {
	etag(d, r)
	state, err := p.stateOf(ctx, r)
	if err != nil {
		return err
	}
	level := map[string]string{peeringInitiated: "RemoteNotInSync", peeringConnected: "FullyInSync", peeringDisconnected: "LocalAndRemoteNotInSync"}[state]
	d.Set(state, "properties", "peeringState")
	d.Set(level, "properties", "peeringSyncLevel")
	d.Set(r.Internal.Str("resourceGuid"), "properties", "resourceGuid")
	rid, err := rp.ParseID(remoteOf(r.Doc))
	if err != nil {
		return nil //nolint:nilerr // checked when it was written
	}
	remote, err := p.env.Store.Get(ctx, rid)
	if err != nil || remote == nil {
		return err
	}
	prefixes := remote.Doc.List("properties", "addressSpace", "addressPrefixes")
	for _, k := range []string{"remoteAddressSpace", "remoteVirtualNetworkAddressSpace"} {
		d.Set(map[string]any{"addressPrefixes": prefixes}, "properties", k)
	}
	return nil
}

// peeringDocs renders a network's peerings as they appear in the network.
func (p *Provider) peeringDocs(ctx context.Context, vnet rp.ID) ([]any, error) {
	rs, err := p.peeringsOf(ctx, vnet)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, r := range rs {
		d := r.Doc.Clone()
		d["id"], d["name"], d["type"] = r.ID, r.ParsedID().Name(), PeeringType
		d.Set(r.State, "properties", "provisioningState")
		if err := p.renderPeering(ctx, r, d, ""); err != nil {
			return nil, err
		}
		out = append(out, map[string]any(d))
	}
	return out, nil
}
