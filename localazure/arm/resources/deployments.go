package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

const (
	deploymentType = "Microsoft.Resources/deployments"
	// parallel is how many resources of a deployment are sent at a time.
	parallel = 24
	// conflictPatience is how long a resource is tried again because another
	// operation holds it.
	conflictPatience = 15 * time.Minute
)

var deploymentVersions = []string{"2025-04-01", "2024-11-01", "2024-07-01", "2023-07-01", "2022-09-01", "2021-04-01", "2020-10-01", "2020-06-01", "2019-10-01", "2018-05-01"}

// graphs keeps the expanded templates of running deployments: they are worked
// out again, from what is in etcd, after a restart.
type graphs struct {
	mu sync.Mutex
	m  map[string]*armtemplate.Graph // by record UID
}

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

// templateError turns a template's fault into ARM's answer.
func templateError(err error) error {
	var te *armtemplate.Error
	if !errors.As(err, &te) {
		return err
	}
	e := rp.BadRequest(te.Code, "%s", te.Message)
	if te.Code == armtemplate.CodeInvalidTemplate && !strings.HasPrefix(te.Message, "Deployment template") {
		e.Message = "Deployment template validation failed: '" + te.Message + "'."
	}
	if te.Path != "" || te.Line > 0 {
		e.Info = []any{map[string]any{"type": "TemplateViolation", "info": map[string]any{"lineNumber": te.Line, "linePosition": te.Column, "path": te.Path}}}
	}
	return e
}

// request is a deployment as it was asked for: enough to expand it again.
type request struct {
	Template   string                     `json:"template"`
	Parameters map[string]json.RawMessage `json:"parameters"`
	Mode       string                     `json:"mode"`
	Location   string                     `json:"location,omitempty"`
	Now        time.Time                  `json:"now"`
	Seed       string                     `json:"seed"`
	Tags       map[string]string          `json:"tags,omitempty"`
	// Linked are the templates that come with one of a template spec, by path;
	// Path is this one's.
	Linked map[string]string `json:"linked,omitempty"`
	Path   string            `json:"path,omitempty"`
	// Link is the templateLink, if there was one.
	Link   json.RawMessage `json:"link,omitempty"`
	Format string          `json:"-"`
}

// decode reads a deployment's body; parent is the deployment that it is nested
// in, if any.
func (p *Provider) decode(ctx context.Context, caller rp.Principal, raw []byte, id rp.ID, parent *request) (*request, error) {
	b, err := armtemplate.DecodeDeploymentBody(raw)
	if err != nil {
		return nil, templateError(err)
	}
	text, at := string(b.Template), ""
	var linked map[string]string
	switch {
	case b.Template != nil && b.TemplateLink != nil:
		return nil, rp.BadRequest("InvalidDeployment", "The deployment '%s' has a template and a templateLink; only one of them can be meant.", id.Name()).At("properties.templateLink")
	case b.Template != nil && parent != nil:
		linked, at = parent.Linked, parent.Path
	case b.TemplateLink != nil:
		if text, linked, at, err = p.linked(ctx, caller, b.TemplateLink, parent); err != nil {
			return nil, err
		}
	case b.Template == nil:
		return nil, rp.BadRequest("InvalidRequestContent", "The request content has no properties.template.").At("properties.template")
	}
	if id.ResourceGroup == "" {
		if b.Location == "" {
			return nil, rp.BadRequest("LocationRequired", "A deployment at the scope of a subscription needs a location.").At("location")
		}
		if p.env.FindLocation(b.Location) == nil {
			return nil, rp.BadRequest("LocationNotAvailableForDeployment", "The provided location '%s' is not available for deployment.", b.Location).At("location")
		}
	} else if b.Location != "" {
		return nil, rp.BadRequest("InvalidDeployment", "The 'location' property is not allowed for '%s' at resource group scope.", id.Name()).At("location")
	}
	return &request{Template: text, Linked: linked, Path: at, Link: b.TemplateLink, Parameters: b.Parameters, Mode: b.Mode, Location: rp.NormalizeLocation(b.Location), Now: p.env.Now().UTC(), Seed: rp.NewGUID(), Tags: b.Tags, Format: b.ResultFormat}, nil
}

// madeGroups are resource groups that a deployment makes and that need not be
// there yet, by lower-case name.
type madeGroups map[string]armtemplate.ResourceGroup

