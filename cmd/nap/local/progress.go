// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress prints steps with their elapsed time. On a terminal the current step is
// a live line at the bottom; other outputs get one line per finished step.
type progress struct {
	out  io.Writer
	tty  bool
	cols int

	mu      sync.Mutex
	step    string
	update  string
	live    string // shown between steps
	began   time.Time
	drawn   bool
	frame   int
	stopped chan struct{}
	once    sync.Once
}

func newProgress(out *os.File) *progress {
	p := &progress{out: out, tty: term.IsTerminal(int(out.Fd())), stopped: make(chan struct{})}
	if p.tty {
		if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 20 {
			p.cols = w
		} else {
			p.cols = 80
		}
		go p.tick()
	}
	return p
}

func (p *progress) tick() {
	t := time.NewTicker(120 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.stopped:
			return
		case <-t.C:
			p.mu.Lock()
			p.frame++
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Step ends the current step and begins another.
func (p *progress) Step(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish("✓")
	p.step, p.update, p.began = text, "", time.Now()
	if p.tty {
		p.draw()
	}
}

// Update sets the detail of the current step. Only a terminal shows it.
func (p *progress) Update(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.update = text
	if p.tty {
		p.draw()
	}
}

// Line prints a permanent line.
func (p *progress) Line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.out, "   ", text)
	if p.tty {
		p.draw()
	}
}

// Live replaces the status line at the bottom, which a terminal shows once the
// steps are done.
func (p *progress) Live(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = text
	if p.tty {
		p.draw()
	}
}

// Done ends the last step, as failed if err is not nil, and stops the live line.
func (p *progress) Done(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mark := "✓"
	if err != nil {
		mark = "✗"
	}
	p.finish(mark)
	p.once.Do(func() { close(p.stopped) })
}

func (p *progress) finish(mark string) {
	if p.step == "" {
		return
	}
	p.clear()
	fmt.Fprintf(p.out, " %s  %-62s %7s\n", mark, p.step, elapsed(time.Since(p.began)))
	p.step = ""
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) draw() {
	if p.step == "" {
		if p.live != "" {
			p.put(p.live)
		}
		return
	}
	const frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	f := []rune(frames)[p.frame%10]
	line := fmt.Sprintf(" %c  %s  %s", f, p.step, elapsed(time.Since(p.began)))
	if p.update != "" {
		line += "  " + strings.ReplaceAll(p.update, "\n", " ")
	}
	p.put(line)
}

// put writes the live line, truncated to the width of the terminal.
func (p *progress) put(line string) {
	if r := []rune(line); len(r) > p.cols-1 {
		line = string(r[:p.cols-2]) + "…"
	}
	fmt.Fprint(p.out, "\r\x1b[K"+line)
	p.drawn = true
}

// elapsed formats a duration for people: 0.4s, 12.3s, 2m05s.
func elapsed(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}
