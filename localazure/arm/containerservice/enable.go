package containerservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/nap-aks/nap/localazure/arm/migration"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const migrateKind = "MigrateToNodeProvisioning"

// The phases of a migration, in their order; those of giving up come after.
const (
	phaseStart  = ""       // the controller comes up
	phaseApply  = "apply"  // NodePools are made and become ready
	phaseDrain  = "drain"  // pools are emptied
	phaseUndo   = "undo"   // pools get their nodes back
	phaseReturn = "return" // provisioned nodes go
	phaseUnmake = "unmake" // NodePools go
	phaseManual = "manual" // the controller goes
)

// clusterForMigration reads a cluster as the translation wants it.
func clusterForMigration(r *rp.Record, pools []*rp.Record) migration.Cluster {
	c := migration.Cluster{Location: r.Doc.Str("location"), AutoScalerProfile: r.Doc.Map("properties", "autoScalerProfile")}
	for _, pool := range pools {
		c.Pools = append(c.Pools, migration.Pool{Name: pool.ParsedID().Name(), Properties: pool.Doc.Map("properties")})
	}
	return c
}

// enable migrates a cluster from the cluster autoscaler to node
// auto-provisioning. The body:
//
//	{"migrateFrom": "ClusterAutoscaler",
//	 "pools": ["…"],            // those to replace; default: user pools with the autoscaler
//	 "keepSizes": false,        // NodePools buy the pools' own sizes only
//	 "nodePools": "…",          // YAML instead of the proposal's
//	 "emptied": "Keep",         // or Delete: what becomes of the pools
//	 "maxUnavailable": 1,       // nodes that are drained at a time
//	 "defaultNodePools": "None",
//	 "dryRun": false}           // answer with the proposal and change nothing
func (p *Provider) enable(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	if from := strings.ReplaceAll(q.Body.Str("migrateFrom"), "-", ""); !equal(from, "ClusterAutoscaler") {
		return nil, rp.BadRequest("InvalidParameter", "migrateFrom is '%s'; only ClusterAutoscaler can be migrated from. To switch node auto-provisioning on beside the pools there are, set %s to Auto.", q.Body.Str("migrateFrom"), modePath).At("migrateFrom")
	}
	emptied, defaults := q.Body.Str("emptied"), q.Body.Str("defaultNodePools")
	for name, x := range map[string]struct {
		v       *string
		allowed []string
	}{"emptied": {&emptied, []string{"Keep", "Delete"}}, "defaultNodePools": {&defaults, []string{"None", "Auto"}}} {
		if *x.v == "" {
			*x.v = x.allowed[0]
		}
		if !equal(*x.v, x.allowed...) {
			return nil, rp.BadRequest("InvalidParameter", "%s '%s' is none of %s.", name, *x.v, strings.Join(x.allowed, ", ")).At(name)
		}
	}
	width, ok := q.Body.Int("maxUnavailable")
	if _, given := q.Body.Lookup("maxUnavailable"); given && (!ok || width < 1) {
		return nil, rp.BadRequest("InvalidParameter", "maxUnavailable has to be a number of nodes, 1 or more.").At("maxUnavailable")
	}
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if equal(r.Doc.Str("properties", "powerState", "code"), "Stopped") {
		return nil, rp.BadRequest("OperationNotAllowed", "The cluster '%s' is stopped; start it first (az aks start).", q.ID.Name())
	}
	pools, err := p.pools(ctx, r.ParsedID(), false)
	if err != nil {
		return nil, err
	}
	options := migration.Options{Pools: q.Body.Strings("pools"), KeepSizes: q.Body.Bool("keepSizes"), ScaleSet: func(pool string) string { return scaleSet(r, pool) }}
	if strings.Contains(r.Doc.Str("properties", "autoScalerProfile", "expander"), "priority") {
		if options.Priorities, err = p.priorities(ctx, r); err != nil {
			return nil, err
		}
	}
	proposal, err := migration.Translate(clusterForMigration(r, pools), options)
	if err != nil {
		return nil, rp.BadRequest("InvalidParameter", "%v.", err).At("pools")
	}
	objects := proposal.Objects()
	if text := q.Body.Str("nodePools"); text != "" {
		if objects, err = nodePoolObjects(text); err != nil {
			return nil, err
		}
	}
	blocked := p.whyNotAuto(r, pools)
	if q.Body.Bool("dryRun") {
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
	if blocked != nil {
		return nil, blocked
	}
	if len(proposal.Replacements) == 0 {
		return nil, rp.BadRequest("OperationNotAllowed", "Cluster '%s' has no user pool whose autoscaler is on, so there is nothing to migrate. Name the pools to replace in pools.", q.ID.Name()).At("pools")
	}
	return p.startMigration(ctx, q, r, pools, rp.Doc{"pools": anys(proposal.Pools()), "objects": anys(objects), "emptied": emptied, "width": max(1, width)}, defaults)
}

// priorities asks the cluster for those of the autoscaler's priority expander.
func (p *Provider) priorities(ctx context.Context, r *rp.Record) (string, error) {
	live, err := p.dial(ctx, r.UID)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	text, err := live.Priorities(ctx)
	if err != nil {
		return "", rp.Conflict("OperationNotAllowed", "%v. Try again once the cluster is healthy.", err)
	}
	return text, nil
}

// nodePoolObjects reads NodePools and AKSNodeClasses from YAML.
func nodePoolObjects(text string) ([]map[string]any, error) {
	var classes, out []map[string]any
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
		gvr, ok := makeable[kind]
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
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil, bad("there is no NodePool among them.")
	}
	return append(classes, out...), nil
}

