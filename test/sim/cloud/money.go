// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/nap-aks/nap/catalog"
)

// nano is the unit of money: billionths of a dollar, so that sums and the integral are
// exact and do not depend on an order.
const nano = 1e9

// account adds up what machines cost.
type account struct {
	rate   int64     // now, in nano-dollars an hour
	since  time.Time // up to when the sum goes
	hi, lo uint64    // the sum in nano-dollars times nanoseconds an hour, 128 bits
}

// settle adds the cost since the last change.
func (a *account) settle() {
	now := time.Now()
	hi, lo := bits.Mul64(uint64(a.rate), uint64(now.Sub(a.since)))
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, lo, 0)
	a.hi, _ = bits.Add64(a.hi, hi, carry)
	a.since = now
}

// add changes the rate by so many dollars an hour.
func (a *account) add(usdPerHour float64) {
	a.settle()
	a.rate += int64(math.Round(usdPerHour * nano))
}

// usd returns the sum in dollars.
func (a *account) usd() float64 {
	return (float64(a.hi)*math.Pow(2, 64) + float64(a.lo)) / nano / float64(time.Hour)
}

// Cost returns what all machines have cost so far, in USD, and what they cost per hour
// now. A machine costs from its running to its end.
func (c *Cloud) Cost() (usd, perHour float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.account.settle()
	return c.account.usd(), float64(c.account.rate) / nano
}

// priceChange multiplies the list prices of some offerings. Empty fields match all.
type priceChange struct {
	size, family, capacityType string
	times                      float64
}

// price returns what a machine costs now, in USD per hour, rounded to nano-dollars.
// The caller holds the lock.
func (c *Cloud) price(s *catalog.Size, spot bool) float64 {
	usd, capacityType := s.OnDemandUSDPerHour, onDemand
	if spot {
		usd, capacityType = s.SpotUSDPerHour, spotType
	}
	times := 1.0
	for _, p := range c.prices { // the latest change holds
		if (p.size == "" || strings.EqualFold(p.size, s.Name)) && (p.family == "" || isFamily(s, p.family)) && (p.capacityType == "" || p.capacityType == capacityType) {
			times = p.times
		}
	}
	return math.Round(usd*times*nano) / nano
}

// isFamily reports whether a size is of a family: the letters of its name ("D"), or
// the family of its quota ("standardDSv5Family").
func isFamily(s *catalog.Size, family string) bool {
	return strings.EqualFold(s.Family, family) || strings.EqualFold(s.QuotaFamily, family)
}

// Family returns the letters of the family of a size ("D" of Standard_D4s_v5), or ""
// if the location does not have the size.
func (c *Cloud) Family(size string) string {
	if s := c.sizes[strings.ToLower(size)]; s != nil {
		return s.Family
	}
	return ""
}

// SetPrice multiplies the list prices of offerings, also for machines that run. Empty
// fields match all. Of changes that match an offering the latest holds: 1 takes earlier
// ones back. The provider sees it when it next reads prices.
func (c *Cloud) SetPrice(size, family, capacityType string, times float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := priceChange{size, family, capacityType, times}
	c.prices = append(slices.DeleteFunc(c.prices, func(x priceChange) bool {
		return x.size == p.size && x.family == p.family && x.capacityType == p.capacityType
	}), p)
	for _, m := range c.list() {
		before := m.USDPerHour
		m.USDPerHour = c.price(c.sizes[strings.ToLower(m.Size)], m.CapacityType == spotType)
		if m.costs {
			c.account.add(m.USDPerHour - before)
		}
	}
}
