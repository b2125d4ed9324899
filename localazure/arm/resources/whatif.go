// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

// whatIf returns what a deployment would change.
func (p *Provider) whatIf(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	if err := p.scopeExists(ctx, q.ID); err != nil {
		return nil, err
	}
	rq, err := p.decode(ctx, q.Caller, q.Raw, q.ID, nil)
	if err != nil {
		return nil, err
	}
	_, g, err := p.expand(ctx, q.ID, q.Caller, rq, nil)
	if err != nil {
		return nil, err
	}
	result := rp.Doc{"status": rp.Succeeded}
	changes, err := p.changes(ctx, q, rq, g)
	if err != nil {
		if rp.AsError(err).Status >= 500 {
			return nil, err
		}
		result = rp.Doc{"status": rp.Failed, "error": rp.AsError(err)}
	} else {
		result["properties"] = map[string]any{"correlationId": rp.NewGUID(), "changes": changes}
	}
	res, err := rp.ToDoc(result)
	if err != nil {
		return nil, err
	}
	id := q.ID
	op := &rp.Operation{Kind: "WhatIf", Verb: "WhatIf", Resource: id.String(), Location: p.env.DefaultLocation, Result: res, Caller: q.Caller}
	if err := p.env.Engine.Record(ctx, op); err != nil {
		return nil, err
	}
	return &rp.Response{Status: http.StatusAccepted, Op: op, OnlyLocation: true}, nil
}

// prediction collects the changes of a deployment and its nested deployments.
type prediction struct {
	*Provider
	caller rp.Principal
	idOnly bool
	seen   map[string]bool
	out    []any
}

func (p *Provider) changes(ctx context.Context, q *rp.Request, rq *request, g *armtemplate.Graph) ([]any, error) {
	if err := p.preflight(ctx, q.Caller, g, rq, nil); err != nil {
		return nil, err
	}
	w := &prediction{Provider: p, caller: q.Caller, idOnly: strings.EqualFold(rq.Format, "ResourceIdOnly"), seen: map[string]bool{}, out: []any{}}
	if err := w.visit(ctx, g, rq, nil); err != nil {
		return nil, err
	}
	if q.ID.ResourceGroup == "" {
		return w.out, nil
	}
	err := w.others(ctx, q.ID.Group(), rq)
	return w.out, err
}

