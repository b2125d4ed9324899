package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Values of a label key are interned as small integers. Two are special.
const (
	valAbsent int32 = 0 // the label is not there
	valOther  int32 = 1 // the label has a value that nobody names
	valFirst  int32 = 2
)

// symbols interns label keys and, per key, values.
type symbols struct {
	keys map[string]int32
	tab  []keyTable
}

type keyTable struct {
	name  string
	ids   map[string]int32
	names []string // by id; the first two are the special ones
}

func (s *symbols) key(name string) int32 {
	if k, ok := s.keys[name]; ok {
		return k
	}
	if s.keys == nil {
		s.keys = map[string]int32{}
	}
	k := int32(len(s.tab))
	s.keys[name] = k
	s.tab = append(s.tab, keyTable{name: name, ids: map[string]int32{}, names: []string{"<absent>", "<other>"}})
	return k
}

func (s *symbols) value(key int32, v string) int32 {
	t := &s.tab[key]
	if id, ok := t.ids[v]; ok {
		return id
	}
	id := int32(len(t.names))
	t.ids[v] = id
	t.names = append(t.names, v)
	return id
}

func (s *symbols) valueName(key, v int32) string { return s.tab[key].names[v] }

// creq is a compiled Requirement.
type creq struct {
	key    int32
	op     Operator
	values []int32 // sorted, for In and NotIn
	num    int64   // for the ordering operators
}

func (s *symbols) compileReq(r Requirement) (creq, error) {
	c := creq{key: s.key(r.Key), op: r.Operator}
	switch r.Operator {
	case In, NotIn:
		for _, v := range r.Values {
			c.values = append(c.values, s.value(c.key, v))
		}
		slices.Sort(c.values)
		c.values = slices.Compact(c.values)
	case Exists, DoesNotExist:
	case Gt, Lt, Gte, Lte:
		if len(r.Values) != 1 {
			return c, fmt.Errorf("requirement %s %s needs exactly one value, has %d", r.Key, r.Operator, len(r.Values))
		}
		n, err := strconv.ParseInt(r.Values[0], 10, 64)
		if err != nil {
			return c, fmt.Errorf("requirement %s %s needs an integer, has %q", r.Key, r.Operator, r.Values[0])
		}
		c.num = n
	default:
		return c, fmt.Errorf("requirement on %s has the unknown operator %q", r.Key, r.Operator)
	}
	return c, nil
}

func (s *symbols) compileReqs(rs []Requirement) ([]creq, error) {
	out := make([]creq, 0, len(rs))
	for _, r := range rs {
		c, err := s.compileReq(r)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// holds says whether value v of the requirement's key satisfies it.
func (s *symbols) holds(c *creq, v int32) bool {
	switch c.op {
	case In:
		_, ok := slices.BinarySearch(c.values, v)
		return ok
	case NotIn:
		_, ok := slices.BinarySearch(c.values, v)
		return !ok
	case Exists:
		return v != valAbsent
	case DoesNotExist:
		return v == valAbsent
	}
	if v < valFirst {
		return false
	}
	n, err := strconv.ParseInt(s.tab[c.key].names[v], 10, 64)
	if err != nil {
		return false
	}
	switch c.op {
	case Gt:
		return n > c.num
	case Lt:
		return n < c.num
	case Gte:
		return n >= c.num
	case Lte:
		return n <= c.num
	}
	return false
}

// cacheKey appends a text that is equal for equal requirements.
func (c *creq) cacheKey(b []byte) []byte {
	b = append(strconv.AppendInt(b, int64(c.key), 10), ' ')
	b = append(b, c.op...)
	b = strconv.AppendInt(append(b, ' '), c.num, 10)
	for _, v := range c.values {
		b = strconv.AppendInt(append(b, ' '), int64(v), 10)
	}
	return b
}

// selects says whether a selector selects a label set.
func (sel *Selector) selects(labels map[string]string) bool {
	if sel == nil {
		return false
	}
	for i := range sel.Requirements {
		r := &sel.Requirements[i]
		v, ok := labels[r.Key]
		switch r.Operator {
		case In:
			if !ok || !slices.Contains(r.Values, v) {
				return false
			}
		case NotIn:
			if ok && slices.Contains(r.Values, v) {
				return false
			}
		case Exists:
			if !ok {
				return false
			}
		case DoesNotExist:
			if ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// tolerates says whether one of the tolerations tolerates the taint.
func tolerates(ts []Toleration, t Taint) bool {
	for i := range ts {
		o := &ts[i]
		if o.Effect != "" && o.Effect != t.Effect {
			continue
		}
		if o.Key != "" && o.Key != t.Key {
			continue
		}
		switch o.Operator {
		case "", "Equal":
			if o.Key != "" && o.Value == t.Value {
				return true
			}
		case "Exists":
			return true
		case "Lt", "Gt":
			have, err1 := strconv.ParseInt(t.Value, 10, 64)
			want, err2 := strconv.ParseInt(o.Value, 10, 64)
			if err1 == nil && err2 == nil && ((o.Operator == "Lt" && have < want) || (o.Operator == "Gt" && have > want)) {
				return true
			}
		}
	}
	return false
}

// firstUntolerated returns the first taint that repels, if any. With strict,
// PreferNoSchedule repels too.
func firstUntolerated(ts []Toleration, taints []Taint, strict bool) (Taint, bool) {
	for _, t := range taints {
		if t.Effect == PreferNoSchedule && !strict {
			continue
		}
		if !tolerates(ts, t) {
			return t, true
		}
	}
	return Taint{}, false
}

func portsConflict(a, b HostPort) bool {
	if a.Port != b.Port || proto(a) != proto(b) {
		return false
	}
	return a.IP == b.IP || anyIP(a.IP) || anyIP(b.IP)
}

func proto(p HostPort) string {
	if p.Protocol == "" {
		return "TCP"
	}
	return p.Protocol
}

func anyIP(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

// canon appends an unambiguous text form of the parts of a class that
// scheduling can see; equal texts are the same class.
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

func sortedKeys[V any](m map[string]V) []string {
	return keysInto(make([]string, 0, len(m)), m)
}

// keysInto appends the sorted keys of a map to an empty slice.
func keysInto[V any](ks []string, m map[string]V) []string {
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// unlimited stands for a resource that has no end, such as attachments of a
// CSI driver without a limit. Sums of it with real amounts do not overflow.
const unlimited = math.MaxInt64 / 4
