// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"maps"
	"slices"
)

// operatorNames are the operators that a query can use after '|'.
var operatorNames = []string{"as", "count", "distinct", "evaluate", "extend", "filter", "getschema", "join", "limit", "lookup", "make-series", "mv-apply", "mv-expand",
	"order by", "parse", "parse-where", "partition", "project", "project-away", "project-keep", "project-rename", "project-reorder", "render", "sample", "sample-distinct",
	"search", "serialize", "sort by", "summarize", "take", "top", "union", "where"}

// sourceNames are what a query can start with, besides the name of a table.
var sourceNames = []string{"datatable", "find", "materialize", "print", "range", "search", "table", "union"}

// What Azure Monitor has and this package has not. The lists are for the reference
// page and for error messages.
var (
	missingOperators = []string{"consume", "externaldata", "facet", "fork", "graph-match", "invoke", "make-graph", "parse-kv", "project-by-names", "reduce", "scan", "top-hitters", "top-nested"}
	missingPlugins   = []string{"active_users_count", "activity_counts_metrics", "autocluster", "basket", "cosmosdb_sql_request", "diffpatterns", "funnel_sequence", "http_request", "ipv4_lookup", "preview", "python", "r", "rolling_percentile", "rows_near", "schema_merge", "sequence_detect", "session_count", "sliding_window_counts", "sql_request"}
	missingFunctions = []string{"array_iff", "array_rotate_left", "array_rotate_right", "array_shift_left", "array_shift_right", "array_split", "bag_set_key", "bag_zip", "base64_decode_toarray",
		"cursor_after", "dcount_hll", "format_ipv4", "format_ipv4_mask", "geo_distance_2points", "geo_point_in_circle", "has_any_ipv4", "has_ipv4", "hash_combine", "hash_many", "hash_xxhash64", "hll_merge",
		"ingestion_time", "ipv6_compare", "ipv6_is_match", "jaccard_index", "parse_command_line", "parse_ipv6", "parse_ipv6_mask", "parse_urlquery", "parse_user_agent", "parse_xml", "percentile_tdigest", "punycode_from_string",
		"series_add", "series_decompose", "series_decompose_anomalies", "series_decompose_forecast", "series_fill_forward", "series_fill_linear", "series_fir", "series_fit_line", "series_outliers", "series_periods_detect", "series_stats",
		"tdigest_merge", "treepath", "unicode_codepoints_from_string", "welch_test", "zip"}
	missingAggregates = []string{"binary_all_and", "binary_all_or", "binary_all_xor", "buildschema", "hll", "hll_if", "make_bag_if", "percentilesw", "percentilew", "stdevif", "stdevp", "tdigest", "varianceif", "variancep"}
)

// Function is a function that queries can call.
type Function struct {
	Name string
	// Kind is scalar, window, aggregate or plugin.
	Kind string
	// Min and Max are the number of arguments; Max < 0 is any number.
	Min, Max int
	// Result is the type of the value. It is empty if it depends on the arguments,
	// and for plugins, which return tables.
	Result Type
}

// Language is what the package knows of the query language.
type Language struct {
	// Sources and Operators are what queries start with and go on with.
	Sources, Operators []string
	// Functions are sorted by kind and name.
	Functions []Function
	// Missing are the names of Azure Monitor's language that queries cannot use, by
	// kind: operator, scalar, aggregate and plugin.
	Missing map[string][]string
}

// Reference returns what the package knows of the query language.
func Reference() Language {
	l := Language{Sources: slices.Clone(sourceNames), Operators: slices.Clone(operatorNames), Missing: map[string][]string{
		"operator": missingOperators, "scalar": missingFunctions, "aggregate": missingAggregates, "plugin": missingPlugins}}
	add := func(name, kind string, lo, hi int, typ Type) {
		if typ == typeOfFirst || typ == typeOfSecond {
			typ = ""
		}
		l.Functions = append(l.Functions, Function{name, kind, lo, hi, typ})
	}
	for _, name := range slices.Sorted(maps.Keys(aggregates)) {
		a := aggregates[name]
		add(name, "aggregate", a.min, a.max, a.typ)
	}
	for _, name := range slices.Sorted(maps.Keys(plugins)) {
		lo := 1
		if name == "narrow" {
			lo = 0
		}
		add(name, "plugin", lo, -1, "")
	}
	scalarsAndSchema := maps.Clone(scalars)
	for name, lo := range map[string]int{"column_ifexists": 2, "columnifexists": 2, "pack_all": 0} {
		scalarsAndSchema[name] = scalar{min: lo, max: lo, typ: typeOfFirst}
	}
	scalarsAndSchema["pack_all"] = scalar{max: 1, typ: Dynamic}
	scalarsAndSchema["estimate_data_size"] = scalar{min: 1, max: -1, typ: Long}
	scalarsAndSchema["toscalar"] = scalar{min: 1, max: 1, typ: typeOfFirst}
	for _, name := range slices.Sorted(maps.Keys(scalarsAndSchema)) {
		f := scalarsAndSchema[name]
		add(name, "scalar", f.min, f.max, f.typ)
	}
	for _, name := range slices.Sorted(maps.Keys(windowFunctions)) {
		f := windowFunctions[name]
		add(name, "window", f.min, f.max, f.typ)
	}
	return l
}
