package kql

import (
	"strings"
)

// Categories that hold Kubernetes audit events.
const (
	auditCategory      = "kube-audit"
	auditAdminCategory = "kube-audit-admin"
)

// tableColumn is a column of a table and how a record fills it.
type tableColumn struct {
	Column
	get func(r *row) any
}

// row is a record being read: its JSON is decoded once, when asked for.
type row struct {
	rec   *Record
	props any
	ready bool
}

func (r *row) properties() any {
	if !r.ready {
		r.ready = true
		if len(r.rec.Properties) > 0 {
			r.props = parseJSON(string(r.rec.Properties))
		}
	}
	return r.props
}

// table is a view of the records.
type table struct {
	name string
	cols []tableColumn
	// categories: only these, or all but those when not is set
	categories []string
	not        bool
}

func constant(v any) func(*row) any { return func(*row) any { return v } }

// segment is a part of the cluster's resource ID by the word before it.
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

func property(path ...string) func(*row) any {
	return func(r *row) any {
		v := r.properties()
		for _, p := range path {
			v = member(v, p)
		}
		return v
	}
}

func textProperty(path ...string) func(*row) any {
	get := property(path...)
	return func(r *row) any { return text(get(r)) }
}

var commonColumns = []tableColumn{
	{Column{"TimeGenerated", DateTime}, func(r *row) any { return r.rec.Time }},
	{Column{"Category", String}, func(r *row) any { return r.rec.Category }},
	{Column{"Level", String}, func(r *row) any { return r.rec.Level }},
}

var tables = map[string]*table{}

func addTable(t *table, cols ...tableColumn) {
	t.cols = append(append([]tableColumn{}, commonColumns...), cols...)
	t.cols = append(t.cols,
		tableColumn{Column{"SourceSystem", String}, constant("Azure")},
		tableColumn{Column{"Type", String}, constant(t.name)},
		tableColumn{Column{"_ResourceId", String}, func(r *row) any { return strings.ToLower(r.rec.Cluster) }})
	tables[strings.ToLower(t.name)] = t
}

func init() {
	addTable(&table{name: "AzureDiagnostics"},
		tableColumn{Column{"ResourceId", String}, func(r *row) any { return strings.ToUpper(r.rec.Cluster) }},
		tableColumn{Column{"SubscriptionId", String}, segment("subscriptions", false)},
		tableColumn{Column{"ResourceGroup", String}, segment("resourceGroups", true)},
		tableColumn{Column{"ResourceProvider", String}, constant("MICROSOFT.CONTAINERSERVICE")},
		tableColumn{Column{"ResourceType", String}, constant("MANAGEDCLUSTERS")},
		tableColumn{Column{"Resource", String}, segment("managedClusters", true)},
		tableColumn{Column{"OperationName", String}, constant("Microsoft.ContainerService/managedClusters/diagnosticLogs/Read")},
		tableColumn{Column{"log_s", String}, func(r *row) any { return r.rec.line() }},
		tableColumn{Column{"pod_s", String}, func(r *row) any { return r.rec.Pod }},
		tableColumn{Column{"stream_s", String}, constant("stderr")},
	)
	addTable(&table{name: "AKSControlPlane", categories: []string{auditCategory, auditAdminCategory}, not: true},
		tableColumn{Column{"Message", String}, func(r *row) any { return r.rec.Message }},
		tableColumn{Column{"PodName", String}, func(r *row) any { return r.rec.Pod }},
		tableColumn{Column{"Stream", String}, constant("stderr")},
		// Properties is not a column on Azure: the whole record, where it was JSON.
		tableColumn{Column{"Properties", Dynamic}, property()},
	)
	for name, cats := range map[string][]string{"AKSAudit": {auditCategory}, "AKSAuditAdmin": {auditAdminCategory}} {
		addTable(&table{name: name, categories: cats},
			tableColumn{Column{"AuditId", String}, textProperty("auditID")},
			tableColumn{Column{"Stage", String}, textProperty("stage")},
			tableColumn{Column{"RequestUri", String}, textProperty("requestURI")},
			tableColumn{Column{"Verb", String}, textProperty("verb")},
			tableColumn{Column{"User", Dynamic}, property("user")},
			tableColumn{Column{"SourceIps", Dynamic}, property("sourceIPs")},
			tableColumn{Column{"UserAgent", String}, textProperty("userAgent")},
			tableColumn{Column{"ObjectRef", Dynamic}, property("objectRef")},
			tableColumn{Column{"ResponseStatus", Dynamic}, property("responseStatus")},
			tableColumn{Column{"RequestObject", Dynamic}, property("requestObject")},
			tableColumn{Column{"ResponseObject", Dynamic}, property("responseObject")},
			tableColumn{Column{"Annotations", Dynamic}, property("annotations")},
			tableColumn{Column{"PodName", String}, func(r *row) any { return r.rec.Pod }},
		)
	}
}

// allTables in the order in which a search goes through them.
var allTables = []string{"AzureDiagnostics", "AKSControlPlane", "AKSAudit", "AKSAuditAdmin"}

func tableNames() string { return "AzureDiagnostics, AKSControlPlane, AKSAudit and AKSAuditAdmin" }
