// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/migration"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// enableOptions are the body of Enable.
type enableOptions struct {
	emptied          string // Keep or Delete
	defaultNodePools string // None or Auto
	maxUnavailable   int
}

func enableOptionsOf(body rp.Doc) (enableOptions, error) {
	out := enableOptions{emptied: body.Str("emptied"), defaultNodePools: body.Str("defaultNodePools")}
	if from := strings.ReplaceAll(body.Str("migrateFrom"), "-", ""); !strings.EqualFold(from, "ClusterAutoscaler") {
		return out, rp.BadRequest("InvalidParameter", "migrateFrom is '%s'; only ClusterAutoscaler can be migrated from. To switch node auto-provisioning on beside the existing pools, set %s to Auto.", body.Str("migrateFrom"), ModePath).At("migrateFrom")
	}
	for _, x := range []struct {
		name    string
		value   *string
		allowed [2]string // the default first
	}{{"emptied", &out.emptied, [2]string{"Keep", "Delete"}}, {"defaultNodePools", &out.defaultNodePools, [2]string{"None", "Auto"}}} {
		if *x.value == "" {
			*x.value = x.allowed[0]
		}
		if !strings.EqualFold(*x.value, x.allowed[0]) && !strings.EqualFold(*x.value, x.allowed[1]) {
			return out, rp.BadRequest("InvalidParameter", "%s '%s' is none of %s.", x.name, *x.value, strings.Join(x.allowed[:], ", ")).At(x.name)
		}
	}
	n, ok := body.Int("maxUnavailable")
	if _, given := body.Lookup("maxUnavailable"); given && (!ok || n < 1) {
		return out, rp.BadRequest("InvalidParameter", "maxUnavailable has to be a number of nodes, 1 or more.").At("maxUnavailable")
	}
	out.maxUnavailable = max(1, n)
	return out, nil
}

// Enable migrates a cluster from the cluster autoscaler to node
// auto-provisioning. The body:
//
//	{"migrateFrom": "ClusterAutoscaler",
//	 "pools": ["…"],            // pools to replace; default: user pools with the autoscaler
//	 "keepSizes": false,        // NodePools use the pools' own sizes only
//	 "nodePools": "…",          // YAML instead of the proposal's
//	 "emptied": "Keep",         // or Delete: what happens to the emptied pools
//	 "maxUnavailable": 1,       // nodes that are drained at a time
//	 "defaultNodePools": "None",
//	 "dryRun": false}           // answer with the proposal and change nothing
func (o *Operations) Enable(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	opts, err := enableOptionsOf(q.Body)
	if err != nil {
		return nil, err
	}
	r, err := o.host.Cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(r.Doc.Str("properties", "powerState", "code"), "Stopped") {
		return nil, rp.BadRequest("OperationNotAllowed", "The cluster '%s' is stopped; start it first (az aks start).", q.ID.Name())
	}
	pools, err := o.host.Pools(ctx, r.ParsedID())
	if err != nil {
		return nil, err
	}
	proposal, err := o.propose(ctx, q.Body, r, pools)
	if err != nil {
		return nil, err
	}
	objects := proposal.Objects()
	if text := q.Body.Str("nodePools"); text != "" {
		if objects, err = nodePoolObjects(text); err != nil {
			return nil, err
		}
	}
	blocked := o.host.CheckAuto(r, pools)
	if q.Body.Bool("dryRun") {
		return describe(proposal, blocked)
	}
	if blocked != nil {
		return nil, blocked
	}
	if len(proposal.Replacements) == 0 {
		return nil, rp.BadRequest("OperationNotAllowed", "Cluster '%s' has no user pool whose autoscaler is on, so there is nothing to migrate. Name the pools to replace in pools.", q.ID.Name()).At("pools")
	}
	return o.startMigration(ctx, q, r, pools, rp.Doc{"pools": rp.Anys(proposal.Pools()), "objects": rp.Anys(objects), "emptied": opts.emptied, "width": opts.maxUnavailable}, opts.defaultNodePools)
}

// propose translates the cluster's agent pools to NodePools.
func (o *Operations) propose(ctx context.Context, body rp.Doc, r *rp.Record, pools []*rp.Record) (*migration.Proposal, error) {
	c := migration.Cluster{Location: r.Doc.Str("location"), AutoScalerProfile: r.Doc.Map("properties", "autoScalerProfile")}
	for _, pool := range pools {
		c.Pools = append(c.Pools, migration.Pool{Name: pool.ParsedID().Name(), Properties: pool.Doc.Map("properties")})
	}
	options := migration.Options{Pools: body.Strings("pools"), KeepSizes: body.Bool("keepSizes"), ScaleSet: func(pool string) string { return o.host.ScaleSet(r, pool) }}
	if strings.Contains(c.AutoScalerProfile.Str("expander"), "priority") {
		var err error
		if options.Priorities, err = o.priorities(ctx, r); err != nil {
			return nil, err
		}
	}
	p, err := migration.Translate(c, options)
	if err != nil {
		return nil, rp.BadRequest("InvalidParameter", "%v.", err).At("pools")
	}
	return p, nil
}

