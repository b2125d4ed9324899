// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/authorization"
	"github.com/nap-aks/nap/localazure/arm/managedidentity"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) prepareIdentity(ctx context.Context, c *rp.Change) error {
	d := c.Doc
	sp := d.Str("properties", "servicePrincipalProfile", "clientId")
	kind := d.Str("identity", "type")
	if kind == "" && (sp == "" || equal(sp, "msi")) {
		kind = "SystemAssigned"
		d.Set(kind, "identity", "type")
	}
	if err := oneOf(d, []string{"SystemAssigned", "UserAssigned", "None"}, "identity", "type"); err != nil {
		return err
	}
	switch {
	case equal(kind, "UserAssigned"):
		ids := d.Map("identity", "userAssignedIdentities")
		if len(ids) != 1 {
			return rp.BadRequest("InvalidUserAssignedIdentities", "A cluster with a user-assigned identity has exactly one in identity.userAssignedIdentities; this one has %d.", len(ids)).At("identity.userAssignedIdentities")
		}
		out := map[string]any{}
		for k := range ids {
			id, err := rp.ParseID(k)
			if err != nil || !equal(id.Type(), "Microsoft.ManagedIdentity/userAssignedIdentities") {
				return rp.BadRequest("InvalidUserAssignedIdentities", "'%s' is not the ID of a user-assigned identity.", k).At("identity.userAssignedIdentities")
			}
			r, err := p.env.Store.Get(ctx, id)
			if err != nil {
				return err
			}
			if r == nil {
				if c.Preflight {
					out[k] = map[string]any{}
					continue
				}
				return rp.BadRequest("FailedIdentityOperation", "Identity operation for resource '%s' failed with error 'Failed to perform resource identity operation. Status: 'NotFound'. Response: 'Resource %s was not found.''.", c.ID, k).At("identity.userAssignedIdentities")
			}
			out[k] = map[string]any{"clientId": r.Doc.Str("properties", "clientId"), "principalId": r.Doc.Str("properties", "principalId")}
		}
		d.Set(out, "identity", "userAssignedIdentities")
		d.Drop("identity", "principalId")
		d.Drop("identity", "tenantId")
	case equal(kind, "SystemAssigned"):
		d.Drop("identity", "userAssignedIdentities")
		if c.Old != nil && c.Old.Doc.Str("identity", "principalId") != "" {
			d.Set(c.Old.Doc.Str("identity", "principalId"), "identity", "principalId")
		} else if !c.Preflight {
			d.Set(rp.NewGUID(), "identity", "principalId")
		}
		d.Set(p.env.TenantID, "identity", "tenantId")
	}
	return nil
}

// principal returns the object ID of a cluster's identity.
func principal(d rp.Doc) string {
	for _, v := range d.Map("identity", "userAssignedIdentities") {
		if m, ok := v.(map[string]any); ok {
			return rp.Doc(m).Str("principalId")
		}
	}
	return d.Str("identity", "principalId")
}

// commitNew adds the resources of a new cluster: its identity, the kubelet
// identity and the node resource group.
func (p *Provider) commitNew(c *rp.Change) {
	r, id := c.Rec, c.ID
	if equal(c.Doc.Str("identity", "type"), "SystemAssigned") {
		c.Ops = append(c.Ops, token.PutOps(token.Identity{ObjectID: c.Doc.Str("identity", "principalId"), AppID: rp.NewGUID(), TenantID: p.env.TenantID, DisplayName: id.Name(), Kind: "ManagedIdentity", Resource: id.String()})...)
	}
	g := rp.ID{Subscription: id.Subscription, ResourceGroup: c.Doc.Str("properties", "nodeResourceGroup")}
	now := p.env.Now().UTC()
	kubelet := g.In(managedidentity.Type, id.Name()+"-agentpool")
	kd := rp.Doc{"location": c.Doc.Str("location")}
	c.Ops = append(c.Ops, managedidentity.Fill(kd, kubelet, p.env.TenantID)...)
	c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: kubelet.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, CreatedBy: r.CreatedBy, Internal: rp.Doc{}, Doc: kd}))
	r.Internal.Set(map[string]any{"objectId": kd.Str("properties", "principalId"), "clientId": kd.Str("properties", "clientId")}, "kubelet")
	group := &rp.Record{ID: g.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, CreatedBy: r.CreatedBy, Internal: rp.Doc{},
		Doc: rp.Doc{"location": c.Doc.Str("location"), "managedBy": id.String(), "tags": map[string]any{"aks-managed-cluster-name": id.Name(), "aks-managed-cluster-rg": id.ResourceGroup}}}
	c.Ops = append(c.Ops, rp.PutOp(group))
}