// whyNotAuto is what keeps a cluster from mode Auto once no pool has the
// autoscaler any more; nil if nothing does.
func (p *Provider) whyNotAuto(r *rp.Record, pools []*rp.Record) *rp.Error {
	v := &view{doc: r.Doc.Clone(), old: r.Doc}
	v.doc.Set(modeAuto, "properties", "nodeProvisioningProfile", "mode")
	for _, pool := range pools {
		d := pool.Doc.Clone()
		d["name"] = pool.ParsedID().Name()
		d.Set(false, "properties", "enableAutoScaling")
		v.pools = append(v.pools, d)
	}
	if err := checkRules(v); err != nil {
		return rp.AsError(err)
	}
	return nil
}

// startMigration switches the autoscaler off and node auto-provisioning on, in
// one transaction with the operation that does the rest. What was before goes
// into the operation.
func (p *Provider) startMigration(ctx context.Context, q *rp.Request, r *rp.Record, pools []*rp.Record, data rp.Doc, defaults string) (*rp.Response, error) {
	before := rp.Doc{"mode": mode(r.Doc), "defaultNodePools": r.Doc.Str("properties", "nodeProvisioningProfile", "defaultNodePools")}
	data["before"] = map[string]any(before)
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: r.ParsedID(), Type: q.Type, Rec: r, Doc: r.Doc, Lock: lockOf(r.ParsedID()), Busy: busy, Op: &rp.Operation{Kind: migrateKind, Verb: "Updating", Data: data}}
	was := map[string]any{}
	for _, pool := range pools {
		props := map[string]any{}
		for _, k := range []string{"count", "enableAutoScaling", "minCount", "maxCount"} {
			if v, ok := pool.Doc.Lookup("properties", k); ok {
				props[k] = v
			}
		}
		was[pool.ParsedID().Name()] = props
		if !pool.Doc.Bool("properties", "enableAutoScaling") {
			continue
		}
		pool.Doc.Set(false, "properties", "enableAutoScaling")
		pool.Doc.Drop("properties", "minCount")
		pool.Doc.Drop("properties", "maxCount")
		pool.ETag, pool.ChangedAt, pool.ChangedBy = rp.NewGUID(), p.env.Now().UTC(), q.Caller.ObjectID
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
	}
	before["pools"] = was
	r.Doc.Set(modeAuto, "properties", "nodeProvisioningProfile", "mode")
	if before.Str("mode") != modeAuto {
		r.Doc.Set(defaults, "properties", "nodeProvisioningProfile", "defaultNodePools")
	}
	if err := p.writeIntent(ctx, c); err != nil {
		return nil, err
	}
	r.State, r.ETag, r.ChangedAt, r.ChangedBy = "Updating", rp.NewGUID(), p.env.Now().UTC(), q.Caller.ObjectID
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

