// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"strings"

	"github.com/nap-aks/nap/localazure/kql"
)

// Categories that hold Kubernetes audit events.
const (
	auditCategory      = "kube-audit"
	auditAdminCategory = "kube-audit-admin"
)

// table is a view of the records.
type table struct {
	schema  kql.Schema
	columns map[string]func(*row) any
	// categories are the only ones in the table or, with not, those that are
	// left out of it.
	categories []any
	not        bool
}

// tableColumn is a column of a table and the function that reads it from a
// record.
type tableColumn struct {
	kql.Column
	get func(r *row) any
}

func column(name string, typ kql.Type, get func(*row) any) tableColumn {
	return tableColumn{kql.Column{Name: name, Type: typ}, get}
}

// newTable adds to cols the columns that all tables have.
func newTable(name string, cols ...tableColumn) *table {
	t := &table{columns: map[string]func(*row) any{}, schema: kql.Schema{Name: name, Filterable: []string{"TimeGenerated", "Category"}}}
	add := func(cols ...tableColumn) {
		for _, c := range cols {
			t.schema.Columns = append(t.schema.Columns, c.Column)
			t.columns[c.Name] = c.get
		}
	}
	add(column("TimeGenerated", kql.DateTime, func(r *row) any { return r.rec.Time }),
		column("Category", kql.String, func(r *row) any { return r.rec.Category }),
		column("Level", kql.String, func(r *row) any { return r.rec.Level }))
	add(cols...)
	add(column("SourceSystem", kql.String, constant("Azure")),
		column("Type", kql.String, constant(name)),
		column("_ResourceId", kql.String, func(r *row) any { return strings.ToLower(r.rec.Cluster) }))
	return t
}

// logTables are all tables, in the order in which search reads them.
var logTables = []*table{
	newTable("AzureDiagnostics",
		column("ResourceId", kql.String, func(r *row) any { return strings.ToUpper(r.rec.Cluster) }),
		column("SubscriptionId", kql.String, segment("subscriptions", false)),
		column("ResourceGroup", kql.String, segment("resourceGroups", true)),
		column("ResourceProvider", kql.String, constant("MICROSOFT.CONTAINERSERVICE")),
		column("ResourceType", kql.String, constant("MANAGEDCLUSTERS")),
		column("Resource", kql.String, segment("managedClusters", true)),
		column("OperationName", kql.String, constant("Microsoft.ContainerService/managedClusters/diagnosticLogs/Read")),
		column("log_s", kql.String, func(r *row) any { return r.rec.line() }),
		column("pod_s", kql.String, pod),
		column("stream_s", kql.String, constant("stderr")),
	),
	controlPlaneTable(),
	auditTable("AKSAudit", auditCategory),
	auditTable("AKSAuditAdmin", auditAdminCategory),
}

func controlPlaneTable() *table {
	t := newTable("AKSControlPlane",
		column("Message", kql.String, func(r *row) any { return r.rec.Message }),
		column("PodName", kql.String, pod),
		column("Stream", kql.String, constant("stderr")),
		// Azure's table has no Properties: the whole record, if it was JSON.
		column("Properties", kql.Dynamic, func(r *row) any { return r.properties() }),
	)
	t.categories, t.not = []any{auditCategory, auditAdminCategory}, true
	return t
}

func auditTable(name, category string) *table {
	t := newTable(name,
		column("AuditId", kql.String, textProperty("auditID")),
		column("Stage", kql.String, textProperty("stage")),
		column("RequestUri", kql.String, textProperty("requestURI")),
		column("Verb", kql.String, textProperty("verb")),
		column("User", kql.Dynamic, property("user")),
		column("SourceIps", kql.Dynamic, property("sourceIPs")),
		column("UserAgent", kql.String, textProperty("userAgent")),
		column("ObjectRef", kql.Dynamic, property("objectRef")),
		column("ResponseStatus", kql.Dynamic, property("responseStatus")),
		column("RequestObject", kql.Dynamic, property("requestObject")),
		column("ResponseObject", kql.Dynamic, property("responseObject")),
		column("Annotations", kql.Dynamic, property("annotations")),
		column("PodName", kql.String, pod),
	)
	t.categories = []any{category}
	return t
}

// row is a record being read. Its JSON is decoded at most once.
type row struct {
	rec     *Record
	props   any
	decoded bool
}

func (r *row) properties() any {
	if !r.decoded {
		r.decoded = true
		if len(r.rec.Properties) > 0 {
			r.props = kql.ParseJSON(string(r.rec.Properties))
		}
	}
	return r.props
}

func constant(v any) func(*row) any { return func(*row) any { return v } }

func pod(r *row) any { return r.rec.Pod }

// segment returns the part of the cluster's resource ID that follows a word.
func segment(word string, upper bool) func(*row) any {
	return func(r *row) any {
		segs := strings.Split(r.rec.Cluster, "/")
		for i := 0; i+1 < len(segs); i++ {
			if strings.EqualFold(segs[i], word) {
				if upper {
					return strings.ToUpper(segs[i+1])
				}
				return segs[i+1]
			}
		}
		return ""
	}
}

func property(name string) func(*row) any {
	return func(r *row) any {
		m, _ := r.properties().(map[string]any)
		return m[name]
	}
}

func textProperty(name string) func(*row) any {
	get := property(name)
	return func(r *row) any { return kql.ToString(get(r)) }
}
