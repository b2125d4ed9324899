// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/containerservice/nodeprovisioning"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// provisioningHost implements nodeprovisioning.Host.
type provisioningHost struct{ p *Provider }

// Cluster implements nodeprovisioning.Host.
func (h provisioningHost) Cluster(ctx context.Context, id rp.ID) (*rp.Record, error) {
	return h.p.cluster(ctx, id)
}

// Pools implements nodeprovisioning.Host.
func (h provisioningHost) Pools(ctx context.Context, cluster rp.ID) ([]*rp.Record, error) {
	return h.p.pools(ctx, cluster)
}

// MachineNodes implements nodeprovisioning.Host.
func (h provisioningHost) MachineNodes(ctx context.Context, cluster rp.ID) ([]string, error) {
	machines, err := h.p.env.Store.ViewList(ctx, machinesOf(cluster))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range machines {
		out = append(out, vmName(m))
	}
	return out, nil
}

// ScaleSet implements nodeprovisioning.Host.
func (h provisioningHost) ScaleSet(cluster *rp.Record, pool string) string {
	return scaleSet(cluster, pool)
}

// Status implements nodeprovisioning.Host.
func (h provisioningHost) Status(ctx context.Context, uid string) (intent.ClusterStatus, error) {
	st, _, err := h.p.status(ctx, uid)
	return st, err
}

// Dial implements nodeprovisioning.Host.
func (h provisioningHost) Dial(status intent.ClusterStatus) (kubeapi.Client, error) {
	return h.p.Dial(status)
}

// CheckAuto implements nodeprovisioning.Host.
func (h provisioningHost) CheckAuto(cluster *rp.Record, pools []*rp.Record) *rp.Error {
	v := &view{doc: cluster.Doc.Clone(), old: cluster.Doc}
	v.doc.Set(nodeprovisioning.ModeAuto, "properties", "nodeProvisioningProfile", "mode")
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

// PrepareFixedPool implements nodeprovisioning.Host.
func (h provisioningHost) PrepareFixedPool(cluster, d, old rp.Doc, name string) error {
	return h.p.completePool(cluster, d, old, name)
}

// NewChange implements nodeprovisioning.Host.
func (h provisioningHost) NewChange(q *rp.Request, cluster *rp.Record, op *rp.Operation) *rp.Change {
	return h.p.action(q, cluster, cluster, op)
}

// CheckIdle implements nodeprovisioning.Host.
func (h provisioningHost) CheckIdle(ctx context.Context, cluster rp.ID) error {
	return h.p.checkIdle(ctx, cluster)
}

// WriteIntent implements nodeprovisioning.Host.
func (h provisioningHost) WriteIntent(ctx context.Context, c *rp.Change) error {
	prev, ok, err := intent.Get[intent.ClusterIntent](ctx, h.p.env.Store.KV, intent.ClusterIntentKey(c.Rec.UID))
	if err != nil {
		return err
	}
	if !ok {
		return rp.NotFound(c.ID)
	}
	ci := h.p.clusterIntent(c.Rec, &prev)
	switch auto := mode(c.Rec.Doc) == modeAuto; {
	case auto && ci.NodeProvisioning.ClientID == "":
		h.p.createController(c, &ci)
	case !auto && ci.NodeProvisioning.ClientID != "":
		h.p.deleteController(c, &ci)
	}
	if ci != prev {
		c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(c.Rec.UID), ci))
	}
	return nil
}

// Ready implements nodeprovisioning.Host.
func (h provisioningHost) Ready(ctx context.Context, uid string) (bool, error) {
	return h.p.ready(ctx, uid)
}

// SetState implements nodeprovisioning.Host.
func (h provisioningHost) SetState(ctx context.Context, cluster *rp.Record, state string) ([]clientv3.Cmp, []clientv3.Op, error) {
	return h.p.setState(ctx, cluster, state)
}

// Failed implements nodeprovisioning.Host.
func (h provisioningHost) Failed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	return h.p.clusterFailed(ctx, op, e)
}

// ReconcilePool implements nodeprovisioning.Host.
func (h provisioningHost) ReconcilePool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record) (bool, string, error) {
	at, err := h.p.reconcilePool(ctx, op, cluster, pool)
	return at.done, at.waiting, err
}

// EmptyPool implements nodeprovisioning.Host.
func (h provisioningHost) EmptyPool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record, e nodeprovisioning.Emptying) (bool, string, error) {
	return h.p.emptyPool(ctx, op, cluster, pool, e)
}
