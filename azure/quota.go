package azure

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/nap-aks/nap/azure/instancetype"
)

// quotaStale is how long usages are believed after they could last be read;
// afterwards everything counts as allowed.
const quotaStale = 15 * time.Minute

// quota knows how many vCPUs of each family may still be bought. Azure reports
// usage late, so machines asked for since the last report are counted here.
type quota struct {
	clock clock.Clock
	fetch func(context.Context) (map[string]usage, error)

	mu      sync.Mutex
	usages  map[string]usage // by lower-case name
	read    time.Time        // last success
	pending map[uint64]pendingCores
	taken   map[string]int64 // sum of pending by quota name
	nextID  uint64
	seq     uint64
}

// roomy is a number of free vCPUs above which no size is near the limit, so
// that a change of usage changes no answer.
const roomy = 1024

type usage struct {
	current, limit int64
	name, title    string
}

type pendingCores struct {
	family string
	spot   bool
	vcpus  int64
	// settled is when the machine was seen to exist; usage reads that started
	// later count it already.
	settled time.Time
}

func newQuota(c clock.Clock, fetch func(context.Context) (map[string]usage, error)) *quota {
	return &quota{clock: c, fetch: fetch, usages: map[string]usage{}, pending: map[uint64]pendingCores{}, taken: map[string]int64{}}
}

// refresh reads usages anew. On an error the old ones stay, for a while.
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
	if !equalUsages(q.usages, usages) {
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

func equalUsages(a, b map[string]usage) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// allows tells whether a machine of the size is within every quota known.
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
		if u.current+q.taken[name]+vcpus > u.limit {
			return false
		}
	}
	return true
}

// report lists the usages known, with the machines that exist since they were
// read. Machines that Azure has not confirmed yet are left out: their NodeClaims
// have no provider ID, and whoever plans counts those.
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

// reservation is the share of quota of one machine under way.
type reservation struct {
	q  *quota
	id uint64
}

// reserve takes the cores of a machine off the quota, at once with the check,
// so that two launches cannot both take the last ones. It is false when they
// are not there.
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

// release gives the cores back: there will be no machine.
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

// settle says that the machine exists: the next reading of usages counts it.
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

// drop ends a reservation.
func (q *quota) drop(id uint64, p pendingCores) {
	delete(q.pending, id)
	q.count(p.family, p.spot, -p.vcpus)
}

// count adds cores under way to the quotas they count against, and notes when
// that may change an answer.
func (q *quota) count(family string, spot bool, vcpus int64) {
	for _, name := range instancetype.QuotaNames(family, spot) {
		q.taken[name] += vcpus
		if u, ok := q.usages[name]; ok && u.limit-u.current-q.taken[name]-max(vcpus, 0) < roomy {
			q.seq++
		}
	}
}

func (q *quota) version() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.seq
}
