// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) deleteCluster(_ context.Context, c *rp.Change) error {
	c.Lock, c.Busy = lockOf(c.ID), busy
	uid := c.Old.UID
	c.Ops = append(c.Ops, clientv3.OpDelete(intent.ClusterIntentKey(uid)), clientv3.OpDelete(intent.MachineIntentPrefix+uid+"/", clientv3.WithPrefix()))
	c.Op = &rp.Operation{Kind: "DeleteCluster", Verb: "Deleting"}
	return nil
}

func (p *Provider) stepDeleteCluster(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	id := rp.MustParseID(op.Resource)
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	if r == nil {
		return rp.Step{Done: true}, nil
	}
	kv := p.env.Store.KV
	// A machine operation may have written an intent meanwhile.
	if _, err := kv.Delete(ctx, intent.MachineIntentPrefix+r.UID+"/", clientv3.WithPrefix()); err != nil {
		return rp.Step{}, fmt.Errorf("removing the machines of %s: %w", id, err)
	}
	st, err := kv.Get(ctx, intent.ClusterStatusKey(r.UID), clientv3.WithCountOnly())
	if err != nil {
		return rp.Step{}, fmt.Errorf("reading the status of %s: %w", id, err)
	}
	ms, err := kv.Get(ctx, intent.MachineStatusPrefix+r.UID+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return rp.Step{}, fmt.Errorf("counting the machines of %s: %w", id, err)
	}
	if st.Count+ms.Count > 0 {
		return rp.Step{Watch: []string{intent.ClusterStatusKey(r.UID), intent.MachineStatusPrefix + r.UID + "/"}, After: 2 * time.Second},
			timedOut(p.env, op.Start, fmt.Sprintf("waiting for the control plane and %d machines to go", ms.Count))
	}
	ops := []clientv3.Op{rp.DeleteOp(id)}
	// Children go first and may be many: not all fit into one transaction.
	children, err := p.env.Children(ctx, id)
	if err != nil {
		return rp.Step{}, err
	}
	for len(children) > 0 {
		n := min(len(children), 100)
		var del []clientv3.Op
		for _, ch := range children[:n] {
			del = append(del, rp.DeleteOp(ch.ParsedID()))
		}
		if _, err := kv.Txn(ctx).Then(del...).Commit(); err != nil {
			return rp.Step{}, fmt.Errorf("removing what belongs to %s: %w", id, err)
		}
		children = children[n:]
	}
	ng := rp.ID{Subscription: id.Subscription, ResourceGroup: r.Doc.Str("properties", "nodeResourceGroup")}
	inGroup, err := p.env.InGroup(ctx, ng, true)
	if err != nil {
		return rp.Step{}, err
	}
	for _, x := range append(inGroup, &rp.Record{ID: ng.String()}) {
		ops = append(ops, rp.DeleteOp(x.ParsedID()))
	}
	ids, err := token.All(ctx, kv)
	if err != nil {
		return rp.Step{}, err
	}
	gone := map[string]bool{}
	for _, x := range ids {
		if rid, err := rp.ParseID(x.Resource); err == nil && (rid.Within(id) || rid.Within(ng)) {
			gone[strings.ToLower(x.ObjectID)] = true
			ops = append(ops, token.DeleteOps(x.ObjectID, x.AppID)...)
		}
	}
	as, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
	if err != nil {
		return rp.Step{}, err
	}
	for _, a := range as {
		if aid := a.ParsedID(); aid.Within(id) || gone[strings.ToLower(a.Doc.Str("properties", "principalId"))] || aid.Within(ng) {
			ops = append(ops, rp.DeleteOp(aid))
		}
	}
	return rp.Step{Done: true, Ops: ops}, nil
}
