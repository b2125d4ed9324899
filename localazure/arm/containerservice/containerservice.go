// Package containerservice is Microsoft.ContainerService: managed clusters,
// their agent pools and machines, the versions and images there are, and
// maintenance configurations.
//
// What a request asks for is written down as intents (arm/intent) in the same
// transaction as the resource; an operation is done when the statuses say that
// the intents are fulfilled. The provider talks to a cluster itself only to
// check what must hold before node auto-provisioning is switched off.
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
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

const (
	clusterType = "Microsoft.ContainerService/ManagedClusters"
	poolType    = "Microsoft.ContainerService/managedClusters/agentPools"
	machineType = "Microsoft.ContainerService/managedClusters/agentPools/machines"

	modeAuto   = "Auto"
	modeManual = "Manual"

	// operationTimeout is when an operation that waits for the machinery gives up.
	operationTimeout = 30 * time.Minute
)

// apiVersions are the versions of the provider's types, newest first.
var apiVersions = []string{"2026-05-01", "2026-04-01", "2026-03-02-preview", "2026-02-01", "2025-10-01", "2025-10-02-preview", "2025-09-01", "2025-08-01", "2025-07-01", "2025-06-02-preview", "2025-05-01", "2025-04-01", "2025-03-01", "2025-02-01", "2025-01-01", "2024-10-01", "2024-09-01", "2024-08-01", "2024-05-01", "2024-02-01", "2024-01-01", "2023-11-01", "2023-08-01", "2022-11-01"}

// Provider is Microsoft.ContainerService.
type Provider struct {
	env      *rp.Env
	auth     *authorization.Provider
	quota    *compute.Quota
	versions versions
	// Dial reaches a cluster's own API.
	Dial Dial
	// Kubectl is the program, with its first arguments, that runs what
	// `az aks command invoke` asks for; none if empty.
	Kubectl []string
}

// New registers the provider's types. kubernetesVersions may be nil for the
// default ones.
func New(env *rp.Env, auth *authorization.Provider, quota *compute.Quota, kubernetesVersions []string) *Provider {
	if len(kubernetesVersions) == 0 {
		kubernetesVersions = DefaultVersions
	}
	p := &Provider{env: env, auth: auth, quota: quota, versions: newVersions(kubernetesVersions), Dial: dialDynamic}
	p.addClusters()
	p.addPools()
	p.addMachines()
	p.addMore()
	p.addCommands()
	p.addMigration()
	env.Add(env.OperationTypes("Microsoft.ContainerService")...)
	return p
}

func mode(d rp.Doc) string {
	if equal(d.Str("properties", "nodeProvisioningProfile", "mode"), modeAuto) {
		return modeAuto
	}
	return modeManual
}

// clusterOf is the ID of the cluster that a pool or machine belongs to.
func clusterOf(id rp.ID) rp.ID {
	c := id
	c.Types, c.Names = id.Types[:1], id.Names[:1]
	return c
}

// poolOf is the ID of the pool that a machine belongs to.
func poolOf(id rp.ID) rp.ID {
	c := id
	c.Types, c.Names = id.Types[:2], id.Names[:2]
	return c
}

func lockOf(cluster rp.ID) string { return rp.LockPrefix + cluster.Key() }

// busy is AKS's answer to an operation on a cluster that has one running.
func busy(other *rp.Operation) error {
	what := other.Verb
	if id := rp.MustParseID(other.Resource); len(id.Names) > 1 {
		what = id.Names[1] + " - " + other.Verb
	}
	return rp.Conflict("OperationNotAllowed", "Operation is not allowed: Another operation (%s) is in progress, please wait for it to finish before starting a new operation. See https://aka.ms/aks-pending-operation for more details. Operation ID: %s", what, other.ID)
}

// digits is a number of n decimal digits that stays the same for a UID.
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

// letters are n letters and digits that stay the same for a string.
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

// pools are the records of a cluster's pools; the one of provisioned machines
// only if asked for.
func (p *Provider) pools(ctx context.Context, cluster rp.ID, withMachines bool) ([]*rp.Record, error) {
	c := cluster
	c.Types = append(append([]string(nil), cluster.Types[:1]...), "agentPools")
	rs, err := p.env.Store.List(ctx, c)
	if err != nil || withMachines {
		return rs, err
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

// clusterIntent is what the machinery is told of a cluster. prev is the intent
// there is now, if any.
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

// ready looks whether the machinery has done what a cluster's intent asks for,
// and says what is missing; an *rp.Error if it failed.
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
		return false, rp.Errorf(409, "ControlPlaneFailed", "The control plane of cluster '%s' could not be brought up: %s", want.Name, st.Message)
	case want.Stopped:
		return st.Phase == intent.ClusterStopped, nil
	case st.Phase != intent.ClusterReady:
		return false, nil
	case want.NodeProvisioning.Mode == modeAuto:
		return st.NodeProvisioningMode == modeAuto, nil
	}
	return st.NodeProvisioningMode != modeAuto, nil
}

// timedOut gives up what has been waited for since a time, which may be one to
// come, for too long.
func timedOut(env *rp.Env, since time.Time, what string) error {
	if env.Now().Sub(since) < operationTimeout {
		return nil
	}
	return rp.Errorf(409, "OperationTimeout", "Gave up after %s: %s. Look at the logs of the local Azure (nap logs) and repeat the request.", operationTimeout, what)
}

// setState gives the writes that put a cluster and its pools into a state.
func (p *Provider) setState(ctx context.Context, cluster *rp.Record, state string, from ...string) ([]clientv3.Cmp, []clientv3.Op, error) {
	pools, err := p.pools(ctx, cluster.ParsedID(), false)
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