// createController creates the service principal of the node auto-provisioning
// controller: it may change this cluster, and read the subscription (sizes,
// usages, subnets). The pool of provisioned machines is created with it.
func (p *Provider) createController(c *rp.Change, ci *intent.ClusterIntent) {
	secret := rp.NewSecret()
	sp := token.Identity{ObjectID: rp.NewGUID(), AppID: rp.NewGUID(), TenantID: p.env.TenantID, DisplayName: "node-auto-provisioning-" + c.ID.Name(), Kind: "Application", Secrets: []string{token.HashSecret(secret)}, Resource: c.ID.String()}
	ci.NodeProvisioning.ClientID, ci.NodeProvisioning.ClientSecret = sp.AppID, secret
	on := p.auth.AssignmentRecord(c.ID, sp.ObjectID, authorization.AKSContributor, "node auto-provisioning creates and deletes machines")
	all := p.auth.AssignmentRecord(rp.ID{Subscription: c.ID.Subscription}, sp.ObjectID, authorization.Reader, "node auto-provisioning reads sizes, usages and subnets")
	c.Ops = append(c.Ops, token.PutOps(sp)...)
	c.Ops = append(c.Ops, rp.PutOp(on), rp.PutOp(all))
	c.Rec.Internal.Set(map[string]any{"objectId": sp.ObjectID, "clientId": sp.AppID, "assignments": []any{on.ID, all.ID}}, "controller")
	pool := c.ID.Child("agentPools", intent.MachinesPool)
	now := p.env.Now().UTC()
	c.Ops = append(c.Ops, rp.PutOp(&rp.Record{ID: pool.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), State: rp.Succeeded, CreatedAt: now, ChangedAt: now, Internal: rp.Doc{}, Doc: rp.Doc{"properties": map[string]any{
		"mode": "Machines", "type": "VirtualMachines", "osType": "Linux", "count": 0.0, "enableAutoScaling": false, "vmSize": "", "orchestratorVersion": c.Doc.Str("properties", "currentKubernetesVersion"),
		"currentOrchestratorVersion": c.Doc.Str("properties", "currentKubernetesVersion"), "powerState": map[string]any{"code": "Running"}}}}))
}

// deleteController deletes the controller's principal and the pool of provisioned
// machines, on the condition that no machine exists.
func (p *Provider) deleteController(c *rp.Change, ci *intent.ClusterIntent) {
	ctl := c.Rec.Internal.Map("controller")
	c.Ops = append(c.Ops, token.DeleteOps(ctl.Str("objectId"), ctl.Str("clientId"))...)
	for _, a := range ctl.Strings("assignments") {
		c.Ops = append(c.Ops, rp.DeleteOp(rp.MustParseID(a)))
	}
	c.Rec.Internal.Drop("controller")
	ci.NodeProvisioning.ClientID, ci.NodeProvisioning.ClientSecret = "", ""
	ci.Generation++
	pool := c.ID.Child("agentPools", intent.MachinesPool)
	machines := rp.RecordKey(pool.Child("machines", "x"))
	machines = strings.TrimSuffix(machines, "x")
	c.Cmps = append(c.Cmps, clientv3.Compare(clientv3.CreateRevision(machines), "=", 0).WithPrefix())
	c.Ops = append(c.Ops, rp.DeleteOp(pool))
}
