// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Root is the prefix of all keys in the cache.
const Root = "/nap/"

// Cache is a clientv3.KV that reads from memory. Writes go to etcd and are in
// memory when they return; other processes' writes arrive by a watch.
//
// A read therefore sees every write that this process has completed. As this
// process is the only writer of ARM's keys, its reads of them are linearizable;
// statuses, which others write, lag behind by the watch. When the conditions of a
// transaction fail, their keys are read again from etcd, so that a retry makes
// progress.
type Cache struct {
	cli *clientv3.Client
	log *slog.Logger

	mu      sync.RWMutex
	keys    []string // sorted, live and deleted
	entries map[string]entry
	seen    int64 // revision that the watch has reached

	hooks []func(key string)
}

// entry is a key at a revision. A deleted key is kept until the watch has passed
// its deletion, so that an older event cannot restore it.
type entry struct {
	value   []byte
	rev     int64
	deleted bool
}

// NewCache returns an empty cache; Load fills it.
func NewCache(cli *clientv3.Client, log *slog.Logger) *Cache {
	return &Cache{cli: cli, log: log, entries: map[string]entry{}}
}

// OnChange registers f to be called after any change of a key. It must be called
// before Run; f must return quickly and must not call the cache.
func (c *Cache) OnChange(f func(key string)) { c.hooks = append(c.hooks, f) }

// Client returns the etcd client.
func (c *Cache) Client() *clientv3.Client { return c.cli }

