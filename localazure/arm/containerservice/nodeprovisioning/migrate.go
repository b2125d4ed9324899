// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"context"
	"errors"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

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
	run := clusterStep.deleteNodePools
	switch phase {
	case phaseApply:
		run = clusterStep.applyNodePools
	case phaseDrain:
		run = clusterStep.drainPools
	case phaseRollback:
		run = clusterStep.restorePools
	case phaseReleaseNodes:
		run = clusterStep.releaseNodes
	}
	return o.onCluster(ctx, op, r, run)
}

// applyNodePools creates the NodePools and waits until they are ready.
func (s clusterStep) applyNodePools(ctx context.Context) (rp.Step, error) {
	var names []string
	for _, x := range s.op.Data.List("objects") {
		object := rp.Doc(x.(map[string]any))
		if object.Str("kind") == "NodePool" {
			names = append(names, object.Str("metadata", "name"))
		}
		if err := s.client.Create(ctx, object, s.op.ID); errors.Is(err, kubeapi.ErrRefused) {
			return rollback(s.op, rp.BadRequest("InvalidParameter", "%v. No pod has been moved.", err).At("nodePools"))
		} else if err != nil {
			return rp.Step{}, err
		}
	}
	notReady, err := s.client.NotReady(ctx, names)
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
		return s.wait(s.op, "NodePools are not ready: "+strings.Join(parts, ", "), nil)
	}
	return next(s.op, phaseDrain, "the pools are drained")
}

// drainPools empties one pool after the other. The migration ends when all are
// empty and every evicted pod has a node.
func (s clusterStep) drainPools(ctx context.Context) (rp.Step, error) {
	unscheduled, err := s.client.UnscheduledPods(ctx, s.op.Start)
	if err != nil {
		return rp.Step{}, err
	}
	width, _ := s.op.Data.Int("width")
	var pools []*rp.Record
	for _, name := range s.op.Data.Strings("pools") {
		pool, err := s.pool(s.ctx, s.r, name)
		if err != nil {
			return rp.Step{}, err
		}
		if pool == nil {
			continue
		}
		pools = append(pools, pool)
		done, text, err := s.host.EmptyPool(ctx, s.op, s.r, pool, Emptying{Client: s.client, MaxUnavailable: width, Unscheduled: unscheduled})
		if err != nil {
			return rp.Step{}, err
		}
		if !done {
			return s.wait(s.op, text, []string{intent.MachineStatusPrefix + s.r.UID + "/" + name + "/"})
		}
	}
	if len(unscheduled) > 0 {
		return s.wait(s.op, "all pools are empty; waiting for a place for "+Few(unscheduled), nil)
	}
	cmps, ops, err := s.host.SetState(s.ctx, s.r, rp.Succeeded)
	if err != nil {
		return rp.Step{}, err
	}
	if strings.EqualFold(s.op.Data.Str("emptied"), "Delete") {
		// A transaction must not write and delete the same pool.
		cmps, ops = []clientv3.Cmp{rp.Unchanged(s.r)}, []clientv3.Op{rp.PutOp(s.r)}
		for _, pool := range pools {
			cmps, ops = append(cmps, rp.Unchanged(pool)), append(ops, rp.DeleteOp(pool.ParsedID()))
		}
	}
	return rp.Step{Done: true, Cmps: cmps, Ops: ops, Result: rp.Doc{"nodeProvisioningMode": ModeAuto, "emptied": rp.Anys(s.op.Data.Strings("pools"))}}, nil
}

// wasManual reports whether the mode was Manual before the migration.
func (s clusterStep) wasManual() bool { return s.op.Data.Str("before", "mode") != ModeAuto }

// restorePools gives the pools back their nodes.
func (s clusterStep) restorePools(ctx context.Context) (rp.Step, error) {
	done, text, err := s.restoreCounts(ctx)
	if err != nil && !rp.IsError(err) {
		return rp.Step{}, err
	}
	if err != nil {
		text = err.Error() // an ARM error must not end the rollback
	}
	if !done {
		return s.wait(s.op, "giving up: "+text, []string{intent.MachineStatusPrefix + s.r.UID + "/"})
	}
	if s.wasManual() {
		return next(s.op, phaseReleaseNodes, "the pools are as before; provisioned nodes are drained")
	}
	return next(s.op, phaseDeleteNodePools, "the pools are as before; the NodePools are deleted")
}

