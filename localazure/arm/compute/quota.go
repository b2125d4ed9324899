// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nap-aks/nap/catalog"
	"github.com/nap-aks/nap/localazure/arm/rp"
	"github.com/nap-aks/nap/localazure/intent"
)

// Default limits of a subscription, in vCPUs.
const (
	DefaultFamilyLimit   = 5_000
	DefaultRegionalLimit = 50_000
	DefaultSpotLimit     = 50_000
)

// Names of the quotas that apply to all families.
const (
	regionalCores = "cores"
	spotCores     = "lowPriorityCores"
)

// QuotaPrefix is the etcd prefix of limits that differ from the defaults:
// <location>/<quota name in lower case> = number of vCPUs.
const QuotaPrefix = "/nap/arm/quota/"

// Quota counts the vCPUs of all machine intents against the subscription's
// limits. It watches the intents in etcd and stores nothing itself; a machine
// counts from the moment its vCPUs are reserved.
type Quota struct {
	mu       sync.Mutex
	machines map[string]charge // by intent key
	pending  map[string]charge // reserved, intent not seen yet
	limits   map[string]int    // "location/name" in lower case
	ready    chan struct{}
}

type charge struct {
	location string
	family   string // lower case
	cores    int
	spot     bool
}

func newQuota() *Quota {
	return &Quota{machines: map[string]charge{}, pending: map[string]charge{}, limits: map[string]int{}, ready: make(chan struct{})}
}

func chargeOf(location, size string, spot bool) charge {
	c := charge{location: location, spot: spot}
	if s, err := catalog.Lookup(location, size); err == nil {
		c.family, c.cores = strings.ToLower(s.QuotaFamily), s.VCPUs
	}
	return c
}

