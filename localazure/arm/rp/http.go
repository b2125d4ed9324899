// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// MaxBody is the maximum size of a request's body, in bytes.
const MaxBody = 4 << 20

// isAPIVersion reports whether s is a date such as 2025-05-01, optionally with a
// suffix of letters such as -preview.
func isAPIVersion(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case i == 4 || i == 7 || i == 10:
			if c != '-' {
				return false
			}
		case i < 10:
			if c < '0' || c > '9' {
				return false
			}
		case c|0x20 < 'a' || c|0x20 > 'z':
			return false
		}
	}
	return len(s) == 10 || len(s) > 11
}

// ServeARM serves a request below /subscriptions or /providers by an authenticated
// caller.
func (e *Env) ServeARM(w http.ResponseWriter, r *http.Request, caller Principal) {
	q, err := e.parse(r)
	if err == nil {
		q.Caller = caller
		var resp *Response
		resp, err = e.Dispatch(r.Context(), q)
		if err == nil {
			e.write(w, r, q, resp)
			return
		}
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(AsError(err).Status)
		return
	}
	if q != nil && q.Type != nil && q.Type.Flat {
		var aerr *Error
		if errors.As(err, &aerr) && aerr.Header.Get("X-Ms-Failure-Cause") == "" && aerr.Status != 403 {
			flat := *aerr
			flat.Flat = true
			err = &flat
		}
	}
	if s := AsError(err).Status; s >= 500 && s != http.StatusNotImplemented {
		e.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	WriteError(w, err)
}

// lenientPath reports whether a request's body may have the syntax of template
// files, with comments and unquoted keys.
func lenientPath(id ID) bool {
	return strings.EqualFold(id.Namespace, "Microsoft.Resources") && len(id.Types) > 0 && strings.EqualFold(id.Types[0], "deployments")
}

func (e *Env) parse(r *http.Request) (*Request, error) {
	path := r.URL.Path
	segs := strings.Split(strings.Trim(path, "/"), "/")
	// Two irregular forms: deployments directly below a group, and Microsoft.Features.
	if len(segs) > 4 && strings.EqualFold(segs[2], "resourcegroups") && strings.EqualFold(segs[4], "deployments") {
		rest := append([]string{}, segs[:4]...)
		segs = append(append(rest, "providers", "Microsoft.Resources"), segs[4:]...)
	}
	if len(segs) > 6 && strings.EqualFold(segs[3], "Microsoft.Features") && strings.EqualFold(segs[4], "providers") {
		segs = append(append([]string{}, segs[:4]...), append([]string{"featureProviders"}, segs[5:]...)...)
	}
	q := &Request{Env: e, Method: r.Method, Query: r.URL.Query(), Header: r.Header}
	for k, v := range q.Query {
		if strings.EqualFold(k, "api-version") && len(v) > 0 {
			q.APIVersion = v[0]
		}
	}
	if q.APIVersion == "" {
		return q, BadRequest("MissingApiVersionParameter", "The api-version query parameter (?api-version=) is required for all requests.")
	}
	if !isAPIVersion(q.APIVersion) {
		return q, BadRequest("InvalidApiVersionParameter", "The api-version '%s' is invalid. It is a date such as 2025-05-01, with -preview where the version is one.", q.APIVersion)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return q, BadRequest("InvalidRequestContent", "The request's body could not be read: %v.", err)
	}
	if len(body) > MaxBody {
		return q, BadRequest("RequestContentTooLarge", "The request content exceeds the maximum size of %d bytes.", MaxBody)
	}
	q.Raw = body

	// A POST's last segment is an action.
	if r.Method == http.MethodPost && len(segs) > 1 {
		q.Action = strings.ToLower(segs[len(segs)-1])
		segs = segs[:len(segs)-1]
	}
	id, err := e.parseSegments(segs)
	if err != nil {
		return q, &Error{Status: 404, Code: "InvalidResourceId", Message: err.Error()}
	}
	q.ID = id
	if q.Type, err = e.TypeOf(id); err != nil {
		return q, err
	}
	if lenientPath(id) {
		return q, nil // the deployments' handlers read Raw
	}
	if r.Method == http.MethodPut || r.Method == http.MethodPatch || r.Method == http.MethodPost {
		if q.Body, err = DecodeBody(body); err != nil {
			return q, err
		}
	}
	return q, nil
}

// parseSegments parses a path. Collections of groups and subscriptions, which have
// no namespace, become types of Microsoft.Resources.
func (e *Env) parseSegments(segs []string) (ID, error) {
	n := len(segs)
	sub := ID{}
	if strings.EqualFold(segs[0], "subscriptions") {
		switch {
		case n == 1:
			return ID{Namespace: "Microsoft.Resources", Types: []string{"subscriptions"}}, nil
		case n == 3:
			sub.Subscription = segs[1]
			switch strings.ToLower(segs[2]) {
			case "resourcegroups", "locations", "resources", "providers", "tagnames":
				return ID{Subscription: segs[1], Namespace: "Microsoft.Resources", Types: []string{strings.ToLower(segs[2])}}, nil
			}
		case n == 4 && strings.EqualFold(segs[2], "providers"):
			return ID{Subscription: segs[1], Namespace: "Microsoft.Resources", Types: []string{"providers"}, Names: []string{segs[3]}}, nil
		case n == 4 && strings.EqualFold(segs[2], "operationresults"):
			return ID{Subscription: segs[1], Namespace: "Microsoft.Resources", Types: []string{"operationresults"}, Names: []string{segs[3]}}, nil
		case n == 5 && strings.EqualFold(segs[2], "resourcegroups") && strings.EqualFold(segs[4], "resources"):
			return ID{Subscription: segs[1], ResourceGroup: segs[3], Namespace: "Microsoft.Resources", Types: []string{"resources"}}, nil
		}
	} else if strings.EqualFold(segs[0], "providers") && n == 1 {
		return ID{Namespace: "Microsoft.Resources", Types: []string{"providers"}}, nil
	} else if n == 1 && strings.EqualFold(segs[0], "tenants") {
		return ID{Namespace: "Microsoft.Resources", Types: []string{"tenants"}}, nil
	}
	return ParseID("/" + strings.Join(segs, "/"))
}

// permission returns the RBAC action of a request, such as
// Microsoft.ContainerService/managedClusters/read.
func (q *Request) permission() string {
	t := q.Type.Name
	switch q.Type.Name {
	case "Microsoft.Resources/resourceGroups":
		t = "Microsoft.Resources/subscriptions/resourceGroups"
	case "Microsoft.Resources/locations", "Microsoft.Resources/providers", "Microsoft.Resources/resources":
		t = "Microsoft.Resources/subscriptions/" + q.Type.Path[0]
	}
	switch q.Method {
	case http.MethodPut, http.MethodPatch:
		return t + "/write"
	case http.MethodDelete:
		return t + "/delete"
	case http.MethodPost:
		if a, ok := q.action(); ok && a.Permission != "" {
			return a.Permission
		}
		return t + "/" + q.Action + "/action"
	}
	return t + "/read"
}

func (q *Request) action() (Action, bool) {
	name := q.Action
	if q.ID.IsCollection() {
		name = "/" + name
	}
	a, ok := q.Type.Actions[name]
	return a, ok
}

// Dispatch authorizes and serves a request.
func (e *Env) Dispatch(ctx context.Context, q *Request) (*Response, error) {
	if q.ID.Subscription != "" && !strings.EqualFold(q.ID.Subscription, e.SubscriptionID) {
		return nil, SubscriptionNotFound(q.ID.Subscription)
	}
	if err := e.permit(ctx, q); err != nil {
		return nil, err
	}
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		return e.get(ctx, q)
	case http.MethodPut, http.MethodPatch:
		if q.Type.Put != nil {
			return q.Type.Put(ctx, q)
		}
		if q.ID.IsCollection() || q.Type.Virtual {
			return nil, notAllowed(q)
		}
		res, err := e.Put(ctx, PutRequest{Caller: q.Caller, ID: q.ID, APIVersion: q.APIVersion, Body: q.Body, Header: q.Header, Patch: q.Method == http.MethodPatch})
		if err != nil {
			return nil, err
		}
		d, err := e.Render(ctx, res.Type, res.Record, q.APIVersion)
		if err != nil {
			return nil, err
		}
		return &Response{Status: res.Status, Body: d, Op: res.Op, Header: http.Header{"Etag": {`"` + res.Record.ETag + `"`}}}, nil
	case http.MethodDelete:
		if q.ID.IsCollection() || q.Type.Virtual {
			return nil, notAllowed(q)
		}
		if q.ID.Namespace != "" && q.ID.ResourceGroup != "" && q.ID.Scope == nil {
			if _, err := e.mustGroup(ctx, q.ID); err != nil {
				return nil, err
			}
		}
		res, err := e.Delete(ctx, q.Caller, q.ID, q.APIVersion, q.Header, q.Query)
		if err != nil {
			return nil, err
		}
		switch {
		case res.Absent && q.ID.Namespace == "":
			return nil, NotFound(q.ID)
		case res.Absent:
			return &Response{Status: http.StatusNoContent}, nil
		case res.Op != nil:
			return &Response{Status: http.StatusAccepted, Op: res.Op, WithLocation: true, OnlyLocation: q.ID.Namespace == ""}, nil
		case res.Type.Name == "Microsoft.Authorization/roleAssignments" || res.Type.Name == "Microsoft.Authorization/roleDefinitions":
			d, err := e.Render(ctx, res.Type, res.Record, q.APIVersion)
			return &Response{Body: d}, err
		}
		return &Response{Status: http.StatusOK}, nil
	case http.MethodPost:
		a, ok := q.action()
		if !ok {
			return nil, &Error{Status: 404, Code: "InvalidResourceAction", Message: fmt.Sprintf("Resources of type '%s' have no action '%s'.", q.Type.Name, q.Action)}
		}
		return a.Do(ctx, q)
	}
	return nil, notAllowed(q)
}

