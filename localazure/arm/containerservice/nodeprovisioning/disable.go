// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// closedPoolsKey is set in a cluster's record while its NodePools are closed by
// Disable, and not by the user.
const closedPoolsKey = "closedPools"

// Disable does what AKS's documentation describes as manual steps: no new nodes,
// the existing ones drained within disruption budgets into pools of a fixed
// size, then mode Manual. The body may name pools to create or scale first:
//
//	{"fixedPools": [{"name": "…", "vmSize": "…", "count": 3}]}
func (o *Operations) Disable(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := o.autoCluster(ctx, q)
	if err != nil {
		return nil, err
	}
	c := o.host.NewChange(q, r, &rp.Operation{Kind: disableKind, Verb: "Updating", Data: rp.Doc{}})
	specs := q.Body.List("fixedPools")
	if fixed := q.Body.Map("fixedPool"); fixed != nil {
		specs = append([]any{map[string]any(fixed)}, specs...)
	}
	var pools []any
	seen := map[string]bool{}
	for i, x := range specs {
		spec, ok := x.(map[string]any)
		if !ok {
			return nil, rp.BadRequest("InvalidParameter", "fixedPools[%d] is not an object.", i).At("fixedPools")
		}
		pool, before, err := o.fixedPool(ctx, r, q.Caller, spec)
		if err != nil {
			return nil, err
		}
		name := pool.ParsedID().Name()
		if seen[name] {
			return nil, rp.BadRequest("InvalidParameter", "fixedPools names '%s' twice.", name).At("fixedPools")
		}
		seen[name] = true
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
		pools = append(pools, map[string]any{"name": name, "before": before})
	}
	c.Op.Data["pools"] = pools
	return o.start(ctx, q, r, c)
}

// newPool is the node count before of a pool that Disable creates.
const newPool = -1

