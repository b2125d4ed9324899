// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) addClusters() {
	t := &rp.Type{Name: clusterType, Versions: apiVersions, Scope: rp.InGroup, Tracked: true, Flat: true, ETagPath: []string{"eTag"}, PatchTagsOnly: true,
		NameRule: regexp.MustCompile(`^[a-zA-Z0-9]$|^[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]$`), NameHelp: "A cluster's name has 1 to 63 letters, digits, dashes and underscores, and starts and ends with a letter or digit.",
		Prepare: p.prepareCluster, Commit: p.commitCluster, Delete: p.deleteCluster, RenderList: p.renderClusters, Stamp: p.stampCluster}
	t.Actions = map[string]rp.Action{
		"listclusterusercredential":           {Permission: "Microsoft.ContainerService/managedClusters/listClusterUserCredential/action", Do: p.credential("clusterUser")},
		"listclusteradmincredential":          {Permission: "Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action", Do: p.credential("clusterAdmin")},
		"listclustermonitoringusercredential": {Do: p.credential("clusterMonitoringUser")},
		"stop":                                {Do: p.stop},
		"start":                               {Do: p.start},
		"abort":                               {Do: p.abort},
		"enablenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.provisioning.Enable},
		"disablenodeprovisioning":             {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.provisioning.Disable},
		"freezenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.provisioning.Freeze},
		"resumenodeprovisioning":              {Permission: "Microsoft.ContainerService/managedClusters/write", Do: p.provisioning.Resume},
		"runcommand":                          {Permission: "Microsoft.ContainerService/managedClusters/runcommand/action", Do: p.runCommand},
	}
	p.env.Add(t)
	p.env.Engine.Register("PutCluster", rp.Kind{Step: p.stepPutCluster, Failed: p.clusterFailed})
	p.env.Engine.Register("Abort", rp.Kind{Step: p.stepAbort})
	p.env.Engine.Register("DeleteCluster", rp.Kind{Step: p.stepDeleteCluster, Failed: p.clusterFailed})
}

func (p *Provider) prepareCluster(ctx context.Context, c *rp.Change) error {
	if c.Patch {
		return nil
	}
	var model armcontainerservice.ManagedCluster
	if err := c.Doc.Into(&model); err != nil {
		return rp.BadRequest("InvalidParameter", "The request body does not have the shape of a managed cluster: %v", err)
	}
	d := c.Doc
	fromVersion(d, c.APIVersion)
	if d.Map("properties") == nil {
		d.Set(map[string]any{}, "properties")
	}
	if err := p.prepareIdentity(ctx, c); err != nil {
		return err
	}
	if err := p.prepareVersion(c); err != nil {
		return err
	}
	if err := p.prepareNetwork(c); err != nil {
		return err
	}
	if err := complete(d, clusterSettings); err != nil {
		return err
	}
	if err := p.nameCluster(c.ID, d); err != nil {
		return err
	}
	var old rp.Doc
	if c.Old != nil {
		old = c.Old.Doc
		if path, _ := changedProperty(d, old, clusterImmutable, true); path != "" {
			path = strings.TrimPrefix(path, "properties.")
			return rp.BadRequest("PropertyChangeNotAllowed", "Changing property '%s' is not allowed.", path).At(path)
		}
	}
	pools, upgraded, err := p.preparePools(ctx, c)
	if err != nil {
		return err
	}
	if err := checkOverride(d, old, p.env.Now()); err != nil {
		return err
	}
	if c.Old != nil && (upgraded || old.Str("properties", "currentKubernetesVersion") != d.Str("properties", "currentKubernetesVersion")) {
		if err := p.checkBudgets(ctx, c.Old, d); err != nil {
			return err
		}
	}
	v := &view{doc: d, old: old}
	for _, x := range pools {
		pd := x.Record.Doc.Clone()
		pd["name"] = x.Record.ParsedID().Name()
		v.pools = append(v.pools, pd)
	}
	if v.autoscalerAllowed, err = p.autoscalerAllowed(ctx); err != nil {
		return err
	}
	if err := checkRules(v); err != nil {
		return err
	}
	if err := completeAutoScaler(v); err != nil {
		return err
	}
	if c.Old != nil && mode(old) == modeAuto && mode(d) == modeManual {
		if err := p.provisioning.CheckManual(ctx, c.Old); err != nil {
			return err
		}
	}
	if err := p.checkSubnets(ctx, c, d, v.pools); err != nil {
		return err
	}
	d.Drop("properties", "agentPoolProfiles")
	c.Companions = pools
	return nil
}

