// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Budget is how many requests of a kind Azure takes: Burst at once, and PerSecond
// again.
type Budget struct {
	Burst     int
	PerSecond float64
}

// Kinds of requests that have budgets.
const (
	// Reads and Writes are those of Azure Resource Manager.
	Reads  = "reads"
	Writes = "writes"
	// AKS are the requests to the AKS resource provider, reads and writes together.
	AKS = "aks"
)

// AzureBudgets returns the budgets that Azure documents for a subscription in one
// region: Azure Resource Manager's, and the AKS resource provider's for requests that
// have no budget of their own.
func AzureBudgets() map[string]Budget {
	return map[string]Budget{Reads: {250, 25}, Writes: {200, 10}, AKS: {60, 1}}
}

// bucket is a token bucket.
type bucket struct {
	Budget
	tokens float64
	at     time.Time // when tokens was true
}

// wait returns how long it takes until the bucket has a token.
func (b *bucket) wait() time.Duration {
	now := time.Now()
	b.tokens = min(float64(b.Burst), b.tokens+now.Sub(b.at).Seconds()*b.PerSecond)
	b.at = now
	if b.tokens >= 1 {
		return 0
	}
	if b.PerSecond <= 0 {
		return time.Hour
	}
	return time.Duration((1 - b.tokens) / b.PerSecond * float64(time.Second))
}

// kindsOf returns which budgets a request takes from.
func kindsOf(call Call) []string {
	kind := Reads
	if call.Method != http.MethodGet {
		kind = Writes
	}
	switch call.Operation {
	case "token", "prices":
		return nil
	case "cluster", "images", "machines", "machine", "delete":
		return []string{kind, AKS}
	}
	return []string{kind}
}

// throttle returns the refusal of a request for which a budget has no token, and takes
// one from each budget otherwise.
func (c *Cloud) throttle(call Call) (reply, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	longest, worst := time.Duration(0), ""
	kinds := kindsOf(call)
	for _, kind := range kinds {
		if b := c.buckets[kind]; b != nil {
			if d := b.wait(); d > longest {
				longest, worst = d, kind
			}
		}
	}
	if worst != "" {
		c.refused++
		a := refuse(http.StatusTooManyRequests, "SubscriptionRequestsThrottled", "The number of %s requests of subscription %s exceeds what is allowed. Try again after %d seconds.", worst, Subscription, seconds(longest))
		a.header = http.Header{"Retry-After": {strconv.Itoa(seconds(longest))}}
		return a, true
	}
	for _, kind := range kinds {
		if b := c.buckets[kind]; b != nil {
			b.tokens--
		}
	}
	return reply{}, false
}

// SetBudget changes the budget of a kind of requests, which is full at first; a burst
// of zero means that the kind is not limited.
func (c *Cloud) SetBudget(kind string, b Budget) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.buckets, kind)
	if b.Burst > 0 {
		c.buckets[kind] = &bucket{Budget: b, tokens: float64(b.Burst), at: time.Now()}
	}
}

// seconds rounds up to whole seconds.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// Calls returns how many requests were made, by method and operation ("PUT machine"),
// and how many of them were throttled.
func (c *Cloud) Calls() (byKind map[string]int, throttled int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int, len(c.calls))
	for k, n := range c.calls {
		out[k] = n
	}
	return out, c.refused
}

// count counts a request.
func (c *Cloud) count(call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[fmt.Sprintf("%s %s", call.Method, call.Operation)]++
}
