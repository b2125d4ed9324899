// Copyright The nap Authors.
// SPDX-License-Identifier: Apache-2.0

package kql

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const sequence = `let S = datatable(k:string, a:long) ["x", 1, "x", 2, "y", 2, "y", 4] | sort by a asc; `

// The semantics are those of Microsoft's pages on prev(), next(), row_number(),
// row_cumsum(), row_rank_dense(), row_rank_min() and row_window_session().
func TestWindowFunctions(t *testing.T) {
	sessions := `datatable(t:datetime) [datetime(2026-01-01 00:00), datetime(2026-01-01 00:04), datetime(2026-01-01 00:09), datetime(2026-01-01 00:13), datetime(null), datetime(2026-01-01 00:14)] | serialize s = row_window_session(t, 10m, 5m) | project s`
	for _, c := range []struct{ query, want string }{
		{sequence + `S | extend p = prev(a), n = next(a, 2, -1) | project-away k`, `a:long,p:long,n:long [1,null,2] [2,1,4] [2,2,-1] [4,2,-1]`},
		{sequence + `S | serialize gap = a - prev(a, 1, 0) | where gap > 0 | project a, gap`, `a:long,gap:long [1,1] [2,1] [4,2]`},
		{sequence + `S | where prev(k) != k | project k, a`, `k:string,a:long ["x",1] ["y",2]`},
		{sequence + `S | project k, n = row_number(), m = row_number(7, prev(k) != k), c = row_cumsum(a, prev(k) != k)`, `k:string,n:long,m:long,c:long ["x",1,7,1] ["x",2,8,3] ["y",3,7,2] ["y",4,8,6]`},
		{sequence + `S | project d = row_rank_dense(a), m = row_rank_min(a)`, `d:long,m:long [1,1] [2,2] [2,2] [3,4]`},
		{sequence + `S | extend a = row_cumsum(a) | take 2`, `k:string,a:long ["x",1] ["x",3]`},
		{`range i from 1 to 3 step 1 | extend s = row_cumsum(1.5 * i), p = prev(i, 5)`, `i:long,s:real,p:long [1,1.5,null] [2,4.5,null] [3,9,null]`},
		{sessions, `s:datetime ["2026-01-01T00:00:00.0000000Z"] ["2026-01-01T00:00:00.0000000Z"] ["2026-01-01T00:09:00.0000000Z"] ["2026-01-01T00:09:00.0000000Z"] [null] ["2026-01-01T00:14:00.0000000Z"]`},
		// the queries of users that once failed
		{`AKSControlPlane | sort by TimeGenerated asc | serialize gap=datetime_diff("minute", TimeGenerated, prev(TimeGenerated,1)) | where gap > 5 | project gap | take 2`, `gap:long [60] [60]`},
		{`let has_rows = (T:string) { toscalar(union isfuzzy=true (table(T) | count as Count), (print Count=0) | summarize sum(Count)) > 0 }; print has_rows("AKSAudit"), has_rows("Nothing")`, `print_0:bool,print_1:bool [true,false]`},
		{`AKSAudit | extend s = estimate_data_size(*) | summarize t=sum(s) by Verb | extend gb = format_bytes(t * 1000, 2, "MB")`, `Verb:string,t:long,gb:string ["list",103,"0.1 MB"]`},
		{`print a = 1, b = "abc", c = true, d = dynamic({"k":1}) | project estimate_data_size(a, b), estimate_data_size(c), estimate_data_size(d)`, `Column1:long,Column2:long,Column3:long [11,1,7]`},
		{`print format_bytes(564), format_bytes(10332, 1), format_bytes(20010332), format_bytes(20010332, 2, "KB")`, `print_0:string,print_1:string,print_2:string,print_3:string ["564 Bytes","10.1 KB","19 MB","19541.34 KB"]`},
		{`AKSControlPlane | summarize n = count() by Category, Level | evaluate pivot(Level, sum(n)) | sort by Category asc`, `Category:string,error:long,info:long,warning:long ["karpenter-events",0,1,1] ["node-auto-provisioning",1,1,1]`},
		// evaluate
		{sequence + `S | evaluate pivot(k)`, `a:long,x:long,y:long [1,1,0] [2,1,1] [4,0,1]`},
		{sequence + `S | extend z = 1 | evaluate pivot(k, max(a), z)`, `z:long,x:long,y:long [1,2,4]`},
		{`datatable(i:long, d:dynamic) [1, dynamic({"a":1,"b":"x"}), 2, dynamic({"a":2.5}), 3, dynamic(null)] | evaluate bag_unpack(d) | where a > 1`, `i:long,a:real,b:string [2,2.5,""]`},
		{`print i = 1, d = dynamic({"i":2,"j":3}) | evaluate bag_unpack(d, "d_", "error", dynamic(["j"]))`, `i:long,d_i:long [1,2]`},
		{`print i = 1, d = dynamic({"i":2}) | evaluate bag_unpack(d, "", "replace_source")`, `i:long [2]`},
		{`print i = 1, d = dynamic({"i":2}) | evaluate bag_unpack(d, "", "keep_source")`, `i:long [1]`},
		{`print i = 1, d = dynamic({"a":2}) | evaluate bag_unpack(d) : (*, a:string, b:long)`, `i:long,a:string,b:long [1,"2",null]`},
		{`print a = 1, b = "x" | evaluate narrow()`, `Row:long,Column:string,Value:string [0,"a","1"] [0,"b","x"]`},
		// partition, find, table
		{sequence + `S | partition by k (top 1 by a desc | extend n = row_number())`, `k:string,a:long,n:long ["x",2,1] ["y",4,1]`},
		{sequence + `S | partition hint.strategy=native by k { summarize s = sum(a) } | take 1`, `s:long [3]`},
		{`table("AKSAudit") | project Verb`, `Verb:string ["list"]`},
		{`let name = strcat("AKS", "Audit"); table(name) | count`, `Count:long [1]`},
		{`union isfuzzy=true Nothing, AKSAudit | count as N`, `N:long [1]`},
		{`find in (AKSAudit, AKSControlPlane) where Message has "registered" or Verb == "list" project Category, Verb | sort by source_ asc`, `source_:string,Category:string,Verb:string ["AKSAudit","kube-audit","list"] ["AKSControlPlane","karpenter-events",""]`},
		{`find withsource=T in (AKSAudit) "admin" | project T, pack_.Verb`, `T:string,pack__Verb:dynamic ["AKSAudit",null]`},
		{`find withsource=T in (AKSAudit, AKSControlPlane) Verb == "list" | project T, Verb, uri = tostring(pack_.RequestUri)`, `T:string,Verb:string,uri:string ["AKSAudit","list","/api/v1/nodes"]`},
	} {
		if got := ask(t, c.query); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

func TestWindowAndPluginErrors(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{`AKSControlPlane | extend p = prev(Level)`, "the rows must be serialized; put 'sort by' or 'serialize' before it at line 1, position 30"},
		{`AKSControlPlane | sort by Level | distinct Level | extend p = prev(Level)`, "must be serialized"},
		{`AKSControlPlane | serialize | summarize max(prev(Level))`, "can only be used in extend, project, serialize and where"},
		{`AKSControlPlane | serialize p = prev()`, "takes 1 to 3 arguments, not 0"},
		{`AKSControlPlane | serialize p = prev(Level, strlen(Level))`, "argument 2 of 'prev' must be a constant"},
		{`AKSControlPlane | serialize p = row_cumsum(Level)`, "adds numbers or timespans"},
		{`AKSControlPlane | serialize p = row_window_session(Level, 1h, 1h)`, "needs a datetime"},
		{`AKSControlPlane | evaluate autocluster()`, "the plugin 'autocluster' of evaluate is not supported; use one of bag_unpack, narrow, pivot at line 1, position 28"},
		{`AKSControlPlane | evaluate bag_unpack(Level)`, "needs a column of type dynamic"},
		{`AKSControlPlane | evaluate bag_unpack(properties)`, "did you mean 'Properties'?"},
		{`print i = 1, d = dynamic({"i":2}) | evaluate bag_unpack(d)`, "which the table has already"},
		{`AKSControlPlane | evaluate pivot(Level, strlen(Level))`, "must be an aggregate"},
		{`AKSControlPlane | partition by Level (evaluate pivot(Category))`, "cannot be used inside mv-apply and partition"},
		{`AKSControlPlane | partition by Properties (count)`, "cannot compare dynamic values"},
		{`AKSControlPlane | where table("AKSAudit") == 1`, "unknown function 'table'"},
		{`table(5)`, "the name of a table as a string"},
		{`table("Nothing") | count`, "failed to resolve table named 'Nothing'"},
		{`union isfuzzy=true Nothing, Void`, "failed to resolve table named 'Nothing'"},
		{`AKSControlPlane | extend x = series_stats(Level)`, "the function 'series_stats' is not supported"},
		{`range i from 1 to 1001 step 1 | extend s = tostring(i) | evaluate pivot(s)`, "more than 1000 columns"},
	} {
		_, err := query(t.Context(), c.query)
		var fault *Error
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n got %v\nwant %s", c.query, err, c.want)
		}
	}
}

