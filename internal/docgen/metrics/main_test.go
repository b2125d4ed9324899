// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommittedReferenceIsCurrent(t *testing.T) {
	found, err := find("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no metric found")
	}
	got, err := os.ReadFile("../../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page(found) {
		t.Error("docs/reference/metrics.md is out of date: run go generate ./internal/docgen/metrics")
	}
}

// source writes a repository whose controllers make metrics with the given
// expression, and returns its root.
func source(t *testing.T, expression string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range dirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := "package controllers\n\nvar m = " + expression + "\n"
	if err := os.WriteFile(filepath.Join(root, "controllers", "metrics.go"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestMetricsAreFound(t *testing.T) {
	for _, x := range []struct{ expression, row string }{
		{
			`prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "nap", Subsystem: "pods", Name: "total", Help: "Pods | all."}, []string{"a", "b"})`,
			"| `nap_pods_total` | counter | `a`, `b` | Pods \\| all. |\n",
		},
		{
			`prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "Time.", Buckets: nil})`,
			"| `seconds` | histogram | – | Time. |\n",
		},
		{`other.NewGauge(opts)`, ""}, // not client_golang's
	} {
		found, err := find(source(t, x.expression))
		if err != nil {
			t.Errorf("%s: %v", x.expression, err)
			continue
		}
		if got := strings.TrimPrefix(page(found), page(nil)); got != x.row {
			t.Errorf("%s: rows are %q, want %q", x.expression, got, x.row)
		}
	}
}

// What cannot be read from the source is an error that names the place, and not a
// row that is missing or wrong.
func TestUnreadableMetricsAreErrors(t *testing.T) {
	for expression, want := range map[string]string{
		`prometheus.NewGauge(opts)`: "options of a metric must be a literal",
		`prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: "Help."})`:                          "needs a name and a help text",
		`prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"})`:                                          `metric "x" needs a name and a help text`,
		`prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "x", Help: "Help."}, labels)`:                "labels of metric x must be a literal",
		`prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "x", Help: "Help."}, []string{"a", labelB})`: "labels of metric x must be string literals",
		`prometheus.(`: "expected type",
	} {
		found, err := find(source(t, expression))
		if err == nil {
			t.Errorf("%s: no error, found %v", expression, found)
			continue
		}
		if got := err.Error(); !strings.Contains(got, want) || !strings.Contains(got, "metrics.go:") {
			t.Errorf("%s: error is %q, want %q with the file and line", expression, got, want)
		}
	}
}
