// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Key prefixes of ARM's own state in etcd.
const (
	ResourcePrefix  = "/nap/arm/resources/"
	OperationPrefix = "/nap/arm/operations/"
	LockPrefix      = "/nap/arm/locks/"
	FeaturePrefix   = "/nap/arm/features/"
	ProviderPrefix  = "/nap/arm/providers/"
	PrincipalPrefix = "/nap/arm/principals/"
)

// Record is a stored resource.
type Record struct {
	// ID has the casing that the resource was created with.
	ID string `json:"id"`
	// Doc is the resource without the properties that the server adds (id, name,
	// type, provisioningState, etag).
	Doc Doc `json:"doc"`
	// State is the provisioningState.
	State string `json:"state,omitempty"`
	// Internal is the provider's state, never sent to clients.
	Internal Doc `json:"internal,omitempty"`
	// UID is unique; a resource created again under its ID has another.
	UID  string `json:"uid"`
	ETag string `json:"etag"`

	CreatedAt time.Time `json:"createdAt"`
	ChangedAt time.Time `json:"changedAt"`
	CreatedBy string    `json:"createdBy,omitempty"`
	ChangedBy string    `json:"changedBy,omitempty"`

	rev int64
	// answers caches the response bodies of a shared record.
	answers *answers
}

// Rev returns the etcd revision that the record was read at; 0 if it is new.
func (r *Record) Rev() int64 { return r.rev }

// ParsedID returns the record's ID.
func (r *Record) ParsedID() ID { return MustParseID(r.ID) }

// Clone returns a deep copy.
func (r *Record) Clone() *Record {
	c := *r
	c.Doc, c.Internal, c.answers = r.Doc.Clone(), r.Internal.Clone(), nil
	return &c
}

// Touch gives a changed record a new ETag and now as its time of change.
func (r *Record) Touch(now time.Time) { r.ETag, r.ChangedAt = NewGUID(), now.UTC() }

// RecordKey returns the etcd key of a resource: its type, scope and names, so that a
// list is a scan of a prefix and does not include child types.
func RecordKey(id ID) string {
	return collectionKey(id) + strings.ToLower(strings.Join(id.Names, "/"))
}

func collectionKey(id ID) string {
	switch {
	case id.Scope != nil:
		return ResourcePrefix + strings.ToLower(id.Type()) + ":@" + id.Scope.Key() + "@/"
	case id.Namespace == "" && id.ResourceGroup != "":
		return ResourcePrefix + "resourcegroups:/" + strings.ToLower(id.Subscription) + "/" + strings.ToLower(id.ResourceGroup)
	case id.Namespace == "":
		return ResourcePrefix + "subscriptions:/" + strings.ToLower(id.Subscription)
	}
	return ResourcePrefix + strings.ToLower(id.Type()) + ":/" + strings.ToLower(id.Subscription) + "/" + strings.ToLower(id.ResourceGroup) + "/"
}

// Store reads and writes records.
type Store struct {
	KV clientv3.KV

	decoded sync.Map // key to the last decoded *Record
}

// Get returns a record; nil if it does not exist.
func (s *Store) Get(ctx context.Context, id ID) (*Record, error) {
	r, err := s.View(ctx, id)
	if err != nil || r == nil {
		return nil, err
	}
	return r.Clone(), nil
}

// Target returns the record of an operation's resource; the error NotFound if it
// does not exist.
func (s *Store) Target(ctx context.Context, op *Operation) (*Record, error) {
	id := MustParseID(op.Resource)
	r, err := s.Get(ctx, id)
	if err == nil && r == nil {
		return nil, NotFound(id)
	}
	return r, err
}

// View is Get without a copy: the record is shared and must not be modified.
func (s *Store) View(ctx context.Context, id ID) (*Record, error) {
	key := RecordKey(id)
	resp, err := s.KV.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		s.decoded.Delete(key)
		return nil, nil
	}
	return s.decode(resp.Kvs[0].Key, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
}

