// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

var columns = []string{"shape", "pods", "nodes", "engine", "fill", "read", "plan", "pods/s", "pass", "allocs", "peak", "machines", "$/h", "above bound", "left out", "against Karpenter"}

func cells(r *row) [][]string {
	if r.skip != "" {
		return [][]string{{r.shape.name, "", "", "not run", "", "", "", "", "", "", "", "", "", r.skip}}
	}
	pods, nodes := fmt.Sprint(r.pods), fmt.Sprint(r.nodes)
	n := r.nap
	against := func(plan time.Duration, usd float64) string {
		k := r.karp
		if k == nil {
			return ""
		}
		s := fmt.Sprintf("%s%.1f× plan", atLeast(k), ratio(k.plan.Seconds(), plan.Seconds()))
		if k.leftOut == n.leftOut && k.usd > 0 && k.note == "" {
			s += fmt.Sprintf(", %.1f%% cheaper", 100*(1-usd/k.usd))
		}
		return s
	}
	pass := ""
	if k := r.karp; k != nil {
		pass = fmt.Sprintf("; %s%.0f× pass", atLeast(k), ratio((k.read+k.plan).Seconds(), n.warm.Seconds()))
	}
	out := [][]string{{r.shape.name, pods, nodes, "nap", short(n.fill), short(n.read), short(n.plan), perSecond(r.pods, n.plan), "", count(n.allocs), size(n.peak), fmt.Sprint(n.machines), money(n.usd), gap(n.usd, n.bound), fmt.Sprint(n.leftOut), against(n.plan, n.usd)}}
	out = append(out, []string{"", "", "", "nap, quick path", "", "", short(n.quick), perSecond(r.pods, n.quick), short(n.warm), "", "", fmt.Sprint(n.quickMachines), money(n.quickUSD), gap(n.quickUSD, n.bound), "", against(n.quick, n.quickUSD) + pass})
	switch k := r.karp; {
	case k != nil:
		out = append(out, []string{"", "", "", "Karpenter", short(k.fill), short(k.read), short(k.plan), perSecond(r.pods, k.plan), short(k.read + k.plan), count(k.allocs), size(k.peak), fmt.Sprint(k.machines), money(k.usd), gap(k.usd, n.bound), fmt.Sprint(k.leftOut), k.note})
	default:
		out = append(out, []string{"", "", "", "Karpenter", "", "", "not run", "", "", "", "", "", "", "", "", r.peerSkip})
	}
	return out
}

// atLeast marks ratios to a run that was stopped early.
func atLeast(k *figures) string {
	if k.note != "" {
		return ">"
	}
	return ""
}

func short(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

func count(n uint64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fk", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

func size(b uint64) string { return fmt.Sprintf("%.0f MB", float64(b)/1e6) }

func money(v float64) string { return fmt.Sprintf("%.2f", v) }

func gap(v, bound float64) string {
	if bound <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*(v/bound-1))
}

func writeTable(w io.Writer, rows []row) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ToUpper(strings.Join(columns, "\t")))
	for i := range rows {
		for _, c := range cells(&rows[i]) {
			fmt.Fprintln(tw, strings.Join(c, "\t"))
		}
	}
	tw.Flush()
}

// writeFiles writes RESULTS.md, and results.txt in the format of benchstat.
func writeFiles(dir string, rows []row, full bool, trace, note string) error {
	var b bytes.Buffer
	b.WriteString("# Benchmark results\n\n")
	fmt.Fprintf(&b, "Written by `go run ./bench%s%s` on %s.\n\n", map[bool]string{true: " -full"}[full], map[bool]string{true: " -trace DIR"}[trace != ""], time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "Machine: %s.\n\n", machineName())
	if note != "" {
		fmt.Fprintf(&b, "Note: %s\n\n", note)
	}
	b.WriteString("Both engines in one process on the same objects; Karpenter is v1.15.0. What is measured, and how, is in the comment at the top of `bench/main.go`; the shapes are described in `bench/shapes.go` and below.\n\n")
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for i := range rows {
		for _, c := range cells(&rows[i]) {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(c, " | "))
		}
	}
	b.WriteString("\n## The shapes\n\n")
	for i := range rows {
		fmt.Fprintf(&b, "- **%s**: %s\n", rows[i].shape.name, rows[i].shape.what)
	}
	if err := os.WriteFile(filepath.Join(dir, "RESULTS.md"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	b.Reset()
	for i := range rows {
		r := &rows[i]
		line := func(name string, f *figures) {
			fmt.Fprintf(&b, "Benchmark%s/%s 1 %d ns/op %.0f pods/s %.4f USD/h %d machines %d left-out %d allocs/op\n",
				strings.ReplaceAll(r.shape.name, " ", "_"), name, f.plan.Nanoseconds(), ratio(float64(r.pods), f.plan.Seconds()), f.usd, f.machines, f.leftOut, f.allocs)
		}
		if r.nap != nil {
			line("nap", r.nap)
		}
		if r.karp != nil {
			line("karpenter", r.karp)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "results.txt"), b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}
