// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

const (
	deploymentType = "Microsoft.Resources/deployments"
	// parallel is the maximum number of resources sent at a time.
	parallel = 24
	// lockTimeout is how long a resource is sent again because another operation
	// holds its lock.
	lockTimeout = 15 * time.Minute
)

var deploymentVersions = []string{"2025-04-01", "2024-11-01", "2024-07-01", "2023-07-01", "2022-09-01", "2021-04-01", "2020-10-01", "2020-06-01", "2019-10-01", "2018-05-01"}

func (p *Provider) addDeployments() {
	t := &rp.Type{Name: deploymentType, Versions: deploymentVersions, Scope: rp.Anywhere,
		NameRule: regexp.MustCompile(`^[-\w\._\(\)]{1,64}$`), NameHelp: "A deployment's name has 1 to 64 letters, digits, dots, dashes, underscores and parentheses.",
		Put: p.putDeployment, Prepare: p.prepareDeployment, Commit: p.commitDeployment, Delete: p.deleteDeployment, NoState: true,
		AsyncURL: func(op *rp.Operation) string { return op.Resource + "/operationStatuses/" + op.ID }}
	t.Actions = map[string]rp.Action{
		"validate":       {Permission: deploymentType + "/validate/action", Do: p.validate},
		"whatif":         {Permission: deploymentType + "/whatIf/action", Do: p.whatIf},
		"cancel":         {Permission: deploymentType + "/cancel/action", Do: p.cancelDeployment},
		"exporttemplate": {Permission: deploymentType + "/exportTemplate/action", Do: p.exportDeployment},
	}
	p.env.Add(t,
		&rp.Type{Name: deploymentType + "/operationStatuses", Versions: deploymentVersions, Scope: rp.Anywhere, Virtual: true, Hidden: true, Get: p.deploymentStatus},
		&rp.Type{Name: deploymentType + "/operations", Versions: deploymentVersions, Scope: rp.Anywhere, Virtual: true, Get: p.getOperation, List: p.listOperations},
	)
	p.env.Engine.Register("Deployment", rp.Kind{Step: p.stepDeployment, Failed: p.deploymentFailed})
	p.env.Engine.Register("DeleteDeployment", rp.Kind{Step: func(_ context.Context, op *rp.Operation) (rp.Step, error) {
		return rp.Step{Done: true, Ops: []clientv3.Op{rp.DeleteOp(rp.MustParseID(op.Resource))}}, nil
	}})
}

// newDocument returns a deployment's document at its start.
func (p *Provider) newDocument(t *armtemplate.Template, g *armtemplate.Graph, q *request) rp.Doc {
	params := map[string]any{}
	for k, v := range g.Parameters {
		d := map[string]any{"type": v.Type}
		if v.Value != nil {
			d["value"] = v.Value
		}
		params[k] = d
	}
	byNS := map[string]map[string]map[string]bool{}
	deps := []any{}
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing {
			continue
		}
		ns, typ, _ := strings.Cut(r.Type, "/")
		if byNS[ns] == nil {
			byNS[ns] = map[string]map[string]bool{}
		}
		if byNS[ns][typ] == nil {
			byNS[ns][typ] = map[string]bool{}
		}
		byNS[ns][typ][r.Location] = true
		if len(r.DependsOn) > 0 {
			var on []any
			for _, j := range r.DependsOn {
				o := g.Resources[j]
				on = append(on, map[string]any{"id": o.ID, "resourceType": o.Type, "resourceName": o.Name})
			}
			deps = append(deps, map[string]any{"id": r.ID, "resourceType": r.Type, "resourceName": r.Name, "dependsOn": on})
		}
	}
	providers := []any{}
	for ns, types := range byNS {
		var ts []any
		for typ, locs := range types {
			ls := []any{}
			for l := range locs {
				if l == "" {
					ls = append(ls, nil)
				} else {
					ls = append(ls, l)
				}
			}
			ts = append(ts, map[string]any{"resourceType": typ, "locations": ls})
		}
		sort.Slice(ts, func(i, j int) bool {
			return ts[i].(map[string]any)["resourceType"].(string) < ts[j].(map[string]any)["resourceType"].(string)
		})
		providers = append(providers, map[string]any{"namespace": ns, "resourceTypes": ts})
	}
	sort.Slice(providers, func(i, j int) bool {
		return providers[i].(map[string]any)["namespace"].(string) < providers[j].(map[string]any)["namespace"].(string)
	})
	d := rp.Doc{"properties": map[string]any{"templateHash": t.Hash(), "parameters": params, "mode": q.Mode, "provisioningState": "Accepted", "timestamp": q.Now.Format(time.RFC3339Nano),
		"duration": "PT0S", "correlationId": rp.NewGUID(), "providers": providers, "dependencies": deps}}
	if link, err := rp.DecodeBody(q.Link); err == nil && len(link) > 0 {
		d.Set(map[string]any(link), "properties", "templateLink")
	}
	if q.Location != "" {
		d["location"] = q.Location
	}
	if len(q.Tags) > 0 {
		tags := map[string]any{}
		for k, v := range q.Tags {
			tags[k] = v
		}
		d["tags"] = tags
	}
	return d
}

