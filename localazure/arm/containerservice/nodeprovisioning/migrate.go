// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// migrating is one step of a migration.
type migrating struct {
	*Operations
	ctx    context.Context // of the step
	op     *rp.Operation
	r      *rp.Record
	client kubeapi.Client
}

func (o *Operations) stepMigrate(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := o.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	phase := op.Data.Str("phase")
	switch phase {
	case phaseStart, phaseApply, phaseDrain:
		if op.Cancel {
			return rollback(op, rp.ErrCanceled)
		}
	}
	ready, err := o.host.Ready(ctx, r.UID)
	if err != nil {
		if rp.IsError(err) && !rollingBack(op) {
			return rollback(op, rp.AsError(err))
		}
		return rp.Step{}, err
	}
	watch := []string{intent.ClusterStatusKey(r.UID)}
	switch phase {
	case phaseStart:
		if !ready {
			return o.wait(op, "the controller of node auto-provisioning comes up", watch)
		}
		return next(op, phaseApply, "NodePools are created")
	case phaseControllerStops:
		if !ready {
			return o.wait(op, "the controller of node auto-provisioning stops", watch)
		}
		return rp.Step{}, rollbackError(op)
	}
	client, err := o.dial(ctx, r.UID)
	if err != nil {
		return rp.Step{After: 2 * time.Second}, o.unreachable(err, op)
	}
	m := migrating{Operations: o, ctx: ctx, op: op, r: r, client: client}
	callCtx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	switch phase {
	case phaseApply:
		return m.applyNodePools(callCtx)
	case phaseDrain:
		return m.drainPools(callCtx)
	case phaseRollback:
		return m.restorePools(callCtx)
	case phaseReleaseNodes:
		return m.releaseNodes(callCtx)
	}
	return m.deleteNodePools(callCtx)
}

// applyNodePools creates the NodePools and waits until they are ready.
func (m migrating) applyNodePools(ctx context.Context) (rp.Step, error) {
	var names []string
	for _, x := range m.op.Data.List("objects") {
		object := rp.Doc(x.(map[string]any))
		if object.Str("kind") == "NodePool" {
			names = append(names, object.Str("metadata", "name"))
		}
		if err := m.client.Create(ctx, object, m.op.ID); errors.Is(err, kubeapi.ErrRefused) {
			return rollback(m.op, rp.BadRequest("InvalidParameter", "%v. No pod has been moved.", err).At("nodePools"))
		} else if err != nil {
			return rp.Step{}, err
		}
	}
	notReady, err := m.client.NotReady(ctx, names)
	if err != nil {
		return rp.Step{}, err
	}
	if len(notReady) > 0 {
		var parts []string
		for _, n := range names {
			if why, ok := notReady[n]; ok {
				parts = append(parts, n+" ("+why+")")
			}
		}
		return m.wait(m.op, "NodePools are not ready: "+strings.Join(parts, ", "), nil)
	}
	return next(m.op, phaseDrain, "the pools are drained")
}

// drainPools empties one pool after the other. The migration ends when all are
// empty and every evicted pod has a node.
func (m migrating) drainPools(ctx context.Context) (rp.Step, error) {
	unscheduled, err := m.client.UnscheduledPods(ctx, m.op.Start)
	if err != nil {
		return rp.Step{}, err
	}
	width, _ := m.op.Data.Int("width")
	var pools []*rp.Record
	for _, name := range m.op.Data.Strings("pools") {
		pool, err := m.pool(m.ctx, m.r, name)
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		pools = append(pools, pool)
		done, text, err := m.host.EmptyPool(ctx, m.op, m.r, pool, Emptying{Client: m.client, MaxUnavailable: width, Unscheduled: unscheduled})
		if err != nil {
			return rp.Step{}, err
		}
		if !done {
			return m.wait(m.op, text, []string{intent.MachineStatusPrefix + m.r.UID + "/" + name + "/"})
		}
	}
	if len(unscheduled) > 0 {
		return m.wait(m.op, "all pools are empty; waiting for a place for "+Few(unscheduled), nil)
	}
	cmps, ops, err := m.host.SetState(m.ctx, m.r, rp.Succeeded)
	if err != nil {
		return rp.Step{}, err
	}
	if strings.EqualFold(m.op.Data.Str("emptied"), "Delete") {
		// A transaction must not write and delete the same pool.
		cmps, ops = []clientv3.Cmp{rp.Unchanged(m.r)}, []clientv3.Op{rp.PutOp(m.r)}
		for _, pool := range pools {
			cmps, ops = append(cmps, rp.Unchanged(pool)), append(ops, rp.DeleteOp(pool.ParsedID()))
		}
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops, Result: rp.Doc{"nodeProvisioningMode": ModeAuto, "emptied": rp.Anys(m.op.Data.Strings("pools"))}}, nil
}

// wasManual reports whether the mode was Manual before the migration.
func (m migrating) wasManual() bool { return m.op.Data.Str("before", "mode") != ModeAuto }

