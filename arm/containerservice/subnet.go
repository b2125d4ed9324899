package containerservice

import (
	"context"
	"net/http"
	"strings"

	"github.com/nap-aks/nap/arm/rp"
)

const (
	joinAction = "Microsoft.Network/virtualNetworks/subnets/join/action"
	subnetType = "Microsoft.Network/virtualNetworks/subnets"
)

// checkSubnets checks the subnets that a cluster's pools are put into: they are
// there, in one virtual network, and the caller may use them. The cluster's
// identity has to have the role as well, if it is one that exists already; a
// system-assigned one can be given it only after the PUT, so it is looked at
// when a machine is created (machineSubnet).
func (p *Provider) checkSubnets(ctx context.Context, c *rp.Change, pools []rp.Doc) error {
	vnet := ""
	for _, pool := range pools {
		for _, k := range []string{"vnetSubnetID", "podSubnetID"} {
			s := pool.Str("properties", k)
			if s == "" {
				continue
			}
			id, err := rp.ParseID(s)
			if err != nil || !strings.EqualFold(id.Type(), subnetType) || id.IsCollection() {
				return rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.%s is invalid: '%s' is not the ID of a subnet.", k, s).At("agentPoolProfile." + k)
			}
			if v := id.Parent().Key(); vnet == "" {
				vnet = v
			} else if v != vnet {
				return rp.BadRequest("AgentPoolSubnetsInDifferentVnets", "All agent pools of a cluster have to be in the same virtual network; '%s' is in another.", s).At("agentPoolProfile." + k)
			}
			r, err := p.env.Store.Get(ctx, id)
			if err != nil {
				return err
			}
			if r == nil {
				if c.Preflight {
					continue
				}
				return rp.BadRequest("InvalidParameter", "The subnet '%s' of agent pool '%s' could not be found.", s, pool.Str("name")).At("agentPoolProfile." + k)
			}
			if err := p.env.Authorize(ctx, c.Caller, joinAction, id); err != nil {
				if rp.AsError(err).Status != http.StatusForbidden {
					return err
				}
				return missingRole(c.Caller.ObjectID, c.ID, id)
			}
			if equal(c.Doc.Str("identity", "type"), "UserAssigned") && !c.Preflight {
				ok, err := p.auth.Allowed(ctx, principal(c.Doc), joinAction, id)
				if err != nil {
					return err
				}
				if !ok {
					return missingRole(principal(c.Doc), c.ID, id)
				}
			}
		}
	}
	return nil
}

// missingRole is ARM's refusal when a linked resource may not be used.
func missingRole(objectID string, cluster, subnet rp.ID) error {
	return rp.Errorf(http.StatusForbidden, "LinkedAuthorizationFailed",
		"The client with object id '%s' has permission to perform action 'Microsoft.ContainerService/managedClusters/write' on scope '%s'; however, it does not have permission to perform action(s) '%s' on the linked scope(s) '%s' (respectively) or the linked scope(s) are invalid. Give it the role Network Contributor on the subnet: az role assignment create --assignee-object-id %s --role \"Network Contributor\" --scope %s",
		objectID, cluster, joinAction, subnet, objectID, subnet)
}

// machineSubnet refuses a machine in a subnet of the user's on which the
// cluster's identity does not have the role.
func (p *Provider) machineSubnet(ctx context.Context, cluster, machine *rp.Record) error {
	s := machine.Doc.Str("properties", "network", "vnetSubnetID")
	if s == "" {
		s = cluster.Internal.Str("vnetSubnetID")
	}
	if s == "" {
		return nil
	}
	subnet, err := rp.ParseID(s)
	if err != nil {
		return rp.BadRequest("InvalidParameter", "The subnet ID '%s' of machine '%s' is invalid: %v", s, machine.ParsedID().Name(), err)
	}
	there, err := p.env.Store.Get(ctx, subnet)
	if err != nil {
		return err
	}
	if there == nil {
		return rp.BadRequest("InvalidParameter", "The subnet '%s' of machine '%s' could not be found.", s, machine.ParsedID().Name())
	}
	ok, err := p.auth.Allowed(ctx, principal(cluster.Doc), joinAction, subnet)
	if err == nil && !ok {
		err = missingRole(principal(cluster.Doc), cluster.ParsedID(), subnet)
	}
	return err
}