// writeIntent adds to a change what the machinery is to be told of the mode.
func (p *Provider) writeIntent(ctx context.Context, c *rp.Change) error {
	prev, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(c.Rec.UID))
	if err != nil {
		return err
	}
	if !ok {
		return rp.NotFound(c.ID)
	}
	ci := p.clusterIntent(c.Rec, &prev)
	switch auto := mode(c.Rec.Doc) == modeAuto; {
	case auto && ci.NodeProvisioning.ClientID == "":
		p.issueController(c, &ci)
	case !auto && ci.NodeProvisioning.ClientID != "":
		p.withdrawController(c, &ci)
	}
	if ci != prev {
		c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(c.Rec.UID), ci))
	}
	return nil
}

// giveUp turns an operation round: it saves why, and goes on with undoing what
// was done.
func giveUp(op *rp.Operation, why *rp.Error) (rp.Step, error) {
	op.Data = op.Data.Clone()
	if why == rp.ErrCanceled {
		op.Data["why"] = map[string]any{"canceled": true}
	} else {
		op.Data["why"] = map[string]any{"code": why.Code, "message": why.Message, "status": float64(why.Status), "target": why.Target}
	}
	op.Data["phase"], op.Data["progress"] = phaseUndo, "everything is put back: "+why.Message
	op.Data.Drop("since")
	return rp.Step{Save: true}, nil
}

// gaveUp is why an operation was turned round, for its end.
func gaveUp(op *rp.Operation) *rp.Error {
	w := op.Data.Map("why")
	if w.Bool("canceled") {
		return rp.ErrCanceled
	}
	status, _ := w.Int("status")
	return &rp.Error{Status: status, Code: w.Str("code"), Message: w.Str("message"), Target: w.Str("target")}
}

// next saves that an operation has come to a phase, with the writes that belong
// to it.
func next(op *rp.Operation, phase, text string) (rp.Step, error) {
	op.Data = op.Data.Clone()
	op.Data["phase"], op.Data["progress"] = phase, text
	op.Data.Drop("since")
	return rp.Step{Save: true}, nil
}

func (p *Provider) stepMigrate(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	phase := op.Data.Str("phase")
	switch phase {
	case phaseStart, phaseApply, phaseDrain:
		if op.Cancel {
			return giveUp(op, rp.ErrCanceled)
		}
	}
	ready, err := p.ready(ctx, r.UID)
	if err != nil {
		if rp.IsError(err) && op.Data.Map("why") == nil {
			return giveUp(op, rp.AsError(err))
		}
		return rp.Step{}, err
	}
	watch := []string{intent.ClusterStatusKey(r.UID)}
	switch phase {
	case phaseStart:
		if !ready {
			return p.waiting(op, "the controller of node auto-provisioning comes up", watch)
		}
		return next(op, phaseApply, "NodePools are created")
	case phaseManual:
		if !ready {
			return p.waiting(op, "the controller of node auto-provisioning goes", watch)
		}
		return rp.Step{}, gaveUp(op)
	}
	live, err := p.dial(ctx, r.UID)
	if err != nil {
		return rp.Step{After: 2 * time.Second}, notYet(err, op, p.env)
	}
	callCtx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	switch phase {
	case phaseApply:
		return p.applyNodePools(callCtx, op, live)
	case phaseDrain:
		return p.drainPools(ctx, callCtx, op, r, live)
	}
	return p.undoMigration(ctx, callCtx, op, r, live)
}

// waiting notes what an operation waits for; after a while without any change
// it gives up.
func (p *Provider) waiting(op *rp.Operation, text string, watch []string) (rp.Step, error) {
	same, save := p.progressed(op, text)
	if save {
		return rp.Step{Save: true}, nil
	}
	if same > stuckAfter {
		e := rp.Conflict("OperationTimeout", "Nothing has changed for %s: %s.", stuckAfter, text)
		if op.Data.Map("why") == nil {
			e.Message += " Node auto-provisioning is off again and the pools are as before."
			return giveUp(op, e)
		}
		if w := gaveUp(op); w != rp.ErrCanceled {
			e.Message = w.Message + " " + e.Message
		}
		e.Message += " Putting everything back was not finished: repeat the request, or finish by hand."
		return rp.Step{}, e
	}
	return rp.Step{Watch: watch, After: time.Second}, nil
}

