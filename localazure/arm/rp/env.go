// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Location is a region.
type Location struct {
	Name        string // eastus
	DisplayName string // East US
	Geography   string
	Latitude    string
	Longitude   string
	// Zoned reports whether it has availability zones.
	Zoned bool
}

// Env is shared by all providers: the store, the operations, the subscription and
// its locations.
type Env struct {
	Store  *Store
	Engine *Engine
	Log    *slog.Logger
	Now    func() time.Time
	// BaseURL is the server's URL without a trailing slash, such as
	// https://localhost:8443.
	BaseURL        string
	TenantID       string
	SubscriptionID string
	// SubscriptionName is its display name.
	SubscriptionName string
	DefaultLocation  string
	Locations        []Location
	// Authorize returns an *Error (403) unless a principal has the permission for an
	// action, such as Microsoft.Compute/skus/read, at a scope.
	Authorize func(ctx context.Context, p Principal, action string, scope ID) error
	// Guard, if set, can refuse the write or deletion of a resource (locks).
	Guard func(ctx context.Context, id ID, deleting bool) error

	types      map[string]*Type
	namespaces map[string]*Namespace
}

// Namespace is a resource provider as clients see it.
type Namespace struct {
	Name  string
	Types []*Type
}

// System is the principal of Azure itself, with all permissions.
var System = Principal{ObjectID: "system", Type: "System"}

// Add registers resource types.
func (e *Env) Add(types ...*Type) {
	if e.types == nil {
		e.types, e.namespaces = map[string]*Type{}, map[string]*Namespace{}
	}
	for _, t := range types {
		ns, rest, _ := strings.Cut(t.Name, "/")
		t.Namespace, t.Path = ns, strings.Split(rest, "/")
		e.types[strings.ToLower(t.Name)] = t
		n := e.namespaces[strings.ToLower(ns)]
		if n == nil {
			n = &Namespace{Name: ns}
			e.namespaces[strings.ToLower(ns)] = n
		}
		n.Types = append(n.Types, t)
	}
}

// FindType returns a registered type, or nil.
func (e *Env) FindType(full string) *Type { return e.types[strings.ToLower(full)] }

