// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package snapshot

import "slices"

// Withdraw makes the next snapshots ones without the machines of the NodeClaims, as if
// they had not been bought, and suspends the pods assumed on them: all these pods are
// planned for again. It returns the number of the pods. Reinstate undoes it.
func (c *Cache) Withdraw(claims []string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range claims {
		if m := c.byClaim[name]; m != nil {
			m.withdrawn, m.stale = true, true
		}
	}
	return c.assumed.suspend(func(on string) bool { return slices.Contains(claims, on) })
}

// Reinstate undoes Withdraw: the machines are in the next snapshots, and the pods that
// are still suspended are assumed where they were.
func (c *Cache) Reinstate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reinstate()
	c.assumed.resume()
}

// Revised ends Withdraw in favour of the new plan: the machines are in the next
// snapshots, and the suspended pods are free to be assumed elsewhere.
func (c *Cache) Revised() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reinstate()
	c.assumed.forgetSuspended()
}

func (c *Cache) reinstate() {
	for _, m := range c.byClaim {
		if m.withdrawn {
			m.withdrawn, m.stale = false, true
		}
	}
}

// Machine returns the objects of a NodeClaim's machine; the claim is nil if the cache
// has none of that name.
func (c *Cache) Machine(claim string) NodeRef {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.byClaim[claim]
	if m == nil {
		return NodeRef{}
	}
	return NodeRef{Node: m.node, Claim: m.claim}
}

// AssumedByPlace returns the assumed pods of each node or NodeClaim, and whether the
// engine chose the place of all of them. Suspended pods are left out.
func (c *Cache) AssumedByPlace() map[string]Assumed {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]Assumed{}
	for key, as := range c.assumed.pods {
		a := out[as.on]
		a.Pods = append(a.Pods, key)
		a.Fixed = a.Fixed || as.fixed
		out[as.on] = a
	}
	return out
}

// Assumed are the pods assumed on one node or NodeClaim.
type Assumed struct {
	Pods []string
	// Fixed is whether the place of any of them must not be changed.
	Fixed bool
}