func (p *Provider) applyNodePools(ctx context.Context, op *rp.Operation, live Live) (rp.Step, error) {
	var names []string
	for _, x := range op.Data.List("objects") {
		o := rp.Doc(x.(map[string]any))
		if o.Str("kind") == "NodePool" {
			names = append(names, o.Str("metadata", "name"))
		}
		if err := live.Create(ctx, o, op.ID); errors.Is(err, ErrRefused) {
			return giveUp(op, rp.BadRequest("InvalidParameter", "%v. Nothing has been moved.", err).At("nodePools"))
		} else if err != nil {
			return rp.Step{}, err
		}
	}
	not, err := live.NotReady(ctx, names)
	if err != nil {
		return rp.Step{}, err
	}
	if len(not) > 0 {
		var parts []string
		for _, n := range names {
			if why, ok := not[n]; ok {
				parts = append(parts, n+" ("+why+")")
			}
		}
		return p.waiting(op, "NodePools are not ready: "+strings.Join(parts, ", "), nil)
	}
	return next(op, phaseDrain, "the pools are drained")
}

// drainPools empties the pools one after the other, and ends the migration when
// all are.
func (p *Provider) drainPools(ctx, callCtx context.Context, op *rp.Operation, r *rp.Record, live Live) (rp.Step, error) {
	wait, err := live.Waiting(callCtx, op.Start)
	if err != nil {
		return rp.Step{}, err
	}
	width, _ := op.Data.Int("width")
	var pools []*rp.Record
	for _, name := range op.Data.Strings("pools") {
		pool, err := p.env.Store.Get(ctx, r.ParsedID().Child("agentPools", name))
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		pools = append(pools, pool)
		done, text, err := p.emptyPool(callCtx, op, r, pool, emptying{live: live, width: width, wait: wait})
		if err != nil {
			return rp.Step{}, err
		}
		if !done {
			return p.waiting(op, text, []string{intent.MachineStatusPrefix + r.UID + "/" + name + "/"})
		}
	}
	if len(wait) > 0 {
		return p.waiting(op, "all pools are empty; waiting for a place for "+few(wait), nil)
	}
	cmps, ops, err := p.setState(ctx, r, rp.Succeeded)
	if err != nil {
		return rp.Step{}, err
	}
	if equal(op.Data.Str("emptied"), "Delete") {
		// setState has written them; what is deleted must not be written as well.
		cmps, ops = []clientv3.Cmp{rp.Unchanged(r)}, []clientv3.Op{rp.PutOp(r)}
		for _, pool := range pools {
			cmps, ops = append(cmps, rp.Unchanged(pool)), append(ops, rp.DeleteOp(pool.ParsedID()))
		}
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops, Result: rp.Doc{"nodeProvisioningMode": modeAuto, "emptied": anys(op.Data.Strings("pools"))}}, nil
}

// restorePools gives pools their counts back and says when the nodes are there.
func (p *Provider) restorePools(ctx context.Context, op *rp.Operation, r *rp.Record, live Live) (done bool, waiting string, err error) {
	if err := live.Uncordon(ctx, op.ID); err != nil {
		return false, "", err
	}
	was := op.Data.Map("before", "pools")
	for _, name := range op.Data.Strings("pools") {
		pool, err := p.env.Store.Get(ctx, r.ParsedID().Child("agentPools", name))
		if err != nil {
			return false, "", err
		}
		if pool == nil {
			continue
		}
		count, _ := was.Int(name, "count")
		if n, _ := pool.Doc.Int("properties", "count"); n != count {
			pool.Doc.Set(float64(count), "properties", "count")
			pool.State, pool.ETag, pool.ChangedAt = "Scaling", rp.NewGUID(), p.env.Now().UTC()
			resp, err := p.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool)).Then(rp.PutOp(pool)).Commit()
			if err != nil {
				return false, "", fmt.Errorf("giving pool %s its nodes back: %w", name, err)
			}
			if !resp.Succeeded {
				return false, "pool " + name + " gets its nodes back", nil
			}
			if pool, err = p.env.Store.Get(ctx, pool.ParsedID()); err != nil || pool == nil {
				return false, "", err
			}
		}
		at, err := p.reconcilePool(ctx, op, r, pool)
		if err != nil {
			return false, "", err
		}
		if !at.done {
			return false, "waiting for " + at.waiting, nil
		}
	}
	return true, "", nil
}

