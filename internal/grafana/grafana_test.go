// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package grafana_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsnode "sigs.k8s.io/karpenter/pkg/controllers/metrics/node"

	_ "github.com/nap-aks/nap/controllers" // registers the metrics
	"github.com/nap-aks/nap/internal/grafana"
)

const chart = "../../charts/nap"

// registered returns the names of the metrics that the controller registers.
func registered(t *testing.T) map[string]bool {
	t.Helper()
	metricsnode.NewController(nil) // registers its metrics when it is made
	ch := make(chan *prometheus.Desc, 10000)
	crmetrics.Registry.(interface{ Describe(chan<- *prometheus.Desc) }).Describe(ch)
	close(ch)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	out := map[string]bool{}
	for d := range ch {
		if m := name.FindStringSubmatch(d.String()); m != nil {
			out[m[1]] = true
		}
	}
	return out
}

// TestQueries checks with Prometheus' parser that each query is valid and names only
// metrics that the controller registers.
func TestQueries(t *testing.T) {
	known := registered(t)
	// The process collector describes its metrics on Linux only.
	for _, m := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes"} {
		known[m] = true
	}
	if len(known) < 50 {
		t.Fatalf("%d metrics are registered: are the controllers imported?", len(known))
	}
	queries := grafana.Queries()
	if len(queries) < 25 {
		t.Fatalf("%d queries only", len(queries))
	}
	for _, q := range queries {
		expr, err := parser.ParseExpr(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		found := 0
		for _, selector := range parser.ExtractSelectors(expr) {
			for _, m := range selector {
				if m.Name != labels.MetricName {
					continue
				}
				found++
				base := m.Value
				for _, suffix := range []string{"_bucket", "_count", "_sum"} {
					base = strings.TrimSuffix(base, suffix)
				}
				if !known[m.Value] && !known[base] {
					t.Errorf("%s: the controller has no metric %s", q, m.Value)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s names no metric", q)
		}
	}
}

// TestGenerated checks that the chart has what these sources make, that Prometheus
// reads the rules, and that each dashboard takes its data source from its variable.
func TestGenerated(t *testing.T) {
	rules, err := grafana.Rules()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(chart, "rules", "nap.yaml")); err != nil || !bytes.Equal(got, rules) {
		t.Errorf("rules/nap.yaml is not what the sources make (%v): run go generate ./internal/grafana", err)
	}
	if groups, errs := rulefmt.Parse(rules, false, model.UTF8Validation); len(errs) > 0 || len(groups.Groups) != 1 || len(groups.Groups[0].Rules) < 6 {
		t.Errorf("rules: %v", errs)
	}
	boards, err := grafana.Dashboards()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(chart, "dashboards", "*.json"))
	if err != nil || len(files) != len(boards) {
		t.Errorf("the chart has %d dashboards, want %d (%v)", len(files), len(boards), err)
	}
	for name, want := range boards {
		got, err := os.ReadFile(filepath.Join(chart, "dashboards", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the sources make (%v): run go generate ./internal/grafana", name, err)
		}
		var d struct {
			UID    string
			Panels []struct {
				Datasource struct{ UID string }
				Targets    []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(want, &d); err != nil {
			t.Fatal(err)
		}
		if d.UID == "" || len(d.Panels) < 4 {
			t.Errorf("%s has ID %q and %d panels", name, d.UID, len(d.Panels))
		}
		for _, p := range d.Panels {
			if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 || p.Targets[0].Expr == "" {
				t.Errorf("%s: panel %+v", name, p)
			}
		}
	}
}
