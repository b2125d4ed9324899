// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

// preflight checks a deployment's resources, as far as possible, before anything is
// written.
func (p *Provider) preflight(ctx context.Context, caller rp.Principal, g *armtemplate.Graph, rq *request, made createdGroups) error {
	made = made.with(g)
	var bad []rp.Error
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing || !r.Condition {
			continue
		}
		err := p.preflightOne(ctx, caller, r, rq, made)
		if err == nil {
			continue
		}
		e := rp.AsError(err)
		if e.Status >= 500 {
			return err
		}
		if e.Code == "InvalidResourceType" || e.Code == "InvalidResourceNamespace" {
			return rp.BadRequest("InvalidTemplate", "Deployment template validation failed: 'The template resource '%s' at line '%d' and column '%d': %s'.", r.Name, r.Line, r.Column, e.Message)
		}
		d := *e
		d.Target = r.ID
		bad = append(bad, d)
	}
	if len(bad) == 0 {
		return nil
	}
	if bad[0].Code == "AuthorizationFailed" {
		e := rp.Errorf(http.StatusForbidden, "InvalidTemplateDeployment", "Deployment failed with multiple errors: '%s'", bad[0].Message)
		e.Details = bad
		return e
	}
	e := rp.BadRequest("InvalidTemplateDeployment", "The template deployment failed because its resource providers refused it. Please see the details.")
	if len(bad) == 1 {
		e.Message = fmt.Sprintf("The template deployment failed with error: 'The resource '%s' was refused: %s: %s'.", bad[0].Target, bad[0].Code, bad[0].Message)
	}
	e.Details = bad
	return e
}

func (p *Provider) preflightOne(ctx context.Context, caller rp.Principal, r *armtemplate.Resource, parent *request, made createdGroups) error {
	id, err := rp.ParseID(r.ID)
	if err != nil {
		return rp.BadRequest("InvalidTemplate", "%v", err)
	}
	t, err := p.env.TypeOf(id)
	if err != nil {
		return err
	}
	if err := p.allowed(ctx, caller, t, id); err != nil {
		return err
	}
	if strings.EqualFold(t.Name, deploymentType) {
		if r.Deferred {
			return nil
		}
		q, err := p.decode(ctx, caller, r.Body, id, parent)
		if err != nil {
			return err
		}
		if id.ResourceGroup != "" {
			g, err := p.env.Store.Get(ctx, id.Group())
			if _, ok := made[strings.ToLower(id.ResourceGroup)]; err != nil || g == nil && !ok {
				return err // the group may come from another nested deployment: checked when deployed
			}
		}
		_, g, err := p.expand(ctx, id, caller, q, made)
		if err != nil {
			return err
		}
		return p.preflight(ctx, caller, g, q, made)
	}
	if r.Deferred || t.Virtual {
		return nil
	}
	body, err := rp.DecodeBody(r.Body)
	if err != nil {
		return err
	}
	_, err = p.env.Put(ctx, rp.PutRequest{Caller: caller, ID: id, APIVersion: r.APIVersion, Body: body, Preflight: true})
	return err
}

func (p *Provider) allowed(ctx context.Context, caller rp.Principal, t *rp.Type, id rp.ID) error {
	name := t.Name
	if name == groupType {
		name = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	return p.env.Authorize(ctx, caller, name+"/write", id)
}

func (p *Provider) scopeExists(ctx context.Context, id rp.ID) error {
	if id.ResourceGroup == "" {
		return nil
	}
	g, err := p.env.Store.Get(ctx, id.Group())
	if err == nil && g == nil {
		err = rp.NotFound(id.Group())
	}
	return err
}

func (p *Provider) validate(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	if err := p.scopeExists(ctx, q.ID); err != nil {
		return nil, err
	}
	rq, err := p.decode(ctx, q.Caller, q.Raw, q.ID, nil)
	if err != nil {
		return nil, err
	}
	t, g, err := p.expand(ctx, q.ID, q.Caller, rq, nil)
	if err != nil {
		return nil, err
	}
	if err := p.preflight(ctx, q.Caller, g, rq, nil); err != nil {
		return nil, err
	}
	d := p.newDocument(t, g, rq)
	var ids []any
	for i := range g.Resources {
		if r := &g.Resources[i]; r.Condition && !r.Existing {
			ids = append(ids, map[string]any{"id": r.ID})
		}
	}
	d.Set(ids, "properties", "validatedResources")
	d.Set(rp.Succeeded, "properties", "provisioningState")
	d["id"], d["name"], d["type"] = q.ID.String(), q.ID.Name(), deploymentType
	return &rp.Response{Body: d}, nil
}
