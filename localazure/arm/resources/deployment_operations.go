// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

func (p *Provider) deployment(ctx context.Context, id rp.ID) (*rp.Record, error) {
	if len(id.Types) > 1 {
		id = id.Parent()
	}
	r, err := p.env.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if r == nil {
		if err := p.scopeExists(ctx, id); err != nil {
			return nil, err
		}
		return nil, rp.Errorf(404, "DeploymentNotFound", "Deployment '%s' could not be found.", id.Name())
	}
	return r, nil
}

func (p *Provider) deploymentStatus(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	op, err := p.env.Engine.Get(ctx, strings.ToLower(q.ID.Name()))
	if err != nil {
		return nil, err
	}
	if op == nil {
		return nil, rp.Errorf(404, "OperationNotFound", "There is no operation '%s' of a deployment.", q.ID.Name())
	}
	resp := p.env.StatusResponse(q, op)
	if d, ok := resp.Body.(rp.Doc); ok && !op.Done() {
		d["status"] = "Running"
	}
	return resp, nil
}

func (p *Provider) operationDocs(ctx context.Context, q *rp.Request) ([]rp.Doc, error) {
	r, err := p.deployment(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	pr, err := loadProgress(r)
	if err != nil {
		return nil, err
	}
	var targets []map[string]any
	for _, t := range r.Internal.List("targets") {
		m, _ := t.(map[string]any)
		targets = append(targets, m)
	}
	var idx []int
	for i := range pr {
		idx = append(idx, i)
	}
	sort.Ints(idx)
	var ds []rp.Doc
	add := func(name string, props map[string]any) {
		ds = append(ds, rp.Doc{"id": r.ID + "/operations/" + name, "operationId": name, "properties": props})
	}
	for _, i := range idx {
		x := pr[i]
		props := map[string]any{"provisioningOperation": "Create", "provisioningState": x.State, "timestamp": x.Start.Format(time.RFC3339Nano), "statusCode": x.Status, "serviceRequestId": nil}
		if !x.End.IsZero() {
			props["timestamp"] = x.End.Format(time.RFC3339Nano)
			props["duration"] = "PT" + strconv.FormatFloat(x.End.Sub(x.Start).Seconds(), 'f', 3, 64) + "S"
		}
		if i < len(targets) {
			props["targetResource"] = targets[i]
		}
		if x.Error != nil {
			props["statusMessage"] = map[string]any{"error": x.Error}
		}
		add(strings.ToUpper(strings.ReplaceAll(armtemplate.NameUUID(r.UID+strconv.Itoa(i)), "-", ""))[:16], props)
	}
	if r.State == rp.Succeeded {
		add("08585"+strings.ToUpper(strings.ReplaceAll(r.UID, "-", ""))[:11], map[string]any{"provisioningOperation": "EvaluateDeploymentOutput", "provisioningState": rp.Succeeded, "statusCode": "OK", "timestamp": r.Doc.Str("properties", "timestamp"), "duration": "PT0S"})
	}
	return ds, nil
}

func target(g *armtemplate.Graph, i int) map[string]any {
	r := g.Resources[i]
	return map[string]any{"id": r.ID, "resourceType": r.Type, "resourceName": r.Name}
}

func (p *Provider) listOperations(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	ds, err := p.operationDocs(ctx, q)
	if err != nil {
		return nil, err
	}
	page, next, err := rp.Page(q, ds)
	return rp.ListResponse(page, next), err
}

func (p *Provider) getOperation(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	ds, err := p.operationDocs(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, d := range ds {
		if strings.EqualFold(d.Str("operationId"), q.ID.Name()) {
			return &rp.Response{Body: d}, nil
		}
	}
	return nil, rp.Errorf(404, "DeploymentOperationNotFound", "Deployment operation '%s' could not be found.", q.ID.Name())
}
