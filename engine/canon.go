// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"strconv"
)

// canon appends an unambiguous text form of what scheduling can see of a class.
// Classes with equal texts are the same.
func (p *PodClass) canon(b []byte) []byte {
	num := func(n int) { b = append(strconv.AppendInt(b, int64(n), 10), ',') }
	str := func(s string) {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
		b = append(b, s...)
	}
	flag := func(f bool) { b = strconv.AppendBool(b, f) }
	reqs := func(rs []Requirement) {
		b = append(b, '[')
		num(len(rs))
		for i := range rs {
			str(rs[i].Key)
			str(string(rs[i].Operator))
			num(len(rs[i].Values))
			for _, v := range rs[i].Values {
				str(v)
			}
		}
	}
	sel := func(s *Selector) {
		if s == nil {
			b = append(b, '-')
			return
		}
		reqs(s.Requirements)
	}
	str(p.Namespace)
	var room [16]string
	for _, k := range keysInto(room[:0], p.Labels) {
		str(k)
		str(p.Labels[k])
	}
	if p.Terminating {
		b = append(b, '|', 'g')
	}
	b = append(b, '|', 'p')
	num(int(p.Priority))
	for _, k := range keysInto(room[:0], p.Requests) {
		if p.Requests[k] != 0 {
			str(k)
			b = strconv.AppendInt(b, p.Requests[k], 10)
		}
	}
	b = append(b, '|', 'n')
	reqs(p.NodeSelector)
	for _, t := range p.NodeAffinity {
		b = append(b, 'o')
		reqs(t)
	}
	for _, t := range p.PreferredNodeAffinity {
		b = append(b, 'w')
		num(int(t.Weight))
		reqs(t.Requirements)
	}
	b = append(b, '|', 't')
	for _, t := range p.Tolerations {
		str(t.Key)
		str(t.Operator)
		str(t.Value)
		str(string(t.Effect))
	}
	b = append(b, '|', 's')
	for i := range p.Spread {
		s := &p.Spread[i]
		str(s.Key)
		num(int(s.MaxSkew))
		num(int(s.MinDomains))
		str(string(s.NodeAffinityPolicy))
		str(string(s.NodeTaintsPolicy))
		flag(s.Soft)
		sel(s.Selector)
	}
	terms := func(ts []AffinityTerm) {
		for i := range ts {
			t := &ts[i]
			str(t.Key)
			flag(t.AllNamespaces)
			num(int(t.Weight))
			num(len(t.Namespaces))
			for _, n := range t.Namespaces {
				str(n)
			}
			sel(t.Selector)
		}
	}
	b = append(b, '|', 'a')
	terms(p.PodAffinity)
	b = append(b, '|', 'x')
	terms(p.PodAntiAffinity)
	b = append(b, '|', 'h')
	for _, h := range p.HostPorts {
		str(h.IP)
		num(int(h.Port))
		str(proto(h))
	}
	b = append(b, '|', 'v')
	for _, k := range keysInto(room[:0], p.Volumes) {
		str(k)
		num(p.Volumes[k])
	}
	for _, v := range p.SharedVolumes {
		b = append(b, 'm')
		str(v.Driver)
		str(v.ID)
	}
	for _, v := range p.VolumeTopology {
		b = append(b, 'z')
		for _, t := range v.Terms {
			b = append(b, 'o')
			reqs(t)
		}
	}
	b = append(b, '|', 'u')
	for _, u := range p.Unsupported {
		str(u)
	}
	return b
}

// keysInto appends the sorted keys of a map to an empty slice.
func keysInto[V any](ks []string, m map[string]V) []string {
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
