package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// nsSelector selects pods by namespace and labels.
type nsSelector struct {
	namespaces []string
	all        bool
	sel        *Selector
}

func (n *nsSelector) selects(p *PodClass) bool {
	if !n.all && !slices.Contains(n.namespaces, p.Namespace) {
		return false
	}
	return n.sel.selects(p.Labels)
}

// matcher is an interned conjunction of selectors, with the classes that it
// selects. Classes are only ever appended, so the answer is kept.
type matcher struct {
	id      int
	terms   []nsSelector
	upTo    int
	matched []ClassID
	has     bitset
}

func (c *Cluster) termSelector(t *AffinityTerm, ns string) nsSelector {
	s := nsSelector{namespaces: t.Namespaces, all: t.AllNamespaces, sel: t.Selector}
	if len(s.namespaces) == 0 && !s.all {
		s.namespaces = []string{ns}
	}
	return s
}

func (c *Cluster) matcher(terms []nsSelector) *matcher {
	b := c.text[:0]
	str := func(s string) {
		b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
		b = append(b, s...)
	}
	for i := range terms {
		t := &terms[i]
		if t.all {
			b = append(b, '*')
		} else {
			for _, ns := range t.namespaces {
				str(ns)
			}
		}
		b = append(b, '/')
		if t.sel == nil {
			b = append(b, '-')
		} else {
			for i := range t.sel.Requirements {
				r := &t.sel.Requirements[i]
				str(r.Key)
				str(string(r.Operator))
				for _, v := range r.Values {
					str(v)
				}
				b = append(b, ',')
			}
		}
		b = append(b, ';')
	}
	c.text = b
	if m, ok := c.matchers[string(b)]; ok {
		return m
	}
	m := &matcher{id: len(c.matchers), terms: slices.Clone(terms)}
	for i := range m.terms {
		m.terms[i].namespaces = slices.Clone(m.terms[i].namespaces)
	}
	c.matchers[string(b)] = m
	return m
}

// spreadMatcher is what the i-th spread constraint of a class selects.
func (c *Cluster) spreadMatcher(cl *class, i int) *matcher {
	if cl.spreadM == nil {
		cl.spreadM = append(cl.spreadRoom[:0], make([]*matcher, len(cl.pc.Spread))...)
	}
	if cl.spreadM[i] == nil {
		namespace := [1]string{cl.pc.Namespace}
		selector := [1]nsSelector{{namespaces: namespace[:], sel: cl.pc.Spread[i].Selector}}
		cl.spreadM[i] = c.matcher(selector[:])
	}
	return cl.spreadM[i]
}

// termMatcher is what the i-th of a class's affinity or anti-affinity terms
// selects; kept is where its matchers are remembered.
func (c *Cluster) termMatcher(cl *class, terms []AffinityTerm, kept *[]*matcher, i int) *matcher {
	if *kept == nil {
		*kept = make([]*matcher, len(terms))
	}
	if (*kept)[i] == nil {
		(*kept)[i] = c.matcher([]nsSelector{c.termSelector(&terms[i], cl.pc.Namespace)})
	}
	return (*kept)[i]
}

// update looks at the classes that are new since the last time.
func (m *matcher) update(c *Cluster) {
	if m.upTo == len(c.classes) {
		return
	}
	m.has = m.has.grow(len(c.classes))
	look := func(id ClassID) {
		p := &c.classes[id].pc
		for i := range m.terms {
			if !m.terms[i].selects(p) {
				return
			}
		}
		m.matched = append(m.matched, id)
		m.has.set(int32(id))
	}
	if key, value, ok := m.oneLabel(); ok {
		ids := c.labelled(key, value)
		at, _ := slices.BinarySearch(ids, ClassID(m.upTo))
		for _, id := range ids[at:] {
			look(id)
		}
	} else {
		for id := m.upTo; id < len(c.classes); id++ {
			look(ClassID(id))
		}
	}
	m.upTo = len(c.classes)
}

// oneLabel is a label that every class the matcher selects must have, if one of
// its selectors asks for it.
func (m *matcher) oneLabel() (key, value string, ok bool) {
	for i := range m.terms {
		if m.terms[i].sel == nil {
			continue
		}
		for _, r := range m.terms[i].sel.Requirements {
			if r.Operator == In && len(r.Values) == 1 {
				return r.Key, r.Values[0], true
			}
		}
	}
	return "", "", false
}

// labelled lists the classes with a label, in order.
func (c *Cluster) labelled(key, value string) []ClassID {
	for ; c.labelsUpTo < len(c.classes); c.labelsUpTo++ {
		for k, v := range c.classes[c.labelsUpTo].pc.Labels {
			if c.byLabel == nil {
				c.byLabel = map[[2]string][]ClassID{}
			}
			l := [2]string{k, v}
			c.byLabel[l] = append(c.byLabel[l], ClassID(c.labelsUpTo))
		}
	}
	return c.byLabel[[2]string{key, value}]
}