// permit refuses a request that the caller has no permission for. A path without a
// subscription is one of the tenant, where nobody has rights of their own here: what it
// reaches belongs to the subscription.
func (e *Env) permit(ctx context.Context, q *Request) error {
	if e.Authorize == nil || q.Type.OwnRights && (q.Method == http.MethodGet || q.Method == http.MethodHead) {
		return nil
	}
	scope := q.ID
	if scope.Subscription == "" {
		scope = ID{Subscription: e.SubscriptionID}
	}
	return e.Authorize(ctx, q.Caller, q.permission(), scope)
}

// MayRead reports whether a principal may read a resource, a group or the subscription.
func (e *Env) MayRead(ctx context.Context, who Principal, id ID) bool {
	if e.Authorize == nil {
		return true
	}
	t := id.Type()
	if t == "Microsoft.Resources/resourceGroups" {
		t = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	return e.Authorize(ctx, who, t+"/read", id) == nil
}

// Readable returns the records that a principal may read.
func (e *Env) Readable(ctx context.Context, who Principal, rs []*Record) []*Record {
	var out []*Record
	for _, r := range rs {
		if e.MayRead(ctx, who, r.ParsedID()) {
			out = append(out, r)
		}
	}
	return out
}

func notAllowed(q *Request) error {
	return Errorf(http.StatusMethodNotAllowed, "HttpMethodNotAllowed", "%s is not allowed on '%s'.", q.Method, q.ID)
}

func (e *Env) mustGroup(ctx context.Context, id ID) (*Record, error) {
	g, err := e.Store.View(ctx, id.Group())
	if err == nil && g == nil {
		err = NotFound(id.Group())
	}
	return g, err
}

func (e *Env) get(ctx context.Context, q *Request) (*Response, error) {
	if q.ID.IsCollection() {
		if q.Type.List != nil {
			return q.Type.List(ctx, q)
		}
		if q.Type.Virtual {
			return nil, notAllowed(q)
		}
		return e.list(ctx, q)
	}
	if q.Type.Get != nil {
		return q.Type.Get(ctx, q)
	}
	r, err := e.Store.View(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if r == nil {
		if q.ID.Namespace != "" && q.ID.ResourceGroup != "" && q.ID.Scope == nil {
			if _, err := e.mustGroup(ctx, q.ID); err != nil {
				return nil, err
			}
			if len(q.ID.Types) > 1 {
				if p, err := e.Store.Get(ctx, q.ID.Parent()); err != nil {
					return nil, err
				} else if p == nil && e.FindType(q.ID.Parent().Type()) != nil {
					return nil, &Error{Status: 404, Code: "ParentResourceNotFound", Message: fmt.Sprintf(
						"Failed to perform 'read' on resource(s) of type '%s', because the parent resource '%s' could not be found.", strings.Join(q.Type.Path, "/"), q.ID.Parent())}
				}
			}
		}
		return nil, NotFound(q.ID)
	}
	if q.Method == http.MethodHead {
		return &Response{Status: http.StatusNoContent}, nil
	}
	b, err := e.body(ctx, q.Type, r, q.APIVersion)
	if err != nil {
		return nil, err
	}
	return &Response{JSON: b, Header: http.Header{"Etag": {`"` + r.ETag + `"`}}}, nil
}

func (e *Env) list(ctx context.Context, q *Request) (*Response, error) {
	if q.ID.ResourceGroup != "" && q.ID.Scope == nil && q.ID.Namespace != "" && q.Type.Name != "Microsoft.Resources/resourceGroups" {
		if _, err := e.mustGroup(ctx, q.ID); err != nil {
			return nil, err
		}
		if len(q.ID.Types) > 1 && e.FindType(q.ID.Parent().Type()) != nil {
			p, err := e.Store.Get(ctx, q.ID.Parent())
			if err != nil {
				return nil, err
			}
			if p == nil {
				return nil, NotFound(q.ID.Parent())
			}
		}
	}
	rs, err := e.Store.ViewList(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	if q.ID.Subscription == "" {
		rs = e.Readable(ctx, q.Caller, rs)
	}
	if f := q.Query.Get("$filter"); f != "" && q.Type.Filter != nil {
		if rs, err = q.Type.Filter(q, rs); err != nil {
			return nil, err
		}
	}
	page, next, err := Page(q, rs)
	if err != nil {
		return nil, err
	}
	if q.Type.cacheable() {
		b, err := e.listBody(ctx, q.Type, page, q.APIVersion, next)
		return &Response{JSON: b}, err
	}
	ds, err := e.RenderAll(ctx, q.Type, page, q.APIVersion)
	if err != nil {
		return nil, err
	}
	return ListResponse(ds, next), nil
}

// ListResponse returns a page of a list.
func ListResponse[T any](items []T, next string) *Response {
	if items == nil {
		items = []T{}
	}
	body := map[string]any{"value": items}
	if next != "" {
		body["nextLink"] = next
	}
	return &Response{Body: body}
}

// maxPage is the maximum number of items of a page.
const maxPage = 1000

// Page returns the page of a list selected by $top and $skiptoken, and the link to
// the next.
func Page[T any](q *Request, all []T) ([]T, string, error) {
	size := maxPage
	if top := q.Query.Get("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return nil, "", BadRequest("InvalidTopParameter", "$top is '%s', not a number of 1 or more.", top)
		}
		size = min(size, n)
	}
	from := 0
	if tok := q.Query.Get("$skiptoken"); tok != "" {
		b, err := base64.RawURLEncoding.DecodeString(tok)
		n, err2 := strconv.Atoi(string(b))
		if err != nil || err2 != nil || n < 0 {
			return nil, "", BadRequest("InvalidSkipToken", "The $skiptoken is not one of this server's; start the list again without it.")
		}
		from = min(n, len(all))
	}
	to := min(from+size, len(all))
	if to == len(all) {
		return all[from:], "", nil
	}
	v := url.Values{}
	for k, x := range q.Query {
		v[k] = x
	}
	v.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(to))))
	return all[from:to], q.Env.BaseURL + q.ID.String() + "?" + v.Encode(), nil
}

