// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package grafana describes the Grafana dashboards and the alerts of nap. Command gen
// writes them into the Helm chart.
package grafana

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

//go:generate go run ./gen ../../charts/nap

// query is a PromQL query and the legend of its series.
type query struct{ expr, legend string }

// panel is a diagram.
type panel struct {
	title, unit, help string
	queries           []query
}

// board is a dashboard: a name and rows of two panels.
type board struct {
	id, title string
	panels    []panel
}

var boards = []board{
	{"overview", "nap / Overview", []panel{
		{"Cost and proven bound", "currencyUSD", "Per hour. The controller exports it while its dashboard is on.", []query{{"nap_cluster_cost_usd_per_hour", "all nodes"}, {"nap_cluster_bound_usd_per_hour", "bound, machines of NodePools"}}},
		{"Gap above the bound", "percentunit", "", []query{{"nap_cluster_gap_ratio", "gap"}}},
		{"Cost by NodePool", "currencyUSD", "", []query{{"sum by (nodepool) (karpenter_nodepools_cost_total)", "{{nodepool}}"}}},
		{"Nodes", "short", "", []query{{"karpenter_cluster_state_node_count", "nodes"}}},
		{"Pods by phase", "short", "", []query{{"sum by (phase) (karpenter_pods_state)", "{{phase}}"}}},
		{"Requested of allocatable", "percent", "", []query{{"karpenter_cluster_utilization_percent", "{{resource_type}}"}}},
	}},
	{"decisions", "nap / Decisions", []panel{
		{"Verdicts of the last pass", "short", "Pods by what was decided, and why they were refused.", []query{{"sum by (outcome, code) (nap_provisioner_verdicts)", "{{outcome}} {{code}}"}}},
		{"Pods without a place", "short", "", []query{{"sum(karpenter_scheduler_unschedulable_pods_count)", "refused"}, {"sum(karpenter_scheduler_ignored_pods_count)", "invalid"}}},
		{"Machines bought", "short", "By NodePool, in each interval.", []query{{"sum by (nodepool) (increase(karpenter_nodeclaims_created_total[$__rate_interval]))", "{{nodepool}}"}}},
		{"Time of a pass, p99", "s", "", []query{{"histogram_quantile(0.99, sum by (le, part) (rate(nap_provisioner_pass_seconds_bucket[$__rate_interval])))", "{{part}}"}}},
		{"Places taken back", "short", "", []query{{"sum by (why) (increase(nap_provisioner_promises_broken_total[$__rate_interval]))", "{{why}}"}}},
		{"Pods left to Karpenter's scheduler", "short", "", []query{{"sum by (feature) (increase(nap_provisioner_deferred_pods_total[$__rate_interval]))", "{{feature}}"}}},
	}},
	{"capacity", "nap / Capacity and quota", []panel{
		{"Quota in use", "percentunit", "", []query{{"nap_quota_used_vcpus / (nap_quota_limit_vcpus > 0)", "{{quota}}"}}},
		{"vCPUs left in each quota", "short", "", []query{{"nap_quota_limit_vcpus - nap_quota_used_vcpus", "{{quota}}"}}},
		{"NodePool limits in use", "percentunit", "", []query{{"karpenter_nodepools_usage / (karpenter_nodepools_limit > 0)", "{{nodepool}} {{resource_type}}"}}},
		{"vCPUs by NodePool", "short", "", []query{{`sum by (nodepool) (karpenter_nodepools_usage{resource_type="cpu"})`, "{{nodepool}}"}}},
	}},
	{"disruption", "nap / Disruption", []panel{
		{"Decisions", "short", "", []query{{"sum by (decision, reason) (increase(karpenter_voluntary_disruption_decisions_total[$__rate_interval]))", "{{decision}} {{reason}}"}}},
		{"Machines removed", "short", "", []query{{"sum by (nodepool) (increase(karpenter_nodeclaims_terminated_total[$__rate_interval]))", "{{nodepool}}"}}},
		{"Nodes that may be disrupted", "short", "", []query{{"sum by (reason) (karpenter_voluntary_disruption_eligible_nodes)", "{{reason}}"}}},
		{"Disruptions allowed by budgets", "short", "", []query{{"min by (nodepool, reason) (karpenter_nodepools_allowed_disruptions)", "{{nodepool}} {{reason}}"}}},
		{"Evictions", "short", "", []query{{"sum by (code) (increase(karpenter_pods_eviction_requests_total[$__rate_interval]))", "{{code}}"}}},
		{"Decisions that failed", "short", "", []query{{"sum(increase(karpenter_voluntary_disruption_queue_failures_total[$__rate_interval]))", "failed"}, {"sum(increase(karpenter_voluntary_disruption_failed_validations_total[$__rate_interval]))", "not valid any more"}}},
	}},
	{"controller", "nap / Controller health", []panel{
		{"CPU", "short", "Cores.", []query{{"sum by (pod) (rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) karpenter_cluster_state_synced)", "{{pod}}"}}},
		{"Memory", "bytes", "", []query{{"sum by (pod) (process_resident_memory_bytes and on (instance) karpenter_cluster_state_synced)", "{{pod}}"}}},
		{"Reconcile errors", "short", "", []query{{"sum by (controller) (increase(controller_runtime_reconcile_errors_total[$__rate_interval]))", "{{controller}}"}}},
		{"Time of a reconcile, p99", "s", "", []query{{"histogram_quantile(0.99, sum by (le, controller) (rate(controller_runtime_reconcile_time_seconds_bucket[$__rate_interval])))", "{{controller}}"}}},
		{"Requests to the API server", "reqps", "", []query{{"sum by (code) (rate(rest_client_requests_total[$__rate_interval]))", "{{code}}"}}},
		{"State in step with the cluster", "short", "1: it is.", []query{{"karpenter_cluster_state_synced", "synced"}}},
	}},
}

// Dashboards returns the JSON of all dashboards by file name.
func Dashboards() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, b := range boards {
		j, err := b.json()
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", b.id, err)
		}
		out["nap-"+b.id+".json"] = append(j, '\n')
	}
	return out, nil
}

func (b *board) json() ([]byte, error) {
	kind, id := "prometheus", "${datasource}"
	source := common.DataSourceRef{Type: &kind, Uid: &id}
	d := dashboard.NewDashboardBuilder(b.title).Uid("nap-"+b.id).Tags([]string{"nap", "karpenter"}).
		Refresh("30s").Time("now-6h", "now").Timezone(common.TimeZoneBrowser).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"))
	for _, p := range b.panels {
		t := timeseries.NewPanelBuilder().Title(p.title).Unit(p.unit).Min(0).Span(12).Height(8).Datasource(source)
		if p.help != "" {
			t = t.Description(p.help)
		}
		for _, q := range p.queries {
			t = t.WithTarget(prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source))
		}
		d = d.WithPanel(t)
	}
	built, err := d.Build()
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(built, "", "  ")
}

// Queries returns all queries of dashboards and alerts, as Prometheus gets them.
func Queries() []string {
	var out []string
	for _, b := range boards {
		for _, p := range b.panels {
			for _, q := range p.queries {
				out = append(out, strings.ReplaceAll(q.expr, "$__rate_interval", "5m"))
			}
		}
	}
	for _, a := range alerts {
		out = append(out, a.Expr)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