// counter counts pods per domain of a topology key: those that a matcher
// selects or, when inverse, those that own an anti-affinity term.
type counter struct {
	ck      counterKey
	id      int
	key     int32
	host    bool
	m       *matcher
	inverse bool
	// filter: only nodes that this class's affinity (and tolerations) admit are
	// counted. nil: all.
	filter  *class
	taints  bool
	nodeRow bitset
	colRow  bitset
	dom     []int32         // by value
	nodes   map[int32]int32 // by slot, for hostname
	total   int64
}

type checkKind uint8

const (
	checkSpread checkKind = iota
	checkAffinity
	checkAnti
	checkForbid // an anti-affinity term of another pod selects this one
)

// check is one topology rule of a variant.
type check struct {
	kind       checkKind
	ctr        *counter
	self       bool
	maxSkew    int64
	minDomains int
	universe   []int32
	late       []int32 // of the universe: not there when the first pods were placed
	preferred  bool
}

// text names the rule.
func (k *check) text(c *Cluster) string {
	key := c.sym.tab[k.ctr.key].name
	switch {
	case k.kind == checkSpread:
		return fmt.Sprintf("spread over %s with maxSkew %d", key, k.maxSkew)
	case k.kind == checkAffinity && k.preferred:
		return "preferred pod affinity over " + key
	case k.kind == checkAffinity:
		return "pod affinity over " + key
	case k.kind == checkAnti:
		return "pod anti-affinity over " + key
	}
	return "another pod's anti-affinity over " + key
}

const noCap = math.MaxInt32

// room is how many pods of the owner can still go where cnt pods are counted,
// with min the least count over the domains (0 for hostnames: a new machine is
// always an empty domain).
func (k *check) room(cnt, min int64, bootstrap bool) int64 {
	switch k.kind {
	case checkSpread:
		r := k.maxSkew + min - cnt
		if r < 0 {
			return 0
		}
		if !k.self {
			return noCap
		}
		return r
	case checkAffinity:
		if cnt > 0 || bootstrap {
			return noCap
		}
		return 0
	case checkAnti:
		if cnt > 0 {
			return 0
		}
		if k.self {
			return 1
		}
		return noCap
	}
	if cnt > 0 {
		return 0
	}
	return noCap
}

func (k *check) reason() Reason {
	switch k.kind {
	case checkSpread:
		return ReasonSpread
	case checkAffinity:
		return ReasonAffinity
	}
	return ReasonAnti
}

// min is the least count over the domains of a spread constraint.
func (k *check) min() int64 {
	if k.kind != checkSpread || len(k.universe) < k.minDomains || len(k.universe) == 0 {
		return 0
	}
	least := int64(math.MaxInt64)
	for _, v := range k.universe {
		if n := k.ctr.at(v); n < least {
			least = n
		}
	}
	return least
}

func (ctr *counter) at(v int32) int64 {
	if int(v) < len(ctr.dom) {
		return int64(ctr.dom[v])
	}
	return 0
}

func (ctr *counter) add(v int32, n int32) {
	for int(v) >= len(ctr.dom) {
		ctr.dom = append(ctr.dom, 0)
	}
	ctr.dom[v] += n
	ctr.total += int64(n)
}

// variant is a class with a particular set of its preferences made demands.
type variant struct {
	pc      *passClass
	relaxed []string
	rows    *rowSet // columns that can hold one pod
	rowID   int32   // and its number
	row     bitset  // and its members
	nodeRow bitset
	strict  bool
	pref    int // index of the active preferred node affinity term, or -1
	domain  []check
	host    []check
	keys    []int32 // topology keys of domain checks
	pins    []int32 // see pinsOf
	// Room for the first few of the lists above.
	domainRoom, hostRoom [1]check
	keyRoom              [1]int32
	pinRoom              [4]int32
	affs                 []*counter
	selfAll              bool
	hostCap              int64 // pods of the class a fresh machine can take
	capCtr               int   // counter that caps fresh machines, or -1
}

// passClass is a pending class during a pass.
type passClass struct {
	cl    *class
	vec   []int64
	shape *shape
	pods  []string
	used  int // pods placed so far
	// Room for the first few of the lists below.
	contribRoom [4]*counter
	pinRoom     [2]int32
	first       variant
	verdict     int // where its next verdict goes in the plan
	contrib     []*counter
	pinKeys     []int32 // labels that must be settled where its pods go
	ladder      []drop
	level       int
	v           *variant
	value       float64
	// Its place in the order of placing, see pass.run.
	nodesOnly bool
	apart     int64
	order     int // as given
	trace     *stageTrace
}

// drop is a step of the relaxation ladder.
type drop struct {
	text  string
	apply func(*prefState)
}

// prefState says which preferences of a class are demands now.
type prefState struct {
	node   int // index into class.pref sorted by weight, len: none
	aff    []int
	anti   []int
	spread []int
	taints bool
}