// fixedPool returns the record of a fixed pool as Disable will write it, and its
// node count before, or newPool.
func (o *Operations) fixedPool(ctx context.Context, cluster *rp.Record, caller rp.Principal, spec rp.Doc) (*rp.Record, int, error) {
	id := cluster.ParsedID().Child("agentPools", spec.Str("name"))
	t := o.env.FindType(id.Type())
	if !t.NameRule.MatchString(id.Name()) || id.Name() == intent.MachinesPool {
		return nil, 0, rp.BadRequest("InvalidParameter", "The name '%s' of a fixed pool is invalid. %s", id.Name(), t.NameHelp).At("fixedPools.name")
	}
	r, err := o.env.Store.Get(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	before := newPool
	var old rp.Doc
	if r == nil {
		r = &rp.Record{ID: id.String(), UID: rp.NewGUID(), CreatedAt: o.env.Now().UTC(), CreatedBy: caller.ObjectID, Internal: rp.Doc{}, Doc: rp.Doc{}}
	} else {
		old = r.Doc.Clone()
		before, _ = old.Int("properties", "count")
	}
	props := map[string]any{}
	for _, k := range []string{"vmSize", "count", "mode", "osSKU", "availabilityZones"} {
		if v, ok := spec.Lookup(k); ok {
			props[k] = v
		}
	}
	r.Doc = rp.MergePut(r.Doc, rp.Doc{"properties": props})
	if err := o.host.PrepareFixedPool(cluster.Doc, r.Doc, old, id.Name()); err != nil {
		return nil, 0, err
	}
	r.Touch(o.env.Now())
	r.State, r.ChangedBy = "Updating", caller.ObjectID
	return r, before, nil
}

func (o *Operations) stepDisable(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := o.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	phase := op.Data.Str("phase")
	if op.Cancel && phase != phaseRollback {
		return rollback(op, rp.ErrCanceled)
	}
	if phase == phaseControllerStops {
		ok, err := o.host.Ready(ctx, r.UID)
		if err != nil || !ok {
			return rp.Step{Watch: []string{intent.ClusterStatusKey(r.UID)}, After: 2 * time.Second}, err
		}
		cmps, ops, err := o.host.SetState(ctx, r, rp.Succeeded)
		return rp.Step{Done: true, Cmps: cmps, Ops: ops, Result: rp.Doc{"nodeProvisioningMode": ModeManual}}, err
	}
	run := clusterStep.drain
	switch phase {
	case phaseStart:
		run = clusterStep.scaleFixedPools
	case phaseRollback:
		run = clusterStep.rollBack
	}
	return o.onCluster(ctx, op, r, run)
}

// scaleFixedPools brings up the fixed pools, which the drained pods need, and
// then closes the NodePools.
func (s clusterStep) scaleFixedPools(ctx context.Context) (rp.Step, error) {
	for _, x := range s.op.Data.List("pools") {
		name := rp.Doc(x.(map[string]any)).Str("name")
		pool, err := s.pool(s.ctx, s.r, name)
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		done, waiting, err := s.host.ReconcilePool(s.ctx, s.op, s.r, pool)
		if rp.IsError(err) {
			return rollback(s.op, rp.AsError(err))
		}
		if err != nil {
			return rp.Step{}, err
		}
		if !done {
			same, save := s.noteProgress(s.op, "waiting for "+waiting)
			if save {
				return rp.Step{Save: true}, nil
			}
			if same > stuckAfter {
				return rollback(s.op, rp.Conflict("OperationTimeout", "Gave up after %s of waiting for %s. Node auto-provisioning is on, as before.", stuckAfter, waiting))
			}
			return rp.Step{Watch: []string{intent.MachineStatusPrefix + s.r.UID + "/" + name + "/"}, After: 2 * time.Second}, nil
		}
	}
	if err := s.client.EditNodePools(ctx, closePool); err != nil {
		return rp.Step{}, err
	}
	return next(s.op, phaseDrain, "no new nodes are created; the existing ones are drained")
}

// drain waits until the closed NodePools have drained all nodes.
func (s clusterStep) drain(ctx context.Context) (rp.Step, error) {
	nodes, err := s.client.ProvisionedNodes(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	machines, err := s.host.MachineNodes(s.ctx, s.r.ParsedID())
	if err != nil {
		return rp.Step{}, err
	}
	claims, err := s.client.NodeClaims(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	left := map[string]bool{}
	for _, n := range append(slices.Clone(nodes), machines...) {
		left[n] = true
	}
	if len(left) == 0 {
		// Without the controller, nothing would remove their finalizers.
		for _, c := range claims {
			left["NodeClaim "+c] = true
		}
	}
	if len(left) == 0 {
		return s.switchToManual(ctx)
	}
	names := slices.Sorted(maps.Keys(left))
	same, save := s.noteProgress(s.op, fmt.Sprintf("%d nodes left: %s", len(names), strings.Join(names, ", ")))
	if save {
		return rp.Step{Save: true}, nil
	}
	why := "their pods do not fit elsewhere, or the NodePools' disruption budgets keep them"
	if same > explainAfter {
		unevictable, err := s.client.UnevictablePods(ctx, nodes)
		if err != nil {
			return rp.Step{}, err
		}
		if len(unevictable) > 0 {
			why = "kept by " + Few(unevictable)
		}
		if same <= stuckAfter && explain(s.op, why) {
			return rp.Step{Save: true}, nil
		}
	}
	if same > stuckAfter {
		return rollback(s.op, Refused(ModePath+" cannot be Manual unless no Node has the label karpenter.sh/nodepool", fmt.Sprintf(
			"No node was removed for %s; left are %s: %s. Node auto-provisioning is on again, as before. Give the pods fixed pools that are large enough (fixedPools) and repeat the request.", stuckAfter, strings.Join(names, ", "), why)))
	}
	return rp.Step{Watch: []string{rp.ResourcePrefix + "microsoft.containerservice/"}, After: 2 * time.Second}, nil
}

// switchToManual sets mode Manual, which stops the controller.
func (s clusterStep) switchToManual(ctx context.Context) (rp.Step, error) {
	open, err := s.client.OpenNodePools(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(open) > 0 { // somebody opened or created them meanwhile
		if err := s.client.EditNodePools(ctx, closeAgain); err != nil {
			return rp.Step{}, err
		}
		return rp.Step{After: time.Second}, nil
	}
	s.r.Internal.Set(true, closedPoolsKey)
	cmps, ops, err := s.writeMode(ModeManual)
	if err != nil {
		return rp.Step{}, err
	}
	step, err := next(s.op, phaseControllerStops, "no nodes left; the controller is being stopped")
	step.Cmps, step.Ops = cmps, ops
	return step, err
}

// rollBack restores mode Auto, the NodePools and the fixed pools, whose surplus
// nodes are drained before they are removed.
func (s clusterStep) rollBack(ctx context.Context) (rp.Step, error) {
	if Mode(s.r.Doc) != ModeAuto {
		s.r.Internal.Drop(closedPoolsKey)
		cmps, ops, err := s.writeMode(ModeAuto)
		if err != nil {
			return rp.Step{}, err
		}
		s.op.Data = s.op.Data.Clone()
		s.op.Data[progressKey] = "restoring mode Auto"
		return rp.Step{Save: true, Cmps: cmps, Ops: ops}, nil
	}
	ready, err := s.host.Ready(s.ctx, s.r.UID)
	if err != nil {
		return rp.Step{}, err
	}
	if !ready {
		return s.wait(s.op, "giving up: the controller of node auto-provisioning comes up again", []string{intent.ClusterStatusKey(s.r.UID)})
	}
	if err := s.client.EditNodePools(ctx, reopenPool); err != nil {
		return rp.Step{}, fmt.Errorf("reopening the NodePools: %w", err)
	}
	unscheduled, err := s.client.UnscheduledPods(ctx, s.op.Start)
	if err != nil {
		return rp.Step{}, err
	}
	for _, x := range s.op.Data.List("pools") {
		fixed := rp.Doc(x.(map[string]any))
		pool, err := s.pool(s.ctx, s.r, fixed.Str("name"))
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		before, _ := fixed.Int("before")
		if step, done, err := s.restoreFixedPool(ctx, pool, before, unscheduled); err != nil || !done {
			return step, err
		}
	}
	return rp.Step{}, rollbackError(s.op)
}

// restoreFixedPool takes one step of restoring a fixed pool's node count.
func (s clusterStep) restoreFixedPool(ctx context.Context, pool *rp.Record, before int, unscheduled []string) (step rp.Step, done bool, err error) {
	watch := []string{intent.MachineStatusPrefix + s.r.UID + "/" + pool.ParsedID().Name() + "/"}
	empty, text, err := s.host.EmptyPool(ctx, s.op, s.r, pool, Emptying{Client: s.client, Keep: max(0, before), Unscheduled: unscheduled})
	if err != nil {
		return rp.Step{}, false, err
	}
	if !empty {
		step, err = s.wait(s.op, "giving up: "+text, watch)
		return step, false, err
	}
	if before == newPool {
		return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.DeleteOp(pool.ParsedID())}}, false, nil
	}
	if n, _ := pool.Doc.Int("properties", "count"); n != before {
		pool.Doc.Set(float64(before), "properties", "count")
		pool.Touch(s.env.Now())
		return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(pool)}, Ops: []clientv3.Op{rp.PutOp(pool)}}, false, nil
	}
	done, waiting, err := s.host.ReconcilePool(s.ctx, s.op, s.r, pool)
	if err != nil && !rp.IsError(err) {
		return rp.Step{}, false, err
	}
	if err != nil {
		done, waiting = false, err.Error() // an ARM error must not end the rollback
	}
	if !done {
		step, err = s.wait(s.op, "giving up: waiting for "+waiting, watch)
		return step, false, err
	}
	return rp.Step{}, true, nil
}

