// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reflector lists and watches JSON records in etcd: first all that
// exist, then each change, and after any interruption all of them again. The
// supervisor and the fleet learn of intents through it.
package reflector

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Handler receives the records. Its functions are called from one goroutine at
// a time.
type Handler[T any] struct {
	// Set is called for each record that exists, perhaps more than once.
	Set func(key string, value T)
	// Deleted is called for a record that Set was called for and that no longer
	// exists.
	Deleted func(key string)
	// Synced is called after each complete list, if it is not nil.
	Synced func()
}

// Run follows the records under the prefix until ctx ends. It lists again after
// each interruption (etcd restarting, a compaction).
func Run[T any](ctx context.Context, c *clientv3.Client, prefix string, log *slog.Logger, h Handler[T]) {
	known := map[string]bool{}
	for ctx.Err() == nil {
		err := listAndWatch(ctx, c, prefix, log, h, known)
		if ctx.Err() != nil {
			return
		}
		log.Warn("watch interrupted, listing again", "prefix", prefix, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func listAndWatch[T any](ctx context.Context, c *clientv3.Client, prefix string, log *slog.Logger, h Handler[T], known map[string]bool) error {
	listCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	resp, err := c.Get(listCtx, prefix, clientv3.WithPrefix())
	cancel()
	if err != nil {
		return fmt.Errorf("listing %s: %w", prefix, err)
	}
	set := func(key string, value []byte) {
		var v T
		if err := json.Unmarshal(value, &v); err != nil {
			log.Error("ignoring unreadable record", "key", key, "error", err)
			return
		}
		known[key] = true
		h.Set(key, v)
	}
	now := map[string]bool{}
	for _, kv := range resp.Kvs {
		now[string(kv.Key)] = true
		set(string(kv.Key), kv.Value)
	}
	for key := range known {
		if !now[key] {
			delete(known, key)
			h.Deleted(key)
		}
	}
	if h.Synced != nil {
		h.Synced()
	}
	watchCtx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for wr := range c.Watch(watchCtx, prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
		if err := wr.Err(); err != nil {
			return fmt.Errorf("watching %s: %w", prefix, err)
		}
		for _, ev := range wr.Events {
			key := string(ev.Kv.Key)
			if ev.Type == clientv3.EventTypeDelete {
				if known[key] {
					delete(known, key)
					h.Deleted(key)
				}
				continue
			}
			set(key, ev.Kv.Value)
		}
	}
	return fmt.Errorf("watching %s: stream ended", prefix)
}
