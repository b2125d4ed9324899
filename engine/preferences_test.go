// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"testing"
)

func preferringClass(t *testing.T, policy PreferencePolicy) (*pass, *passClass) {
	s := smallCluster()
	s.Nodes[0].Taints = []Taint{{Key: "a", Effect: PreferNoSchedule}}
	addClass(s, "web", 1, func(p *PodClass) {
		p.PreferredNodeAffinity = []PreferredTerm{
			{Weight: 1, Requirements: []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z1"}}}},
			{Weight: 9, Requirements: []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z2"}}}},
		}
		p.PodAffinity = []AffinityTerm{{Key: LabelZone, Weight: 5, Selector: selectApp("web")}}
		p.PodAntiAffinity = []AffinityTerm{{Key: LabelHostname, Weight: 2, Selector: selectApp("web")}, {Key: LabelZone, Selector: selectApp("db")}}
		p.Spread = []SpreadConstraint{{Key: LabelZone, MaxSkew: 1, Soft: true, Selector: selectApp("web")}}
	})
	ps := beginPass(t, s, Options{Preferences: policy})
	return ps, ps.classes[0]
}

func TestPreferencesAreRelaxedInOrder(t *testing.T) {
	_, pc := preferringClass(t, PreferencesRespect)
	p := &pc.prefs
	for !p.exhausted() {
		p.relax()
	}
	want := []string{
		"preferred pod anti-affinity over kubernetes.io/hostname (weight 2)",
		"preferred pod affinity over topology.kubernetes.io/zone (weight 5)",
		"preferred node affinity (weight 9)",
		"preferred node affinity (weight 1)",
		"spread over topology.kubernetes.io/zone (ScheduleAnyway)",
		"PreferNoSchedule taints",
	}
	if got := p.relaxed(); !slices.Equal(got, want) {
		t.Errorf("relaxed %q,\nwant %q", got, want)
	}
	if s := p.inForce(); len(s.aff)+len(s.anti)+len(s.spread) > 0 || s.taints || s.node != 2 {
		t.Errorf("still in force: %+v", s)
	}
	p.restore()
	if s := p.inForce(); len(s.aff) != 1 || len(s.anti) != 1 || len(s.spread) != 1 || !s.taints || s.node != 0 || len(p.relaxed()) > 0 {
		t.Errorf("after a restore in force: %+v", s)
	}
}

func TestPreferencesInForceAreRules(t *testing.T) {
	ps, pc := preferringClass(t, PreferencesRespect)
	if v := pc.v; len(v.domain) != 3 || len(v.host) != 1 || !v.strict || v.pref != 1 {
		t.Errorf("with all preferences: %d domain rules, %d host rules, strict %v, node affinity %d", len(v.domain), len(v.host), v.strict, v.pref)
	}
	pc.prefs.relaxAll()
	ps.compile(pc)
	if v := pc.v; len(v.domain) != 1 || len(v.host) != 0 || v.strict || v.pref != -1 || len(v.relaxed) != 6 {
		t.Errorf("with none: %d domain rules, %d host rules, strict %v, node affinity %d, relaxed %q", len(v.domain), len(v.host), v.strict, v.pref, v.relaxed)
	}
}

func TestIgnoredPreferencesHaveNoSteps(t *testing.T) {
	_, pc := preferringClass(t, PreferencesIgnore)
	if !pc.prefs.exhausted() || len(pc.v.domain) != 1 || pc.v.strict || pc.v.pref != -1 {
		t.Errorf("ignored preferences are in force: %+v", pc.prefs.inForce())
	}
}
