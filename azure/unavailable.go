package azure

import (
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/nap-aks/nap/azure/instancetype"
)

// unavailable remembers what could not be had and for how long not to ask
// again. A size that failed also rules out bigger sizes of its quota family in
// that place: where 8 cores were not to be had, 16 are not either.
type unavailable struct {
	clock clock.Clock

	mu       sync.Mutex
	sizes    map[place]time.Time
	families map[place]threshold
	allSpot  time.Time
	seq      uint64 // moves when an answer may have changed
}

type place struct {
	what string // size, or family in lower case
	zone string // number, or "0"
	spot bool
}

type threshold struct {
	vcpus int64 // sizes with at least so many are out
	until time.Time
}

func newUnavailable(c clock.Clock) *unavailable {
	return &unavailable{clock: c, sizes: map[place]time.Time{}, families: map[place]threshold{}}
}

// mark rules a size out in a zone for a while.
func (u *unavailable) mark(sku *instancetype.SKU, zone string, spot bool, ttl time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	u.sizes[place{sku.Name.Full, zone, spot}] = now.Add(ttl)
	if sku.QuotaFamily != "" {
		key := place{strings.ToLower(sku.QuotaFamily), zone, spot}
		t := threshold{vcpus: sku.VCPUs, until: now.Add(ttl)}
		if old, ok := u.families[key]; ok && old.until.After(now) {
			t.vcpus = min(t.vcpus, old.vcpus)
		}
		u.families[key] = t
	}
	u.seq++
}

// markAllSpot rules out spot machines of every size.
func (u *unavailable) markAllSpot(ttl time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.allSpot = u.clock.Now().Add(ttl)
	u.seq++
}

// is tells whether a size is ruled out now.
func (u *unavailable) is(sku *instancetype.SKU, zone string, spot bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	if spot && u.allSpot.After(now) {
		return true
	}
	if t, ok := u.families[place{strings.ToLower(sku.QuotaFamily), zone, spot}]; ok && t.until.After(now) && sku.VCPUs >= t.vcpus {
		return true
	}
	until, ok := u.sizes[place{sku.Name.Full, zone, spot}]
	return ok && until.After(now)
}

// version forgets what has run out and returns a number that moves whenever an
// answer may have changed.
func (u *unavailable) version() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	for k, until := range u.sizes {
		if !until.After(now) {
			delete(u.sizes, k)
			u.seq++
		}
	}
	for k, t := range u.families {
		if !t.until.After(now) {
			delete(u.families, k)
			u.seq++
		}
	}
	if !u.allSpot.IsZero() && !u.allSpot.After(now) {
		u.allSpot = time.Time{}
		u.seq++
	}
	return u.seq
}
