// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/localazure/home"
)

// ownerKey holds the Owner of an etcd's state.
const ownerKey = "/nap/instance"

// Owner is the instance whose state an etcd holds. An etcd has one at most.
type Owner struct {
	ID   string `json:"id"`
	Home string `json:"home"`
}

// CheckUsable returns an error unless an external etcd can hold the state of an
// instance: it must answer, accept transactions of MaxTxnOps operations, and
// belong to no other instance. It changes nothing.
func CheckUsable(ctx context.Context, c *clientv3.Client, e home.EtcdClient, me Owner) error {
	where := strings.Join(e.Endpoints, ",")
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	probe := make([]clientv3.Op, MaxTxnOps)
	for i := range probe {
		probe[i] = clientv3.OpGet(ownerKey, clientv3.WithCountOnly())
	}
	if _, err := c.Txn(ctx).Then(probe...).Commit(); errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("etcd at %s does not take transactions of %d operations: start its members with --max-txn-ops=%d", where, MaxTxnOps, MaxTxnOps)
	} else if err != nil {
		return fmt.Errorf("etcd at %s does not answer: %w; check --etcd-endpoints and the certificates", where, err)
	}
	resp, err := c.Get(ctx, ownerKey)
	if err != nil {
		return fmt.Errorf("reading %s of etcd at %s: %w", ownerKey, where, err)
	}
	return checkOwner(resp.Kvs, where, me)
}

// checkOwner returns an error if found, the value of ownerKey, names another
// instance.
func checkOwner(found []*mvccpb.KeyValue, where string, me Owner) error {
	for _, kv := range found {
		var other Owner
		if err := json.Unmarshal(kv.Value, &other); err != nil {
			return fmt.Errorf("etcd at %s: the key %s is not ours: %w", where, ownerKey, err)
		}
		if other.ID != me.ID {
			return fmt.Errorf("etcd at %s holds the state of another instance (its home folder: %s), and can hold the state of one only; if that instance no longer exists, delete the keys below /nap/ and /kube/", where, other.Home)
		}
	}
	return nil
}

// Claim writes the owner into an etcd that has none, and fails if it belongs to
// another instance.
func Claim(ctx context.Context, c *clientv3.Client, e home.EtcdClient, me Owner) error {
	name, err := json.Marshal(me)
	if err != nil {
		return fmt.Errorf("encoding the owner of etcd: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	where := strings.Join(e.Endpoints, ",")
	resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(ownerKey), "=", 0)).
		Then(clientv3.OpPut(ownerKey, string(name))).Else(clientv3.OpGet(ownerKey)).Commit()
	if err != nil {
		return fmt.Errorf("claiming etcd at %s: %w", where, err)
	}
	if resp.Succeeded {
		return nil
	}
	return checkOwner(resp.Responses[0].GetResponseRange().Kvs, where, me) // another instance may have been faster
}

// Wipe deletes the state of a stopped instance from an external etcd. It does
// nothing if the state is in the home folder, or if the etcd belongs to another
// instance.
func Wipe(ctx context.Context, h home.Home) error {
	i, err := home.ReadInstance(h)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !i.Etcd.External {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := Dial(i.Etcd)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	where := strings.Join(i.Etcd.Endpoints, ",")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := c.Get(ctx, ownerKey)
	if err != nil {
		return fmt.Errorf("deleting the state in etcd at %s: %w", where, err)
	}
	if len(resp.Kvs) == 0 || checkOwner(resp.Kvs, where, Owner{ID: i.SubscriptionID}) != nil {
		return nil // not ours to delete
	}
	// The owner goes last: if a deletion fails, this instance can try again.
	for _, prefix := range []string{"/kube/", "/nap/"} {
		if _, err := c.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			return fmt.Errorf("deleting %s from etcd at %s: %w", prefix, where, err)
		}
	}
	return nil
}
