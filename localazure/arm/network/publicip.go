// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"net/netip"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// publicRange and prefixRange are the ranges of public IP addresses and prefixes:
// the halves of the range that RFC 2544 reserves for tests.
var (
	publicRange = netip.MustParsePrefix("198.18.0.0/16")
	prefixRange = netip.MustParsePrefix("198.19.0.0/16")
)

func (p *Provider) addPublicIPs() {
	ip := tracked(PublicIPType, p.preparePublicIP)
	ip.RenderList = p.renderWith("ipConfiguration", "", LoadBalancerType, NATGatewayType)
	ip.Delete = p.deleteUnused("PublicIPAddressCannotBeDeleted", LoadBalancerType, NATGatewayType, "Microsoft.ContainerService/managedClusters")
	prefix := tracked(PublicIPPrefixType, p.preparePrefix)
	prefix.RenderList = p.renderWith("", "")
	prefix.Delete = p.deleteUnused("PublicIpPrefixInUse", NATGatewayType, PublicIPType, "Microsoft.ContainerService/managedClusters")
	p.env.Add(ip, prefix)
}

func (p *Provider) preparePublicIP(ctx context.Context, c *rp.Change) error {
	d := c.Doc
	for _, ro := range []string{"ipConfiguration", "ipAddress", "natGateway"} {
		d.Drop("properties", ro)
	}
	if err := oneOf(d, "Standard", []string{"Standard", "StandardV2", "Basic"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(d, "Regional", []string{"Regional", "Global"}, "sku", "tier"); err != nil {
		return err
	}
	if err := oneOf(d, "IPv4", []string{"IPv4", "IPv6"}, "properties", "publicIPAddressVersion"); err != nil {
		return err
	}
	standard := d.Str("sku", "name") != "Basic"
	method := "Dynamic"
	if standard {
		method = "Static"
	}
	if err := oneOf(d, method, []string{"Static", "Dynamic"}, "properties", "publicIPAllocationMethod"); err != nil {
		return err
	}
	if standard && d.Str("properties", "publicIPAllocationMethod") == "Dynamic" {
		return rp.BadRequest("PublicIPAddressStandardSkuCannotHaveDynamicAllocation", "Standard sku publicIp %s must have AllocationMethod set to Static.", c.ID).At("properties.publicIPAllocationMethod")
	}
	d.Default(4, "properties", "idleTimeoutInMinutes")
	if n, ok := d.Int("properties", "idleTimeoutInMinutes"); !ok || n < 4 || n > 30 {
		return rp.BadRequest("InvalidIdleTimeoutInMinutes", "idleTimeoutInMinutes of %s is not between 4 and 30.", c.ID).At("properties.idleTimeoutInMinutes")
	}
	if label := d.Str("properties", "dnsSettings", "domainNameLabel"); label != "" {
		d.Set(strings.ToLower(label)+"."+d.Str("location")+".cloudapp.azure.com", "properties", "dnsSettings", "fqdn")
	}
	switch was := ""; {
	case c.Old != nil && c.Old.Doc.Str("properties", "ipAddress") != "":
		was = c.Old.Doc.Str("properties", "ipAddress")
		d.Set(was, "properties", "ipAddress")
	case !c.Preflight && d.Str("properties", "publicIPAllocationMethod") == "Static" && d.Str("properties", "publicIPAddressVersion") == "IPv4":
		a, err := p.freeAddress(ctx)
		if err != nil {
			return err
		}
		d.Set(a.String(), "properties", "ipAddress")
	}
	return nil
}

// freeAddress returns the lowest public address that no resource has.
func (p *Provider) freeAddress(ctx context.Context) (netip.Addr, error) {
	rs, err := p.env.Store.ListType(ctx, PublicIPType)
	if err != nil {
		return netip.Addr{}, err
	}
	taken := map[string]bool{}
	for _, r := range rs {
		taken[r.Doc.Str("properties", "ipAddress")] = true
	}
	for a := publicRange.Addr().Next(); publicRange.Contains(a); a = a.Next() {
		if !taken[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, rp.Conflict("PublicIPCountLimitReached", "All addresses of %s are taken; delete public IP addresses that are not needed.", publicRange)
}

func (p *Provider) preparePrefix(ctx context.Context, c *rp.Change) error {
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "StandardV2"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(c.Doc, "IPv4", []string{"IPv4"}, "properties", "publicIPAddressVersion"); err != nil {
		return err
	}
	bits, ok := c.Doc.Int("properties", "prefixLength")
	if !ok || bits < 28 || bits > 31 {
		return rp.BadRequest("InvalidPrefixLength", "prefixLength of %s is not a number from 28 to 31.", c.ID).At("properties.prefixLength")
	}
	c.Doc.Drop("properties", "ipPrefix")
	if c.Old != nil {
		if was, _ := c.Old.Doc.Int("properties", "prefixLength"); was != bits {
			return rp.BadRequest("PublicIpPrefixLengthCannotBeChanged", "prefixLength of %s cannot be changed from %d to %d; create another prefix.", c.ID, was, bits).At("properties.prefixLength")
		}
		c.Doc.Set(c.Old.Doc.Str("properties", "ipPrefix"), "properties", "ipPrefix")
		return nil
	}
	if c.Preflight {
		return nil
	}
	rs, err := p.env.Store.ListType(ctx, PublicIPPrefixType)
	if err != nil {
		return err
	}
	var taken []netip.Prefix
	for _, r := range rs {
		if x, err := netip.ParsePrefix(r.Doc.Str("properties", "ipPrefix")); err == nil {
			taken = append(taken, x)
		}
	}
	// Each prefix takes a block of 16 addresses.
	for a := prefixRange.Addr(); prefixRange.Contains(a); {
		x := netip.PrefixFrom(a, bits)
		if _, ok := firstOverlap(x, taken); !ok {
			c.Doc.Set(x.String(), "properties", "ipPrefix")
			return nil
		}
		for range 16 {
			a = a.Next()
		}
	}
	return rp.Conflict("PublicIpPrefixCountLimitReached", "All prefixes of %s are taken; delete some that are not needed.", prefixRange)
}