// Load reads all keys from etcd; Run then keeps them up to date.
func (c *Cache) Load(ctx context.Context) error {
	var kvs []*mvccpb.KeyValue
	key, rev := Root, int64(0)
	end := clientv3.GetPrefixRangeEnd(Root)
	for {
		resp, err := c.cli.Get(ctx, key, clientv3.WithRange(end), clientv3.WithLimit(2000), clientv3.WithRev(rev))
		if err != nil {
			return fmt.Errorf("reading %s from etcd: %w", Root, err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More {
			break
		}
		key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	c.mu.Lock()
	fresh := map[string]bool{}
	var changed []string
	for _, kv := range kvs {
		k := string(kv.Key)
		fresh[k] = true
		if c.set(k, entry{value: kv.Value, rev: kv.ModRevision}) {
			changed = append(changed, k)
		}
	}
	for k, e := range c.entries {
		if !fresh[k] && !e.deleted && e.rev <= rev {
			c.set(k, entry{rev: rev, deleted: true})
			changed = append(changed, k)
		}
	}
	c.seen = max(c.seen, rev)
	c.mu.Unlock()
	c.notify(changed)
	return nil
}

// Run watches etcd until ctx is done. Load must have succeeded before.
func (c *Cache) Run(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.RLock()
		from := c.seen + 1
		c.mu.RUnlock()
		for resp := range c.cli.Watch(clientv3.WithRequireLeader(ctx), Root, clientv3.WithPrefix(), clientv3.WithRev(from)) {
			if err := resp.Err(); err != nil {
				if ctx.Err() == nil {
					c.log.Warn("etcd watch failed; reading all keys again", "error", err)
				}
				break
			}
			c.apply(resp)
		}
		if ctx.Err() != nil {
			return
		}
		if err := c.Load(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("reading all keys from etcd failed", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cache) apply(resp clientv3.WatchResponse) {
	var changed []string
	c.mu.Lock()
	for _, ev := range resp.Events {
		e := entry{value: ev.Kv.Value, rev: ev.Kv.ModRevision, deleted: ev.Type == clientv3.EventTypeDelete}
		if c.set(string(ev.Kv.Key), e) {
			changed = append(changed, string(ev.Kv.Key))
		}
	}
	// The header has etcd's revision, but a watcher that lags gets the missed events
	// in several responses: only the revision of the last event counts.
	if n := len(resp.Events); n > 0 {
		c.seen = max(c.seen, resp.Events[n-1].Kv.ModRevision)
	} else {
		c.seen = max(c.seen, resp.Header.Revision)
	}
	// Deletions that the watch has passed need not be kept.
	for _, ev := range resp.Events {
		k := string(ev.Kv.Key)
		if e := c.entries[k]; e.deleted && e.rev <= c.seen {
			c.forget(k)
		}
	}
	c.mu.Unlock()
	c.notify(changed)
}

func (c *Cache) notify(keys []string) {
	for _, k := range keys {
		for _, f := range c.hooks {
			f(k)
		}
	}
}

// set stores an entry unless the key has a later revision, and reports whether it
// did. The lock must be held.
func (c *Cache) set(key string, e entry) bool {
	old, known := c.entries[key]
	if known && old.rev >= e.rev {
		return false
	}
	if !known {
		if e.rev <= c.seen {
			return false // the watch has passed it and its later deletion
		}
		i, _ := slices.BinarySearch(c.keys, key)
		c.keys = slices.Insert(c.keys, i, key)
	}
	c.entries[key] = e
	return true
}

func (c *Cache) forget(key string) {
	delete(c.entries, key)
	if i, ok := slices.BinarySearch(c.keys, key); ok {
		c.keys = slices.Delete(c.keys, i, i+1)
	}
}

// Get implements clientv3.KV for single keys, ranges and WithCountOnly. Other
// requests, and keys outside Root, go to etcd.
func (c *Cache) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if len(opts) == 0 && strings.HasPrefix(key, Root) {
		return c.one(ctx, key)
	}
	op := clientv3.OpGet(key, opts...)
	if !strings.HasPrefix(key, Root) || op.Rev() != 0 {
		return c.cli.Get(ctx, key, opts...)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	resp := &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{}}
	add := func(k string, e entry) {
		if e.deleted {
			return
		}
		resp.Count++
		if !op.IsCountOnly() {
			resp.Kvs = append(resp.Kvs, &mvccpb.KeyValue{Key: []byte(k), Value: e.value, ModRevision: e.rev})
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	resp.Header.Revision = c.seen
	end := string(op.RangeBytes())
	if end == "" {
		if e, ok := c.entries[key]; ok {
			add(key, e)
		}
		return resp, nil
	}
	for i := sort.SearchStrings(c.keys, key); i < len(c.keys) && c.keys[i] < end; i++ {
		add(c.keys[i], c.entries[c.keys[i]])
	}
	return resp, nil
}

// GetStream implements clientv3.KV. It always asks etcd.
func (c *Cache) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption) (clientv3.GetStreamChan, error) {
	return c.cli.GetStream(ctx, key, opts...)
}

// one is Get of a single key, the most frequent request.
func (c *Cache) one(ctx context.Context, key string) (*clientv3.GetResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.RLock()
	e, ok := c.entries[key]
	seen := c.seen
	c.mu.RUnlock()
	resp := &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{Revision: seen}}
	if ok && !e.deleted {
		resp.Count = 1
		resp.Kvs = []*mvccpb.KeyValue{{Key: []byte(key), Value: e.value, ModRevision: e.rev}}
	}
	return resp, nil
}

// scan returns the keys under a prefix, which begins with Root, in their order.
func (c *Cache) scan(prefix string) []*mvccpb.KeyValue {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*mvccpb.KeyValue
	i, _ := slices.BinarySearch(c.keys, prefix)
	for ; i < len(c.keys) && strings.HasPrefix(c.keys[i], prefix); i++ {
		if e := c.entries[c.keys[i]]; !e.deleted {
			out = append(out, &mvccpb.KeyValue{Key: []byte(c.keys[i]), Value: e.value, ModRevision: e.rev})
		}
	}
	return out
}

// Put implements clientv3.KV.
func (c *Cache) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := c.cli.Put(ctx, key, val, opts...)
	if err == nil {
		c.wrote(resp.Header.Revision, []clientv3.Op{clientv3.OpPut(key, val)})
	}
	return resp, err
}

// Delete implements clientv3.KV.
func (c *Cache) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := c.cli.Delete(ctx, key, opts...)
	if err == nil && resp.Deleted > 0 {
		c.wrote(resp.Header.Revision, []clientv3.Op{clientv3.OpDelete(key, opts...)})
	}
	return resp, err
}

// Compact implements clientv3.KV.
func (c *Cache) Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	return c.cli.Compact(ctx, rev, opts...)
}

// Do implements clientv3.KV for single operations.
func (c *Cache) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	return clientv3.OpResponse{}, errors.New("the cache has no Do; use Get, Put, Delete or Txn")
}

