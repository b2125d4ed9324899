// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/arm/token"
)

// Provider is Microsoft.Authorization.
type Provider struct {
	env *rp.Env

	mu         sync.Mutex
	generation uint64
	loaded     uint64
	// allowed caches what the loaded assignments and roles allow.
	allowed     map[decision]bool
	assignments []assignment
	roles       map[string]*Role
}

type assignment struct {
	principal string // lower case
	scope     rp.ID
	role      string // GUID, lower case
}

var versions = []string{"2022-04-01", "2022-05-01-preview", "2020-08-01-preview", "2018-01-01-preview", "2015-07-01"}

var guidRule = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// New registers the provider's types and authorizes all requests of env.
func New(env *rp.Env) *Provider {
	p := &Provider{env: env, generation: 1}
	env.Authorize = p.Authorize
	env.Guard = p.guard
	env.Add(
		&rp.Type{Name: "Microsoft.Authorization/roleAssignments", Versions: versions, Scope: rp.Extension, NoState: true,
			NameRule: guidRule, NameHelp: "The role assignment ID must be a GUID.", OwnRights: true, Prepare: p.prepareAssignment, List: p.listAssignments, Render: renderAssignment},
		&rp.Type{Name: "Microsoft.Authorization/roleDefinitions", Versions: versions, Scope: rp.Extension, NoState: true,
			NameRule: guidRule, NameHelp: "The role definition ID must be a GUID.", Prepare: p.prepareDefinition, List: p.listDefinitions, Get: p.getDefinition, Put: p.putDefinition, Delete: p.deleteDefinition},
		&rp.Type{Name: "Microsoft.Authorization/locks", Versions: []string{"2020-05-01", "2016-09-01"}, Scope: rp.Extension, NoState: true, Prepare: prepareLock},
	)
	return p
}

// Changed invalidates the roles if a changed key in etcd concerns them.
func (p *Provider) Changed(key string) {
	if strings.HasPrefix(key, rp.ResourcePrefix+"microsoft.authorization/") {
		p.Invalidate()
	}
}

// Invalidate makes the next request read the roles again.
func (p *Provider) Invalidate() {
	p.mu.Lock()
	p.generation++
	p.mu.Unlock()
}

func (p *Provider) load(ctx context.Context) ([]assignment, map[string]*Role, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded == p.generation {
		return p.assignments, p.roles, nil
	}
	gen := p.generation
	as, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
	if err != nil {
		return nil, nil, err
	}
	custom, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleDefinitions")
	if err != nil {
		return nil, nil, err
	}
	roles := map[string]*Role{}
	for i := range builtIn {
		roles[builtIn[i].GUID] = &builtIn[i]
	}
	for _, r := range custom {
		role := fromDoc(r.ParsedID().Name(), r.Doc)
		roles[strings.ToLower(role.GUID)] = role
	}
	var list []assignment
	for _, r := range as {
		list = append(list, assignment{principal: strings.ToLower(r.Doc.Str("properties", "principalId")), scope: scopeOf(r.ParsedID()),
			role: roleGUID(r.Doc.Str("properties", "roleDefinitionId"))})
	}
	p.assignments, p.roles, p.loaded = list, roles, gen
	p.allowed = map[decision]bool{}
	return list, roles, nil
}

func scopeOf(id rp.ID) rp.ID {
	if id.Scope != nil {
		return *id.Scope
	}
	return rp.ID{Subscription: id.Subscription, ResourceGroup: id.ResourceGroup}
}

func roleGUID(definitionID string) string {
	return strings.ToLower(definitionID[strings.LastIndexByte(definitionID, '/')+1:])
}

// decision is an allowed action of a principal at a scope.
type decision struct{ principal, action, scope string }

// maxDecisions is the largest number of cached decisions.
const maxDecisions = 20_000

// Authorize implements rp.Env.Authorize. It caches what is allowed until roles
// change.
func (p *Provider) Authorize(ctx context.Context, who rp.Principal, action string, scope rp.ID) error {
	if who == rp.System {
		return nil
	}
	d := decision{who.ObjectID, action, scope.Key()}
	p.mu.Lock()
	known := p.loaded == p.generation && p.allowed[d]
	generation := p.generation
	p.mu.Unlock()
	if known {
		return nil
	}
	if err := p.authorize(ctx, who, action, scope); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded == p.generation && p.generation == generation {
		if len(p.allowed) >= maxDecisions {
			clear(p.allowed)
		}
		p.allowed[d] = true
	}
	return nil
}

