// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package resources

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/armtemplate"
)

// request is a deployment as requested: all that is needed to expand it again.
type request struct {
	Template   string                     `json:"template"`
	Parameters map[string]json.RawMessage `json:"parameters"`
	Mode       string                     `json:"mode"`
	Location   string                     `json:"location,omitempty"`
	Now        time.Time                  `json:"now"`
	Seed       string                     `json:"seed"`
	Tags       map[string]string          `json:"tags,omitempty"`
	// Linked are the templates of the same template spec, by path; Path is this
	// one's.
	Linked map[string]string `json:"linked,omitempty"`
	Path   string            `json:"path,omitempty"`
	// Link is the templateLink, if there was one.
	Link   json.RawMessage `json:"link,omitempty"`
	Format string          `json:"-"`
}

// decode reads a deployment's body; parent is the deployment it is nested in, if
// any.
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

// createdGroups are the resource groups that a deployment creates and that may not
// exist yet, by lower-case name.
type createdGroups map[string]armtemplate.ResourceGroup

// with adds the groups that a template creates.
func (m createdGroups) with(g *armtemplate.Graph) createdGroups {
	out := maps.Clone(m)
	if out == nil {
		out = createdGroups{}
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

// expand parses and evaluates a deployment's template.
func (p *Provider) expand(ctx context.Context, id rp.ID, caller rp.Principal, q *request, made createdGroups) (*armtemplate.Template, *armtemplate.Graph, error) {
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
			return armtemplate.NameUUID(q.Seed + "/" + strconv.Itoa(n)) // the same after a restart
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

// runtime evaluates reference() and list*() with the caller's permissions.
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

// templateError converts an error in a template to ARM's answer.
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
