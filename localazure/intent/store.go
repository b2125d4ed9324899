// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package intent

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ClusterIntentKey returns the key of a cluster's intent.
func ClusterIntentKey(uid string) string { return ClusterIntentPrefix + uid }

// ClusterStatusKey returns the key of a cluster's status.
func ClusterStatusKey(uid string) string { return ClusterStatusPrefix + uid }

// MachineIntentKey returns the key of a machine's intent.
func MachineIntentKey(uid, pool, machine string) string {
	return MachineIntentPrefix + uid + "/" + pool + "/" + machine
}

// MachineStatusKey returns the key of a machine's status.
func MachineStatusKey(uid, pool, machine string) string {
	return MachineStatusPrefix + uid + "/" + pool + "/" + machine
}

// Get reads one JSON record. It returns false if the key does not exist.
func Get[T any](ctx context.Context, c clientv3.KV, key string) (T, bool, error) {
	var v T
	resp, err := c.Get(ctx, key)
	if err != nil {
		return v, false, fmt.Errorf("reading %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return v, false, nil
	}
	if err := json.Unmarshal(resp.Kvs[0].Value, &v); err != nil {
		return v, false, fmt.Errorf("decoding %s: %w", key, err)
	}
	return v, true, nil
}

// List reads every record under a prefix, in key order. It also returns the revision
// of the listing; a watch continues from the next one.
func List[T any](ctx context.Context, c clientv3.KV, prefix string) ([]T, int64, error) {
	resp, err := c.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("listing %s: %w", prefix, err)
	}
	out := make([]T, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var v T
		if err := json.Unmarshal(kv.Value, &v); err != nil {
			return nil, 0, fmt.Errorf("decoding %s: %w", kv.Key, err)
		}
		out = append(out, v)
	}
	return out, resp.Header.Revision, nil
}

// Put writes one record as JSON.
func Put(ctx context.Context, c clientv3.KV, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if _, err := c.Put(ctx, key, string(b)); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}

// Delete deletes one record; a missing one is not an error.
func Delete(ctx context.Context, c clientv3.KV, key string) error {
	if _, err := c.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting %s: %w", key, err)
	}
	return nil
}
