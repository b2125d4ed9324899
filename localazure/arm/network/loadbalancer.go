// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"fmt"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func (p *Provider) addLoadBalancers() {
	lb := tracked(LoadBalancerType, p.prepareLoadBalancer)
	lb.RenderList = p.renderWith("", "")
	lb.Delete = p.deleteUnused("LoadBalancerInUse")
	p.env.Add(lb)
}

func (p *Provider) prepareLoadBalancer(ctx context.Context, c *rp.Change) error {
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "Basic", "Gateway"}, "sku", "name"); err != nil {
		return err
	}
	if err := oneOf(c.Doc, "Regional", []string{"Regional", "Global"}, "sku", "tier"); err != nil {
		return err
	}
	for _, prop := range []string{"frontendIPConfigurations", "backendAddressPools", "loadBalancingRules", "probes", "inboundNatRules", "outboundRules", "inboundNatPools"} {
		c.Doc.Default([]any{}, "properties", prop)
		for i, x := range c.Doc.List("properties", prop) {
			m, _ := x.(map[string]any)
			d := rp.Doc(m)
			name := d.Str("name")
			if name == "" {
				return rp.BadRequest("InvalidRequestFormat", "Element %d of %s of %s has no name.", i, prop, c.ID).At("properties." + prop)
			}
			d["id"] = fmt.Sprintf("%s/%s/%s", c.ID, prop, name)
			d["type"] = LoadBalancerType + "/" + prop
			d.Set(rp.Succeeded, "properties", "provisioningState")
			if prop != "frontendIPConfigurations" {
				continue
			}
			if err := p.checkReference(ctx, c, d, PublicIPType, "properties", "publicIPAddress"); err != nil {
				return err
			}
			if err := p.checkReference(ctx, c, d, SubnetType, "properties", "subnet"); err != nil {
				return err
			}
		}
	}
	return nil
}
