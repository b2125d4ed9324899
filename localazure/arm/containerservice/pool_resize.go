// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// maxResize is the maximum number of instances of one resize.
const maxResize = 50

// resize changes a pool's scale set at once, as a caller of Azure's compute API
// does and not AKS: nothing is drained, and no operation is visible. The cluster
// autoscaler, which has drained the nodes, and simulated spot evictions use it:
//
//	{"add": 3} or {"remove": ["aks-p-12345678-vmss000002"]}
//
// An autoscaled pool stays between its minimum and maximum, unless the body says
// {"force": true}.
func (p *Provider) resize(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster, pool, err := p.clusterAndPool(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	id := pool.ParsedID()
	if id.Name() == intent.MachinesPool {
		return nil, rp.BadRequest("OperationNotAllowed", "The agent pool '%s' has no scale set.", id.Name())
	}
	lock := lockOf(cluster.ParsedID())
	if err := p.checkIdle(ctx, cluster.ParsedID()); err != nil {
		return nil, err
	}
	add, _ := q.Body.Int("add")
	var remove []string
	var ops []clientv3.Op
	for _, name := range q.Body.Strings("remove") {
		name = strings.ToLower(name)
		key := intent.MachineIntentKey(cluster.UID, id.Name(), name)
		_, there, err := intent.Get[intent.MachineIntent](ctx, p.env.Store.KV, key)
		if err != nil {
			return nil, err
		}
		if there && !slices.Contains(remove, name) {
			remove, ops = append(remove, name), append(ops, clientv3.OpDelete(key))
		}
	}
	if (add > 0) == (len(remove) > 0) || add < 0 || add > maxResize || len(remove) > maxResize {
		return nil, rp.BadRequest("InvalidParameter", "A resize adds 1 to %d instances or removes as many that exist; this one adds %d and removes %d.", maxResize, add, len(remove)).At("add")
	}
	count, _ := pool.Doc.Int("properties", "count")
	want := max(0, count+add-len(remove))
	lo, _ := pool.Doc.Int("properties", "minCount")
	hi, _ := pool.Doc.Int("properties", "maxCount")
	if pool.Doc.Bool("properties", "enableAutoScaling") && !q.Body.Bool("force") && (want < lo || want > hi) {
		return nil, rp.BadRequest("OperationNotAllowed", "Agent pool '%s' cannot have %d nodes: its minimum is %d and its maximum %d.", id.Name(), want, lo, hi).At("count")
	}
	pool.Doc.Set(float64(want), "properties", "count")
	if add > 0 {
		have, _, err := intent.List[intent.MachineIntent](ctx, p.env.Store.KV, intent.MachineIntentPrefix+cluster.UID+"/"+id.Name()+"/")
		if err != nil {
			return nil, err
		}
		rev := pool.Rev()
		if err := p.addInstances(ctx, cluster, pool, have, add, rp.Absent(lock)); err != nil {
			return nil, err
		}
		if pool.Rev() == rev {
			return nil, changedMeanwhile(id)
		}
	} else {
		resp, err := p.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool), rp.Absent(lock)).Then(append(ops, rp.PutOp(pool))...).Commit()
		if err != nil {
			return nil, fmt.Errorf("resizing pool %s: %w", id, err)
		}
		if !resp.Succeeded {
			return nil, changedMeanwhile(id)
		}
	}
	return &rp.Response{Body: rp.Doc{"count": want}}, nil
}

func changedMeanwhile(id rp.ID) error {
	return rp.Conflict("OperationNotAllowed", "The agent pool '%s' was changed meanwhile; try again.", id.Name())
}
