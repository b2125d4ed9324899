// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func (p *Provider) addRouteTables() {
	table := tracked(RouteTableType, prepareRouteTable)
	table.RenderList = p.renderRouteTables
	table.Delete = p.deleteUnused("InUseRouteTableCannotBeDeleted", SubnetType)
	p.env.Add(table, child(RouteType, func(c *rp.Change) error { return checkRoute(c.ID.Name(), c.Doc) }))
}

func prepareRouteTable(ctx context.Context, c *rp.Change) error {
	c.Doc.Drop("properties", "subnets")
	c.Doc.Default(false, "properties", "disableBgpRoutePropagation")
	return inlineChildren(ctx, c, "routes", checkRoute)
}

var hopTypes = []string{"VirtualNetworkGateway", "VnetLocal", "Internet", "VirtualAppliance", "None"}

func checkRoute(name string, d rp.Doc) error {
	if err := oneOf(d, "", hopTypes, "properties", "nextHopType"); err != nil {
		return err
	}
	to := d.Str("properties", "addressPrefix")
	if _, err := netip.ParsePrefix(to); err != nil && (to == "" || strings.ContainsAny(to, "./:")) {
		return rp.BadRequest("InvalidAddressPrefixFormat", "The route %s goes to '%s', which is neither a range such as 0.0.0.0/0 nor a service tag.", name, to).At("properties.addressPrefix")
	}
	hop := d.Str("properties", "nextHopIpAddress")
	if appliance := d.Str("properties", "nextHopType") == "VirtualAppliance"; appliance != (hop != "") {
		return rp.BadRequest("RouteNextHopIpAddressInvalid", "The route %s has nextHopType %s and nextHopIpAddress '%s'; the address is for VirtualAppliance, which needs it.", name, d.Str("properties", "nextHopType"), hop).At("properties.nextHopIpAddress")
	}
	if hop != "" {
		if _, err := netip.ParseAddr(hop); err != nil {
			return rp.BadRequest("RouteNextHopIpAddressInvalid", "nextHopIpAddress '%s' of the route %s is not an IP address.", hop, name).At("properties.nextHopIpAddress")
		}
	}
	return nil
}

func (p *Provider) renderRouteTables(ctx context.Context, rs []*rp.Record, ds []rp.Doc, v string) error {
	if err := p.renderWith("", "subnets", SubnetType)(ctx, rs, ds, v); err != nil {
		return err
	}
	for i, r := range rs {
		if err := p.setChildren(ctx, r, ds[i], "routes", RouteType); err != nil {
			return err
		}
	}
	return nil
}
