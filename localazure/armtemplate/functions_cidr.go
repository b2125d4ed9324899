// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package armtemplate

import (
	"math/big"
	"net/netip"
)

var cidrFunctions = map[string]builtin{
	"parseCidr": str1(func(s string) (any, error) {
		p, err := cidrArg(s)
		if err != nil {
			return nil, err
		}
		last := lastAddr(p)
		out := obj("network", p.Addr().String(), "netmask", netmask(p), "broadcast", nil, "firstUsable", p.Addr().String(), "lastUsable", last.String(), "cidr", int64(p.Bits()))
		if p.Addr().Is4() {
			out.set("broadcast", last.String())
			if p.Bits() < 31 {
				out.set("firstUsable", p.Addr().Next().String())
				out.set("lastUsable", last.Prev().String())
			}
		}
		return out, nil
	}),
	"cidrSubnet": {3, 3, func(_ *frame, a []any) (any, error) {
		p, n, err := cidrAndInt(a[0], a[2])
		if err != nil {
			return nil, err
		}
		bits, err := intArg(a[1])
		if err != nil {
			return nil, err
		}
		if bits < int64(p.Bits()) || bits > int64(p.Addr().BitLen()) || n < 0 {
			return nil, failf("the new prefix length %d must be from %d to %d, and the index not negative", bits, p.Bits(), p.Addr().BitLen())
		}
		step := new(big.Int).Lsh(big.NewInt(n), uint(p.Addr().BitLen())-uint(bits))
		addr, ok := offsetAddr(p.Addr(), step)
		if !ok || !p.Contains(addr) {
			return nil, failf("subnet %d of length /%d is not inside %s", n, bits, p)
		}
		return netip.PrefixFrom(addr, int(bits)).String(), nil
	}},
	"cidrHost": {2, 2, func(_ *frame, a []any) (any, error) {
		p, n, err := cidrAndInt(a[0], a[1])
		if err != nil {
			return nil, err
		}
		if n < 0 {
			return nil, failf("the index must not be negative")
		}
		first := big.NewInt(n)
		if p.Addr().Is4() && p.Bits() < 31 {
			first.Add(first, big.NewInt(1))
		}
		addr, ok := offsetAddr(p.Addr(), first)
		if !ok || !p.Contains(addr) {
			return nil, failf("host %d is not inside %s", n, p)
		}
		return addr.String(), nil
	}},
}

func cidrArg(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, failf("'%s' is not a network in CIDR notation", clip(s))
	}
	return p.Masked(), nil
}

func cidrAndInt(a, b any) (netip.Prefix, int64, error) {
	s, err := strArg(a)
	if err != nil {
		return netip.Prefix{}, 0, err
	}
	p, err := cidrArg(s)
	if err != nil {
		return p, 0, err
	}
	n, err := intArg(b)
	return p, n, err
}

func offsetAddr(a netip.Addr, by *big.Int) (netip.Addr, bool) {
	raw := a.AsSlice()
	sum := new(big.Int).Add(new(big.Int).SetBytes(raw), by)
	if sum.BitLen() > len(raw)*8 {
		return a, false
	}
	out, ok := netip.AddrFromSlice(sum.FillBytes(make([]byte, len(raw))))
	return out, ok
}

func lastAddr(p netip.Prefix) netip.Addr {
	hosts := uint(p.Addr().BitLen() - p.Bits())
	span := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), hosts), big.NewInt(1))
	a, _ := offsetAddr(p.Addr(), span)
	return a
}

func netmask(p netip.Prefix) string {
	raw := make([]byte, len(p.Addr().AsSlice()))
	for i := range p.Bits() {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(raw)
	return a.String()
}
