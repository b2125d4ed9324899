// Package mirror follows a set of JSON records in etcd: first all there are,
// then each change, and after any interruption all of them again. It is how
// the level-triggered parts of package local learn of intents.
package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Handler is told about records. It is called from one goroutine at a time.
type Handler[T any] struct {
	// Set is called for each record that exists, perhaps more than once.
	Set func(key string, value T)
	// Gone is called for a record that was told by Set and exists no more.
	Gone func(key string)
	// Synced is called each time all records have been told.
	Synced func()
}

// Follow mirrors the records under the prefix until ctx ends. Interruptions
// (etcd restarting, a compaction) are ridden out by starting over.
func Follow[T any](ctx context.Context, c *clientv3.Client, prefix string, log *slog.Logger, h Handler[T]) {
	known := map[string]bool{}
	for ctx.Err() == nil {
		err := follow(ctx, c, prefix, log, h, known)
		if ctx.Err() != nil {
			return
		}
		log.Warn("watch interrupted, reading again", "prefix", prefix, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func follow[T any](ctx context.Context, c *clientv3.Client, prefix string, log *slog.Logger, h Handler[T], known map[string]bool) error {
	listCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	resp, err := c.Get(listCtx, prefix, clientv3.WithPrefix())
	cancel()
	if err != nil {
		return fmt.Errorf("listing %s: %w", prefix, err)
	}
	set := func(key string, value []byte) {
		var v T
		if err := json.Unmarshal(value, &v); err != nil {
			log.Error("record is not readable, leaving it alone", "key", key, "error", err)
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
			h.Gone(key)
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
					h.Gone(key)
				}
				continue
			}
			set(key, ev.Kv.Value)
		}
	}
	return fmt.Errorf("watching %s: stream ended", prefix)
}
