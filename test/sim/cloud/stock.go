// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"fmt"
	"slices"
	"strings"
)

// StockOut is a set of offerings that Azure has no machines of. Empty fields match all.
type StockOut struct {
	Size, Family string // "Standard_D4s_v5"; "D" or "standardDSv5Family"
	Zone         string // "1" or "eastus-1"
	CapacityType string // "spot" or "on-demand"
	// Code is Azure's error code: AllocationFailed, SkuNotAvailable and so on. Empty
	// means SkuNotAvailable for spot machines, and for others ZonalAllocationFailed or,
	// outside of zones, AllocationFailed.
	Code string
	// AtOnce is whether the request for a machine is refused, rather than accepted and
	// its operation failing later.
	AtOnce bool
}

// SellOut makes Azure have no machines of some offerings, until restock is called.
func (c *Cloud) SellOut(s StockOut) (restock func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := &s
	c.soldOut = append(c.soldOut, entry)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.soldOut = slices.DeleteFunc(c.soldOut, func(x *StockOut) bool { return x == entry })
	}
}

// has reports whether a machine is of the offerings. The caller holds the lock.
func (s *StockOut) has(c *Cloud, m *Machine) bool {
	return (s.Size == "" || strings.EqualFold(s.Size, m.Size)) &&
		(s.Family == "" || isFamily(c.sizes[strings.ToLower(m.Size)], s.Family)) &&
		(s.Zone == "" || s.Zone == m.Zone || m.Zone != "" && strings.EqualFold(s.Zone, c.options.Location+"-"+m.Zone)) &&
		(s.CapacityType == "" || s.CapacityType == m.CapacityType)
}

// shortage returns the stock-out that a machine meets, with Azure's code and message,
// or nil. The caller holds the lock.
func (c *Cloud) shortage(m *Machine) (s *StockOut, code, message string) {
	for _, s := range c.soldOut {
		if s.has(c, m) {
			code, message := s.error(c, m)
			return s, code, message
		}
	}
	return nil, "", ""
}

// error returns what Azure says about a machine that it does not have.
func (s *StockOut) error(c *Cloud, m *Machine) (code, message string) {
	code = s.Code
	if code == "" {
		switch code = "AllocationFailed"; {
		case m.CapacityType == spotType:
			code = "SkuNotAvailable"
		case m.Zone != "":
			code = "ZonalAllocationFailed"
		}
	}
	switch code {
	case "SkuNotAvailable":
		return code, fmt.Sprintf("The requested VM size %s is currently not available in location '%s' for this subscription. Try another size, or another location or zone.", m.Size, c.options.Location)
	case "ZonalAllocationFailed":
		return code, fmt.Sprintf("Allocation failed. There is not enough capacity for the requested VM size %s in zone %s of %s.", m.Size, m.Zone, c.options.Location)
	}
	return code, fmt.Sprintf("Allocation failed. There is not enough capacity for the requested VM size %s in %s.", m.Size, c.options.Location)
}