func (p *Provider) authorize(ctx context.Context, who rp.Principal, action string, scope rp.ID) error {
	as, roles, err := p.load(ctx)
	if err != nil {
		return err
	}
	oid := strings.ToLower(who.ObjectID)
	for _, a := range as {
		if a.principal != oid || !scope.Within(a.scope) {
			continue
		}
		if r := roles[a.role]; r != nil && r.Allows(action) {
			return nil
		}
	}
	// Any role in the subscription allows reading its name and lists.
	if strings.HasSuffix(action, "/read") && (strings.HasPrefix(action, "Microsoft.Resources/subscriptions/") || action == "Microsoft.Resources/subscriptions/read") && scope.ResourceGroup == "" {
		for _, a := range as {
			if a.principal == oid {
				return nil
			}
		}
	}
	return Denied(who, action, scope)
}

// Denied returns ARM's error for an action that is not allowed.
func Denied(who rp.Principal, action string, scope rp.ID) error {
	return rp.Errorf(http.StatusForbidden, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		who.AppID, who.ObjectID, action, scope)
}

// Allowed reports whether a principal (by object ID) may do an action at a scope.
func (p *Provider) Allowed(ctx context.Context, objectID, action string, scope rp.ID) (bool, error) {
	err := p.Authorize(ctx, rp.Principal{ObjectID: objectID}, action, scope)
	if err == nil {
		return true, nil
	}
	if rp.AsError(err).Code == "AuthorizationFailed" {
		return false, nil
	}
	return false, err
}

// AssignmentRecord returns the record of a new role assignment, for a transaction.
func (p *Provider) AssignmentRecord(scope rp.ID, objectID, role, why string) *rp.Record {
	id := rp.ID{Subscription: scope.Subscription, ResourceGroup: scope.ResourceGroup, Namespace: "Microsoft.Authorization", Types: []string{"roleAssignments"}, Names: []string{rp.NewGUID()}}
	if scope.Namespace != "" {
		s := scope
		id.Scope = &s
	}
	now := p.env.Now().UTC()
	return &rp.Record{ID: id.String(), UID: rp.NewGUID(), ETag: rp.NewGUID(), CreatedAt: now, ChangedAt: now, State: rp.Succeeded, Doc: rp.Doc{"properties": map[string]any{
		"principalId": objectID, "principalType": "ServicePrincipal", "scope": scope.String(), "description": why,
		"roleDefinitionId": "/subscriptions/" + p.env.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + role,
	}}}
}

