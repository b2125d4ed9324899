// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math/bits"
	"slices"
)

// ledger records what the machines of a pass leave of NodePool limits, quotas
// and capacity reservations.
//
// Invariant: an amount left is the amount of the snapshot less what the machines
// drew. draw and refund are inverses of each other, and machines is the number
// of draws that have not been refunded.
type ledger struct {
	cat    *catalog
	quotas []Quota

	limits           [][]limitLeft // by pool of the catalogue
	reservationsLeft []int64
	// Quotas are rarely near, so a pass does not enforce them until a plan has
	// turned out to overdraw one. Until then quotasLeft is empty.
	enforceQuotas bool
	quotasLeft    []int64
	unenforced    []int64 // what a plan that did not enforce the quotas leaves
	machines      int
	// refused is set when a limit or a quota has ruled out a machine.
	refused bool
}

// limitLeft is what is left of one limit of a NodePool.
type limitLeft struct {
	name string
	left int64
}

func newLedger(cat *catalog, quotas []Quota) ledger {
	l := ledger{cat: cat, quotas: quotas}
	l.reset()
	return l
}

// reset forgets all machines.
func (l *ledger) reset() {
	l.machines, l.refused = 0, false
	l.limits = make([][]limitLeft, len(l.cat.pools))
	for i := range l.cat.pools {
		p := l.cat.pools[i].p
		for _, name := range l.cat.pools[i].limits {
			l.limits[i] = append(l.limits[i], limitLeft{name, p.Limits[name] - p.Usage[name]})
		}
	}
	l.quotasLeft = l.quotasLeft[:0]
	if l.enforceQuotas {
		for i := range l.quotas {
			l.quotasLeft = append(l.quotasLeft, l.quotas[i].Remaining)
		}
	}
	l.reservationsLeft = append(l.reservationsLeft[:0], l.cat.resLeft...)
}

// draw takes what a machine of a column needs.
func (l *ledger) draw(col int32) { l.book(col, 1) }

// refund gives back what a machine of a column drew.
func (l *ledger) refund(col int32) { l.book(col, -1) }

func (l *ledger) book(col int32, sign int64) {
	l.machines += int(sign)
	cc := &l.cat.cols[col]
	k := &l.cat.kinds[cc.kind]
	for i, take := range k.takes {
		l.limits[k.pool][i].left -= sign * take
	}
	if cc.reserve >= 0 {
		l.reservationsLeft[cc.reserve] -= sign
	}
	if !l.enforceQuotas {
		return
	}
	for _, q := range cc.off.Charges {
		l.quotasLeft[q.Quota] -= sign * q.Amount
	}
}

// withinLimits reports whether the limits of its pool leave room for one more
// machine of a kind.
func (l *ledger) withinLimits(k *kind) bool {
	for i, take := range k.takes {
		if take > l.limits[k.pool][i].left {
			return false
		}
	}
	return true
}

// withinQuotas reports whether reservation and quotas leave room for one more
// machine of a column.
func (l *ledger) withinQuotas(col int32) bool {
	cc := &l.cat.cols[col]
	if cc.reserve >= 0 && l.reservationsLeft[cc.reserve] <= 0 {
		return false
	}
	if !l.enforceQuotas {
		return true
	}
	for _, q := range cc.off.Charges {
		if l.quotasLeft[q.Quota] < q.Amount {
			l.refused = true
			return false
		}
	}
	return true
}

// usable reports whether one more machine of a column can be created.
func (l *ledger) usable(col int32) bool {
	return l.withinLimits(&l.cat.kinds[l.cat.cols[col].kind]) && l.withinQuotas(col)
}

// usableColumn returns the cheapest column of a kind in the mask that can be
// created, or -1.
func (l *ledger) usableColumn(mask bitset, ki int32) int32 {
	k := &l.cat.kinds[ki]
	if !mask.anyIn(k.lo, k.hi) {
		return -1
	}
	if !l.withinLimits(k) {
		l.refused = true
		return -1
	}
	for col := mask.next(k.lo, k.hi); col < k.hi; col = mask.next(col+1, k.hi) {
		if l.withinQuotas(col) {
			return col
		}
	}
	return -1
}

// anyUsable reports whether a column that is in both sets can be created.
func (l *ledger) anyUsable(row, mask bitset) bool {
	if !row.meets(mask) {
		return false
	}
	free := true
	for i := range l.limits {
		free = free && l.unconstrained(int32(i))
	}
	if free {
		return true
	}
	refused := l.refused
	defer func() { l.refused = refused }()
	for i, w := range row {
		for w &= mask[i]; w != 0; w &= w - 1 {
			if l.usable(int32(i*64 + bits.TrailingZeros64(w))) {
				return true
			}
		}
	}
	return false
}

