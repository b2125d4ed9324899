// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logstore keeps the logs of components in a SQLite database and
// answers queries in the Kusto Query Language about them, as a Log Analytics
// workspace does. The language is package kql; this package gives it tables.
//
// A Store holds Records. Append adds them, and Tail follows the log file of a
// component: the position in the file is written in the same transaction as the
// records, so that a restart neither loses nor repeats a line. Prune applies
// the retention. Store.Query runs a query; Handler serves queries over HTTP in
// the shape of the Log Analytics API and leaves authentication to the caller.
//
// The tables are views of the same records:
//
//	AzureDiagnostics   every record, in the shape of the legacy table (log_s, pod_s, ...)
//	AKSControlPlane    every record but audit ones (Level, Message, PodName, ...)
//	AKSAudit           audit records with their fields (Verb, RequestUri, User, ...)
//	AKSAuditAdmin      likewise, of category kube-audit-admin
//
// Conditions on TimeGenerated and Category become part of the SQL. All others
// are evaluated by kql row by row, so that the semantics are Kusto's and not
// SQL's.
package logstore