func (p *Provider) prepareAssignment(ctx context.Context, c *rp.Change) error {
	if v := c.Doc.Map("properties"); v == nil {
		// Old API versions have them at the top level.
		c.Doc = rp.Doc{"properties": map[string]any(c.Doc)}
	}
	principal, def := c.Doc.Str("properties", "principalId"), c.Doc.Str("properties", "roleDefinitionId")
	if principal == "" || !guidRule.MatchString(principal) {
		return rp.BadRequest("InvalidPrincipalId", "The principal ID '%s' is not a GUID; give the object ID of the principal.", principal).At("properties.principalId")
	}
	scope := scopeOf(c.ID)
	if scope.Namespace != "" && !c.Preflight {
		if t := p.env.FindType(scope.Type()); t != nil && !t.Virtual {
			r, err := p.env.Store.Get(ctx, scope)
			if err != nil {
				return err
			}
			if r == nil {
				return rp.NotFound(scope)
			}
		}
	}
	as, roles, err := p.load(ctx)
	if err != nil {
		return err
	}
	role := roles[roleGUID(def)]
	if role == nil {
		return rp.Errorf(404, "RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", roleGUID(def)).At("properties.roleDefinitionId")
	}
	if scope.Subscription == "" {
		return Denied(c.Caller, "Microsoft.Authorization/roleAssignments/write", scope)
	}
	if role.Custom && !slices.ContainsFunc(role.Scopes, func(s string) bool {
		id, err := rp.ParseID(s)
		return err == nil && scope.Within(id)
	}) {
		return rp.BadRequest("InvalidRoleAssignmentScope", "The role '%s' cannot be assigned at the scope '%s': its assignable scopes are %s.", role.Name, scope, strings.Join(role.Scopes, ", ")).At("properties.roleDefinitionId")
	}
	if !c.Preflight {
		id, err := token.ByObjectID(ctx, p.env.Store.KV, principal)
		if err != nil {
			return err
		}
		if id == nil && c.Doc.Str("properties", "principalType") == "" {
			return rp.BadRequest("PrincipalNotFound", "Principal %s does not exist in the directory %s.", strings.ReplaceAll(principal, "-", ""), p.env.TenantID).At("properties.principalId")
		}
	}
	for _, a := range as {
		if a.principal == strings.ToLower(principal) && a.role == roleGUID(def) && a.scope.Key() == scope.Key() && c.Old == nil {
			return rp.Conflict("RoleAssignmentExists", "The role assignment already exists.")
		}
	}
	if c.Old != nil && (!strings.EqualFold(c.Old.Doc.Str("properties", "principalId"), principal) || roleGUID(c.Old.Doc.Str("properties", "roleDefinitionId")) != roleGUID(def)) {
		return rp.BadRequest("RoleAssignmentUpdateNotPermitted", "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.")
	}
	c.Doc.Default("ServicePrincipal", "properties", "principalType")
	c.Doc.Set(scope.String(), "properties", "scope")
	return nil
}

func renderAssignment(_ context.Context, r *rp.Record, d rp.Doc, _ string) error {
	d.Set(r.CreatedAt.Format(time.RFC3339Nano), "properties", "createdOn")
	d.Set(r.ChangedAt.Format(time.RFC3339Nano), "properties", "updatedOn")
	d.Set(r.CreatedBy, "properties", "createdBy")
	d.Set(r.ChangedBy, "properties", "updatedBy")
	return nil
}

var filterTerm = regexp.MustCompile(`(?i)^\s*(atScope\(\)|assignedTo\('([^']*)'\)|(principalId|roleName|type)\s+eq\s+'([^']*)')\s*$`)

// filters parses a $filter: terms that clients use, joined by "and".
func filters(s string) (map[string]string, error) {
	out := map[string]string{}
	if s == "" {
		return out, nil
	}
	for _, t := range regexp.MustCompile(`(?i)\s+and\s+`).Split(s, -1) {
		m := filterTerm.FindStringSubmatch(t)
		switch {
		case m == nil:
			return nil, rp.BadRequest("UnsupportedFilter", "The filter '%s' is not supported. Use atScope(), assignedTo('…'), principalId eq '…', roleName eq '…' or type eq '…'.", t)
		case strings.EqualFold(m[1], "atScope()"):
			out["atscope"] = "true"
		case m[3] == "":
			out["principalid"] = m[2]
		default:
			out[strings.ToLower(m[3])] = m[4]
		}
	}
	return out, nil
}

func (p *Provider) listAssignments(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	f, err := filters(q.Query.Get("$filter"))
	if err != nil {
		return nil, err
	}
	all, err := p.env.Store.ListType(ctx, "Microsoft.Authorization/roleAssignments")
	if err != nil {
		return nil, err
	}
	at := scopeOf(q.ID)
	var rs []*rp.Record
	for _, r := range all {
		s := scopeOf(r.ParsedID())
		if !at.Within(s) && (f["atscope"] != "" || !s.Within(at)) {
			continue
		}
		if want := f["principalid"]; want != "" && !strings.EqualFold(want, r.Doc.Str("properties", "principalId")) {
			continue
		}
		if p.env.MayRead(ctx, q.Caller, r.ParsedID()) {
			rs = append(rs, r)
		}
	}
	page, next, err := rp.Page(q, rs)
	if err != nil {
		return nil, err
	}
	ds, err := p.env.RenderAll(ctx, q.Type, page, q.APIVersion)
	if err != nil {
		return nil, err
	}
	return rp.ListResponse(ds, next), nil
}