// decode returns the shared record of a value, from memory if it has been decoded
// before.
func (s *Store) decode(key, value []byte, rev int64) (*Record, error) {
	if x, ok := s.decoded.Load(string(key)); ok && x.(*Record).rev == rev {
		return x.(*Record), nil
	}
	var r Record
	if err := json.Unmarshal(value, &r); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", key, err)
	}
	r.rev, r.answers = rev, &answers{}
	s.decoded.Store(string(key), &r)
	return &r, nil
}

// List returns the records of a collection (see ID.IsCollection) sorted by name. A
// collection of a subscription includes all its groups; one of an extension type
// at a scope only the records directly at it.
func (s *Store) List(ctx context.Context, id ID) ([]*Record, error) {
	return s.ListPrefix(ctx, listPrefix(id))
}

// ViewList is List without copies: the records are shared and must not be modified.
func (s *Store) ViewList(ctx context.Context, id ID) ([]*Record, error) {
	return s.ViewPrefix(ctx, listPrefix(id))
}

func listPrefix(id ID) string {
	prefix := collectionKey(id)
	if id.Scope == nil {
		if id.ResourceGroup == "" {
			prefix = strings.TrimSuffix(prefix, "/") // .../sub/ without the empty group
		}
		if len(id.Names) > 0 {
			prefix += strings.ToLower(strings.Join(id.Names, "/")) + "/"
		}
	}
	return prefix
}

// ListType returns all records of a full type.
func (s *Store) ListType(ctx context.Context, fullType string) ([]*Record, error) {
	return s.ListPrefix(ctx, ResourcePrefix+strings.ToLower(fullType)+":")
}

// ListPrefix returns the records under a key prefix.
func (s *Store) ListPrefix(ctx context.Context, prefix string) ([]*Record, error) {
	rs, err := s.ViewPrefix(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for i := range rs {
		rs[i] = rs[i].Clone()
	}
	return rs, nil
}

// ViewPrefix is ListPrefix without copies: the records are shared and must not be
// modified.
func (s *Store) ViewPrefix(ctx context.Context, prefix string) ([]*Record, error) {
	kvs, err := s.scan(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", prefix, err)
	}
	out := make([]*Record, 0, len(kvs))
	for _, kv := range kvs {
		r, err := s.decode(kv.Key, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *Store) scan(ctx context.Context, prefix string) ([]*mvccpb.KeyValue, error) {
	if c, ok := s.KV.(*Cache); ok {
		return c.scan(prefix), ctx.Err()
	}
	resp, err := s.KV.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	return resp.Kvs, nil
}

// PutOp returns the write of a record, for a transaction.
func PutOp(r *Record) clientv3.Op {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encoding the record of %s: %v", r.ID, err)) // documents come from JSON
	}
	return clientv3.OpPut(RecordKey(r.ParsedID()), string(b))
}

// DeleteOp returns the deletion of a record, for a transaction.
func DeleteOp(id ID) clientv3.Op { return clientv3.OpDelete(RecordKey(id)) }

// JSONOp returns the write of a value as JSON, for a transaction.
func JSONOp(key string, v any) clientv3.Op {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding %s: %v", key, err))
	}
	return clientv3.OpPut(key, string(b))
}

// Unchanged returns the condition that a record is as it was read; for a new one
// (Rev 0), that it does not exist.
func Unchanged(r *Record) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(RecordKey(r.ParsedID())), "=", r.rev)
}

// Exists returns the condition that a resource exists.
func Exists(id ID) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(RecordKey(id)), ">", 0)
}

// Absent returns the condition that a key does not exist.
func Absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// NewGUID returns a random GUID (version 4).
func NewGUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("no randomness: " + err.Error())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewSecret returns a random secret of 256 bits, in hexadecimal.
func NewSecret() string {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("no randomness: " + err.Error())
	}
	return hex.EncodeToString(b[:])
}
