// Package kql keeps component logs in an embedded database and answers queries
// in the Kusto Query Language about them, as a Log Analytics workspace does.
//
// A Store holds Records in SQLite (write-ahead log, retention). It is fed by
// Append, and by Tail, which follows a component's log file and remembers how
// far it has read in the same transaction as what it read. Store.Query runs a
// query; Handler serves queries over HTTP in the shape of the Log Analytics
// API. Authentication is the caller's: Handler has none.
//
// A query is parsed into a chain of operators over a source, and that of a join
// or union over further ones. The filters that SQLite can answer (time,
// category, cluster) go into the SQL that reads a table; everything else is
// evaluated row by row, so that the semantics are Kusto's and not SQL's. Query
// length, nesting, rows read, made and returned, and the memory they take are
// bounded.
//
// The tables are views of the same records:
//
//	AzureDiagnostics   every record, in the shape of the legacy table (log_s, pod_s, ...)
//	AKSControlPlane    every record but audit ones (Level, Message, PodName, ...)
//	AKSAudit           audit records with their fields (Verb, RequestUri, User, ...)
//	AKSAuditAdmin      likewise, of category kube-audit-admin
package kql

// Limits of a query.
const (
	// MaxQueryBytes bounds the text of a query.
	MaxQueryBytes = 64 << 10
	// MaxNesting bounds the nesting of expressions.
	MaxNesting = 64
	// MaxRowsRead bounds the rows that operators keep in memory at once.
	MaxRowsRead = 1_000_000
	// MaxBytesHeld bounds about what these rows take.
	MaxBytesHeld = 512 << 20
	// MaxRowsMade bounds the rows that join, mv-expand, range and make-series
	// make.
	MaxRowsMade = 5_000_000
	// MaxSources bounds the tables that a query reads, each as often as it is
	// used.
	MaxSources = 64
	// MaxRowsReturned bounds the rows of an answer; more are cut off and the
	// answer says so.
	MaxRowsReturned = 30_000
)