// Namespaces returns the resource providers sorted by name.
func (e *Env) Namespaces() []*Namespace {
	out := make([]*Namespace, 0, len(e.namespaces))
	for _, n := range e.namespaces {
		out = append(out, n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// FindNamespace returns a resource provider, or nil.
func (e *Env) FindNamespace(name string) *Namespace { return e.namespaces[strings.ToLower(name)] }

// TypeOf returns the type of an ID, or ARM's answer if there is none.
func (e *Env) TypeOf(id ID) (*Type, error) {
	if id.Namespace == "" {
		if id.ResourceGroup != "" || id.IsCollection() {
			return e.FindType("Microsoft.Resources/resourceGroups"), nil
		}
		return e.FindType("Microsoft.Resources/subscriptions"), nil
	}
	if t := e.FindType(id.Type()); t != nil {
		return t, nil
	}
	n := e.FindNamespace(id.Namespace)
	if n == nil {
		return nil, &Error{Status: 404, Code: "InvalidResourceNamespace", Message: fmt.Sprintf("The resource namespace '%s' is invalid.", id.Namespace)}
	}
	return nil, &Error{Status: 404, Code: "InvalidResourceType", Message: fmt.Sprintf(
		"The resource type '%s' could not be found in the namespace '%s'. This local Azure has: %s.", strings.Join(id.Types, "/"), n.Name, typeNames(n))}
}

func typeNames(n *Namespace) string {
	var names []string
	for _, t := range n.Types {
		if !t.Hidden {
			names = append(names, strings.Join(t.Path, "/"))
		}
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// FindLocation returns a region by its name or display name, or nil.
func (e *Env) FindLocation(name string) *Location {
	for i := range e.Locations {
		if e.Locations[i].Name == NormalizeLocation(name) {
			return &e.Locations[i]
		}
	}
	return nil
}

// canonical returns the ID with the casing of the registered type and of the
// existing group and parent, which must exist unless in preflight.
func (e *Env) canonical(ctx context.Context, t *Type, id ID, preflight bool) (ID, error) {
	if !strings.EqualFold(id.Subscription, e.SubscriptionID) && (id.Scope == nil || id.Subscription != "") {
		return id, SubscriptionNotFound(id.Subscription)
	}
	id.Subscription = e.SubscriptionID
	if id.Namespace == "" {
		return id, nil
	}
	id.Namespace = t.Namespace
	if len(id.Types) == len(t.Path) {
		id.Types = append([]string(nil), t.Path...)
	}
	if id.ResourceGroup != "" && id.Scope == nil {
		g, err := e.Store.View(ctx, id.Group())
		if err != nil {
			return id, err
		}
		switch {
		case g != nil:
			id.ResourceGroup = g.ParsedID().ResourceGroup
		case !preflight:
			return id, NotFound(id.Group())
		}
	}
	if n := len(id.Names); n > 1 && len(id.Types) > 1 {
		p, err := e.Store.View(ctx, id.Parent())
		if err != nil {
			return id, err
		}
		if p != nil {
			id.Names = append(append([]string(nil), p.ParsedID().Names...), id.Names[n-1])
		} else if parentType := e.FindType(id.Parent().Type()); parentType != nil && !preflight {
			return id, &Error{Status: 404, Code: "ParentResourceNotFound", Message: fmt.Sprintf(
				"Failed to perform 'write' on resource(s) of type '%s', because the parent resource '%s' could not be found.", strings.Join(t.Path, "/"), id.Parent())}
		}
	}
	return id, nil
}

// PutRequest is a create or update.
type PutRequest struct {
	Caller     Principal
	ID         ID
	APIVersion string
	Body       Doc
	Header     http.Header
	Patch      bool
	// Internal is what a provider hands to its own hooks, in Change.Internal; no
	// client can set it.
	Internal Doc
	// Preflight validates only.
	Preflight bool
}

// PutResult is the result of a PutRequest.
type PutResult struct {
	Type    *Type
	Record  *Record
	Created bool
	// Op is the operation that completes the change; nil if it is complete.
	Op     *Operation
	Status int
}

// readOnly are the top-level properties that clients may send but not set.
var readOnly = []string{"id", "name", "type", "systemData", "etag", "eTag"}

// attempts is how often a change is retried on conflicts.
const attempts = 20

// Put creates or updates a resource. It returns when the change is in etcd; a
// long-running one continues as an operation.
func (e *Env) Put(ctx context.Context, q PutRequest) (*PutResult, error) {
	t, err := e.TypeOf(q.ID)
	if err != nil {
		return nil, err
	}
	id, err := e.canonical(ctx, t, q.ID, q.Preflight)
	if err != nil {
		return nil, err
	}
	if err := checkScope(t, id); err != nil {
		return nil, err
	}
	if t.NameRule != nil && !t.NameRule.MatchString(id.Name()) {
		return nil, BadRequest("InvalidResourceName", "Resource name '%s' is invalid. %s", id.Name(), t.NameHelp).At("name")
	}
	for i := 0; i < attempts; i++ {
		res, retry, err := e.tryPut(ctx, t, id, q)
		if err != nil || !retry {
			return res, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(i) * 5 * time.Millisecond):
		}
	}
	return nil, Conflict("ConflictingConcurrentWriteNotAllowed", "The resource '%s' was being changed by others all the time; try again.", id)
}

func checkScope(t *Type, id ID) error {
	bad := false
	switch t.Scope {
	case InGroup:
		bad = id.ResourceGroup == "" || id.Scope != nil
	case InSubscription:
		bad = id.ResourceGroup != "" || id.Scope != nil
	case Anywhere:
		bad = id.Scope != nil
	}
	if bad {
		return BadRequest("InvalidResourceScope", "A resource of type '%s' cannot be at '%s'.", t.Name, id)
	}
	return nil
}

func checkConditions(h http.Header, old *Record) error {
	if m := h.Get("If-None-Match"); m == "*" && old != nil {
		return &Error{Status: 412, Code: "PreconditionFailed", Message: "If-None-Match is * and the resource exists already."}
	}
	if m := h.Get("If-Match"); m != "" && !(m == "*" && old != nil) {
		if old == nil || strings.Trim(strings.TrimPrefix(m, "W/"), `"`) != old.ETag {
			cur := "none"
			if old != nil {
				cur = old.ETag
			}
			return &Error{Status: 412, Code: "PreconditionFailed", Message: fmt.Sprintf("The If-Match condition %s does not hold: the resource's etag is %s. Read it again and repeat the change.", m, cur)}
		}
	}
	return nil
}

func (e *Env) tryPut(ctx context.Context, t *Type, id ID, q PutRequest) (*PutResult, bool, error) {
	old, err := e.Store.Get(ctx, id)
	if err != nil {
		return nil, false, err
	}
	if old != nil {
		id = old.ParsedID()
	} else if q.Patch {
		return nil, false, NotFound(id)
	}
	if err := checkConditions(q.Header, old); err != nil {
		return nil, false, err
	}
	if e.Guard != nil && !q.Preflight {
		if err := e.Guard(ctx, id, false); err != nil {
			return nil, false, err
		}
	}
	sent := q.Body.Clone()
	for _, k := range readOnly {
		sent.Drop(k)
	}
	sent.Drop("properties", "provisioningState")
	c := &Change{Env: e, Caller: q.Caller, ID: id, Type: t, APIVersion: q.APIVersion, Header: q.Header, Old: old, Sent: sent, Patch: q.Patch, Preflight: q.Preflight, Internal: q.Internal}
	if c.Header == nil {
		c.Header = http.Header{}
	}
	var stored Doc
	if old != nil {
		stored = old.Doc
	}
	if q.Patch {
		if t.PatchTagsOnly {
			for k := range sent {
				if !strings.EqualFold(k, "tags") {
					return nil, false, BadRequest("InvalidRequestContent", "PATCH on '%s' changes tags only; '%s' cannot be changed with it. Use PUT.", t.Name, k).At(k)
				}
			}
		}
		c.Doc = MergePatch(stored, sent)
	} else {
		c.Doc = MergePut(stored, sent)
	}
	if err := e.checkCommon(ctx, c); err != nil {
		return nil, false, err
	}
	if t.Prepare != nil {
		if err := t.Prepare(ctx, c); err != nil {
			return nil, false, err
		}
	}
	if q.Preflight {
		return &PutResult{Type: t, Created: old == nil, Record: &Record{ID: id.String(), Doc: c.Doc}}, false, nil
	}
	now := e.Now().UTC()
	if old != nil {
		c.Rec = old.Clone()
	} else {
		c.Rec = &Record{ID: id.String(), UID: NewGUID(), CreatedAt: now, CreatedBy: q.Caller.ObjectID, Internal: Doc{}}
	}
	c.Rec.Doc, c.Rec.ChangedBy, c.Rec.State = c.Doc, q.Caller.ObjectID, Succeeded
	c.Rec.Touch(now)
	if t.Commit != nil {
		if err := t.Commit(ctx, c); err != nil {
			return nil, false, err
		}
	}
	ok, err := e.commit(ctx, c, Unchanged(c.Rec), PutOp(c.Rec))
	if err != nil || !ok {
		return nil, err == nil, err
	}
	res := &PutResult{Type: t, Record: c.Rec, Created: old == nil, Op: c.Op, Status: c.Status}
	if res.Status == 0 {
		res.Status = http.StatusOK
		if res.Created {
			res.Status = http.StatusCreated
		}
	}
	return res, false, nil
}

// commit writes a change; false means a conflict.
func (e *Env) commit(ctx context.Context, c *Change, unchanged clientv3.Cmp, write clientv3.Op) (bool, error) {
	cmps := append([]clientv3.Cmp{unchanged}, c.Cmps...)
	ops := append([]clientv3.Op{write}, c.Ops...)
	if c.ID.Namespace != "" && c.ID.Scope == nil {
		if c.ID.ResourceGroup != "" {
			cmps = append(cmps, Exists(c.ID.Group()))
		}
		if len(c.ID.Types) > 1 && e.FindType(c.ID.Parent().Type()) != nil {
			cmps = append(cmps, Exists(c.ID.Parent()))
		}
	}
	if c.Op != nil {
		e.fillOperation(c)
		if c.Lock != "" {
			c.Op.Lock = c.Lock
			ops = append(ops, clientv3.OpPut(c.Lock, c.Op.ID))
		}
		ops = append(ops, JSONOp(opKey(c.Op.ID), c.Op))
	}
	if c.Lock != "" {
		cmps = append(cmps, Absent(c.Lock))
	}
	resp, err := e.Store.KV.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return false, fmt.Errorf("writing %s: %w", c.ID, err)
	}
	if !resp.Succeeded {
		if c.Lock != "" {
			if other, err := e.LockHolder(ctx, c.Lock); err != nil {
				return false, err
			} else if other != nil {
				if c.Busy != nil {
					return false, c.Busy(other)
				}
				return false, Conflict("AnotherOperationInProgress", "Another operation (%s, %s) on this or a dependent resource is in progress. Wait for it to finish.", other.Verb, other.ID)
			}
		}
		return false, nil
	}
	if c.Op != nil {
		e.Engine.Start(c.Op.ID)
	}
	return true, nil
}

func (e *Env) fillOperation(c *Change) {
	op := c.Op
	if op.ID == "" {
		op.ID = NewGUID()
	}
	op.Status, op.Start, op.Caller = InProgress, e.Now().UTC(), c.Caller
	if op.Resource == "" {
		op.Resource = c.ID.String()
	}
	if op.Location == "" {
		op.Location = NormalizeLocation(c.Doc.Str("location"))
		if op.Location == "" || c.Type != nil && c.Type.Global {
			op.Location = e.DefaultLocation
		}
	}
}

// LockHolder returns the operation that holds a lock, or nil.
func (e *Env) LockHolder(ctx context.Context, lock string) (*Operation, error) {
	resp, err := e.Store.KV.Get(ctx, lock)
	if err != nil {
		return nil, fmt.Errorf("reading the lock %s: %w", lock, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return e.Engine.Get(ctx, string(resp.Kvs[0].Value))
}

// StartOperation starts the operation of a POST action, together with the writes
// in c. c.Rec may be nil.
func (e *Env) StartOperation(ctx context.Context, c *Change) error {
	unchanged := Exists(c.ID)
	write := clientv3.OpGet(RecordKey(c.ID))
	if c.Rec != nil {
		unchanged, write = Unchanged(c.Rec), PutOp(c.Rec)
	}
	if c.Doc == nil && c.Rec != nil {
		c.Doc = c.Rec.Doc
	}
	ok, err := e.commit(ctx, c, unchanged, write)
	if err != nil {
		return err
	}
	if !ok {
		return Conflict("ConflictingConcurrentWriteNotAllowed", "The resource '%s' changed meanwhile; try again.", c.ID)
	}
	return nil
}

func (e *Env) checkCommon(ctx context.Context, c *Change) error {
	if !c.Type.Tracked && c.Type.Name != "Microsoft.Resources/resourceGroups" {
		return nil
	}
	loc := c.Doc.Str("location")
	if loc == "" {
		return BadRequest("LocationRequired", "The location property is required for this definition.").At("location")
	}
	l := e.FindLocation(loc)
	if c.Type.Global {
		if l = nil; NormalizeLocation(loc) == "global" {
			l = &Location{Name: "global"}
		}
	}
	if l == nil {
		if c.Type.Global {
			return BadRequest("LocationNotAvailableForResourceType", "The provided location '%s' is not available for resource type '%s'. List of available regions for the resource type is 'global'.", loc, c.Type.Name).At("location")
		}
		var names []string
		for _, x := range e.Locations {
			names = append(names, x.Name)
		}
		return BadRequest("LocationNotAvailableForResourceType", "The provided location '%s' is not available for resource type '%s'. List of available regions for the resource type is '%s'.", loc, c.Type.Name, strings.Join(names, ",")).At("location")
	}
	if c.Old != nil {
		if was := c.Old.Doc.Str("location"); NormalizeLocation(was) != l.Name {
			return Conflict("InvalidResourceLocation", "The resource '%s' already exists in location '%s'. A resource with the same name cannot be created in location '%s'. Please select a new resource name.", c.ID.Name(), was, l.Name)
		}
		if c.Old.State == "Deleting" {
			return Conflict("ResourceBeingDeleted", "The resource '%s' is being deleted; wait until that is done.", c.ID)
		}
	}
	c.Doc.Set(l.Name, "location")
	if v, ok := c.Doc.Lookup("tags"); ok {
		tags, isMap := asMap(v)
		if !isMap {
			return BadRequest("InvalidRequestContent", "The tags of a resource are an object of names and strings.").At("tags")
		}
		if len(tags) > 50 {
			return BadRequest("TagsLimitExceeded", "A resource has at most 50 tags; this one would have %d.", len(tags)).At("tags")
		}
		for k, v := range tags {
			if _, ok := v.(string); !ok {
				return BadRequest("InvalidTagValueType", "The value of tag '%s' is not a string.", k).At("tags")
			}
		}
	}
	if c.ID.ResourceGroup != "" && c.ID.Namespace != "" && !c.Preflight {
		g, err := e.Store.View(ctx, c.ID.Group())
		if err != nil {
			return err
		}
		if g != nil && g.State == "Deleting" {
			return Conflict("ResourceGroupBeingDeleted", "The resource group '%s' is in deprovisioning state and cannot perform this operation.", c.ID.ResourceGroup)
		}
	}
	return nil
}

// DeleteResult is the result of a delete.
type DeleteResult struct {
	Type *Type
	// Absent means that the resource did not exist.
	Absent bool
	Record *Record
	Op     *Operation
}

// Delete removes a resource.
func (e *Env) Delete(ctx context.Context, caller Principal, id ID, apiVersion string, h http.Header, query url.Values) (*DeleteResult, error) {
	t, err := e.TypeOf(id)
	if err != nil {
		return nil, err
	}
	for i := 0; i < attempts; i++ {
		old, err := e.Store.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if old == nil {
			return &DeleteResult{Type: t, Absent: true}, nil
		}
		if err := checkConditions(h, old); err != nil {
			return nil, err
		}
		if e.Guard != nil {
			if err := e.Guard(ctx, old.ParsedID(), true); err != nil {
				return nil, err
			}
		}
		if h == nil {
			h = http.Header{}
		}
		c := &Change{Env: e, Caller: caller, ID: old.ParsedID(), Type: t, APIVersion: apiVersion, Header: h, Query: query, Old: old, Doc: old.Doc, Rec: old.Clone()}
		write := DeleteOp(c.ID)
		if t.Delete != nil {
			if err := t.Delete(ctx, c); err != nil {
				return nil, err
			}
			if c.Op != nil {
				c.Rec.State = "Deleting"
				write = PutOp(c.Rec)
			}
		}
		if c.Op == nil {
			children, err := e.Children(ctx, c.ID)
			if err != nil {
				return nil, err
			}
			for _, ch := range children {
				c.Ops = append(c.Ops, DeleteOp(ch.ParsedID()))
			}
		}
		resp, err := e.commitDelete(ctx, c, write)
		if err != nil {
			return nil, err
		}
		if resp {
			return &DeleteResult{Type: t, Record: old, Op: c.Op}, nil
		}
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
	}
	return nil, Conflict("ConflictingConcurrentWriteNotAllowed", "The resource '%s' was being changed by others all the time; try again.", id)
}

func (e *Env) commitDelete(ctx context.Context, c *Change, write clientv3.Op) (bool, error) {
	id := c.ID
	c.Cmps = append(c.Cmps, Unchanged(c.Old))
	// A resource can be deleted even if its group or parent is gone.
	saved := c.ID
	c.ID = ID{}
	if c.Op != nil && c.Op.Resource == "" {
		c.Op.Resource = id.String()
	}
	ok, err := e.commit(ctx, c, Exists(id), write)
	c.ID = saved
	return ok, err
}

// Children returns the records of all types below a resource.
func (e *Env) Children(ctx context.Context, id ID) ([]*Record, error) {
	var out []*Record
	for _, t := range e.types {
		if id.Namespace == "" || !strings.EqualFold(t.Namespace, id.Namespace) || len(t.Path) <= len(id.Types) ||
			!strings.HasPrefix(strings.ToLower(t.Name), strings.ToLower(id.Type())+"/") || t.Virtual {
			continue
		}
		rs, err := e.Store.ListPrefix(ctx, ResourcePrefix+strings.ToLower(t.Name)+":/"+strings.ToLower(id.Subscription)+"/"+strings.ToLower(id.ResourceGroup)+"/"+strings.ToLower(strings.Join(id.Names, "/"))+"/")
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	return out, nil
}

// InGroup returns the records of all types in a resource group; without all, the
// top-level ones only.
func (e *Env) InGroup(ctx context.Context, g ID, all bool) ([]*Record, error) {
	var out []*Record
	for _, t := range e.types {
		if t.Virtual || t.Scope != InGroup && t.Scope != Anywhere || (len(t.Path) > 1 && !all) {
			continue
		}
		rs, err := e.Store.ListPrefix(ctx, ResourcePrefix+strings.ToLower(t.Name)+":/"+strings.ToLower(g.Subscription)+"/"+strings.ToLower(g.ResourceGroup)+"/")
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out, nil
}

// Render returns the response body of a record.
func (e *Env) Render(ctx context.Context, t *Type, r *Record, apiVersion string) (Doc, error) {
	d := e.base(t, r)
	if t.RenderList != nil {
		if err := t.RenderList(ctx, []*Record{r}, []Doc{d}, apiVersion); err != nil {
			return nil, err
		}
	} else if t.Render != nil {
		if err := t.Render(ctx, r, d, apiVersion); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// RenderAll returns the response bodies of records of one type.
func (e *Env) RenderAll(ctx context.Context, t *Type, rs []*Record, apiVersion string) ([]Doc, error) {
	ds := make([]Doc, len(rs))
	for i, r := range rs {
		ds[i] = e.base(t, r)
		if t.RenderList == nil && t.Render != nil {
			if err := t.Render(ctx, r, ds[i], apiVersion); err != nil {
				return nil, err
			}
		}
	}
	if t.RenderList != nil {
		if err := t.RenderList(ctx, rs, ds, apiVersion); err != nil {
			return nil, err
		}
	}
	return ds, nil
}

func (e *Env) base(t *Type, r *Record) Doc {
	d := r.Doc.Clone()
	id := r.ParsedID()
	d["id"], d["name"], d["type"] = r.ID, id.Name(), t.Name
	if !t.NoState {
		d.Set(r.State, "properties", "provisioningState")
	}
	if len(t.ETagPath) > 0 {
		d.Set(r.ETag, t.ETagPath...)
	}
	return d
}

// SystemData returns the systemData of a record.
func SystemData(r *Record) Doc {
	return Doc{
		"createdAt": r.CreatedAt.Format(time.RFC3339Nano), "createdBy": r.CreatedBy, "createdByType": "Application",
		"lastModifiedAt": r.ChangedAt.Format(time.RFC3339Nano), "lastModifiedBy": r.ChangedBy, "lastModifiedByType": "Application",
	}
}

// Modify reads a record, calls f to change it, and writes it unless f returns
// false. It retries on conflicts. It returns nil if the record does not exist.
func (e *Env) Modify(ctx context.Context, id ID, f func(*Record) (bool, error)) (*Record, error) {
	for {
		r, err := e.Store.Get(ctx, id)
		if err != nil || r == nil {
			return nil, err
		}
		write, err := f(r)
		if err != nil || !write {
			return r, err
		}
		resp, err := e.Store.KV.Txn(ctx).If(Unchanged(r)).Then(PutOp(r)).Commit()
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", id, err)
		}
		if resp.Succeeded {
			return r, nil
		}
	}
}

// DecodeBody decodes a JSON object; an empty body is an empty object.
func DecodeBody(b []byte) (Doc, error) {
	if len(strings.TrimSpace(string(b))) == 0 {
		return Doc{}, nil
	}
	var d Doc
	if err := json.Unmarshal(b, &d); err != nil {
		var syn *json.SyntaxError
		if errors.As(err, &syn) {
			return nil, BadRequest("InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v' at byte %d.", err, syn.Offset)
		}
		return nil, BadRequest("InvalidRequestContent", "The request content was invalid and could not be deserialized: '%v'.", err)
	}
	return d, nil
}
