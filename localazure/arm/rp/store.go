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

// Record is a resource as it is kept.
type Record struct {
	// ID has the casing that the resource was created with.
	ID string `json:"id"`
	// Doc is the resource without what the server says about it (id, name,
	// type, provisioningState, etag).
	Doc Doc `json:"doc"`
	// State is the provisioningState.
	State string `json:"state,omitempty"`
	// Internal is the provider's own, never shown.
	Internal Doc `json:"internal,omitempty"`
	// UID is unique for ever; a resource made again under its ID has another.
	UID  string `json:"uid"`
	ETag string `json:"etag"`

	CreatedAt time.Time `json:"createdAt"`
	ChangedAt time.Time `json:"changedAt"`
	CreatedBy string    `json:"createdBy,omitempty"`
	ChangedBy string    `json:"changedBy,omitempty"`

	rev int64
	// answers are the bodies made of this record, while it is shared.
	answers *answers
}

// Rev is the etcd revision that the record was read at; 0 if it is new.
func (r *Record) Rev() int64 { return r.rev }

// ParsedID is the record's ID.
func (r *Record) ParsedID() ID { return MustParseID(r.ID) }

// Clone copies the record deeply.
func (r *Record) Clone() *Record {
	c := *r
	c.Doc, c.Internal, c.answers = r.Doc.Clone(), r.Internal.Clone(), nil
	return &c
}

// RecordKey is where the resource with the ID is kept: by type, then scope and
// names, so that a list is a scan of a prefix and never sees child types.
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

	decoded sync.Map // key to *Record, as it was last read
}

// Get reads a record. It returns nil without an error when there is none.
func (s *Store) Get(ctx context.Context, id ID) (*Record, error) {
	r, err := s.View(ctx, id)
	if err != nil || r == nil {
		return nil, err
	}
	return r.Clone(), nil
}

// Target reads the record that an operation works on. One that is gone is the
// error NotFound.
func (s *Store) Target(ctx context.Context, op *Operation) (*Record, error) {
	id := MustParseID(op.Resource)
	r, err := s.Get(ctx, id)
	if err == nil && r == nil {
		return nil, NotFound(id)
	}
	return r, err
}

// View is Get for those who only read: the record is shared and must not be
// changed.
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

// decode gives the record of a value, from memory if it has been decoded
// before. It is shared.
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

// List reads the records of a collection (see ID.IsCollection), in the order
// of their names. A collection of a subscription takes in all its groups; one
// of an extension type at a scope only those right at it.
func (s *Store) List(ctx context.Context, id ID) ([]*Record, error) {
	return s.ListPrefix(ctx, listPrefix(id))
}

// ViewList is List for those who only read: the records are shared and must not
// be changed.
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

// ListType reads all records of a full type, everywhere.
func (s *Store) ListType(ctx context.Context, fullType string) ([]*Record, error) {
	return s.ListPrefix(ctx, ResourcePrefix+strings.ToLower(fullType)+":")
}

// ListPrefix reads the records under a key prefix.
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

// ViewPrefix is ListPrefix for those who only read: the records are shared and
// must not be changed.
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

// PutOp is the write of a record, for a transaction.
func PutOp(r *Record) clientv3.Op {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("encoding the record of %s: %v", r.ID, err)) // documents come from JSON
	}
	return clientv3.OpPut(RecordKey(r.ParsedID()), string(b))
}

// DeleteOp is the removal of a record, for a transaction.
func DeleteOp(id ID) clientv3.Op { return clientv3.OpDelete(RecordKey(id)) }

// JSONOp is the write of any value as JSON, for a transaction.
func JSONOp(key string, v any) clientv3.Op {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding %s: %v", key, err))
	}
	return clientv3.OpPut(key, string(b))
}

// Unchanged is the condition that a record is still as it was read; for a new
// one (Rev 0), that there is none.
func Unchanged(r *Record) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(RecordKey(r.ParsedID())), "=", r.rev)
}

// Exists is the condition that a resource is there.
func Exists(id ID) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(RecordKey(id)), ">", 0)
}

// Absent is the condition that a key is not there.
func Absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

// NewGUID is a random GUID (version 4).
func NewGUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("no randomness: " + err.Error())
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewSecret is a random secret of 256 bits, in hexadecimal.
func NewSecret() string {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("no randomness: " + err.Error())
	}
	return hex.EncodeToString(b[:])
}
