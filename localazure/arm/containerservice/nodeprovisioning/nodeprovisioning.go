// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodeprovisioning holds the operations on node auto-provisioning of a
// managed cluster: enable (a migration from the cluster autoscaler), disable,
// freeze and resume, and the check that precedes mode Manual.
//
// Enable and disable are long-running operations with phases. What a rollback
// needs is stored in the operation's record by the transaction that starts it,
// so an operation continues, or rolls back, after a restart at any point. The
// operations call the cluster through kubeapi and the resource provider through
// Host; package migration translates agent pools to NodePools.
package nodeprovisioning

import (
	"context"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// The modes of node auto-provisioning.
const (
	ModeAuto   = "Auto"
	ModeManual = "Manual"
)

// ModePath is the property of the mode, as refusals name it.
const ModePath = ".properties.nodeProvisioningProfile.mode"

// modeTarget is ModePath as the target of an error.
const modeTarget = "properties.nodeProvisioningProfile.mode"

// Mode returns the mode of a cluster's document.
func Mode(d rp.Doc) string {
	if strings.EqualFold(d.Str("properties", "nodeProvisioningProfile", "mode"), ModeAuto) {
		return ModeAuto
	}
	return ModeManual
}

func setMode(d rp.Doc, mode string) { d.Set(mode, "properties", "nodeProvisioningProfile", "mode") }

// Refused returns AKS's answer to a mode that a rule forbids.
func Refused(rule, why string) *rp.Error {
	sep := ". "
	if strings.HasSuffix(rule, ".") {
		sep = " "
	}
	return rp.BadRequest("OperationNotAllowed", "%s%s%s", rule, sep, why).At(modeTarget)
}

// Host is the resource provider of managed clusters, as far as the operations
// need it.
type Host interface {
	// Cluster returns a cluster's record; an *rp.Error if it does not exist.
	Cluster(ctx context.Context, id rp.ID) (*rp.Record, error)
	// Pools returns a cluster's agent pools without the pool of provisioned
	// machines.
	Pools(ctx context.Context, cluster rp.ID) ([]*rp.Record, error)
	// MachineNodes returns the node names of a cluster's provisioned machines.
	MachineNodes(ctx context.Context, cluster rp.ID) ([]string, error)
	// ScaleSet returns the name of a pool's scale set.
	ScaleSet(cluster *rp.Record, pool string) string
	// Status returns what is reported of a cluster; the zero value if nothing is.
	Status(ctx context.Context, uid string) (intent.ClusterStatus, error)
	// Dial returns a client of the cluster's own API.
	Dial(status intent.ClusterStatus) (kubeapi.Client, error)

	// CheckAuto returns what forbids mode Auto once no pool has the autoscaler;
	// nil if nothing does.
	CheckAuto(cluster *rp.Record, pools []*rp.Record) *rp.Error
	// PrepareFixedPool completes and checks the document of an agent pool, old
	// being the document before (nil for a new pool).
	PrepareFixedPool(cluster, d, old rp.Doc, name string) error

	// NewChange returns a change of a cluster that holds its lock while op runs.
	NewChange(q *rp.Request, cluster *rp.Record, op *rp.Operation) *rp.Change
	// CheckIdle returns an *rp.Error while an operation holds the cluster's lock.
	CheckIdle(ctx context.Context, cluster rp.ID) error
	// WriteIntent adds to a change the cluster's intent for its mode, and creates
	// or deletes the controller's identity accordingly.
	WriteIntent(ctx context.Context, c *rp.Change) error
	// Ready reports whether the cluster's intent is fulfilled; the error is an
	// *rp.Error if it failed.
	Ready(ctx context.Context, uid string) (bool, error)
	// SetState returns the writes that set the state of a cluster and its pools.
	SetState(ctx context.Context, cluster *rp.Record, state string) ([]clientv3.Cmp, []clientv3.Op, error)
	// Failed returns the writes for a failed or canceled operation on a cluster.
	Failed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error)

	// ReconcilePool takes one step towards a pool's node count. waiting says what
	// is missing while done is false.
	ReconcilePool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record) (done bool, waiting string, err error)
	// EmptyPool takes one step of removing a pool's nodes, drained.
	EmptyPool(ctx context.Context, op *rp.Operation, cluster, pool *rp.Record, e Emptying) (done bool, waiting string, err error)
}

// Emptying says how EmptyPool removes nodes.
type Emptying struct {
	Client kubeapi.Client
	// Keep is how many nodes stay: those with the lowest numbers.
	Keep int
	// MaxUnavailable is how many nodes are drained at a time.
	MaxUnavailable int
	// Unscheduled are evicted pods without a node: no further drain begins while
	// there are any.
	Unscheduled []string
}

// Operations are the operations of a resource provider.
type Operations struct {
	env  *rp.Env
	host Host
}

// The kinds of operations, as they are stored.
const (
	disableKind = "DisableNodeProvisioning"
	migrateKind = "MigrateToNodeProvisioning"
)

// New returns the operations and registers their kinds with the engine.
func New(env *rp.Env, host Host) *Operations {
	o := &Operations{env: env, host: host}
	env.Engine.Register(disableKind, rp.Kind{Step: o.stepDisable, Failed: host.Failed})
	env.Engine.Register(migrateKind, rp.Kind{Step: o.stepMigrate, Failed: host.Failed})
	return o
}

// dial returns a client of the cluster's API, or the answer that the cluster
// cannot be reached.
func (o *Operations) dial(ctx context.Context, uid string) (kubeapi.Client, error) {
	st, err := o.host.Status(ctx, uid)
	if err != nil {
		return nil, err
	}
	c, err := o.host.Dial(st)
	if err != nil {
		return nil, rp.Conflict("OperationNotAllowed", "The cluster's API server cannot be reached: %v. Try again once the cluster is healthy.", err)
	}
	return c, nil
}

// autoCluster returns the cluster of a request, which must have mode Auto.
func (o *Operations) autoCluster(ctx context.Context, q *rp.Request) (*rp.Record, error) {
	r, err := o.host.Cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if Mode(r.Doc) != ModeAuto {
		return nil, rp.BadRequest("OperationNotAllowed", "%s of cluster '%s' is not Auto: there is nothing to %s.", ModePath, q.ID.Name(), strings.TrimSuffix(q.Action, "nodeprovisioning")).At(modeTarget)
	}
	return r, nil
}

// pool returns the record of a cluster's pool, or nil.
func (o *Operations) pool(ctx context.Context, cluster *rp.Record, name string) (*rp.Record, error) {
	return o.env.Store.Get(ctx, cluster.ParsedID().Child("agentPools", name))
}
