// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	. "github.com/nap-aks/nap/engine"
)

func podsText(s *Snapshot, gs []PodGroup) string {
	var parts []string
	for _, g := range gs {
		parts = append(parts, fmt.Sprintf("%s×%d", s.Classes[g.Class].Name, len(g.Pods)))
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}

func printPlan(s *Snapshot, p *Plan) string {
	var lines []string
	count := map[string]int{}
	for _, m := range p.Machines {
		var alts []string
		for _, o := range m.Offerings[1:] {
			alts = append(alts, fmt.Sprintf("%s/%s/%s", o.InstanceType, o.Zone, o.CapacityType))
		}
		if len(alts) > 3 {
			alts = append(alts[:3], fmt.Sprintf("and %d more", len(alts)-3))
		}
		o := m.Offerings[0]
		line := fmt.Sprintf("machine %s/%s/%s/%s $%.3f: %s", m.NodePool, o.InstanceType, o.Zone, o.CapacityType, o.PriceUSDPerHour, podsText(s, m.Pods))
		if o.ReservationID != "" {
			line += " [" + o.ReservationID + "]"
		}
		if len(alts) > 0 {
			line += " | or " + strings.Join(alts, ", ")
		}
		if count[line] == 0 {
			lines = append(lines, line)
		}
		count[line]++
	}
	for i, l := range lines {
		if count[l] > 1 {
			lines[i] = fmt.Sprintf("%d× %s", count[l], l)
		}
	}
	for _, pl := range p.Placements {
		lines = append(lines, fmt.Sprintf("node %s: %s", pl.Node, podsText(s, pl.Pods)))
	}
	relaxed := map[string]bool{}
	for _, v := range p.Verdicts {
		name := s.Classes[v.Class].Name
		if v.Outcome == Refused || v.Outcome == Deferred {
			lines = append(lines, fmt.Sprintf("%s %s×%d: %s: %s", strings.ToLower(string(v.Outcome)), name, len(v.Pods), v.Code, v.Reason))
		}
		if len(v.Relaxed) > 0 && v.Outcome != Refused {
			l := fmt.Sprintf("relaxed for %s: %s", name, strings.Join(v.Relaxed, "; "))
			if !relaxed[l] {
				relaxed[l] = true
				lines = append(lines, l)
			}
		}
	}
	lines = append(lines, fmt.Sprintf("$%.3f/h", p.CostUSDPerHour))
	out := strings.Join(lines, "\n") + "\n"
	for short, long := range shortKeys {
		out = strings.ReplaceAll(out, long, short)
	}
	return out
}

func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if !strings.HasSuffix(path, ".txt") || strings.Contains(path, "rapid") || strings.Contains(path, "fuzz") {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s := parse(t, d.Input)
			var o Options
			for _, a := range d.CmdArgs {
				switch a.Key {
				case "ignore-preferences":
					o.Preferences = PreferencesIgnore
				case "best-effort":
					o.MinValues = MinValuesBestEffort
				case "improve":
					o.Work = 50_000
				}
			}
			switch d.Cmd {
			case "place":
				p, err := Place(s, o)
				if err != nil {
					return "error: " + err.Error() + "\n"
				}
				if err := verify(s, p, o); err != nil {
					t.Errorf("%s: %v", d.Pos, err)
				}
				return printPlan(s, p)
			case "explain":
				o.Trace = TraceAll
				p, err := Place(s, o)
				if err != nil {
					return "error: " + err.Error() + "\n"
				}
				var b strings.Builder
				for _, c := range p.Trace.Classes {
					fmt.Fprintf(&b, "%s:\n", s.Classes[c.Class].Name)
					for _, st := range c.Stages {
						fmt.Fprintf(&b, "  %-14s %4d offerings %3d nodes  %s\n", st.Name, st.Offerings, st.Nodes, st.Detail)
					}
					for _, m := range c.Nearest {
						fmt.Fprintf(&b, "  nearest %s: %s: %s\n", m.What, m.Reason, m.Detail)
					}
				}
				return strings.ReplaceAll(b.String(), LabelZone, "zone")
			}
			t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
			return ""
		})
	})
}
