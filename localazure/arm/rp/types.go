// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"net/http"
	"net/url"
	"regexp"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Principal is the sender of a request: a service principal, a managed identity or
// Azure itself.
type Principal struct {
	ObjectID string `json:"objectID"`
	AppID    string `json:"appID,omitempty"`
	TenantID string `json:"tenantID,omitempty"`
	// Type is ServicePrincipal or User.
	Type string `json:"type,omitempty"`
}

// Scope says where resources of a type can exist.
type Scope int

// The scopes of a type.
const (
	InGroup        Scope = iota // in a resource group
	InSubscription              // directly in a subscription
	Extension                   // on any resource, group or subscription
	Anywhere                    // in a group or directly in a subscription
)

// Type is a resource type: its conventions, and hooks for what is special. Without
// hooks, Prepare changes nothing, Commit writes the record with state Succeeded,
// and Delete removes it at once.
type Type struct {
	// Name is the full type in the casing of responses.
	Name string
	// Namespace and Path are the same, split; filled by Env.Add.
	Namespace string
	Path      []string
	// Versions are the API versions, newest first. Others are accepted too.
	Versions []string
	Scope    Scope
	// Tracked resources have a location and tags and appear in lists of resources.
	Tracked bool
	// Global resources are tracked, with the location "global".
	Global bool
	// NoState omits provisioningState from responses.
	NoState bool
	// ETagPath is the path of the etag in responses; empty for none.
	ETagPath []string
	// Names must match NameRule, if it is set; NameHelp describes it.
	NameRule *regexp.Regexp
	NameHelp string
	// PatchTagsOnly restricts PATCH to tags.
	PatchTagsOnly bool
	// PollMilliseconds is the poll interval sent to clients.
	PollMilliseconds int
	// Flat omits the "error" wrapper of the provider's errors.
	Flat bool
	// Hidden types are not in the provider's list of types.
	Hidden bool
	// Virtual types have no records: Get, List and Put serve all requests.
	Virtual bool
	// OwnRights types check the rights of the caller themselves: what an answer holds is
	// what the caller may read. Requests for all others are refused unless the caller has
	// the permission at the scope, or at the subscription if the path names none.
	OwnRights bool

	// Prepare fills defaults and validates c.Doc. In the preflight of a template
	// (c.Preflight), parents may not exist yet.
	Prepare func(ctx context.Context, c *Change) error
	// Commit completes the transaction: c.Rec, c.Ops, and c.Op for a long one.
	Commit func(ctx context.Context, c *Change) error
	// Delete does the same for a deletion.
	Delete func(ctx context.Context, c *Change) error
	// Render changes a copy of the document for a response.
	Render func(ctx context.Context, r *Record, d Doc, apiVersion string) error
	// RenderList, if set, is called once per list instead of Render per element.
	RenderList func(ctx context.Context, rs []*Record, ds []Doc, apiVersion string) error
	// Stamp returns a hash of all that Render and RenderList read besides the
	// record: a body is cached while it stays the same. Without it, bodies of types
	// with either hook are not cached.
	Stamp func(ctx context.Context, r *Record) (uint64, error)

	// Get, List and Put, if set, serve the whole request.
	Get  func(ctx context.Context, q *Request) (*Response, error)
	List func(ctx context.Context, q *Request) (*Response, error)
	Put  func(ctx context.Context, q *Request) (*Response, error)
	// Filter applies the request's $filter to a list; without it $filter is ignored.
	Filter func(q *Request, rs []*Record) ([]*Record, error)
	// Actions are the POST actions on a resource, by lower-case name. The names of
	// actions on a collection start with "/".
	Actions map[string]Action
	// AsyncURL, if set, returns the path of an operation's status.
	AsyncURL func(op *Operation) string
}

// Action is a POST action.
type Action struct {
	// Permission is the RBAC action, if not "<type>/<name>/action".
	Permission string
	Do         func(ctx context.Context, q *Request) (*Response, error)
}

// Request is a request on a resource, collection or action.
type Request struct {
	Env        *Env
	Caller     Principal
	Method     string
	ID         ID
	Type       *Type
	Action     string
	APIVersion string
	Query      url.Values
	Header     http.Header
	Body       Doc
	// Raw is the body as received.
	Raw []byte
}

// Response is the response to a Request.
type Response struct {
	// Status 0 means 200.
	Status int
	Body   any
	// JSON is the body if it is already encoded.
	JSON   []byte
	Header http.Header
	// Op, if set, adds the headers of a long-running operation.
	Op *Operation
	// WithLocation adds Location to them; OnlyLocation omits Azure-AsyncOperation.
	WithLocation bool
	OnlyLocation bool
}

// Change is a create, update or delete before its transaction.
type Change struct {
	Env        *Env
	Caller     Principal
	ID         ID
	Type       *Type
	APIVersion string
	Header     http.Header
	// Query is that of a DELETE.
	Query url.Values
	// Old is the current record; nil for a new resource.
	Old *Record
	// Sent is the body without read-only properties; Doc is the stored document
	// merged with it. Prepare works on Doc.
	Sent Doc
	Doc  Doc
	// Rec is the record that will be written (from Doc, after Prepare).
	Rec *Record
	// Patch marks a PATCH; with Preflight nothing is written.
	Patch     bool
	Preflight bool

	// Companions are other records that Prepare has read or changed and that
	// Commit writes in the same transaction.
	Companions []Companion
	// Internal is the Internal of the PutRequest.
	Internal Doc

	// Cmps and Ops are added to the transaction.
	Cmps []clientv3.Cmp
	Ops  []clientv3.Op
	// Op, if set, is the operation that completes the change. The hook sets Kind
	// and Data; the rest is filled in.
	Op *Operation
	// Lock is held by Op until its end. Busy returns the error if another operation
	// holds it. Without Op the lock only has to be free.
	Lock string
	Busy func(other *Operation) error
	// Status overrides 200 and 201.
	Status int
}

// Creating reports whether the resource is new.
func (c *Change) Creating() bool { return c.Old == nil }

// Companion is a record that belongs to a change of another one.
type Companion struct {
	Record *Record
	// Changed reports whether Prepare has changed the record; Before is its
	// document before that, nil for a new record.
	Changed bool
	Before  Doc
}