// describe answers a dry run.
func describe(proposal *migration.Proposal, blocked *rp.Error) (*rp.Response, error) {
	text, err := proposal.YAML()
	if err != nil {
		return nil, err
	}
	out := rp.Doc{"pools": proposal.Pools(), "nodePools": text, "notes": proposal.Notes, "blockedBy": []string{}}
	if proposal.Notes == nil {
		out["notes"] = []migration.Note{}
	}
	if blocked != nil {
		out["blockedBy"] = []string{blocked.Message}
	}
	return &rp.Response{Body: out}, nil
}

// priorities reads the priorities of the autoscaler's priority expander from the
// cluster.
func (o *Operations) priorities(ctx context.Context, r *rp.Record) (string, error) {
	client, err := o.dial(ctx, r.UID)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	text, err := client.Priorities(ctx)
	if err != nil {
		return "", rp.Conflict("OperationNotAllowed", "%v. Try again once the cluster is healthy.", err)
	}
	return text, nil
}

// nodePoolObjects reads NodePools and AKSNodeClasses from YAML. The classes come
// first.
func nodePoolObjects(text string) ([]map[string]any, error) {
	var classes, pools []map[string]any
	bad := func(format string, args ...any) error {
		return rp.BadRequest("InvalidParameter", "nodePools: "+format, args...).At("nodePools")
	}
	seen := map[string]bool{}
	for d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096); ; {
		var o map[string]any
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, bad("not readable as YAML: %v.", err)
		}
		if len(o) == 0 {
			continue
		}
		kind, name := rp.Doc(o).Str("kind"), rp.Doc(o).Str("metadata", "name")
		gvr, ok := kubeapi.Creatable[kind]
		switch {
		case !ok || rp.Doc(o).Str("apiVersion") != gvr.GroupVersion().String():
			return nil, bad("%s %s (%s) is neither a NodePool (karpenter.sh/v1) nor an AKSNodeClass (karpenter.azure.com/v1beta1).", kind, name, rp.Doc(o).Str("apiVersion"))
		case name == "" || seen[kind+name]:
			return nil, bad("a %s has no name, or the same name as another: '%s'.", kind, name)
		}
		seen[kind+name] = true
		if kind == "AKSNodeClass" {
			classes = append(classes, o)
		} else {
			pools = append(pools, o)
		}
	}
	if len(pools) == 0 {
		return nil, bad("it has no NodePool.")
	}
	return append(classes, pools...), nil
}

// startMigration switches the autoscaler off and node auto-provisioning on, in
// one transaction with the operation that does the rest. The settings before go
// into the operation for a rollback.
func (o *Operations) startMigration(ctx context.Context, q *rp.Request, r *rp.Record, pools []*rp.Record, data rp.Doc, defaultNodePools string) (*rp.Response, error) {
	before := rp.Doc{"mode": Mode(r.Doc), "defaultNodePools": r.Doc.Str("properties", "nodeProvisioningProfile", "defaultNodePools")}
	data["before"] = map[string]any(before)
	c := o.host.NewChange(q, r, &rp.Operation{Kind: migrateKind, Verb: "Updating", Data: data})
	poolsBefore := map[string]any{}
	for _, pool := range pools {
		props := map[string]any{}
		for _, k := range []string{"count", "enableAutoScaling", "minCount", "maxCount"} {
			if v, ok := pool.Doc.Lookup("properties", k); ok {
				props[k] = v
			}
		}
		poolsBefore[pool.ParsedID().Name()] = props
		if !pool.Doc.Bool("properties", "enableAutoScaling") {
			continue
		}
		pool.Doc.Set(false, "properties", "enableAutoScaling")
		pool.Doc.Drop("properties", "minCount")
		pool.Doc.Drop("properties", "maxCount")
		pool.Touch(o.env.Now())
		pool.ChangedBy = q.Caller.ObjectID
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
	}
	before["pools"] = poolsBefore
	setMode(r.Doc, ModeAuto)
	if before.Str("mode") != ModeAuto {
		r.Doc.Set(defaultNodePools, "properties", "nodeProvisioningProfile", "defaultNodePools")
	}
	if err := o.host.WriteIntent(ctx, c); err != nil {
		return nil, err
	}
	return o.start(ctx, q, r, c)
}

// start begins the operation of a change with the cluster in state Updating.
func (o *Operations) start(ctx context.Context, q *rp.Request, r *rp.Record, c *rp.Change) (*rp.Response, error) {
	r.Touch(o.env.Now())
	r.State, r.ChangedBy = "Updating", q.Caller.ObjectID
	if err := o.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}
