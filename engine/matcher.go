// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"strconv"
)

// nsSelector selects pods by namespace and labels.
type nsSelector struct {
	namespaces []string
	all        bool
	sel        *Selector
	// spread leaves out terminating pods, which count for affinity but not for
	// topology spread.
	spread bool
}

func (n *nsSelector) selects(p *PodClass) bool {
	if !n.all && !slices.Contains(n.namespaces, p.Namespace) {
		return false
	}
	return !(n.spread && p.Terminating) && n.sel.selects(p.Labels)
}

// matcher is an interned conjunction of selectors with the classes that it
// selects. Classes are only appended, so the result is kept.
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
		if t.spread {
			b = append(b, '=')
		}
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

// spreadMatcher returns the matcher of the i-th spread constraint of a class.
func (c *Cluster) spreadMatcher(cl *class, i int) *matcher {
	if cl.spreadM == nil {
		cl.spreadM = append(cl.spreadBuf[:0], make([]*matcher, len(cl.pc.Spread))...)
	}
	if cl.spreadM[i] == nil {
		namespace := [1]string{cl.pc.Namespace}
		selector := [1]nsSelector{{namespaces: namespace[:], sel: cl.pc.Spread[i].Selector, spread: true}}
		cl.spreadM[i] = c.matcher(selector[:])
	}
	return cl.spreadM[i]
}

// termMatcher returns the matcher of the i-th of a class's affinity or
// anti-affinity terms; kept caches them.
func (c *Cluster) termMatcher(cl *class, terms []AffinityTerm, kept *[]*matcher, i int) *matcher {
	if *kept == nil {
		*kept = make([]*matcher, len(terms))
	}
	if (*kept)[i] == nil {
		(*kept)[i] = c.matcher([]nsSelector{c.termSelector(&terms[i], cl.pc.Namespace)})
	}
	return (*kept)[i]
}

// selectsClass reports whether the matcher selects a class.
func (m *matcher) selectsClass(cl *class) bool { return m.has.has(int32(cl.id)) }

// update adds the classes that are new since the last update.
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

// oneLabel returns a label that every selected class must have, if there is one.
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

// labelled returns the classes with a label, in order.
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
