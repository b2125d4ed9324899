package rp

import (
	"context"
	"net/http"
	"net/url"
	"regexp"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Principal is who sends a request: a service principal, a managed identity or
// a part of Azure itself.
type Principal struct {
	ObjectID string `json:"objectID"`
	AppID    string `json:"appID,omitempty"`
	TenantID string `json:"tenantID,omitempty"`
	// Type is ServicePrincipal or User.
	Type string `json:"type,omitempty"`
}

// Scope is where resources of a type can be.
type Scope int

// The scopes of a type.
const (
	InGroup        Scope = iota // in a resource group
	InSubscription              // right in a subscription
	Extension                   // on any resource, group or subscription
	Anywhere                    // in a group or right in a subscription
)

// Type is a resource type: its conventions and the hooks for what is special.
// A nil hook means the usual: Prepare changes nothing, Commit writes the record
// with state Succeeded, Delete removes it at once.
type Type struct {
	// Name is the full type in the casing that "type" is answered with.
	Name string
	// Namespace and Path are the same, split; filled by Env.Add.
	Namespace string
	Path      []string
	// Versions are the API versions, newest first. Others are answered in the
	// nearest one's shape.
	Versions []string
	Scope    Scope
	// Tracked resources have a location and tags and are listed by resource
	// lists; the others are proxies.
	Tracked bool
	// Global resources are tracked ones that are in no region: their location
	// is "global".
	Global bool
	// NoState leaves provisioningState out of the answers.
	NoState bool
	// ETagPath is where the etag goes in the answer; none means no etag.
	ETagPath []string
	// Name must match NameRule, if it is set; NameHelp says the rule in words.
	NameRule *regexp.Regexp
	NameHelp string
	// PatchTagsOnly lets PATCH change tags and nothing else.
	PatchTagsOnly bool
	// PollMilliseconds is the wait between polls that clients are told.
	PollMilliseconds int
	// Flat says that the provider's errors come without the "error" wrapper.
	Flat bool
	// Hidden types are not listed by the provider.
	Hidden bool
	// Virtual types have no records: Get, List and Put answer everything.
	Virtual bool

	// Prepare fills defaults and validates c.Doc. It runs for a template's
	// preflight as well (c.Preflight): then parents may not exist yet.
	Prepare func(ctx context.Context, c *Change) error
	// Commit completes the transaction: c.Rec, c.Ops, and c.Op for a long one.
	Commit func(ctx context.Context, c *Change) error
	// Delete does the same for a removal.
	Delete func(ctx context.Context, c *Change) error
	// Render changes a copy of the document for an answer.
	Render func(ctx context.Context, r *Record, d Doc, apiVersion string) error
	// RenderList does what has to be done once per list; if set it is called
	// instead of Render for each element.
	RenderList func(ctx context.Context, rs []*Record, ds []Doc, apiVersion string) error
	// Stamp sums up all that Render and RenderList read beside the record
	// itself, so that a body can be used again while that is as it was. Without
	// it, a type with either has its bodies made afresh for each answer.
	Stamp func(ctx context.Context, r *Record) (uint64, error)

	// Get, List and Put take over the whole request, if set.
	Get  func(ctx context.Context, q *Request) (*Response, error)
	List func(ctx context.Context, q *Request) (*Response, error)
	Put  func(ctx context.Context, q *Request) (*Response, error)
	// Filter narrows a list by the request's $filter; without it $filter is
	// refused.
	Filter func(q *Request, rs []*Record) ([]*Record, error)
	// Actions are the POSTs on a resource, by lower-case name; those on a
	// collection have a name that starts with "/".
	Actions map[string]Action
	// AsyncURL gives the path of an operation's status, if not the usual one.
	AsyncURL func(op *Operation) string
	// NoDeleteLocation leaves out the Location header of the answer to an
	// asynchronous DELETE.
	NoDeleteLocation bool
}

// Action is a POST on a resource.
type Action struct {
	// Permission is the RBAC action, if not "<type>/<name>/action".
	Permission string
	Do         func(ctx context.Context, q *Request) (*Response, error)
}

// Request is one request on a resource, collection or action.
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
	// Raw is the body as it came.
	Raw []byte
}

// Response is the answer to a Request.
type Response struct {
	// Status 0 means 200.
	Status int
	Body   any
	// JSON is the body if it is encoded already.
	JSON   []byte
	Header http.Header
	// Op adds the headers of a long-running operation.
	Op *Operation
	// WithLocation adds Location to them; OnlyLocation leaves out
	// Azure-AsyncOperation.
	WithLocation bool
	OnlyLocation bool
}

// Change is a create, update or delete on its way to a transaction.
type Change struct {
	Env        *Env
	Caller     Principal
	ID         ID
	Type       *Type
	APIVersion string
	Header     http.Header
	// Query is that of a DELETE.
	Query url.Values
	// Old is the record as it is; nil for a new resource.
	Old *Record
	// Sent is the body without read-only properties; Doc what it means on top
	// of the stored document. Prepare works on Doc.
	Sent Doc
	Doc  Doc
	// Rec is what will be written (from Doc, after Prepare).
	Rec *Record
	// Patch says the request was a PATCH; Preflight that nothing will be
	// written.
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
	// Op, if set, is the operation that completes the change. Kind and Data
	// are the hook's to fill; the rest is filled for it.
	Op *Operation
	// Lock is held by Op until its end; when it is held by another, Busy says
	// what the client gets. Without Op the lock only has to be free.
	Lock string
	Busy func(other *Operation) error
	// Status overrides 200 and 201.
	Status int
}

// Creating tells whether the resource is new.
func (c *Change) Creating() bool { return c.Old == nil }

// Companion is a record that belongs to a change of another one.
type Companion struct {
	Record *Record
	// Changed reports whether Prepare has changed the record; Before is its
	// document before that, nil for a new record.
	Changed bool
	Before  Doc
}