func fromDoc(guid string, d rp.Doc) *Role {
	r := &Role{GUID: guid, Name: d.Str("properties", "roleName"), Description: d.Str("properties", "description"), Custom: true, Scopes: d.Strings("properties", "assignableScopes")}
	for _, x := range d.List("properties", "permissions") {
		if m, ok := x.(map[string]any); ok {
			r.Actions = append(r.Actions, rp.Doc(m).Strings("actions")...)
			r.NotActions = append(r.NotActions, rp.Doc(m).Strings("notActions")...)
		}
	}
	return r
}

func (p *Provider) roleDoc(r *Role) rp.Doc {
	kind, scopes := "BuiltInRole", []string{"/"}
	id := "/subscriptions/" + p.env.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + r.GUID
	if r.Custom {
		kind, scopes = "CustomRole", r.Scopes
	}
	list := func(s []string) []string { return append([]string{}, s...) }
	return rp.Doc{"id": id, "name": r.GUID, "type": "Microsoft.Authorization/roleDefinitions", "properties": map[string]any{
		"roleName": r.Name, "type": kind, "description": r.Description, "assignableScopes": scopes,
		"permissions": []any{map[string]any{"actions": list(r.Actions), "notActions": list(r.NotActions), "dataActions": []string{}, "notDataActions": []string{}}},
	}}
}

func (p *Provider) sorted(ctx context.Context) ([]*Role, error) {
	// A definition must be listed right after its creation; there are only a few.
	p.Invalidate()
	_, roles, err := p.load(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Role
	for _, r := range roles {
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Name < out[j].Name || out[i].Name == out[j].Name && out[i].GUID < out[j].GUID
	})
	return out, nil
}

func (p *Provider) listDefinitions(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	f, err := filters(q.Query.Get("$filter"))
	if err != nil {
		return nil, err
	}
	roles, err := p.sorted(ctx)
	if err != nil {
		return nil, err
	}
	ds := []rp.Doc{}
	for _, r := range roles {
		if n := f["rolename"]; n != "" && !strings.EqualFold(n, r.Name) {
			continue
		}
		d := p.roleDoc(r)
		if t := f["type"]; t != "" && !strings.EqualFold(t, d.Str("properties", "type")) {
			continue
		}
		ds = append(ds, d)
	}
	return rp.ListResponse(ds, ""), nil
}

