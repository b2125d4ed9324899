// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// defaultRules are the rules at the end of every security group.
var defaultRules = []struct {
	name, access, direction, protocol, source, destination, about string
	priority                                                      int
}{
	{"AllowVnetInBound", "Allow", "Inbound", "*", "VirtualNetwork", "VirtualNetwork", "Allow inbound traffic from all VMs in VNET", 65000},
	{"AllowAzureLoadBalancerInBound", "Allow", "Inbound", "*", "AzureLoadBalancer", "*", "Allow inbound traffic from azure load balancer", 65001},
	{"DenyAllInBound", "Deny", "Inbound", "*", "*", "*", "Deny all inbound traffic", 65500},
	{"AllowVnetOutBound", "Allow", "Outbound", "*", "VirtualNetwork", "VirtualNetwork", "Allow outbound traffic from all VMs to all VMs in VNET", 65000},
	{"AllowInternetOutBound", "Allow", "Outbound", "*", "*", "Internet", "Allow outbound traffic from all VMs to Internet", 65001},
	{"DenyAllOutBound", "Deny", "Outbound", "*", "*", "*", "Deny all outbound traffic", 65500},
}

func (p *Provider) addSecurityGroups() {
	group := tracked(SecurityGroupType, prepareSecurityGroup)
	group.RenderList = p.renderSecurityGroups
	group.Delete = p.deleteUnused("InUseNetworkSecurityGroupCannotBeDeleted", SubnetType)
	p.env.Add(group, child(SecurityRuleType, func(c *rp.Change) error { return checkRule(c.ID.Name(), c.Doc) }))
}

func prepareSecurityGroup(ctx context.Context, c *rp.Change) error {
	for _, ro := range []string{"defaultSecurityRules", "subnets", "networkInterfaces"} {
		c.Doc.Drop("properties", ro)
	}
	return inlineChildren(ctx, c, "securityRules", checkRule)
}

func checkRule(name string, d rp.Doc) error {
	if n, ok := d.Int("properties", "priority"); !ok || n < 100 || n > 4096 {
		return rp.BadRequest("SecurityRuleInvalidPriority", "Security rule %s has invalid priority. It must be a number between 100 and 4096.", name).At("properties.priority")
	}
	for prop, allowed := range map[string][]string{"access": {"Allow", "Deny"}, "direction": {"Inbound", "Outbound"}, "protocol": {"*", "Tcp", "Udp", "Icmp", "Esp", "Ah"}} {
		if d.Str("properties", prop) == "" {
			return rp.BadRequest("SecurityRuleParameterMissing", "Security rule %s has no %s.", name, prop).At("properties." + prop)
		}
		if err := oneOf(d, "", allowed, "properties", prop); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) renderSecurityGroups(ctx context.Context, rs []*rp.Record, ds []rp.Doc, v string) error {
	if err := p.renderWith("", "subnets", SubnetType)(ctx, rs, ds, v); err != nil {
		return err
	}
	for i, r := range rs {
		if err := p.setChildren(ctx, r, ds[i], "securityRules", SecurityRuleType); err != nil {
			return err
		}
		list := []any{}
		for _, x := range defaultRules {
			list = append(list, map[string]any{"id": r.ID + "/defaultSecurityRules/" + x.name, "name": x.name, "type": SecurityGroupType + "/defaultSecurityRules", "etag": ds[i]["etag"],
				"properties": map[string]any{"provisioningState": rp.Succeeded, "description": x.about, "protocol": x.protocol, "sourcePortRange": "*", "destinationPortRange": "*",
					"sourceAddressPrefix": x.source, "destinationAddressPrefix": x.destination, "access": x.access, "priority": x.priority, "direction": x.direction}})
		}
		ds[i].Set(list, "properties", "defaultSecurityRules")
	}
	return nil
}
