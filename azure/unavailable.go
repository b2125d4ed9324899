// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/nap-aks/nap/azure/instancetype"
)

// unavailable holds the offerings that failed to launch, each with an expiry. A
// failed size also makes larger sizes of its quota family unavailable in the same
// zone and capacity type: without capacity for 8 vCPUs there is none for 16.
type unavailable struct {
	clock clock.Clock

	mu       sync.Mutex
	sizes    map[offeringKey]time.Time
	families map[offeringKey]threshold
	allSpot  time.Time
	seq      uint64 // incremented when an answer may have changed
}

type offeringKey struct {
	what string // size, or quota family in lower case
	zone string // zone number, or "0"
	spot bool
}

type threshold struct {
	vcpus int64 // sizes with at least this many are unavailable
	until time.Time
}

func newUnavailable(c clock.Clock) *unavailable {
	return &unavailable{clock: c, sizes: map[offeringKey]time.Time{}, families: map[offeringKey]threshold{}}
}

// mark marks a size unavailable in a zone for the duration ttl.
func (u *unavailable) mark(sku *instancetype.SKU, zone string, spot bool, ttl time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	u.sizes[offeringKey{sku.Name.Full, zone, spot}] = now.Add(ttl)
	if sku.QuotaFamily != "" {
		key := offeringKey{strings.ToLower(sku.QuotaFamily), zone, spot}
		t := threshold{vcpus: sku.VCPUs, until: now.Add(ttl)}
		if old, ok := u.families[key]; ok && old.until.After(now) {
			t.vcpus = min(t.vcpus, old.vcpus)
		}
		u.families[key] = t
	}
	u.seq++
}

// markAllSpot marks the spot offerings of all sizes unavailable.
func (u *unavailable) markAllSpot(ttl time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.allSpot = u.clock.Now().Add(ttl)
	u.seq++
}

// has reports whether an offering is unavailable now.
func (u *unavailable) has(sku *instancetype.SKU, zone string, spot bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.clock.Now()
	if spot && u.allSpot.After(now) {
		return true
	}
	if t, ok := u.families[offeringKey{strings.ToLower(sku.QuotaFamily), zone, spot}]; ok && t.until.After(now) && sku.VCPUs >= t.vcpus {
		return true
	}
	until, ok := u.sizes[offeringKey{sku.Name.Full, zone, spot}]
	return ok && until.After(now)
}

// version removes expired entries and returns a number that increases whenever an
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
