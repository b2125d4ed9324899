// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/nap-aks/nap/dashboard"
)

// order is a column to sort by.
type order struct {
	key, name string
	less      func(a, b *dashboard.Node) int
}

// orders begin with what people look for: the most expensive, the fullest, the oldest.
var orders = []order{
	{"p", "price", func(a, b *dashboard.Node) int { return cmp.Compare(b.USDPerHour, a.USDPerHour) }},
	{"c", "cpu", func(a, b *dashboard.Node) int { return cmp.Compare(b.CPU.Share(), a.CPU.Share()) }},
	{"m", "memory", func(a, b *dashboard.Node) int { return cmp.Compare(b.Memory.Share(), a.Memory.Share()) }},
	{"a", "age", func(a, b *dashboard.Node) int { return a.Created.Compare(b.Created) }},
	{"n", "name", func(a, b *dashboard.Node) int { return strings.Compare(a.Name, b.Name) }},
	{"z", "zone", func(a, b *dashboard.Node) int { return strings.Compare(a.Zone, b.Zone) }},
}

func sortNames() []string {
	var out []string
	for _, o := range orders {
		out = append(out, o.name)
	}
	return out
}

var groupNames = []string{"none", "pool", "size", "zone", "capacity", "reason"}

// groupOf returns the group of a node.
func groupOf(by string, n *dashboard.Node) string {
	switch by {
	case "pool":
		return cmp.Or(n.Pool, "agent pools")
	case "size":
		return cmp.Or(short(n.Size), "unknown")
	case "zone":
		return cmp.Or(n.Zone, "regional")
	case "capacity":
		return cmp.Or(n.CapacityType, "unknown")
	case "reason":
		return n.Stays.Code
	}
	return ""
}

// screens
const (
	screenNodes   = "nodes"
	screenNode    = "node"
	screenWaiting = "waiting"
	screenGroup   = "pods"
	screenEvents  = "events"
)

// model is the state of the terminal.
type model struct {
	ctx     context.Context //nolint:containedctx // bubbletea has no other way to its commands
	live    *dashboard.Live
	state   *dashboard.State
	err     error
	every   time.Duration
	took    time.Duration
	width   int
	height  int
	plain   bool
	screen  string
	sort    int
	reverse bool
	group   string
	filter  string
	typing  bool
	cursor  int
	scroll  int
	node    string // of screenNode
	waiting int    // of screenGroup
}

func newModel(ctx context.Context, live *dashboard.Live, f flags) *model {
	m := &model{ctx: ctx, live: live, every: f.interval, width: 80, height: 24, screen: screenNodes, reverse: f.reverse, group: f.group, filter: f.filter}
	m.state, _ = live.State()
	for i := range orders {
		if orders[i].name == f.sort {
			m.sort = i
		}
	}
	return m
}

// updated is the end of a reading of the cluster.
type updated struct {
	err  error
	took time.Duration
}

type again struct{}

func (m *model) Init() tea.Cmd { return m.later() }

// later reads again after the interval, which is longer if reading takes long.
func (m *model) later() tea.Cmd {
	return tea.Tick(max(m.every, 10*m.took), func(time.Time) tea.Msg { return again{} })
}

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 20), max(msg.Height, 6)
	case again:
		return m, func() tea.Msg {
			start := time.Now()
			err := m.live.Update(m.ctx)
			return updated{err, time.Since(start)}
		}
	case updated:
		m.err, m.took = msg.err, msg.took
		m.state, _ = m.live.State()
		return m, m.later()
	case tea.KeyPressMsg:
		if m.typing {
			m.typeKey(msg)
			return m, nil
		}
		return m, m.press(msg.String())
	}
	m.clamp()
	return m, nil
}

// typeKey edits the filter.
func (m *model) typeKey(msg tea.KeyPressMsg) {
	switch msg.String() {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		if len(m.filter) < 60 {
			m.filter += msg.Text
		}
	}
	m.cursor, m.scroll = 0, 0
}