// OperationURL returns the URL of an operation's status.
func (e *Env) OperationURL(op *Operation, apiVersion string) string {
	id := MustParseID(op.Resource)
	t, err := e.TypeOf(id)
	if err == nil && t.AsyncURL != nil {
		return e.BaseURL + t.AsyncURL(op) + "?api-version=" + apiVersion
	}
	return e.BaseURL + e.operationPath(op, "operations") + "?api-version=" + apiVersion + "&t=" + strconv.FormatInt(op.Start.UnixNano(), 36)
}

func (e *Env) operationPath(op *Operation, kind string) string {
	ns := MustParseID(op.Resource).Namespace
	if ns == "" {
		return "/subscriptions/" + e.SubscriptionID + "/operationresults/" + op.ID
	}
	return "/subscriptions/" + e.SubscriptionID + "/providers/" + ns + "/locations/" + op.Location + "/" + kind + "/" + op.ID
}

func pollHeaders(h http.Header, userAgent string, ms int) {
	if ms == 0 {
		ms = 200
	}
	h.Set("x-ms-retry-after-ms", strconv.Itoa(ms))
	if !strings.Contains(userAgent, "azsdk-python") {
		h.Set("Retry-After", strconv.Itoa(max(1, (ms+500)/1000)))
	}
}

