// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"slices"
	"sort"
)

// preferences are what the pods of a class prefer, as a ladder of relaxations.
// The preferences that have not been relaxed are treated as required.
//
// Invariant: the first level steps of the ladder are relaxed, the others are
// not; level never exceeds the number of steps.
type preferences struct {
	all   preferred // with nothing relaxed
	steps []relaxation
	level int
}

// relaxation is one step of the ladder.
type relaxation struct {
	text  string
	apply func(*preferred)
}

// preferred lists the preferences of a class that are in force.
type preferred struct {
	node   int // position in class.preferredTerms: its length when none is in force
	aff    []int
	anti   []int
	spread []int
	taints bool // PreferNoSchedule taints repel
}

// newPreferences returns the preferences of a class under a policy. They are
// relaxed in this order: pod affinity and anti-affinity by weight, node affinity
// terms by weight, soft spreads, PreferNoSchedule taints (if there are any).
func newPreferences(cl *class, policy PreferencePolicy, softTaints bool) preferences {
	if policy == PreferencesIgnore {
		return preferences{all: preferred{node: len(cl.pref)}}
	}
	p := preferences{all: preferred{taints: softTaints}}
	type weighted struct {
		weight int32
		step   relaxation
	}
	var pods []weighted
	for i := range cl.pc.PodAffinity {
		if t := &cl.pc.PodAffinity[i]; t.Weight > 0 {
			p.all.aff = append(p.all.aff, i)
			pods = append(pods, weighted{t.Weight, relaxation{fmt.Sprintf("preferred pod affinity over %s (weight %d)", t.Key, t.Weight),
				func(s *preferred) { s.aff = without(s.aff, i) }}})
		}
	}
	for i := range cl.pc.PodAntiAffinity {
		if t := &cl.pc.PodAntiAffinity[i]; t.Weight > 0 {
			p.all.anti = append(p.all.anti, i)
			pods = append(pods, weighted{t.Weight, relaxation{fmt.Sprintf("preferred pod anti-affinity over %s (weight %d)", t.Key, t.Weight),
				func(s *preferred) { s.anti = without(s.anti, i) }}})
		}
	}
	sort.SliceStable(pods, func(i, j int) bool { return pods[i].weight < pods[j].weight })
	for _, w := range pods {
		p.steps = append(p.steps, w.step)
	}
	for i, term := range cl.preferredTerms() {
		p.steps = append(p.steps, relaxation{fmt.Sprintf("preferred node affinity (weight %d)", cl.pref[term].weight),
			func(s *preferred) { s.node = i + 1 }})
	}
	for i := range cl.pc.Spread {
		if s := &cl.pc.Spread[i]; s.Soft {
			p.all.spread = append(p.all.spread, i)
			p.steps = append(p.steps, relaxation{fmt.Sprintf("spread over %s (ScheduleAnyway)", s.Key),
				func(p *preferred) { p.spread = without(p.spread, i) }})
		}
	}
	if softTaints {
		p.steps = append(p.steps, relaxation{"PreferNoSchedule taints", func(s *preferred) { s.taints = false }})
	}
	return p
}

// preferredTerms returns the indices of the preferred node affinity terms, the
// heaviest first.
func (cl *class) preferredTerms() []int {
	if len(cl.pref) == 0 {
		return nil
	}
	idx := make([]int, len(cl.pref))
	for i := range idx {
		idx[i] = i
	}
	sort.SliceStable(idx, func(a, b int) bool { return cl.pref[idx[a]].weight > cl.pref[idx[b]].weight })
	return idx
}

func without(s []int, x int) []int {
	return slices.DeleteFunc(slices.Clone(s), func(v int) bool { return v == x })
}

// exhausted reports whether all preferences are relaxed.
func (p *preferences) exhausted() bool { return p.level == len(p.steps) }

// relax takes one more step of the ladder.
func (p *preferences) relax() { p.level++ }

// relaxAll relaxes all preferences.
func (p *preferences) relaxAll() { p.level = len(p.steps) }

// restore puts all preferences in force again.
func (p *preferences) restore() { p.level = 0 }

// inForce returns the preferences that are not relaxed.
func (p *preferences) inForce() preferred {
	s := p.all
	for i := range p.level {
		p.steps[i].apply(&s)
	}
	return s
}

// relaxed describes the preferences that are relaxed, in order.
func (p *preferences) relaxed() []string {
	var out []string
	for i := range p.level {
		out = append(out, p.steps[i].text)
	}
	return out
}
