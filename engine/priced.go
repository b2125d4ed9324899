// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import "maps"

// PreferenceShare is how much more all machines of a pass may cost because of
// preferences under PreferencesPriced, as a share of what they cost without any.
const PreferenceShare = 0.10

// Bounds on the search for the preferences that are worth their price.
const (
	pricedRuns    = 16 // runs of the quick path
	pricedClasses = 6  // classes whose preferences are looked at one by one
)

// pricePreferences gives up preferences that cost too much. If honouring all of them
// costs at most the share, they stay. Otherwise each class in turn, in the order
// given, keeps as many of its preferences as the share allows, relaxed in the usual
// order; those of classes beyond the bounds are given up. A pod that has a place
// keeps one.
func (ps *pass) pricePreferences() {
	if ps.opt.Preferences != PreferencesPriced || len(ps.machines) == 0 {
		return
	}
	var with []*passClass
	for _, pc := range ps.classes {
		if pc.used > 0 && !pc.prefs.exhausted() {
			with = append(with, pc)
		}
	}
	if len(with) == 0 {
		return
	}
	honoured, cost, first := ps.outcome(), ps.cost(), ps.strategy
	none := *first
	none.level = map[*passClass]int{}
	for _, pc := range with {
		none.level[pc] = len(pc.prefs.steps)
	}
	ps.begin(&none)
	limit := ps.cost() * (1 + PreferenceShare)
	if cost <= limit || honoured.better(ps.outcome()) {
		ps.begin(first)
		return
	}
	best, runs := &none, 1
	for _, pc := range with[:min(len(with), pricedClasses)] {
		for level := 0; level < len(pc.prefs.steps) && runs < pricedRuns; level++ {
			s := *best
			s.level = maps.Clone(best.level)
			s.level[pc] = level
			ps.begin(&s)
			runs++
			if ps.cost() <= limit && !honoured.better(ps.outcome()) {
				best = &s
				break
			}
		}
	}
	if ps.strategy != best {
		ps.begin(best)
	}
}
