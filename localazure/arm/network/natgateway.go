// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

func (p *Provider) addNATGateways() {
	nat := tracked(NATGatewayType, p.prepareNATGateway)
	nat.RenderList = p.renderWith("", "subnets", SubnetType)
	nat.Delete = p.deleteUnused("NatGatewayInUseBySubnet", SubnetType)
	p.env.Add(nat)
}

func (p *Provider) prepareNATGateway(ctx context.Context, c *rp.Change) error {
	c.Doc.Drop("properties", "subnets")
	if err := oneOf(c.Doc, "Standard", []string{"Standard", "StandardV2"}, "sku", "name"); err != nil {
		return err
	}
	c.Doc.Default(4, "properties", "idleTimeoutInMinutes")
	for _, x := range c.Doc.List("properties", "publicIpAddresses") {
		m, _ := x.(map[string]any)
		wrapped := rp.Doc{"publicIpAddresses": m}
		if err := p.checkReference(ctx, c, wrapped, PublicIPType, "publicIpAddresses"); err != nil {
			return err
		}
	}
	return nil
}
