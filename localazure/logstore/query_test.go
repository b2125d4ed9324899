// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package logstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nap-aks/nap/localazure/kql"
)

func TestQueriesOnLogTables(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	nap := `AzureDiagnostics | where Category == "node-auto-provisioning" `
	for _, c := range []struct{ query, want string }{
		// the queries of the documentation
		{`AzureDiagnostics | where Category == "node-auto-provisioning" | count`, `Count:long [5]`},
		{`AKSControlPlane | where Category == "karpenter-events" | project Level, Message`, `Level:string,Message:string ["info","Nominated Pod should schedule on: nodeclaim/np-1"] ["warning","DisruptionBlocked"]`},
		// where
		{nap + `and Level == "error" | project log_s`, `log_s:string ["{\"level\":\"ERROR\",\"message\":\"created nodeclaim\",\"NodeClaim\":{\"name\":\"np-3\"},\"cpu\":6,\"tags\":[\"a\",\"b3\"]}"]`},
		{nap + `| where Level =~ "WARNING" or Level != "info" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message contains "NODECLAIM" | count`, `Count:long [4]`},
		{`AKSControlPlane | where Message contains_cs "NODECLAIM" | count`, `Count:long [0]`},
		{`AKSControlPlane | where Message has "node" | count`, `Count:long [1]`},
		{`AKSControlPlane | where Message !has "nodeclaim" and Message hasprefix "disr" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message startswith "CREATED" and Message endswith "claim" | count`, `Count:long [2]`},
		{`AKSControlPlane | where Message matches regex "^Serving.*\\d+$" | count`, `Count:long [1]`},
		{`AKSControlPlane | where Level in ("error", "warning") | count`, `Count:long [3]`},
		{`AKSControlPlane | where Level !in~ ("ERROR", "WARNING") | count`, `Count:long [5]`},
		{`AKSControlPlane | where Message has_any ("registered", "blocked") | count`, `Count:long [1]`},
		{nap + `| where TimeGenerated > ago(150m) | count`, `Count:long [2]`},
		{nap + `| where TimeGenerated between (datetime(2026-11-24T08:00:00Z) .. 1h) | count`, `Count:long [2]`},
		{nap + `| where TimeGenerated >= datetime(2026-11-24 10:00) and not(isempty(pod_s)) | count`, `Count:long [2]`},
		{`AzureDiagnostics | where ResourceId endswith "/BETA" | project Resource, ResourceGroup, _ResourceId`, `Resource:string,ResourceGroup:string,_ResourceId:string ["BETA","MYRG","/subscriptions/s1/resourcegroups/myrg/providers/microsoft.containerservice/managedclusters/beta"]`},
		// columns
		{nap + `| extend p = parse_json(log_s) | where p.cpu > 4 | project name = tostring(p.NodeClaim.name), p.tags[1], twice = 2 * tolong(p["cpu"])`, `name:string,Column2:dynamic,twice:long ["np-3","b3",12] ["np-4","b4",16]`},
		{`AKSControlPlane | where Category == "node-auto-provisioning" and Properties.cpu == 2 | project Properties.NodeClaim.name`, `Properties_NodeClaim_name:dynamic ["np-1"]`},
		{`AKSAudit | project Verb, user = tostring(User.username), User.groups[0], ResponseStatus.code`, `Verb:string,user:string,Column3:dynamic,ResponseStatus_code:dynamic ["list","admin","system:masters",200]`},
		{nap + `| take 1 | project-keep Cat*, pod_s`, `Category:string,pod_s:string ["node-auto-provisioning","karpenter-0"]`},
		{nap + `| take 1 | project Level, pod_s | project-rename pod = pod_s | project-reorder pod | project-away Level`, `pod:string ["karpenter-0"]`},
		{`AKSControlPlane | distinct Level | order by Level asc`, `Level:string ["error"] ["info"] ["warning"]`},
		{nap + `| take 1 | mv-expand t = parse_json(log_s).tags | project t`, `t:dynamic ["a"] ["b0"]`},
		{`union AKSAudit, AKSControlPlane | summarize count() by Type | order by Type`, `Type:string,count_:long ["AKSControlPlane",8] ["AKSAudit",1]`},
		// summarize
		{`AKSControlPlane | summarize count() by Category | order by count_ desc, Category asc`, `Category:string,count_:long ["node-auto-provisioning",5] ["karpenter-events",2] ["kube-apiserver",1]`},
		{nap + `| extend cpu = tolong(parse_json(log_s).cpu) | summarize n = count(), sum(cpu), avg(cpu), min(cpu), max(cpu), dcount(Level), errors = countif(Level == "error"), percentile(cpu, 50)`, `n:long,sum_cpu:long,avg_cpu:real,min_cpu:long,max_cpu:long,dcount_Level:long,errors:long,percentile_cpu_50:long [5,20,4,0,8,3,1,4]`},
		{nap + `| summarize n = count() by bin(TimeGenerated, 2h) | order by TimeGenerated asc`, `TimeGenerated:datetime,n:long ["2026-11-24T06:00:00.0000000Z",1] ["2026-11-24T08:00:00.0000000Z",2] ["2026-11-24T10:00:00.0000000Z",2]`},
		{nap + `| summarize arg_max(TimeGenerated, Level, log_s) | project TimeGenerated, Level`, `TimeGenerated:datetime,Level:string ["2026-11-24T11:00:00.0000000Z","info"]`},
		{nap + `| summarize levels = make_set(Level), l = make_list(Level, 2), half = round(count() / 2.0, 1)`, `levels:dynamic,l:dynamic,half:real [["info","warning","error"],["info","info"],2.5]`},
		{`AKSControlPlane | where Level == "nothing" | summarize count(), max(TimeGenerated)`, `count_:long,max_TimeGenerated:datetime [0,null]`},
		{`AKSControlPlane | where Level == "nothing" | summarize count() by Level`, `Level:string,count_:long`},
		// order and limits
		{nap + `| sort by TimeGenerated asc | take 2 | project h = hourofday(TimeGenerated)`, `h:long [7] [8]`},
		{nap + `| top 2 by TimeGenerated | project h = hourofday(TimeGenerated)`, `h:long [11] [10]`},
		{nap + `| order by Level asc, TimeGenerated desc | project Level | limit 3`, `Level:string ["error"] ["info"] ["info"]`},
		{`AzureDiagnostics | render timechart`, ``},
		// let and print
		{`let since = ago(90m); let cat = "node-auto-provisioning"; AzureDiagnostics | where Category == cat and TimeGenerated > since | count`, `Count:long [1]`},
		{"// a comment\nprint x = 1 + 2 * 3, y = -(4 - 6) / 4.0", `x:long,y:real [7,0.5]`},
	} {
		res, err := s.Query(context.Background(), Request{Query: c.query})
		if err != nil {
			t.Errorf("%s\n%v", c.query, err)
		} else if got := show(res); got != c.want && c.want != "" {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

func TestOperatorsOnLogTables(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, c := range []struct{ query, want string }{
		// join: the kinds, and what becomes of columns of one name
		{`AKSControlPlane | where Category == "node-auto-provisioning" | join kind=leftsemi (AKSControlPlane | where Level == "error" | project Message) on Message | count`, `Count:long [2]`},
		// union
		{`union withsource=T AKS* | summarize count() by T | sort by T asc`, `T:string,count_:long ["AKSAudit",1] ["AKSControlPlane",8]`},
		{`union isfuzzy=true AKSAudit, (AKSControlPlane | where Level == "error") | count`, `Count:long [2]`},
		{`AKSAudit | union AKSControlPlane | where Category == "kube-apiserver" | project Type`, `Type:string ["AKSControlPlane"]`},
		// let: tables, functions, values from tables
		{`let T = AKSControlPlane | where Category == "karpenter-events"; T | where Level == "warning" | union (T | where Level == "info") | project Level`, `Level:string ["warning"] ["info"]`},
		{`let T = materialize(AKSControlPlane | where Level == "error"); T | count`, `Count:long [1]`},
		{`let f = (m:string) { let short = substring(m, 0, 3); strcat(short, "!") }; AKSControlPlane | where Level == "error" | project x = f(Message)`, `x:string ["cre!"]`},
		{`let of = (lvl:string) { AKSControlPlane | where Level == lvl }; of("warning") | count`, `Count:long [2]`},
		{`let of = (T:(*), lvl:string) { T | where Level == lvl | count }; of((AKSControlPlane | where Category == "karpenter-events"), "info")`, `Count:long [1]`},
		{`let g = () { AKSControlPlane }; let h = view () { g() | where Level == "error" }; h | count`, `Count:long [1]`},
		{`let n = toscalar(AKSControlPlane | summarize max(TimeGenerated)); AKSControlPlane | where TimeGenerated == n | project Category`, `Category:string ["kube-apiserver"]`},
		{`let total = toscalar(AKSControlPlane | count); AKSControlPlane | summarize n = count() by Level | project Level, share = 100.0 * n / total | sort by Level asc`, `Level:string,share:real ["error",12.5] ["info",62.5] ["warning",25]`},
		{`let pods = AKSControlPlane | where Level == "error" | distinct PodName; AKSControlPlane | where PodName in (pods) | count`, `Count:long [5]`},
		{`AKSControlPlane | where Level !in ((AKSControlPlane | where Category == "karpenter-events" | project Level)) | project Level`, `Level:string ["error"]`},
		{`let words = datatable(w:string)["serving", "nothing"]; AKSControlPlane | where Message has_any (words) | count`, `Count:long [1]`},
		{`let cats = dynamic(["karpenter-events", "kube-apiserver"]); AKSControlPlane | where Category in (cats) | count`, `Count:long [3]`},
		// sources
		{`(AKSControlPlane | where Level == "error") | count`, `Count:long [1]`},
		// parse
		{`AKSControlPlane | parse-where Message with verb " nodeclaim" | summarize n = count() by verb | sort by verb asc`, `verb:string,n:long ["created",2] ["registered",1]`},
		{`AKSControlPlane | parse Message with "Nominated Pod should schedule on: " what | where isnotempty(what) | project what`, `what:string ["nodeclaim/np-1"]`},
		// make-series
		{`AKSControlPlane | where Category == "node-auto-provisioning" | make-series n = count() on TimeGenerated from datetime(2026-11-24 06:00) to datetime(2026-11-24 12:00) step 2h`, `n:dynamic,TimeGenerated:dynamic [[1,2,2],["2026-11-24T06:00:00.0000000Z","2026-11-24T08:00:00.0000000Z","2026-11-24T10:00:00.0000000Z"]]`},
		{`AKSControlPlane | where Category == "node-auto-provisioning" | make-series n = count() default = -1, last = max(TimeGenerated) default = datetime(null) on TimeGenerated step 1h by Level | project Level, n | sort by Level asc`, `Level:string,n:dynamic ["error",[-1,1,-1,-1,-1]] ["info",[1,-1,-1,1,1]] ["warning",[-1,-1,1,-1,-1]]`},
		{`AKSControlPlane | where Level == "nothing" | make-series count() on TimeGenerated step 1h`, `count_:dynamic,TimeGenerated:dynamic`},
		// search
		{`search "securely" | project $table, Category`, `$table:string,Category:string ["AzureDiagnostics","kube-apiserver"] ["AKSControlPlane","kube-apiserver"]`},
		{`search in (AKSControlPlane) "NodeClaim" and not("registered") | count`, `Count:long [5]`},
		{`AKSControlPlane | search "created" or Level:"warning" | summarize count() by Level | sort by Level asc`, `Level:string,count_:long ["error",1] ["info",1] ["warning",2]`},
		{`search in (AKSControlPlane) "secur*" | count`, `Count:long [1]`},
		{`search in (AKSControlPlane) "*curely*" | count`, `Count:long [1]`},
		{`search in (AKSControlPlane) "127*6443" and Category == "kube-apiserver" | count`, `Count:long [1]`},
		{`search kind=case_sensitive in (AKSControlPlane) "SERVING" | count`, `Count:long [0]`},
		{`AKSControlPlane | where * has "6443" | project Level`, `Level:string ["info"]`},
		// small ones
		{`AKSControlPlane | project Level, n = 1 | getschema | project ColumnName, ColumnType`, `ColumnName:string,ColumnType:string ["Level","string"] ["n","long"]`},
		{`AKSControlPlane | as x | serialize | where Level == "error" | count`, `Count:long [1]`},
		{`AKSControlPlane | summarize count() by bin(TimeGenerated, 1h) | render timechart with (title="x") | count`, `Count:long [5]`},
	} {
		if got := ask(t, s, c.query); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

// nodeClaims writes what the controller logs about three NodeClaims: one was
// deleted after two hours, one still runs, one failed to launch.
func nodeClaims(t testing.TB, s *Store) {
	t.Helper()
	at := func(h float64) time.Time { return testNow.Add(time.Duration((h - 12) * float64(time.Hour))) }
	var recs []Record
	line := func(hour float64, level, msg, claim string, more string) {
		recs = append(recs, Record{Time: at(hour), Category: "node-auto-provisioning", Level: level, Message: msg, Cluster: clusterA, Pod: "nap-controller-0",
			Properties: json.RawMessage(fmt.Sprintf(`{"level":%q,"time":%q,"message":%q,"NodeClaim":{"name":%q}%s}`, strings.ToUpper(level), at(hour).Format(time.RFC3339), msg, claim, more))})
	}
	line(8, "info", "launched nodeclaim", "np-a", `,"instance-type":"Standard_D4s_v5","zone":"eastus-1"`)
	line(8.5, "info", "launched nodeclaim", "np-b", `,"instance-type":"Standard_D8s_v5","zone":"eastus-2"`)
	line(9.25, "error", "failed launching nodeclaim: SkuNotAvailable", "np-c", ``)
	line(10, "info", "deleted nodeclaim", "np-a", ``)
	line(10.5, "info", "placed pods", "", `,"pods":12,"claims":2`)
	if err := s.Append(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
}

// Typical questions about a cluster with node auto-provisioning.
func TestQueriesAboutACluster(t *testing.T) {
	s := openStore(t)
	nodeClaims(t, s)
	for name, c := range map[string]struct{ query, want string }{
		"NodeClaims and how long they lived": {`
let claims = AKSControlPlane
    | where Category == "node-auto-provisioning"
    | extend claim = tostring(Properties.NodeClaim.name);
claims
| where Message == "launched nodeclaim"
| project claim, size = tostring(Properties["instance-type"]), launched = TimeGenerated
| join kind=leftouter (claims | where Message == "deleted nodeclaim" | project claim, deleted = TimeGenerated) on claim
| extend lifetime = coalesce(deleted, now()) - launched, state = iff(isnull(deleted), "running", "deleted")
| project claim, size, lifetime, state
| order by claim asc`,
			`claim:string,size:string,lifetime:timespan,state:string ["np-a","Standard_D4s_v5","02:00:00","deleted"] ["np-b","Standard_D8s_v5","03:30:00","running"]`},
		"decisions per hour": {`
AzureDiagnostics
| where Category == "node-auto-provisioning"
| extend p = parse_json(log_s)
| where tostring(p.message) has_any ("launched", "deleted", "placed")
| summarize decisions = count() by hour = bin(TimeGenerated, 1h)
| order by hour asc
| render columnchart`,
			`hour:datetime,decisions:long ["2026-11-24T08:00:00.0000000Z",2] ["2026-11-24T10:00:00.0000000Z",2]`},
		"the same with the hours in which nothing was decided": {`
AKSControlPlane
| where Category == "node-auto-provisioning" and Level == "info"
| make-series decisions = count() default = 0 on TimeGenerated from datetime(2026-11-24 08:00) to datetime(2026-11-24 12:00) step 1h
| project decisions`,
			`decisions:dynamic [[2,0,2,0]]`},
		"error rate": {`
AKSControlPlane
| where TimeGenerated > ago(1d)
| summarize total = count(), errors = countif(Level in~ ("ERROR", "fatal")) by Category
| extend rate = round(100.0 * errors / total, 1)
| top 5 by rate desc`,
			`Category:string,total:long,errors:long,rate:real ["node-auto-provisioning",5,1,20]`},
		"why launches failed": {`
AKSControlPlane
| where Level == "error"
| parse Message with "failed launching nodeclaim: " reason
| summarize failures = count(), last = max(TimeGenerated), claims = make_set(tostring(Properties.NodeClaim.name)) by reason`,
			`reason:string,failures:long,last:datetime,claims:dynamic ["SkuNotAvailable",1,"2026-11-24T09:15:00.0000000Z",["np-c"]]`},
		"NodeClaims that were launched and never deleted": {`
let launched = AKSControlPlane | where Message == "launched nodeclaim" | project claim = tostring(Properties.NodeClaim.name), zone = tostring(Properties.zone);
let deleted = AKSControlPlane | where Message == "deleted nodeclaim" | project name = tostring(Properties.NodeClaim.name);
launched | join kind=leftanti deleted on $left.claim == $right.name`,
			`claim:string,zone:string ["np-b","eastus-2"]`},
	} {
		if got := ask(t, s, c.query); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// Conditions that SQLite evaluates must not change the result.
func TestPushdownKeepsResults(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, cond := range []string{
		`Category == "karpenter-events"`, `Category in ("kube-apiserver","karpenter-events")`, `Category != "kube-apiserver"`, `Category == "a" or Category == "karpenter-events"`,
		`TimeGenerated > ago(2h)`, `TimeGenerated <= ago(2h) and Category == "node-auto-provisioning"`, `TimeGenerated == ago(2h)`, `TimeGenerated between (ago(3h) .. ago(1h))`, `not(Category == "kube-apiserver")`,
		`TimeGenerated > datetime(1500-01-01)`, `TimeGenerated < datetime(2500-01-01)`, `TimeGenerated == datetime(1500-01-01)`, // beyond int64 nanoseconds
	} {
		pushed, err := s.Query(context.Background(), Request{Query: `AKSControlPlane | where ` + cond})
		if err != nil {
			t.Fatal(err)
		}
		kept, err := s.Query(context.Background(), Request{Query: `AKSControlPlane | extend z = 1 | where ` + cond + ` | project-away z`})
		if err != nil {
			t.Fatal(err)
		}
		if show(pushed) != show(kept) {
			t.Errorf("%s:\n%s\nand without pushdown\n%s", cond, show(pushed), show(kept))
		}
	}
}

func TestViewsAndTimespanLimitTheRecords(t *testing.T) {
	s := openStore(t)
	seed(t, s)
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{Views: []View{{Cluster: strings.ToUpper(clusterB)}}}, `Count:long [1]`},
		{Request{Views: []View{}}, `Count:long [0]`},
		{Request{Views: []View{{Cluster: clusterA}, {Cluster: clusterB}}}, `Count:long [9]`},
		{Request{Views: []View{{Cluster: clusterA, Category: "node-auto-provisioning"}}}, `Count:long [5]`},
		{Request{Views: []View{{Cluster: clusterA, Category: "node-auto-provisioning"}, {Cluster: clusterB, Category: "nothing"}}}, `Count:long [5]`},
		{Request{Views: []View{{Cluster: clusterA, Since: testNow.Add(time.Hour)}}}, `Count:long [0]`},
		{Request{From: testNow.Add(-45 * time.Minute), To: testNow.Add(-10 * time.Minute)}, `Count:long [2]`},
	} {
		c.req.Query = "AzureDiagnostics | count"
		res, err := s.Query(context.Background(), c.req)
		if err != nil || show(res) != c.want {
			t.Errorf("%+v: %v, %v, want %s", c.req, res, err, c.want)
		}
	}
}

func TestResultIsTruncated(t *testing.T) {
	s := openStore(t)
	recs := make([]Record, kql.MaxRowsReturned+5)
	for i := range recs {
		recs[i] = Record{Time: testNow, Category: "c", Message: fmt.Sprint(i)}
	}
	if err := s.Append(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
	res, err := s.Query(context.Background(), Request{Query: "AKSControlPlane | project Message"})
	if err != nil || len(res.Rows) != kql.MaxRowsReturned || !res.Truncated {
		t.Errorf("%d rows, truncated %v, %v", len(res.Rows), res.Truncated, err)
	}
}