// putDeployment starts a deployment.
func (p *Provider) putDeployment(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	res, err := p.startDeployment(ctx, q.Caller, q.ID, q.APIVersion, q.Raw, nil)
	if err != nil {
		return nil, err
	}
	d, err := p.env.Render(ctx, q.Type, res.Record, q.APIVersion)
	return &rp.Response{Status: res.Status, Body: d, Op: res.Op}, err
}

// startDeployment writes a deployment and its operation. A nested one was checked
// with its parent.
func (p *Provider) startDeployment(ctx context.Context, caller rp.Principal, id rp.ID, apiVersion string, raw []byte, parent *request) (*rp.PutResult, error) {
	if err := p.scopeExists(ctx, id); err != nil {
		return nil, err
	}
	rq, err := p.decode(ctx, caller, raw, id, parent)
	if err != nil {
		return nil, err
	}
	t, g, err := p.expand(ctx, id, caller, rq, nil)
	if err != nil {
		return nil, err
	}
	if parent == nil {
		if err := p.preflight(ctx, caller, g, rq, nil); err != nil {
			return nil, err
		}
	}
	body := p.newDocument(t, g, rq)
	internal, err := rp.ToDoc(rq)
	if err != nil {
		return nil, err
	}
	return p.env.Put(ctx, rp.PutRequest{Caller: caller, ID: id, APIVersion: apiVersion, Body: body, Internal: internal})
}

func (p *Provider) prepareDeployment(ctx context.Context, c *rp.Change) error {
	if c.Old != nil && !final(c.Old.State) {
		return rp.Conflict("DeploymentActive", "Unable to edit or replace deployment '%s': previous deployment from '%s' is still active. Please see https://aka.ms/arm-deploy for usage details.", c.ID.Name(), c.Old.CreatedAt.Format(time.RFC1123))
	}
	// A deployment is replaced, not merged.
	c.Doc = c.Sent.Clone()
	c.Doc.Set("Accepted", "properties", "provisioningState")
	return nil
}

func final(state string) bool {
	return state == rp.Succeeded || state == rp.Failed || state == rp.Canceled
}

func (p *Provider) commitDeployment(_ context.Context, c *rp.Change) error {
	if c.Internal == nil {
		return rp.BadRequest("InvalidRequestContent", "A deployment cannot be created this way.")
	}
	c.Rec.Internal = rp.Doc{"request": map[string]any(c.Internal), "progress": map[string]any{}}
	c.Rec.UID = rp.NewGUID() // another deployment under the same name
	c.Rec.CreatedAt = p.env.Now().UTC()
	c.Rec.State = "Accepted"
	c.Op = &rp.Operation{Kind: "Deployment", Verb: "Deploying"}
	c.Op.ID = rp.NewGUID()
	c.Rec.Internal["operation"] = c.Op.ID
	c.Lock = rp.LockPrefix + c.ID.Key()
	c.Busy = func(other *rp.Operation) error {
		return rp.Conflict("DeploymentActive", "Unable to edit or replace deployment '%s': operation %s on it is still active.", c.ID.Name(), other.ID)
	}
	return nil
}

func (p *Provider) deleteDeployment(_ context.Context, c *rp.Change) error {
	if !final(c.Old.State) {
		return rp.Conflict("DeploymentActive", "The deployment '%s' is running; cancel it first.", c.ID.Name())
	}
	c.Op = &rp.Operation{Kind: "DeleteDeployment", Verb: "Deleting"}
	return nil
}

func (p *Provider) cancelDeployment(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.deployment(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	ok, err := p.env.Engine.RequestCancel(ctx, r.Internal.Str("operation"))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, rp.Conflict("DeploymentCannotBeCancelled", "The deployment '%s' cannot be canceled: it is over, its provisioning state is '%s'.", q.ID.Name(), r.State)
	}
	return &rp.Response{Status: http.StatusNoContent}, nil
}

func (p *Provider) exportDeployment(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	r, err := p.deployment(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	var t any
	if err := json.Unmarshal([]byte(r.Internal.Str("request", "template")), &t); err != nil {
		// A template with comments is returned as text.
		t = r.Internal.Str("request", "template")
	}
	return &rp.Response{Body: rp.Doc{"template": t}}, nil
}
