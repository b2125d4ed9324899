// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// memoryTable is a Table of rows in memory. It applies all conditions.
type memoryTable struct {
	schema Schema
	rows   [][]any
	scans  []Scan
}

func (t *memoryTable) Schema() Schema { return t.schema }

func (t *memoryTable) Scan(ctx context.Context, s Scan, visit func([]any) bool) error {
	t.scans = append(t.scans, s)
	out := make([]any, len(s.Columns))
	for _, row := range t.rows {
		if !slices.ContainsFunc(s.Conditions, func(c Condition) bool { return !t.holds(c, row) }) {
			for i, name := range s.Columns {
				out[i] = row[position(t.schema.Columns, name)]
			}
			if !visit(out) {
				return nil
			}
		}
	}
	return ctx.Err()
}

func (t *memoryTable) holds(c Condition, row []any) bool {
	have := row[position(t.schema.Columns, c.Column)]
	return slices.ContainsFunc(c.Values, func(v any) bool {
		d, ok := compare(have, v)
		if !ok { // a column, or a value of another type: the query decides
			return true
		}
		switch c.Op {
		case Less:
			return d < 0
		case LessOrEqual:
			return d <= 0
		case Greater:
			return d > 0
		case GreaterOrEqual:
			return d >= 0
		}
		return d == 0
	})
}

// testTables returns small tables in the shape of AKS logs.
func testTables() []Table {
	common := []Column{{"TimeGenerated", DateTime}, {"Category", String}, {"Level", String}}
	newTable := func(name string, cols ...Column) *memoryTable {
		return &memoryTable{schema: Schema{Name: name, Filterable: []string{"TimeGenerated", "Category"},
			Columns: slices.Concat(common, cols, []Column{{"Type", String}})}}
	}
	diagnostics := newTable("AzureDiagnostics", Column{"log_s", String}, Column{"pod_s", String})
	controlPlane := newTable("AKSControlPlane", Column{"Message", String}, Column{"PodName", String}, Column{"Properties", Dynamic})
	audit := newTable("AKSAudit", Column{"RequestUri", String}, Column{"Verb", String}, Column{"User", Dynamic}, Column{"ResponseStatus", Dynamic})
	for i, message := range []string{"created nodeclaim", "registered nodeclaim", "Disrupting node(s)", "Nominated Pod should schedule on: nodeclaim/np-1", "Serving securely on 127.0.0.1:6443"} {
		level := []string{"info", "warning", "error"}[i%3]
		category := []string{"node-auto-provisioning", "karpenter-events"}[i%2]
		at := testNow.Add(-time.Duration(i+1) * time.Hour)
		properties := fmt.Sprintf(`{"level":%q,"cpu":%d,"tags":["a","b%d"]}`, level, i*2, i)
		diagnostics.rows = append(diagnostics.rows, []any{at, category, level, properties, "pod-0", "AzureDiagnostics"})
		controlPlane.rows = append(controlPlane.rows, []any{at, category, level, message, "pod-0", ParseJSON(properties), "AKSControlPlane"})
	}
	audit.rows = [][]any{{testNow.Add(-5 * time.Minute), "kube-audit", "", "/api/v1/nodes", "list", ParseJSON(`{"username":"admin","groups":["system:masters"]}`), ParseJSON(`{"code":200}`), "AKSAudit"}}
	return []Table{diagnostics, controlPlane, audit}
}

func query(ctx context.Context, q string) (*Result, error) {
	return Run(ctx, Request{Query: q, Tables: testTables(), Now: testNow})
}

// ask returns the result of a query as one line: columns, then rows.
func ask(t testing.TB, q string) string {
	t.Helper()
	r, err := query(t.Context(), q)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for i, c := range r.Columns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(c.Name + ":" + string(c.Type))
	}
	for _, row := range r.Rows {
		j, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(" " + string(j))
	}
	return b.String()
}

func TestScanGetsColumnsAndConditions(t *testing.T) {
	for _, c := range []struct{ query, columns, conditions string }{
		{`AKSControlPlane | where Category == "a" and TimeGenerated > ago(1h) | project Message`, "TimeGenerated Category Message", `[{Category == [a]} {TimeGenerated > [2026-11-24 11:00:00 +0000 UTC]}]`},
		{`AKSControlPlane | where Category in ("a", "b") | where TimeGenerated between (ago(1h) .. now()) | count`, "TimeGenerated Category", `[{Category in [a b]} {TimeGenerated >= [2026-11-24 11:00:00 +0000 UTC]}]`},
		{`AKSControlPlane | where Level == "a" or Category == "a" | summarize n = count() by Level`, "Category Level", `[]`},
		{`AKSControlPlane | extend Category = "b" | where Category == "b" | project Category`, "Category", `[]`},
		{`AKSControlPlane | take 1`, "TimeGenerated Category Level Message PodName Properties Type", `[]`},
		{`AKSControlPlane | project x = pack_all()`, "TimeGenerated Category Level Message PodName Properties Type", `[]`},
	} {
		tables := testTables()
		if _, err := Run(t.Context(), Request{Query: c.query, Tables: tables, Now: testNow}); err != nil {
			t.Errorf("%s\n%v", c.query, err)
			continue
		}
		scans := tables[1].(*memoryTable).scans
		if len(scans) != 1 || strings.Join(scans[0].Columns, " ") != c.columns || fmt.Sprint(scans[0].Conditions) != c.conditions {
			t.Errorf("%s\n got %v\nwant %s %s", c.query, scans, c.columns, c.conditions)
		}
	}
}

func TestErrorOfATableEndsTheQuery(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := query(ctx, `AKSControlPlane | count`); err == nil {
		t.Error("no error")
	}
}

func TestQueryWithoutTables(t *testing.T) {
	for q, want := range map[string]string{
		`print 1`:              "",
		`Anything`:             "failed to resolve table named 'Anything': there are no tables",
		`| count`:              "a query starts with a table; found '|'",
		`search "x"`:           "",
		`union *`:              "no table is named like '*': there are no tables",
		`union withsource=t *`: "no table is named like '*': there are no tables",
	} {
		_, err := Run(t.Context(), Request{Query: q})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", q, err, want)
		}
	}
}
