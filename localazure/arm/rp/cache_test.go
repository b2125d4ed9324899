// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package rp

import (
	"log/slog"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func event(key, value string, rev int64) clientv3.WatchResponse {
	ev := &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: rev}}
	if value == "" {
		ev.Type = clientv3.EventTypeDelete
	}
	return clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: rev}, Events: []*clientv3.Event{ev}}
}

// Own writes and watch events reach the cache in any order.
func TestCacheKeepsLatestRevision(t *testing.T) {
	const k = "/nap/k"
	for _, x := range []struct {
		name string
		do   func(c *Cache)
		want string
	}{
		{"own write, then its event", func(c *Cache) { c.wrote(5, ops(clientv3.OpPut(k, "a"))); c.apply(event(k, "a", 5)) }, "a"},
		{"a later event overtakes", func(c *Cache) { c.apply(event(k, "b", 6)); c.wrote(5, ops(clientv3.OpPut(k, "a"))) }, "b"},
		{"own deletion, then the older event", func(c *Cache) {
			c.apply(event(k, "a", 5))
			c.wrote(7, ops(clientv3.OpDelete(k)))
			c.apply(event(k, "b", 6))
		}, ""},
		{"a seen deletion is not undone by an older write", func(c *Cache) {
			c.apply(event(k, "a", 5))
			c.apply(event(k, "", 6))
			c.wrote(5, ops(clientv3.OpPut(k, "a")))
		}, ""},
		{"created again after a deletion", func(c *Cache) {
			c.apply(event(k, "a", 5))
			c.wrote(6, ops(clientv3.OpDelete(k)))
			c.wrote(7, ops(clientv3.OpPut(k, "c")))
			c.apply(event(k, "", 6))
			c.apply(event(k, "c", 7))
		}, "c"},
		{"missed events in two responses", func(c *Cache) {
			part := event("/nap/other", "x", 5)
			part.Header.Revision = 9
			c.apply(part)
			rest := event(k, "d", 8)
			rest.Header.Revision = 9
			c.apply(rest)
		}, "d"},
		{"a deleted range", func(c *Cache) {
			c.wrote(5, ops(clientv3.OpPut(k, "a"), clientv3.OpPut("/nap/k/x", "b")))
			c.wrote(6, ops(clientv3.OpDelete("/nap/k", clientv3.WithPrefix())))
		}, ""},
	} {
		c := NewCache(nil, slog.Default())
		x.do(c)
		resp, err := c.Get(t.Context(), k)
		got := ""
		if err == nil && len(resp.Kvs) > 0 {
			got = string(resp.Kvs[0].Value)
		}
		if err != nil || got != x.want {
			t.Errorf("%s: %q, want %q (%v)", x.name, got, x.want, err)
		}
	}
}

func ops(o ...clientv3.Op) []clientv3.Op { return o }

func TestCacheListsInOrder(t *testing.T) {
	c := NewCache(nil, slog.Default())
	for i, k := range []string{"/nap/b", "/nap/a/2", "/nap/a/1", "/nap/a", "/nap/a0"} {
		c.wrote(int64(i+1), ops(clientv3.OpPut(k, k)))
	}
	resp, err := c.Get(t.Context(), "/nap/a/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) != 2 || string(resp.Kvs[0].Key) != "/nap/a/1" || resp.Count != 2 {
		t.Errorf("%v (%v)", resp, err)
	}
	n, err := c.Get(t.Context(), "/nap/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || n.Count != 5 || len(n.Kvs) != 0 {
		t.Errorf("%v (%v)", n, err)
	}
}
