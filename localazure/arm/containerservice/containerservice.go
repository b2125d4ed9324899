// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package containerservice is Microsoft.ContainerService: managed clusters, their
// agent pools and machines, Kubernetes and node image versions, and maintenance
// configurations.
//
// A request writes intents (localazure/intent) in the same transaction as the
// resource. An operation is done when the reported statuses say that the intents
// are fulfilled. The cluster's own API is called through kubeapi only: by checks
// that precede a change, and by the operations in nodeprovisioning.
package containerservice

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/authorization"
	"github.com/nap-aks/nap/localazure/arm/compute"
	"github.com/nap-aks/nap/localazure/arm/containerservice/kubeapi"
	"github.com/nap-aks/nap/localazure/arm/containerservice/nodeprovisioning"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const (
	clusterType = "Microsoft.ContainerService/ManagedClusters"
	poolType    = "Microsoft.ContainerService/managedClusters/agentPools"
	machineType = "Microsoft.ContainerService/managedClusters/agentPools/machines"

	modeAuto   = nodeprovisioning.ModeAuto
	modeManual = nodeprovisioning.ModeManual

	// operationTimeout is how long an operation waits for control planes and
	// machines.
	operationTimeout = 30 * time.Minute
)

// apiVersions are the versions of the provider's types, newest first.
var apiVersions = []string{"2026-05-01", "2026-04-01", "2026-03-02-preview", "2026-02-01", "2025-10-01", "2025-10-02-preview", "2025-09-01", "2025-08-01", "2025-07-01", "2025-06-02-preview", "2025-05-01", "2025-04-01", "2025-03-01", "2025-02-01", "2025-01-01", "2024-10-01", "2024-09-01", "2024-08-01", "2024-05-01", "2024-02-01", "2024-01-01", "2023-11-01", "2023-08-01", "2022-11-01"}

// Provider is Microsoft.ContainerService.
type Provider struct {
	env          *rp.Env
	auth         *authorization.Provider
	quota        *compute.Quota
	versions     versions
	provisioning *nodeprovisioning.Operations
	// Dial returns a client of a cluster's own API.
	Dial kubeapi.Dial
	// Kubectl is the program, with its first arguments, for
	// `az aks command invoke`; empty: commands are not supported.
	Kubectl []string
}

// New registers the provider's types. Without kubernetesVersions, clusters can
// have DefaultVersions.
func New(env *rp.Env, auth *authorization.Provider, quota *compute.Quota, kubernetesVersions []string) *Provider {
	if len(kubernetesVersions) == 0 {
		kubernetesVersions = DefaultVersions
	}
	p := &Provider{env: env, auth: auth, quota: quota, versions: newVersions(kubernetesVersions), Dial: kubeapi.New}
	p.provisioning = nodeprovisioning.New(env, provisioningHost{p})
	p.addClusters()
	p.addPools()
	p.addMachines()
	p.addVersions()
	p.addMaintenance()
	p.addCommands()
	env.Add(env.OperationTypes("Microsoft.ContainerService")...)
	return p
}

func mode(d rp.Doc) string { return nodeprovisioning.Mode(d) }

// clusterOf returns the ID of the cluster that a pool or machine belongs to.
func clusterOf(id rp.ID) rp.ID {
	c := id
	c.Types, c.Names = id.Types[:1], id.Names[:1]
	return c
}

// poolOf returns the ID of the pool that a machine belongs to.
func poolOf(id rp.ID) rp.ID {
	c := id
	c.Types, c.Names = id.Types[:2], id.Names[:2]
	return c
}

func lockOf(cluster rp.ID) string { return rp.LockPrefix + cluster.Key() }

// action returns a change of a cluster or pool by a POST, which holds the
// cluster's lock while op runs.
func (p *Provider) action(q *rp.Request, cluster, r *rp.Record, op *rp.Operation) *rp.Change {
	return &rp.Change{Env: p.env, Caller: q.Caller, ID: r.ParsedID(), Type: q.Type, Rec: r, Doc: r.Doc, Lock: lockOf(cluster.ParsedID()), Busy: busy, Op: op}
}

// checkIdle returns busy while an operation holds the cluster's lock.
func (p *Provider) checkIdle(ctx context.Context, cluster rp.ID) error {
	op, err := p.env.LockHolder(ctx, lockOf(cluster))
	if err == nil && op != nil {
		err = busy(op)
	}
	return err
}

// busy returns AKS's answer while another operation runs on a cluster.
func busy(other *rp.Operation) error {
	what := other.Verb
	if id := rp.MustParseID(other.Resource); len(id.Names) > 1 {
		what = id.Names[1] + " - " + other.Verb
	}
	return rp.Conflict("OperationNotAllowed", "Operation is not allowed: Another operation (%s) is in progress, please wait for it to finish before starting a new operation. See https://aka.ms/aks-pending-operation for more details. Operation ID: %s", what, other.ID)
}

// digits returns n decimal digits derived from a UID.
func digits(uid string, n int) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(uid))
	mod := uint64(1)
	for i := 0; i < n; i++ {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", n, h.Sum64()%mod)
}

const base36 = "abcdefghijklmnopqrstuvwxyz0123456789"

// letters returns n letters and digits derived from a string.
func letters(s string, n int) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	v := h.Sum64()
	b := make([]byte, n)
	for i := range b {
		b[i] = base36[v%36]
		v /= 36
	}
	return string(b)
}