func (p *Provider) getDefinition(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	roles, err := p.sorted(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range roles {
		if strings.EqualFold(r.GUID, q.ID.Name()) {
			return &rp.Response{Body: p.roleDoc(r)}, nil
		}
	}
	return nil, rp.Errorf(404, "RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist.", q.ID.Name())
}

func (p *Provider) putDefinition(ctx context.Context, q *rp.Request) (*rp.Response, error) {
	// A custom role belongs to the subscription, whatever its assignable scopes are.
	q.ID = rp.ID{Subscription: p.env.SubscriptionID, Namespace: q.Type.Namespace, Types: q.ID.Types, Names: q.ID.Names}
	res, err := p.env.Put(ctx, rp.PutRequest{Caller: q.Caller, ID: q.ID, APIVersion: q.APIVersion, Body: q.Body, Header: q.Header})
	if err != nil {
		return nil, err
	}
	p.Invalidate()
	return &rp.Response{Status: http.StatusCreated, Body: p.roleDoc(fromDoc(q.ID.Name(), res.Record.Doc))}, nil
}

func (p *Provider) prepareDefinition(ctx context.Context, c *rp.Change) error {
	name := c.Doc.Str("properties", "roleName")
	if name == "" {
		return rp.BadRequest("RoleDefinitionNameNullOrEmpty", "The role definition's roleName is missing.").At("properties.roleName")
	}
	for i := range builtIn {
		if strings.EqualFold(builtIn[i].GUID, c.ID.Name()) {
			return rp.Errorf(http.StatusForbidden, "RoleDefinitionUpdateNotPermitted", "The built-in role '%s' cannot be changed.", builtIn[i].Name)
		}
	}
	if len(c.Doc.Strings("properties", "assignableScopes")) == 0 {
		return rp.BadRequest("RoleDefinitionWithInvalidAssignableScopes", "The role definition '%s' has no assignableScopes; give at least one, such as /subscriptions/%s.", name, p.env.SubscriptionID).At("properties.assignableScopes")
	}
	_, roles, err := p.load(ctx)
	if err != nil {
		return err
	}
	if err := p.mayDefine(ctx, c.Caller, c.Doc.Strings("properties", "assignableScopes")); err != nil {
		return err
	}
	if c.Old != nil {
		if err := p.mayDefine(ctx, c.Caller, c.Old.Doc.Strings("properties", "assignableScopes")); err != nil {
			return err
		}
	}
	for g, r := range roles {
		if strings.EqualFold(r.Name, name) && !strings.EqualFold(g, c.ID.Name()) {
			return rp.Conflict("RoleDefinitionWithSameNameExists", "A custom role with the same name already exists in this directory: '%s'. Use a different name.", name)
		}
	}
	c.Doc.Set("CustomRole", "properties", "type")
	return nil
}

// mayDefine refuses the definition of a role with assignable scopes at which the caller
// may not define roles: whoever may change a role changes what it allows at all of them.
func (p *Provider) mayDefine(ctx context.Context, who rp.Principal, scopes []string) error {
	for _, s := range scopes {
		id, err := rp.ParseID(s)
		if err != nil || id.Subscription == "" || !strings.EqualFold(id.Subscription, p.env.SubscriptionID) {
			return rp.BadRequest("RoleDefinitionWithInvalidAssignableScopes", "The assignable scope '%s' is none of the subscription; give /subscriptions/%s, a resource group or a resource in it.", s, p.env.SubscriptionID).At("properties.assignableScopes")
		}
		if err := p.Authorize(ctx, who, "Microsoft.Authorization/roleDefinitions/write", id); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) deleteDefinition(ctx context.Context, c *rp.Change) error {
	if err := p.mayDefine(ctx, c.Caller, c.Old.Doc.Strings("properties", "assignableScopes")); err != nil {
		return err
	}
	as, _, err := p.load(ctx)
	if err != nil {
		return err
	}
	for _, a := range as {
		if a.role == strings.ToLower(c.ID.Name()) {
			return rp.BadRequest("RoleDefinitionHasAssignments", "There are existing role assignments referencing role (code: RoleDefinitionHasAssignments); remove the one at '%s' first.", a.scope)
		}
	}
	return nil
}

func prepareLock(_ context.Context, c *rp.Change) error {
	switch c.Doc.Str("properties", "level") {
	case "CanNotDelete", "ReadOnly":
		return nil
	}
	return rp.BadRequest("LockLevelInvalid", "The lock level '%s' is none of CanNotDelete, ReadOnly.", c.Doc.Str("properties", "level")).At("properties.level")
}

// guard refuses what a lock on the resource or on a scope above it forbids.
func (p *Provider) guard(ctx context.Context, id rp.ID, deleting bool) error {
	if strings.EqualFold(id.Type(), "Microsoft.Authorization/locks") {
		return nil
	}
	locks, err := p.env.Store.ViewPrefix(ctx, rp.ResourcePrefix+"microsoft.authorization/locks:")
	if err != nil {
		return err
	}
	for _, l := range locks {
		lid := l.ParsedID()
		at := scopeOf(lid)
		level := l.Doc.Str("properties", "level")
		if id.Within(at) && (deleting || level == "ReadOnly") || deleting && at.Within(id) {
			verb := "write"
			if deleting {
				verb = "delete"
			}
			return rp.Conflict("ScopeLocked", "The scope '%s' cannot perform %s operation because following scope(s) are locked: '%s'. Please remove the lock and try again.", id, verb, at)
		}
	}
	return nil
}

// Ensure assigns a role to a principal at a scope unless it is assigned already.
func (p *Provider) Ensure(ctx context.Context, scope rp.ID, objectID, role, why string) error {
	p.Invalidate()
	as, _, err := p.load(ctx)
	if err != nil {
		return err
	}
	for _, a := range as {
		if a.principal == strings.ToLower(objectID) && a.role == role && a.scope.Key() == scope.Key() {
			return nil
		}
	}
	if _, err := p.env.Store.KV.Txn(ctx).Then(rp.PutOp(p.AssignmentRecord(scope, objectID, role, why))).Commit(); err != nil {
		return fmt.Errorf("assigning role %s to principal %s: %w", role, objectID, err)
	}
	p.Invalidate()
	return nil
}
