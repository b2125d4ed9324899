package containerservice

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/nap-aks/nap/arm/rp"
)

const (
	joinAction = "Microsoft.Network/virtualNetworks/subnets/join/action"
	subnetType = "Microsoft.Network/virtualNetworks/subnets"
	// roleGrace is how long a new cluster waits for its identity to be given
	// the role on its subnet: clients can do that only once the identity is
	// there, which is after the PUT.
	roleGrace = 90 * time.Second
)

// checkSubnets checks the subnets that a cluster's pools are put into: they are
// there, in one virtual network, and the caller may use them. The cluster's
// identity has to have the role as well: one that exists already at once, a
// system-assigned one within roleGrace.
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
