// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v8"
	"k8s.io/utils/clock"

	"github.com/nap-aks/nap/azure/instancetype"
)

// quotaStale is how long usages are used after the last successful read. After that
// quotas are not enforced.
const quotaStale = 15 * time.Minute

// quota tracks the free vCPUs of each quota. Azure reports usage late, so quota adds
// the machines that were requested since the last report.
type quota struct {
	clock clock.Clock
	fetch func(context.Context) (map[string]usage, error)

	mu       sync.Mutex
	usages   map[string]usage // by lower-case name
	read     time.Time        // last success
	pending  map[uint64]pendingCores
	reserved map[string]int64 // sum of pending by quota name
	nextID   uint64
	seq      uint64
}

// ampleVCPUs is a number of free vCPUs with which every size is far below the limit,
// so that a change in usage changes no answer.
const ampleVCPUs = 1024

type usage struct {
	current, limit int64
	name, title    string
}

type pendingCores struct {
	family string
	spot   bool
	vcpus  int64
	// settled is when the machine was seen to exist. Usages that were read later
	// include it.
	settled time.Time
}

func newQuota(c clock.Clock, fetch func(context.Context) (map[string]usage, error)) *quota {
	return &quota{clock: c, fetch: fetch, usages: map[string]usage{}, pending: map[uint64]pendingCores{}, reserved: map[string]int64{}}
}

// refresh reads the usages. After an error the old ones are kept until quotaStale.
func (q *quota) refresh(ctx context.Context) error {
	started := q.clock.Now()
	usages, err := q.fetch(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		if len(q.usages) > 0 && q.clock.Since(q.read) > quotaStale {
			q.usages = map[string]usage{}
			q.seq++
		}
		return fmt.Errorf("reading compute usages: %w", err)
	}
	if !maps.Equal(q.usages, usages) {
		q.seq++
	}
	q.usages, q.read = usages, started
	for id, p := range q.pending {
		if !p.settled.IsZero() && p.settled.Before(started) {
			q.drop(id, p)
		}
	}
	return nil
}

// allows reports whether a machine of the size fits within all known quotas.
func (q *quota) allows(sku *instancetype.SKU, spot bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.allowsLocked(sku.QuotaFamily, sku.VCPUs, spot)
}

func (q *quota) allowsLocked(family string, vcpus int64, spot bool) bool {
	for _, name := range instancetype.QuotaNames(family, spot) {
		u, ok := q.usages[name]
		if !ok {
			continue
		}
		if u.current+q.reserved[name]+vcpus > u.limit {
			return false
		}
	}
	return true
}

// report returns the known usages, plus the machines created since they were read.
// Machines that Azure has not confirmed are left out: their NodeClaims have no
// provider ID yet, and the planner counts those itself.
func (q *quota) report() []instancetype.Usage {
	q.mu.Lock()
	defer q.mu.Unlock()
	since := map[string]int64{}
	for _, p := range q.pending {
		if p.settled.IsZero() {
			continue
		}
		for _, name := range instancetype.QuotaNames(p.family, p.spot) {
			since[name] += p.vcpus
		}
	}
	out := make([]instancetype.Usage, 0, len(q.usages))
	for key, u := range q.usages {
		out = append(out, instancetype.Usage{Name: u.name, Title: u.title, Used: u.current + since[key], Limit: u.limit})
	}
	return out
}

// reservation is the quota of one in-flight machine.
type reservation struct {
	q  *quota
	id uint64
}

// reserve checks the quota and reserves the vCPUs of a machine in one step, so that
// two launches cannot both use the last ones. It returns false if they are not
// available.
func (q *quota) reserve(sku *instancetype.SKU, spot bool) (reservation, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.allowsLocked(sku.QuotaFamily, sku.VCPUs, spot) {
		return reservation{}, false
	}
	q.nextID++
	q.pending[q.nextID] = pendingCores{family: sku.QuotaFamily, spot: spot, vcpus: sku.VCPUs}
	q.count(sku.QuotaFamily, spot, sku.VCPUs)
	return reservation{q, q.nextID}, true
}

// release returns the vCPUs: the machine was not created.
func (r reservation) release() {
	if r.q == nil {
		return
	}
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	if p, ok := r.q.pending[r.id]; ok {
		r.q.drop(r.id, p)
	}
}

// settle records that the machine exists: the next read of usages includes it.
func (r reservation) settle() {
	if r.q == nil {
		return
	}
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	if p, ok := r.q.pending[r.id]; ok {
		p.settled = r.q.clock.Now()
		r.q.pending[r.id] = p
	}
}

// drop removes a reservation.
func (q *quota) drop(id uint64, p pendingCores) {
	delete(q.pending, id)
	q.count(p.family, p.spot, -p.vcpus)
}

// count adds in-flight vCPUs to the quotas they count against, and increments seq
// if that may change an answer.
func (q *quota) count(family string, spot bool, vcpus int64) {
	for _, name := range instancetype.QuotaNames(family, spot) {
		q.reserved[name] += vcpus
		if u, ok := q.usages[name]; ok && u.limit-u.current-q.reserved[name]-max(vcpus, 0) < ampleVCPUs {
			q.seq++
		}
	}
}

func (q *quota) version() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.seq
}

func listUsages(client *armcompute.UsageClient, region string) func(context.Context) (map[string]usage, error) {
	return func(ctx context.Context) (map[string]usage, error) {
		out := map[string]usage{}
		pager := client.NewListPager(region, nil)
		for pager.More() {
			page, err := pager.NextPage(ctx)
			if err != nil {
				return nil, err
			}
			for _, u := range page.Value {
				if u == nil || u.Name == nil || u.Name.Value == nil || u.CurrentValue == nil || u.Limit == nil {
					continue
				}
				title := ""
				if u.Name.LocalizedValue != nil {
					title = *u.Name.LocalizedValue
				}
				out[strings.ToLower(*u.Name.Value)] = usage{current: int64(*u.CurrentValue), limit: *u.Limit, name: *u.Name.Value, title: title}
			}
		}
		return out, nil
	}
}