// unconstrained reports that any planned machine of a pool could be of any other
// column of the pool: no limit, quota or reservation can prevent it.
func (l *ledger) unconstrained(pool int32) bool {
	if len(l.quotasLeft) > 0 || len(l.reservationsLeft) > 0 {
		return false
	}
	for i, most := range l.cat.pools[pool].most {
		if left := l.limits[pool][i].left; left < 0 || left/int64(l.machines+1) < most {
			return false
		}
	}
	return true
}

// canSwap reports whether a machine may change from one column to another of its
// pool.
func (l *ledger) canSwap(from, to int32) bool {
	if l.unconstrained(l.cat.cols[from].pool) {
		return true
	}
	refused := l.refused
	l.refund(from)
	ok := l.usable(to)
	l.draw(from)
	l.refused = refused
	return ok
}

// canFallBack reports whether every planned machine of the pool could be of kind
// other instead of kind booked without exceeding a limit.
func (l *ledger) canFallBack(booked, other int32) bool {
	b, o := &l.cat.kinds[booked], &l.cat.kinds[other]
	for _, limit := range l.limits[b.pool] {
		if limit.name == ResourceNodes {
			continue
		}
		extra := o.capacity[limit.name] - b.capacity[limit.name]
		if extra > 0 && extra > limit.left/int64(1+l.machines) {
			return false
		}
	}
	return true
}

// share returns the largest share of a limit or quota that a machine of a column
// takes of what is left, plus a little of its price to break ties.
func (l *ledger) share(col int32) float64 {
	cc := &l.cat.cols[col]
	k := &l.cat.kinds[cc.kind]
	share := 0.0
	take := func(need, left int64) {
		if left > 0 {
			share = max(share, float64(need)/float64(left))
		}
	}
	for i, need := range k.takes {
		take(need, l.limits[k.pool][i].left)
	}
	if l.enforceQuotas {
		for _, q := range cc.off.Charges {
			take(q.Amount, l.quotasLeft[q.Quota])
		}
	}
	return share + 1e-6*cc.price
}

// overdrawn reports whether machines need more than is left of a quota that was
// not enforced. It also notes what they leave, for explanations.
func (l *ledger) overdrawn(machines []*plannedMachine) bool {
	if l.enforceQuotas || len(l.quotas) == 0 {
		return false
	}
	left := make([]int64, len(l.quotas))
	for i := range left {
		left[i] = l.quotas[i].Remaining
	}
	for _, m := range machines {
		if len(m.pods) == 0 {
			continue
		}
		for _, q := range l.cat.cols[m.col].off.Charges {
			left[q.Quota] -= q.Amount
		}
	}
	l.unenforced = left
	return slices.ContainsFunc(left, func(n int64) bool { return n < 0 })
}

// unlimited reports whether there are no limits, enforced quotas or reservations.
func (l *ledger) unlimited() bool {
	for i := range l.limits {
		if len(l.limits[i]) > 0 {
			return false
		}
	}
	return len(l.quotasLeft) == 0 && len(l.reservationsLeft) == 0
}

// afterPlan returns what the plan leaves of each quota, enforced or not.
func (l *ledger) afterPlan() []int64 {
	if l.enforceQuotas {
		return l.quotasLeft
	}
	return l.unenforced
}

// shortQuota returns the first charge of a column that exceeds what the plan
// leaves of its quota, or nil.
func (l *ledger) shortQuota(col int32) *QuotaCharge {
	left := l.afterPlan()
	charges := l.cat.cols[col].off.Charges
	for i := range charges {
		if left[charges[i].Quota] < charges[i].Amount {
			return &charges[i]
		}
	}
	return nil
}

// clearBeyondLimits removes the columns that the limits rule out.
func (l *ledger) clearBeyondLimits(row bitset) {
	for i := range l.cat.kinds {
		if k := &l.cat.kinds[i]; !l.withinLimits(k) {
			row.clearRange(k.lo, k.hi)
		}
	}
}

// clearBeyondQuotas removes the columns that the quotas rule out.
func (l *ledger) clearBeyondQuotas(row bitset) {
	for i := range l.cat.cols {
		if l.shortQuota(int32(i)) != nil {
			row.clear(int32(i))
		}
	}
}

// clearUsedReservations removes the columns of reservations that are used up.
func (l *ledger) clearUsedReservations(row bitset) {
	for i := range l.cat.cols {
		if r := l.cat.cols[i].reserve; r >= 0 && l.reservationsLeft[r] <= 0 {
			row.clear(int32(i))
		}
	}
}
