package engine

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
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

func (c *creq) cacheKey() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s %d", c.key, c.op, c.num)
	for _, v := range c.values {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(int(v)))
	}
	return b.String()
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
func (p *PodClass) canon() string {
	var b strings.Builder
	str := func(s string) { fmt.Fprintf(&b, "%d:%s", len(s), s) }
	reqs := func(rs []Requirement) {
		fmt.Fprintf(&b, "[%d", len(rs))
		for i := range rs {
			str(rs[i].Key)
			str(string(rs[i].Operator))
			fmt.Fprintf(&b, "(%d", len(rs[i].Values))
			for _, v := range rs[i].Values {
				str(v)
			}
		}
	}
	sel := func(s *Selector) {
		if s == nil {
			b.WriteByte('-')
			return
		}
		reqs(s.Requirements)
	}
	str(p.Namespace)
	for _, k := range sortedKeys(p.Labels) {
		str(k)
		str(p.Labels[k])
	}
	fmt.Fprintf(&b, "|p%d|", p.Priority)
	for _, k := range sortedKeys(p.Requests) {
		if p.Requests[k] != 0 {
			str(k)
			b.WriteString(strconv.FormatInt(p.Requests[k], 10))
		}
	}
	b.WriteString("|n")
	reqs(p.NodeSelector)
	for _, t := range p.NodeAffinity {
		b.WriteByte('o')
		reqs(t)
	}
	for _, t := range p.PreferredNodeAffinity {
		fmt.Fprintf(&b, "w%d", t.Weight)
		reqs(t.Requirements)
	}
	b.WriteString("|t")
	for _, t := range p.Tolerations {
		str(t.Key)
		str(t.Operator)
		str(t.Value)
		str(string(t.Effect))
	}
	b.WriteString("|s")
	for i := range p.Spread {
		s := &p.Spread[i]
		str(s.Key)
		fmt.Fprintf(&b, "%d,%d,%s,%s,%v", s.MaxSkew, s.MinDomains, s.NodeAffinityPolicy, s.NodeTaintsPolicy, s.Soft)
		sel(s.Selector)
	}
	terms := func(ts []AffinityTerm) {
		for i := range ts {
			t := &ts[i]
			str(t.Key)
			fmt.Fprintf(&b, "%v%d(%d", t.AllNamespaces, t.Weight, len(t.Namespaces))
			for _, n := range t.Namespaces {
				str(n)
			}
			sel(t.Selector)
		}
	}
	b.WriteString("|a")
	terms(p.PodAffinity)
	b.WriteString("|x")
	terms(p.PodAntiAffinity)
	b.WriteString("|h")
	for _, h := range p.HostPorts {
		str(h.IP)
		fmt.Fprintf(&b, "%d%s", h.Port, proto(h))
	}
	b.WriteString("|v")
	for _, k := range sortedKeys(p.Volumes) {
		str(k)
		b.WriteString(strconv.Itoa(p.Volumes[k]))
	}
	for _, v := range p.SharedVolumes {
		b.WriteByte('m')
		str(v.Driver)
		str(v.ID)
	}
	for _, v := range p.VolumeTopology {
		b.WriteByte('z')
		for _, t := range v.Terms {
			b.WriteByte('o')
			reqs(t)
		}
	}
	b.WriteString("|u")
	for _, u := range p.Unsupported {
		str(u)
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// unlimited stands for a resource that has no end, such as attachments of a
// CSI driver without a limit. Sums of it with real amounts do not overflow.
const unlimited = math.MaxInt64 / 4
