// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/nap-aks/nap/dashboard"
)

// headLines is the number of lines above the columns.
const headLines = 4

var (
	bold     = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	selected = lipgloss.NewStyle().Reverse(true)
	bad      = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Bold(true)
	moving   = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
)

// View draws the screen. Everything is legible without colour: what is selected is
// reversed, and phases are words.
func (m *model) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen, v.WindowTitle = true, "nap top"
	return v
}

func (m *model) text() string {
	lines := m.head()
	body := m.body()
	rows := m.rows()
	lines = append(lines, m.style(faint, cut(m.columns(), m.width)))
	for i := m.scroll; i < min(m.scroll+rows, len(body)); i++ {
		l := cut(body[i].text, m.width)
		switch {
		case i == m.cursor && !m.plain:
			l = selected.Render(pad(l, m.width))
		case body[i].style != nil:
			l = m.style(*body[i].style, l)
		}
		lines = append(lines, l)
	}
	if m.plain {
		return strings.Join(lines, "\n")
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	return strings.Join(append(lines[:m.height-1], m.style(faint, cut(m.foot(), m.width))), "\n")
}

// once is the table for scripts: no selection, all nodes.
func (m *model) once() string {
	out := m.text()
	if w := m.state.Waiting; len(w) > 0 {
		out += "\n\n" + cut("PODS THAT WAIT", m.width)
		for i := range w {
			out += "\n" + cut(waitingLine(&w[i], m.state.Time), m.width)
		}
	}
	return out
}

func (m *model) style(s lipgloss.Style, text string) string {
	if m.plain {
		return text
	}
	return s.Render(text)
}

// head has the totals.
func (m *model) head() []string {
	s := m.state
	if s == nil {
		return []string{"reading the cluster …", "", "", ""}
	}
	cost := fmt.Sprintf("$%.2f/h", s.USDPerHour)
	if s.Unpriced > 0 {
		cost += fmt.Sprintf(" (%d nodes without a price)", s.Unpriced)
	}
	if b := s.Bound; b != nil {
		cost += fmt.Sprintf("   bound $%.2f/h   gap %.1f%%", b.USDPerHour, 100*b.Gap)
	}
	flight := map[string]int{}
	for i := range s.Nodes {
		if s.Nodes[i].InFlight() {
			flight[s.Nodes[i].Phase]++
		}
	}
	nodes := fmt.Sprintf("%d nodes", len(s.Nodes))
	for _, phase := range []string{dashboard.PhaseBought, dashboard.PhaseBooting, dashboard.PhaseInitializing, dashboard.PhaseDraining} {
		if flight[phase] > 0 {
			nodes += fmt.Sprintf(", %d %s", flight[phase], strings.ToLower(phase))
		}
	}
	pods := fmt.Sprintf("%d pods running, %d pending", s.Pods.Running, s.Pods.Pending)
	if s.Pods.Refused > 0 {
		pods += fmt.Sprintf(", %d REFUSED", s.Pods.Refused)
	}
	use := fmt.Sprintf("cpu %s %3.0f%%   memory %s %3.0f%%", bar(s.CPU.Share(), 20), 100*s.CPU.Share(), bar(s.Memory.Share(), 20), 100*s.Memory.Share())
	out := []string{m.style(bold, cut(cost, m.width)), cut(nodes+"   "+pods, m.width), cut(use, m.width), ""}
	if m.err != nil {
		out[3] = m.style(bad, cut("! "+strings.ReplaceAll(m.err.Error(), "\n", " "), m.width))
	}
	return out
}

func (m *model) columns() string {
	switch m.screen {
	case screenNode:
		return "NODE " + m.node
	case screenWaiting:
		return fmt.Sprintf("%6s  %-10s %6s  %s", "PODS", "VERDICT", "FOR", "REASON")
	case screenGroup:
		return "PODS THAT WAIT"
	case screenEvents:
		return fmt.Sprintf("%-8s  %10s  %s", "TIME", "$/H", "WHAT HAPPENED SINCE NAP TOP RUNS")
	}
	if m.narrow() {
		return fmt.Sprintf("%-*s %-10s %7s %-9s %4s %4s  %s", m.nameWidth(), "NODE", "SIZE", "$/H", "CPU", "MEM", "AGE", "WHY IT STAYS")
	}
	return fmt.Sprintf("%-*s %-12s %8s %-9s %-9s %5s  %s", m.nameWidth(), "NODE", "SIZE", "$/H", "CPU", "MEMORY", "AGE", "WHY IT STAYS")
}

// narrow reports whether reasons are shown by their codes.
func (m *model) narrow() bool { return m.width < 100 }

func (m *model) nameWidth() int { return max(10, min(36, m.width*3/10)) }

func (m *model) foot() string {
	if m.typing {
		return "filter: " + m.filter + "█  (Enter keeps it, Esc drops it)"
	}
	switch m.screen {
	case screenNodes:
		arrow := "↓"
		if m.reverse {
			arrow = "↑"
		}
		f := ""
		if m.filter != "" {
			f = " filter " + m.filter
		}
		return fmt.Sprintf("by %s%s group %s%s  |  ↵ open / filter g group w pods e events pcmanz sort q", orders[m.sort].name, arrow, m.group, f)
	case screenWaiting:
		return "↵ open  esc back  q quit"
	}
	return "esc back  q quit"
}

// bodyLine is a line of the list.
type bodyLine struct {
	text  string
	style *lipgloss.Style
}

func (m *model) body() []bodyLine {
	if m.state == nil {
		return nil
	}
	switch m.screen {
	case screenNode:
		return m.nodeBody()
	case screenWaiting:
		var out []bodyLine
		for i := range m.state.Waiting {
			out = append(out, bodyLine{text: waitingLine(&m.state.Waiting[i], m.state.Time)})
		}
		return orNone(out, "no pod waits")
	case screenGroup:
		return m.groupBody()
	case screenEvents:
		return m.eventsBody()
	}
	var out []bodyLine
	for _, l := range m.nodeLines() {
		if l.node == nil {
			out = append(out, bodyLine{fmt.Sprintf("%s: %d nodes, $%.3f/h", l.group, l.count, l.usd), &bold})
			continue
		}
		n := l.node
		if m.narrow() {
			out = append(out, m.narrowLine(n))
			continue
		}
		price := "?"
		if n.Priced {
			price = fmt.Sprintf("%.4f", n.USDPerHour)
		}
		why, style := n.Stays.Text, (*lipgloss.Style)(nil)
		if n.InFlight() {
			why, style = n.Phase+": "+why, &moving
		}
		if n.Drift != "" {
			why = "drifted (" + n.Drift + "); " + why
		}
		out = append(out, bodyLine{fmt.Sprintf("%s %s %8s %s%3.0f%% %s%3.0f%% %5s  %s", pad(cutMiddle(n.Name, m.nameWidth()), m.nameWidth()), pad(cut(short(n.Size), 12), 12), price,
			bar(n.CPU.Share(), 5), 100*n.CPU.Share(), bar(n.Memory.Share(), 5), 100*n.Memory.Share(), age(m.state.Time.Sub(n.Created)), why), style})
	}
	return orNone(out, "no node matches")
}

func (m *model) narrowLine(n *dashboard.Node) bodyLine {
	price := "?"
	if n.Priced {
		price = fmt.Sprintf("%.3f", n.USDPerHour)
	}
	why, style := n.Stays.Code, (*lipgloss.Style)(nil)
	if n.InFlight() {
		why, style = n.Phase, &moving
	}
	if n.Drift != "" {
		why += ", drifted"
	}
	return bodyLine{fmt.Sprintf("%s %s %7s %s%3.0f%% %3.0f%% %4s  %s", pad(cutMiddle(n.Name, m.nameWidth()), m.nameWidth()), pad(cut(short(n.Size), 10), 10), price,
		bar(n.CPU.Share(), 5), 100*n.CPU.Share(), 100*n.Memory.Share(), age(m.state.Time.Sub(n.Created)), why), style}
}

func orNone(list []bodyLine, none string) []bodyLine {
	if len(list) == 0 {
		return []bodyLine{{none, &faint}}
	}
	return list
}

func (m *model) nodeBody() []bodyLine {
	i := slices.IndexFunc(m.state.Nodes, func(n dashboard.Node) bool { return n.Name == m.node })
	if i < 0 {
		return []bodyLine{{"it does not exist any more", &faint}}
	}
	n := &m.state.Nodes[i]
	var out []bodyLine
	add := func(name, value string) {
		for k, part := range wrap(value, m.width-14) {
			if k > 0 {
				name = ""
			}
			out = append(out, bodyLine{text: fmt.Sprintf("%-13s %s", name, part)})
		}
	}
	add("phase", n.Phase+" for "+strings.TrimSpace(age(m.state.Time.Sub(n.Since))))
	add("machine", fmt.Sprintf("%s, %s, %s, NodePool %s", n.Size, cmp.Or(n.Zone, "regional"), n.CapacityType, cmp.Or(n.Pool, "none")))
	add("price", fmt.Sprintf("$%.4f/h", n.USDPerHour))
	add("cpu", fmt.Sprintf("%s %.0f%% of %.1f cores", bar(n.CPU.Share(), 20), 100*n.CPU.Share(), float64(n.CPU.Allocatable)/1000))
	add("memory", fmt.Sprintf("%s %.0f%% of %.1f GiB", bar(n.Memory.Share(), 20), 100*n.Memory.Share(), float64(n.Memory.Allocatable)/(1<<30)))
	add("why it stays", n.Stays.Text)
	if n.Why != "" {
		add("bought", n.Why)
	}
	if n.Drift != "" {
		add("drift", n.Drift)
	}
	if n.Image != "" {
		add("image", n.Image)
	}
	out = append(out, bodyLine{fmt.Sprintf("%-*s %8s %10s", max(20, m.width-22), fmt.Sprintf("%d PODS", n.Pods), "CPU", "MEMORY"), &faint})
	for _, p := range m.live.PodsOn(n.Name, 1000) {
		out = append(out, bodyLine{text: fmt.Sprintf("%s %8.2f %6.1f GiB", pad(cut(p.Name, max(20, m.width-22)), max(20, m.width-22)), float64(p.CPU)/1000, float64(p.Memory)/(1<<30))})
	}
	return out
}

func waitingLine(w *dashboard.Waiting, now time.Time) string {
	return fmt.Sprintf("%6d  %-10s %6s  %s", w.Count, w.Outcome, age(now.Sub(w.Since)), w.Reason)
}

func (m *model) groupBody() []bodyLine {
	if m.waiting >= len(m.state.Waiting) {
		return []bodyLine{{"they do not wait any more", &faint}}
	}
	w := &m.state.Waiting[m.waiting]
	var out []bodyLine
	for _, part := range wrap(fmt.Sprintf("%d pods, %s: %s", w.Count, w.Outcome, w.Reason), m.width) {
		out = append(out, bodyLine{text: part})
	}
	for _, s := range w.Stages {
		out = append(out, bodyLine{text: fmt.Sprintf("  %-16s leaves %5d offerings, %5d nodes  %s", s.Name, s.Offerings, s.Nodes, s.Detail)})
	}
	for _, miss := range w.Nearest {
		out = append(out, bodyLine{text: "  nearest: " + miss.What + ": " + miss.Detail})
	}
	for _, p := range w.Pods {
		out = append(out, bodyLine{text: p})
	}
	return out
}

func (m *model) eventsBody() []bodyLine {
	list, err := m.live.Decisions(time.Time{}, time.Now().Add(time.Hour), 500)
	if err != nil {
		return []bodyLine{{err.Error(), &bad}}
	}
	var out []bodyLine
	for i := range list {
		d := &list[i]
		out = append(out, bodyLine{text: fmt.Sprintf("%-8s  %+10.3f  %s", d.Time.Local().Format("15:04:05"), d.After-d.Before, d.Text)})
	}
	return orNone(out, "nothing yet")
}

// bar is a bar of characters that every terminal has.
func bar(share float64, width int) string {
	n := min(width, max(0, int(share*float64(width)+0.5)))
	return strings.Repeat("#", n) + strings.Repeat(".", width-n)
}

func short(size string) string { return strings.TrimPrefix(size, "Standard_") }

func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// cut returns a text without control characters that is at most as wide. Names and
// messages come from the cluster: they must not move the cursor.
func cut(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if lipgloss.Width(s) <= width {
		return s
	}
	var b strings.Builder
	used := 0
	for _, r := range s {
		w := lipgloss.Width(string(r))
		if used+w > width-1 {
			break
		}
		used += w
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// cutMiddle is cut for names that differ at their ends, as those of nodes do.
func cutMiddle(s string, width int) string {
	r := []rune(cut(s, 1000))
	if len(r) <= width {
		return string(r)
	}
	tail := (width - 1) * 2 / 3
	return string(r[:width-1-tail]) + "…" + string(r[len(r)-tail:])
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s))) }

// wrap breaks a text into lines.
func wrap(s string, width int) []string {
	var out []string
	now := ""
	for word := range strings.FieldsSeq(s) {
		if now != "" && lipgloss.Width(now)+1+lipgloss.Width(word) > width {
			out = append(out, now)
			now = ""
		}
		now = strings.TrimPrefix(now+" "+word, " ")
	}
	return append(out, now)
}