// Txn implements clientv3.KV.
func (c *Cache) Txn(ctx context.Context) clientv3.Txn { return &cachedTxn{c: c, ctx: ctx} }

type cachedTxn struct {
	c               *Cache
	ctx             context.Context
	cmps            []clientv3.Cmp
	then, otherwise []clientv3.Op
}

// If implements clientv3.Txn.
func (t *cachedTxn) If(cs ...clientv3.Cmp) clientv3.Txn { t.cmps = append(t.cmps, cs...); return t }

// Then implements clientv3.Txn.
func (t *cachedTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.then = append(t.then, ops...); return t }

// Else implements clientv3.Txn.
func (t *cachedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.otherwise = append(t.otherwise, ops...)
	return t
}

// Commit implements clientv3.Txn.
func (t *cachedTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.c.cli.Txn(t.ctx).If(t.cmps...).Then(t.then...).Else(t.otherwise...).Commit()
	if err != nil {
		return nil, err
	}
	ops := t.then
	if !resp.Succeeded {
		ops = t.otherwise
		if err := t.c.refresh(t.ctx, t.cmps); err != nil {
			return nil, err
		}
	}
	t.c.wrote(resp.Header.Revision, ops)
	return resp, nil
}

// wrote stores what this process has written at a revision.
func (c *Cache) wrote(rev int64, ops []clientv3.Op) {
	var changed []string
	c.mu.Lock()
	for _, op := range ops {
		key := string(op.KeyBytes())
		switch {
		case !strings.HasPrefix(key, Root):
		case op.IsPut():
			if c.set(key, entry{value: op.ValueBytes(), rev: rev}) {
				changed = append(changed, key)
			}
		case op.IsDelete():
			end := string(op.RangeBytes())
			if end == "" {
				if e, ok := c.entries[key]; ok && !e.deleted && c.set(key, entry{rev: rev, deleted: true}) {
					changed = append(changed, key)
				}
				continue
			}
			for i := sort.SearchStrings(c.keys, key); i < len(c.keys) && c.keys[i] < end; i++ {
				if k := c.keys[i]; !c.entries[k].deleted && c.set(k, entry{rev: rev, deleted: true}) {
					changed = append(changed, k)
				}
			}
		}
	}
	c.mu.Unlock()
	c.notify(changed)
}

// refresh reads the keys of conditions from etcd.
func (c *Cache) refresh(ctx context.Context, cmps []clientv3.Cmp) error {
	if len(cmps) == 0 {
		return nil
	}
	var ops []clientv3.Op
	for _, cmp := range cmps {
		c := cmp.GetCompare()
		if len(c.RangeEnd) > 0 {
			ops = append(ops, clientv3.OpGet(string(c.Key), clientv3.WithRange(string(c.RangeEnd))))
			continue
		}
		ops = append(ops, clientv3.OpGet(string(c.Key)))
	}
	for len(ops) > 0 {
		n := min(len(ops), 100)
		resp, err := c.cli.Txn(ctx).Then(ops[:n]...).Commit()
		if err != nil {
			return fmt.Errorf("reading the keys of failed conditions: %w", err)
		}
		var changed []string
		c.mu.Lock()
		for i, r := range resp.Responses {
			kvs := r.GetResponseRange().Kvs
			for _, kv := range kvs {
				if c.set(string(kv.Key), entry{value: kv.Value, rev: kv.ModRevision}) {
					changed = append(changed, string(kv.Key))
				}
			}
			key := string(ops[i].KeyBytes())
			if e, ok := c.entries[key]; len(kvs) == 0 && ok && !e.deleted && len(ops[i].RangeBytes()) == 0 && c.set(key, entry{rev: resp.Header.Revision, deleted: true}) {
				changed = append(changed, key)
			}
		}
		c.mu.Unlock()
		c.notify(changed)
		ops = ops[n:]
	}
	return nil
}
