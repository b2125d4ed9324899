// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

// Package monitor implements parts of Azure Monitor: diagnostic settings
// (Microsoft.Insights) and Log Analytics workspaces
// (Microsoft.OperationalInsights), the query endpoint of Log Analytics, and the
// Collector of the logs and events of clusters.
//
// One store has the logs of the whole instance, independent of settings. A
// workspace is a view of it: it shows the rows of the resources and categories
// that a diagnostic setting sends to it, from the time the setting was created,
// as on Azure. The package finds clusters in etcd and their logs in the
// directory of log files.
package monitor