func (p *Provider) cluster(ctx context.Context, id rp.ID) (*rp.Record, error) {
	r, err := p.env.Store.Get(ctx, id)
	if err == nil && r == nil {
		if g, gerr := p.env.Store.Get(ctx, id.Group()); gerr == nil && g == nil {
			return nil, rp.NotFound(id.Group())
		}
		err = rp.NotFound(id)
	}
	return r, err
}

// pools returns the records of a cluster's pools without the pool of provisioned
// machines.
func (p *Provider) pools(ctx context.Context, cluster rp.ID) ([]*rp.Record, error) {
	rs, err := p.env.Store.List(ctx, poolsOf(cluster))
	if err != nil {
		return nil, err
	}
	out := rs[:0]
	for _, r := range rs {
		if r.ParsedID().Name() != intent.MachinesPool {
			out = append(out, r)
		}
	}
	return out, nil
}

func (p *Provider) status(ctx context.Context, uid string) (intent.ClusterStatus, bool, error) {
	return intent.Get[intent.ClusterStatus](ctx, p.env.Store.KV, intent.ClusterStatusKey(uid))
}

// clusterIntent returns a cluster's intent. prev is the current one, if any.
func (p *Provider) clusterIntent(r *rp.Record, prev *intent.ClusterIntent) intent.ClusterIntent {
	id, d := r.ParsedID(), r.Doc
	net := func(k string) string { return d.Str("properties", "networkProfile", k) }
	ci := intent.ClusterIntent{
		UID: r.UID, ResourceID: id.String(), SubscriptionID: id.Subscription, TenantID: p.env.TenantID, ResourceGroup: id.ResourceGroup, Name: id.Name(),
		NodeResourceGroup: d.Str("properties", "nodeResourceGroup"), Location: d.Str("location"), KubernetesVersion: d.Str("properties", "currentKubernetesVersion"),
		FQDN: d.Str("properties", "fqdn"), PodCIDR: net("podCidr"), ServiceCIDR: net("serviceCidr"), DNSServiceIP: net("dnsServiceIP"),
		NetworkPlugin: net("networkPlugin"), NetworkPluginMode: net("networkPluginMode"), NetworkDataplane: net("networkDataplane"), NetworkPolicy: net("networkPolicy"),
		Stopped:          equal(d.Str("properties", "powerState", "code"), "Stopped"),
		NodeProvisioning: intent.NodeProvisioning{Mode: mode(d), DefaultNodePools: d.Str("properties", "nodeProvisioningProfile", "defaultNodePools")},
	}
	ci.VnetSubnetID = r.Internal.Str("vnetSubnetID")
	if prev != nil {
		ci.Generation = prev.Generation
		ci.NodeProvisioning.ClientID, ci.NodeProvisioning.ClientSecret = prev.NodeProvisioning.ClientID, prev.NodeProvisioning.ClientSecret
		if ci != *prev {
			ci.Generation++
		}
	} else {
		ci.Generation = 1
	}
	return ci
}

// ready reports whether a cluster's intent is fulfilled; the error is an *rp.Error
// if it failed.
func (p *Provider) ready(ctx context.Context, uid string) (bool, error) {
	want, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(uid))
	if err != nil || !ok {
		return false, err
	}
	st, ok, err := p.status(ctx, uid)
	if err != nil || !ok || st.ObservedGeneration != want.Generation {
		return false, err
	}
	switch {
	case st.Phase == intent.ClusterFailed:
		return false, rp.Errorf(409, "ControlPlaneFailed", "The control plane of cluster '%s' could not be started: %s", want.Name, st.Message)
	case want.Stopped:
		return st.Phase == intent.ClusterStopped, nil
	case st.Phase != intent.ClusterReady:
		return false, nil
	case want.NodeProvisioning.Mode == modeAuto:
		return st.NodeProvisioningMode == modeAuto, nil
	}
	return st.NodeProvisioningMode != modeAuto, nil
}

// timedOut returns an error once something has been waited for longer than
// operationTimeout. since may be in the future.
func timedOut(env *rp.Env, since time.Time, what string) error {
	if env.Now().Sub(since) < operationTimeout {
		return nil
	}
	return rp.Errorf(409, "OperationTimeout", "Gave up after %s: %s. Look at the logs of the local Azure (nap logs) and repeat the request.", operationTimeout, what)
}

// setState returns the writes that set the state of a cluster and of its pools
// that an operation was changing.
func (p *Provider) setState(ctx context.Context, cluster *rp.Record, state string) ([]clientv3.Cmp, []clientv3.Op, error) {
	pools, err := p.pools(ctx, cluster.ParsedID())
	if err != nil {
		return nil, nil, err
	}
	cluster.State = state
	cmps, ops := []clientv3.Cmp{rp.Unchanged(cluster)}, []clientv3.Op{rp.PutOp(cluster)}
	for _, r := range pools {
		if r.State == rp.Succeeded || r.State == rp.Failed || r.State == rp.Canceled || r.State == "Deleting" {
			continue
		}
		r.State = state
		cmps, ops = append(cmps, rp.Unchanged(r)), append(ops, rp.PutOp(r))
	}
	return cmps, ops, nil
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// clusterAndPool returns the cluster and the pool that an ID belongs to.
func (p *Provider) clusterAndPool(ctx context.Context, id rp.ID) (cluster, pool *rp.Record, err error) {
	if cluster, err = p.cluster(ctx, clusterOf(id)); err != nil {
		return nil, nil, err
	}
	if pool, err = p.env.Store.Get(ctx, poolOf(id)); err != nil {
		return nil, nil, err
	}
	if pool == nil {
		return nil, nil, rp.NotFound(poolOf(id))
	}
	return cluster, pool, nil
}