// restorePools gives the pools back their nodes.
func (m migrating) restorePools(ctx context.Context) (rp.Step, error) {
	done, text, err := m.restoreCounts(ctx)
	if err != nil && !rp.IsError(err) {
		return rp.Step{}, err
	}
	if err != nil {
		text = err.Error() // an ARM error must not end the rollback
	}
	if !done {
		return m.wait(m.op, "giving up: "+text, []string{intent.MachineStatusPrefix + m.r.UID + "/"})
	}
	if m.wasManual() {
		return next(m.op, phaseReleaseNodes, "the pools are as before; provisioned nodes are drained")
	}
	return next(m.op, phaseDeleteNodePools, "the pools are as before; the NodePools are deleted")
}

// restoreCounts takes one step of scaling the pools back to their counts.
func (m migrating) restoreCounts(ctx context.Context) (done bool, waiting string, err error) {
	if err := m.client.Uncordon(ctx, m.op.ID); err != nil {
		return false, "", err
	}
	before := m.op.Data.Map("before", "pools")
	for _, name := range m.op.Data.Strings("pools") {
		pool, err := m.pool(ctx, m.r, name)
		if err != nil {
			return false, "", err
		}
		if pool == nil {
			continue
		}
		count, _ := before.Int(name, "count")
		if n, _ := pool.Doc.Int("properties", "count"); n != count {
			pool.Doc.Set(float64(count), "properties", "count")
			pool.State = "Scaling"
			pool.Touch(m.env.Now())
			resp, err := m.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool)).Then(rp.PutOp(pool)).Commit()
			if err != nil {
				return false, "", fmt.Errorf("scaling pool %s back to %d nodes: %w", name, count, err)
			}
			if !resp.Succeeded {
				return false, "pool " + name + " is scaled back", nil
			}
			if pool, err = m.env.Store.Get(ctx, pool.ParsedID()); err != nil || pool == nil {
				return false, "", err
			}
		}
		done, waiting, err := m.host.ReconcilePool(ctx, m.op, m.r, pool)
		if err != nil {
			return false, "", err
		}
		if !done {
			return false, "waiting for " + waiting, nil
		}
	}
	return true, "", nil
}

// releaseNodes drains the provisioned nodes one at a time: the pods of all at
// once might not fit into the pools.
func (m migrating) releaseNodes(ctx context.Context) (rp.Step, error) {
	if err := m.client.EditNodePools(ctx, closePool); err != nil {
		return rp.Step{}, err
	}
	nodes, err := m.client.ProvisionedNodes(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(nodes) > 0 {
		if err := m.client.Cordon(ctx, nodes, m.op.ID); err != nil {
			return rp.Step{}, err
		}
		if err := m.client.DeleteNodeClaim(ctx, nodes[0]); err != nil {
			return rp.Step{}, err
		}
	}
	machines, err := m.host.MachineNodes(m.ctx, m.r.ParsedID())
	if err != nil {
		return rp.Step{}, err
	}
	claims, err := m.client.NodeClaims(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(nodes)+len(machines)+len(claims) > 0 {
		return m.wait(m.op, fmt.Sprintf("giving up: %d provisioned nodes, %d machines and %d NodeClaims left; next is %s", len(nodes), len(machines), len(claims), Few(append(nodes, claims...))), []string{rp.ResourcePrefix + "microsoft.containerservice/"})
	}
	return next(m.op, phaseDeleteNodePools, "no provisioned nodes left; the NodePools are deleted")
}

// deleteNodePools deletes the NodePools that the migration created, and then
// restores the mode and the autoscaler in one transaction.
func (m migrating) deleteNodePools(ctx context.Context) (rp.Step, error) {
	left, err := m.client.DeleteCreated(ctx, m.op.ID)
	if err != nil {
		return rp.Step{}, err
	}
	if len(left) > 0 {
		return m.wait(m.op, "giving up: still being deleted: "+Few(left), nil)
	}
	c := &rp.Change{Env: m.env, ID: m.r.ParsedID(), Rec: m.r, Doc: m.r.Doc}
	before := m.op.Data.Map("before")
	pools, err := m.host.Pools(m.ctx, m.r.ParsedID())
	if err != nil {
		return rp.Step{}, err
	}
	for _, pool := range pools {
		was := before.Map("pools", pool.ParsedID().Name())
		if !was.Bool("enableAutoScaling") {
			continue
		}
		for k, v := range was {
			pool.Doc.Set(v, "properties", k)
		}
		pool.Touch(m.env.Now())
		c.Cmps, c.Ops = append(c.Cmps, rp.Unchanged(pool)), append(c.Ops, rp.PutOp(pool))
	}
	setMode(m.r.Doc, before.Str("mode"))
	m.r.Doc.Set(before.Str("defaultNodePools"), "properties", "nodeProvisioningProfile", "defaultNodePools")
	if m.wasManual() {
		m.r.Internal.Set(true, closedPoolsKey) // older NodePools are reopened in mode Auto
	}
	c.Cmps = append(c.Cmps, rp.Unchanged(m.r))
	if err := m.host.WriteIntent(m.ctx, c); err != nil {
		return rp.Step{}, err
	}
	m.r.Touch(m.env.Now())
	step, err := next(m.op, phaseControllerStops, "the cluster is as before; the controller stops")
	step.Cmps, step.Ops = c.Cmps, append([]clientv3.Op{rp.PutOp(m.r)}, c.Ops...)
	return step, err
}

// Few joins names, at most five of them.
func Few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
