// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/go-logr/logr"

	"github.com/nap-aks/nap/dashboard"
	"github.com/nap-aks/nap/dashboard/dashboardtest"
	"github.com/nap-aks/nap/snapshot"
)

func newTest(t *testing.T, nodes int) *model {
	t.Helper()
	o, err := dashboardtest.Cluster(nodes)
	if err != nil {
		t.Fatal(err)
	}
	o.Pods[0].Name = "evil\x1b[2J\u009b31mname"
	live, err := dashboard.NewLive(dashboard.Config{Log: logr.Discard(), Objects: func(context.Context) (*snapshot.Objects, error) { return o, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if err := live.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	return newModel(t.Context(), live, flags{sort: "price", group: "none", interval: 3 * time.Second})
}

// press presses keys: names or single letters.
func press(m *model, keys ...string) {
	codes := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "pgdown": tea.KeyPgDown, "end": tea.KeyEnd, "backspace": tea.KeyBackspace}
	for _, k := range keys {
		if c, ok := codes[k]; ok {
			m.Update(tea.KeyPressMsg{Code: c})
		} else {
			m.Update(tea.KeyPressMsg{Code: []rune(k)[0], Text: k})
		}
	}
}

// plain returns the screen without styles, and checks that it fits.
func plain(t *testing.T, m *model) string {
	t.Helper()
	m.plain = false
	lines := strings.Split(m.View().Content, "\n")
	if len(lines) > m.height {
		t.Errorf("%s: %d lines on a screen of %d", m.screen, len(lines), m.height)
	}
	for _, l := range lines {
		if w := lipgloss.Width(l); w > m.width {
			t.Errorf("%s: a line is %d wide on a screen of %d: %q", m.screen, w, m.width, l)
		}
	}
	m.plain = true
	defer func() { m.plain = false }()
	return m.text()
}

// TestKeys goes through all screens as a person would, on a small terminal.
func TestKeys(t *testing.T) {
	m := newTest(t, 60)
	m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	s := m.state
	first := plain(t, m)
	for _, want := range []string{fmt.Sprintf("$%.2f/h", s.USDPerHour), fmt.Sprintf("%d nodes", len(s.Nodes)), fmt.Sprintf("%d pods running", s.Pods.Running), "WHY IT STAYS", "D32s_v5"} {
		if !strings.Contains(first, want) {
			t.Errorf("the first screen has no %q:\n%s", want, first)
		}
	}
	if n := m.nodes(); n[0].USDPerHour < n[len(n)-1].USDPerHour {
		t.Error("the most expensive node is not the first")
	}
	press(m, "p")
	if n := m.nodes(); n[0].USDPerHour > n[len(n)-1].USDPerHour {
		t.Error("the same key does not turn the order round")
	}
	press(m, "c", "end")
	if m.cursor != len(s.Nodes)-1 {
		t.Errorf("End goes to %d of %d", m.cursor, len(s.Nodes))
	}
	press(m, "g")
	if got := plain(t, m); !strings.Contains(got, " nodes, $") {
		t.Errorf("no groups:\n%s", got)
	}
	press(m, "g", "g", "g", "g", "g")
	if m.group != "none" {
		t.Errorf("after all groupings: %s", m.group)
	}
	press(m, "/", "s", "p", "o", "x", "backspace", "t", "enter")
	for _, n := range m.nodes() {
		if n.CapacityType != "spot" {
			t.Errorf("the filter spot shows %s", n.Name)
		}
	}
	if len(m.nodes()) == 0 {
		t.Error("the filter spot shows nothing")
	}
	press(m, "enter")
	if got := plain(t, m); m.screen != screenNode || !strings.Contains(got, "why it stays") || !strings.Contains(got, m.node) {
		t.Errorf("the node:\n%s", got)
	}
	press(m, "esc", "esc", "w")
	if got := plain(t, m); !strings.Contains(got, "0/200 nodes are available") {
		t.Errorf("pods that wait:\n%s", got)
	}
	press(m, "enter")
	if got := plain(t, m); !strings.Contains(got, "shop/checkout-") {
		t.Errorf("a group of pods:\n%s", got)
	}
	press(m, "esc", "e")
	plain(t, m)
	if cmd := m.press("q"); cmd == nil {
		t.Error("q does not quit")
	}
}

// TestSizes checks that every screen fits every terminal.
func TestSizes(t *testing.T) {
	m := newTest(t, 30)
	for _, size := range [][2]int{{80, 24}, {20, 6}, {40, 10}, {200, 60}, {1, 1}} {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for _, keys := range [][]string{{"esc"}, {"g"}, {"enter"}, {"esc", "w"}, {"enter"}, {"esc", "esc", "e"}, {"esc", "/", "x"}, {"esc"}} {
			press(m, keys...)
			plain(t, m)
		}
	}
}

// TestOnce checks the table for scripts: each node once, no escape sequences, also none
// from names in the cluster.
func TestOnce(t *testing.T) {
	m := newTest(t, 60)
	m.width, m.height, m.plain = 120, 1<<20, true
	got := m.once()
	if i := strings.IndexAny(got, "\x1b\u009b"); i >= 0 {
		t.Errorf("an escape sequence at %d: %q", i, got[max(0, i-20):min(len(got), i+20)])
	}
	for _, n := range m.state.Nodes {
		if c := strings.Count(got, n.Name[:min(len(n.Name), m.nameWidth())]+" "); c < 1 {
			t.Errorf("node %s is not in the table", n.Name)
		}
	}
	if !strings.Contains(got, "PODS THAT WAIT") {
		t.Error("the table has no pods that wait")
	}
	m.node, m.screen = m.state.Nodes[0].Name, screenNode
	for _, l := range m.body() {
		if strings.ContainsAny(cut(l.text, 200), "\x1b\u009b") {
			t.Errorf("an escape sequence from the cluster: %q", l.text)
		}
	}
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"--sort", "colour"}, {"--group", "x"}, {"--interval", "1ms"}, {"--width", "3"}} {
		cmd := NewCommand()
		cmd.SetArgs(args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