// counterFor finds or makes a counter of this pass and counts what is there.
func (ps *pass) counterFor(key int32, m *matcher, inverse bool, filter *class, honorAff, honorTaints bool) *counter {
	c := ps.c
	k := counterKey{key: key, m: m.id, inverse: inverse}
	if filter != nil && honorAff {
		k.aff = filter.affID
	}
	if filter != nil && honorTaints {
		k.taints, k.tol = true, filter.tolID
	}
	if k.aff == 0 && !k.taints {
		filter = nil
	}
	if ctr, ok := ps.counterIndex[k]; ok {
		return ctr
	}
	ctr := &counter{ck: k, id: len(ps.counters), key: key, host: key == c.hostKey, m: m, inverse: inverse, filter: filter, taints: honorTaints}
	ps.counterIndex[k] = ctr
	ps.counters = append(ps.counters, ctr)
	if filter != nil {
		ctr.nodeRow = newBitset(len(c.nodes))
		for s, nd := range c.nodes {
			if nd == nil || nd.n.Gone {
				continue
			}
			if honorAff && c.labelsFit(filter, nd) != nil {
				continue
			}
			if honorTaints {
				if _, bad := firstUntolerated(filter.pc.Tolerations, nd.taints, false); bad {
					continue
				}
			}
			ctr.nodeRow.set(int32(s))
		}
		ctr.colRow = ps.cat.all.clone()
		if honorAff {
			ctr.colRow = c.labelRow(ps.cat, filter)
		}
		if honorTaints {
			c.taintRow(ps.cat, ctr.colRow, filter, false)
		}
	}
	if ctr.host {
		ctr.nodes = map[int32]int32{}
	}
	m.update(c)
	count := func(cl *class) {
		for slot, n := range cl.on {
			nd := c.nodes[slot]
			if nd == nil || nd.n.Gone {
				continue
			}
			ps.countNode(ctr, slot, n)
		}
	}
	if inverse {
		for _, id := range c.antiClasses {
			if cl := c.classes[id]; cl.total > 0 && cl.ownsAnti(key, m) {
				count(cl)
			}
		}
	} else {
		for _, id := range m.matched {
			if cl := c.classes[id]; cl.total > 0 {
				count(cl)
			}
		}
	}
	return ctr
}

type counterKey struct {
	key      int32
	m        int
	inverse  bool
	aff, tol int32 // signatures of the filter
	taints   bool
}

func (cl *class) ownsAnti(key int32, m *matcher) bool {
	for i, o := range cl.anti {
		if o == m && cl.antiKeys[i] == key {
			return true
		}
	}
	return false
}

// countNode counts n pods on a node.
func (ps *pass) countNode(ctr *counter, slot, n int32) {
	if ctr.filter != nil && !ctr.nodeRow.has(slot) {
		return
	}
	if ctr.host {
		ctr.nodes[slot] += n
		ctr.total += int64(n)
		return
	}
	nd := ps.c.nodes[slot]
	if vs, open := nd.open[ctr.key]; open {
		// The domain is not known yet. Anti-affinity must keep away from all
		// of them; the other rules cannot use the pods.
		if ctr.inverse {
			for _, v := range vs {
				ctr.add(v, n)
			}
		}
		return
	}
	if v := ps.c.nodeVal(ctr.key, slot); v != valAbsent {
		ctr.add(v, n)
	}
}

// countMachine counts n pods on a machine to create.
func (ps *pass) countMachine(ctr *counter, m *mach, n int32) {
	if ctr.filter != nil && !ctr.colRow.has(m.col) {
		return
	}
	if ctr.host {
		for i := range m.host {
			if m.host[i].ctr == ctr {
				m.host[i].n += n
				ctr.total += int64(n)
				return
			}
		}
		m.host = append(m.host, hostCount{ctr, n})
		ctr.total += int64(n)
		return
	}
	if v := ps.cat.vals[ctr.key][m.col]; v != valAbsent {
		ctr.add(v, n)
	}
}

func (cl *class) affSig(b []byte) []byte {
	for i := range cl.sel {
		b = append(cl.sel[i].cacheKey(b), ',')
	}
	return termsSig(b, cl.aff)
}

func termsSig(b []byte, terms [][]creq) []byte {
	for _, t := range terms {
		b = append(b, '|')
		for i := range t {
			b = append(t[i].cacheKey(b), ',')
		}
	}
	return b
}

// affKeys are the labels that node selector and required affinity look at.
func (cl *class) affKeys() []int32 {
	var ks []int32
	for i := range cl.sel {
		ks = append(ks, cl.sel[i].key)
	}
	for _, t := range cl.aff {
		for i := range t {
			ks = append(ks, t[i].key)
		}
	}
	return ks
}

func tolSig(b []byte, ts []Toleration) []byte {
	for i := range ts {
		for _, s := range [4]string{ts[i].Key, ts[i].Operator, ts[i].Value, string(ts[i].Effect)} {
			b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
			b = append(b, s...)
		}
	}
	return b
}

func (cl *class) volSig(b []byte) []byte {
	for _, v := range cl.vols {
		b = termsSig(append(b, '&'), v)
	}
	return b
}

// vecSig appends a text that is equal for equal amounts, whatever zeros follow.
func vecSig(b []byte, v []int64) []byte {
	n := len(v)
	for n > 0 && v[n-1] == 0 {
		n--
	}
	for _, x := range v[:n] {
		b = append(strconv.AppendInt(b, x, 36), ',')
	}
	return b
}