func (m *model) press(key string) tea.Cmd {
	page := max(1, m.rows()-1)
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "up", "k":
		m.cursor--
	case "down", "j":
		m.cursor++
	case "pgup":
		m.cursor -= page
	case "pgdown", "space":
		m.cursor += page
	case "home":
		m.cursor = 0
	case "end":
		m.cursor = 1 << 30
	case "esc", "left", "backspace":
		m.back()
	case "enter", "right":
		m.open()
	case "w":
		m.show(screenWaiting)
	case "e":
		m.show(screenEvents)
	case "/":
		m.show(screenNodes)
		m.typing = true
	case "g":
		m.show(screenNodes)
		m.group = groupNames[(slices.Index(groupNames, m.group)+1)%len(groupNames)]
		m.cursor, m.scroll = 0, 0
	default:
		for i := range orders {
			if orders[i].key == key && m.screen == screenNodes {
				m.reverse = m.sort == i && !m.reverse
				m.sort = i
				m.cursor = 0
			}
		}
	}
	m.clamp()
	return nil
}

func (m *model) show(screen string) {
	if m.screen != screen {
		m.screen, m.cursor, m.scroll = screen, 0, 0
	}
}

func (m *model) back() {
	switch m.screen {
	case screenGroup:
		m.show(screenWaiting)
		m.cursor = m.waiting
	case screenNodes:
		m.filter = ""
	default:
		m.show(screenNodes)
	}
}

func (m *model) open() {
	switch m.screen {
	case screenNodes:
		lines := m.nodeLines()
		if m.cursor < len(lines) && lines[m.cursor].node != nil {
			m.node = lines[m.cursor].node.Name
			m.show(screenNode)
		}
	case screenWaiting:
		if m.state != nil && m.cursor < len(m.state.Waiting) {
			m.waiting = m.cursor
			m.show(screenGroup)
		}
	}
}

// nodes returns the nodes to show, in order.
func (m *model) nodes() []*dashboard.Node {
	var out []*dashboard.Node
	if m.state == nil {
		return nil
	}
	f := strings.ToLower(m.filter)
	for i := range m.state.Nodes {
		n := &m.state.Nodes[i]
		if f == "" || strings.Contains(strings.ToLower(strings.Join([]string{n.Name, n.Pool, n.Size, n.Zone, n.CapacityType, n.Phase, n.Stays.Code, n.Drift}, " ")), f) {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b *dashboard.Node) int {
		c := orders[m.sort].less(a, b)
		if m.reverse {
			c = -c
		}
		return c
	})
	return out
}

// line is a node, or the head of a group.
type line struct {
	node  *dashboard.Node
	group string
	count int
	usd   float64
}

func (m *model) nodeLines() []line {
	nodes := m.nodes()
	if m.group == "none" {
		out := make([]line, 0, len(nodes))
		for _, n := range nodes {
			out = append(out, line{node: n})
		}
		return out
	}
	heads := map[string]*line{}
	members := map[string][]*dashboard.Node{}
	var names []string
	for _, n := range nodes {
		g := groupOf(m.group, n)
		if heads[g] == nil {
			heads[g] = &line{group: g}
			names = append(names, g)
		}
		heads[g].count++
		heads[g].usd += n.USDPerHour
		members[g] = append(members[g], n)
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(heads[b].usd, heads[a].usd), strings.Compare(a, b)) })
	var out []line
	for _, g := range names {
		out = append(out, *heads[g])
		for _, n := range members[g] {
			out = append(out, line{node: n})
		}
	}
	return out
}

// rows is how many lines fit between the head and the foot.
func (m *model) rows() int { return max(1, m.height-headLines-2) }

// clamp keeps cursor and scroll within the lines.
func (m *model) clamp() {
	n := len(m.body())
	m.cursor = max(0, min(m.cursor, n-1))
	rows := m.rows()
	if m.cursor < m.scroll {
		m.scroll = m.cursor
	}
	if m.cursor >= m.scroll+rows {
		m.scroll = m.cursor - rows + 1
	}
	m.scroll = max(0, min(m.scroll, n-rows))
}
