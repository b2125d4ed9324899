// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package kql evaluates queries in the Kusto Query Language.
//
// The caller gives the tables: anything that implements Table. Run parses a
// query into a pipeline of operators over a source (joins and unions have
// pipelines of their own), compiles the pipeline, and pushes each row of the
// source through it. Run passes a Table the columns that the query reads and the
// conditions that all rows must meet, so that the Table can leave out other rows.
// The query checks every row again: results do not depend on the Table doing so.
//
// The length and nesting of a query, the rows that it reads, makes and returns,
// and the memory that they take are bounded by the Max constants. A query ends
// when its context does.
//
// The package imports the standard library only, and neither performs I/O nor
// starts goroutines.
package kql

// Limits of a query.
const (
	// MaxQueryBytes bounds the text of a query.
	MaxQueryBytes = 64 << 10
	// MaxNesting bounds the nesting of expressions.
	MaxNesting = 64
	// MaxRowsRead bounds the rows that operators keep in memory at once.
	MaxRowsRead = 1_000_000
	// MaxBytesHeld bounds the approximate memory of these rows.
	MaxBytesHeld = 512 << 20
	// MaxRowsMade bounds the rows that join, mv-expand, range and make-series
	// make.
	MaxRowsMade = 5_000_000
	// MaxSources bounds the tables that a query reads. A table counts each time
	// it is used.
	MaxSources = 64
	// MaxRowsReturned bounds the rows of a Result.
	MaxRowsReturned = 30_000
)
