// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/network"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

const joinAction = "Microsoft.Network/virtualNetworks/subnets/join/action"

// checkSubnets checks the subnets of a cluster's pools: they exist, are in one
// virtual network, and the caller may join them. So must a user-assigned identity;
// a system-assigned one can get the role only after the PUT, so it is checked when
// a machine is created (machineSubnet).
func (p *Provider) checkSubnets(ctx context.Context, c *rp.Change, cluster rp.Doc, pools []rp.Doc) error {
	vnet := ""
	for _, pool := range pools {
		for _, k := range []string{"vnetSubnetID", "podSubnetID"} {
			s := pool.Str("properties", k)
			if s == "" {
				continue
			}
			subnet, err := network.FindSubnet(ctx, p.env.Store, s)
			if err != nil {
				if e := rp.AsError(err); e.Status == http.StatusBadRequest {
					return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.%s is invalid: %s", k, e.Message).At("agentPoolProfile." + k)
				}
				return err
			}
			if subnet == nil {
				if c.Preflight {
					continue
				}
				return rp.BadRequest("InvalidParameter", "The subnet '%s' of agent pool '%s' could not be found.", s, pool.Str("name")).At("agentPoolProfile." + k)
			}
			if v := subnet.VNet.Key(); vnet == "" {
				vnet = v
			} else if v != vnet {
				return rp.BadRequest("AgentPoolSubnetsInDifferentVnets", "All agent pools of a cluster have to be in the same virtual network; '%s' is in another.", s).At("agentPoolProfile." + k)
			}
			if err := checkSubnet(cluster, subnet, k); err != nil {
				return err
			}
			id := subnet.ID
			c.Cmps = append(c.Cmps, subnet.Unchanged) // it must not be deleted meanwhile
			if err := p.env.Authorize(ctx, c.Caller, joinAction, id); err != nil {
				if rp.AsError(err).Status != http.StatusForbidden {
					return err
				}
				return missingRole(c.Caller.ObjectID, clusterOf(c.ID), id)
			}
			if equal(cluster.Str("identity", "type"), "UserAssigned") && !c.Preflight {
				ok, err := p.auth.Allowed(ctx, principal(cluster), joinAction, id)
				if err != nil {
					return err
				}
				if !ok {
					return missingRole(principal(cluster), clusterOf(c.ID), id)
				}
			}
		}
	}
	return nil
}

// checkSubnet refuses a subnet that the cluster's nodes or pods cannot use.
func checkSubnet(cluster rp.Doc, subnet *network.Subnet, k string) error {
	refuse := func(code, format string, args ...any) error {
		return rp.BadRequest(code, "The subnet '%s' cannot be used: %s", subnet.ID, fmt.Sprintf(format, args...)).At("agentPoolProfile." + k)
	}
	if loc := cluster.Str("location"); !equal(subnet.Location, loc) {
		return refuse("SubnetInDifferentLocation", "its virtual network is in %s and the cluster in %s.", subnet.Location, loc)
	}
	if k == "podSubnetID" {
		return nil // AKS delegates it to itself
	}
	if len(subnet.Delegations) > 0 {
		return refuse("SubnetWithDelegationNotAllowed", "it is delegated to %s, so no node can be in it.", strings.Join(subnet.Delegations, ", "))
	}
	switch out := cluster.Str("properties", "networkProfile", "outboundType"); {
	case equal(out, "userDefinedRouting") && subnet.RouteTable == "":
		return refuse("ExistingRouteTableNotAssociatedWithSubnet", "the outbound type userDefinedRouting needs a route table on it (az network vnet subnet update --route-table).")
	case equal(out, "userAssignedNATGateway") && subnet.NATGateway == "":
		return refuse("InvalidParameter", "the outbound type userAssignedNATGateway needs a NAT gateway on it (az network vnet subnet update --nat-gateway).")
	}
	return nil
}

// missingRole returns ARM's refusal to use a linked resource.
func missingRole(objectID string, cluster, subnet rp.ID) error {
	return rp.Errorf(http.StatusForbidden, "LinkedAuthorizationFailed",
		"The client with object id '%s' has permission to perform action 'Microsoft.ContainerService/managedClusters/write' on scope '%s'; however, it does not have permission to perform action(s) '%s' on the linked scope(s) '%s' (respectively) or the linked scope(s) are invalid. Give it the role Network Contributor on the subnet: az role assignment create --assignee-object-id %s --role \"Network Contributor\" --scope %s",
		objectID, cluster, joinAction, subnet, objectID, subnet)
}

// machineSubnet refuses a machine in a user's subnet that the cluster's identity may
// not join.
func (p *Provider) machineSubnet(ctx context.Context, cluster, machine *rp.Record) error {
	s := machine.Doc.Str("properties", "network", "vnetSubnetID")
	if s == "" {
		s = cluster.Internal.Str("vnetSubnetID")
	}
	if s == "" {
		return nil
	}
	subnet, err := network.FindSubnet(ctx, p.env.Store, s)
	if err != nil {
		return fmt.Errorf("finding the subnet of machine '%s': %w", machine.ParsedID().Name(), err)
	}
	if subnet == nil {
		return rp.BadRequest("InvalidParameter", "The subnet '%s' of machine '%s' could not be found.", s, machine.ParsedID().Name())
	}
	ok, err := p.auth.Allowed(ctx, principal(cluster.Doc), joinAction, subnet.ID)
	if err == nil && !ok {
		err = missingRole(principal(cluster.Doc), cluster.ParsedID(), subnet.ID)
	}
	return err
}