func (e *Env) write(w http.ResponseWriter, r *http.Request, q *Request, resp *Response) {
	h := w.Header()
	for k, v := range resp.Header {
		h[k] = v
	}
	if op := resp.Op; op != nil {
		if !resp.OnlyLocation {
			h.Set("Azure-AsyncOperation", e.OperationURL(op, q.APIVersion))
		}
		if resp.WithLocation || resp.OnlyLocation {
			h.Set("Location", e.BaseURL+e.operationPath(op, "operationresults")+"?api-version="+q.APIVersion+"&t="+strconv.FormatInt(op.Start.UnixNano(), 36))
		}
		ms := 0
		if q.Type != nil {
			ms = q.Type.PollMilliseconds
		}
		pollHeaders(h, r.UserAgent(), ms)
	}
	status := resp.Status
	if status == 0 {
		status = http.StatusOK
	}
	if resp.Body == nil && resp.JSON == nil || status == http.StatusNoContent {
		h.Set("Content-Length", "0")
		w.WriteHeader(status)
		return
	}
	b, err := resp.Encoded()
	if err != nil {
		WriteError(w, Errorf(500, "InternalServerError", "%v", err))
		return
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b)
	}
}

// OperationBody returns the body of an operation's status.
func OperationBody(op *Operation) Doc {
	d := Doc{"name": op.ID, "status": op.Status, "startTime": op.Start.Format(time.RFC3339Nano)}
	if op.Done() {
		d["endTime"] = op.End.Format(time.RFC3339Nano)
	}
	if op.Error != nil {
		d["error"] = op.Error
	}
	if p := op.Data.Str("progress"); p != "" && !op.Done() {
		d["properties"] = map[string]any{"progress": p}
	}
	if op.Status == Succeeded && op.Result != nil {
		d["properties"] = op.Result
	}
	return d
}

