// Package monitor is what the local Azure has of Azure Monitor: diagnostic
// settings (Microsoft.Insights) and Log Analytics workspaces
// (Microsoft.OperationalInsights), the query endpoint of Log Analytics, and the
// Collector that reads the logs and events of clusters.
//
// Logs are kept once, whatever the settings say, in one store for the whole
// instance. A workspace is a view of it: it shows the rows of those resources
// and categories that a diagnostic setting sends to it, from the moment the
// setting was made, as on Azure. Clusters and their logs are found through
// etcd and the folder of log files; this package starts nothing.
package monitor