// Reopen restores, in mode Auto, the NodePools that Disable closed. NodePools
// that the user closed stay closed. The caller writes the record.
func (o *Operations) Reopen(ctx context.Context, r *rp.Record) error {
	if !r.Internal.Bool(closedPoolsKey) {
		return nil
	}
	client, err := o.dial(ctx, r.UID)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	if err := client.EditNodePools(ctx, reopenPool); err != nil {
		return fmt.Errorf("reopening the NodePools of %s: %w", r.ID, err)
	}
	r.Internal.Drop(closedPoolsKey)
	return nil
}

// CheckManual returns AKS's refusal of mode Manual while the cluster has a
// provisioned node or a NodePool that can still create one.
func (o *Operations) CheckManual(ctx context.Context, r *rp.Record) error {
	unreachable := func(err error) error {
		return rp.Conflict("OperationNotAllowed", "%s cannot be Manual until the cluster has been checked for provisioned nodes, and its API server does not answer: %v. Try again once the cluster is healthy.", ModePath, err).At(modeTarget)
	}
	st, err := o.host.Status(ctx, r.UID)
	if err != nil {
		return err
	}
	client, err := o.host.Dial(st)
	if err != nil {
		return unreachable(err)
	}
	callCtx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	nodes, err := client.ProvisionedNodes(callCtx)
	if err != nil {
		return unreachable(err)
	}
	pools, err := client.OpenNodePools(callCtx)
	if err != nil {
		return unreachable(err)
	}
	machines, err := o.host.MachineNodes(ctx, r.ParsedID())
	if err != nil {
		return err
	}
	nodes = append(nodes, machines...)
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	if len(nodes) == 0 && len(pools) == 0 {
		return nil
	}
	e := rp.BadRequest("OperationNotAllowed", "")
	var why []string
	if len(nodes) > 0 {
		why = append(why, fmt.Sprintf("Nodes that node auto-provisioning created: %s.", strings.Join(nodes, ", ")))
		for _, n := range nodes {
			e.Details = append(e.Details, rp.Error{Code: "NodeExists", Message: "Node '" + n + "' was created by node auto-provisioning and still exists.", Target: n})
		}
	}
	if len(pools) > 0 {
		var open []string
		for _, n := range slices.Sorted(maps.Keys(pools)) {
			open = append(open, n+" (cpu limit "+pools[n]+")")
			e.Details = append(e.Details, rp.Error{Code: "NodePoolOpen", Message: "NodePool " + open[len(open)-1] + " is not limited to 0.", Target: n})
		}
		why = append(why, fmt.Sprintf("NodePools that can still create nodes: %s.", strings.Join(open, ", ")))
	}
	e.Message = ModePath + " cannot be Manual unless all NodePools have property .spec.limits.cpu set to one of [0] and no Node has the label karpenter.sh/nodepool. " + strings.Join(why, " ") +
		" Set the CPU limit of every NodePool to 0, taint the NodePools with karpenter.azure.com/disable:NoSchedule, give the pods other nodes (a fixed node pool), wait until the nodes are drained and gone, and repeat the request."
	return e.At(modeTarget)
}