// Run watches etcd until ctx ends.
func (q *Quota) Run(ctx context.Context, kv *clientv3.Client, log *slog.Logger) {
	for first := true; ctx.Err() == nil; {
		rev, err := q.sync(ctx, kv)
		if err == nil {
			if first {
				close(q.ready)
				first = false
			}
			q.follow(ctx, kv, rev+1)
		} else if ctx.Err() == nil {
			log.Warn("reading machines for quota failed, retrying", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (q *Quota) sync(ctx context.Context, kv *clientv3.Client) (int64, error) {
	ms, err := kv.Get(ctx, intent.MachineIntentPrefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	ls, err := kv.Get(ctx, QuotaPrefix, clientv3.WithPrefix(), clientv3.WithRev(ms.Header.Revision))
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.machines)
	clear(q.limits)
	for _, x := range ms.Kvs {
		q.set(string(x.Key), x.Value)
	}
	for _, x := range ls.Kvs {
		q.setLimit(string(x.Key), x.Value)
	}
	return ms.Header.Revision, nil
}

func (q *Quota) set(key string, value []byte) {
	var m intent.MachineIntent
	if json.Unmarshal(value, &m) == nil {
		q.machines[key] = chargeOf(m.Location, m.VMSize, m.Spot)
		delete(q.pending, key)
	}
}

func (q *Quota) setLimit(key string, value []byte) {
	var n int
	if json.Unmarshal(value, &n) == nil {
		q.limits[strings.TrimPrefix(key, QuotaPrefix)] = n
	}
}

func (q *Quota) follow(ctx context.Context, kv *clientv3.Client, rev int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ms := kv.Watch(clientv3.WithRequireLeader(ctx), intent.MachineIntentPrefix, clientv3.WithPrefix(), clientv3.WithRev(rev))
	ls := kv.Watch(clientv3.WithRequireLeader(ctx), QuotaPrefix, clientv3.WithPrefix(), clientv3.WithRev(rev))
	for {
		select {
		case <-ctx.Done():
			return
		case r, ok := <-ms:
			if !ok || r.Err() != nil {
				return
			}
			q.mu.Lock()
			for _, ev := range r.Events {
				if ev.Type == clientv3.EventTypeDelete {
					delete(q.machines, string(ev.Kv.Key))
				} else {
					q.set(string(ev.Kv.Key), ev.Kv.Value)
				}
			}
			q.mu.Unlock()
		case r, ok := <-ls:
			if !ok || r.Err() != nil {
				return
			}
			q.mu.Lock()
			for _, ev := range r.Events {
				if ev.Type == clientv3.EventTypeDelete {
					delete(q.limits, strings.TrimPrefix(string(ev.Kv.Key), QuotaPrefix))
				} else {
					q.setLimit(string(ev.Kv.Key), ev.Kv.Value)
				}
			}
			q.mu.Unlock()
		}
	}
}

func (q *Quota) limit(location, name string) int {
	if n, ok := q.limits[location+"/"+strings.ToLower(name)]; ok {
		return n
	}
	switch name {
	case regionalCores:
		return DefaultRegionalLimit
	case spotCores:
		return DefaultSpotLimit
	}
	return DefaultFamilyLimit
}

// used returns the vCPUs in a location: of regular machines by family and in
// all, and of spot machines.
func (q *Quota) used(location string) (family map[string]int, regular, spot int) {
	family = map[string]int{}
	for _, set := range []map[string]charge{q.machines, q.pending} {
		for _, c := range set {
			switch {
			case c.location != location:
			case c.spot:
				spot += c.cores
			default:
				family[c.family] += c.cores
				regular += c.cores
			}
		}
	}
	return family, regular, spot
}

// Reserve reserves the vCPUs of a machine if the quotas allow them. key is the
// key of the machine's intent: the caller must write the intent or call Release.
// Reserving again for the same key succeeds. The error is Azure's
// OperationNotAllowed.
func (q *Quota) Reserve(ctx context.Context, key, location, size string, spot bool) error {
	select {
	case <-q.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	c := chargeOf(location, size, spot)
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.machines[key]; ok {
		return nil
	}
	if _, ok := q.pending[key]; ok {
		return nil
	}
	family, regular, spots := q.used(location)
	refuse := func(what string, limit, used int) error {
		return rp.Conflict("OperationNotAllowed", "Operation could not be completed as it results in exceeding approved %s quota. Additional details - Deployment Model: Resource Manager, Location: %s, Current Limit: %d, Current Usage: %d, Additional Required: %d, (Minimum) New Limit Required: %d.",
			what, location, limit, used, c.cores, used+c.cores)
	}
	if spot {
		if l := q.limit(location, spotCores); spots+c.cores > l {
			return refuse("LowPriorityCores", l, spots)
		}
	} else {
		if l := q.limit(location, c.family); c.family != "" && family[c.family]+c.cores > l {
			name := c.family
			if s, err := catalog.Lookup(location, size); err == nil {
				name = s.QuotaFamily
			}
			return refuse(name+" Family Cores", l, family[c.family])
		}
		if l := q.limit(location, regionalCores); regular+c.cores > l {
			return refuse("Total Regional Cores", l, regular)
		}
	}
	q.pending[key] = c
	return nil
}

// Release drops a reservation whose intent was not written.
func (q *Quota) Release(key string) {
	q.mu.Lock()
	delete(q.pending, key)
	q.mu.Unlock()
}

// usage is an element of the list of usages.
type usage struct {
	name, display string
	limit, used   int
}

func (q *Quota) usages(location string) ([]usage, error) {
	sizes, err := catalog.Sizes(location)
	if err != nil {
		return nil, fmt.Errorf("sizes of %s: %w", location, err)
	}
	names := map[string]string{}
	for _, s := range sizes {
		if s.QuotaFamily != "" {
			names[strings.ToLower(s.QuotaFamily)] = s.QuotaFamily
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	family, regular, spot := q.used(location)
	out := []usage{
		{regionalCores, "Total Regional vCPUs", q.limit(location, regionalCores), regular},
		{"virtualMachines", "Virtual Machines", 25_000, q.count(location)},
		{spotCores, "Total Regional Spot vCPUs", q.limit(location, spotCores), spot},
	}
	var rest []usage
	for lower, n := range names {
		rest = append(rest, usage{n, n + " vCPUs", q.limit(location, lower), family[lower]})
	}
	sort.Slice(rest, func(i, j int) bool { return rest[i].name < rest[j].name })
	return append(out, rest...), nil
}

func (q *Quota) count(location string) int {
	n := 0
	for _, c := range q.machines {
		if c.location == location {
			n++
		}
	}
	return n
}