// The reference page lists what the parser and the tables have.
func TestReferenceAgreesWithTheLanguage(t *testing.T) {
	l := Reference()
	for _, name := range l.Operators {
		if _, err := query(t.Context(), "AKSAudit | "+name+" ("); err != nil && strings.Contains(err.Error(), "is not supported") {
			t.Errorf("operator %s: %v", name, err)
		}
	}
	for _, name := range l.Missing["operator"] {
		if _, err := query(t.Context(), "AKSAudit | "+name+" x"); err == nil || !strings.Contains(err.Error(), "the operator '"+name+"' is not supported") {
			t.Errorf("operator %s: %v", name, err)
		}
	}
	for kind, names := range l.Missing {
		for _, name := range names {
			if slices.ContainsFunc(l.Functions, func(f Function) bool { return f.Name == name }) || slices.Contains(l.Operators, name) {
				t.Errorf("the %s %s is there and listed as missing", kind, name)
			}
			if _, err := query(t.Context(), "AKSAudit | summarize x = "+name+"(Verb)"); kind == "aggregate" && err == nil {
				t.Errorf("the aggregate %s is listed as missing", name)
			}
		}
	}
	for name := range windowFunctions {
		if !slices.ContainsFunc(l.Functions, func(f Function) bool { return f.Name == name && f.Kind == "window" }) {
			t.Errorf("%s is not in the reference", name)
		}
	}
	// every call that Reference lists with its smallest number of arguments is known
	for _, f := range l.Functions {
		q := "AKSAudit | serialize x = " + f.Name + "(" + strings.Repeat("Verb,", f.Min)
		_, err := query(t.Context(), strings.TrimSuffix(q, ",")+")")
		if err != nil && (strings.Contains(err.Error(), "unknown function") || strings.Contains(err.Error(), "is not supported")) && f.Kind != "plugin" {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}