// with adds those that a template makes.
func (m madeGroups) with(g *armtemplate.Graph) madeGroups {
	out := maps.Clone(m)
	if out == nil {
		out = madeGroups{}
	}
	for i := range g.Resources {
		r := &g.Resources[i]
		if r.Existing || !r.Condition || !strings.EqualFold(r.Type, groupType) {
			continue
		}
		made := armtemplate.ResourceGroup{Name: r.Name, Location: rp.NormalizeLocation(r.Location), Tags: map[string]string{}}
		if body, err := rp.DecodeBody(r.Body); err == nil {
			for k, v := range body.Map("tags") {
				if s, ok := v.(string); ok {
					made.Tags[k] = s
				}
			}
		}
		out[strings.ToLower(r.Name)] = made
	}
	return out
}

func (p *Provider) expand(ctx context.Context, id rp.ID, caller rp.Principal, q *request, made madeGroups) (*armtemplate.Template, *armtemplate.Graph, error) {
	t, err := armtemplate.Parse([]byte(q.Template))
	if err != nil {
		return nil, nil, templateError(err)
	}
	scope := armtemplate.Scope{TenantID: p.env.TenantID, SubscriptionID: p.env.SubscriptionID, SubscriptionName: p.env.SubscriptionName}
	if id.ResourceGroup != "" {
		g, err := p.env.Store.Get(ctx, id.Group())
		if err != nil {
			return nil, nil, err
		}
		if g == nil {
			var ok bool
			if scope.ResourceGroup, ok = made[strings.ToLower(id.ResourceGroup)]; !ok {
				return nil, nil, rp.NotFound(id.Group())
			}
		} else {
			scope.ResourceGroup = armtemplate.ResourceGroup{Name: g.ParsedID().ResourceGroup, Location: g.Doc.Str("location"), ManagedBy: g.Doc.Str("managedBy"), Tags: map[string]string{}}
			for k, v := range g.Doc.Map("tags") {
				if s, ok := v.(string); ok {
					scope.ResourceGroup.Tags[k] = s
				}
			}
		}
	}
	n := 0
	g, err := t.Expand(armtemplate.Input{Parameters: q.Parameters, Scope: scope, DeploymentName: id.Name(), DeploymentLocation: q.Location, Mode: q.Mode, DeployerObjectID: caller.ObjectID,
		Environment: p.environment(), Now: q.Now, NewGUID: func() string {
			n++
			return armtemplate.NameUUID(q.Seed + "/" + strconv.Itoa(n)) // the same again after a restart
		}})
	if err != nil {
		return nil, nil, templateError(err)
	}
	return t, g, nil
}

func (p *Provider) environment() json.RawMessage {
	b := p.env.BaseURL
	host := strings.TrimPrefix(b, "https://")
	out, err := json.Marshal(map[string]any{"name": "LocalAzure", "gallery": b + "/gallery", "graph": b, "portal": b + "/portal", "graphAudience": b, "resourceManager": b + "/", "vmImageAliasDoc": b + "/vmImageAliases",
		"activeDirectoryDataLake": b + "/datalake", "batch": b + "/batch", "media": b + "/media", "sqlManagement": b + "/sql",
		"authentication": map[string]any{"loginEndpoint": b + "/", "audiences": []string{b + "/"}, "tenant": "common", "identityProvider": "AAD"},
		"suffixes":       map[string]any{"acrLoginServer": ".azurecr." + host, "keyvaultDns": ".vault." + host, "storage": "storage." + host, "sqlServerHostname": ".database." + host, "azureDatalakeAnalyticsCatalogAndJob": "analytics." + host, "azureDatalakeStoreFileSystem": "datalake." + host, "azureFrontDoorEndpointSuffix": "afd." + host}})
	if err != nil {
		return nil
	}
	return out
}

// runtime answers reference() and list*() with the caller's rights.
type runtime struct {
	ctx    context.Context
	env    *rp.Env
	caller rp.Principal
}

func (r runtime) ask(method, id, action, apiVersion string, body []byte) ([]byte, error) {
	parsed, err := rp.ParseID(id)
	if err != nil {
		return nil, rp.BadRequest("InvalidTemplate", "%v", err)
	}
	t, err := r.env.TypeOf(parsed)
	if err != nil {
		return nil, err
	}
	if apiVersion == "" && len(t.Versions) > 0 {
		apiVersion = t.Versions[0]
	}
	q := &rp.Request{Env: r.env, Caller: r.caller, Method: method, ID: parsed, Type: t, Action: strings.ToLower(action), APIVersion: apiVersion, Header: http.Header{}, Raw: body}
	if q.Body, err = rp.DecodeBody(body); err != nil {
		return nil, err
	}
	resp, err := r.env.Dispatch(r.ctx, q)
	if err != nil {
		return nil, err
	}
	return resp.Encoded()
}

