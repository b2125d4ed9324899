// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package containerservice

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/nap-aks/nap/localazure/arm/containerservice/nodeprovisioning"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

func (p *Provider) credential(name string) func(context.Context, *rp.Request) (*rp.Response, error) {
	return func(ctx context.Context, q *rp.Request) (*rp.Response, error) {
		r, err := p.cluster(ctx, q.ID)
		if err != nil {
			return nil, err
		}
		if name == "clusterAdmin" && r.Doc.Bool("properties", "disableLocalAccounts") {
			return nil, rp.BadRequest("BadRequest", "Getting static credential is not allowed because this cluster is set to disable local accounts.")
		}
		st, ok, err := p.status(ctx, r.UID)
		if err != nil {
			return nil, err
		}
		cfg := st.UserKubeconfig
		if name == "clusterAdmin" || cfg == "" {
			cfg = st.AdminKubeconfig
		}
		if !ok || cfg == "" {
			return nil, rp.Conflict("OperationNotAllowed", "The cluster '%s' (state %s) has no credentials yet: its control plane is not up. Wait for it: az aks wait --created.", q.ID.Name(), r.State)
		}
		value, err := nameContext([]byte(cfg), r.ParsedID().Name())
		if err != nil {
			return nil, fmt.Errorf("credentials of cluster '%s': %w", q.ID.Name(), err)
		}
		return &rp.Response{Body: map[string]any{"kubeconfigs": []any{map[string]any{"name": name, "value": value}}}}, nil
	}
}

// nameContext renames a kubeconfig's current context to the cluster's name. AKS
// does so for the admin's too; az adds "-admin" when it merges that one.
func nameContext(kubeconfig []byte, name string) ([]byte, error) {
	c, err := clientcmd.Load(kubeconfig)
	if err != nil {
		return nil, err
	}
	if c.CurrentContext == name || c.Contexts[c.CurrentContext] == nil {
		return kubeconfig, nil
	}
	c.Contexts[name] = c.Contexts[c.CurrentContext]
	delete(c.Contexts, c.CurrentContext)
	c.CurrentContext = name
	return clientcmd.Write(*c)
}

// power starts the operation that stops or starts a cluster.
func (p *Provider) power(ctx context.Context, q *rp.Request, code, state string) (*rp.Response, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if equal(r.Doc.Str("properties", "powerState", "code"), code) && r.State == rp.Succeeded {
		return &rp.Response{Status: http.StatusNoContent}, nil
	}
	prev, ok, err := intent.Get[intent.ClusterIntent](ctx, p.env.Store.KV, intent.ClusterIntentKey(r.UID))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, rp.NotFound(q.ID)
	}
	r.Doc.Set(code, "properties", "powerState", "code")
	r.State, r.ChangedBy = state, q.Caller.ObjectID
	r.Touch(p.env.Now())
	c := p.action(q, r, r, &rp.Operation{Kind: "PutCluster", Verb: state})
	c.Ops = append(c.Ops, rp.JSONOp(intent.ClusterIntentKey(r.UID), p.clusterIntent(r, &prev)))
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

func (p *Provider) stop(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.cluster(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if mode(r.Doc) == modeAuto {
		return nil, rp.BadRequest("OperationNotAllowed", "Stopping the cluster is not allowed if %s is Auto: a cluster with node auto-provisioning cannot be stopped. Disable node auto-provisioning first (az aks update --node-provisioning-mode Manual).", nodeprovisioning.ModePath).At("properties.nodeProvisioningProfile.mode")
	}
	return p.power(ctx, q, "Stopped", "Stopping")
}

func (p *Provider) start(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	return p.power(ctx, q, "Running", "Starting")
}

// abort cancels the running operation of a cluster or pool.
func (p *Provider) abort(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	cluster := clusterOf(q.ID)
	if _, err := p.cluster(ctx, cluster); err != nil {
		return nil, err
	}
	op, err := p.env.LockHolder(ctx, lockOf(cluster))
	if err != nil {
		return nil, err
	}
	if op == nil || op.Kind == "DeleteCluster" {
		return nil, rp.BadRequest("OperationNotAllowed", "There is no operation on '%s' that can be aborted.", q.ID.Name())
	}
	if _, err := p.env.Engine.RequestCancel(ctx, op.ID); err != nil {
		return nil, err
	}
	// The abort is an operation too, which succeeds when the other has ended.
	c := &rp.Change{Env: p.env, Caller: q.Caller, ID: clusterOf(q.ID), Type: q.Type, Op: &rp.Operation{Kind: "Abort", Verb: "Canceling", Data: rp.Doc{"operation": op.ID}}}
	if err := p.env.StartOperation(ctx, c); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: c.Op, WithLocation: true}, nil
}

func (p *Provider) stepAbort(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	other, err := p.env.Engine.Get(ctx, op.Data.Str("operation"))
	if err != nil {
		return rp.Step{}, err
	}
	if other == nil || other.Done() {
		return rp.Step{Done: true}, nil
	}
	return rp.Step{Watch: []string{rp.OperationPrefix + other.ID}, After: time.Second}, nil
}