// nameCluster fills the names that a cluster's document is completed with.
func (p *Provider) nameCluster(id rp.ID, d rp.Doc) error {
	prefix, loc := d.Str("properties", "dnsPrefix"), d.Str("location")
	if prefix == "" {
		prefix = d.Str("properties", "fqdnSubdomain")
	}
	if prefix == "" {
		return rp.BadRequest("InvalidParameter", "Required parameter dnsPrefix is missing (null).").At("properties.dnsPrefix")
	}
	d.Default("MC_"+id.ResourceGroup+"_"+id.Name()+"_"+loc, "properties", "nodeResourceGroup")
	if d.Bool("properties", "oidcIssuerProfile", "enabled") {
		d.Default(fmt.Sprintf("https://%s.oic.prod-aks.azure.com/%s/%s/", loc, p.env.TenantID, letters(id.Key(), 12)), "properties", "oidcIssuerProfile", "issuerURL")
	}
	fqdn := fmt.Sprintf("%s-%s.hcp.%s.azmk8s.io", strings.ToLower(prefix), letters(id.Key()+"fqdn", 8), loc)
	d.Default(fqdn, "properties", "fqdn")
	d.Default(strings.Replace(fqdn, ".hcp.", ".portal.hcp.", 1), "properties", "azurePortalFQDN")
	return nil
}

func (p *Provider) commitCluster(ctx context.Context, c *rp.Change) error {
	c.Lock, c.Busy = lockOf(c.ID), busy
	r := c.Rec
	if c.Patch {
		r.State = c.Old.State
		return nil
	}
	var prev *intent.ClusterIntent
	if c.Old != nil {
		ci, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(r.UID))
		if err != nil {
			return err
		}
		if ok {
			prev = &ci
		}
	}
	r.State = "Updating"
	switch {
	case c.Old == nil:
		r.State = "Creating"
	case c.Old.Doc.Str("properties", "currentKubernetesVersion") != c.Doc.Str("properties", "currentKubernetesVersion"):
		r.State = "Upgrading"
	}
	c.Doc.Default(r.UID, "properties", "resourceUID")
	smaller := false
	for _, x := range c.Companions {
		pool := x.Record
		c.Cmps = append(c.Cmps, rp.Unchanged(pool))
		if x.Changed {
			was, _ := x.Before.Int("properties", "count")
			is, _ := pool.Doc.Int("properties", "count")
			smaller = smaller || is < was
			pool.State = r.State
			pool.ETag = rp.NewGUID()
			c.Ops = append(c.Ops, rp.PutOp(pool))
		}
		if s := pool.Doc.Str("properties", "vnetSubnetID"); s != "" && r.Internal.Str("vnetSubnetID") == "" {
			r.Internal.Set(s, "vnetSubnetID")
		}
	}
	if c.Old == nil {
		p.commitNew(c)
	}
	ci := p.clusterIntent(r, prev)
	if mode(c.Doc) == modeAuto && ci.NodeProvisioning.ClientID == "" {
		p.createController(c, &ci)
	}
	if mode(c.Doc) == modeManual && c.Old != nil && mode(c.Old.Doc) == modeAuto {
		p.deleteController(c, &ci)
	}
	if prev == nil || ci != *prev {
		c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(r.UID), ci))
	}
	c.Op = &rp.Operation{Kind: "PutCluster", Verb: r.State, Data: rp.Doc{}}
	if r.State == "Upgrading" || !smaller { // scaling in alone is no upgrade
		c.Op.Data[forcedKey] = forced(c.Doc, p.env.Now())
	}
	return nil
}

