// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql_test

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

// people is a table in memory. It makes no use of conditions: the query checks
// each row itself.
type people [][]any

func (people) Schema() kql.Schema {
	return kql.Schema{Name: "People", Columns: []kql.Column{
		{Name: "Name", Type: kql.String},
		{Name: "City", Type: kql.String},
		{Name: "Born", Type: kql.DateTime},
	}}
}

func (p people) Scan(ctx context.Context, s kql.Scan, visit func([]any) bool) error {
	columns := p.Schema().Columns
	for _, row := range p {
		out := make([]any, len(s.Columns))
		for i, name := range s.Columns {
			out[i] = row[slices.IndexFunc(columns, func(c kql.Column) bool { return c.Name == name })]
		}
		if !visit(out) {
			return nil
		}
	}
	return ctx.Err()
}

func year(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }

func ExampleRun() {
	table := people{
		{"Ada", "London", year(1815)},
		{"Alan", "London", year(1912)},
		{"Grace", "New York", year(1906)},
	}
	result, err := kql.Run(context.Background(), kql.Request{
		Query: `People
			| where Born < now()
			| summarize Count = count(), First = min(getyear(Born)) by City
			| order by Count desc`,
		Tables: []kql.Table{table},
		Now:    year(2026),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range result.Columns {
		fmt.Println("column", c.Name, "of type", c.Type)
	}
	for _, row := range result.Rows {
		fmt.Println(row...)
	}
	// Output:
	// column City of type string
	// column Count of type long
	// column First of type long
	// London 2 1815
	// New York 1 1906
}

// An error in a query has a position.
func ExampleRun_error() {
	_, err := kql.Run(context.Background(), kql.Request{
		Query:  "People\n| where city == 'London'",
		Tables: []kql.Table{people{}},
	})
	fmt.Println(err)
	// Output:
	// SemanticError: failed to resolve column named 'city'; did you mean 'City'? at line 2, position 9
}