// restoreCounts takes one step of scaling the pools back to their counts.
func (s clusterStep) restoreCounts(ctx context.Context) (done bool, waiting string, err error) {
	if err := s.client.Uncordon(ctx, s.op.ID); err != nil {
		return false, "", err
	}
	before := s.op.Data.Map("before", "pools")
	for _, name := range s.op.Data.Strings("pools") {
		pool, err := s.pool(ctx, s.r, name)
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
			pool.Touch(s.env.Now())
			resp, err := s.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool)).Then(rp.PutOp(pool)).Commit()
			if err != nil {
				return false, "", fmt.Errorf("scaling pool %s back to %d nodes: %w", name, count, err)
			}
			if !resp.Succeeded {
				return false, "pool " + name + " is scaled back", nil
			}
			if pool, err = s.env.Store.Get(ctx, pool.ParsedID()); err != nil || pool == nil {
				return false, "", err
			}
		}
		done, waiting, err := s.host.ReconcilePool(ctx, s.op, s.r, pool)
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
func (s clusterStep) releaseNodes(ctx context.Context) (rp.Step, error) {
	if err := s.client.EditNodePools(ctx, closePool); err != nil {
		return rp.Step{}, err
	}
	nodes, err := s.client.ProvisionedNodes(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(nodes) > 0 {
		if err := s.client.Cordon(ctx, nodes, s.op.ID); err != nil {
			return rp.Step{}, err
		}
		if err := s.client.DeleteNodeClaim(ctx, nodes[0]); err != nil {
			return rp.Step{}, err
		}
	}
	machines, err := s.host.MachineNodes(s.ctx, s.r.ParsedID())
	if err != nil {
		return rp.Step{}, err
	}
	claims, err := s.client.NodeClaims(ctx)
	if err != nil {
		return rp.Step{}, err
	}
	if len(nodes)+len(machines)+len(claims) > 0 {
		return s.wait(s.op, fmt.Sprintf("giving up: %d provisioned nodes, %d machines and %d NodeClaims left; next is %s", len(nodes), len(machines), len(claims), Few(append(nodes, claims...))), []string{rp.ResourcePrefix + "microsoft.containerservice/"})
	}
	return next(s.op, phaseDeleteNodePools, "no provisioned nodes left; the NodePools are deleted")
}

// deleteNodePools deletes the NodePools that the migration created, and then
// restores the mode and the autoscaler in one transaction.
func (s clusterStep) deleteNodePools(ctx context.Context) (rp.Step, error) {
	left, err := s.client.DeleteCreated(ctx, s.op.ID)
	if err != nil {
		return rp.Step{}, err
	}
	if len(left) > 0 {
		return s.wait(s.op, "giving up: still being deleted: "+Few(left), nil)
	}
	before := s.op.Data.Map("before")
	pools, err := s.host.Pools(s.ctx, s.r.ParsedID())
	if err != nil {
		return rp.Step{}, err
	}
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	for _, pool := range pools {
		was := before.Map("pools", pool.ParsedID().Name())
		if !was.Bool("enableAutoScaling") {
			continue
		}
		for k, v := range was {
			pool.Doc.Set(v, "properties", k)
		}
		pool.Touch(s.env.Now())
		cmps, ops = append(cmps, rp.Unchanged(pool)), append(ops, rp.PutOp(pool))
	}
	s.r.Doc.Set(before.Str("defaultNodePools"), "properties", "nodeProvisioningProfile", "defaultNodePools")
	if s.wasManual() {
		s.r.Internal.Set(true, closedPoolsKey) // older NodePools are reopened in mode Auto
	}
	s.r.Touch(s.env.Now())
	clusterCmps, clusterOps, err := s.writeMode(before.Str("mode"))
	if err != nil {
		return rp.Step{}, err
	}
	step, err := next(s.op, phaseControllerStops, "the cluster is as before; the controller stops")
	step.Cmps, step.Ops = append(clusterCmps, cmps...), append(clusterOps, ops...)
	return step, err
}

// Few joins names, at most five of them.
func Few(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
