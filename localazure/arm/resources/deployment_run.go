// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

// progress is the state of a resource of a deployment.
type progress struct {
	State  string    `json:"state"` // Running, Succeeded or Failed
	Op     string    `json:"op,omitempty"`
	Status string    `json:"status,omitempty"` // OK, Created, …
	Error  *rp.Error `json:"error,omitempty"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
}

func loadProgress(r *rp.Record) (map[int]progress, error) {
	out := map[int]progress{}
	m := map[string]progress{}
	if d := r.Internal.Map("progress"); d != nil {
		if err := d.Into(&m); err != nil {
			return nil, fmt.Errorf("decoding the progress of %s: %w", r.ID, err)
		}
	}
	for k, v := range m {
		i, err := strconv.Atoi(k)
		if err != nil {
			return nil, fmt.Errorf("decoding the progress of %s: %w", r.ID, err)
		}
		out[i] = v
	}
	return out, nil
}

func saveProgress(r *rp.Record, pr map[int]progress) error {
	m := map[string]progress{}
	for i, v := range pr {
		m[strconv.Itoa(i)] = v
	}
	d, err := rp.ToDoc(m)
	if err != nil {
		return err
	}
	r.Internal = r.Internal.Clone()
	r.Internal["progress"] = map[string]any(d)
	return nil
}

// graphs caches the expanded templates of running deployments. After a restart
// they are expanded again from etcd.
type graphs struct {
	mu sync.Mutex
	m  map[string]*armtemplate.Graph // by record UID
}

// graphOf returns the expanded template of a deployment, and its request.
func (p *Provider) graphOf(ctx context.Context, r *rp.Record, caller rp.Principal) (*armtemplate.Graph, *request, error) {
	var rq request
	if err := r.Internal.Map("request").Into(&rq); err != nil {
		return nil, nil, fmt.Errorf("decoding the request of %s: %w", r.ID, err)
	}
	p.graphs.mu.Lock()
	g := p.graphs.m[r.UID]
	p.graphs.mu.Unlock()
	if g != nil {
		return g, &rq, nil
	}
	_, g, err := p.expand(ctx, r.ParsedID(), caller, &rq, nil)
	if err != nil {
		return nil, nil, err
	}
	p.graphs.mu.Lock()
	p.graphs.m[r.UID] = g
	p.graphs.mu.Unlock()
	return g, &rq, nil
}

func (p *Provider) forget(r *rp.Record) {
	p.graphs.mu.Lock()
	delete(p.graphs.m, r.UID)
	p.graphs.mu.Unlock()
}

// run is one step of a deployment.
type run struct {
	*Provider
	ctx      context.Context
	op       *rp.Operation
	record   *rp.Record
	graph    *armtemplate.Graph
	request  *request
	progress map[int]progress // by index of the resource
	changed  bool             // progress has to be saved
}

// stepDeployment sends the resources that are ready, polls those being deployed,
// and ends the deployment.
func (p *Provider) stepDeployment(ctx context.Context, op *rp.Operation) (rp.Step, error) {
	r, err := p.env.Store.Target(ctx, op)
	if err != nil {
		return rp.Step{}, err
	}
	g, rq, err := p.graphOf(ctx, r, op.Caller)
	if err != nil {
		return rp.Step{}, err
	}
	pr, err := loadProgress(r)
	if err != nil {
		return rp.Step{}, err
	}
	d := &run{Provider: p, ctx: ctx, op: op, record: r, graph: g, request: rq, progress: pr}
	watch, err := d.poll()
	if err != nil {
		return rp.Step{}, err
	}
	ready, open, failed := d.ready()
	retry := false
	if !failed && !op.Cancel {
		if retry, err = d.sendAll(ready); err != nil {
			return rp.Step{}, err
		}
	}
	switch {
	case d.changed || r.State == "Accepted":
		return d.save()
	case len(watch) > 0:
		return rp.Step{Watch: watch, After: 2 * time.Second}, nil
	case op.Cancel:
		return rp.Step{}, rp.ErrCanceled
	case failed:
		return rp.Step{}, deploymentError(g, pr)
	case open > 0 && retry:
		return rp.Step{After: 500 * time.Millisecond}, nil
	case open > 0:
		return rp.Step{}, rp.Errorf(500, "InternalServerError", "%d resources of the deployment cannot become ready", open)
	}
	return d.finish()
}

// poll reads the operations of the resources being deployed. It returns the keys
// of those that continue.
func (d *run) poll() (watch []string, err error) {
	now := d.env.Now().UTC()
	for i, x := range d.progress {
		if x.State != "Running" {
			continue
		}
		o, err := d.env.Engine.Get(d.ctx, x.Op)
		if err != nil {
			return nil, err
		}
		switch {
		case o == nil || o.Status == rp.Succeeded:
			x.State, x.End, d.changed = rp.Succeeded, now, true
		case o.Done():
			x.State, x.End, x.Error, d.changed = rp.Failed, now, o.Error, true
			if x.Error == nil {
				x.Error = rp.Conflict("Canceled", "The operation was canceled.")
			}
			x.Status = "Conflict"
		default:
			watch = append(watch, rp.OperationPrefix+x.Op)
		}
		d.progress[i] = x
	}
	return watch, nil
}

// ready returns the resources whose dependencies are deployed, how many have not
// been sent, and whether any has failed.
func (d *run) ready() (ready []int, open int, failed bool) {
	for i := range d.graph.Resources {
		res := &d.graph.Resources[i]
		if res.Existing || !res.Condition {
			continue
		}
		x, sent := d.progress[i]
		if x.State == rp.Failed {
			failed = true
		}
		if sent {
			continue
		}
		open++
		isReady := true
		for _, j := range res.DependsOn {
			isReady = isReady && d.progress[j].State == rp.Succeeded
		}
		if isReady {
			ready = append(ready, i)
		}
	}
	return ready, open, failed
}

// sendAll sends resources, at most parallel of them. retry reports whether one is
// locked by another operation and has to be sent again.
func (d *run) sendAll(ready []int) (retry bool, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, i := range ready[:min(parallel, len(ready))] {
		wg.Go(func() {
			x, e := d.send(d.ctx, d.op, d.graph, i, d.request)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case e != nil:
				err = e
			case x == nil:
				retry = true
			default:
				d.progress[i], d.changed = *x, true
			}
		})
	}
	wg.Wait()
	return retry, err
}

// save writes the progress.
func (d *run) save() (rp.Step, error) {
	r := d.record
	if err := saveProgress(r, d.progress); err != nil {
		return rp.Step{}, err
	}
	if r.State == "Accepted" {
		var ts []any
		for i := range d.graph.Resources {
			ts = append(ts, target(d.graph, i))
		}
		r.Internal["targets"] = ts
	}
	r.State = "Running"
	r.Doc.Set("Running", "properties", "provisioningState")
	return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
}

// finish removes other resources in mode Complete, evaluates the outputs and ends
// the deployment.
func (d *run) finish() (rp.Step, error) {
	if id := rp.MustParseID(d.op.Resource); d.request.Mode == "Complete" && id.ResourceGroup != "" {
		step, done, err := d.removeOthers(d.ctx, d.op, id, d.graph)
		if err != nil || !done {
			return step, err
		}
	}
	outs, err := d.graph.Outputs(runtime{d.ctx, d.env, d.op.Caller})
	if err != nil {
		return rp.Step{}, runtimeError(err)
	}
	outputs := map[string]any{}
	for _, o := range outs {
		v := map[string]any{"type": o.Type}
		if o.Value != nil {
			v["value"] = o.Value
		}
		outputs[o.Name] = v
	}
	var deployed []any
	for i := range d.graph.Resources {
		if d.progress[i].State == rp.Succeeded {
			deployed = append(deployed, map[string]any{"id": d.graph.Resources[i].ID})
		}
	}
	r := d.record
	r.State = rp.Succeeded
	d.finishDoc(r, d.request)
	r.Doc.Set(outputs, "properties", "outputs")
	r.Doc.Set(deployed, "properties", "outputResources")
	d.forget(r)
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
}

// finishDoc sets the properties of a deployment that has ended.
func (p *Provider) finishDoc(r *rp.Record, rq *request) {
	r.Doc.Set(r.State, "properties", "provisioningState")
	now := p.env.Now().UTC()
	r.Doc.Set(now.Format(time.RFC3339Nano), "properties", "timestamp")
	r.Doc.Set("PT"+strconv.FormatFloat(math.Round(now.Sub(rq.Now).Seconds()*1e7)/1e7, 'f', -1, 64)+"S", "properties", "duration")
	// Parameters may be secure: they are not kept.
	r.Internal = r.Internal.Clone()
	r.Internal.Drop("request", "parameters")
}

func deploymentError(g *armtemplate.Graph, pr map[int]progress) *rp.Error {
	e := rp.Conflict("DeploymentFailed", "At least one resource deployment operation failed. Please list deployment operations for details. Please see https://aka.ms/arm-deployment-operations for usage details.")
	for i := range g.Resources {
		if x := pr[i]; x.State == rp.Failed && x.Error != nil {
			d := *x.Error
			if d.Target == "" {
				d.Target = g.Resources[i].ID
			}
			e.Details = append(e.Details, d)
		}
	}
	return e
}

// send sends one resource and returns its progress; nil if another operation holds
// its lock and it has to be sent again.
func (p *Provider) send(ctx context.Context, op *rp.Operation, g *armtemplate.Graph, i int, rq *request) (*progress, error) {
	res := &g.Resources[i]
	now := p.env.Now().UTC()
	x := &progress{State: rp.Succeeded, Start: now, End: now, Status: "OK"}
	result, err := p.putResource(ctx, op.Caller, g, i, rq)
	if err != nil {
		e := rp.AsError(err)
		busy := e.Code == "OperationNotAllowed" && e.Status == 409 || e.Code == "AnotherOperationInProgress" || e.Code == "DeploymentActive" || e.Code == "ConflictingConcurrentWriteNotAllowed"
		if busy && now.Sub(op.Start) < lockTimeout {
			return nil, nil
		}
		if e.Status >= 500 {
			return nil, fmt.Errorf("deploying %s: %w", res.ID, err)
		}
		x.State, x.Status, x.Error = rp.Failed, strings.ReplaceAll(http.StatusText(e.Status), " ", ""), e
		return x, nil
	}
	if result.Created {
		x.Status = "Created"
	}
	if result.Op != nil {
		x.State, x.Op, x.End = "Running", result.Op.ID, time.Time{}
	}
	return x, nil
}

func (p *Provider) putResource(ctx context.Context, caller rp.Principal, g *armtemplate.Graph, i int, rq *request) (*rp.PutResult, error) {
	res := &g.Resources[i]
	raw, err := g.Resolve(i, runtime{ctx, p.env, caller})
	if err != nil {
		return nil, runtimeError(err)
	}
	id, err := rp.ParseID(res.ID)
	if err != nil {
		return nil, rp.BadRequest("InvalidTemplate", "%v", err)
	}
	t, err := p.env.TypeOf(id)
	if err != nil {
		return nil, err
	}
	if err := p.allowed(ctx, caller, t, id); err != nil {
		return nil, err
	}
	if t.Name == deploymentType {
		return p.startDeployment(ctx, caller, id, res.APIVersion, raw, rq)
	}
	body, err := rp.DecodeBody(raw)
	if err != nil {
		return nil, err
	}
	if t.Put != nil {
		resp, err := t.Put(ctx, &rp.Request{Env: p.env, Caller: caller, Method: http.MethodPut, ID: id, Type: t, APIVersion: res.APIVersion, Header: http.Header{}, Body: body, Raw: raw})
		if err != nil {
			return nil, err
		}
		return &rp.PutResult{Type: t, Created: resp.Status == http.StatusCreated, Op: resp.Op}, nil
	}
	return p.env.Put(ctx, rp.PutRequest{Caller: caller, ID: id, APIVersion: res.APIVersion, Body: body})
}

// removeOthers deletes the resources of the group that are not in the template,
// for mode Complete.
func (p *Provider) removeOthers(ctx context.Context, op *rp.Operation, id rp.ID, g *armtemplate.Graph) (rp.Step, bool, error) {
	keep := map[string]bool{}
	for i := range g.Resources {
		if g.Resources[i].Condition {
			keep[strings.ToLower(g.Resources[i].ID)] = true
		}
	}
	rs, err := p.env.InGroup(ctx, id.Group(), false)
	if err != nil {
		return rp.Step{}, false, err
	}
	left := 0
	for _, r := range rs {
		rid := r.ParsedID()
		t, err := p.env.TypeOf(rid)
		if err != nil {
			return rp.Step{}, false, err
		}
		if keep[rid.Key()] || t.Name == deploymentType || !t.Tracked {
			continue
		}
		left++
		if r.State == "Deleting" {
			continue
		}
		if err := p.env.Authorize(ctx, op.Caller, t.Name+"/delete", rid); err != nil {
			return rp.Step{}, false, err
		}
		res, err := p.env.Delete(ctx, op.Caller, rid, deploymentVersions[0], nil, nil)
		if err != nil {
			return rp.Step{}, false, err
		}
		if res.Op == nil {
			left--
		}
	}
	return rp.Step{After: 500 * time.Millisecond}, left == 0, nil
}

func (p *Provider) deploymentFailed(ctx context.Context, op *rp.Operation, e *rp.Error) ([]clientv3.Op, error) {
	r, err := p.env.Store.Get(ctx, rp.MustParseID(op.Resource))
	if err != nil || r == nil {
		return nil, err
	}
	r.State = rp.Failed
	if e == rp.ErrCanceled {
		r.State = rp.Canceled
	} else {
		d, err := rp.ToDoc(e)
		if err != nil {
			return nil, err
		}
		r.Doc.Set(map[string]any(d), "properties", "error")
	}
	var rq request
	if err := r.Internal.Map("request").Into(&rq); err != nil {
		return nil, fmt.Errorf("decoding the request of %s: %w", r.ID, err)
	}
	p.finishDoc(r, &rq)
	p.forget(r)
	return []clientv3.Op{rp.PutOp(r)}, nil
}
