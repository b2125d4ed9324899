// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) addPools() {
	t := &rp.Type{Name: poolType, Versions: apiVersions, Scope: rp.InGroup, Flat: true, ETagPath: []string{"properties", "eTag"},
		NameRule: regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`), NameHelp: "An agent pool's name has 1 to 12 lower-case letters and digits and starts with a letter.",
		Prepare: p.preparePool, Commit: p.commitPool, Delete: p.deletePool, List: p.listPools}
	t.Actions = map[string]rp.Action{
		"deletemachines":          {Permission: "Microsoft.ContainerService/managedClusters/agentPools/deleteMachines/action", Do: p.deleteMachines},
		"upgradenodeimageversion": {Permission: "Microsoft.ContainerService/managedClusters/agentPools/upgradeNodeImageVersion/action", Do: p.upgradeImage},
		"abort":                   {Do: p.abort},
		"resize":                  {Permission: "Microsoft.ContainerService/managedClusters/agentPools/write", Do: p.resize},
	}
	p.env.Add(t)
	p.env.Engine.Register("PutPool", rp.Kind{Step: p.stepPutPool, Failed: p.poolFailed})
	p.env.Engine.Register("DeletePool", rp.Kind{Step: p.stepDeletePool, Failed: p.poolFailed})
}

func (p *Provider) listPools(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster := clusterOf(q.ID)
	if _, err := p.cluster(ctx, cluster); err != nil {
		return nil, err
	}
	rs, err := p.pools(ctx, cluster)
	if err != nil {
		return nil, err
	}
	page, next, err := rp.Page(q, rs)
	if err != nil {
		return nil, err
	}
	ds, err := p.env.RenderAll(ctx, q.Type, page, q.APIVersion)
	return rp.ListResponse(ds, next), err
}

// preparePools merges the pools in a cluster's body into the existing ones. Pools
// that the body leaves out stay as they are. upgraded reports whether nodes have
// to be upgraded.
func (p *Provider) preparePools(ctx context.Context, c *rp.Change) (pools []rp.Companion, upgraded bool, err error) {
	byName := map[string]int{}
	if c.Old != nil {
		have, err := p.pools(ctx, c.ID)
		if err != nil {
			return nil, false, err
		}
		for i, r := range have {
			byName[r.ParsedID().Name()] = i
			pools = append(pools, rp.Companion{Record: r})
		}
	}
	t := p.env.FindType(poolType)
	seen := map[string]bool{}
	for i, x := range c.Sent.List("properties", "agentPoolProfiles") {
		m, ok := x.(map[string]any)
		if !ok {
			return nil, false, rp.BadRequest("InvalidParameter", "agentPoolProfiles[%d] is not an object.", i).At("properties.agentPoolProfiles")
		}
		sent := rp.Doc(m).Clone()
		name := sent.Str("name")
		if !t.NameRule.MatchString(name) {
			return nil, false, rp.BadRequest("InvalidParameter", "The value of parameter agentPoolProfile.name is invalid: '%s'. %s", name, t.NameHelp).At("agentPoolProfile.name")
		}
		if seen[name] || name == intent.MachinesPool {
			return nil, false, rp.BadRequest("InvalidParameter", "The agent pool name '%s' is used twice or reserved.", name).At("agentPoolProfile.name")
		}
		seen[name] = true
		for _, k := range []string{"name", "id", "type", "provisioningState", "eTag"} {
			if k != "type" || !equal(sent.Str("type"), "VirtualMachineScaleSets", "AvailabilitySet", "VirtualMachines") {
				sent.Drop(k)
			}
		}
		at, exists := byName[name]
		if !exists {
			now := p.env.Now().UTC()
			at = len(pools)
			pools = append(pools, rp.Companion{Record: &rp.Record{ID: c.ID.Child("agentPools", name).String(), UID: rp.NewGUID(), CreatedAt: now, ChangedAt: now, CreatedBy: c.Caller.ObjectID, Internal: rp.Doc{}}})
		}
		pool := &pools[at]
		pool.Changed, pool.Before = true, pool.Record.Doc
		doc := rp.MergePut(pool.Before, rp.Doc{"properties": map[string]any(sent)})
		if err := p.completePool(c.Doc, doc, pool.Before, name); err != nil {
			return nil, false, err
		}
		upgraded = upgraded || upgrades(pool.Before, doc)
		pool.Record.Doc = doc
	}
	if len(pools) == 0 {
		return nil, false, rp.BadRequest("InvalidParameter", "Required parameter agentPoolProfiles is missing (null): a cluster has at least one pool of mode System.").At("properties.agentPoolProfiles")
	}
	system := 0
	for _, x := range pools {
		system += systemNodes(x.Record.Doc)
	}
	if system == 0 {
		return nil, false, rp.BadRequest("InvalidParameter", "There has to be at least one system agent pool with at least one node (mode System).").At("properties.agentPoolProfiles")
	}
	return pools, upgraded, nil
}

// systemNodes returns the node count of a pool of mode System; 0 for others.
func systemNodes(d rp.Doc) int {
	if !equal(d.Str("properties", "mode"), "System") {
		return 0
	}
	n, _ := d.Int("properties", "count")
	return n
}

func (p *Provider) preparePool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.env.Store.Get(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	if cluster == nil {
		if c.Preflight {
			return nil
		}
		return rp.NotFound(clusterOf(c.ID))
	}
	if c.ID.Name() == intent.MachinesPool {
		return rp.BadRequest("OperationNotAllowed", "The agent pool '%s' belongs to node auto-provisioning; it is created and deleted with the mode of the cluster's nodeProvisioningProfile.", intent.MachinesPool)
	}
	if cluster.State == "Deleting" {
		return rp.Conflict("OperationNotAllowed", "The cluster '%s' is being deleted.", clusterOf(c.ID).Name())
	}
	if equal(cluster.Doc.Str("properties", "powerState", "code"), "Stopped") {
		return rp.BadRequest("OperationNotAllowed", "The cluster '%s' is stopped; start it first (az aks start).", clusterOf(c.ID).Name())
	}
	var old rp.Doc
	if c.Old != nil {
		old = c.Old.Doc
	}
	if err := p.completePool(cluster.Doc, c.Doc, old, c.ID.Name()); err != nil {
		return err
	}
	if upgrades(old, c.Doc) {
		if err := p.checkBudgets(ctx, cluster, cluster.Doc); err != nil {
			return err
		}
	}
	pools, err := p.pools(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	v := &view{doc: cluster.Doc, old: cluster.Doc}
	me := c.Doc.Clone()
	me["name"] = c.ID.Name()
	v.pools = append(v.pools, me)
	system := 0
	for _, r := range append(pools, &rp.Record{ID: c.ID.String(), Doc: c.Doc}) {
		if strings.EqualFold(r.ID, c.ID.String()) && r.UID != "" {
			continue
		}
		system += systemNodes(r.Doc)
	}
	if system == 0 {
		return rp.BadRequest("OperationNotAllowed", "There has to be at least one system agent pool with at least one node; '%s' is the last one.", c.ID.Name()).At("properties.mode")
	}
	if v.autoscalerAllowed, err = p.autoscalerAllowed(ctx); err != nil {
		return err
	}
	if err := checkRules(v); err != nil {
		return err
	}
	all := []rp.Doc{me}
	for _, r := range pools {
		if !strings.EqualFold(r.ID, c.ID.String()) {
			all = append(all, r.Doc)
		}
	}
	return p.checkSubnets(ctx, c, cluster.Doc, all)
}

func (p *Provider) commitPool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	c.Lock, c.Busy = lockOf(cluster.ParsedID()), busy
	verb := "Updating"
	switch {
	case c.Old == nil:
		verb = "Creating"
	case c.Old.Doc.Str("properties", "currentOrchestratorVersion") != c.Doc.Str("properties", "currentOrchestratorVersion"):
		verb = "Upgrading"
	default:
		was, _ := c.Old.Doc.Int("properties", "count")
		if is, _ := c.Doc.Int("properties", "count"); is != was {
			verb = "Scaling"
		}
	}
	c.Rec.State = verb
	c.Op = &rp.Operation{Kind: "PutPool", Verb: verb, Location: p.env.DefaultLocation, Data: rp.Doc{}}
	if verb != "Scaling" { // an upgrade, or the rest of one
		c.Op.Data[forcedKey] = forced(cluster.Doc, p.env.Now())
	}
	return nil
}

func (p *Provider) stepPutPool(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil {
		return rp.Step{}, err
	}
	pool, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	if cluster == nil || pool == nil {
		return rp.Step{}, rp.NotFound(id)
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	at, err := p.reconcilePool(ctx, op, cluster, pool)
	if err != nil {
		return rp.Step{}, err
	}
	if !at.done {
		return p.waitForPool(op, cluster, id.Name(), at)
	}
	if pool, err = p.env.Store.Get(ctx, id); err != nil || pool == nil {
		return rp.Step{}, err
	}
	pool.State = rp.Succeeded
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.PutOp(pool)}}, nil
}

// waitForPool waits for a change of a pool's machines.
func (p *Provider) waitForPool(op *rp.Operation, cluster *rp.Record, pool string, at progress) (rp.Step, error) {
	return rp.Step{Watch: []string{intent.MachineStatusPrefix + cluster.UID + "/" + pool + "/"}, After: 2 * time.Second}, timedOut(p.env, at.since, "waiting for "+at.waiting)
}

func (p *Provider) poolFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil || r == nil {
		return nil, err
	}
	cluster, err := p.env.Store.Get(ctx, clusterOf(r.ParsedID()))
	if err != nil {
		return nil, err
	}
	if cluster != nil {
		s, err := p.look(ctx, op, cluster, r)
		if err != nil {
			return nil, err
		}
		nodes, err := s.settle()
		if err != nil {
			return nil, err
		}
		if op.Verb == "Scaling" { // the count becomes that of the existing nodes
			r.Doc.Set(float64(nodes), "properties", "count")
		}
	}
	r.State = rp.Failed
	if e == rp.ErrCanceled {
		r.State = rp.Canceled
	}
	return []clientv3.Op{rp.PutOp(r)}, nil
}

func (p *Provider) deletePool(ctx context.Context, c *rp.Change) error {
	cluster, err := p.cluster(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	name := c.ID.Name()
	if name == intent.MachinesPool {
		return rp.BadRequest("OperationNotAllowed", "The agent pool '%s' belongs to node auto-provisioning; set the cluster's nodeProvisioningProfile.mode to Manual to remove it.", name)
	}
	pools, err := p.pools(ctx, clusterOf(c.ID))
	if err != nil {
		return err
	}
	system := 0
	for _, r := range pools {
		if r.ParsedID().Name() != name {
			system += systemNodes(r.Doc)
		}
	}
	if system == 0 {
		return rp.BadRequest("OperationNotAllowed", "There has to be at least one system agent pool; '%s' is the last one and cannot be deleted.", name)
	}
	c.Lock, c.Busy = lockOf(clusterOf(c.ID)), busy
	c.Op = &rp.Operation{Kind: "DeletePool", Verb: "Deleting", Location: cluster.Doc.Str("location"), Data: rp.Doc{}}
	if v := c.Query.Get("ignore-pod-disruption-budget"); v != "" {
		ignore, err := strconv.ParseBool(v)
		if err != nil {
			return rp.BadRequest("InvalidParameter", "The value of query parameter ignore-pod-disruption-budget is invalid: '%s' is neither true nor false.", v).At("ignore-pod-disruption-budget")
		}
		c.Op.Data["ignorePDBs"] = ignore
	}
	return nil
}

func (p *Provider) stepDeletePool(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	cluster, err := p.env.Store.Get(ctx, clusterOf(id))
	if err != nil || cluster == nil {
		return rp.Step{Done: err == nil}, err
	}
	pool, err := p.env.Store.Get(ctx, id)
	if err != nil || pool == nil {
		return rp.Step{Done: err == nil}, err
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	var at progress
	if equal(cluster.Doc.Str("properties", "powerState", "code"), "Stopped") {
		at, err = p.reconcilePool(ctx, op, cluster, pool)
	} else {
		var s *scaling
		if s, err = p.look(ctx, op, cluster, pool); err == nil {
			at, err = s.empty(op.Data.Bool("ignorePDBs"))
		}
	}
	if err != nil {
		return rp.Step{}, err
	}
	if !at.done {
		return p.waitForPool(op, cluster, id.Name(), at)
	}
	return rp.Step{Done: true, Ops: []clientv3.Op{rp.DeleteOp(id)}}, nil
}

// upgradeImage upgrades a pool to the latest node image.
func (p *Provider) upgradeImage(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, err := p.cluster(ctx, clusterOf(q.ID))
	if err != nil {
		return nil, err
	}
	pool, err := p.env.Store.Get(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if pool == nil || pool.ParsedID().Name() == intent.MachinesPool {
		return nil, rp.NotFound(q.ID)
	}
	size, err := catalog.Lookup(cluster.Doc.Str("location"), pool.Doc.Str("properties", "vmSize"))
	if err != nil {
		return nil, err
	}
	was := pool.Doc.Clone()
	pool.Doc.Set(poolImage(pool.Doc.Str("properties", "osSKU"), size.Arch), "properties", "nodeImageVersion")
	if upgrades(was, pool.Doc) {
		if err := p.checkBudgets(ctx, cluster, cluster.Doc); err != nil {
			return nil, err
		}
	}
	pool.State = "UpgradingNodeImageVersion"
	pool.Touch(p.env.Now())
	c := p.action(q, cluster, pool, &rp.Operation{Kind: "PutPool", Verb: "UpgradingNodeImageVersion", Location: cluster.Doc.Str("location"), Data: rp.Doc{forcedKey: forced(cluster.Doc, p.env.Now())}})
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	d, err := p.env.Render(ctx, q.Type, pool, q.APIVersion)
	return &rp.Response{Status: http.StatusAccepted, Body: d, Op: c.Op, WithLocation: true}, err
}