// visit predicts a template's resources. References to deployed resources are read
// as they are now; if those do not exist yet, the expression stands for its value.
func (w *prediction) visit(ctx context.Context, g *armtemplate.Graph, rq *request, made createdGroups) error {
	made = made.with(g)
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing || !r.Condition {
			continue
		}
		id, err := rp.ParseID(r.ID)
		if err != nil {
			return rp.BadRequest("InvalidTemplate", "%v", err)
		}
		t, err := w.env.TypeOf(id)
		if err != nil {
			return err
		}
		raw, known := r.Body, !r.Deferred
		if r.Deferred {
			if now, err := g.Resolve(i, runtime{ctx, w.env, w.caller}); err == nil {
				raw, known = now, true
			}
		}
		if t.Name == deploymentType {
			err = w.nested(ctx, id, raw, known, rq, made)
		} else {
			err = w.resource(ctx, id, t, r, raw)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nested predicts a nested deployment if its parameters are known.
func (w *prediction) nested(ctx context.Context, id rp.ID, raw json.RawMessage, known bool, parent *request, made createdGroups) error {
	unknown := func(why string) error {
		w.out = append(w.out, map[string]any{"resourceId": id.String(), "changeType": "Unsupported", "unsupportedReason": why})
		return nil
	}
	if !known {
		return unknown("What this nested deployment changes is known only once the resources exist that its parameters are read from.")
	}
	q, err := w.decode(ctx, w.caller, raw, id, parent)
	if err != nil {
		return err
	}
	_, g, err := w.expand(ctx, id, w.caller, q, made)
	if err != nil && rp.AsError(err).Code == "ResourceGroupNotFound" {
		return unknown("The resource group '" + id.ResourceGroup + "' does not exist yet, and this template does not create it.")
	}
	if err != nil {
		return err
	}
	return w.visit(ctx, g, q, made)
}

func (w *prediction) resource(ctx context.Context, id rp.ID, t *rp.Type, r *armtemplate.Resource, raw json.RawMessage) error {
	w.seen[id.Key()] = true
	old, err := w.env.Store.Get(ctx, id)
	if err != nil {
		return err
	}
	if w.idOnly {
		change := "Create"
		if old != nil {
			change = "Deploy"
		}
		w.out = append(w.out, map[string]any{"resourceId": r.ID, "changeType": change})
		return nil
	}
	body, err := rp.DecodeBody(raw)
	if err != nil {
		return err
	}
	body["apiVersion"], body["id"], body["name"], body["type"] = r.APIVersion, r.ID, id.Name(), t.Name
	if id.ResourceGroup != "" {
		body["resourceGroup"] = id.ResourceGroup
	}
	change := map[string]any{"resourceId": r.ID, "changeType": "Create", "after": body}
	if old != nil {
		before, err := w.env.Render(ctx, t, old, r.APIVersion)
		if err != nil {
			return err
		}
		before["apiVersion"] = r.APIVersion
		sent := body.Clone()
		for _, k := range []string{"apiVersion", "id", "name", "type", "resourceGroup"} {
			delete(sent, k)
		}
		after := rp.MergePut(before, sent)
		delta := difference(before, after, sent)
		change["before"], change["after"], change["changeType"] = before, after, "NoChange"
		if len(delta) > 0 {
			change["changeType"], change["delta"] = "Modify", delta
		}
	}
	w.out = append(w.out, change)
	return nil
}

// others adds the resources of the group that are not in the template.
func (w *prediction) others(ctx context.Context, group rp.ID, rq *request) error {
	rs, err := w.env.InGroup(ctx, group, false)
	if err != nil {
		return err
	}
	for _, r := range rs {
		id := r.ParsedID()
		t, err := w.env.TypeOf(id)
		if err != nil {
			return err
		}
		if w.seen[id.Key()] || !t.Tracked {
			continue
		}
		c := map[string]any{"resourceId": r.ID, "changeType": "Ignore"}
		if rq.Mode == "Complete" {
			c["changeType"] = "Delete"
		}
		if !w.idOnly {
			before, err := w.env.Render(ctx, t, r, deploymentVersions[0])
			if err != nil {
				return err
			}
			c["before"] = before
			if rq.Mode != "Complete" {
				c["after"] = before
			}
		}
		w.out = append(w.out, c)
	}
	return nil
}

// difference returns the changes of the properties that the template sets.
func difference(before, after, sent map[string]any) []any {
	out := []any{}
	for _, k := range slices.Sorted(maps.Keys(sent)) {
		b, had := rp.Doc(before).Lookup(k)
		a, has := rp.Doc(after).Lookup(k)
		if same(a, b) {
			continue
		}
		d := map[string]any{"path": k, "before": b, "after": a, "children": nil}
		am, aok := a.(map[string]any)
		bm, bok := b.(map[string]any)
		al, alist := a.([]any)
		bl, blist := b.([]any)
		sm, _ := sent[k].(map[string]any)
		switch {
		case !had:
			d["propertyChangeType"] = "Create"
		case !has:
			d["propertyChangeType"] = "Delete"
		case aok && bok:
			ch := difference(bm, am, sm)
			if len(ch) == 0 {
				continue
			}
			d["propertyChangeType"], d["children"] = "Modify", ch
			delete(d, "before")
			delete(d, "after")
		case alist && blist:
			ch := differenceOfLists(bl, al)
			if len(ch) == 0 {
				continue
			}
			d["propertyChangeType"], d["children"] = "Array", ch
			delete(d, "before")
			delete(d, "after")
		default:
			d["propertyChangeType"] = "Modify"
		}
		out = append(out, d)
	}
	return out
}

func differenceOfLists(before, after []any) []any {
	out := []any{}
	for i := 0; i < max(len(before), len(after)); i++ {
		path := strconv.Itoa(i)
		switch {
		case i >= len(before):
			out = append(out, map[string]any{"path": path, "propertyChangeType": "Create", "after": after[i], "before": nil, "children": nil})
		case i >= len(after):
			out = append(out, map[string]any{"path": path, "propertyChangeType": "Delete", "before": before[i], "after": nil, "children": nil})
		default:
			b, bok := before[i].(map[string]any)
			a, aok := after[i].(map[string]any)
			if bok && aok {
				if ch := difference(b, a, a); len(ch) > 0 {
					out = append(out, map[string]any{"path": path, "propertyChangeType": "Modify", "children": ch})
				}
			} else if !same(before[i], after[i]) {
				out = append(out, map[string]any{"path": path, "propertyChangeType": "Modify", "before": before[i], "after": after[i], "children": nil})
			}
		}
	}
	return out
}

// same compares as ARM does: strings without regard to case, numbers by value.
func same(a, b any) bool {
	if x, ok := a.(string); ok {
		y, ok := b.(string)
		return ok && strings.EqualFold(x, y)
	}
	ja, err1 := json.Marshal(a)
	jb, err2 := json.Marshal(b)
	if err1 == nil && err2 == nil && string(ja) == string(jb) {
		return true
	}
	return reflect.DeepEqual(a, b)
}
