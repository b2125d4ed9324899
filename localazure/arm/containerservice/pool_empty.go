// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/nodeprovisioning"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// emptyPool takes one step of removing a pool's surplus nodes: the newest are
// drained first, and drained ones are removed by lowering the pool's count. All
// surplus nodes are cordoned from the start, so that no pod moves twice. done
// means that the nodes and their machines are gone.
func (p *Provider) emptyPool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record, e nodeprovisioning.Emptying) (done bool, waiting string, err error) {
	s, err := p.look(ctx, op, cluster, pool)
	if err != nil {
		return false, "", err
	}
	if len(s.nodes) <= e.Keep {
		if s.gone > 0 {
			return false, fmt.Sprintf("pool %s: %d machines are being deleted", s.name, s.gone), nil
		}
		return true, "", nil
	}
	surplus := s.nodes[e.Keep:]
	var names []string
	for _, n := range surplus {
		names = append(names, n.NodeName)
	}
	if err := e.Client.Cordon(ctx, names, op.ID); err != nil {
		return false, "", err
	}
	width := max(1, e.MaxUnavailable)
	if s.gone >= width {
		return false, fmt.Sprintf("pool %s: %d nodes left to drain; %d machines are being deleted", s.name, len(surplus), s.gone), nil
	}
	var start, empty []*node
	var parts []string
	for i := 0; i < width-s.gone && i < len(surplus); i++ {
		n := surplus[len(surplus)-1-i]
		switch state := n.drain(); {
		case state == intent.Drained, !n.up && n.status.Phase != intent.MachineRunning: // or it never came up
			empty = append(empty, n)
			parts = append(parts, n.NodeName+" is empty and is removed")
			continue
		case n.Drain == nil && len(e.Unscheduled) > 0: // drains in progress continue
			parts = append(parts, "waiting for a place for "+nodeprovisioning.Few(e.Unscheduled))
			continue
		case n.Drain == nil, state == intent.DrainFailed:
			n.Drain = &intent.Drain{Since: p.env.Now().UTC(), Timeout: nodeprovisioning.DrainTimeout}
			start = append(start, n)
		}
		text := n.NodeName + " is being drained"
		if n.status.Drain != nil && n.status.Drain.Message != "" {
			text += ", " + n.status.Drain.Message
		}
		parts = append(parts, text)
	}
	if err := s.write(start); err != nil {
		return false, "", err
	}
	if len(empty) > 0 {
		var ops []clientv3.Op
		for _, m := range empty {
			ops = append(ops, clientv3.OpDelete(intent.MachineIntentKey(m.ClusterUID, m.Pool, m.Name)))
		}
		pool.Doc.Set(float64(len(s.nodes)-len(empty)), "properties", "count")
		pool.State = "Scaling"
		pool.Touch(p.env.Now())
		// On a conflict the next step repeats it.
		if _, err := p.env.Store.KV.Txn(ctx).If(rp.Unchanged(pool), rp.Exists(cluster.ParsedID())).Then(append(ops, rp.PutOp(pool))...).Commit(); err != nil {
			return false, "", fmt.Errorf("removing nodes of pool %s: %w", s.name, err)
		}
	}
	return false, fmt.Sprintf("pool %s: %d nodes left to drain; %s", s.name, len(surplus), strings.Join(parts, "; ")), nil
}
