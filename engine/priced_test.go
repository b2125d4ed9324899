// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"testing"

	. "github.com/nap-aks/nap/engine"
)

func softAnti(cpu int64) PodClass {
	web := &Selector{Requirements: []Requirement{{Key: "app", Operator: In, Values: []string{"web"}}}}
	return PodClass{Name: "web", Labels: map[string]string{"app": "web"}, Requests: Resources{ResourceCPU: cpu},
		PodAntiAffinity: []AffinityTerm{{Key: LabelHostname, Selector: web, Weight: 1}}}
}

func placed(t *testing.T, s *Snapshot, p PreferencePolicy) *Plan {
	t.Helper()
	plan, err := Place(s, Options{Preferences: p})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range plan.Verdicts {
		if v.Outcome == Refused {
			t.Fatalf("refused: %s", v.Reason)
		}
	}
	return plan
}

func TestPreferencesHaveAPrice(t *testing.T) {
	// Ten small pods that prefer not to share a host: ten machines multiply the bill.
	s := regionalSnapshot(softAnti(250), 10)
	if n := len(placed(t, s, PreferencesRespect).Machines); n != 10 {
		t.Errorf("respected: %d machines, want 10", n)
	}
	priced, ignored := placed(t, s, PreferencesPriced), placed(t, s, PreferencesIgnore)
	if priced.CostUSDPerHour > ignored.CostUSDPerHour*(1+PreferenceShare) {
		t.Errorf("priced: $%.3f, ignored: $%.3f", priced.CostUSDPerHour, ignored.CostUSDPerHour)
	}
	// Pods that fill a machine each: the preference is free.
	s = regionalSnapshot(softAnti(4000), 4)
	if n := len(placed(t, s, PreferencesPriced).Machines); n != 4 {
		t.Errorf("free: %d machines, want 4", n)
	}
	// The expensive preference goes, the free one of the same pods stays.
	c := softAnti(250)
	c.PreferredNodeAffinity = []PreferredTerm{{Weight: 50, Requirements: []Requirement{{Key: LabelZone, Operator: In, Values: []string{"z-2"}}}}}
	plan := placed(t, regionalSnapshot(c, 10), PreferencesPriced)
	if len(plan.Machines) != 1 || plan.Machines[0].Offerings[0].Zone != "z-2" {
		t.Errorf("two preferences: %d machines, the first in %s; want one in z-2", len(plan.Machines), plan.Machines[0].Offerings[0].Zone)
	}
}
