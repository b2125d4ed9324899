// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeprovisioning

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
)

// clusterStep is one step of an operation that calls the cluster's API.
type clusterStep struct {
	*Operations
	ctx    context.Context // of the step
	op     *rp.Operation
	r      *rp.Record // the cluster
	client kubeapi.Client
}

// onCluster runs a step of an operation, whose context has the time limit of calls
// of the cluster's API. While the cluster cannot be reached, the operation waits.
func (o *Operations) onCluster(ctx context.Context, op *rp.Operation, r *rp.Record, run func(clusterStep, context.Context) (rp.Step, error)) (rp.Step, error) {
	client, err := o.dial(ctx, r.UID)
	if err != nil {
		return rp.Step{After: 2 * time.Second}, o.unreachable(err, op)
	}
	callCtx, cancel := context.WithTimeout(ctx, kubeapi.Timeout)
	defer cancel()
	return run(clusterStep{Operations: o, ctx: ctx, op: op, r: r, client: client}, callCtx)
}

// writeMode sets the cluster's mode. It returns the writes of its record and intent.
func (s clusterStep) writeMode(mode string) ([]clientv3.Cmp, []clientv3.Op, error) {
	setMode(s.r.Doc, mode)
	c := &rp.Change{Env: s.env, ID: s.r.ParsedID(), Rec: s.r, Doc: s.r.Doc}
	if err := s.host.WriteIntent(s.ctx, c); err != nil {
		return nil, nil, err
	}
	return append(c.Cmps, rp.Unchanged(s.r)), append(c.Ops, rp.PutOp(s.r)), nil
}