func (p *Provider) stepPutCluster(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	watch := []string{intent.ClusterStatusKey(r.UID)}
	// Pools and the control plane come up at the same time.
	pools, err := p.pools(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	ok, err := p.ready(ctx, r.UID)
	if err != nil {
		return rp.Step{}, err
	}
	at := progress{done: true, waiting: "the control plane", since: op.Start}
	if !ok && op.Verb == "Upgrading" {
		// Nodes must not be newer than the control plane, so it is upgraded first.
		return rp.Step{Watch: watch, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
	}
	for _, pool := range pools {
		pa, err := p.reconcilePool(ctx, op, r, pool)
		if err != nil {
			return rp.Step{}, err
		}
		watch = append(watch, intent.MachineStatusPrefix+r.UID+"/"+pool.ParsedID().Name()+"/")
		if !pa.done {
			at.done, at.waiting = false, pa.waiting
		}
		if pa.since.After(at.since) {
			at.since = pa.since
		}
	}
	if !ok || !at.done {
		return rp.Step{Watch: watch, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
	}
	if mode(r.Doc) == modeAuto {
		if err := p.provisioning.Reopen(ctx, r); err != nil {
			return rp.Step{}, err
		}
	}
	k := r.Internal.Map("kubelet")
	if k != nil && r.Doc.Map("properties", "identityProfile") == nil {
		ng := r.Doc.Str("properties", "nodeResourceGroup")
		r.Doc.Set(map[string]any{"kubeletidentity": map[string]any{"clientId": k.Str("clientId"), "objectId": k.Str("objectId"),
			"resourceId": "/subscriptions/" + id.Subscription + "/resourcegroups/" + ng + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + id.Name() + "-agentpool"}}, "properties", "identityProfile")
	}
	if lb := r.Doc.Map("properties", "networkProfile", "loadBalancerProfile"); lb != nil && len(lb.List("effectiveOutboundIPs")) == 0 {
		lb.Set([]any{map[string]any{"id": "/subscriptions/" + id.Subscription + "/resourceGroups/" + r.Doc.Str("properties", "nodeResourceGroup") + "/providers/Microsoft.Network/publicIPAddresses/" + rp.NewGUID()}}, "effectiveOutboundIPs")
	}
	cmps, ops, err := p.setState(ctx, r, rp.Succeeded)
	if err != nil {
		return rp.Step{}, err
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops}, nil
}

// clusterFailed sets the state of a cluster whose operation failed or was
// canceled.
func (p *Provider) clusterFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, clusterOf(rp.MustParseID(op.Resource)))
	if err != nil || r == nil {
		return nil, err
	}
	pools, err := p.pools(ctx, r.ParsedID())
	if err != nil {
		return nil, err
	}
	for _, pool := range pools {
		s, err := p.look(ctx, op, r, pool)
		if err != nil {
			return nil, err
		}
		if _, err := s.settle(); err != nil {
			return nil, err
		}
	}
	state := rp.Failed
	if e == rp.ErrCanceled {
		state = rp.Canceled
	}
	_, ops, err := p.setState(ctx, r, state)
	return ops, err
}

// poolsOf returns the ID of the collection of a cluster's pools.
func poolsOf(cluster rp.ID) rp.ID {
	cluster.Types = append(append([]string(nil), cluster.Types[:1]...), "agentPools")
	return cluster
}

// stampCluster returns the stamp of what renderClusters reads: the pools.
func (p *Provider) stampCluster(ctx context.Context, r *rp.Record) (uint64, error) {
	pools, err := p.env.Store.ViewList(ctx, poolsOf(r.ParsedID()))
	return rp.Stamp(pools), err
}

// renderClusters adds to clusters what is in other records: their pools.
func (p *Provider) renderClusters(ctx context.Context, rs []*rp.Record, ds []rp.Doc, apiVersion string) error {
	for i, r := range rs {
		pools, err := p.env.Store.ViewList(ctx, poolsOf(r.ParsedID()))
		if err != nil {
			return err
		}
		profiles := []any{}
		for _, pr := range pools {
			if pr.ParsedID().Name() == intent.MachinesPool {
				continue
			}
			d := pr.Doc.Clone().Map("properties")
			d["name"], d["provisioningState"], d["eTag"] = pr.ParsedID().Name(), pr.State, pr.ETag
			profiles = append(profiles, map[string]any(d))
		}
		d := ds[i]
		toVersion(d, apiVersion)
		d.Set(profiles, "properties", "agentPoolProfiles")
		d["id"] = strings.Replace(r.ID, "/resourceGroups/", "/resourcegroups/", 1)
		if apiVersion >= "2022-" {
			d["systemData"] = rp.SystemData(r)
		}
		if !hasNodeProvisioning(apiVersion) {
			d.Drop("properties", "nodeProvisioningProfile")
		}
		d.Drop("properties", "servicePrincipalProfile", "secret")
	}
	return nil
}

// hasNodeProvisioning reports whether an API version has nodeProvisioningProfile.
func hasNodeProvisioning(v string) bool {
	if strings.HasSuffix(v, "-preview") {
		return rp.VersionAtLeast(v, "2023-09-02")
	}
	return rp.VersionAtLeast(v, "2025-05-01")
}