// OperationTypes returns the types that serve the status (operations) and the
// result (operationresults) of a namespace's long-running operations.
func (e *Env) OperationTypes(namespace string) []*Type {
	find := func(ctx context.Context, q *Request) (*Operation, error) {
		op, err := e.Engine.Get(ctx, strings.ToLower(q.ID.Name()))
		if err != nil {
			return nil, err
		}
		if op == nil || !e.MayPoll(ctx, q.Caller, op) {
			return nil, Errorf(404, "OperationNotFound", "There is no operation '%s'; operations are kept for %s after their end.", q.ID.Name(), operationAge)
		}
		return op, nil
	}
	return []*Type{
		{Name: namespace + "/locations/operations", Scope: InSubscription, Hidden: true, Virtual: true, OwnRights: true, Get: func(ctx context.Context, q *Request) (*Response, error) {
			op, err := find(ctx, q)
			if err != nil {
				return nil, err
			}
			return e.StatusResponse(q, op), nil
		}},
		{Name: namespace + "/locations/operationresults", Scope: InSubscription, Hidden: true, Virtual: true, OwnRights: true, Get: func(ctx context.Context, q *Request) (*Response, error) {
			op, err := find(ctx, q)
			if err != nil {
				return nil, err
			}
			return e.ResultResponse(ctx, q, op)
		}},
	}
}

// MayPoll reports whether a principal may see an operation: the one that started it, and
// whoever may read what it changes.
func (e *Env) MayPoll(ctx context.Context, who Principal, op *Operation) bool {
	return who == op.Caller || e.MayRead(ctx, who, MustParseID(op.Resource))
}

// StatusResponse returns the answer to a poll of an operation's status.
func (e *Env) StatusResponse(q *Request, op *Operation) *Response {
	h := http.Header{}
	if !op.Done() {
		ms := 0
		if t, err := e.TypeOf(MustParseID(op.Resource)); err == nil {
			ms = t.PollMilliseconds
		}
		pollHeaders(h, q.Header.Get("User-Agent"), ms)
	}
	return &Response{Body: OperationBody(op), Header: h}
}

// ResultResponse returns the answer to a poll of an operation's Location: 202 until
// it is done, then its result or error.
func (e *Env) ResultResponse(ctx context.Context, q *Request, op *Operation) (*Response, error) {
	switch {
	case !op.Done():
		h := http.Header{"Location": {e.BaseURL + e.operationPath(op, "operationresults") + "?" + q.Query.Encode()}}
		pollHeaders(h, q.Header.Get("User-Agent"), 0)
		return &Response{Status: http.StatusAccepted, Header: h}, nil
	case op.Error != nil:
		er := *op.Error
		if er.Status == 0 {
			er.Status = http.StatusConflict
		}
		return nil, &er
	case op.Result != nil:
		return &Response{Body: op.Result}, nil
	}
	id := MustParseID(op.Resource)
	if r, err := e.Store.Get(ctx, id); err == nil && r != nil {
		if t, err := e.TypeOf(id); err == nil {
			d, err := e.Render(ctx, t, r, q.APIVersion)
			return &Response{Body: d}, err
		}
	}
	return &Response{Status: http.StatusOK, Body: nil}, nil
}

// VersionAtLeast reports whether an API version is not older than another. The
// date alone counts, also of previews.
func VersionAtLeast(v, least string) bool {
	return len(v) >= 10 && len(least) >= 10 && v[:10] >= least[:10]
}