// Reference implements armtemplate.Runtime.
func (r runtime) Reference(id, apiVersion string) ([]byte, error) {
	return r.ask(http.MethodGet, id, "", apiVersion, nil)
}

// List implements armtemplate.Runtime.
func (r runtime) List(function, id, apiVersion string, input []byte) ([]byte, error) {
	return r.ask(http.MethodPost, id, function, apiVersion, input)
}

// preflight checks what can be checked of a deployment's resources before
// anything is written.
func (p *Provider) preflight(ctx context.Context, caller rp.Principal, g *armtemplate.Graph, rq *request, made madeGroups) error {
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
	e := rp.BadRequest("InvalidTemplateDeployment", "The template deployment failed because of what its resources' providers say of it. Please see the details.")
	if len(bad) == 1 {
		e.Message = fmt.Sprintf("The template deployment failed with error: 'The resource '%s' was refused: %s: %s'.", bad[0].Target, bad[0].Code, bad[0].Message)
	}
	e.Details = bad
	return e
}

func (p *Provider) preflightOne(ctx context.Context, caller rp.Principal, r *armtemplate.Resource, parent *request, made madeGroups) error {
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
				return err // made by another nested deployment, or by nobody: seen when it is deployed
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

// shown is the deployment's document as far as it is known at the start.
func (p *Provider) shown(t *armtemplate.Template, g *armtemplate.Graph, q *request) rp.Doc {
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

// putDeployment accepts a deployment; the work is done by its operation.
func (p *Provider) putDeployment(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	res, err := p.startDeployment(ctx, q.Caller, q.ID, q.APIVersion, q.Raw, nil)
	if err != nil {
		return nil, err
	}
	d, err := p.env.Render(ctx, q.Type, res.Record, q.APIVersion)
	return &rp.Response{Status: res.Status, Body: d, Op: res.Op}, err
}

// startDeployment writes a deployment down, which starts it. One that is nested
// in another was checked with that one.
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
	body := p.shown(t, g, rq)
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
	// A deployment is replaced as a whole.
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
	c.Rec.UID = rp.NewGUID() // another deployment, though the name be the same
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

// progress is how far a resource of a deployment is.
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
			return nil, fmt.Errorf("the progress of %s: %w", r.ID, err)
		}
	}
	for k, v := range m {
		i, err := strconv.Atoi(k)
		if err != nil {
			return nil, fmt.Errorf("the progress of %s: %w", r.ID, err)
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

func (p *Provider) graphOf(ctx context.Context, r *rp.Record, caller rp.Principal) (*armtemplate.Graph, *request, error) {
	var rq request
	if err := r.Internal.Map("request").Into(&rq); err != nil {
		return nil, nil, fmt.Errorf("the request of %s: %w", r.ID, err)
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

// stepDeployment sends what is ready, looks at what runs, and finishes.
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
	now := p.env.Now().UTC()
	changed := false
	var watch []string
	// What runs.
	for i, x := range pr {
		if x.State != "Running" {
			continue
		}
		o, err := p.env.Engine.Get(ctx, x.Op)
		if err != nil {
			return rp.Step{}, err
		}
		switch {
		case o == nil || o.Status == rp.Succeeded:
			x.State, x.End, changed = rp.Succeeded, now, true
		case o.Done():
			x.State, x.End, x.Error, changed = rp.Failed, now, o.Error, true
			if x.Error == nil {
				x.Error = rp.Conflict("Canceled", "The operation was canceled.")
			}
			x.Status = "Conflict"
		default:
			watch = append(watch, rp.OperationPrefix+x.Op)
		}
		pr[i] = x
	}
	failed, open := false, 0
	var ready []int
	for i := range g.Resources {
		res := &g.Resources[i]
		if res.Existing || !res.Condition {
			continue
		}
		x, begun := pr[i]
		if x.State == rp.Failed {
			failed = true
		}
		if begun {
			continue
		}
		open++
		isReady := true
		for _, j := range res.DependsOn {
			isReady = isReady && pr[j].State == rp.Succeeded
		}
		if isReady {
			ready = append(ready, i)
		}
	}
	retry := false
	if !failed && !op.Cancel && len(ready) > 0 {
		if len(ready) > parallel {
			ready = ready[:parallel]
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		var fatal error
		for _, i := range ready {
			wg.Add(1)
			go func() {
				defer wg.Done()
				x, err := p.send(ctx, op, g, i, rq)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					fatal = err
				case x == nil:
					retry = true
				default:
					pr[i] = *x
					changed = true
				}
			}()
		}
		wg.Wait()
		if fatal != nil {
			return rp.Step{}, fatal
		}
	}
	if changed || r.State == "Accepted" {
		if err := saveProgress(r, pr); err != nil {
			return rp.Step{}, err
		}
		if r.State == "Accepted" {
			var ts []any
			for i := range g.Resources {
				ts = append(ts, target(g, i))
			}
			r.Internal["targets"] = ts
		}
		r.State = "Running"
		r.Doc.Set("Running", "properties", "provisioningState")
		return rp.Step{Save: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
	}
	if len(watch) > 0 {
		return rp.Step{Watch: watch, After: 2 * time.Second}, nil
	}
	if op.Cancel {
		return rp.Step{}, rp.ErrCanceled
	}
	if failed {
		return rp.Step{}, deploymentError(g, pr)
	}
	if open > 0 {
		if retry {
			return rp.Step{After: 500 * time.Millisecond}, nil
		}
		return rp.Step{}, rp.Errorf(500, "InternalServerError", "%d resources of the deployment cannot become ready", open)
	}
	if id := rp.MustParseID(op.Resource); rq.Mode == "Complete" && id.ResourceGroup != "" {
		step, done, err := p.removeOthers(ctx, op, id, g)
		if err != nil || !done {
			return step, err
		}
	}
	rt := runtime{ctx, p.env, op.Caller}
	outs, err := g.Outputs(rt)
	if err != nil {
		return rp.Step{}, runtimeError(err)
	}
	outputs := map[string]any{}
	for _, o := range outs {
		d := map[string]any{"type": o.Type}
		if o.Value != nil {
			d["value"] = o.Value
		}
		outputs[o.Name] = d
	}
	var made []any
	for i := range g.Resources {
		if pr[i].State == rp.Succeeded {
			made = append(made, map[string]any{"id": g.Resources[i].ID})
		}
	}
	r.State = rp.Succeeded
	p.finishDoc(r, rq)
	r.Doc.Set(outputs, "properties", "outputs")
	r.Doc.Set(made, "properties", "outputResources")
	p.forget(r)
	return rp.Step{Done: true, Cmps: []clientv3.Cmp{rp.Unchanged(r)}, Ops: []clientv3.Op{rp.PutOp(r)}}, nil
}

func (p *Provider) finishDoc(r *rp.Record, rq *request) {
	r.Doc.Set(r.State, "properties", "provisioningState")
	now := p.env.Now().UTC()
	r.Doc.Set(now.Format(time.RFC3339Nano), "properties", "timestamp")
	r.Doc.Set("PT"+strconv.FormatFloat(math.Round(now.Sub(rq.Now).Seconds()*1e7)/1e7, 'f', -1, 64)+"S", "properties", "duration")
	// Secure values have no place in what is kept.
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

func runtimeError(err error) error {
	var te *armtemplate.Error
	if !errors.As(err, &te) {
		return err
	}
	var inner *rp.Error
	e := rp.BadRequest("DeploymentFailed", "%s", te.Message)
	e.Code = te.Code
	if errors.As(err, &inner) {
		e.Details = []rp.Error{*inner}
	}
	return e
}

// send puts one resource. It gives its progress, or nil when another operation
// is in the way and it has to be tried again.
func (p *Provider) send(ctx context.Context, op *rp.Operation, g *armtemplate.Graph, i int, rq *request) (*progress, error) {
	res := &g.Resources[i]
	now := p.env.Now().UTC()
	x := &progress{State: rp.Succeeded, Start: now, End: now, Status: "OK"}
	result, err := p.putResource(ctx, op.Caller, g, i, rq)
	if err != nil {
		e := rp.AsError(err)
		busy := e.Code == "OperationNotAllowed" && e.Status == 409 || e.Code == "AnotherOperationInProgress" || e.Code == "DeploymentActive" || e.Code == "ConflictingConcurrentWriteNotAllowed"
		if busy && now.Sub(op.Start) < conflictPatience {
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

// removeOthers deletes what is in the group but not in a template that was
// deployed in mode Complete.
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
		return nil, fmt.Errorf("the request of %s: %w", r.ID, err)
	}
	p.finishDoc(r, &rq)
	p.forget(r)
	return []clientv3.Op{rp.PutOp(r)}, nil
}

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
	d := p.shown(t, g, rq)
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
		// A template with comments is given as it came.
		t = r.Internal.Str("request", "template")
	}
	return &rp.Response{Body: rp.Doc{"template": t}}, nil
}
