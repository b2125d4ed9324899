// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

// Request is a query and the records that it may read.
type Request struct {
	Query string
	// From and To bound TimeGenerated; zero means unbounded.
	From, To time.Time
	// Views limits the query to records that one of them shows; nil means all
	// records, an empty list none.
	Views []View
}

// View selects records: those of a cluster, of one category or all, from a time
// on.
type View struct {
	// Cluster is a cluster's ARM ID, in any case.
	Cluster string
	// Category is empty for all.
	Category string
	// Since is zero for records of any time.
	Since time.Time
}

// Query runs a query. Errors in the query are of type *kql.Error.
func (s *Store) Query(ctx context.Context, req Request) (*kql.Result, error) {
	where := &sqlFilter{}
	if !req.From.IsZero() {
		where.add("time >= ?", unixNano(req.From))
	}
	if !req.To.IsZero() {
		where.add("time < ?", unixNano(req.To))
	}
	if req.Views != nil {
		where.addViews(req.Views)
	}
	tables := make([]kql.Table, len(logTables))
	for i, t := range logTables {
		tables[i] = &boundTable{table: t, db: s.db, where: where}
	}
	return kql.Run(ctx, kql.Request{Query: req.Query, Tables: tables, Now: s.opts.Clock()})
}

// sqlFilter is a conjunction of SQL conditions on records.
type sqlFilter struct {
	terms []string
	args  []any
}

func (f *sqlFilter) add(term string, args ...any) {
	f.terms = append(f.terms, term)
	f.args = append(f.args, args...)
}

// String returns the condition for a WHERE clause.
func (f *sqlFilter) String() string {
	if len(f.terms) == 0 {
		return "1"
	}
	return strings.Join(f.terms, " AND ")
}

// addViews requires that one of the views shows the record.
func (f *sqlFilter) addViews(views []View) {
	if len(views) == 0 {
		f.add("0")
		return
	}
	var terms []string
	var args []any
	for _, v := range views {
		term := "lower(cluster) = ?"
		args = append(args, strings.ToLower(v.Cluster))
		if v.Category != "" {
			term += " AND category = ?"
			args = append(args, v.Category)
		}
		if !v.Since.IsZero() {
			term += " AND time >= ?"
			args = append(args, unixNano(v.Since))
		}
		terms = append(terms, term)
	}
	f.add("(("+strings.Join(terms, ") OR (")+"))", args...)
}

// addCategories requires one of the categories or, with not, none of them.
func (f *sqlFilter) addCategories(not bool, categories []any) {
	op := "category IN ("
	if not {
		op = "category NOT IN ("
	}
	f.add(op+strings.TrimSuffix(strings.Repeat("?,", len(categories)), ",")+")", categories...)
}

// sqlComparisons are SQLite's names of the comparisons.
var sqlComparisons = map[kql.ConditionOp]string{
	kql.Equal: "=", kql.Less: "<", kql.LessOrEqual: "<=", kql.Greater: ">", kql.GreaterOrEqual: ">=",
}

// addCondition adds a condition of a query. It leaves out what SQLite would
// answer differently from kql, which checks each row again.
func (f *sqlFilter) addCondition(c kql.Condition) {
	switch c.Column {
	case "TimeGenerated":
		op, ok := sqlComparisons[c.Op]
		if !ok {
			return
		}
		if t, ok := c.Values[0].(time.Time); ok {
			f.add("time "+op+" ?", unixNano(t))
		}
	case "Category":
		if c.Op != kql.Equal && c.Op != kql.In {
			return
		}
		for _, v := range c.Values {
			if _, ok := v.(string); !ok {
				return
			}
		}
		f.addCategories(false, c.Values)
	}
}

// Bounds of the times that a record can have.
var (
	earliest = time.Unix(0, math.MinInt64)
	latest   = time.Unix(0, math.MaxInt64)
)

// unixNano returns nanoseconds since 1970; times outside of the range of int64
// (the years 1678 to 2261) become its ends.
func unixNano(t time.Time) int64 {
	switch {
	case t.Before(earliest):
		return math.MinInt64
	case t.After(latest):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// boundTable is a table with the records that one request may read.
type boundTable struct {
	*table
	db    *sql.DB
	where *sqlFilter
}

// Schema implements kql.Table.
func (t *boundTable) Schema() kql.Schema { return t.schema }

// Scan implements kql.Table.
func (t *boundTable) Scan(ctx context.Context, s kql.Scan, visit func([]any) bool) (err error) {
	where := &sqlFilter{}
	where.add(t.where.String(), t.where.args...)
	if len(t.categories) > 0 {
		where.addCategories(t.not, t.categories)
	}
	for _, c := range s.Conditions {
		where.addCondition(c)
	}
	columns := make([]func(*row) any, len(s.Columns))
	for i, name := range s.Columns {
		if columns[i] = t.columns[name]; columns[i] == nil {
			return fmt.Errorf("table %s has no column %q", t.schema.Name, name)
		}
	}
	rows, err := t.db.QueryContext(ctx, "SELECT time,category,level,message,properties,cluster,pod FROM records WHERE "+where.String()+" ORDER BY id", where.args...)
	if err != nil {
		return fmt.Errorf("reading log records: %w", err)
	}
	defer func() {
		if cerr := rows.Close(); cerr != nil && err == nil {
			err = fmt.Errorf("reading log records: %w", cerr)
		}
	}()
	values := make([]any, len(columns))
	for rows.Next() {
		var rec Record
		var ns int64
		var props sql.NullString
		if err := rows.Scan(&ns, &rec.Category, &rec.Level, &rec.Message, &props, &rec.Cluster, &rec.Pod); err != nil {
			return fmt.Errorf("reading log records: %w", err)
		}
		rec.Time = time.Unix(0, ns).UTC()
		if props.Valid {
			rec.Properties = json.RawMessage(props.String)
		}
		r := &row{rec: &rec}
		for i, get := range columns {
			values[i] = get(r)
		}
		if !visit(values) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading log records: %w", err)
	}
	return nil
}
