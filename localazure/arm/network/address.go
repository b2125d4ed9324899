// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package network

import (
	"math/big"
	"net/netip"

	"github.com/nap-aks/nap/localazure/arm/rp"
)

// reservedAddresses is the number of addresses of a subnet that Azure reserves:
// network, gateway, two for DNS, and broadcast.
const reservedAddresses = 5

// unusable are ranges that no virtual network can have.
var unusable = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("168.63.129.16/32"),
}

// parsePrefix parses an address range and checks that its host bits are 0. what
// and target name it in the error.
func parsePrefix(s, what, target string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, rp.BadRequest("InvalidAddressPrefixFormat", "Address prefix %s of %s is not formatted correctly. It should follow CIDR notation, for example 10.0.0.0/24.", quoted(s), what).At(target)
	}
	if m := p.Masked(); m != p {
		return p, rp.BadRequest("InvalidCIDRNotation", "The address prefix %s of %s has an invalid CIDR notation. For the given prefix length, the address prefix should be %s.", s, what, m).At(target)
	}
	for _, u := range unusable {
		if u.Overlaps(p) {
			return p, rp.BadRequest("AddressPrefixReserved", "The address prefix %s of %s overlaps with %s, which is reserved.", s, what, u).At(target)
		}
	}
	return p, nil
}

func quoted(s string) string {
	if s == "" {
		return "'' (empty)"
	}
	return s
}

// usable returns the number of addresses of a range that resources can have, or
// the largest int if there are more.
func usable(p netip.Prefix) int {
	n := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
	n.Sub(n, big.NewInt(reservedAddresses))
	if !n.IsInt64() {
		return int(^uint(0) >> 1)
	}
	return max(0, int(n.Int64()))
}

// inside reports whether one of the ranges contains p.
func inside(p netip.Prefix, ranges []netip.Prefix) bool {
	for _, r := range ranges {
		if r.Addr().BitLen() == p.Addr().BitLen() && r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// firstOverlap returns the first of ranges that overlaps p.
func firstOverlap(p netip.Prefix, ranges []netip.Prefix) (netip.Prefix, bool) {
	for _, r := range ranges {
		if r.Overlaps(p) {
			return r, true
		}
	}
	return netip.Prefix{}, false
}