// undoMigration puts everything back: the pools' nodes, then the pods from the
// provisioned nodes onto them, the NodePools, the mode and the autoscaler.
func (p *Provider) undoMigration(ctx, callCtx context.Context, op *rp.Operation, r *rp.Record, live Live) (rp.Step, error) {
	manual := op.Data.Str("before", "mode") != modeAuto
	switch op.Data.Str("phase") {
	case phaseUndo:
		done, text, err := p.restorePools(callCtx, op, r, live)
		if err != nil && !rp.IsError(err) {
			return rp.Step{}, err
		}
		if err != nil {
			text = err.Error() // must not end what puts things back
		}
		if !done {
			return p.waiting(op, "giving up: "+text, []string{intent.MachineStatusPrefix + r.UID + "/"})
		}
		if manual {
			return next(op, phaseReturn, "the pools are as before; provisioned nodes go")
		}
		return next(op, phaseUnmake, "the pools are as before; the NodePools go")
	case phaseReturn:
		if err := live.EditNodePools(callCtx, closePool); err != nil {
			return rp.Step{}, err
		}
		nodes, err := live.ProvisionedNodes(callCtx)
		if err != nil {
			return rp.Step{}, err
		}
		if len(nodes) > 0 {
			// One after the other: pods of all at once would have no place to be.
			if err := live.Cordon(callCtx, nodes, op.ID); err != nil {
				return rp.Step{}, err
			}
			if err := live.Release(callCtx, nodes[0]); err != nil {
				return rp.Step{}, err
			}
		}
		machines, err := p.env.Store.ViewList(ctx, machinesOf(r.ParsedID()))
		if err != nil {
			return rp.Step{}, err
		}
		claims, err := live.NodeClaims(callCtx)
		if err != nil {
			return rp.Step{}, err
		}
		if len(nodes)+len(machines)+len(claims) > 0 {
			return p.waiting(op, fmt.Sprintf("giving up: %d provisioned nodes, %d machines and %d NodeClaims have to go; next is %s", len(nodes), len(machines), len(claims), few(append(nodes, claims...))), []string{rp.ResourcePrefix + "microsoft.containerservice/"})
		}
		return next(op, phaseUnmake, "no provisioned nodes are left; the NodePools go")
	case phaseUnmake:
		left, err := live.Unmake(callCtx, op.ID)
		if err != nil {
			return rp.Step{}, err
		}
		if len(left) > 0 {
			return p.waiting(op, "giving up: still there are "+few(left), nil)
		}
	}
	// The mode and the autoscaler, in one transaction.
	c := &rp.Change{Env: p.env, ID: r.ParsedID(), Rec: r, Doc: r.Doc}
	was := op.Data.Map("before", "pools")
	pools, err := p.pools(ctx, r.ParsedID(), false)
	if err != nil {
		return rp.Step{}, err
	}
	for _, pool := range pools {
		before := was.Map(pool.ParsedID().Name())
		if !before.Bool("enableAutoScaling") {
			continue
		}
		for k, v := range before {
			pool.Doc.Set(v, "properties", k)
		}
		pool.ETag, pool.ChangedAt = rp.NewGUID(), p.env.Now().UTC()
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
	}
	r.Doc.Set(op.Data.Str("before", "mode"), "properties", "nodeProvisioningProfile", "mode")
	r.Doc.Set(op.Data.Str("before", "defaultNodePools"), "properties", "nodeProvisioningProfile", "defaultNodePools")
	if manual {
		r.Internal.Set(true, "closedPools") // NodePools that were there before are open again in mode Auto
	}
	c.Cmps = append(c.Cmps, rp.Unchanged(r))
	if err := p.writeIntent(ctx, c); err != nil {
		return rp.Step{}, err
	}
	r.ETag, r.ChangedAt = rp.NewGUID(), p.env.Now().UTC()
	step, err := next(op, phaseManual, "all is as before; the controller goes")
	step.Cmps, step.Ops = c.Cmps, append([]clientv3.Op{rp.PutOp(r)}, c.Ops...)
	return step, err
}
